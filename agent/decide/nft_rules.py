"""The nftables table of one instance as plain values, and its text for `nft -f -`: whole, or the change between two.

Cost does not grow with tasks: a packet passes a handful of hash look-ups. What differs per set of networks (who may
talk to whom) and per published port (who answers, in turn) is a chain of its own, reached through a verdict map.
Everything that enters the text is checked here, because a stack's or an address's text comes from outside.
docs: nft(8); the hooks' order: https://wiki.nftables.org/wiki-nftables/index.php/Netfilter_hooks
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter
from typing import Any

from agent.kit.pools import GATEWAY

ANY = "0.0.0.0"
_NETWORK = re.compile(r"[0-9a-f]{10}\Z")
_LINK = re.compile(r"g[0-9a-z]{1,14}\Z")


@dataclass(frozen=True, slots=True)
class Member:
    """A task's place: packets from `address` come in by `link` only, and reach the members of each of `networks`
    (network_id), what is outside only if `outside`, and the host itself, by the gateway's address, only if `host`."""

    link: str
    address: str
    networks: frozenset[str]
    outside: bool = True
    host: bool = False


@dataclass(frozen=True, slots=True)
class Served:
    """`address`:`target` answers for `published` on `host_ip` ("0.0.0.0": every address of the host)."""

    protocol: str
    published: int
    host_ip: str
    address: str
    target: int


@dataclass(frozen=True, slots=True)
class Backend:
    """The task at `address` can answer at the virtual address of its service."""

    virtual: str
    address: str
    ready: bool


@dataclass(frozen=True, slots=True)
class Policy:
    """The desired state. router: the host forwarded before we came, so what is not ours is not ours to close.
    virtuals: the range of the virtual addresses, "FIRST-LAST"."""

    instance: str
    subnet: str
    pool: str
    virtuals: str
    router: bool = False
    members: frozenset[Member] = frozenset()
    served: frozenset[Served] = frozenset()
    backends: frozenset[Backend] = frozenset()


@dataclass(frozen=True, slots=True)
class Group:
    """A set or map: its declaration, and key → value ("" in a set)."""

    kind: str  # "set" or "map"
    declaration: str
    elements: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Chain:
    hook: str  # "" for a chain that is only jumped to
    rules: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Ruleset:
    table: str
    groups: Mapping[str, Group]
    chains: Mapping[str, Chain]


def table_name(instance: str) -> str:
    return f"gorae_{instance}"


def network_id(name: str) -> str:
    """Ten hex digits for the name of a network: short enough for a record on a link, plain enough for nft."""
    return hashlib.sha256(name.encode()).hexdigest()[:10]


def ruleset(policy: Policy) -> Ruleset:
    """What the table holds for `policy`. ValueError for a link or an address that is none."""
    members = sorted(policy.members, key=attrgetter("link", "address"))
    all_served = sorted(policy.served, key=attrgetter("protocol", "published", "host_ip", "address", "target"))
    all_backends = sorted(policy.backends, key=attrgetter("virtual", "address", "ready"))
    networks: dict[str, list[str]] = {}
    sets: dict[frozenset[str], list[str]] = {}
    for member in members:
        if not _LINK.match(member.link):
            raise ValueError(f"not a link name: {member.link!r}")
        address = _ip(member.address)
        sets.setdefault(member.networks, []).append(address)
        for network in member.networks:
            networks.setdefault(network, []).append(address)
    ports: dict[tuple[str, int, str], list[str]] = {}
    for served in all_served:
        key = (_protocol(served.protocol), _port(served.published), _ip(served.host_ip))
        ports.setdefault(key, []).append(f"{_ip(served.address)} . {_port(served.target)}")
    chains = _static_chains(policy)
    groups = {
        "guests": _set("ipv4_addr", (member.address for member in members if member.host)),
        "inside": _set("ipv4_addr", (member.address for member in members if not member.outside)),
        "sources": _set("ifname . ipv4_addr", (f'"{m.link}" . {m.address}' for m in members)),
        "served": _set(_RECORD, (_record(served) for served in all_served)),
        "backends": _set("ipv4_addr . ipv4_addr . mark", (_backend(one) for one in all_backends)),
        "selves": _set("ipv4_addr . ipv4_addr", (f"{member.address} . {member.address}" for member in members)),
    }
    senders, anywhere, somewhere = {}, {}, {}
    for network, addresses in sorted(networks.items()):
        groups[_network(network)] = _set("ipv4_addr", addresses)
    for together, addresses in sets.items():
        shared = sorted(_network(network) for network in together)
        name = shared[0] if len(shared) == 1 else f"nets_{network_id(' '.join(shared))}"
        chains[name] = Chain("", (*(f"ip daddr @{network} accept" for network in shared), "goto refuse"))
        senders.update(dict.fromkeys(addresses, f"goto {name}"))
    for (protocol, port, host_ip), targets in ports.items():
        name = f"{protocol}_{port}" + ("" if host_ip == ANY else f"_{host_ip}")
        turns = ", ".join(f"{turn} : {target}" for turn, target in enumerate(targets))
        turn = f"numgen inc mod {len(targets)} map {{ {turns} }}"
        chains[name] = Chain("", (f"meta l4proto {protocol} dnat ip to {turn}",))
        if host_ip == ANY:
            anywhere[f"{protocol} . {port}"] = f"goto {name}"
        else:
            somewhere[f"{host_ip} . {protocol} . {port}"] = f"goto {name}"
    virtual = {}
    for address, answering in sorted(chosen(all_backends).items()):
        name = f"vip_{_ip(address)}"
        turns = ", ".join(f"{turn} : {_ip(target)}" for turn, target in enumerate(answering))
        chains[name] = Chain("", (f"dnat ip to numgen inc mod {len(answering)} map {{ {turns} }}",))
        virtual[address] = f"goto {name}"
    groups["virtual"] = Group("map", "type ipv4_addr : verdict;", virtual)
    groups["senders"] = Group("map", "type ipv4_addr : verdict;", senders)
    groups["published"] = Group("map", "type inet_proto . inet_service : verdict;", anywhere)
    groups["published_at"] = Group("map", "type ipv4_addr . inet_proto . inet_service : verdict;", somewhere)
    return Ruleset(table_name(policy.instance), groups, chains)


