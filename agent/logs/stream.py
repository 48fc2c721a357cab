"""One task's output, read in order through its rotated files and on, while conmon writes and we rotate.

TASK.log is written now, .log.1 before it, .log.2 before that. Who holds a file knows it by its inode, however often it
was renamed; who comes back to it, by the time of its first record: an inode may be another file's by then.

Blocks of whole records come out, as they lie there: nothing here looks at each line.
"""

from __future__ import annotations

import os
from contextlib import suppress
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

from agent.wire.batches import Place
from agent.wire.records import HEADER, stamp

LEAST = 16 * 1024  # bytes; conmon's records have 8 KiB and a header
_BLOCK = 64 * 1024
_TAG = itemgetter(slice(35, HEADER))
_WHOLE = frozenset((b" stdout F ", b" stderr F "))


class Chunk(NamedTuple):
    """Whole records of one file. `last`: the time of the last one, Unix nanoseconds. `more`: the next may be there,
    too. `lost`: some before were dropped unread."""

    file: int
    offset: int
    data: bytes
    last: int
    more: bool
    lost: bool


def generations(path: Path) -> list[Path]:
    """What there is, newest first. Without a first one: it was put aside, and conmon has not opened another yet."""
    numbers = []
    with suppress(FileNotFoundError):
        for name in os.listdir(path.parent):  # noqa: PTH208 (the names alone are wanted)
            rest = name.removeprefix(path.name)
            if rest != name and (not rest or (rest[0] == "." and rest[1:].isdigit())):
                numbers.append(int(rest[1:] or 0))
    return [aside(path, number) for number in sorted(numbers)]


def aside(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}") if number else path


