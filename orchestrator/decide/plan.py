"""Desired services × current tasks × what the user asked for → actions, each with its cause. Pure and deterministic.

The plan decides task ids and intents only; the agent does the work in its own time. Slots are filled from 1: scaling
down takes the highest. An unchanged template keeps its task, a changed one gets a new task in the same slot (the agent
removes the old one, then starts the new one).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from agent.wire.messages import ContainerSpec, Task
from agent.wire.messages import Desired as Run
from orchestrator.decide.expand import Desired

Verb = Literal["up", "scale", "stop", "start", "restart", "recreate", "rollback", "run", "pause", "unpause"]
Kind = Literal["create", "keep", "update", "replace", "remove", "restart", "stop", "start", "pause", "unpause"]


@dataclass(frozen=True, slots=True)
class Intent:
    """`services`: whom the verb names; None means all."""

    verb: Verb = "up"
    services: frozenset[str] | None = None

    def names(self, service: str) -> bool:
        return self.services is None or service in self.services


@dataclass(frozen=True, slots=True)
class Action:
    """`task`: as it will be, None when it goes. `reason`: stable code. `cause`: one phrase for people."""

    kind: Kind
    service: str
    slot: int
    task: Task | None
    reason: str
    cause: str


@dataclass(frozen=True, slots=True)
class Plan:
    actions: tuple[Action, ...]

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The complete new task set, by service and slot."""
        kept = [action.task for action in self.actions if action.task is not None]
        return tuple(sorted(kept, key=lambda task: (task.service, task.slot)))

    @property
    def changes(self) -> bool:
        return any(action.kind != "keep" for action in self.actions)

    def text(self) -> str:
        """One line per action: for people, and for tests."""
        width = max((len(f"{a.service}.{a.slot}") for a in self.actions), default=0)
        return "\n".join(f"{a.kind:<8} {f'{a.service}.{a.slot}':<{width}}  {a.cause}" for a in self.actions)


def plan(
    desired: Mapping[str, Desired],
    current: Sequence[Task],
    intent: Intent,
    *,
    order: Sequence[str],
    new_id: Callable[[], str],
    over: Mapping[str, str] | None = None,
) -> Plan:
    """`order`: services, dependencies first. `over`: tasks that rest by themselves, id → "failed" | "completed".

    Removals come first, the last in order first; then every slot of every service in order.
    """
    have = {(task.service, task.slot): task for task in current}
    wanted = {(name, slot) for name, want in desired.items() for slot in range(1, want.replicas + 1)}
    ranks = {name: rank for rank, name in enumerate(order)}
    before = Counter(task.service for task in current)
    actions = [_remove(task, desired) for task in _leaving(have, wanted, ranks)]
    for name in sorted(desired, key=lambda name: _rank(name, ranks)):
        for slot in range(1, desired[name].replicas + 1):
            task = have.get((name, slot))
            if task is None:
                actions.append(_create(desired[name], slot, before[name], new_id()))
            else:
                actions.append(_change(desired[name], task, intent, (over or {}).get(task.id), new_id))
    return Plan(tuple(actions))


def _rank(name: str, ranks: Mapping[str, int]) -> tuple[int, str]:
    return (ranks.get(name, len(ranks)), name)


def _leaving(
    have: Mapping[tuple[str, int], Task], wanted: set[tuple[str, int]], ranks: Mapping[str, int]
) -> list[Task]:
    going = [task for key, task in have.items() if key not in wanted]
    return sorted(going, key=lambda task: (_rank(task.service, ranks), task.slot), reverse=True)


def _remove(task: Task, desired: Mapping[str, Desired]) -> Action:
    if task.service in desired:
        reason, cause = "scaled", f"scaled down to {desired[task.service].replicas}"
    else:
        reason, cause = "service-gone", "the file no longer has this service"
    return Action("remove", task.service, task.slot, None, reason, cause)


