"""The files of all logs as they take room: put aside by size, counted, dropped.

A file tells once that it was written, and then not again until it was looked at: so a container that writes without end
wakes the agent no more often than one that writes now and then.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import re
import struct
import termios
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from agent.kit import threads, trees
from agent.kit.errors import Permanent
from agent.kit.layout import Layout
from agent.logs.stream import Stream, aside, generations
from agent.ports import LogFile
from agent.runtime import pidfd
from agent.runtime.inotify import IN_MODIFY, IN_ONESHOT, IN_Q_OVERFLOW, Inotify

REST = 0.04  # seconds between two looks, unless something grows fast
LOOKS = 5  # at a directory in which files are put aside all the time
PATIENCE = 2.0  # seconds; conmon obeys within milliseconds
_NAME = re.compile(r"([0-9]{1,9})-(.+)\.log(?:\.([0-9]{1,9}))?")
_REOPEN = b"2 0 0\n"  # conmon's control message for "open the log file again"


class RotatedFiles:
    def __init__(self, layout: Layout, patience: float = PATIENCE) -> None:
        self._layout = layout
        self._patience = patience
        self._away: dict[Path, float] = {}  # rotated, and not opened anew yet: since when (loop time)
        self._streams: set[Stream] = set()  # of those who read just now
        self._inotify: Inotify | None = None
        self._watched: dict[int, Path] = {}
        self._due: set[Path] = set()  # written since they were looked at
        self._sizes: dict[Path, int] = {}  # as of then
        self._hurry = False  # something fills an eighth of its file or more between two looks

    def watch(self, path: Path) -> None:
        """Somebody is about to write to it."""
        if self._inotify is not None:
            with suppress(OSError):  # gone already, or no watch is left: look_at_all() finds it
                self._watched[self._inotify.watch(path, IN_MODIFY | IN_ONESHOT)] = path

    def look_at_all(self) -> None:
        self._due.update(path for path in self._layout.logs.glob("*/*/*.log") if self._live(task_of(path)))
        self._away.update((path, 0.0) for path in self._orphans() if path not in self._away)
        self._sizes = {path: size for path, size in self._sizes.items() if path in self._due}

    async def written(self, patience: float) -> None:
        """Returns when a file was written that was looked at before, or after so many seconds."""
        if self._inotify is None:
            self._inotify = Inotify()
            self.look_at_all()
        if not self._due and not self._away:
            await pidfd.readable(self._inotify.fd, timeout=patience)
        if not self._hurry:
            await asyncio.sleep(REST)
        while events := list(self._inotify.events()):
            for number, mask, _ in events:
                if mask & IN_Q_OVERFLOW:
                    self.look_at_all()
                elif (path := self._watched.pop(number, None)) is not None:
                    self._due.add(path)

    async def rotate_if_needed(self, at: Callable[[str], int]) -> list[LogFile]:
        """Loses nothing: conmon goes on writing to the renamed file until it has opened the new one.

        It must be told exactly once: conmon 2.1 puts a new, empty file in the place of whatever is there. So a file is
        only rotated when it exists (the last message was obeyed), and a message that was lost (we died between rename
        and message) is only sent again when the file stays away and nothing is on its way.
        """
        if self._inotify is None:
            self.look_at_all()
        now, rotated, due = asyncio.get_running_loop().time(), list[LogFile](), self._due
        self._due, self._hurry = set(), False
        for path in self._away.copy():
            if path.exists() or not self._live(task_of(path)):
                del self._away[path]
                due.add(path)
                continue
            since = self._away[path] or now
            if now - since >= self._patience:
                self._reopen(task_of(path))
                since = now
            self._away[path] = since
        for path in due:
            self.watch(path)
            with suppress(FileNotFoundError):
                size, limit = path.stat().st_size, at(task_of(path))
                grown = max(0, size - self._sizes.get(path, size))  # as much may come until the next look
                self._sizes[path] = size
                self._hurry = self._hurry or grown > limit // 8
                if size + grown >= limit and self._live(task_of(path)):
                    rotated += self._file(path)
                    self._rotate(path)
        return rotated

    async def files(self, stack: str | None = None, service: str | None = None) -> list[LogFile]:
        return await threads.run("count the logs", lambda: self._files(stack, service))

    def _files(self, stack: str | None, service: str | None) -> list[LogFile]:
        if stack is None or service is None:
            directories = [*self._layout.logs.glob("*/*/")]
        else:
            directories = [self._directory(stack, service)]
        return [file for directory in directories for file in self._settled(directory)]

    def _settled(self, directory: Path) -> list[LogFile]:
        """As two looks in a row have seen them: one that is put aside during a look is missed, and what is new under
        its name has nothing in it yet."""
        before: set[tuple[Path, int]] | None = None
        for _ in range(LOOKS):
            seen = [(path, status) for path in directory.glob("*.log*") if (status := _status(path)) is not None]
            now = {(path, status.st_ino) for path, status in seen}
            if now == before:
                break
            before = now
        return [file for path, status in seen for file in self._described(path, status)]

    def _file(self, path: Path) -> list[LogFile]:
        """None, if it has gone meanwhile or is none of ours."""
        status = _status(path)
        return [] if status is None else self._described(path, status)

    def _described(self, path: Path, status: os.stat_result) -> list[LogFile]:
        name = _NAME.fullmatch(path.name)
        if name is None:
            return []
        place = (path.parent.parent.name, path.parent.name, int(name[1]), name[2], int(name[3] or 0))
        return [LogFile(*place, status.st_blocks * 512, status.st_mtime, self._live(name[2]))]

    async def drop(self, files: Sequence[LogFile]) -> list[LogFile]:
        """Whether a file may be written is asked again, with nothing between that and its deletion."""
        gone = []
        for file in files:
            newest = self._directory(file.stack, file.service) / f"{file.slot}-{component(file.task)}.log"
            path = aside(newest, file.generation)
            if self._live(file.task) and generations(newest)[:1] == [path]:
                continue
            for stream in self._streams:
                if stream.path == newest:
                    stream.forget(file.generation)
            path.unlink(missing_ok=True)
            gone.append(file)
            await asyncio.sleep(0)
        return gone

    def _rotate(self, path: Path) -> None:
        free = 1
        while aside(path, free).exists():
            free += 1
        for number in range(free, 0, -1):
            aside(path, number - 1).replace(aside(path, number))
        self._away[path] = 0.0
        self._sizes[path] = 0
        self._reopen(task_of(path))

    def _orphans(self) -> list[Path]:
        """Put aside, of a task that may write, without a file that it would write to."""
        found = {path.with_suffix("") for path in self._layout.logs.glob("*/*/*.log.1")}
        return [path for path in found if not path.exists() and self._live(task_of(path))]

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

    def _live(self, task: str) -> bool:
        """There is the bundle of an attempt: it is made before its conmon starts, and goes after that has ended."""
        return any(name.isdigit() for name in trees.names(self._layout.run_tasks / task))

    def _directory(self, stack: str, service: str | None) -> Path:
        directory = self._layout.logs / component(stack)
        return directory if service is None else directory / component(service)


def _status(path: Path) -> os.stat_result | None:
    with suppress(FileNotFoundError):
        return path.stat(follow_symlinks=False)
    return None


def task_of(path: Path) -> str:
    return path.stem.partition("-")[2]


def component(name: str) -> str:
    """One level of a path, nothing else: names come from the bus."""
    if not name or "/" in name or "\0" in name or name in (".", ".."):
        raise Permanent(f"cannot keep logs under the name {name!r}", code="bad-name")
    return name
