"""conmon's k8s-file format: `TIME STREAM F|P TEXT`, one record a line; P means that more of the same line follows.

Bytes stay bytes: what a container wrote comes out as it went in. The agent marks the beginning of each attempt with a
record of its own in the same file, `TIME gorae F attempt N`: it lies where it belongs, whoever was killed since.

Shared by the agent, the relay and the command line, which starts with it: nothing heavy is imported here.
"""

from __future__ import annotations

import functools
import io
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from operator import itemgetter
from typing import NamedTuple

HEADER = 45  # bytes before the text: the names of both streams are equally long
LINE_CAP = 256 * 1024  # bytes; a longer line comes in pieces, so that no reader holds an endless one
_KIND = itemgetter(slice(29, HEADER))
_WHOLE = frozenset((b"+00:00 stdout F ", b"+00:00 stderr F "))
_PARTS = {b"+00:00 stdout P ": b"+00:00 stdout F ", b"+00:00 stderr P ": b"+00:00 stderr F "}
_STREAMS = {b"stdout": "stdout", b"stderr": "stderr"}


class Line(NamedTuple):
    """`at`: Unix nanoseconds. `partial`: the next one of the same task and stream goes on with it."""

    at: int
    stream: str
    text: bytes
    partial: bool = False


class Mark(NamedTuple):
    """An attempt of the task begins here."""

    at: int
    attempt: int


def record(at: int, stream: str, text: bytes, tag: str = "F") -> bytes:
    """`at`: Unix nanoseconds. `text` holds no newline."""
    when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at // 10**9))
    return b"%b.%09d+00:00 %b %b %b\n" % (when.encode(), at % 10**9, stream.encode(), tag.encode(), text)


def mark(at: int, attempt: int) -> bytes:
    return record(at, "gorae", b"attempt %d" % attempt)


def stamp(data: bytes) -> int:
    """Unix nanoseconds of the record that begins there. ValueError if none does."""
    if data[19:20] != b".":
        raise ValueError("no time")
    return _second(data[:19], data[29:35]) * 10**9 + int(data[20:29])


@functools.lru_cache(maxsize=256)
def _second(second: bytes, zone: bytes) -> int:
    return int(datetime.fromisoformat((second + zone).decode("ascii")).astimezone(UTC).timestamp())


def rows(data: bytes) -> list[bytes] | None:
    """Whole records in one zone of time, with their newlines, parts of lines put together; None when there is anything
    else among them. Passes of C over many lines: to look at each would take ten times as long. (BytesIO finds newlines
    with memchr(3), split() byte by byte.)"""
    lines = io.BytesIO(data).readlines()
    found = set(map(_KIND, lines))
    if found <= _WHOLE:
        return lines
    if not found <= _WHOLE.union(_PARTS):
        return None
    kinds, made, place = list(map(_KIND, lines)), list[bytes](), 0
    for first in sorted(index for kind in _PARTS for index in _places(kinds, kind)):
        if first < place:
            continue
        last = first + 1
        while last < len(lines) and kinds[last] == kinds[first]:
            last += 1
        if last == len(lines) or kinds[last] != _PARTS[kinds[first]]:
            return None
        made += lines[place:first]
        texts = [line[HEADER:-1] for line in lines[first:last]]
        made.append(b"".join([lines[first][: HEADER - 2], b"F ", *texts, lines[last][HEADER:]]))
        place = last + 1
    return made + lines[place:]


def _places(kinds: list[bytes], kind: bytes) -> Iterator[int]:
    place = -1
    with suppress(ValueError):
        while True:
            place = kinds.index(kind, place + 1)
            yield place


class Joiner:
    """Feed raw records of one task in order; whole lines come out. stdout and stderr are joined apart."""

    def __init__(self, cap: int = LINE_CAP) -> None:
        self._cap = cap
        self._open: dict[bytes, tuple[int, bytearray]] = {}
        self._attempt = 0

    @property
    def between(self) -> bool:
        """No line has begun and not ended."""
        return not self._open

    def feed(self, raw: bytes) -> Line | Mark | None:
        """Without its newline. None: only a part so far, or not a record (a torn write before a power cut)."""
        parts = raw.split(b" ", 3)
        if len(parts) != 4 or parts[2][:1] not in (b"F", b"P"):
            return None
        _, stream, tag, text = parts
        if stream not in _STREAMS:
            return self._mark(raw, text) if stream == b"gorae" else None
        try:
            at = stamp(raw)
        except ValueError:
            return None
        more = tag[:1] == b"P"
        if stream in self._open:
            at, held = self._open[stream]
            held += text
            if more and len(held) < self._cap:
                return None
            text = bytes(held)
            del self._open[stream]
        elif more and len(text) < self._cap:
            self._open[stream] = (at, bytearray(text))
            return None
        return Line(at, _STREAMS[stream], text, more)

    def _mark(self, raw: bytes, text: bytes) -> Mark | None:
        """Once: an agent that was killed between the mark and the start marks it again."""
        word, _, number = text.partition(b" ")
        if word != b"attempt" or not number.isdigit() or int(number) == self._attempt:
            return None
        try:
            made = Mark(stamp(raw), int(number))
        except ValueError:
            return None
        self._attempt = made.attempt
        return made

    def rest(self) -> Iterator[Line]:
        """Lines that never ended; call it when nothing more is to come."""
        for stream, (at, held) in self._open.items():
            yield Line(at, _STREAMS[stream], bytes(held))
        self._open.clear()
