"""What the values of one stack depend on besides themselves, and how a value that cannot be understood is reported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from orchestrator.compose import mounts
from orchestrator.compose.errors import Report
from orchestrator.compose.nodes import BAD, Node

T = TypeVar("T")


@dataclass(slots=True)
class Context:
    """`folder`: where relative paths begin. `cwd`: where the user is. `sources`: env files that were read before."""

    folder: Path
    cwd: Path
    variables: dict[str, str]
    report: Report
    sources: dict[Path, str | None] = field(default_factory=dict)

    def source(self, path: str) -> str:
        """A host path of a file or mount, absolute. Raises ValueError."""
        return mounts.source(path, str(self.folder), self.variables.get("HOME"))

    def value(self, node: Node | None, path: str, understand: Callable[[Any], T]) -> T | None:
        """understand() of a scalar; None where there is none, or where it was or is reported as wrong."""
        if node is None or node.value is None or node.value is BAD:
            return None
        try:
            return understand(node.value)
        except ValueError as error:
            self.report.problem(node, f"cannot use {path}: {error}")
            return None