class Stream:
    """`read` gives what has come since the last time, in blocks. Close it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lost = False  # something was dropped that was not read yet
        self._fd = -1
        self._file = 0
        self._offset = 0
        self._there: dict[int, int] = {}
        self._bounded = False

    def place(self) -> Place:
        """Where it stands; while the file it holds has no record, and so no name, that is the end of an older one."""
        if self._fd < 0:
            return Place()
        self._file = self._file or _name(self._fd)
        if self._file:
            return Place(self._file, self._offset)
        for file in generations(self.path)[1:]:
            fd = _open(file)
            name, size = _name(fd), os.fstat(fd).st_size
            os.close(fd)
            if name:
                return Place(name, size)
        return Place()

    def forget(self, generation: int) -> None:
        """That file is about to be dropped."""
        if self._fd < 0:
            return
        files, status = generations(self.path), os.fstat(self._fd)
        held = next((i for i, file in enumerate(files) if os.path.samestat(file.stat(), status)), len(files))
        dropped = next((i for i, file in enumerate(files) if file == aside(self.path, generation)), len(files))
        self.lost = self.lost or dropped < held

    def look(self, until: int | None = None) -> None:
        """What is there now is what `read` reads, and what is written meanwhile is for the next look: a container may
        write faster than we read, for ever. `until`: only what was written by then, Unix nanoseconds."""
        self._bounded = until is not None
        if until is None and self._fd >= 0 and self._newest():
            status = os.fstat(self._fd)
            self._there = {status.st_ino: status.st_size}
            return
        self._there = {}
        for file in reversed(generations(self.path)):
            fd = _open(file)
            try:
                size = os.fstat(fd).st_size
                end = size if until is None else _first_after(fd, size, until + 1)
                self._there[os.fstat(fd).st_ino] = end
            finally:
                os.close(fd)
            if end < size:
                return
        if self._fd >= 0:
            self._there.setdefault(os.fstat(self._fd).st_ino, os.fstat(self._fd).st_size)

    def read(self, size: int) -> Chunk | None:
        """At most `size` bytes (LEAST or more) of what was there; None: that is all. Blocking, but only as long as a
        disk read."""
        while self._fd >= 0 or self._next():
            end = self._there.get(os.fstat(self._fd).st_ino, 0)
            data = os.pread(self._fd, min(size, end - self._offset), self._offset) if end > self._offset else b""
            cut = data.rfind(b"\n") + 1
            if len(data) == size:
                cut = _between(data, cut) or cut
            if cut:
                self._file = self._file or _name(self._fd)
                more = self._offset + cut < end or not self._newest()
                chunk = Chunk(self._file, self._offset, data[:cut], _last(data, cut), more, self.lost)
                self._offset += cut
                self.lost = False
                return chunk
            if len(data) == size:  # conmon's records are short: this is none
                self._offset += len(data)
            elif not self._next():
                return None
        return None

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    # Where to begin ---------------------------------------------------------------------------------------------------

    def begin_after(self, place: Place) -> None:
        """Where another reader has stopped; if that file is gone, with the next newer one."""
        for file in reversed(generations(self.path)):
            fd = _open(file)
            name = _name(fd)
            if name == place.file or name > place.file or name == 0:
                self._fd, self._file = fd, name
                there = name == place.file and place.offset <= os.fstat(fd).st_size
                self._offset = place.offset if there else 0
                self.lost = not there and place.file != 0
                return
            os.close(fd)

    def begin_since(self, since: int) -> None:
        """At or somewhat before the first record of that moment, Unix nanoseconds: a line that was begun before it must
        be known for one. After look()."""
        for file in generations(self.path):
            fd = _open(file)
            self._hold(fd)
            if 0 < self._file <= since:
                exact = _first_after(fd, self._there.get(os.fstat(fd).st_ino, 0), since)
                self._offset = _record_at(fd, max(0, exact - _BLOCK // 2))
                return

    def begin_at_tail(self, wanted: int) -> int:
        """So that this many whole lines are left; how many there are too few. After look()."""
        for file in generations(self.path):
            fd = _open(file)
            if (end := self._there.get(os.fstat(fd).st_ino)) is None:
                os.close(fd)
                continue
            self._hold(fd)
            self._offset, wanted = _tail_offset(fd, end, wanted)
            if wanted <= 0:
                return 0
        return wanted

    def _hold(self, fd: int) -> None:
        self.close()
        self._fd, self._file, self._offset = fd, _name(fd), 0

    def _newest(self) -> bool:
        with suppress(FileNotFoundError):
            return os.path.samestat(self.path.stat(), os.fstat(self._fd))
        return False

    def _next(self) -> bool:
        """Go to the file written after the one we hold; False: we hold the newest (or none exists yet).

        A newer one exists only after conmon has closed the older, but what it wrote before that may have come after our
        last look: so the old one is read to its end once more, by returning True with it still open.
        """
        if self._fd >= 0 and self._newest():
            return False
        files = generations(self.path)
        if not files:
            return False
        if self._fd < 0:
            self._hold(_open(files[-1]))
            return True
        status = os.fstat(self._fd)
        place = next((i for i, file in enumerate(files) if os.path.samestat(file.stat(), status)), len(files))
        if place == 0:
            return False
        if not self._bounded and self._there.get(status.st_ino, 0) < status.st_size:
            self._there[status.st_ino] = status.st_size
            return True
        self._hold(_open(files[place - 1]))
        return os.fstat(self._fd).st_ino in self._there


def _between(data: bytes, end: int) -> int:
    """Before the parts of a line with which it ends: what reads it fares better with whole ones. 0: it is all parts."""
    while end:
        start = data.rfind(b"\n", 0, end - 1) + 1
        if data[start + HEADER - 3 : start + HEADER] != b" P ":
            return end
        end = start
    return 0


def _open(file: Path) -> int:
    return os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)


def _name(fd: int) -> int:
    """The time of its first record; 0 while there is none."""
    try:
        return stamp(os.pread(fd, 35, 0))
    except ValueError:
        return 0


def _last(data: bytes, end: int) -> int:
    """The time of the last whole record that has one."""
    while end > 0:
        start = data.rfind(b"\n", 0, end - 1) + 1
        try:
            return stamp(data[start : start + 35])
        except ValueError:
            end = start
    return 0


def _record_at(fd: int, place: int) -> int:
    """Where the first record begins at that place or after it."""
    if place == 0:
        return 0
    return place + os.pread(fd, _BLOCK, place - 1).find(b"\n")


def _first_after(fd: int, end: int, moment: int) -> int:
    """Where the first record of that moment or later begins, or `end`: halving, and then one block line by line. As
    long as the clock was not set back meanwhile."""
    low, high = 0, end
    while high - low > _BLOCK:
        middle = _record_at(fd, (low + high) // 2)
        try:
            earlier = middle < high and stamp(os.pread(fd, 35, middle)) < moment
        except ValueError:  # not a record: look before it
            earlier = False
        if earlier:
            low = middle
        else:
            high = (low + high) // 2
    block, place = os.pread(fd, min(2 * _BLOCK, end - low), low), 0
    while place < len(block):
        with suppress(ValueError):
            if stamp(block[place : place + 35]) >= moment:
                return low + place
        after = block.find(b"\n", place) + 1
        if not after:
            break
        place = after
    return end if low + len(block) >= end else low + place


def _tail_offset(fd: int, end: int, wanted: int) -> tuple[int, int]:
    """(where the last `wanted` whole lines before `end` begin, how many are still wanted of older files)."""
    if wanted <= 0:
        return end, 0
    head = b""  # the beginning of the part already seen: belongs to a line that began earlier
    place = end
    while place > 0:
        start = max(0, place - _BLOCK)
        block = os.pread(fd, place - start, start) + head
        head, *lines = block.split(b"\n")
        whole = sum(map(_WHOLE.__contains__, map(_TAG, lines)))  # all at once: a tail may be a million lines long
        if whole <= wanted:
            wanted, place = wanted - whole, start
            continue
        position = start + len(block)
        for line in reversed(lines):
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
    return _TAG(line) in _WHOLE
