"""What is tried again and again without success: loops that never give up say here why they do not get on, so that
whoever waits for them is told. What a task itself cannot do is in its status instead.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace

from agent.kit.errors import GoraeError


@dataclass(frozen=True, slots=True)
class Trouble:
    """`stack`: whom it holds up; "": everybody. `since`: Unix seconds."""

    code: str
    message: str
    hint: str
    since: float
    stack: str = ""


class Troubles:
    """`changed` is called when what is told differs: once for each stack, of its troubles the one that is oldest."""

    def __init__(self) -> None:
        self.changed: Callable[[], None] = lambda: None
        self._found: dict[Hashable, Trouble] = {}

    def found(self, what: Hashable, error: GoraeError, now: float, stack: str = "") -> None:
        """`what`: the attempt, for over()."""
        before = self.told()
        known = self._found.get(what)
        self._found[what] = Trouble(error.code, error.message, error.hint, known.since if known else now, stack)
        self._tell(before)

    def over(self, what: Hashable) -> None:
        """It worked, or is not wanted any more."""
        if what in self._found:
            before = self.told()
            del self._found[what]
            self._tell(before)

    def told(self) -> tuple[Trouble, ...]:
        oldest: dict[str, Trouble] = {}
        for trouble in self._found.values():
            first = oldest.setdefault(trouble.stack, trouble)
            # The newest words: what is wrong may have changed since.
            oldest[trouble.stack] = replace(trouble, since=min(first.since, trouble.since))
        return tuple(oldest.values())

    def _tell(self, before: tuple[Trouble, ...]) -> None:
        if self.told() != before:
            self.changed()
