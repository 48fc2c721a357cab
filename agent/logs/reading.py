"""Many tasks' output as one: batches of whole records, older ones first, and on with what comes.

What is in memory at a time is bounded, however many tasks there are and however slow the reader is.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from agent.logs.stream import LEAST, Chunk, Stream
from agent.runtime import pidfd
from agent.runtime.inotify import IN_CREATE, IN_MODIFY, IN_MOVED_TO, IN_ONLYDIR, IN_Q_OVERFLOW, Inotify
from agent.wire.batches import Part, Place
from agent.wire.records import stamp

_MOST = 96 * 1024  # bytes of one task in a batch: as much as caches hold, in the agent and in its reader
_TOGETHER = 4 * 1024 * 1024  # bytes of all tasks
ROUGH = 1000  # nanoseconds; a moment in seconds, as a float, is not more exact
_PAUSE = 0.02  # seconds between two batches of what comes: a container may write a line at a time


class Source:
    """A task's stream, and what was read of it and not given out yet."""

    def __init__(self, path: Path) -> None:
        self.slot, _, self.task = path.stem.partition("-")
        self.service, self.stack = path.parent.name, path.parent.parent.name
        self.stream = Stream(path)
        self._chunk: Chunk | None = None
        self._given = 0  # bytes of the chunk
        self._drained = False

    def look(self, until: int | None = None) -> None:
        self._drained = False
        self.stream.look(until)

    def load(self, size: int) -> Chunk | None:
        if self._chunk is None and not self._drained:
            self._chunk, self._given = self.stream.read(size), 0
            self._drained = self._chunk is None or not self._chunk.more
        return self._chunk

    def take(self, horizon: int | None) -> Part | None:
        """What is loaded, up to that moment."""
        chunk = self._chunk
        if chunk is None:
            return None
        begin, end = self._given, len(chunk.data)
        if horizon is not None and chunk.last > horizon:
            end = _cut(chunk.data, begin, horizon)
        if end == len(chunk.data):
            self._chunk = None
        self._given = end
        lost = chunk.lost and not begin
        data = chunk.data[begin:end]
        return self._part(chunk.file, chunk.offset + begin, lost, data) if data else None

    def stand(self) -> Part:
        place = self.stream.place()
        return self._part(place.file, place.offset, False, b"")

    def _part(self, file: int, offset: int, lost: bool, data: bytes) -> Part:
        return Part(self.stack, self.service, int(self.slot), self.task, file, offset, lost, data)


def batches(sources: Collection[Source]) -> Iterator[list[Part]]:
    """What there was at their last look. Between two batches the caller gives way."""
    size = max(LEAST, min(_MOST, _TOGETHER // max(1, len(sources))))
    while True:
        loaded = [chunk for source in sources if (chunk := source.load(size)) is not None]
        if not loaded:
            return
        horizon = min((chunk.last for chunk in loaded if chunk.more), default=None)
        if len(loaded) == 1:
            horizon = None
        if parts := [part for source in sources if (part := source.take(horizon)) is not None]:
            yield parts


def begin(sources: Collection[Source], *, since: float | None, until: float | None, tail: int | None) -> None:
    """Set each to where it begins. `tail`: so many lines of each slot, beginning with what was written last."""
    wanted: dict[tuple[str, str, str], int] = {}
    for source in sorted(sources, key=lambda one: _written(one.stream.path), reverse=True):
        source.look(None if until is None else round(until * 1e9) + ROUGH)
        if tail is not None:
            slot = (source.stack, source.service, source.slot)
            wanted[slot] = source.stream.begin_at_tail(wanted.get(slot, tail))
        elif since is not None:
            source.stream.begin_since(round(since * 1e9))


def resume(sources: Collection[Source], after: Mapping[str, Place]) -> None:
    """Those that are not in `after` are new."""
    for source in sources:
        source.look()
        if source.task in after:
            source.stream.begin_after(after[source.task])


class Follower:
    """Goes on with what comes, new tasks, services and stacks included. `listed`: every task's current file."""

    def __init__(self, root: Path, stack: Path | None, listed: Callable[[], list[Path]]) -> None:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._root, self._stack, self._listed = root, stack, listed
        self._inotify = Inotify()
        self._watched: dict[int, Path] = {}
        self._quiet = 0.0  # loop time of the last look
        self._renew()

    async def follow(self, sources: dict[Path, Source], add: Callable[[Path], None]) -> AsyncIterator[list[Part]]:
        """`add`: puts a new one into `sources`. It ends only by being closed."""
        changed: Collection[Path] | None = None
        while True:
            gone: set[Path] = set()
            if changed is None:
                found = self._listed()
                for path in found:
                    if path not in sources:
                        add(path)
                changed, gone = list(sources), set(sources).difference(found)
            due = [sources[path] for path in changed if path in sources]
            for source in due:
                source.look()
            for parts in batches(due):
                yield parts
                await asyncio.sleep(0)
            for path in gone:
                sources.pop(path).stream.close()
            changed = await self._changes()

    async def _changes(self) -> set[Path] | None:
        """Current files of what was written; None: there may be others than before."""
        loop = asyncio.get_running_loop()
        await pidfd.readable(self._inotify.fd)
        await asyncio.sleep(max(0.0, self._quiet + _PAUSE - loop.time()))
        self._quiet = loop.time()
        written, new = set[Path](), False
        while events := list(self._inotify.events()):
            for number, mask, name in events:
                directory = self._watched.get(number)
                new = new or bool(mask & (IN_CREATE | IN_Q_OVERFLOW))
                if directory is not None and ".log" in name:
                    written.add(directory / (name.partition(".log")[0] + ".log"))
        if new:
            self._renew()
        return None if new else written

    def _renew(self) -> None:
        """A watch on each directory; those that have one keep it."""
        directories = [self._root]
        for stack in [self._stack] if self._stack is not None else _below(self._root):
            directories += [stack, *_below(stack)]
        for directory in directories:
            with suppress(FileNotFoundError, NotADirectoryError):
                self._watched[self._inotify.watch(directory, IN_MODIFY | IN_CREATE | IN_MOVED_TO | IN_ONLYDIR)] = (
                    directory
                )

    def close(self) -> None:
        self._inotify.close()


def _below(directory: Path) -> list[Path]:
    with suppress(FileNotFoundError, NotADirectoryError):
        return [child for child in directory.iterdir() if child.is_dir()]
    return []


def _written(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # put aside, and conmon has not opened another yet
        return float("inf")


def _cut(data: bytes, begin: int, horizon: int) -> int:
    """Where the first record after `begin` that is later than `horizon` begins."""
    low, high = begin, len(data)
    while low < high:
        middle = data.find(b"\n", (low + high) // 2, high) + 1
        if not middle or middle >= high:
            middle = low  # no record begins in the upper half: the lower one, a record at a time
            while middle < high and (after := data.find(b"\n", middle) + 1) and _earlier(data, middle, horizon):
                middle = after
            return middle
        if _earlier(data, middle, horizon):
            low = middle
        else:
            high = middle
    return low


def _earlier(data: bytes, place: int, horizon: int) -> bool:
    try:
        return stamp(data[place : place + 35]) <= horizon
    except ValueError:
        return True
