"""What is wrong with a stack's files: all of it at once, each with its place.

    UserError
    └── ComposeError      carries every Problem found; its text is one line per problem

A problem that does not hinder reading on is added to the Report; `Report.stop` is for one that does.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, NoReturn

from agent.kit.errors import UserError
from orchestrator.compose.nodes import Mark, Node, Value

MAX_PROBLEMS = 50  # nobody reads more, and a hostile file may hold a hundred thousand
MAX_WARNINGS = 100
BUDGET = 16 * 1024 * 1024  # what one load may cost: about two seconds, and 100 MiB; the unit is a character substituted


class Problem(NamedTuple):
    """`message` begins "cannot …". `mark` None: it is about no place in a file. `hint`: the next step, or ""."""

    mark: Mark | None
    message: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.mark}: {self.message}" if self.mark else self.message


class ComposeError(UserError):
    """The files do not make a stack. One problem: its message and hint. Several: a line each, with the hint in it."""

    def __init__(self, problems: Iterable[Problem], *, code: str = "compose-invalid") -> None:
        self.problems = tuple(problems)
        only = self.problems[0] if len(self.problems) == 1 else None
        lines = (f"{problem} ({problem.hint})" if problem.hint else str(problem) for problem in self.problems)
        super().__init__(
            str(only) if only else "\n".join(lines),
            code=code,
            hint=only.hint if only else "",
            problems=[
                {
                    "file": problem.mark.file if problem.mark else None,
                    "line": problem.mark.line if problem.mark else None,
                    "column": problem.mark.column if problem.mark else None,
                    "message": problem.message,
                    "hint": problem.hint,
                }
                for problem in self.problems
            ],
        )


class Report:
    """Collects problems and warnings of one load, and counts what expansions cost."""

    def __init__(self, *, interpolated: bool = True) -> None:
        """`interpolated` False: variables stay as they are written, and where one stands nothing is checked."""
        self.interpolated = interpolated
        self.problems: list[Problem] = []
        self.warnings: dict[str, None] = {}  # an ordered set: said once
        self._later: dict[Mark, list[tuple[str, str]]] = {}
        self._unless_extended: set[Mark] = set()
        self.unset: set[str] = set()  # variables already warned of
        self.left = BUDGET

    def problem(self, at: Node | Mark | None, message: str, hint: str = "") -> None:
        """At the value of a node, or at a mark."""
        problem = Problem(at.at if isinstance(at, Node) else at, plain_text(message), plain_text(hint))
        if problem not in self.problems:
            self.problems.append(problem)
        if len(self.problems) >= MAX_PROBLEMS:
            self.stop(None, f"cannot list more than {MAX_PROBLEMS} problems", "mend these first")

    def later(self, at: Node, message: str, hint: str = "") -> None:
        """A problem of a value that a later file may replace: told by tell(), when it is still there after merging."""
        self._later.setdefault(at.at, []).append((message, hint))

    def unless_extended(self, at: Node, message: str) -> None:
        """A problem of a value that may be replaced in a service that extends the value's: told by tell_extended()."""
        self.later(at, message)
        self._unless_extended.add(at.at)

    def tell_extended(self, node: Node) -> None:
        """What unless_extended() was told of the values in a tree in which services have what they extend."""
        if self._unless_extended:
            if node.at in self._unless_extended and not isinstance(node.value, dict | list):
                self._unless_extended.discard(node.at)
                self.tell(node)
            children = node.value.values() if isinstance(node.value, dict) else ()
            for child in children:
                self.tell_extended(child)

    def tell(self, node: Node) -> None:
        """What later() was told of the value, or of those of a mapping."""
        if self._later:
            for message, hint in self._later.pop(node.at, ()):
                self.problem(node, message, hint)
            for child in node.value.values() if isinstance(node.value, dict) else ():
                self.tell(child)

    def warn(self, at: Node | Mark | None, message: str) -> None:
        mark = at.at if isinstance(at, Node) else at
        if len(self.warnings) < MAX_WARNINGS:
            self.warnings[plain_text(f"{mark}: {message}" if mark else message)] = None
        else:
            self.warnings[f"there are more than {MAX_WARNINGS} warnings: mend these first"] = None

    def keeps(self, value: Value) -> bool:
        """The value holds a variable that was left as it is."""
        return not self.interpolated and isinstance(value, str) and "$" in value

    def spend(self, amount: int, at: Node | Mark | None) -> None:
        """Stop when the files ask for more than any honest stack does ("billion laughs" in all its forms)."""
        self.left -= amount
        if self.left < 0:
            message = "cannot use the files: they grow too large with all aliases, variables and includes put in"
            self.stop(at, message, "split the stack")

    def stop(self, at: Node | Mark | None, message: str, hint: str = "") -> NoReturn:
        mark = at.at if isinstance(at, Node) else at
        raise ComposeError([*_by_place(self.problems), Problem(mark, plain_text(message), plain_text(hint))])

    def finish(self) -> None:
        """Raise if there was any problem."""
        if self.problems:
            raise ComposeError(_by_place(self.problems))


def _by_place(problems: list[Problem]) -> list[Problem]:
    """As a person meets them who goes through the files; what is about no place last."""
    files = {problem.mark.file: None for problem in problems if problem.mark}
    order = {file: place for place, file in enumerate(files)}
    end = (len(order), 0, 0)
    return sorted(problems, key=lambda found: (order[found.mark.file], *found.mark[1:]) if found.mark else end)


def plain_text(message: str) -> str:
    """Names in a message are whatever a file says: no control characters for the terminal, no megabytes."""
    short = message if len(message) <= 500 else message[:500] + "…"
    return short if short.isprintable() else "".join(char if char.isprintable() else "?" for char in short)
