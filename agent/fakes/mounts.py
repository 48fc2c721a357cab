"""A mount table that the test changes."""

from __future__ import annotations

import asyncio
import posixpath

from agent.ports import MountTable


class FakeMounts:
    """`points`: what is mounted; mount() and unmount() tell of it."""

    def __init__(self) -> None:
        self.points = {"/"}
        self._event = asyncio.Event()

    def mount(self, point: str) -> None:
        self.points.add(point)
        self._event.set()

    def unmount(self, point: str) -> None:
        self.points.discard(point)
        self._event.set()

    def table(self) -> MountTable:
        return MountTable(frozenset(self.points))

    def real(self, path: str) -> str:
        return posixpath.normpath(path)

    async def changed(self) -> None:
        await self._event.wait()
        self._event.clear()
