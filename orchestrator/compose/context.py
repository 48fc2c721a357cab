"""How a value that cannot be understood is reported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from orchestrator.compose.errors import Report
from orchestrator.compose.nodes import BAD, Node

T = TypeVar("T")


@dataclass(slots=True)
class Context:
    report: Report

    def value(self, node: Node | None, path: str, understand: Callable[[Any], T]) -> T | None:
        """understand() of a scalar; None where there is none, or where it was or is reported as wrong."""
        if node is None or node.value is None or node.value is BAD:
            return None
        try:
            return understand(node.value)
        except ValueError as error:
            self.report.problem(node, f"cannot use {path}: {error}")
            return None
