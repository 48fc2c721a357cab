"""The hands of a worker: each action of decide/action.py carried out through the ports. It decides nothing.

Success is returned as what is now seen; failure is a GoraeError. Every effect is idempotent, so that it may be repeated
after a crash in its middle.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from agent.attendance import Attendance
from agent.decide import hooks, mounts, networks
from agent.decide.oci_config import oci_config
from agent.decide.record import TaskRecord
from agent.decide.view import Hooked
from agent.decide.zone import besides, hostname, reaches_host
from agent.kit.clock import Clock
from agent.kit.errors import GoraeError, Temporary
from agent.kit.ids import Ulids
from agent.kit.troubles import Troubles
from agent.ports import (
    Attachment,
    BindSource,
    Bundle,
    Flows,
    ImageConfig,
    Images,
    Journal,
    Logs,
    Mounts,
    NameFiles,
    Network,
    Prober,
    Process,
    Resolver,
    Rootfs,
    Runtime,
    Sandbox,
    Sandboxes,
    UserIds,
    Volumes,
)
from agent.wire.messages import Hook, Task

LOOPBACK = "127.0.0.1"
_A = TypeVar("_A")
_B = TypeVar("_B")


@dataclass(slots=True)
class Ports:
    """Everything the loops reach the world through, and what all of them share."""

    instance: str
    clock: Clock
    journal: Journal
    sandboxes: Sandboxes
    images: Images
    rootfs: Rootfs
    volumes: Volumes
    network: Network
    flows: Flows
    resolver: Resolver
    runtime: Runtime
    prober: Prober
    logs: Logs
    mounts: Mounts
    seccomp: Mapping[str, Any] | None = None
    init: str | None = None  # the host's catatonit
    cgroup: Literal["v2", "v1"] = "v2"
    boot_id: str = ""  # the kernel's
    random: Callable[[], float] = lambda: 0.5
    ulids: Ulids = field(default_factory=Ulids)
    troubles: Troubles = field(default_factory=Troubles)
    attendance: Attendance = field(default_factory=Attendance)
    # On few cores more at once only makes each slower. Attaching to the network is outside: it gathers what comes
    # together into one transaction.
    preparing: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(4))
    starting: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(4))


@dataclass(frozen=True, slots=True)
class Prepared:
    """What the attempts of one task share, for as long as the agent lives."""

    image: ImageConfig
    sandbox: Sandbox
    rootfs: Path
    binds: tuple[BindSource, ...]
    names: NameFiles
    ids: UserIds
    hostname: str


async def write_names(ports: Ports, task: Task, record: TaskRecord, peers: networks.Names) -> NameFiles:
    """The files, then who answers other names: also a task whose look-ups nobody serves (any more) gets that here.
    `peers`: all that it finds on its networks. Its own service's name means its own address in it."""
    on = networks.memberships(record.stack, task.container)
    naming = task.container.naming
    in_host = task.container.network_mode == "host"
    place = record.joined or record.allocation
    address, address_6 = place.address or LOOPBACK, place.address_6
    own = (address, address_6) if address_6 else (address,)
    files = await ports.network.names(
        record.id,
        hostname(task),
        address,
        {**peers, **(besides(task, peers, LOOPBACK) if in_host else besides(task, peers)), record.service: own},
        address_6=address_6,
        domain=naming.domain,
        search=naming.search,
        options=naming.options,
        servers=naming.servers if in_host else None,
    )
    if on:
        await ports.resolver.serve(record.id)
    return files


