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
from ipaddress import ip_address
from itertools import chain
from pathlib import Path
from typing import TypeVar

from agent.decide import hosts, nft_rules, nft_text
from agent.decide.nft_rules import ANY, ANY_6, Backend, Member, Served
from agent.kit.errors import GoraeError, Permanent, Temporary, UserError
from agent.kit.layout import Layout
from agent.kit.pools import ADDRESS_POOL_6, Slice
from agent.network import conntrack, forwarding, names, nft, surroundings, watching
from agent.network.coalesce import Coalesced
from agent.network.relay import LOCAL, Door, Relay, Target
from agent.network.wire import Wire, link_name, seats
from agent.ports import Attachment, NameFiles, Serving, Surroundings
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
        registry_6 = registry.with_stem(f"{registry.stem}-6")
        self._forwarding_6 = forwarding.Forwarding(instance, registry_6, forwarding.IPV6)
        self._wire = Wire(instance, slice_)
        self._links, self._filter = _thread("links"), _thread("nft")
        self._members: dict[str, tuple[Member, ...]] = {}  # its places, one of each family that it has
        self._served: dict[str, frozenset[Served]] = {}
        self._backends: dict[str, frozenset[Backend]] = {}
        self._relay, self._locally = Relay(), asyncio.Lock()
        self._local: dict[str, Mapping[Door, Target]] = {}  # task → what it answers for on ::1
        self._unheard: frozenset[Door] = frozenset()  # said once
        self._router: bool | None = None  # None: forwarding was not asked for yet
        self._router_6: bool | None = None
        self._committed: nft_text.Ruleset | None = None  # None: not known, the next commit looks at the table
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
        link = link_name(self._instance, attachment.index)
        members = seats(attachment, link)
        if before and before != members:
            await self.detach(task)
        self._members[task] = members  # before the wire, so that one commit serves all who attach together
        if self._router is None or (attachment.address_6 and self._router_6 is None):
            await self._commit()
        await self._on_links(f"attach task {task}", lambda: self._wire.connect(attachment, link))
        await self._commit()

    async def detach(self, task: str) -> None:
        _check_name(task)
        await self._ready()
        members = self._members.get(task)
        if members is None:
            present = await self._on_links(f"find the link of task {task}", self._wire.present)
            members = present.get(task, ())
        if members:
            self._doomed.add(members[0].link)
            await self._sweep()
        self._members.pop(task, None)
        self._served.pop(task, None)
        self._backends.pop(task, None)
        await self._answer_locally(task, {})
        await self._commit()
        names.remove(self._layout.run_tasks / task)
        if members:
            self._vacated |= {member.address for member in members}
            await self._forget()

    async def publish(self, task: str, serving: Serving) -> None:
        """In IPv6 as well, if the task has it. UserError bad-host-ip for a host_ip that is malformed, or of a family it
        has not."""
        await self._ready()
        addresses = [serving.address, *(one.address for one in self._members.get(task, ()) if ":" in one.address)]
        ports = [port for port in serving.ports if port.host_ip != LOCAL]
        served = frozenset(one for port in ports for one in _served(port, addresses))
        self._served.pop(task, None)
        self._backends.pop(task, None)
        if served:
            self._served[task] = served
        if serving.virtual:
            virtual = (serving.virtual, self._slice.twin(serving.virtual))
            ready = serving.state == "ready"
            self._backends[task] = frozenset(Backend(v, a, ready) for v, a in zip(virtual, addresses, strict=False))
        await self._commit()
        await self._answer_locally(
            task,
            {
                Door(port.protocol, port.published): (serving.address, port.target)
                for port in serving.ports
                if port.host_ip in ("", LOCAL)
            },
        )
        if serving.state == "gone":
            self._silent.update(addresses)
            await self._forget()

    async def names(
        self,
        task: str,
        hostname: str,
        address: str,
        peers: Mapping[str, tuple[str, ...]],
        *,
        address_6: str = "",
        domain: str = "",
        search: Sequence[str] | None = None,
        options: Sequence[str] = (),
        servers: Sequence[str] | None = None,
    ) -> NameFiles:
        _check_name(task)
        directory = self._layout.run_tasks / task
        files = NameFiles(*(directory / name for name in names.FILES))
        try:
            directory.mkdir(mode=0o711, parents=True, exist_ok=True)
            known, resolv = hosts.hosts(hostname, address, peers, domain, address_6), names.read(self._resolv)
            if servers is None:
                resolv = hosts.resolv(resolv, search, options)
            else:
                known += hosts.host_hosts(names.read(names.HOST_HOSTS))
                resolv = hosts.host_resolv(resolv, servers, search, options)
            names.rewrite(files.hosts, known)
            names.rewrite(files.resolv, resolv)
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
        await self._relay.close()
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
            while self._wanted():
                try:
                    if await self._on_filter(lambda: nft.table_present(self._table)):
                        break
                    self._committed = None
                    await self._commit()
                    log.warning("someone deleted the nftables table %s; it is back", self._table)
                except GoraeError as error:  # whatever it is (no nft any more): it must not end the agent
                    log.error("%s", error)
                    await asyncio.sleep(1)

    async def surroundings(self) -> Surroundings:
        """What of this host has a say in what tasks send and get; IPv6 only if a task has it."""
        pools = (self._slice.pool, *([ADDRESS_POOL_6] if self._router_6 is not None else []))
        forwards = (self._forwarding, self._forwarding_6)
        return await self._on_filter(lambda: surroundings.look(pools, link_name(self._instance, 0), forwards))

    def doors(self) -> frozenset[Door]:
        """Where this process listens itself, on ::1."""
        return self._relay.doors()

    # Work -------------------------------------------------------------------------------------------------------------

    async def _answer_locally(self, task: str, doors: Mapping[Door, Target]) -> None:
        """On ::1. What stands in the way there (no IPv6 on this host, a program that has the port) is no reason to
        serve nobody."""
        self._local.pop(task, None)
        if doors:
            self._local[task] = doors
        async with self._locally:
            wanted: dict[Door, list[Target]] = {}
            for _, theirs in sorted(self._local.items()):
                for door, target in theirs.items():
                    wanted.setdefault(door, []).append(target)
            failed = await self._relay.serve(wanted)
        for door, error in failed.items():
            if door not in self._unheard:
                log.warning("cannot serve %s port %d on ::1: %s", door.protocol, door.port, error.strerror)
        self._unheard = frozenset(failed)

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
        self._backends, self._served = {}, {}
        for task, members in self._members.items():
            addresses = {member.address for member in members}
            if answering := frozenset(one for one in backends if one.address in addresses):
                self._backends[task] = answering
            if served := frozenset(one for one in all_served if one.address in addresses):
                self._served[task] = served
        self._committed, self._router, self._router_6 = None, None, None
        await self._commit()
        kept = [member.address for members in self._members.values() for member in members]
        subnets = (self._slice.subnet, self._slice.subnet_6)
        await self._on_filter(lambda: conntrack.forget_strays(subnets, kept))
        self._observed = True

    async def _run_commit(self) -> None:
        if not self._wanted():
            await self._withdraw()
            return
        if self._router is None:
            self._router = await self._on_filter(self._forwarding.require)
            await self._on_links("refuse addresses that no task has", self._wire.prepare)
        if self._router_6 is None and any(":" in one.address for them in self._members.values() for one in them):
            self._router_6 = await self._on_filter(self._forwarding_6.require)
            await self._on_links("refuse addresses that no task has", self._wire.prepare_6)
        wanted = nft_rules.ruleset(self._policy(self._router))
        if wanted is self._committed:  # as for each but the first of many that attached together
            return
        committed, self._committed = self._committed, None  # not known until nft has answered
        await self._on_filter(lambda: _commit(committed, wanted))
        self._committed = wanted

    async def _withdraw(self) -> None:
        """No task is left: no table, no route, and the host forwards or not as it did before us."""
        self._committed, self._router, self._router_6 = None, None, None

        def undo() -> None:
            for table in filter(nft.table_present, (self._table, nft.shadow(self._table))):
                nft.commit(f"delete table inet {table}\n")
            for forwards in (self._forwarding, self._forwarding_6):
                forwards.release(lambda other: nft.table_present(nft_rules.table_name(other)))

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
        return nft_rules.Policy(
            self._instance,
            self._slice,
            router,
            self._router_6 is not False,
            frozenset(chain.from_iterable(self._members.values())),
            frozenset(chain.from_iterable(self._served.values())),
            frozenset(chain.from_iterable(self._backends.values())),
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


def _commit(committed: nft_text.Ruleset | None, wanted: nft_text.Ruleset) -> None:
    """What differs alone, if that can be; else, and when someone else changed our table meanwhile, all of it."""
    try:
        known = ([], committed) if committed is not None else nft.standing(wanted)
        if known is not None:
            first, old = known
            if change := nft_text.delta(old, wanted, first):
                nft.commit(change)
            return
    except Temporary:
        pass
    nft.commit(nft_text.whole(wanted))


def _check_name(name: str) -> None:
    if not _WORD.match(name):
        raise Permanent(f"cannot use {name!r} as the name of a task or stack", code="bad-name")


def _thread(name: str) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, f"network-{name}")


def _served(port: PublishedPort, addresses: Sequence[str]) -> list[Served]:
    """On every address of the host: of each family that the task has."""
    try:
        family = ip_address(port.host_ip).version if port.host_ip else 0
        found = [
            Served(port.protocol, port.published, port.host_ip or any_, address, port.target)
            for address in addresses
            for version, any_ in [(6, ANY_6) if ":" in address else (4, ANY)]
            if family in (0, version)
        ]
        if not found:
            raise ValueError("the container has no IPv6")
        for one in found:
            nft_rules.check(one)
    except ValueError as error:
        raise UserError(
            f"cannot publish port {port.published} on {port.host_ip or 'this host'}: {error}",
            code="bad-host-ip",
            hint="use an IPv4 address of this host, or leave it out; enable_ipv6 on its network gives it IPv6",
        ) from error
    return found
