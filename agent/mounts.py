"""The host's mount table, and word of its changes: /proc/self/mountinfo (proc(5)), which poll(2) tells of."""

from __future__ import annotations

import asyncio
import os
import select
from pathlib import Path

from agent.kit import mounts
from agent.ports import MountTable

TABLE = Path("/proc/self/mountinfo")


def parse(text: str) -> MountTable:
    """The points, and those where an automounter waits: what it mounts below comes and goes by itself."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        point = mounts.unescape(before.split(" ", 5)[4])
        if found.get(point) != "autofs":
            found[point] = after.split(" ", 1)[0]
    return MountTable(frozenset(found), frozenset(point for point, kind in found.items() if kind == "autofs"))


class HostMounts:
    """Implements ports.Mounts. Made within the event loop that it wakes."""

    def __init__(self) -> None:
        self._file = os.open(TABLE, os.O_RDONLY | os.O_CLOEXEC)
        # The loop asks for readability, and the file is always readable: an epoll(7) between them asks for POLLPRI.
        self._epoll = select.epoll()
        self._epoll.register(self._file, select.EPOLLPRI)
        self._event = asyncio.Event()
        asyncio.get_running_loop().add_reader(self._epoll.fileno(), self._changed)

    def _changed(self) -> None:
        self._epoll.poll(0)  # asking is what makes it quiet again
        self._event.set()

    def table(self) -> MountTable:
        return parse(TABLE.read_text(errors="surrogateescape"))

    def real(self, path: str) -> str:
        return os.path.realpath(path)

    async def changed(self) -> None:
        await self._event.wait()
        self._event.clear()

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._epoll.fileno())
        self._epoll.close()
        os.close(self._file)