async def prepare(
    ports: Ports,
    task: Task,
    record: TaskRecord,
    peers: networks.Names,
    image: ImageConfig,
    others: mounts.Others,
) -> Prepared:
    name = hostname(task)
    allocation = record.allocation
    async with ports.preparing:
        if (joined := record.joined) is not None:
            sandbox = await ports.sandboxes.join(record.id, joined.task, joined.uid_base)
        else:
            in_host = task.container.network_mode == "host"
            sandbox = await ports.sandboxes.ensure(record.id, allocation.uid_base, host_network=in_host)

    async def attach() -> NameFiles:
        if joined is not None or sandbox.net_ns is None:
            return await write_names(ports, task, record, peers)
        on = networks.memberships(record.stack, task.container)
        await ports.network.attach(
            Attachment(
                record.id,
                record.stack,
                sandbox.net_ns,
                allocation.index,
                allocation.address,
                frozenset(membership.network for membership in on),
                networks.reaches_outside(on),
                reaches_host(task),
                allocation.address_6,
                frozenset(membership.network for membership in on if membership.ipv6),
                task.container.mac,
                min((membership.mtu for membership in on if membership.mtu), default=0),
                tuple(subnet.subnet for membership in on for subnet in membership.subnets),
            )
        )
        return await write_names(ports, task, record, peers)

    async def mount() -> tuple[Path, tuple[BindSource, ...], UserIds]:
        async with ports.preparing:
            rootfs = await ports.rootfs.ensure(record.id, image, sandbox)
            binds = await ports.volumes.ensure(record.stack, mounts.of(task, image, others), sandbox, rootfs)
            user = image.user if task.container.user is None else task.container.user
            ids = await ports.rootfs.user(record.id, user)
        return rootfs, binds, ids

    names, (rootfs, binds, ids) = await _both(attach(), mount())
    return Prepared(image, sandbox, rootfs, binds, names, ids, name)


async def _both(first: Coroutine[Any, Any, _A], second: Coroutine[Any, Any, _B]) -> tuple[_A, _B]:
    """Both to their end, then the first error: a port must not be called again for a task while it is still at it."""
    one, other = await asyncio.gather(first, second, return_exceptions=True)
    if isinstance(one, BaseException):
        raise one
    if isinstance(other, BaseException):
        raise other
    return one, other


async def start(ports: Ports, task: Task, record: TaskRecord, prepared: Prepared) -> Process:
    config = oci_config(
        instance=ports.instance,
        stack=record.stack,
        task=task,
        attempt=record.attempt,
        image=prepared.image,
        ids=prepared.ids,
        sandbox=prepared.sandbox,
        rootfs=prepared.rootfs,
        binds=prepared.binds,
        names=prepared.names,
        seccomp=ports.seccomp,
        hostname=prepared.hostname,
        cgroup=ports.cgroup,
        init=ports.init,
    )
    bundle = Bundle(
        task=record.id,
        attempt=record.attempt,
        stack=record.stack,
        service=record.service,
        rootfs=prepared.rootfs,
        sandbox=prepared.sandbox,
        config=config,
        log=_log(ports, task, record),
    )
    first = hooks.before(task, record)

    async def prime(process: Process) -> None:
        done = await run_hooks(ports, record, process, first, "pre_start")
        if not done.ok:
            raise Temporary(done.message, code="pre-start", **done.evidence)
        if task.container.attended:
            await ports.attendance.hold(record.id, record.stack, record.service, process)

    if hooks.holds(task, record):  # that may take long, and then nobody must wait for it
        return await ports.runtime.start(bundle, prime)
    async with ports.starting:
        return await ports.runtime.start(bundle)


def _log(ports: Ports, task: Task, record: TaskRecord) -> Path | None:
    if not task.container.logged:
        return None
    now = ports.clock.wall()
    return ports.logs.begin(record.stack, record.service, record.slot, record.id, record.attempt, now)


async def run_hooks(ports: Ports, record: TaskRecord, process: Process, due: tuple[Hook, ...], kind: str) -> Hooked:
    """One after the other, until one fails."""
    for hook in due:
        text = " ".join(hook.command)[:200]
        try:
            ids = None if hook.user is None else await ports.rootfs.user(record.id, hook.user)
            result = await ports.prober.run(record.id, record.attempt, process, hook, ids, None)
        except GoraeError as error:
            return Hooked(False, f"cannot run the {kind} command {text!r}: {error.message}", dict(error.evidence))
        if not result.ok:
            how = "did not end well" if result.code is None else f"ended with {result.code}"
            evidence = {"hook": kind, "hook_output": result.output[-1024:], "hook_code": result.code}
            return Hooked(False, f"the {kind} command {text!r} {how}", evidence)
    return Hooked(True)


async def discard(ports: Ports, task: str, *, once: bool = False) -> None:
    """In the reverse order of prepare: what is on top goes first. `once`: with its anonymous volumes."""
    await ports.resolver.drop(task)
    await ports.network.detach(task)
    await ports.volumes.release(task)
    await ports.rootfs.remove(task)
    await ports.sandboxes.remove(task)
    if once:
        found = [info.name for info in await ports.volumes.list() if mounts.belongs(info, task)]
        await ports.volumes.remove(found)
