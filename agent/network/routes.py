"""What the host's own routing table says (proc(5), net/route): where the outside is, and who else uses our
addresses."""

from __future__ import annotations

import ipaddress
import re
import struct
from collections.abc import Iterator
from pathlib import Path

from agent.kit.pools import ADDRESS_POOL_6

_TABLE_6 = Path("/proc/thread-self/net/ipv6_route")
_OURS = re.compile(r"g[0-9a-f]{8}[0-9a-z]+\Z")  # of any instance
_TABLE = Path("/proc/thread-self/net/route")


def uplinks() -> tuple[str, ...]:
    """Links that carry a default route."""
    return tuple(sorted({name for name, network in _rows() if network.prefixlen == 0}))


def overlaps(pool: str) -> Iterator[str]:
    """For `doctor`: a sentence for each route of somebody else into `pool`, or its like in IPv6, which our tasks'
    addresses come from."""
    for text, name in own():
        network = ipaddress.ip_network(text)
        ours = ipaddress.ip_network(pool if network.version == 4 else ADDRESS_POOL_6)
        if network.overlaps(ours):
            yield f"the host's route to {network} (link {name}) overlaps {ours}, which tasks get their addresses from"


def own() -> tuple[tuple[str, str], ...]:
    """(network, link) of every route of the host's own, in both families: neither the default ones nor those to
    tasks."""
    four = [(str(network), name) for name, network in _rows() if network.prefixlen]
    return tuple(sorted({(network, name) for network, name in (*four, *_rows_6()) if not _OURS.match(name)}))


def _rows_6() -> Iterator[tuple[str, str]]:
    """(destination, link) of global ones (proc(5), net/ipv6_route)."""
    try:
        lines = _TABLE_6.read_text().splitlines()
    except FileNotFoundError:
        return  # no IPv6 here
    for row in (line.split() for line in lines):
        network = ipaddress.IPv6Network((bytes.fromhex(row[0]), int(row[1], 16)))
        if row[9] != "lo" and network.prefixlen and not (network.is_link_local or network.is_multicast):
            yield str(network), row[9]


def _rows() -> Iterator[tuple[str, ipaddress.IPv4Network]]:
    """(link, destination); what is refused ("*"), and leads to the loopback link, ours among it, is left out."""
    for row in (line.split() for line in _TABLE.read_text().splitlines()[1:]):
        if row[0] not in ("*", "lo"):
            address, mask = (ipaddress.IPv4Address(struct.pack("=I", int(row[at], 16))) for at in (1, 7))
            yield row[0], ipaddress.IPv4Network(f"{address}/{mask}")
