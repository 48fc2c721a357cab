"""The variables that files ask for (12-interpolation.md), and what they say of each. Whether it is set is no matter."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from orchestrator.compose.interpolate import forms
from orchestrator.compose.nodes import Node


class Variable(NamedTuple):
    """`required`: ${A?…} or ${A:?…} somewhere. `default`, `alternate`: the first words of ${A-…} and ${A+…}, or ""."""

    name: str
    required: bool
    default: str
    alternate: str


def variables(root: Node) -> list[Variable]:
    """Those in the values of a tree that was not interpolated, by name."""
    found: dict[str, Variable] = {}
    for text in _texts(root):
        for name, operator, word in forms(text):
            known = found.get(name, Variable(name, False, "", ""))
            found[name] = Variable(
                name,
                known.required or operator.endswith("?"),
                known.default or (word if operator.endswith("-") else ""),
                known.alternate or (word if operator.endswith("+") else ""),
            )
    return [found[name] for name in sorted(found)]


def _texts(node: Node) -> Iterator[str]:
    if isinstance(node.value, str):
        if "$" in node.value:
            yield node.value
    elif isinstance(node.value, dict | list):
        for child in node.value.values() if isinstance(node.value, dict) else node.value:
            yield from _texts(child)
