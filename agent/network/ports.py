"""Who listens on the host, and which port is free: what the planner cannot see and the agent reports.

Cheap on purpose: /proc/net/tcp lists listening sockets first, so reading stops at the first connection; holders' names
are looked up only for the ports asked about, in one walk over /proc/*/fd.
"""

from __future__ import annotations

import os
import random
import socket
import struct
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal

from agent.kit.errors import Temporary
from agent.wire.messages import Listener

Protocol = Literal["tcp", "udp"]
_LISTEN, _UNCONNECTED = "0A", "07"
_FILES: tuple[tuple[str, Protocol, str], ...] = (
    ("tcp", "tcp", _LISTEN),
    ("tcp6", "tcp", _LISTEN),
    ("udp", "udp", _UNCONNECTED),
    ("udp6", "udp", _UNCONNECTED),
)
_TRIES = 200


def listeners(
    holders: Collection[int] | None = None, net: Path = Path("/proc/thread-self/net")
) -> tuple[Listener, ...]:
    """Every listening socket of this thread's network namespace, sorted. `holders`: ports whose holder is looked up
    (None: all). Costs about 5 ms without holders (the kernel walks its tables); with them, one
    readlink per open file of the host more."""
    found = sorted({row for name, protocol, state in _FILES for row in _rows(net / name, protocol, state)})
    wanted = {inode for _, _, port, inode in found if inode and (holders is None or port in holders)}
    names = _holders(wanted) if wanted else {}
    return tuple(
        Listener(protocol=protocol, address=address, port=port, holder=names.get(inode, ""))
        for protocol, address, port, inode in found
    )


def free_port(protocol: Protocol, host_ip: str, taken: Collection[int], among: tuple[int, int] | None = None) -> int:
    """A port that no socket of the host holds on `host_ip` ("": any) and that is not in `taken`: the first of `among`,
    else one of the ephemeral range.

    Tried with a real bind. Nothing holds it afterwards: publish it soon. Temporary no-free-port.
    """
    low, high = among or _ephemeral()
    tries = range(low, high + 1) if among else (random.randint(low, high) for _ in range(_TRIES))
    for port in tries:
        if port not in taken and all(_bindable(protocol, address, port) for address in _addresses(host_ip)):
            return port
    raise Temporary(
        f"cannot find a free {protocol} port between {low} and {high} on {host_ip or 'this host'}",
        code="no-free-port",
        hint="widen the range in the Compose file" if among else "name the port in the Compose file",
    )


def _addresses(host_ip: str) -> tuple[str, ...]:
    return (
        (host_ip,)
        if host_ip
        else ("0.0.0.0", "::")
        if Path("/proc/thread-self/net/if_inet6").exists()
        else ("0.0.0.0",)
    )


def _ephemeral() -> tuple[int, int]:
    low, high = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    return int(low), int(high)


def _bindable(protocol: Protocol, host_ip: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host_ip else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM) as probe:
        try:
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind((host_ip, port))
        except OSError:
            return False
        return True


def _rows(path: Path, protocol: Protocol, state: str) -> Iterator[tuple[Protocol, str, int, int]]:
    """(protocol, address, port, inode) of proc(5)'s table."""
    try:
        with path.open() as table:
            next(table, None)
            for line in table:
                fields = line.split()
                if fields[3] != state:
                    if protocol == "tcp":
                        return
                    continue
                address, _, port = fields[1].partition(":")
                yield protocol, _address(address), int(port, 16), int(fields[9])
    except FileNotFoundError:
        return  # no IPv6 here


def _address(digits: str) -> str:
    """Words of 32 bits in host order, each as hex."""
    words = [int(digits[at : at + 8], 16) for at in range(0, len(digits), 8)]
    raw = struct.pack(f"={len(words)}I", *words)
    return socket.inet_ntop(socket.AF_INET if len(raw) == 4 else socket.AF_INET6, raw)


def _holders(inodes: set[int]) -> dict[int, str]:
    """inode → "name (pid N)". A socket held by several (a forked server) is named by the lowest pid."""
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    found: dict[int, str] = {}
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):  # noqa: PTH208 - slow
        for target in _targets(pid):
            inode = wanted.get(target)
            if inode is not None and inode not in found:
                found[inode] = f"{_name(pid)} (pid {pid})"
        if len(found) == len(wanted):
            break
    return found


def _targets(pid: int) -> Iterator[str]:
    try:
        with os.scandir(f"/proc/{pid}/fd") as entries:
            for entry in entries:
                with suppress(OSError):  # closed meanwhile
                    yield os.readlink(entry.path)  # noqa: PTH115 - a Path each is slow
    except OSError:
        return  # it ended meanwhile


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text(errors="replace").strip()
    except OSError:
        return "?"