def _create(want: Desired, slot: int, was: int, id: str) -> Action:
    task = Task(
        id=id,
        service=want.service,
        slot=slot,
        template=want.template,
        container=want.container,
        policy=want.policy,
    )
    if was == 0:
        return Action("create", want.service, slot, task, "new", "new service")
    return Action("create", want.service, slot, task, "scaled", f"scaled up from {was} to {want.replicas}")


def _change(want: Desired, task: Task, intent: Intent, over: str | None, new_id: Callable[[], str]) -> Action:
    """What becomes of a slot that has a task. A new task says all at once; otherwise a change of intent comes before a
    change of policy, which then rides along."""
    run = _run(task, intent)
    if task.template != want.template:
        fresh = _fresh(want, task, run, new_id)
        return Action(
            "replace", task.service, task.slot, fresh, "template", _difference(task.container, want.container)
        )
    if intent.verb == "recreate" and intent.names(task.service):
        fresh = _fresh(want, task, run, new_id)
        return Action("replace", task.service, task.slot, fresh, "recreate", "recreate was asked for")
    kind, reason, cause, again = _intend(task, run, intent, over)
    changed = [
        name for name in type(want.policy).model_fields if getattr(want.policy, name) != getattr(task.policy, name)
    ]
    if changed:
        also = f"{_list(changed)} changed"
        kind, reason, cause = ("update", "policy", also) if kind == "keep" else (kind, reason, f"{cause}; {also}")
    elif kind == "keep":
        return Action("keep", task.service, task.slot, task, reason, cause)
    after = task.model_copy(
        update={"desired": run, "restart_request": task.restart_request + again, "policy": want.policy}
    )
    return Action(kind, task.service, task.slot, after, reason, cause)


def _run(task: Task, intent: Intent) -> Run:
    """Whether the task is to run. `up` starts everything, as Compose does; the others leave it as it is."""
    if intent.names(task.service):
        if intent.verb in ("up", "start", "restart"):
            return "running"
        if intent.verb == "stop":
            return "stopped"
        if intent.verb == "pause" and task.desired == "running":
            return "paused"
        if intent.verb == "unpause" and task.desired == "paused":
            return "running"
    return task.desired


def _intend(task: Task, run: Run, intent: Intent, over: str | None) -> tuple[Kind, str, str, int]:
    """(kind, reason, cause, restarts asked for). A task that ended by itself is asked to start by a raised
    restart_request: `start` and `restart` do so always, `up` only after a failure: a job that is done stays done."""
    if run != task.desired:
        if run == "stopped":
            return "stop", "user", "stop was asked for", 0
        if run == "paused":
            return "pause", "user", "pause was asked for", 0
        if task.desired == "paused" and intent.verb != "restart":
            return "unpause", "user", f"{intent.verb} resumes what was paused", 0
        if task.desired == "paused":
            return "restart", "user", "restart was asked for", 1
        return "start", "user", f"{intent.verb} starts what was stopped", 0
    if run == "running" and intent.names(task.service):
        if intent.verb == "restart":
            return "restart", "user", "restart was asked for", 1
        if over is not None and (intent.verb == "start" or (intent.verb == "up" and over == "failed")):
            return "start", "user", f"{intent.verb} starts what {over}", 1
    return "keep", "unchanged", "unchanged", 0


def _fresh(want: Desired, task: Task, run: Run, new_id: Callable[[], str]) -> Task:
    return Task(
        id=new_id(),
        service=task.service,
        slot=task.slot,
        template=want.template,
        container=want.container,
        policy=want.policy,
        desired=run,
        lineage=task.lineage or task.id,
    )


def _difference(old: ContainerSpec, new: ContainerSpec) -> str:
    changed = [name for name in ContainerSpec.model_fields if getattr(old, name) != getattr(new, name)]
    if changed == ["image_id"]:
        return f"{new.image} is another image now"
    return f"{_list([name for name in changed if name != 'image_id'])} changed" if changed else "template changed"


def _list(names: Sequence[str]) -> str:
    words = [name.replace("_", " ") for name in names]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
