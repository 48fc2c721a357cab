"""What the host's own routing table says (proc(5), net/route): where the outside is, and who else uses our
addresses."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterator
from pathlib import Path

_TABLE = Path("/proc/thread-self/net/route")


def uplinks() -> tuple[str, ...]:
    """Links that carry a default route."""
    return tuple(sorted({name for name, network in _rows() if network.prefixlen == 0}))


def overlaps(pool: str) -> Iterator[str]:
    """For `doctor`: a sentence for each route of somebody else into the pool our tasks' addresses come from."""
    ours = ipaddress.IPv4Network(pool)
    for name, network in _rows():
        if network.prefixlen and network.overlaps(ours) and not name.startswith("g"):
            yield f"the host's route to {network} (link {name}) overlaps {pool}, which tasks get their addresses from"


def _rows() -> Iterator[tuple[str, ipaddress.IPv4Network]]:
    """(link, destination); what is refused ("*"), and leads to the loopback link, ours among it, is left out."""
    for row in (line.split() for line in _TABLE.read_text().splitlines()[1:]):
        if row[0] not in ("*", "lo"):
            address, mask = (ipaddress.IPv4Address(struct.pack("=I", int(row[at], 16))) for at in (1, 7))
            yield row[0], ipaddress.IPv4Network(f"{address}/{mask}")
