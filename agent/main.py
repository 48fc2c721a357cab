"""gorae-agent: `python -m agent.main [--root DIR]`. The only place that wires concrete parts together.

Runs as root. Ending it, however it ends, touches no container; the next start adopts what runs.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import grp
import logging
import os
import pwd
import random
import resource
import shutil
import signal
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack

import uvloop

from agent.effects import Ports
from agent.host import RealHost
from agent.images.layer_writer import Limits
from agent.images.store import ImageStore
from agent.journal.journal import SqliteJournal, knows_tasks
from agent.kit import ids, pools, settings, syscalls
from agent.kit.clock import RealClock
from agent.kit.errors import GoraeError, UserError, leaf
from agent.kit.layout import Layout
from agent.kit.lock import own
from agent.kit.pools import Slice
from agent.kit.version import VERSION
from agent.logs import keeper
from agent.logs.logs import FileLogs
from agent.mounts import HostMounts
from agent.network import routes
from agent.network.flows import TrackedFlows
from agent.network.network import RoutedNetwork
from agent.probes.prober import HostProber
from agent.reconciler import Reconciler
from agent.resolver.link import ResolverLink
from agent.rootfs.overlay import OverlayRootfs
from agent.runtime import pidfd, seccomp
from agent.runtime.execs import Execs
from agent.runtime.runtime import CrunRuntime
from agent.runtime.spawn import PATH
from agent.sandbox.link import Helper
from agent.sandbox.sandboxes import PinnedSandboxes
from agent.streams.copying import CopyRequests
from agent.streams.execs import ExecRequests
from agent.streams.forwarding import ForwardRequests
from agent.streams.inside import InsideRequests
from agent.streams.server import StreamServer
from agent.volumes.volumes import HostVolumes
from agent.wire.broker import ORCHESTRATOR_USER, password_file
from agent.wire.bus import Bus
from agent.wire.mqtt import MqttBus

log = logging.getLogger("gorae.agent")
DESCRIPTORS = 65536


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="gorae-agent", description="Makes what is assigned so, and keeps it so.")
    parser.add_argument("--root", metavar="DIR", help="keep all state, sockets and configuration below DIR")
    layout = Layout.at(parser.parse_args(argv).root)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr)
    os.umask(0o022)
    status = 0
    try:
        lock = hold(layout)
        instance, slice_ = identify(layout)
        _more_descriptors()
        # A conmon whose parent has died must not become a child of a process that never waits for it.
        syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
        bus = MqttBus(layout.bus_socket, "agent", password_file(layout, "agent"))
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(layout, instance, slice_, bus, signals=True))
        os.close(lock)
    except* GoraeError as group:
        error = leaf(group)
        hint = error.hint if isinstance(error, GoraeError) else ""
        print(f"gorae-agent: {error}" + (f"\ntry  {hint}" if hint else ""), file=sys.stderr)
        status = 1
    return status


def hold(layout: Layout) -> int:
    """The lock that is held for life; UserError already-running names who holds it."""
    try:
        for directory, mode in ((layout.state, 0o711), (layout.run, 0o711), (layout.agent_dir, 0o700)):
            directory.mkdir(mode=mode, parents=True, exist_ok=True)
        # In the state, not in the runtime directory: that one may be lost while an agent holds it.
        lock = os.open(layout.agent_dir / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise UserError(
            f"cannot start the agent: {error.filename}: {error.strerror}",
            code="state-unusable",
            hint="run it as root, on a file system that can be written",
        ) from error
    return own(lock, "the agent", layout.state)


def _more_descriptors() -> None:
    """Two pidfds for each container, and more: the usual soft limit of 1024 ends at some hundred of them. Containers
    inherit it, so it stays below what makes programs that close every possible descriptor slow."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < DESCRIPTORS:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, DESCRIPTORS), hard))


def identify(layout: Layout) -> tuple[str, Slice]:
    """The instance's id, made at the first start, and its slice of the host's pools."""
    path = layout.instance_file
    try:
        instance = path.read_text().strip()
    except FileNotFoundError:
        instance = ids.instance_id()
        temporary = path.with_suffix(".tmp")
        temporary.write_text(instance + "\n")
        temporary.replace(path)
    if len(instance) != 8 or not set(instance) <= set("0123456789abcdef"):
        raise UserError(
            f"cannot start the agent: {path} holds no instance id",
            code="bad-instance",
            hint="write back the eight hex digits that `ip link` shows after the g of our links",
        )
    return instance, pools.claim(
        instance,
        layout.state,
        pool=settings.pool(layout.settings),
        held=knows_tasks(layout.journal) or any(layout.tasks.glob("*")),
        routes=[network for network, _ in routes.own()],
    )


