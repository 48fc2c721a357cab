"""The nftables table of one instance as plain values: what it holds for those who are there, in both families.

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

from agent.decide.nft_text import Chain, Group, Ruleset
from agent.kit.pools import ADDRESS_POOL_6, GATEWAY, Slice

ANY, ANY_6 = "0.0.0.0", "::"
GROUP = 0x676F7265  # of the host's end of every pair, of every instance ("gore")
# Metadata services hand out the host's credentials: Amazon's, Google's, Oracle's.
METADATA_6 = "{ fd00:ec2::254, fd20:ce::254, fd00:c1::a9fe:a9fe }"
_NETWORK = re.compile(r"[0-9a-f]{10}\Z")
_LINK = re.compile(r"g[0-9a-z]{1,14}\Z")


@dataclass(frozen=True, slots=True)
class Member:
    """A place of a task, one of each family that it has: packets from `address` come in by `link` only, and reach the
    members of each of `networks` (network_id), what is outside only if `outside`, and the host itself, by the gateway's
    address, only if `host`. `subnet`: that its file took the address of, "" for one of ours: none of it is outside."""

    link: str
    address: str
    networks: frozenset[str]
    outside: bool = True
    host: bool = False
    subnet: str = ""


@dataclass(frozen=True, slots=True)
class Served:
    """`address`:`target` answers for `published` on `host_ip` ("0.0.0.0", "::": every address of the host) of its own
    family."""

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
    """The desired state. router, router_6: the host forwarded before we came, so what is not ours is not ours to
    close."""

    instance: str
    slice_: Slice
    router: bool = False
    router_6: bool = False
    members: frozenset[Member] = frozenset()
    served: frozenset[Served] = frozenset()
    backends: frozenset[Backend] = frozenset()


def table_name(instance: str) -> str:
    return f"gorae_{instance}"


def network_id(name: str) -> str:
    """Ten hex digits for the name of a network: short enough for a record on a link, plain enough for nft."""
    return hashlib.sha256(name.encode()).hexdigest()[:10]


@dataclass(frozen=True, slots=True)
class _Family:
    """IPv4 or IPv6, in nft's words. `suffix`: of the names of its groups and chains."""

    version: int
    suffix: str
    ip: str
    address: str
    any: str


_FAMILIES = (_Family(4, "", "ip", "ipv4_addr", ANY), _Family(6, "6", "ip6", "ipv6_addr", ANY_6))


@lru_cache(1)
def ruleset(policy: Policy) -> Ruleset:
    """What the table holds for `policy`; for the same one as before, the same object. ValueError for a link or an
    address that is none."""
    groups: dict[str, Group] = {}
    chains = _static_chains(policy)
    for family in _FAMILIES:
        for part in (
            _members(family, policy.members),
            _published(family, policy.served),
            _virtual(family, policy.backends),
        ):
            groups |= part[0]
            chains |= part[1]
    return Ruleset(table_name(policy.instance), groups, chains)


_Part = tuple[Mapping[str, Group], Mapping[str, Chain]]  # kept, and the same object again while its cause is the same
_LAST = len(_FAMILIES)


