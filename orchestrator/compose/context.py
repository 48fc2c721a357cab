"""How a value is understood, and how one that cannot be is reported."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from orchestrator.compose.errors import Report
from orchestrator.compose.nodes import BAD, Node, items
from orchestrator.compose.values import shown

T = TypeVar("T")

SERVICE = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]{0,62}")


@dataclass(slots=True)
class Context:
    report: Report

    def value(self, node: Node | None, path: str, understand: Callable[[Any], T]) -> T | None:
        """understand() of a scalar; None where there is none, or where it was or is reported as wrong (once only)."""
        if node is None or node.value is None or node.value is BAD:
            return None
        try:
            return understand(node.value)
        except ValueError as error:
            if not any(problem.mark == node.at for problem in self.report.problems):
                self.report.problem(node, f"cannot use {shown(node.value)} as {path}: {error}")
            return None

    def each(self, entry: dict[str, Node], key: str, path: str, understand: Callable[[str], T]) -> tuple[T, ...]:
        """value() of the items of a list; those that are wrong are left out."""
        nodes = items(entry.get(key))
        if not nodes:
            return ()
        found = (self.value(node, f"{path}.{key}[{index}]", understand) for index, node in enumerate(nodes))
        return tuple(value for value in found if value is not None)


def matching(pattern: re.Pattern[str], otherwise: str) -> Callable[[str], str]:
    def understand(written: str) -> str:
        if not pattern.fullmatch(written):
            raise ValueError(otherwise)
        return written

    return understand


def absolute(path: str) -> str:
    if not path.startswith("/") or len(path) > 4095:
        raise ValueError("it must be an absolute path in the container")
    return path
