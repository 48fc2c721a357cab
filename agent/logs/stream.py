"""One task's output, read in order through its rotated files and on, while conmon writes and we rotate.

TASK.log is written now, .log.1 before it, .log.2 before that. A file is known by its inode: a reader that holds one
finds its place again however often it was renamed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from agent.logs.k8s import Joiner, Record

FILES = 3  # the current one included
_BLOCK = 64 * 1024


def generations(path: Path) -> list[Path]:
    """Newest first."""
    return [path, *(path.with_name(f"{path.name}.{number}") for number in range(1, FILES))]


class Stream:
    """`read` gives what has come since the last time. Close it."""

    def __init__(self, path: Path, *, tail: int | None = None) -> None:
        """`tail`: begin so that this many whole lines are left (fewer only if there are no more)."""
        self._path = path
        self._joiner = Joiner()
        self._fd = -1
        self._rest = b""  # an unfinished raw line
        self.more = False
        if tail is not None:
            self._begin_at_tail(tail)

    def read(self, limit: int | None = None) -> Iterator[Record]:
        """What is there now, or with `limit` so many bytes of it: `more` is set when that has left any. What is
        written meanwhile is the next call's: a container may write faster than we read, for ever.

        Blocking, but only as long as a disk read; the caller gives way between records.
        """
        there = {status.st_ino: status.st_size for status in map(os.stat, self._files())}
        if self._fd >= 0:
            held = os.fstat(self._fd)
            there.setdefault(held.st_ino, held.st_size)
        left = sum(there.values()) if limit is None else limit
        self.more = False
        while self._fd >= 0 or self._next():
            inode = os.fstat(self._fd).st_ino
            end = there.get(inode, 0)
            while (size := min(_BLOCK, left, end - os.lseek(self._fd, 0, os.SEEK_CUR))) > 0:
                block = os.read(self._fd, size)
                if not block:
                    break
                left -= len(block)
                lines = (self._rest + block).split(b"\n")
                self._rest = lines.pop()[-4 * _BLOCK :]  # conmon's records are short: a longer one is no record
                for line in lines:
                    if (record := self._joiner.feed(line)) is not None:
                        yield record
            if left <= 0:
                self.more = limit is not None
                return
            if not self._next():
                return
            fresh = os.fstat(self._fd).st_ino
            if fresh == inode or fresh not in there:
                return

    def rest(self) -> list[Record]:
        """Lines without an end; call it when nothing more is to come."""
        return self._joiner.rest()

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _next(self) -> bool:
        """Go to the file written after the one we hold; False: we hold the newest (or none exists yet).

        A newer one exists only after conmon has closed the older, but what it wrote before that may have come after our
        last read: so the old one is read to its end once more, by returning True with it still open.
        """
        files = self._files()
        if not files:
            return False
        if self._fd < 0:
            self._fd = os.open(files[-1], os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            return True
        status = os.fstat(self._fd)
        place = next((i for i, file in enumerate(files) if os.path.samestat(file.stat(), status)), len(files))
        if place == 0:
            return False
        if os.lseek(self._fd, 0, os.SEEK_CUR) < os.fstat(self._fd).st_size:
            return True
        os.close(self._fd)
        self._rest = b""
        self._fd = os.open(files[place - 1], os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        return True

    def _files(self) -> list[Path]:
        return [file for file in generations(self._path) if file.exists()]

    def _begin_at_tail(self, wanted: int) -> None:
        for file in self._files():  # newest first
            fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            offset, wanted = _tail_offset(fd, wanted)
            if self._fd >= 0:
                os.close(self._fd)
            self._fd = fd
            os.lseek(fd, offset, os.SEEK_SET)
            if wanted <= 0:
                return


def _tail_offset(fd: int, wanted: int) -> tuple[int, int]:
    """(where the last `wanted` whole lines begin, how many are still wanted of older files), read from the end."""
    end = os.fstat(fd).st_size
    if wanted <= 0:
        return end, 0
    head = b""  # the beginning of the part already seen: belongs to a line that began earlier
    place = end
    while place > 0:
        start = max(0, place - _BLOCK)
        block = os.pread(fd, place - start, start) + head
        lines = block.split(b"\n")
        head = lines[0]
        position = start + len(block)
        for line in reversed(lines[1:]):
            position -= len(line)
            if _whole(line):
                wanted -= 1
                if wanted < 0:
                    return position + len(line) + 1, 0
            position -= 1
        place = start
    if _whole(head):
        return (len(head) + 1, 0) if wanted == 0 else (0, wanted - 1)
    return 0, wanted


def _whole(line: bytes) -> bool:
    return line.split(b" ", 3)[2:3] == [b"F"]