async def serve(layout: Layout, instance: str, slice_: Slice, bus: Bus, *, signals: bool = False) -> None:
    """Start, run until SIGTERM or SIGINT (or cancelled), end in reverse order. A second signal ends it at once."""
    known = settings.read(layout.settings)
    limits = Limits(**known.get("images", {}))
    log_limits = keeper.Limits(**known.get("logs", {}))
    async with AsyncExitStack() as stack:
        journal = SqliteJournal(layout.journal)
        stack.push_async_callback(journal.close)
        helper = Helper()
        stack.callback(helper.close)
        sandboxes = PinnedSandboxes(layout, helper)
        network = RoutedNetwork(layout, instance, slice_)
        stack.push_async_callback(network.close)
        flows = TrackedFlows()
        stack.callback(flows.close)
        resolver = ResolverLink(layout)
        stack.push_async_callback(resolver.close)
        runtime = CrunRuntime(layout, instance)
        stack.callback(runtime.close)
        images, logs = ImageStore(layout, limits=limits), FileLogs(layout)
        host = RealHost(layout, slice_, network.doors)
        volumes, mounts, rootfs = HostVolumes(layout), HostMounts(), OverlayRootfs(layout)
        stack.callback(mounts.close)
        ports = Ports(
            instance=instance,
            clock=RealClock(),
            journal=journal,
            sandboxes=sandboxes,
            images=images,
            rootfs=rootfs,
            volumes=volumes,
            network=network,
            flows=flows,
            resolver=resolver,
            runtime=runtime,
            prober=HostProber(layout, instance, helper),
            logs=logs,
            mounts=mounts,
            seccomp=seccomp.default_profile(),
            init=shutil.which("catatonit", path=PATH),
            cgroup=runtime.cgroup_version(),
            boot_id=host.boot_id(),
            random=random.random,
        )
        agent = Reconciler(ports, host, bus, slice_, version=VERSION)
        log_keeper = keeper.Keeper(logs, ports.clock, log_limits, agent.log_limits, agent.tell_of_logs)
        uid, gid = _orchestrator()
        execs = Execs(layout, instance)
        server = StreamServer(
            layout.agent_socket,
            agent,
            images,
            images.shelf,
            images.logins,
            logs,
            volumes,
            rootfs,
            log_budget=log_limits.budget,
            inside=InsideRequests(layout, instance, agent).operations,
            conversations={
                **ExecRequests(layout, execs, agent, rootfs, runtime, ports.attendance).conversations,
                **CopyRequests(agent).conversations,
                **ForwardRequests(agent).conversations,
            },
            surroundings=network.surroundings,
            uid=uid,
            gid=gid,
        )
        gc.freeze()  # what start-up made stays: no collection walks it again
        stop = asyncio.Event()
        if signals:
            _on_signals(stop)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_until(stop), name="until a signal")
                group.create_task(agent.run(), name="agent")
                group.create_task(network.watch(), name="watch nftables")
                group.create_task(resolver.run(), name="resolver")
                group.create_task(pidfd.keep_reaping(ports.clock), name="reap orphans")
                await agent.ready.wait()
                group.create_task(log_keeper.run(), name="keep logs")
                group.create_task(execs.sweep(), name="end what the last agent ran")
                async with server.serving():
                    log.info("serving on %s, instance %s", layout.agent_socket, instance)
                    await stop.wait()
        except* _Stopped:
            log.info("ended; containers run on")


class _Stopped(Exception):
    """Asked to end."""


async def _until(stop: asyncio.Event) -> None:
    await stop.wait()
    raise _Stopped


def _on_signals(stop: asyncio.Event) -> None:
    def ask() -> None:
        if stop.is_set():
            os._exit(1)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ask)


def _orchestrator() -> tuple[int, int]:
    """Its user and group; root's on a host without them (the socket is then root's alone)."""
    try:
        return pwd.getpwnam(ORCHESTRATOR_USER).pw_uid, grp.getgrnam(ORCHESTRATOR_USER).gr_gid
    except KeyError:
        return 0, 0


if __name__ == "__main__":
    sys.exit(main())
