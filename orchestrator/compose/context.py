"""How a value that cannot be understood is reported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from orchestrator.compose.errors import Report
from orchestrator.compose.nodes import BAD, Node
from orchestrator.compose.values import shown

T = TypeVar("T")


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