@lru_cache(_LAST)
def _members(family: _Family, all_members: frozenset[Member]) -> _Part:
    """Who is where, and who talks to whom: a set per network, a chain per distinct set of networks."""
    groups: dict[str, Group] = {}
    chains: dict[str, Chain] = {}
    members = sorted(
        (one for one in all_members if _version(one.address) == family.version), key=attrgetter("link", "address")
    )
    networks: dict[str, list[str]] = {}
    sets: dict[frozenset[str], list[str]] = {}
    for member in members:
        if not _LINK.match(member.link):
            raise ValueError(f"not a link name: {member.link!r}")
        address = _ip(member.address)
        sets.setdefault(member.networks, []).append(address)
        for network in member.networks:
            networks.setdefault(network, []).append(address)
    kind, suffix = family.address, family.suffix
    groups[f"inside{suffix}"] = _set(kind, (member.address for member in members if not member.outside))
    groups[f"sources{suffix}"] = _set(f"ifname . {kind}", (f'"{m.link}" . {m.address}' for m in members))
    groups[f"selves{suffix}"] = _set(f"{kind} . {kind}", (f"{m.address} . {m.address}" for m in members))
    named = [one.subnet for one in members if one.subnet]
    subnets: Iterable[object] = (
        ipaddress.collapse_addresses(map(ipaddress.IPv4Network, named))
        if family.version == 4
        else ipaddress.collapse_addresses(map(ipaddress.IPv6Network, named))
    )
    interval = f"type {kind}; flags interval;"
    groups[f"subnets{suffix}"] = Group("set", interval, dict.fromkeys(map(str, subnets), ""))
    if family.version == 4:
        groups["guests"] = _set(kind, (member.address for member in members if member.host))
    for network, addresses in sorted(networks.items()):
        groups[_network(network, suffix)] = _set(kind, addresses)
    senders: dict[str, str] = {}
    for together, addresses in sets.items():
        shared = sorted(_network(network, suffix) for network in together)
        name = shared[0] if len(shared) == 1 else f"nets_{network_id(' '.join(shared))}"
        chains[name] = Chain("", (*(f"{family.ip} daddr @{network} accept" for network in shared), "goto refuse"))
        senders.update(dict.fromkeys(addresses, f"goto {name}"))
    groups[f"senders{suffix}"] = Group("map", f"type {kind} : verdict;", senders)
    return groups, chains


@lru_cache(_LAST)
def _published(family: _Family, all_served: frozenset[Served]) -> _Part:
    """A chain per published port, in which its tasks take turns."""
    groups: dict[str, Group] = {}
    chains: dict[str, Chain] = {}
    mine = sorted(
        (one for one in all_served if _version(one.address) == family.version),
        key=attrgetter("protocol", "published", "host_ip", "address", "target"),
    )
    kind, suffix = family.address, family.suffix
    ports: dict[tuple[str, int, str], list[tuple[str, int]]] = {}
    for served in mine:
        check(served)
        key = served.protocol, served.published, _ip(served.host_ip)
        ports.setdefault(key, []).append((_ip(served.address), served.target))
    anywhere, somewhere = {}, {}
    for (protocol, port, host_ip), targets in ports.items():
        name = f"{protocol}{suffix}_{port}" + ("" if host_ip == family.any else f"_{_word(host_ip)}")
        address, target = targets[0]
        one = f"[{address}]:{target}" if family.version == 6 else f"{address}:{target}"
        dnat = f"meta l4proto {protocol} dnat {family.ip} to"
        chains[name] = Chain("", _turns(dnat, [f"{address} . {target}" for address, target in targets], one))
        if host_ip == family.any:
            anywhere[f"{protocol} . {port}"] = f"goto {name}"
        else:
            somewhere[f"{host_ip} . {protocol} . {port}"] = f"goto {name}"
    record = f"{kind} . inet_proto . inet_service . {kind} . inet_service"
    groups[f"served{suffix}"] = _set(record, map(_record, mine))
    groups[f"published{suffix}"] = Group("map", "type inet_proto . inet_service : verdict;", anywhere)
    groups[f"published{suffix}_at"] = Group("map", f"type {kind} . inet_proto . inet_service : verdict;", somewhere)
    return groups, chains


def _turns(dnat: str, targets: Sequence[str], one: str) -> tuple[str, ...]:
    """`one`: the first target as an address. When a chain is changed, the map of the old rule is empty a moment before
    the old rule is gone: who comes then goes by a second rule, without a map, and would be refused if there were none.
    """
    turns = ", ".join(f"{turn} : {target}" for turn, target in enumerate(targets))
    by_turns = (f"{dnat} numgen inc mod {len(targets)} map {{ {turns} }}",) if len(targets) > 1 else ()
    return (*by_turns, f"{dnat} {one}")


