"""The values the orchestrator keeps: what the store saves, what plans read. No behaviour beyond simple questions."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from agent.wire.messages import Assignment, Task


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this database is. `former`: ids it had before a restore; `adopts`: stores whose agents it has taken over.

    `settled`: an agent has obeyed this id. A settled database whose agent obeys another one is a restored copy.
    """

    store_id: str
    former: tuple[str, ...] = ()
    adopts: tuple[str, ...] = ()
    settled: bool = False


@dataclass(frozen=True, slots=True)
class Counter:
    """The highest numbers a stack's name has ever had; they outlive the stack, so that no number comes twice."""

    generation: int = 0
    revision: int = 0


Phase = Literal["updating", "rolling-back", "paused", "rolled-back"]


@dataclass(frozen=True, slots=True)
class Rollout:
    """A change of a stack that happens step by step: how it is to end, and what was seen of it so far.

    `target`: all tasks of the stack in the end. `moved`: those of them (ids) that take another's place, or are
    restarted; the rest is as it is to be from the first step on. `failed`: id → how. `rested`: service → when its last
    batch was done (Unix seconds). `back`: the revision that a failure leads back to; None: there is none. `message`:
    why it is paused, or was rolled back; `cause`: id of the event that says who or what began it.
    """

    target: tuple[Task, ...]
    moved: tuple[str, ...]
    phase: Phase = "updating"
    back: int | None = None
    failed: dict[str, str] = field(default_factory=dict)
    rested: dict[str, float] = field(default_factory=dict)
    message: str = ""
    cause: str | None = None


@dataclass(frozen=True, slots=True)
class StackRecord:
    """Desired state of one stack. `tasks`: as assigned now; what they are on the way to stands in `rollout`. `removed`:
    a tombstone waiting for the agent. `held`: known from a restored database, not run by the agent, and therefore not
    published."""

    name: str
    generation: int
    revision: int
    model: dict[str, Any]  # compose.model.Stack as JSON
    tasks: tuple[Task, ...]
    updated_at: float  # Unix seconds
    cause: str | None = None  # event id
    removed: bool = False
    remove_volumes: bool = False
    held: bool = False
    virtual: dict[str, int] = field(default_factory=dict)  # service → number of its virtual address
    rollout: Rollout | None = None

    @property
    def goal(self) -> tuple[Task, ...]:
        """The tasks as they are to be in the end."""
        return self.tasks if self.rollout is None or self.rollout.phase == "rolled-back" else self.rollout.target

    def drained(self) -> StackRecord:
        """As the agent is told while the host is drained: what is to run is to be down for so long."""
        tasks = (task.model_copy(update={"desired": "drained"}) if task.wanted else task for task in self.tasks)
        return replace(self, tasks=tuple(tasks))

    def assignment(self, store_id: str) -> Assignment:
        return Assignment(
            store_id=store_id,
            stack=self.name,
            generation=self.generation,
            revision=self.revision,
            removed=self.removed,
            remove_volumes=self.remove_volumes,
            model=self.model,
            virtual=self.virtual,
            tasks=self.tasks,
            cause=self.cause,
        )


@dataclass(frozen=True, slots=True)
class Revision:
    """Immutable. `uid`: who applied it, None when it was taken over from the agent."""

    stack: str
    number: int
    at: float
    uid: int | None
    model: dict[str, Any]
