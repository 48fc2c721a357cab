"""Short forms that many keys share → the canonical one, on the tree of one file, before files are merged: merging then
knows one form of each key. Called by validate.py, whose types they rely on. Forms of single keys: longforms.py.

    entries   environment, labels, … → mapping of name → text or nothing      words   list of words
    hosts     list of NAME=ADDRESS                                            texts   list

A form raises ValueError, which says what is wrong; lists report each entry that cannot be read, and leave it out.
"""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.compose import units
from orchestrator.compose.errors import Report
from orchestrator.compose.nodes import BAD, Node, Value, fields, items, text
from orchestrator.compose.values import short

ENTRY_COST = 512  # of the budget, for what a short form stands for
Form = Callable[[Node, str, Report], Value]


def each(node: Node, path: str, report: Report, read: Callable[[Node], list[Node]]) -> list[Node]:
    """read() of every entry; what it refuses is reported and left out, what holds a variable still stays as it is."""
    found = []
    for index, item in enumerate(items(node)):
        report.spend(ENTRY_COST, item)
        if report.keeps(item.value):
            found.append(item)
            continue
        try:
            found += read(item)
        except ValueError as error:
            report.problem(item, f"cannot use {path}[{index}]: {error}")
    return found


def _options(node: Node, path: str, report: Report) -> dict[str, Node]:
    return {key: child for key, child in fields(node).items() if child.value is not BAD}


def _entries(node: Node, path: str, report: Report) -> dict[str, Node]:
    """["A=1", "B"] and {A: 1, B: } are the same."""
    found = _options(node, path, report)
    if "" in found:
        report.problem(found.pop("").key_at, f"cannot use an empty name in {path}")
    for item in items(node):
        key, sign, value = (text(item) or "").partition("=")
        found[key] = item.with_value(value if sign else None)
    return found


def _variables(node: Node, path: str, report: Report) -> Value:
    found = _entries(node, path, report)
    for key, child in found.items() if isinstance(node.value, list) else ():
        if key.endswith(" "):
            message = f"cannot use {short(key)} as the name of a variable in {path}: it ends in a space"
            report.problem(child.key_at, message, "write NAME=VALUE")
    return found


def _words(node: Node, path: str, report: Report) -> Value:
    if not isinstance(node.value, str):
        return node.value
    if report.keeps(node.value):
        return node.value
    words = units.split(node.value)
    report.spend(64 * len(words), node)
    return [node.with_value(word) for word in words]


def _texts(node: Node, path: str, report: Report) -> Value:
    return [Node(node.value, node.at, node.at)] if isinstance(node.value, str) else node.value


def _hosts(node: Node, path: str, report: Report) -> Value:
    """["A:1.1.1.1", "B=::1"] and {A: 1.1.1.1, B: [::1]} → ["A=1.1.1.1", "B=::1"]."""
    pairs: list[tuple[str, str, Node]] = []
    for name, child in fields(node).items():
        if not name:
            report.problem(child.key_at, f"cannot use an empty name in {path}")
        pairs += [(name, text(item) or "", item) for item in (items(child) or [child]) if item.value is not BAD]

    def read(item: Node) -> list[Node]:
        written = text(item) or ""
        name, sign, address = written.partition("=" if "=" in written else ":")
        if not name or not sign:
            raise ValueError("an entry is written as NAME=ADDRESS")
        return [_host(name, address, item)]

    return [_host(*pair) for pair in pairs] + each(node, path, report, read)


def _host(name: str, address: str, at: Node) -> Node:
    bare = address[1:-1] if address.startswith("[") and address.endswith("]") else address
    return Node(f"{name}={bare}", at.at, at.key_at)


SHAPES: dict[str, Form] = {
    "entries": _entries,
    "options": _options,
    "ssh": _entries,
    "variables": _variables,
    "words": _words,
    "texts": _texts,
    "hosts": _hosts,
}
