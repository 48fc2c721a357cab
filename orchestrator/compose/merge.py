"""Several files → one (13-merge.md), in long form: mappings by key, lists appended, scalars replaced.

An entry of a list that says what an earlier one says (the same mount target, port, env_file path) takes its place,
whole. Nothing in a later file (`ports:`) keeps what was there, but for commands, which fall back to the image's, and
variables, which become unset.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

from orchestrator.compose.errors import Report
from orchestrator.compose.nodes import Node, fields, items, spelled

_REPLACED = frozenset(("command", "entrypoint", "healthcheck.test"))
_ENTRIES = frozenset(("environment", "labels"))


def _whole_port(entry: Node) -> Hashable:
    return tuple(spelled(entry_value.value) for _, entry_value in sorted(fields(entry).items()))


def _field(name: str) -> Callable[[Node], Hashable]:
    return lambda entry: spelled(fields(entry)[name].value)


_UNIQUE: dict[str, Callable[[Node], Hashable]] = {
    "ports": _whole_port,
    "volumes": _field("target"),
    "tmpfs": _field("target"),
    "env_file": _field("path"),
    "expose": lambda entry: spelled(entry.value),
}


def merge(base: Node, over: Node) -> Node:
    """Both in long form; `over` is the later one."""
    return _merged(base, over, ())


def unique(node: Node, report: Report) -> Node:
    """One file's own lists, without what is said twice: the later entry counts, in the earlier one's place."""
    top = fields(node)
    services = {}
    for name, service in fields(top.get("services")).items():
        services[name] = service
        if isinstance(service.value, dict):
            keys = service.value.items()
            services[name] = service.with_value(
                {key: _appended([], child, key) if key in _UNIQUE else child for key, child in keys}
            )
            _warn_of_lost_mounts(service.value.get("volumes"), report)
    return node.with_value({**top, "services": top["services"].with_value(services)}) if services else node


def _warn_of_lost_mounts(volumes: Node | None, report: Report) -> None:
    seen: dict[str, Node] = {}
    for mount in items(volumes):
        target = spelled(fields(mount)["target"].value)
        if target in seen:
            report.warn(seen[target], f"this mount is lost: a later one has the same target {target}")
        seen[target] = mount


def _merged(base: Node, over: Node, path: tuple[str, ...]) -> Node:
    key = ".".join(path[2:]) if path[:1] == ("services",) else ""
    if key in _REPLACED or (len(path) == 4 and path[2] in _ENTRIES):
        return over
    if over.value is None:
        return base
    if isinstance(base.value, dict) and isinstance(over.value, dict):
        both = dict(base.value)
        for name, child in over.value.items():
            both[name] = _merged(both[name], child, (*path, name)) if name in both else child
        return base.with_value(both)
    if isinstance(base.value, list) and isinstance(over.value, list):
        return _appended(base.value, over, path[-1])
    return over


def _appended(before: list[Node], over: Node, key: str) -> Node:
    if not isinstance(over.value, list):
        return over
    identity = _UNIQUE.get(key)
    if identity is None:
        return over.with_value([*before, *over.value])
    entries: dict[Hashable, Node] = {identity(entry): entry for entry in before}
    for entry in over.value:
        entries[identity(entry)] = entry
    return over.with_value(list(entries.values()))
