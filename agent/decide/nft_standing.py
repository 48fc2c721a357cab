"""What stands in the kernel against what is wanted: both tables as `nft -j list table` tells them
(libnftables-json(5)). Pure.

The wanted one is listed from a dormant table, so that kernel and nft have put both into the same words. To replace a
table that is in order loses connections (two in a hundred that begin meanwhile, measured): the old chains are left and
the new ones entered one after the other, not at once.
"""

from __future__ import annotations

import json
from typing import Any

from agent.decide.nft_text import Chain, Group, Ruleset


def standing(now: object, then: object, wanted: Ruleset) -> tuple[list[str], Ruleset] | None:
    """`now`, `then`: the listings of the table and of `wanted`. What to flush first, and what stands after that, so
    that nft_text.delta leads from there to `wanted`. None: not in place, its flags, hooks or types are different."""
    if _flagged(now):
        return None
    (groups, chains), (wanted_groups, wanted_chains) = _parts(now), _parts(then)
    flush: list[str] = []
    found_groups: dict[str, Group] = {}
    for name, (kind, declared, elements) in groups.items():
        if name not in wanted.groups:
            found_groups[name] = Group(kind, "", {})
            continue
        group, (_, wanted_declared, wanted_elements) = wanted.groups[name], wanted_groups[name]
        if declared != wanted_declared:
            return None
        if elements != wanted_elements:
            flush.append(f"flush {kind} inet {wanted.table} {name}")
            group = Group(group.kind, group.declaration, {})
        found_groups[name] = group
    found_chains: dict[str, Chain] = {}
    for name, (declared, rules) in chains.items():
        if name not in wanted.chains:
            found_chains[name] = Chain("", ())
            continue
        chain, (wanted_declared, wanted_rules) = wanted.chains[name], wanted_chains[name]
        if declared != wanted_declared:
            return None
        found_chains[name] = chain if rules == wanted_rules else Chain(chain.hook, ("other rules",))
    return flush, Ruleset(wanted.table, found_groups, found_chains)


def _flagged(listing: object) -> bool:
    """Somebody has put our table to sleep, or taken it over."""
    entries = listing.get("nftables", []) if isinstance(listing, dict) else []
    return any("flags" in entry["table"] for entry in entries if "table" in entry)


_Groups = dict[str, tuple[str, str, str]]  # name → kind, declaration, elements
_Chains = dict[str, tuple[str, list[str]]]  # name → declaration, rules


def _parts(listing: object) -> tuple[_Groups, _Chains]:
    groups: _Groups = {}
    chains: _Chains = {}
    for entry in listing.get("nftables", []) if isinstance(listing, dict) else []:
        for kind, item in entry.items():
            if kind in ("set", "map"):
                elements = _text(sorted(map(_text, item.pop("elem", []))))
                groups[item["name"]] = kind, _text(item), elements
            elif kind == "chain":
                chains[item["name"]] = _text(item), []
            elif kind == "rule":
                chains[item["chain"]][1].append(_text(item["expr"]))
    return groups, chains


def _text(value: Any) -> str:
    return json.dumps(_canonical(value), sort_keys=True)


def _canonical(value: Any) -> Any:
    """Without what two tables that say the same differ in: their name, handles, the order within a set."""
    if isinstance(value, list):
        return [_canonical(item) for item in value]
    if not isinstance(value, dict):
        return value
    plain = {key: _canonical(item) for key, item in value.items() if key not in ("handle", "table")}
    if isinstance(plain.get("set"), list):
        plain["set"] = sorted(plain["set"], key=_text)
    return plain
