"""What other firewalls of the host do to our packets, read off their rules. Pure.

An accept in our table does not overrule a drop in another one: each base chain of a hook has its say. So the rules of
the others are walked with packets of ours in mind. What cannot be told of a rule (it asks for something that these
packets do not have decided) counts as not matching.
docs: libnftables-json(5)
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_OUTSIDE = {4: "198.51.100.1", 6: "2001:db8::1"}  # RFC 5737, RFC 3849: anybody
_MOST = 32  # jumps; the kernel allows 16


@dataclass(frozen=True, slots=True)
class Trouble:
    """`text`: a sentence; `cure`: what to type, or ""."""

    text: str
    cure: str = ""


@dataclass(frozen=True, slots=True)
class _Chain:
    family: str
    table: str
    name: str
    hook: str
    policy: str


class _Rules:
    def __init__(self, document: Mapping[str, Any]) -> None:
        self.chains: dict[tuple[str, str, str], _Chain] = {}
        self.rules: dict[tuple[str, str, str], list[list[Any]]] = {}
        for entry in document.get("nftables", ()):
            if chain := entry.get("chain"):
                key = chain["family"], chain["table"], chain["name"]
                self.chains[key] = _Chain(*key, chain.get("hook", ""), chain.get("policy", "accept"))
            elif rule := entry.get("rule"):
                self.rules.setdefault((rule["family"], rule["table"], rule["chain"]), []).append(rule["expr"])


def troubles(document: Mapping[str, Any], pools: Sequence[str], link: str, uplink: str) -> Iterator[Trouble]:
    """One for each chain of `nft -j list ruleset` in which what tasks send or get is lost. `link`: the name of one of
    their links; `uplink`: that leads outside. Tables gorae_* are not looked at."""
    found = _Rules(document)
    for pool in pools:
        version = ipaddress.ip_network(pool).version
        packets = _packets(pool, version, link, uplink)
        for key, chain in found.chains.items():
            if chain.hook != "forward" or chain.table.startswith("gorae_"):
                continue
            if chain.family not in ("inet", "ip" if version == 4 else "ip6"):
                continue
            lost = [what for what, packet in packets.items() if (_walk(found, key, packet) or chain.policy) == "drop"]
            if lost:
                name = f"{chain.family} {chain.table} {chain.name}"
                yield Trouble(f"the nftables chain {name} drops {_listed(lost)}", _cure(found, chain, pool, version))


def foreign(document: Mapping[str, Any]) -> tuple[str, ...]:
    """Firewalls that a person tells whom to let in, which published ports pass by: ufw, firewalld."""
    found = _Rules(document)
    ufw = any(name.startswith("ufw") and name.endswith("-user-input") for _, _, name in found.chains)
    firewalld = any(table == "firewalld" for _, table, _ in found.chains)
    return tuple(name for name, there in (("firewalld", firewalld), ("ufw", ufw)) if there)


def _packets(pool: str, version: int, link: str, uplink: str) -> dict[str, dict[str, Any]]:
    ours, theirs = str(ipaddress.ip_network(pool).network_address + 17), _OUTSIDE[version]
    ip = "ip" if version == 4 else "ip6"

    def packet(source: str, target: str, into: str, out: str, status: str) -> dict[str, Any]:
        return {
            f"{ip} saddr": source,
            f"{ip} daddr": target,
            "meta iifname": into,
            "meta oifname": out,
            "meta nfproto": "ipv4" if version == 4 else "ipv6",
            "meta l4proto": "tcp",
            f"{ip} protocol": "tcp",
            "ct state": "new",
            "ct status": status,
        }

    return {
        "what containers send outside": packet(ours, theirs, link, uplink, ""),
        "what comes to published ports": packet(theirs, ours, uplink, link, "dnat"),
        "what containers say to each other": packet(ours, ours, link, link, ""),
    }


def _walk(rules: _Rules, chain: tuple[str, str, str], packet: Mapping[str, Any], depth: int = 0) -> str | None:
    """ "accept" or "drop"; None: no rule of the chain decides."""
    for rule in rules.rules.get(chain, ()) if depth < _MOST else ():
        for statement in rule:
            kind, body = next(iter(statement.items()))
            if kind == "match":
                if not _matches(body, packet):
                    break
            elif kind == "xt":  # of iptables' own
                told = body if isinstance(body, dict) else {}
                if told.get("type") != "target":
                    break
                kind = "drop" if told.get("name") == "REJECT" else kind
            elif kind == "vmap":
                kind, body = next(iter((_mapped(body, packet) or {"": None}).items()))
            if kind == "return":
                return None
            if kind in ("accept", "drop", "reject"):
                return "accept" if kind == "accept" else "drop"
            if kind in ("jump", "goto"):
                decided = _walk(rules, (*chain[:2], body["target"]), packet, depth + 1)
                if decided or kind == "goto":
                    return decided
    return None


def _value(left: Any, packet: Mapping[str, Any]) -> Any:
    """What the packet has at an expression's left side; None: not decided."""
    if not isinstance(left, dict):
        return None
    kind, body = next(iter(left.items()))
    if kind == "payload" and "protocol" in body:
        return packet.get(f"{body['protocol']} {body['field']}")
    return packet.get(f"{kind} {body['key']}") if kind in ("meta", "ct") and "key" in body else None


