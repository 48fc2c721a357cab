"""Durations, sizes, core counts and command lines written as text (11-extension.md; 05-services.md, command).

Pure functions of text; ValueError says in plain words what is wrong with it.
"""

from __future__ import annotations

import re

_DURATION_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h|d|w)", re.ASCII)
_SECONDS = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "μs": 1e-6,
    "ms": 1e-3,
    "s": 1,
    "m": 60,
    "h": 3600,
    "d": 86400,
    "w": 604800,
}
_SIZE = re.compile(r"(\d+(?:\.\d*)?|\.\d+) ?([kmgtp]?)(i?b)?", re.ASCII | re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_LONGEST = 40
_OPERATORS = ";&|<>"


def duration(text: str) -> float:
    """Seconds of "1m30s", "1.5h", "0"; units ns us ms s m h d w, each part with its own."""
    sign, unsigned = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
    if unsigned == "0":
        return 0.0
    position, total = 0, 0.0
    while len(text) <= _LONGEST and (part := _DURATION_PART.match(unsigned, position)):
        total += float(part[1]) * _SECONDS[part[2]]
        position = part.end()
    if not unsigned or position < len(unsigned):
        raise ValueError("a duration is written as 10s, 1m30s or 1.5h (units: us ms s m h d w)")
    if total > 1e9:
        raise ValueError("it is longer than thirty years")
    return sign * round(total, 9)


def span(text: str) -> float:
    """A duration that something can last."""
    seconds = duration(text)
    if seconds < 0:
        raise ValueError("it is less than nothing")
    return seconds


def spelled_duration(seconds: float) -> str:
    """As the reference prints it: 1h5m30.02s, 1m0s, 1.5ms, 0s. Each unit of time has one spelling, so texts compare."""
    nanoseconds = round(abs(seconds) * 1e9)
    sign = "-" if seconds < 0 else ""
    for unit, size in (("ns", 1), ("µs", 10**3), ("ms", 10**6)):
        if 0 < nanoseconds < size * 1000:
            return f"{sign}{_fraction(nanoseconds, size)}{unit}"
    minutes, rest = divmod(nanoseconds, 60 * 10**9)
    hours, minutes = divmod(minutes, 60)
    lead = f"{hours}h{minutes}m" if hours else f"{minutes}m" if minutes else ""
    return f"{sign}{lead}{_fraction(rest, 10**9)}s"


def _fraction(count: int, size: int) -> str:
    whole, rest = divmod(count, size)
    return f"{whole}.{rest:0{len(str(size)) - 1}}".rstrip("0") if rest else str(whole)


def size(value: str | int | float) -> int:
    """Bytes of 1024, "64m", "1.5g", "1GiB"; powers of 1024."""
    if isinstance(value, float):
        value = int(value) if value.is_integer() else "none"
    text = str(value).strip()
    found = _SIZE.fullmatch(text) if len(text) <= _LONGEST else None
    if not found or ((found[3] or "").lower() == "ib" and not found[2]):
        raise ValueError("a size is written as 512k, 64m or 1.5g (powers of 1024), or in bytes")
    total = int(float(found[1]) * 1024 ** _POWERS[found[2].lower()])
    if total >= 2**63:
        raise ValueError("it is larger than any memory")
    return total


def cores(value: str | int | float) -> float:
    """CPU cores: "0.5", 2. 0 stands for no limit."""
    try:
        count = float(value) if not isinstance(value, str) or len(value) <= _LONGEST else -1.0
    except ValueError:
        count = -1.0
    if not 0 <= count <= 4096:
        raise ValueError("a number of cores is written as 0.5 or 2")
    return count


def octal(value: str | int) -> int:
    """Permission bits; as text always octal, as a number what YAML made of it."""
    try:
        bits = int(value.removeprefix("0o"), 8) if isinstance(value, str) and len(value) <= 8 else int(value)
    except ValueError:
        bits = -1
    if not 0 <= bits <= 0o7777:
        raise ValueError('permission bits are written in octal, as in "0755"')
    return bits


def split(line: str) -> tuple[str, ...]:
    """Words of a command line, as the reference splits them: like a shell, but no shell runs.

    Quotes join; a backslash takes the next character as it is, but \\n and \\t mean newline and tab; $(…) and `…` stay
    one literal word. The reference drops all that follows an unquoted operator: here it is an error.
    """
    words: list[str] = []
    word: list[str] = []
    started = escaped = False
    within = ""  # the quote, backquote or "(" that is open
    for char in line:
        if escaped:
            word.append({"n": "\n", "t": "\t"}.get(char, char))
            escaped = False
        elif char == "\\" and within != "'":
            escaped = started = True
        elif within:
            within = _inside(char, within, word)
        elif char.isspace():
            if started:
                words.append("".join(word))
                word, started = [], False
        else:
            within = _outside(char, word)
            started = True
    if within or escaped:
        raise ValueError(f"it ends inside {'$(' if within == '(' else within or 'a backslash'}")
    return (*words, "".join(word)) if started else tuple(words)


def _inside(char: str, within: str, word: list[str]) -> str:
    closing = ")" if within == "(" else within
    if char != closing or within in "`(":
        word.append(char)
    return "" if char == closing else within


def _outside(char: str, word: list[str]) -> str:
    if char in _OPERATORS:
        raise ValueError(f"{char!r} needs a shell, and none runs; quote it, or write: sh -c '…'")
    if char == "(" and word[-1:] == ["$"]:
        word.append(char)
        return char
    if char in "()":
        raise ValueError(f"{char!r} needs a shell, and none runs; quote it")
    if char in "'\"":
        return char
    word.append(char)
    return char if char == "`" else ""
