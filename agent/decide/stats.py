"""What containers use, from the kernel's own counters: reading their texts, and rates between two looks. Pure.

cgroup-v1 (memory, cpuacct, blkio-controller) and cgroup-v2 in the kernel's admin guide; proc(5) for /proc/net/dev.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

_RATES = ("read", "written", "received", "sent")


@dataclass(frozen=True, slots=True)
class Sample:
    """One attempt at one moment. `clock`: monotonic seconds. `cpu`: seconds. `memory`: bytes without the file cache
    that goes first, as Docker counts it. The rest: bytes since its start; of the network, of its sandbox, as the
    container sees it. None: the kernel does not count that here."""

    clock: float
    cpu: float | None = None
    memory: int | None = None
    pids: int | None = None
    read: int | None = None
    written: int | None = None
    received: int | None = None
    sent: int | None = None


def document(now: Sample, before: Sample | None) -> dict[str, Any]:
    """The counters, and what became of them since `before` (None: no rates yet). `cpu_percent`: 100 is one core."""
    return {
        "cpu": now.cpu,
        "cpu_percent": _percent(rate(now, before, "cpu")),
        "memory": now.memory,
        "pids": now.pids,
        **{name: getattr(now, name) for name in _RATES},
        **{f"{name}_rate": rate(now, before, name) for name in _RATES},
    }


def rate(now: Sample, before: Sample | None, name: str) -> float | None:
    """Per second. None: it is not known at both ends, or it went back (another container, another link)."""
    if before is None or now.clock <= before.clock:
        return None
    first, last = getattr(before, name), getattr(now, name)
    if first is None or last is None or last < first:
        return None
    return round(float(last - first) / (now.clock - before.clock), 6)


def _percent(cores: float | None) -> float | None:
    return None if cores is None else round(100 * cores, 2)


# Texts of the kernel's files. A line that is not as expected counts for nothing. --------------------------------------


def field(text: str, name: str) -> int | None:
    """Of "NAME NUMBER" lines: cpu.stat, memory.stat."""
    _, found, rest = f"\n{text}".partition(f"\n{name} ")
    return whole(rest.partition("\n")[0]) if found else None


def whole(text: str) -> int | None:
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() else None


def seconds(count: int | None, of: float) -> float | None:
    return None if count is None else count / of


def io_v2(text: str) -> tuple[int, int]:
    """(read, written) over all devices: "8:0 rbytes=1 wbytes=2 …"."""
    words = [word.partition("=") for line in text.splitlines() for word in line.split()[1:]]
    return _sum(words, "rbytes"), _sum(words, "wbytes")


def io_v1(text: str) -> tuple[int, int]:
    """The same of "8:0 Read 1"."""
    words = [(parts[1], "", parts[2]) for line in text.splitlines() if len(parts := line.split()) == 3]
    return _sum(words, "Read"), _sum(words, "Write")


def _sum(words: list[tuple[str, str, str]], name: str) -> int:
    return sum(whole(value) or 0 for key, _, value in words if key == name)


def links(text: str) -> dict[str, tuple[int, int]]:
    """Link → bytes (received, sent), as the host sees it: what a veth's outer end received, the container sent."""
    found = {}
    for line in text.splitlines()[2:]:
        name, _, numbers = line.partition(":")
        words = numbers.split()
        if len(words) >= 9 and words[0].isdigit() and words[8].isdigit():
            found[name.strip()] = int(words[0]), int(words[8])
    return found
