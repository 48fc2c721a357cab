"""What containers wrote: conmon appends, this reads, follows and rotates. Nothing here stands between a container and
its output: a dead agent loses no line.

STACK/SERVICE/SLOT-TASK.log; every attempt of a task appends to the same file. Tasks that are gone keep their files
until the stack is removed, until KEPT newer ones of the same slot have come, or until the budget of the host takes them
(keeper.py).
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import heapq
import os
import re
import shutil
import struct
import termios
from collections import deque
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from agent.kit import threads, trees
from agent.kit.errors import Permanent
from agent.kit.layout import Layout
from agent.logs.k8s import Record
from agent.logs.stream import FILES, Stream, generations
from agent.ports import LogFile, LogLine
from agent.runtime import pidfd
from agent.runtime.inotify import IN_CREATE, IN_MODIFY, IN_MOVED_TO, IN_ONLYDIR, Inotify

PATIENCE = 2.0  # seconds; conmon obeys within milliseconds
KEPT = 4  # earlier tasks of one slot
_NAME = re.compile(r"([0-9]{1,9})-(.+)\.log(?:\.([0-9]))?")
_YIELD = 200  # lines between two turns of the event loop
_AT_ONCE = 128 * 1024  # bytes of one log read between two turns, about 10 ms
_REOPEN = b"2 0 0\n"  # conmon's control message for "open the log file again"


class FileLogs:
    def __init__(self, layout: Layout, patience: float = PATIENCE) -> None:
        self._layout = layout
        self._patience = patience
        self._away: dict[Path, float] = {}  # rotated, and not opened anew yet: since when (loop time)

    def path(self, stack: str, service: str, slot: int, task: str) -> Path:
        directory = self._directory(stack, service)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = directory / f"{slot}-{_component(task)}.log"
        if not path.exists():
            self._forget_old(directory, slot)
        return path

    async def read(
        self,
        stack: str,
        services: Collection[str],
        *,
        follow: bool,
        since: float | None,
        until: float | None,
        tail: int | None,
    ) -> AsyncIterator[LogLine]:
        """follow: new tasks and services of the stack are picked up as they come; it ends only by being closed."""
        root = self._directory(stack, next(iter(services)) if len(services) == 1 else None)
        watch = _Watch(self._directory(stack, None), root) if follow else None
        streams: dict[Path, Stream] = {}
        try:
            for path in _logs(root, services):
                streams[path] = Stream(path, tail=tail if until is None else None)
            lines = heapq.merge(*(_lines(p, s, final=not follow) for p, s in streams.items()), key=lambda line: line.at)
            last: dict[tuple[str, int], deque[LogLine]] = {}
            for count, line in enumerate(lines, 1):
                if count % _YIELD == 0:
                    await asyncio.sleep(0)
                if (since is not None and line.at < since) or (until is not None and line.at > until):
                    continue
                if tail is None:
                    yield line
                else:
                    last.setdefault((line.service, line.slot), deque(maxlen=tail)).append(line)
            for line in heapq.merge(*last.values(), key=lambda line: line.at):
                yield line
            while watch is not None:
                for path in _logs(root, services):
                    if path not in streams:
                        streams[path] = Stream(path)
                fresh: list[LogLine] = []
                for path, stream in streams.items():
                    fresh += _lines(path, stream, limit=_AT_ONCE)
                    await asyncio.sleep(0)
                for line in sorted(fresh, key=lambda line: line.at):
                    yield line
                if not any(stream.more for stream in streams.values()):
                    await watch.wait()
        finally:
            for stream in streams.values():
                stream.close()
            if watch is not None:
                watch.close()

    async def tail(self, stack: str, service: str, slot: int, task: str, lines: int) -> tuple[str, ...]:
        if lines <= 0:
            return ()
        path = self._directory(stack, service) / f"{slot}-{_component(task)}.log"
        stream = Stream(path, tail=lines)
        try:
            return tuple(record.text for record in [*stream.read(), *stream.rest()])[-lines:]
        finally:
            stream.close()

    async def remove(self, stack: str) -> None:
        with suppress(FileNotFoundError):
            await asyncio.to_thread(shutil.rmtree, self._directory(stack, None))

    async def rotate_if_needed(self, at: int) -> int:
        """Call every few seconds; how many files were rotated. Loses nothing: conmon goes on writing to the renamed
        file until it has opened the new one.

        It must be told exactly once: conmon 2.1 puts a new, empty file in the place of whatever is there. So a file is
        only rotated when it exists (the last message was obeyed), and a message that was lost (we died between rename
        and message) is only sent again when the file stays away and nothing is on its way.
        """
        count, now = 0, asyncio.get_running_loop().time()
        away: dict[Path, float] = {}
        for path in self._layout.logs.glob("*/*/*.log*"):
            current = path.with_suffix("")
            if path.suffix == ".log" and path.stat().st_size >= at and self._live(_task_of(path)):
                self._rotate(path)
                count += 1
            elif path.name.endswith(".log.1") and not current.exists() and self._live(_task_of(current)):
                away[current] = self._away.get(current, now)
                if now - away[current] >= self._patience:
                    self._reopen(_task_of(current))
                    del away[current]
        self._away = away
        return count

    async def files(self) -> list[LogFile]:
        return await threads.run("count the logs", self._files)

    def _files(self) -> list[LogFile]:
        found = []
        for path in self._layout.logs.glob("*/*/*.log*"):
            name = _NAME.fullmatch(path.name)
            with suppress(FileNotFoundError):
                if name is not None and int(name[3] or 0) < FILES:
                    status = path.stat(follow_symlinks=False)
                    found.append(
                        LogFile(
                            path.parent.parent.name,
                            path.parent.name,
                            int(name[1]),
                            name[2],
                            int(name[3] or 0),
                            status.st_blocks * 512,
                            status.st_mtime,
                            self._live(name[2]),
                        )
                    )
        return found

    async def drop(self, files: Sequence[LogFile]) -> list[LogFile]:
        """Whether a file may be written is asked again, with nothing between that and its deletion."""
        gone = []
        for file in files:
            newest = self._directory(file.stack, file.service) / f"{file.slot}-{_component(file.task)}.log"
            *newer, path = generations(newest)[: file.generation + 1]
            if self._live(file.task) and not any(one.exists() for one in newer):
                continue
            path.unlink(missing_ok=True)
            gone.append(file)
            await asyncio.sleep(0)
        return gone

    def _rotate(self, path: Path) -> None:
        files = generations(path)
        for older, newer in zip(reversed(files), reversed(files[:-1]), strict=False):
            with suppress(FileNotFoundError):
                newer.replace(older)
        self._reopen(_task_of(path))

    def _reopen(self, task: str) -> None:
        """Tell the conmon of the newest attempt. A dead one has no reader (ENXIO): then nobody writes."""
        controls = sorted((self._layout.run_tasks / task).glob("[0-9]*/ctl"), key=lambda p: int(p.parent.name))
        if not controls:
            return
        try:
            fd = os.open(controls[-1], os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as error:
            if error.errno in (errno.ENXIO, errno.ENOENT):
                return
            raise
        try:
            waiting = struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, b"\0" * 4))[0]
            if waiting == 0:  # else one like this is still unread
                os.write(fd, _REOPEN)
        except BrokenPipeError:
            pass
        finally:
            os.close(fd)

    def _forget_old(self, directory: Path, slot: int) -> None:
        old = [p for p in directory.glob(f"{slot}-*.log") if not (self._layout.run_tasks / _task_of(p)).exists()]
        for path in sorted(old, key=lambda p: p.stat().st_mtime, reverse=True)[KEPT:]:
            for file in directory.glob(f"{path.name}*"):
                file.unlink(missing_ok=True)

    def _live(self, task: str) -> bool:
        """There is the bundle of an attempt: it is made before its conmon starts, and goes after that has ended."""
        return any(name.isdigit() for name in trees.names(self._layout.run_tasks / task))

    def _directory(self, stack: str, service: str | None) -> Path:
        directory = self._layout.logs / _component(stack)
        return directory if service is None else directory / _component(service)


class _Watch:
    """Anything new below a stack's directory. Watches are made as directories come."""

    def __init__(self, stack: Path, root: Path) -> None:
        stack.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._stack, self._root = stack, root
        self._inotify = Inotify()
        self._renew()

    def _renew(self) -> None:
        for directory in (self._stack, *(d for d in self._stack.iterdir() if d.is_dir())):
            if self._root in (self._stack, directory) or directory == self._stack:
                with suppress(FileNotFoundError):
                    self._inotify.watch(directory, IN_MODIFY | IN_CREATE | IN_MOVED_TO | IN_ONLYDIR)

    async def wait(self) -> None:
        await pidfd.readable(self._inotify.fd)
        if any(mask & IN_CREATE for _, mask, _ in list(self._inotify.events())):
            with suppress(FileNotFoundError):
                self._renew()

    def close(self) -> None:
        self._inotify.close()


def _logs(root: Path, services: Collection[str]) -> list[Path]:
    """Every task's current file, rotated-only ones too (between a rename and conmon's new file)."""
    found = {p.with_name(p.name.partition(".log")[0] + ".log") for p in root.rglob("*.log*")}
    return sorted(path for path in found if not services or path.parent.name in services)


def _lines(path: Path, stream: Stream, *, final: bool = False, limit: int | None = None) -> Iterator[LogLine]:
    slot, _, task = path.stem.partition("-")

    def line(record: Record) -> LogLine:
        return LogLine(task, path.parent.name, int(slot), record.at, record.stream, record.text)

    yield from map(line, stream.read(limit))
    if final:
        yield from map(line, stream.rest())


def _task_of(path: Path) -> str:
    return path.stem.partition("-")[2]


def _component(name: str) -> str:
    """One level of a path, nothing else: names come from the bus."""
    if not name or "/" in name or "\0" in name or name in (".", ".."):
        raise Permanent(f"cannot keep logs under the name {name!r}", code="bad-name")
    return name
