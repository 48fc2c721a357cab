"""The text of a task's /etc/hosts and /etc/resolv.conf, from plain values.

Why pure: a running container sees every rewrite at once, so what is written must be predictable and tested as text.
It reads no file; the adapter brings the host's own files in as strings.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

RESOLVER = "127.0.0.11"  # the address that Docker uses, and nginx configurations name
_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,252}[A-Za-z0-9_])?\Z")


def hosts(
    hostname: str, address: str, peers: Mapping[str, tuple[str, ...]], domain: str = "", address_6: str = ""
) -> str:
    """/etc/hosts (hosts(5)): localhost, the task's own name, then each peer with all its addresses, own ones first.
    With a domain, the whole name comes first in its line: that is what `hostname -f` says.

    A name that no resolver would look up (a blank, a control character) is left out: it could smuggle in a line.
    ValueError for an address that is none.
    """
    mine = (address, address_6) if address_6 else (address,)
    own = _lines((f"{hostname}.{domain}", hostname) if domain else (hostname,), mine)
    others = []
    for name in sorted(peers):
        if name != hostname:
            addresses = peers[name]
            if address in addresses and len(addresses) > 1:
                others.append(_lines((name,), mine))
                addresses = tuple(other for other in addresses if other not in mine)
            others.append(_lines((name,), addresses))
    return "".join(("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n", own, *others))


@lru_cache(maxsize=8192)  # a stack's files are written together, and all name the same peers
def _lines(names: tuple[str, ...], addresses: tuple[str, ...]) -> str:
    found = sorted({ipaddress.ip_address(address) for address in addresses}, key=lambda found: found.packed)
    return "".join(f"{address}\t{' '.join(names)}\n" for address in found) if all(map(_NAME.match, names)) else ""


def host_hosts(host: str) -> str:
    """What a task in the host's network has of the host's file: all but the names that it calls itself by."""
    lines = [line for line in host.splitlines() if (words := line.split("#")[0].split()) and "localhost" not in words]
    return "".join(f"{line}\n" for line in lines)


def host_resolv(
    host: str, servers: Sequence[str] = (), search: Sequence[str] | None = None, options: Sequence[str] = ()
) -> str:
    """The resolv.conf(5) of a task in the host's network: the host's, but for what the task has of its own."""
    own = {"nameserver": [*servers], "search": [" ".join(search or ())], "options": [" ".join(options)]}
    replaced = {key for key, given in (("nameserver", servers), ("search", search), ("options", options)) if given}
    if search is not None:
        replaced |= {"search", "domain"}
    kept = [line for line in host.splitlines() if not (words := line.split()) or words[0] not in replaced]
    added = [f"{key} {value}" for key in sorted(replaced & own.keys()) for value in own[key] if value not in ("", ".")]
    return "".join(f"{line}\n" for line in (*kept, *added))


def resolv(host: str, search: Sequence[str] | None = None, options: Sequence[str] = ()) -> str:
    """A task's resolv.conf(5): the resolver, which asks the host's servers itself, so that they may be anywhere.

    `host`: the host's file, whose search list and options are the task's unless it has its own. As Docker does it, a
    name is tried as it stands first (ndots:0), or "redis" would be asked of the world as redis.SEARCH.
    """
    words = [line.split() for line in host.splitlines()]
    if search is None:
        lists = [line[1:] for line in words if line[:1] in (["search"], ["domain"])]
        search = lists[-1] if lists else ()  # the last one counts
    if not options:
        options = [option for line in words if line[:1] == ["options"] for option in line[1:]]
    if not any(option.startswith("ndots:") for option in options):
        options = [*options, "ndots:0"]
    found = [domain for domain in search if domain != "."]
    searched = f"search {' '.join(found)}\n" if found else ""
    return f"nameserver {RESOLVER}\n{searched}options {' '.join(options)}\n"
