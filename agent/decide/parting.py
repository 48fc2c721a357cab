"""Why a task is not assigned any more, for whoever asks what became of it. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from agent.wire.messages import Assignment, Task


def why(assignment: Assignment | None, service: str, slot: int, mates: Sequence[Task]) -> str:
    """`assignment`: of its stack, without it; None: there is none, or none that could be read. `mates`: its service's
    tasks in that."""
    if assignment is None:
        return "no longer assigned"
    if assignment.removed:
        return "the stack is taken down"
    if any(task.slot == slot for task in mates):
        return f"another container has its place, by revision {assignment.revision}"
    if mates or service in assignment.model.get("services", {}):
        return f"{service} is scaled to {len({task.slot for task in mates})}"
    return f"there is no {service} in revision {assignment.revision}"
