"""The short form of `ports` and `expose` → single ports (05-services.md, ports; expose).

    [HOST_IP:][PUBLISHED:]TARGET[/PROTOCOL], where PUBLISHED and TARGET may be ranges of one length; "" or 0: any port

Pure functions of text; ValueError says what is wrong with it.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_RANGE = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?", re.ASCII)


class Port(NamedTuple):
    target: int
    published: int | None
    protocol: str
    host_ip: str


def parse(text: str) -> list[Port]:
    if len(text) > 100:
        raise ValueError("a port is written as [HOST_IP:][PUBLISHED:]TARGET[/PROTOCOL]")
    rest, slash, protocol = text.partition("/")
    rest, _, target = rest.rpartition(":")
    host_ip, _, published = rest.rpartition(":")
    if not target:
        raise ValueError("the container's port is missing")
    return expand(target, published, protocol if slash else "tcp", host_ip)


def expand(target: str, published: str, protocol: str, host_ip: str) -> list[Port]:
    """Ranges → one entry each."""
    low, high = port_range(target)
    protocol, host_ip = _protocol(protocol), _address(host_ip)
    if published in ("", "0"):
        return [Port(port, None, protocol, host_ip) for port in range(low, high + 1)]
    first, last = port_range(published)
    if first != last and low == high:
        raise ValueError("gorae does not support a range of host ports for one port of the container yet")
    if last - first != high - low:
        raise ValueError(f"the ranges {published} and {target} differ in length")
    return [Port(port, first + port - low, protocol, host_ip) for port in range(low, high + 1)]


def port_range(text: str) -> tuple[int, int]:
    found = _RANGE.fullmatch(text)
    low = int(found[1]) if found else 0
    high = int(found[2] or low) if found else 0
    if not 1 <= low <= high <= 65535:
        raise ValueError(f"{text!r} is no port: 1 to 65535, or a range as 8000-8010")
    return low, high


def exposed(value: str | int) -> str:
    """An entry of `expose`, checked: PORT[-PORT][/PROTOCOL]."""
    ports, slash, protocol = str(value)[:40].partition("/")
    port_range(ports)
    return f"{ports}/{_protocol(protocol)}" if slash else ports


def _protocol(text: str) -> str:
    if text.lower() not in ("tcp", "udp"):
        raise ValueError(f"the protocol {text!r} is not supported; tcp and udp are")
    return text.lower()


def _address(text: str) -> str:
    if not text:
        return ""
    from ipaddress import ip_address  # most files name no address

    try:
        return str(ip_address(text[1:-1] if text.startswith("[") and text.endswith("]") else text))
    except ValueError:
        raise ValueError(f"{text!r} is no IP address of the host") from None
