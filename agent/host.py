"""Facts of the host that the loops need and no other port tells: boot, capacity, whose parts are whose.

Read from /proc, /sys and our own directories; nothing here changes the host, except for the marker of this run.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import uuid
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path

from agent.kit.layout import Layout
from agent.kit.pools import TASKS, UID_POOL, UID_RANGE, Slice
from agent.network import routes
from agent.network.ports import free_port, listeners
from agent.network.relay import LOCAL, Door
from agent.ports import Capacity
from agent.wire.messages import Listener, Port, Route

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class RealHost:
    def __init__(self, layout: Layout, slice_: Slice, doors: Callable[[], Collection[Door]] = tuple) -> None:
        """`doors`: where this process itself listens for published ports, which is nobody else's listening."""
        self._layout = layout
        self._doors = doors
        self._slice = slice_

    def boot_id(self) -> str:
        """The kernel's, new at each boot (random(4))."""
        return BOOT_ID.read_text().strip()

    def run_id(self) -> str:
        """Changes when the host boots and when the runtime directory is lost: in both cases nothing of what ran is
        there any more. Kept in a file of that directory, with the boot id in it in case the directory is no tmpfs."""
        boot = self.boot_id()
        marker = self._layout.run / "boot"
        try:
            known = marker.read_text().strip()
        except FileNotFoundError:
            known = ""
        if known.partition(".")[0] == boot:
            return known
        made = f"{boot}.{uuid.uuid4().hex[:8]}"
        temporary = marker.with_suffix(".tmp")
        temporary.write_text(made)
        temporary.replace(marker)
        return made

    def capacity(self) -> Capacity:
        return Capacity(
            kernel=platform.release(),
            cgroup="v2" if Path("/sys/fs/cgroup/cgroup.controllers").exists() else "v1",
            cpus=len(os.sched_getaffinity(0)),
            memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            features={
                "overlay": "\toverlay\n" in Path("/proc/filesystems").read_text(),
                "seccomp": Path("/proc/sys/kernel/seccomp").exists(),
                "user_namespaces": Path("/proc/self/ns/user").exists(),
            },
            routes=tuple(Route(network=network, link=link) for network, link in routes.own()),
            pool=self._slice.pool,
        )

    async def listeners(self, known: tuple[Listener, ...] | None = None) -> tuple[Listener, ...]:
        """Listening sockets. `known`: the last answer; holders are looked up only when the sockets have changed: in a
        thread, for that is a walk over every open file of the host."""
        return await asyncio.to_thread(_listeners, known, {(LOCAL, *door) for door in self._doors()})

    def free_port(self, port: Port, taken: frozenset[int]) -> int:
        """Temporary no-free-port."""
        return free_port(port.protocol, port.host_ip, taken, port.among)

    def trace(self, task: str) -> tuple[str | None, int | None]:
        """The name of its log file tells the stack, or its bundle does; the owner of its writable layer the range of
        ids."""
        log = next(self._layout.logs.glob(f"*/*/*-{task}.log"), None)
        return (self._stack(task) if log is None else log.parent.parent.name), self._index(task)

    def _stack(self, task: str) -> str | None:
        for config in self._layout.run_tasks.glob(f"{task}/*/config.json"):
            with suppress(OSError, ValueError, KeyError, TypeError):  # removed, or torn, under our eyes
                return str(json.loads(config.read_text())["annotations"]["gorae.stack"])
        return None

    def _index(self, task: str) -> int | None:
        try:
            uid = os.lstat(self._layout.tasks / task / "upper").st_uid
        except OSError:
            return None
        index = (uid - UID_POOL) // UID_RANGE - self._slice.number * TASKS
        return index if 0 <= index < TASKS else None


def _listeners(known: tuple[Listener, ...] | None, ours: Collection[tuple[str, str, int]]) -> tuple[Listener, ...]:
    """`ours`: (address, protocol, port) where this process listens itself."""

    def foreign(found: tuple[Listener, ...]) -> tuple[Listener, ...]:
        return tuple(one for one in found if (one.address, one.protocol, one.port) not in ours)

    if known is not None:
        bare = foreign(listeners(frozenset()))
        if [(s.protocol, s.address, s.port) for s in bare] == [(s.protocol, s.address, s.port) for s in known]:
            return known
    return foreign(listeners())
