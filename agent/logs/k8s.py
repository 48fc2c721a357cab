"""conmon's k8s-file format: `TIME STREAM F|P TEXT`, one record a line; P means that more of the same line follows.

Bytes come in, text goes out: what is not UTF-8 is replaced here, at the edge, and nowhere before.
"""

from __future__ import annotations

import functools
from datetime import datetime
from typing import Literal, NamedTuple

LINE_CAP = 256 * 1024  # bytes; a longer line comes in pieces, so that no reader holds an endless one


class Record(NamedTuple):
    at: float  # Unix seconds
    stream: Literal["stdout", "stderr"]
    text: str


class Joiner:
    """Feed raw lines in order; whole lines come out. stdout and stderr are joined apart."""

    def __init__(self) -> None:
        self._open: dict[bytes, tuple[float, bytearray]] = {}

    def feed(self, line: bytes) -> Record | None:
        """None: only a part so far, or not a record (a torn write before a power cut)."""
        parts = line.split(b" ", 3)
        if len(parts) != 4 or parts[1] not in (b"stdout", b"stderr") or parts[2][:1] not in (b"F", b"P"):
            return None
        time, stream, tag, text = parts
        try:
            at = _seconds(time)
        except ValueError:
            return None
        if stream in self._open:
            at, held = self._open[stream]
            held += text
            if tag[:1] == b"P" and len(held) < LINE_CAP:
                return None
            del self._open[stream]
            return _record(at, stream, bytes(held))
        if tag[:1] == b"P" and len(text) < LINE_CAP:
            self._open[stream] = (at, bytearray(text))
            return None
        return _record(at, stream, text)

    def rest(self) -> list[Record]:
        """Lines that never ended."""
        rest = [_record(at, stream, bytes(held)) for stream, (at, held) in self._open.items()]
        self._open.clear()
        return rest


def _record(at: float, stream: bytes, text: bytes) -> Record:
    return Record(at, "stdout" if stream == b"stdout" else "stderr", text.decode(errors="replace"))


def _seconds(time: bytes) -> float:
    """2026-01-02T03:04:05.678901234+00:00."""
    return _whole(time[:19], time[29:]) + float(time[19:29])


@functools.lru_cache(maxsize=64)
def _whole(second: bytes, zone: bytes) -> float:
    return datetime.fromisoformat((second + zone).decode("ascii")).timestamp()