@lru_cache(_LAST)
def _virtual(family: _Family, backends: frozenset[Backend]) -> _Part:
    """A chain per virtual address, in which those that were chosen take turns."""
    groups: dict[str, Group] = {}
    chains: dict[str, Chain] = {}
    mine = sorted(
        (one for one in backends if _version(one.address) == family.version),
        key=attrgetter("virtual", "address", "ready"),
    )
    kind, suffix = family.address, family.suffix
    virtual = {}
    for address, answering in sorted(chosen(mine).items()):
        name = f"vip_{_word(_ip(address))}"
        chains[name] = _answering(family, answering)
        virtual[address] = f"goto {name}"
    groups[f"backends{suffix}"] = _set(f"{kind} . {kind} . mark", map(_backend, mine))
    groups[f"virtual{suffix}"] = Group("map", f"type {kind} : verdict;", virtual)
    return groups, chains


@lru_cache(maxsize=8192)
def _answering(family: _Family, addresses: tuple[str, ...]) -> Chain:
    targets = [_ip(address) for address in addresses]
    return Chain("", _turns(f"dnat {family.ip} to", targets, targets[0]))


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


def _record(served: Served) -> str:
    return f"{served.address} . {served.protocol} . {served.published} . {served.host_ip} . {served.target}"


def _backend(backend: Backend) -> str:
    return f"{_ip(backend.virtual)} . {_ip(backend.address)} . {int(backend.ready)}"


