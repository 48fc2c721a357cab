"""A table's text for `nft -f -`: whole, or the change between two. It knows nothing of what the rules mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


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


def whole(rules: Ruleset) -> str:
    """One transaction that puts the table in place of whatever table of its name is there. Nothing is open between;
    a connection that begins in that moment may be lost."""
    return _replacing(rules, "")


def dormant(rules: Ruleset) -> str:
    """The same of a table that the kernel keeps and no packet sees."""
    return _replacing(rules, " { flags dormant; }")


def _replacing(rules: Ruleset, flags: str) -> str:
    table = f"inet {rules.table}"
    lines = [f"add table {table}", f"delete table {table}", f"add table {table}{flags}"]
    return _text([*lines, *_added(table, Ruleset(rules.table, {}, {}), rules)])


def delta(old: Ruleset, new: Ruleset, first: Sequence[str] = ()) -> str:
    """The transaction from `old`, which is what stands when `first` is done, to `new`, in an order the kernel takes:
    nothing is used before it is there, nothing removed while in use. "" when there is nothing to do."""
    table = f"inet {new.table}"
    lines = [*first, *_added(table, old, new)]
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
        if before is not chain and before != chain:
            lines += [f"flush chain {table} {name}"] if before else []
            lines += [f"add rule {table} {name} {rule}" for rule in chain.rules]
    empty: Mapping[str, str] = {}
    for name, group in sorted(new.groups.items()):
        before_elements = old.groups[name].elements if name in old.groups else empty
        if before_elements is group.elements or before_elements == group.elements:
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
