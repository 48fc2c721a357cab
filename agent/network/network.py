"""The Network of design §8 on one host: routed veth pairs, one nftables table, published ports by DNAT.

The desired state lives here as plain values (members, served); decide/nft_rules.py turns it into text, and
one nft at a time commits it for all who wait. Nothing here is needed after a crash: pairs carry their task as alias,
the table records what it serves, and the next agent starts from those. When the last task is gone, so are table, route
and sysctl.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from agent.decide import hosts, nft_rules
from agent.decide.nft_rules import ANY, Backend, Member, Served
from agent.kit.errors import GoraeError, Permanent, Temporary, UserError
from agent.kit.layout import Layout
from agent.kit.pools import Slice
from agent.network import conntrack, forwarding, names, nft, routes, watching
from agent.network.coalesce import Coalesced
from agent.network.wire import Wire, link_name
from agent.ports import Attachment, NameFiles, Serving
from agent.wire.messages import PublishedPort

T = TypeVar("T")
log = logging.getLogger(__name__)
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}\Z")  # a task or stack: one path component, one word of an alias


class RoutedNetwork:
    """All blocking work runs in two threads: netlink in one, nft in the other. Both are in the host's namespace."""

    def __init__(
        self,
        layout: Layout,
        instance: str,
        slice_: Slice,
        *,
        registry: Path = forwarding.REGISTRY,
        resolv: Path = names.HOST_RESOLV,
    ) -> None:
        self._layout = layout
        self._instance = instance
        self._slice = slice_
        self._table = nft_rules.table_name(instance)
        self._resolv = resolv
        self._forwarding = forwarding.Forwarding(instance, registry)
        self._wire = Wire(instance, slice_.subnet)
        self._links, self._filter = _thread("links"), _thread("nft")
        self._members: dict[str, Member] = {}
        self._served: dict[str, frozenset[Served]] = {}
        self._backends: dict[str, Backend] = {}
        self._router: bool | None = None  # None: forwarding was not asked for yet
        self._committed: nft_rules.Ruleset | None = None  # None: not known, the next commit replaces the table
        self._doomed: set[str] = set()  # links to delete
        self._vacated: set[str] = set()  # addresses whose flows are to be forgotten: another task may get them
        self._silent: set[str] = set()  # addresses where nothing runs: clients that need not notice are to come anew
        self._observed = False
        self._observe = Coalesced(self._run_observe)
        self._commit = Coalesced(self._run_commit)
        self._sweep = Coalesced(self._run_sweep)
        self._forget = Coalesced(self._run_forget)

    # The Protocol -----------------------------------------------------------------------------------------------------

    async def attach(self, attachment: Attachment) -> None:
        """Temporary network-failed (with the object the kernel refused)."""
        task = attachment.task
        _check_name(task)
        _check_name(attachment.stack)
        await self._ready()
        before = self._members.get(task)
        if not attachment.networks:
            if before:
                await self.detach(task)
            await self._on_links(f"isolate task {task}", lambda: self._wire.isolate(attachment.net_ns))
            return
        networks = frozenset(map(nft_rules.network_id, attachment.networks))
        link = link_name(self._instance, attachment.index)
        member = Member(link, attachment.address, networks, attachment.outside, attachment.host)
        if before and before != member:
            await self.detach(task)
        self._members[task] = member  # before the wire, so that one commit serves all who attach together
        if self._router is None:
            await self._commit()
        await self._on_links(f"attach task {task}", lambda: self._wire.connect(attachment, member))
        await self._commit()

    async def detach(self, task: str) -> None:
        _check_name(task)
        await self._ready()
        member = self._members.get(task)
        if member is None:
            present = await self._on_links(f"find the link of task {task}", self._wire.present)
            member = present.get(task)
        if member:
            self._doomed.add(member.link)
            await self._sweep()
        self._members.pop(task, None)
        self._served.pop(task, None)
        self._backends.pop(task, None)
        await self._commit()
        names.remove(self._layout.run_tasks / task)
        if member:
            self._vacated.add(member.address)
            await self._forget()

    async def publish(self, task: str, serving: Serving) -> None:
        """UserError bad-host-ip for an IPv6 or malformed host_ip."""
        await self._ready()
        served = frozenset(_served(port, serving.address) for port in serving.ports)
        self._served.pop(task, None)
        self._backends.pop(task, None)
        if served:
            self._served[task] = served
        if serving.virtual:
            self._backends[task] = Backend(serving.virtual, serving.address, serving.state == "ready")
        await self._commit()
        if serving.state == "gone":
            self._silent.add(serving.address)
            await self._forget()

    async def names(
        self,
        task: str,
        hostname: str,
        address: str,
        peers: Mapping[str, tuple[str, ...]],
        *,
        domain: str = "",
        search: Sequence[str] | None = None,
        options: Sequence[str] = (),
    ) -> NameFiles:
        _check_name(task)
        directory = self._layout.run_tasks / task
        files = NameFiles(*(directory / name for name in names.FILES))
        try:
            directory.mkdir(mode=0o711, parents=True, exist_ok=True)
            names.rewrite(files.hosts, hosts.hosts(hostname, address, peers, domain))
            names.rewrite(files.resolv, hosts.resolv(names.read(self._resolv), search, options))
            names.rewrite(files.hostname, f"{hostname}\n")
        except OSError as error:
            raise Temporary(f"cannot write the names of task {task}: {error}", code="names-failed") from error
        return files

    async def list(self) -> frozenset[str]:
        await self._ready()
        present = await self._on_links("list the links", self._wire.present)
        return frozenset(present) | self._wanted()

    async def close(self) -> None:
        """With tasks left, only our threads and sockets end: what runs keeps its network. Usable again afterwards."""
        await self._ready()
        if not self._wanted():
            await self._commit()
        await self._on_links("close", self._wire.close)
        for thread in (self._links, self._filter):
            thread.shutdown()
        self._links, self._filter = _thread("links"), _thread("nft")
        self._observed = False

    # Besides the Protocol ---------------------------------------------------------------------------------------------

    async def watch(self) -> None:
        """Until cancelled: when someone else deletes our table (`nft flush ruleset`, a firewall's restart), put it
        back at once. Run it in the agent's task group."""
        async for _ in watching.deletions(self._table):
            while self._wanted() and not await self._on_filter(lambda: nft.table_present(self._table)):
                self._committed = None
                try:
                    await self._commit()
                    log.warning("someone deleted the nftables table %s; it is back", self._table)
                except GoraeError as error:  # whatever it is (no nft any more): it must not end the agent
                    log.error("%s", error)
                    await asyncio.sleep(1)

    async def warnings(self) -> tuple[str, ...]:
        """Sentences for `doctor`: what on this host stands in the way of forwarded packets."""
        pool = self._slice.pool
        return await self._on_filter(lambda: (*nft.forward_blockers(self._table, pool), *routes.overlaps(pool)))

    # Work -------------------------------------------------------------------------------------------------------------

    async def _ready(self) -> None:
        if not self._observed:
            await self._observe()

    async def _run_observe(self) -> None:
        """Take up what an earlier agent left: its pairs, and what its table served."""
        if self._observed:
            return
        await self._on_links("tidy the links", self._wire.tidy)
        self._members = await self._on_links("list the links", self._wire.present)
        all_served, backends = await self._on_filter(lambda: nft.recorded(self._table))
        tasks = {member.address: task for task, member in self._members.items()}
        self._backends = {tasks[one.address]: one for one in backends if one.address in tasks}
        self._served = {}
        for task, member in self._members.items():
            if served := frozenset(one for one in all_served if one.address == member.address):
                self._served[task] = served
        self._committed, self._router = None, None
        await self._commit()
        self._observed = True

    async def _run_commit(self) -> None:
        if not self._wanted():
            await self._withdraw()
            return
        if self._router is None:
            self._router = await self._on_filter(self._forwarding.require)
            await self._on_links("refuse addresses that no task has", self._wire.prepare)
        wanted = nft_rules.ruleset(self._policy(self._router))
        committed, self._committed = self._committed, None  # not known until nft has answered
        if committed is not None:
            change = nft_rules.delta(committed, wanted)
            try:
                if change:
                    await self._on_filter(lambda: nft.commit(change))
                self._committed = wanted
                return
            except Temporary:
                pass  # someone else changed our table: replace it
        await self._on_filter(lambda: nft.commit(nft_rules.whole(wanted)))
        self._committed = wanted

    async def _withdraw(self) -> None:
        """No task is left: no table, no route, and the host forwards or not as it did before us."""
        self._committed, self._router = None, None

        def undo() -> None:
            if nft.table_present(self._table):
                nft.commit(f"delete table inet {self._table}\n")
            self._forwarding.release(lambda other: nft.table_present(nft_rules.table_name(other)))

        await self._on_filter(undo)
        await self._on_links("remove the route of the subnet", self._wire.withdraw)

    async def _run_sweep(self) -> None:
        doomed, self._doomed = self._doomed, set()
        if doomed:
            try:
                await self._on_links(f"delete {len(doomed)} links", lambda: self._wire.remove(doomed))
            except BaseException:
                self._doomed |= doomed  # also theirs who wait for the next run
                raise

    async def _run_forget(self) -> None:
        vacated, self._vacated = self._vacated, set()
        silent, self._silent = self._silent, set()
        try:
            await self._on_filter(lambda: conntrack.forget(vacated, silent))
        except BaseException:
            self._vacated |= vacated
            self._silent |= silent
            raise

    def _wanted(self) -> frozenset[str]:
        """The tasks for which there is a table."""
        return frozenset(self._members) | frozenset(self._served) | frozenset(self._backends)

    def _policy(self, router: bool) -> nft_rules.Policy:
        served = frozenset(one for group in self._served.values() for one in group)
        members = frozenset(self._members.values())
        slice_ = self._slice
        return nft_rules.Policy(
            self._instance,
            slice_.subnet,
            slice_.pool,
            slice_.virtuals,
            router,
            members,
            served,
            frozenset(self._backends.values()),
        )

    async def _on_links(self, what: str, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._links, work)
        except OSError as error:
            hint = "is it out of memory?" if error.errno == errno.ENOMEM else ""
            raise Temporary(f"cannot {what}: {error}", code="network-failed", hint=hint, errno=error.errno) from error

    async def _on_filter(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._filter, work)
        except OSError as error:
            raise Temporary(f"cannot change the packet filter: {error}", code="nft-failed") from error


def _check_name(name: str) -> None:
    if not _WORD.match(name):
        raise Permanent(f"cannot use {name!r} as the name of a task or stack", code="bad-name")


def _thread(name: str) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, f"network-{name}")


def _served(port: PublishedPort, address: str) -> Served:
    try:
        served = Served(port.protocol, port.published, port.host_ip or ANY, address, port.target)
        nft_rules.check(served)
    except ValueError as error:
        raise UserError(
            f"cannot publish port {port.published} on {port.host_ip or 'this host'}: {error}",
            code="bad-host-ip",
            hint="use an IPv4 address of this host, or leave it out",
        ) from error
    return served