def check(served: Served) -> None:
    """ValueError when it cannot become a rule: an address that is none, two of different families, a port out of
    range."""
    _protocol(served.protocol)
    for port in (served.published, served.target):
        _port(port)
    if _version(served.host_ip) != _version(served.address):
        raise ValueError(f"{served.host_ip} and {served.address} are of different families")


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
    ours, slice_ = f'"g{policy.instance}*"', policy.slice_
    states = "ct state vmap { established : accept, related : accept, invalid : drop }"
    published = (
        f"ct status dnat ct original ip daddr != {slice_.virtuals}",
        f"ct status dnat ct original ip6 daddr != {slice_.virtuals_6}",
    )
    strangers: list[str] = []
    if not (policy.router and policy.router_6):  # other instances' pairs are on the same footing
        strangers += [f"iifgroup {GROUP} accept", f"oifgroup {GROUP} accept"]
        # Whatever else wants through never could before us.
        strangers += [] if policy.router else ["meta nfproto ipv4 drop"]
        strangers += [] if policy.router_6 else ["meta nfproto ipv6 drop"]
    return {
        "refuse": Chain("", ("meta l4proto tcp reject with tcp reset", "reject with icmpx admin-prohibited")),
        # First of all, before connection tracking. A neighbour on the wire that sends to 127.0.0.1 would otherwise be
        # translated to a task before the kernel's own martian check sees the packet.
        "arrival": Chain(
            "type filter hook prerouting priority raw - 10;",
            (
                'ip daddr 127.0.0.0/8 iifname != "lo" drop',
                f"iifname != {ours} accept",
                "iifname . ip saddr @sources accept",
                "iifname . ip6 saddr @sources6 accept",
                "drop",
            ),
        ),
        "from_task": Chain(
            "",
            (
                states,
                "ip saddr @inside goto from_inside",
                "ip6 saddr @inside6 goto from_inside",
                *(f"{one} accept" for one in published),  # at a virtual address the same holds as at the task's own
                f"oifname {ours} ip saddr vmap @senders",
                f"oifname {ours} ip6 saddr vmap @senders6",
                f"ip daddr {{ {ipaddress.ip_network(slice_.pool)}, 169.254.0.0/16 }} goto refuse",
                f"ip6 daddr {ADDRESS_POOL_6} goto refuse",
                "ip daddr @subnets goto refuse",
                "ip6 daddr @subnets6 goto refuse",
                f"ip6 daddr {METADATA_6} goto refuse",
            ),
        ),
        # Its networks and nothing else: neither published ports of others nor the names of the outside.
        "from_inside": Chain(
            "",
            (f"oifname {ours} ip saddr vmap @senders", f"oifname {ours} ip6 saddr vmap @senders6", "goto refuse"),
        ),
        "to_task": Chain("", (states, "ct status dnat accept", "goto refuse")),
        "forward": Chain(
            "type filter hook forward priority filter;",
            (
                # First, and without a look-up, because most packets end here. The chains behind still accept it
                # themselves: where an older version's table is changed in place, one of these may be entered before.
                "ct state established,related accept",
                f"iifname {ours} goto from_task",
                f"oifname {ours} goto to_task",
                'oifname "lo" goto refuse',  # to a virtual address, from outside
                *strangers,
            ),
        ),
        "input": Chain(
            "type filter hook input priority filter;",
            (
                f"iifname != {ours} accept",
                states,
                f"ip saddr @guests ip daddr {GATEWAY} accept",
                "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept",
                "goto refuse",
            ),
        ),
        "translate": Chain(
            "",
            (
                "ip daddr . meta l4proto . th dport vmap @published_at",
                "ip6 daddr . meta l4proto . th dport vmap @published6_at",
                "meta nfproto ipv6 meta l4proto . th dport vmap @published6",
                "meta nfproto ipv4 meta l4proto . th dport vmap @published",
            ),
        ),
        "prerouting": Chain(
            "type nat hook prerouting priority dstnat;",
            (
                f"iifname {ours} ip daddr vmap @virtual",
                f"iifname {ours} ip6 daddr vmap @virtual6",
                # Here: IPv6 forwards nothing that its routes lead to the loopback link.
                f"iifname {ours} ip daddr {slice_.virtuals} goto refuse",
                f"iifname {ours} ip6 daddr {slice_.virtuals_6} goto refuse",
                "fib daddr type local goto translate",
            ),
        ),
        "output": Chain(
            "type nat hook output priority -100;",
            (
                "ip daddr vmap @virtual",
                "ip6 daddr vmap @virtual6",
                f"ip daddr {slice_.virtuals} goto refuse",
                f"ip6 daddr {slice_.virtuals_6} goto refuse",
                "ip6 daddr ::1 accept",  # no way leads from there into a task: agent/network/relay.py answers
                "fib daddr type local goto translate",
            ),
        ),
        "postrouting": Chain(
            "type nat hook postrouting priority srcnat;",
            (
                # Only what begins here: our own refusals are "related", and with a source translated by chance they
                # would tell the refused nothing.
                "ct state != new accept",
                # A task that reaches a task through the host: the answer must come back through the host.
                f'iifname {ours} oifname "g*" {published[0]} snat ip to {GATEWAY}',
                f'iifname {ours} oifname "g*" {published[1]} snat ip6 to {slice_.gateway_6}',
                # By the virtual address of its own service.
                f"ip saddr . ip daddr @selves snat ip to {GATEWAY}",
                f"ip6 saddr . ip6 daddr @selves6 snat ip6 to {slice_.gateway_6}",
                f"iifname {ours} oifname != {ours} masquerade",
                f"oifname {ours} ip saddr 127.0.0.0/8 snat ip to {GATEWAY}",
            ),
        ),
    }


def _set(kind: str, keys: Iterable[str]) -> Group:
    return Group("set", f"type {kind};", dict.fromkeys(keys, ""))


@lru_cache(maxsize=8192)  # the same few addresses are checked at every change
def _ip(text: str) -> str:
    """ValueError for what is no address; one with a zone ("fe80::1%eth0") is none of ours."""
    if "%" in text:
        raise ValueError(f"not an address: {text!r}")
    return str(ipaddress.ip_address(text))


@lru_cache(maxsize=8192)
def _version(text: str) -> int:
    return ipaddress.ip_address(_ip(text)).version


def _word(address: str) -> str:
    """As part of a chain's name, which has no colons."""
    return address.replace(":", "_")


def _network(text: str, suffix: str = "") -> str:
    if not _NETWORK.match(text):
        raise ValueError(f"not a network's id: {text!r}")
    return f"net{suffix}_{text}"


def _port(value: int) -> int:
    if not 1 <= value <= 65535:
        raise ValueError(f"not a port: {value}")
    return value


def _protocol(text: str) -> str:
    if text not in ("tcp", "udp"):
        raise ValueError(f"not a protocol: {text!r}")
    return text
