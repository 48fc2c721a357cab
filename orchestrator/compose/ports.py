"""The short form of `ports` and `expose` → what the long form would say (05-services.md, ports; expose).

    [HOST_IP:][PUBLISHED:]TARGET[/PROTOCOL], where PUBLISHED and TARGET may be ranges of one length, or PUBLISHED a
    range and TARGET one port: then any port of the range. Without PUBLISHED: any port

Pure functions of text; ValueError says what is wrong with it.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_RANGE = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?", re.ASCII)
_PROTOCOLS = ("tcp", "udp", "sctp")


class Port(NamedTuple):
    """`published`: a port, a range "8000-8010" to choose from, or "" for any."""

    target: int
    published: str
    protocol: str
    host_ip: str


def parse(text: str) -> list[Port]:
    if len(text) > 100:
        raise ValueError("a port is written as [HOST_IP:][PUBLISHED:]TARGET[/PROTOCOL]")
    rest, _, protocol = text.partition("/")
    rest, _, target = rest.rpartition(":")
    host_ip, _, published = rest.rpartition(":")
    if not target:
        raise ValueError("the container's port is missing")
    low, high = port_range(target)
    protocol, host_ip = _protocol(protocol or "tcp"), address(host_ip)
    if not published:
        return [Port(port, "", protocol, host_ip) for port in range(low, high + 1)]
    first, last = port_range(published, lowest=0)
    if first != last and low == high:
        return [Port(low, f"{first}-{last}", protocol, host_ip)]
    if last - first != high - low:
        raise ValueError(f"the ranges {published} and {target} differ in length")
    return [Port(port, str(first + port - low), protocol, host_ip) for port in range(low, high + 1)]


def port_range(text: str, lowest: int = 1) -> tuple[int, int]:
    found = _RANGE.fullmatch(text)
    low = int(found[1]) if found else -1
    high = int(found[2] or low) if found else -1
    if not lowest <= low <= high <= 65535:
        raise ValueError(f"{text!r} is no port: 1 to 65535, or a range as 8000-8010")
    return low, high


def exposed(value: str | int) -> str:
    """An entry of `expose`, checked: PORT[-PORT][/PROTOCOL]."""
    ports, slash, protocol = str(value)[:40].partition("/")
    port_range(ports)
    return f"{ports}/{_protocol(protocol)}" if slash else ports


def _protocol(text: str) -> str:
    if text.lower() not in _PROTOCOLS:
        raise ValueError(f"the protocol {text!r} is unknown; tcp, udp and sctp are known")
    return text.lower()


def address(text: str) -> str:
    """An address of the host, without brackets; "" stays."""
    if not text:
        return ""
    from ipaddress import ip_address  # most files name no address

    try:
        return str(ip_address(text[1:-1] if text.startswith("[") and text.endswith("]") else text))
    except ValueError:
        raise ValueError(f"{text!r} is no IP address of the host") from None
