"""What a worker may be told to do next: values, each one step. Nothing here does anything.

A Move changes the record (and is journalled, with its event, before the next effect); every other action is one effect
through a port, whose success shows in the next observation and whose failure in its troubles.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from agent.decide.record import TaskRecord
from agent.ports import Serving
from agent.wire.messages import Resources


@dataclass(frozen=True, slots=True)
class Draft:
    """An event without its id and time. `cause`: what it follows from: the task's last event, the user's last change,
    or nothing (the world did it)."""

    kind: str
    reason: str
    message: str
    evidence: dict[str, Any] = field(default_factory=dict)
    cause: Literal["task", "user", "world"] = "task"


@dataclass(frozen=True, slots=True)
class Move:
    """`durable` False: a detail for people or a count; it may be lost with the process. `folded`: it has used up the
    oldest probe result."""

    record: TaskRecord
    event: Draft | None = None
    durable: bool = True
    folded: bool = False


@dataclass(frozen=True, slots=True)
class Prepare:
    """Sandbox, root file system, volumes, network, names: whatever of it is missing."""


@dataclass(frozen=True, slots=True)
class Start:
    attempt: int


@dataclass(frozen=True, slots=True)
class Publish:
    serving: Serving


@dataclass(frozen=True, slots=True)
class Rename:
    """Rewrite /etc/hosts: the stack's addresses have changed."""

    version: int


@dataclass(frozen=True, slots=True)
class Update:
    resources: Resources


@dataclass(frozen=True, slots=True)
class Freeze:
    """Stop or resume every process of the attempt, which notices nothing but the time."""

    frozen: bool


@dataclass(frozen=True, slots=True)
class Count:
    """Look how many connections to the task are open."""


@dataclass(frozen=True, slots=True)
class Signal:
    signal: int


@dataclass(frozen=True, slots=True)
class Kill:
    """KILL, to everything in the attempt's cgroup."""


@dataclass(frozen=True, slots=True)
class Tail:
    """Read the last lines of the log: the evidence of the step that follows."""


@dataclass(frozen=True, slots=True)
class Clean:
    """Take away what is left of one attempt."""

    attempt: int


@dataclass(frozen=True, slots=True)
class Discard:
    """Take away network, volume mounts, root file system with its writable layer, and sandbox."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do until the world changes, or until then (Unix seconds)."""

    until: float | None = None


@dataclass(frozen=True, slots=True)
class Gone:
    """Nothing is left; the task can be forgotten."""


Action = (
    Move
    | Prepare
    | Start
    | Publish
    | Rename
    | Update
    | Freeze
    | Count
    | Signal
    | Kill
    | Tail
    | Clean
    | Discard
    | Wait
    | Gone
)
