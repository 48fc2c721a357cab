"""What containers wrote: conmon appends, this reads, follows and rotates. Nothing here stands between a container and
its output: a dead agent loses no line.

STACK/SERVICE/SLOT-TASK.log; every attempt of a task appends to the same file. Tasks that are gone keep their files
until the stack is removed, until KEPT newer ones of the same slot have come, or until the budget of the host takes them
(keeper.py).
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections import deque
from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import suppress
from pathlib import Path

from agent.logs.reading import Follower, Source, batches, begin, resume
from agent.logs.rotated import RotatedFiles, component, task_of
from agent.logs.stream import LEAST, Stream
from agent.wire.batches import Part, Place
from agent.wire.records import Joiner, Line, mark

KEPT = 4  # earlier tasks of one slot


class FileLogs(RotatedFiles):
    def path(self, stack: str, service: str, slot: int, task: str) -> Path:
        directory = self._directory(stack, service)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = directory / f"{slot}-{component(task)}.log"
        if not path.exists():
            self._forget_old(directory, slot)
        return path

    def begin(self, stack: str, service: str, slot: int, task: str, attempt: int, at: float) -> Path:
        path = self.path(stack, service, slot, task)
        with suppress(OSError):  # a full disk: the container may run all the same
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                os.write(fd, mark(round(at * 1e9), attempt))
            finally:
                os.close(fd)
        self.watch(path)
        return path

    async def read(
        self,
        stack: str | None,
        services: Collection[str],
        *,
        follow: bool,
        since: float | None = None,
        until: float | None = None,
        tail: int | None = None,
        task: str | None = None,
        after: Mapping[str, Place] | None = None,
    ) -> AsyncGenerator[list[Part], None]:
        """follow: new tasks and services of the stack are picked up as they come; it ends only by being closed."""
        directory = None if stack is None else self._directory(stack, None)

        def listed() -> list[Path]:
            found = _logs(self._layout.logs, stack, services)
            return [path for path in found if task in (None, task_of(path))]

        def add(path: Path) -> None:
            sources[path] = source = Source(path)
            self._streams.add(source.stream)

        sources: dict[Path, Source] = {}
        follower = Follower(self._layout.logs, directory, listed) if follow else None
        try:
            for path in listed():
                add(path)
            if after is None:
                for own in _by_slot(sources.values()):
                    begin(own, since=since, until=until, tail=tail)
                    await asyncio.sleep(0)  # to find the beginning of a long tail takes a while
            else:
                resume(sources.values(), after)
            yield [source.stand() for source in sources.values()]
            for parts in batches(sources.values()):
                yield parts
                await asyncio.sleep(0)
            if follower is not None:
                async for parts in follower.follow(sources, add):
                    yield parts
        finally:
            for source in sources.values():
                source.stream.close()
                self._streams.discard(source.stream)
            if follower is not None:
                follower.close()

    async def tail(self, stack: str, service: str, slot: int, task: str, lines: int) -> tuple[str, ...]:
        if lines <= 0:
            return ()
        stream, joiner = Stream(self._directory(stack, service) / f"{slot}-{component(task)}.log"), Joiner()
        found: deque[Line] = deque(maxlen=lines)
        try:
            stream.look()
            stream.begin_at_tail(lines)
            while (chunk := stream.read(LEAST)) is not None:
                found += [item for raw in chunk.data.split(b"\n") if isinstance(item := joiner.feed(raw), Line)]
        finally:
            stream.close()
        found += joiner.rest()
        return tuple(line.text.decode(errors="replace") for line in found)

    async def remove(self, stack: str) -> None:
        with suppress(FileNotFoundError):
            await asyncio.to_thread(shutil.rmtree, self._directory(stack, None))

    def _forget_old(self, directory: Path, slot: int) -> None:
        old = [p for p in directory.glob(f"{slot}-*.log") if not (self._layout.run_tasks / task_of(p)).exists()]
        for path in sorted(old, key=lambda p: p.stat().st_mtime, reverse=True)[KEPT:]:
            for file in directory.glob(f"{path.name}*"):
                file.unlink(missing_ok=True)


def _by_slot(sources: Collection[Source]) -> Collection[list[Source]]:
    found: dict[tuple[str, str, str], list[Source]] = {}
    for source in sources:
        found.setdefault((source.stack, source.service, source.slot), []).append(source)
    return found.values()


def _logs(root: Path, stack: str | None, services: Collection[str]) -> list[Path]:
    """Every task's current file, rotated-only ones too (between a rename and conmon's new file)."""
    names = root.glob("*/*/*.log*") if stack is None else (root / component(stack)).glob("*/*.log*")
    found = {path.with_name(path.name.partition(".log")[0] + ".log") for path in names}
    return sorted(path for path in found if not services or path.parent.name in services)
