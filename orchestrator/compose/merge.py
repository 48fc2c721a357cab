"""Several files → one (13-merge.md), in canonical form: mappings by key, lists appended, scalars replaced.

An entry of a list that says what an earlier one says (the same mount target, port, env_file path) takes its place,
whole; of other lists, what a later file repeats is left out. Nothing in a later file (`ports:`) keeps what was there,
but for commands, which fall back to the image's, and variables, which become unset. `!reset` takes away what was
there, `!override` replaces it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

from orchestrator.compose.identities import UNIQUE, frozen
from orchestrator.compose.nodes import Node, fields, items, spelled, text

Path = tuple[str, ...]
_REPLACED = frozenset(("command", "entrypoint", "healthcheck.test"))
_ENTRIES = frozenset(  # a later NAME without a value takes the place of an earlier NAME=VALUE
    [
        "annotations",
        "build.additional_contexts",
        "build.args",
        "build.labels",
        "build.ssh",
        "deploy.labels",
        "environment",
        "labels",
        "sysctls",
    ]
)


def merge(base: Node, over: Node) -> Node:
    """Whole trees; `over` is the later one."""
    return _merged(base, over, ())


def merge_service(base: Node, over: Node) -> Node:
    """A service that `extends` another."""
    return _merged(base, over, ("services", "*"))


def merge_included(included: Node, own: Node) -> Node:
    """A file over what it includes: each service, volume … that both have is merged."""
    both = dict(fields(own))
    for section, names in fields(included).items():
        mine = fields(both.get(section))
        merged = {
            name: _merge_section(section, node, mine[name]) if name in mine else node
            for name, node in fields(names).items()
        }
        both[section] = names.with_value({**mine, **merged})
    return own.with_value(both)


def _merge_section(section: str, included: Node, own: Node) -> Node:
    one = included.with_value({section: included.with_value({"x": included})})
    other = own.with_value({section: own.with_value({"x": own})})
    return fields(fields(merge(one, other))[section])["x"]


def cleared(base: Node, over: Node) -> Node:
    """`base` without what `over` resets or overrides; for what is merged in between."""
    if not isinstance(base.value, dict) or not isinstance(over.value, dict):
        return base
    gone = {name for name, child in over.value.items() if child.tag}
    return base.with_value(
        {
            name: cleared(child, over.value[name]) if name in over.value else child
            for name, child in base.value.items()
            if name not in gone
        }
    )


def _key(path: Path) -> str:
    """Of a path in a service, with * for the name of a network; "" elsewhere."""
    if path[:1] != ("services",) or len(path) < 3:
        return ""
    own = path[2:]
    return ".".join((own[0], "*", *own[2:]) if own[0] == "networks" and len(own) > 2 else own)


def _merged(base: Node, over: Node, path: Path) -> Node:
    if over.tag == "override":
        return _alone(Node(over.value, over.at, over.key_at), path)
    key = _key(path)
    if key in _REPLACED or (key.rpartition(".")[0] in _ENTRIES and key.rpartition(".")[2]):
        return over
    if over.value is None:
        return base
    if path[-1:] == ("logging",) and _drivers_differ(base, over):
        return over
    if len(path) == 4 and path[2] == "ulimits":
        return over
    if isinstance(base.value, dict) and isinstance(over.value, dict):
        both = dict(base.value)
        for name, child in over.value.items():
            if child.tag == "reset":
                both.pop(name, None)
            elif name in both:
                both[name] = _merged(both[name], child, (*path, name))
            else:
                both[name] = _alone(child, (*path, name))
        return base.with_value(both)
    if isinstance(base.value, list) and isinstance(over.value, list):
        return over.with_value(_appended(base.value, over.value, path))
    return _alone(over, path)


def _alone(node: Node, path: Path) -> Node:
    """What nothing is merged with: without what is reset, and without what is said twice."""
    if isinstance(node.value, dict):
        kept = {key: _alone(child, (*path, key)) for key, child in node.value.items() if child.tag != "reset"}
        return Node(kept, node.at, node.key_at)
    if isinstance(node.value, list):
        return Node(_appended([], node.value, path), node.at, node.key_at)
    return Node(node.value, node.at, node.key_at)


def _drivers_differ(base: Node, over: Node) -> bool:
    one, other = fields(base).get("driver"), fields(over).get("driver")
    return one is not None and other is not None and one.value != other.value


def _appended(before: list[Node], after: list[Node], path: Path) -> list[Node]:
    if path[:1] == ("networks",) and path[2:] == ("ipam", "config"):
        return _subnets(before, after, path)
    identity = UNIQUE.get(_key(path))
    if identity is None:
        known = {frozen(entry) for entry in before}
        return [*before, *(entry for entry in after if frozen(entry) not in known)]
    entries: dict[Hashable, Node] = {identity(entry): entry for entry in before}
    for entry in after:
        entries[identity(entry)] = entry
    return list(entries.values())


def _subnets(before: list[Node], after: list[Node], path: Path) -> list[Node]:
    """By subnet: an entry of the later file adds to the earlier one of the same subnet."""

    def subnet(entry: Node) -> Hashable:
        return text(fields(entry).get("subnet"))

    found = list(before)
    places: dict[Hashable, int] = {}
    for place, entry in enumerate(before):
        places.setdefault(subnet(entry), place)
    for entry in after:
        same = places.get(subnet(entry))
        if same is None or not before:
            places.setdefault(subnet(entry), len(found))
            found.append(entry)
        else:
            found[same] = _merged(found[same], entry, (*path, "[]"))
    return found


def lost_mounts(before: Node, report_lost: Callable[[Node, str], None]) -> None:
    """Tells of mounts of one file that a later one of the same file takes the place of."""
    for service in fields(fields(before).get("services")).values():
        seen: dict[str, Node] = {}
        for mount in items(fields(service).get("volumes")):
            if "target" not in fields(mount):
                continue
            target = spelled(fields(mount)["target"].value)
            if target in seen:
                report_lost(seen[target], target)
            seen[target] = mount
