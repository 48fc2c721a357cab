"""Whose sandbox a task joins that says so (network_mode service:NAME, container:NAME). Pure.

A service's tasks join slot for slot; where the other has no such slot, its first. Only a sandbox with a network of its
own can be joined: who shares one names the service that has it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from agent.decide.zone import Place, container_name
from agent.wire.messages import ContainerSpec, Task

_KINDS = ("service", "container")
Stacks = Mapping[str, Sequence[Task]]  # stack → its assigned tasks


def joins(container: ContainerSpec) -> bool:
    return container.network_mode.partition(":")[0] in _KINDS


def owners(stacks: Stacks, before: Mapping[str, str]) -> dict[str, str]:
    """Each task that joins another → that one; left out: who has none to join. `before`: the last answer; one who still
    fits is kept, so that nobody moves while an update has two tasks in a slot."""
    found: dict[str, str] = {}
    for stack, tasks in stacks.items():
        for task in tasks:
            if joins(task.container):
                fitting = _fitting(stack, task, stacks)
                if fitting:
                    known = before.get(task.id, "")
                    found[task.id] = known if known in fitting else fitting[-1]
    return found


def _fitting(stack: str, task: Task, stacks: Stacks) -> list[str]:
    kind, _, name = task.container.network_mode.partition(":")
    if kind == "container":
        return [
            other.id
            for where, tasks in stacks.items()
            for other in tasks
            if _joinable(other) and container_name(Place(where, other, "")) == name
        ]
    others = [other for other in stacks[stack] if other.service == name and _joinable(other)]
    slots = {other.slot for other in others}
    slot = task.slot if task.slot in slots else min(slots, default=0)
    return [other.id for other in others if other.slot == slot]


def _joinable(task: Task) -> bool:
    return task.container.network_mode in ("", "none")
