"""The tree between the YAML text and the model: every value knows where it was written.

Only values and positions live here, no rules. A tree is never changed in place: aliases share their nodes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple


class Mark(NamedTuple):
    """A place in a file, counted from 1. `file` is spelled for people: relative to where they stand, if it can be."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


class Bad:
    """The value of a node that was already reported: later stages pass over it, so one mistake is told once."""


BAD = Bad()

Value = None | bool | int | float | str | Bad | dict[str, "Node"] | list["Node"]


@dataclass(slots=True)
class Node:
    """`at`: where the value begins. `key_at`: where its key begins; the value's own place in a list.
    `tag`: "reset" or "override" for what merges otherwise (13-merge.md); the value of a reset is None."""

    value: Value
    at: Mark
    key_at: Mark
    tag: str = ""

    def with_value(self, value: Value) -> Node:
        return Node(value, self.at, self.key_at, self.tag)


def fields(node: Node | None) -> dict[str, Node]:
    """The entries of a mapping; none of anything else."""
    return node.value if node is not None and isinstance(node.value, dict) else {}


def items(node: Node | None) -> list[Node]:
    """The entries of a list; none of anything else."""
    return node.value if node is not None and isinstance(node.value, list) else []


def text(node: Node | None) -> str | None:
    return node.value if node is not None and isinstance(node.value, str) else None


def flag(node: Node | None, default: bool) -> bool:
    return node.value if node is not None and isinstance(node.value, bool) else default


def below(entry: dict[str, Node], path: str) -> Node | None:
    """What stands at a path of keys, "deploy.resources.limits"."""
    node = None
    for key in path.split("."):
        if (node := entry.get(key)) is None:
            break
        entry = fields(node)
    return node


def made(at: Node, **values: Value) -> Node:
    """A mapping that stands for something written shorter, at the place where that was written. None is left out."""
    return Node(
        {key: Node(value, at.at, at.at) for key, value in values.items() if value is not None}, at.at, at.key_at, at.tag
    )


def weight(node: Node) -> int:
    """What it costs to merge the tree once more, in units of Report.spend."""
    value = node.value
    if isinstance(value, str):
        return 48 + len(value) // 32
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 48 + sum(map(weight, children))


def plain(node: Node) -> Any:
    """Dicts, lists and scalars, without places. What is BAD is None."""
    value = node.value
    if isinstance(value, dict):
        return {key: plain(child) for key, child in value.items()}
    if isinstance(value, list):
        return [plain(child) for child in value]
    return None if value is BAD else value


def spelled(value: Value) -> str:
    """A scalar as Compose turns it into text: true, 1.5, 1e+06. "" for anything else.

    The reference is written in Go and prints numbers as Go does: shortest digits, an exponent below -4 and from 6 up.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _float(value)
    return str(value) if isinstance(value, int | str) else ""


def _float(value: float) -> str:
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "+Inf" if value > 0 else "-Inf"
    if value == 0:
        return "-0" if str(value).startswith("-") else "0"
    digits = next(n for n in range(17) if float(f"{value:.{n}e}") == value)
    mantissa, exponent = f"{value:.{digits}e}".split("e")
    if -4 <= int(exponent) < 6:
        return f"{value:.{max(digits - int(exponent), 0)}f}"
    return f"{mantissa}e{exponent}"
