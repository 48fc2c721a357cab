"""The text of a task's /etc/hosts and /etc/resolv.conf, from plain values.

Why pure: a running container sees every rewrite at once, so what is written must be predictable and tested as text.
It reads no file; the adapter brings the host's own files in as strings.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from functools import lru_cache

STUB_NOTE = "# the host's resolver listens on the host's loopback only, which a task cannot reach\n"
_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,252}[A-Za-z0-9_])?\Z")


def hosts(hostname: str, address: str, peers: Mapping[str, tuple[str, ...]]) -> str:
    """/etc/hosts (hosts(5)): localhost, the task's own name, then each peer with all its addresses, own ones first.

    A name that no resolver would look up (a blank, a control character) is left out: it could smuggle in a line.
    ValueError for an address that is none.
    """
    own = _lines(hostname, (address,))
    others = []
    for name in sorted(peers):
        if name != hostname:
            addresses = peers[name]
            if address in addresses and len(addresses) > 1:
                others.append(_lines(name, (address,)))
                addresses = tuple(other for other in addresses if other != address)
            others.append(_lines(name, addresses))
    return "".join(("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n", own, *others))


@lru_cache(maxsize=8192)  # a stack's files are written together, and all name the same peers
def _lines(name: str, addresses: tuple[str, ...]) -> str:
    found = sorted({ipaddress.ip_address(address) for address in addresses}, key=lambda found: found.packed)
    return "".join(f"{address}\t{name}\n" for address in found) if _NAME.match(name) else ""


def nameservers(text: str) -> tuple[str, ...]:
    """The addresses of a resolv.conf(5), in its order; what is no address is skipped. A zone ("%eth0") is kept."""
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver":
            try:
                ipaddress.ip_address(words[1])
            except ValueError:
                continue
            found.append(words[1])
    return tuple(found)


def only_loopback(text: str) -> bool:
    """Every nameserver is a stub on the host's loopback (systemd-resolved's 127.0.0.53): look for the real ones."""
    servers = nameservers(text)
    return bool(servers) and all(ipaddress.ip_address(server).is_loopback for server in servers)


def resolv(text: str, upstream: str = "") -> str:
    """A task's resolv.conf from the host's. `upstream`: the file that names the real servers behind a loopback stub.

    Tasks have no IPv6 and not the host's loopback, so those servers are left out, and a comment says so.
    `search` and `options` are the host's.
    """
    if only_loopback(text) and nameservers(upstream):
        text = upstream
    servers = [ipaddress.ip_address(server) for server in nameservers(text)]
    usable = [server for server in servers if server.version == 4 and not server.is_loopback]
    kept = [line.strip() for line in text.splitlines() if line.split()[:1] in (["search"], ["domain"], ["options"])]
    note = STUB_NOTE if any(server.is_loopback for server in servers) and not usable else ""
    return note + "".join(f"nameserver {server}\n" for server in usable) + "".join(f"{line}\n" for line in kept)