def _matches(match: Mapping[str, Any], packet: Mapping[str, Any]) -> bool:
    value, right = _value(match["left"], packet), match["right"]
    if value is None or (isinstance(right, str) and right.startswith("@")):
        return False
    return _among(value, right) is not (match["op"] == "!=")


def _among(value: str, right: Any) -> bool:
    if isinstance(right, list):
        return any(_among(value, one) for one in right)
    if isinstance(right, dict):
        if "set" in right:
            return any(_among(value, one) for one in right["set"])
        if "elem" in right:
            return _among(value, right["elem"]["val"])
        return _within(value, right)
    text = str(right)
    return value.startswith(text[:-1]) if text.endswith("*") else value == text


def _within(value: str, right: Mapping[str, Any]) -> bool:
    try:
        if "prefix" in right:
            prefix = right["prefix"]
            return ipaddress.ip_address(value) in ipaddress.ip_network(f"{prefix['addr']}/{prefix['len']}", False)
        if "range" in right:
            low, high = map(ipaddress.ip_address, right["range"])
            return int(low) <= int(ipaddress.ip_address(value)) <= int(high)
    except ValueError:
        pass  # not of addresses
    return False


def _mapped(vmap: Mapping[str, Any], packet: Mapping[str, Any]) -> Mapping[str, Any] | None:
    value, data = _value(vmap["key"], packet), vmap["data"]
    pairs = data.get("set", ()) if isinstance(data, dict) else ()
    return next((verdict for key, verdict in pairs if value is not None and _among(value, key)), None)


def _cure(rules: _Rules, chain: _Chain, pool: str, version: int) -> str:
    names = {name for family, table, name in rules.chains if (family, table) == (chain.family, chain.table)}
    iptables = "iptables" if version == 4 else "ip6tables"
    if chain.table == "firewalld":
        return f"firewall-cmd --permanent --zone=trusted --add-source={pool}; firewall-cmd --reload"
    if "DOCKER-USER" in names:
        return f"{iptables} -I DOCKER-USER -s {pool} -j ACCEPT; {iptables} -I DOCKER-USER -d {pool} -j ACCEPT"
    if any(name.startswith("ufw") for name in names):
        return f"ufw route allow from {pool}; ufw route allow to {pool}"
    if chain.family in ("ip", "ip6") and (chain.table, chain.name) == ("filter", "FORWARD"):
        return f"{iptables} -I FORWARD -s {pool} -j ACCEPT; {iptables} -I FORWARD -d {pool} -j ACCEPT"
    place, ip = f"{chain.family} {chain.table} {chain.name}", "ip" if version == 4 else "ip6"
    return f"nft insert rule {place} {ip} saddr {pool} accept; nft insert rule {place} {ip} daddr {pool} accept"


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
