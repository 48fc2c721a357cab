"""Identifiers: ULIDs (time-ordered, 26 characters) for events, short ones for tasks."""

from __future__ import annotations

import os
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford base 32, lower case: safe in paths, cgroups, topics


def _encode(value: int, length: int) -> str:
    out = ""
    for _ in range(length):
        out = _ALPHABET[value & 31] + out
        value >>= 5
    return out


class Ulids:
    """Strictly increasing within one instance, whatever the clock does. https://github.com/ulid/spec"""

    def __init__(self, last: str | None = None) -> None:
        self._last = _decode(last) if last else 0

    def next(self, wall: float | None = None) -> str:
        milliseconds = int((time.time() if wall is None else wall) * 1000)
        value = milliseconds << 80 | int.from_bytes(os.urandom(10), "big")
        self._last = max(value, self._last + 1)
        return _encode(self._last, 26)


def _decode(text: str) -> int:
    value = 0
    for char in text:
        value = value << 5 | _ALPHABET.index(char)
    return value


def task_id() -> str:
    """12 characters, 60 random bits, never reused; begins with a letter so that it is a valid name everywhere."""
    return "t" + _encode(int.from_bytes(os.urandom(8), "big"), 11)


def instance_id() -> str:
    """8 hex characters; part of every host-global name an instance owns."""
    return os.urandom(4).hex()