def chosen(backends: Iterable[Backend]) -> dict[str, tuple[str, ...]]:
    """Virtual address → who answers there: the ready tasks, else those that run (members of a group that must meet
    before they are healthy)."""
    found: dict[str, dict[bool, list[str]]] = {}
    for backend in backends:
        found.setdefault(backend.virtual, {}).setdefault(backend.ready, []).append(backend.address)
    return {virtual: tuple(by.get(True) or by[False]) for virtual, by in found.items()}


# Sets that no rule reads, `served` and `backends`: they record in the same transaction what is served, so that an agent
# that starts can read back from the kernel what its predecessor had committed. Their elements: `_record` and
# `_backend`, back: `served_from` and `backends_from`.
_RECORD = "ipv4_addr . inet_proto . inet_service . ipv4_addr . inet_service"


def _record(served: Served) -> str:
    return f"{served.address} . {served.protocol} . {served.published} . {served.host_ip} . {served.target}"


def _backend(backend: Backend) -> str:
    return f"{_ip(backend.virtual)} . {_ip(backend.address)} . {int(backend.ready)}"


def check(served: Served) -> None:
    """ValueError when it cannot become a rule: an address that is none or is IPv6, a port out of range."""
    _protocol(served.protocol)
    for port in (served.published, served.target):
        _port(port)
    for address in (served.host_ip, served.address):
        _ip(address)


def served_from(document: object) -> frozenset[Served]:
    """The `served` set out of `nft -j list set`'s document (libnftables-json(5)); what is malformed is skipped."""
    return frozenset(
        Served(str(protocol), int(published), str(host_ip), str(address), int(target))
        for address, protocol, published, host_ip, target in _elements(document, 5)
    )


def backends_from(document: object) -> frozenset[Backend]:
    """The `backends` set, likewise."""
    return frozenset(
        Backend(str(virtual), str(address), bool(ready)) for virtual, address, ready in _elements(document, 3)
    )


def _elements(document: object, fields: int) -> Iterator[Sequence[Any]]:
    objects = document.get("nftables", []) if isinstance(document, dict) else []
    for item in (entry["set"] for entry in objects if "set" in entry):
        for element in item.get("elem", []):
            found = element.get("concat", []) if isinstance(element, dict) else []
            if len(found) == fields:
                yield found


