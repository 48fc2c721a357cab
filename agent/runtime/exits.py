"""conmon's exit files: the durable record of how an attempt ended."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

from agent.runtime.inotify import IN_MOVED_TO, Inotify


class ExitFiles:
    """Await conmon's exit files: one inotify watch on their directory, however many wait.

    conmon writes them by rename, so a file that is there is whole.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._inotify = Inotify()
        self._inotify.watch(directory, IN_MOVED_TO)
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._inotify.fd, self._wake)

    def _wake(self) -> None:
        for _, _, name in self._inotify.events():
            for event in self._waiting.get(name, ()):
                event.set()

    def read(self, cid: str) -> tuple[int, float] | None:
        """(code, when) of an attempt that is over."""
        path = self._directory / cid
        try:
            return int(path.read_text()), path.stat().st_mtime
        except (FileNotFoundError, ValueError):
            return None

    async def wait(self, cid: str, timeout: float) -> tuple[int, float] | None:
        # One each: who finds the file before the loop has told of it must not take the news with him.
        event, waiting = asyncio.Event(), self._waiting.setdefault(cid, set())
        waiting.add(event)
        try:
            if (found := self.read(cid)) is None:
                with suppress(TimeoutError):
                    await asyncio.wait_for(event.wait(), timeout)
                found = self.read(cid)
            return found
        finally:
            waiting.discard(event)
            if not waiting:
                self._waiting.pop(cid, None)

    def close(self) -> None:
        if not self._loop.is_closed():
            self._loop.remove_reader(self._inotify.fd)
        self._inotify.close()