def _static_chains(policy: Policy) -> dict[str, Chain]:
    ours = f'"g{policy.instance}*"'
    pool, subnet = str(ipaddress.ip_network(policy.pool)), str(ipaddress.ip_network(policy.subnet))
    states = "ct state vmap { established : accept, related : accept, invalid : drop }"
    published = f"ct status dnat ct original ip daddr != {policy.virtuals}"
    strangers: tuple[str, ...] = ()
    if not policy.router:  # other instances are on the same footing; whatever else wants through never could before us
        others = (f'iifname "g*" ip saddr {pool} accept', f'oifname "g*" ip daddr {pool} accept')
        strangers = (*others, "meta nfproto ipv4 drop")
    return {
        "refuse": Chain("", ("meta l4proto tcp reject with tcp reset", "reject with icmpx admin-prohibited")),
        # First of all, before connection tracking. A neighbour on the wire that sends to 127.0.0.1 would otherwise be
        # translated to a task before the kernel's own martian check sees the packet.
        "arrival": Chain(
            "type filter hook prerouting priority raw - 10;",
            (
                'iifname != "lo" ip daddr 127.0.0.0/8 drop',
                f"iifname != {ours} accept",
                "meta nfproto != ipv4 drop",
                "iifname . ip saddr != @sources drop",
            ),
        ),
        "from_task": Chain(
            "",
            (
                states,  # first, because most packets end here
                "ip saddr @inside goto from_inside",
                f"{published} accept",  # at a virtual address the same holds as at the task's own
                f"oifname {ours} ip saddr vmap @senders",
                f"ip daddr {pool} goto refuse",
                "ip daddr 169.254.0.0/16 goto refuse",  # metadata services hand out the host's credentials
            ),
        ),
        # Its networks and nothing else: neither published ports of others nor the names of the outside.
        "from_inside": Chain("", (f"oifname {ours} ip saddr vmap @senders", "goto refuse")),
        "to_task": Chain("", (states, "ct status dnat accept", "goto refuse")),
        "forward": Chain(
            "type filter hook forward priority filter;",
            (f"iifname {ours} goto from_task", f"oifname {ours} goto to_task", *strangers),
        ),
        "input": Chain(
            "type filter hook input priority filter;",
            (f"iifname != {ours} accept", states, f"ip saddr @guests ip daddr {GATEWAY} accept", "goto refuse"),
        ),
        "translate": Chain(
            "",
            (
                "ip daddr . meta l4proto . th dport vmap @published_at",
                "meta l4proto . th dport vmap @published",
            ),
        ),
        "prerouting": Chain(
            "type nat hook prerouting priority dstnat;",
            (f"iifname {ours} ip daddr vmap @virtual", "fib daddr type local goto translate"),
        ),
        "output": Chain("type nat hook output priority -100;", ("fib daddr type local goto translate",)),
        "postrouting": Chain(
            "type nat hook postrouting priority srcnat;",
            (
                # Only what begins here: our own refusals are "related", and with a source translated by chance they
                # would tell the refused nothing.
                "ct state != new accept",
                # A task that reaches a task through the host: the answer must come back through the host.
                f'ip saddr {subnet} oifname "g*" {published} snat ip to {GATEWAY}',
                f"ip saddr . ip daddr @selves snat ip to {GATEWAY}",  # by the virtual address of its own service
                f"ip saddr {subnet} oifname != {ours} masquerade",
                f"oifname {ours} ip saddr 127.0.0.0/8 snat ip to {GATEWAY}",
            ),
        ),
    }


def whole(rules: Ruleset) -> str:
    """One transaction that puts the table in place of whatever table of its name is there. Nothing is closed
    between."""
    table = f"inet {rules.table}"
    lines = [f"add table {table}", f"delete table {table}", f"add table {table}"]
    return _text([*lines, *_added(table, Ruleset(rules.table, {}, {}), rules)])


def delta(old: Ruleset, new: Ruleset) -> str:
    """The transaction from `old` to `new`, in an order the kernel takes: nothing is used before it is there, nothing
    removed while in use. "" when they are the same."""
    table = f"inet {new.table}"
    lines = _added(table, old, new)
    gone_chains = [name for name in sorted(old.chains) if name not in new.chains]
    lines += [f"flush chain {table} {name}" for name in gone_chains]
    lines += [f"delete chain {table} {name}" for name in gone_chains]
    lines += [f"delete {old.groups[name].kind} {table} {name}" for name in sorted(old.groups) if name not in new.groups]
    return _text(lines)


def _added(table: str, old: Ruleset, new: Ruleset) -> list[str]:
    lines = []
    for name, group in sorted(new.groups.items()):
        if name not in old.groups:
            lines.append(f"add {group.kind} {table} {name} {{ {group.declaration} }}")
    fresh = [name for name in new.chains if name not in old.chains]
    for name in fresh:
        hook = new.chains[name].hook
        lines.append(f"add chain {table} {name}" + (f" {{ {hook} }}" if hook else ""))
    for name, chain in new.chains.items():
        before = old.chains.get(name)
        if before != chain:
            lines += [f"flush chain {table} {name}"] if before else []
            lines += [f"add rule {table} {name} {rule}" for rule in chain.rules]
    empty: Mapping[str, str] = {}
    for name, group in sorted(new.groups.items()):
        before_elements = old.groups[name].elements if name in old.groups else empty
        if before_elements == group.elements:
            continue
        gone = [key for key, value in before_elements.items() if group.elements.get(key) != value]
        added = [(key, value) for key, value in group.elements.items() if before_elements.get(key) != value]
        if gone:
            lines.append(f"delete element {table} {name} {{ {', '.join(gone)} }}")
        if added:
            pairs = (f"{key} : {value}" if value else key for key, value in added)
            lines.append(f"add element {table} {name} {{ {', '.join(pairs)} }}")
    return lines


def _text(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _set(kind: str, keys: Iterable[str]) -> Group:
    return Group("set", f"type {kind};", dict.fromkeys(keys, ""))


@lru_cache(maxsize=8192)  # the same few addresses are checked at every change
def _ip(text: str) -> str:
    return str(ipaddress.IPv4Address(text))


def _network(text: str) -> str:
    if not _NETWORK.match(text):
        raise ValueError(f"not a network's id: {text!r}")
    return f"net_{text}"


def _port(value: int) -> int:
    if not 1 <= value <= 65535:
        raise ValueError(f"not a port: {value}")
    return value


def _protocol(text: str) -> str:
    if text not in ("tcp", "udp"):
        raise ValueError(f"not a protocol: {text!r}")
    return text
