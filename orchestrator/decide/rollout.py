"""The next step of a change that must not happen all at once: which of a plan's new tasks may begin now, which old ones
may go. Pure: (what is wanted, what is assigned, what is reported, what was remembered, now) → what is assigned next.

Progress is in what is assigned and in the stored Rollout, so whoever dies between two steps loses nothing. What a
single service may do is turn.py's part; here is what concerns several: whose turn it is, and what a failure means.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from agent.wire.messages import Task
from orchestrator.decide.records import Rollout
from orchestrator.decide.turn import Act, Place, Statuses, Turn
from orchestrator.decide.update import Settings


@dataclass(frozen=True, slots=True)
class Step:
    """`rollout` None: it is over, and `tasks` are as they are to be. `again`: Unix seconds at which to look again
    though nothing was reported. `back`: too much failed, and the revision `rollout.back` is to be restored;
    `rollout.message` says why."""

    tasks: tuple[Task, ...]
    rollout: Rollout | None
    acts: tuple[Act, ...] = ()
    again: float | None = None
    back: bool = False


def begin(target: Sequence[Task], tasks: Sequence[Task], before: Rollout | None, back: int | None) -> Rollout:
    """What is to be done from `tasks` to `target`; `before`: what was under way and is overtaken by this. A service of
    one container is restarted at once: there is nothing to spread."""
    mates = _by_place(tasks)
    here = {task.id: task for task in tasks}
    single = {task.service for task in target} - {task.service for task in target if task.slot > 1}
    carried = frozenset(before.moved) if before is not None else frozenset()

    def moves(task: Task) -> bool:
        if task.desired != "running":
            return False
        if task.id not in here:
            return _place(task) in mates
        restarted = task.restart_request > here[task.id].restart_request
        return task.id in carried or (restarted and task.service not in single)

    return Rollout(target=tuple(target), moved=tuple(task.id for task in target if moves(task)), back=back)


def basis(goal: Sequence[Task], tasks: Sequence[Task], templates: Mapping[str, str]) -> tuple[Task, ...]:
    """The tasks a new plan begins with, one of each slot: what was on its way there, unless the other one of the slot
    is what is wanted now (`templates`: of each service), as on the way back."""
    mates = _by_place(tasks)

    def of(task: Task) -> Task:
        wanted = templates.get(task.service)
        others = mates.get(_place(task), ()) if task.template != wanted else ()
        return next((mate for mate in others if mate.template == wanted), task)

    return tuple(of(task) for task in goal)


def resumed(tasks: Sequence[Task]) -> Rollout | None:
    """What must have been under way where two tasks share a slot, and nothing else is known."""
    mates = _by_place(tasks)
    newer = [task for task in tasks if task.beside in {mate.id for mate in mates[_place(task)]}]
    older = {task.beside for task in newer}
    target = tuple(task for task in tasks if task.id not in older)
    return Rollout(target, tuple(task.id for task in newer)) if newer else None


def step(
    rollout: Rollout,
    tasks: Sequence[Task],
    statuses: Statuses,
    settings: Mapping[str, Settings],
    needs: Mapping[str, Collection[str]],
    now: float,
) -> Step:
    """`statuses`: by task id. `settings`: of each service, Settings() where one is missing. `needs`: service → those
    that it depends on, whose change ends first."""
    if rollout.phase == "rolled-back":
        return Step(tuple(tasks), rollout)
    turns = _turns(rollout, tasks, statuses, settings, now)
    acts = [act for turn in turns.values() for act in turn.failures]
    failed = rollout.failed | {str(act.task): act.message for act in acts}
    rollout = replace(rollout, failed=failed)
    for name, turn in turns.items():
        action = turn.action(failed)
        if action == "continue" or rollout.phase == "paused":
            continue
        rollout = replace(rollout, message=turn.why(failed))
        if action == "rollback" and rollout.back is not None:
            return Step(tuple(tasks), rollout, tuple(acts), back=True)
        rollout = replace(rollout, phase="paused")
        acts.append(Act("paused", name, None, None, f"the change of {name} is paused: {rollout.message}"))
    going = {name for name, turn in turns.items() if turn.pending or turn.busy}
    kept: list[Task] = []
    rested: dict[str, float] = {}
    for name, turn in turns.items():
        waits = rollout.phase == "paused" or bool(going.intersection(needs.get(name, ())) - {name})
        since = turn.rested(rollout.rested.get(name))
        if since is not None:
            rested[name] = since
        own, told = turn.next(waits, since)
        kept += own
        acts += told
    rollout = replace(rollout, rested=rested)
    if not any(turn.open for turn in turns.values()):
        return _over(kept, rollout, acts)
    if not going and rollout.phase != "paused" and len(kept) > len(rollout.target):
        name, turn = next((name, turn) for name, turn in turns.items() if turn.why(failed))
        rollout = replace(rollout, phase="paused", message=turn.why(failed))
        acts.append(Act("paused", name, None, None, f"the old container stays: {rollout.message}"))
    again = min((at for turn in turns.values() for at in turn.due), default=None)
    return Step(_sorted(kept), rollout, tuple(acts), again)


def _turns(
    rollout: Rollout, tasks: Sequence[Task], statuses: Statuses, settings: Mapping[str, Settings], now: float
) -> dict[str, Turn]:
    mates = _by_place(tasks)
    slots: dict[str, list[tuple[Task, Sequence[Task]]]] = {}
    for target in rollout.target:
        slots.setdefault(target.service, []).append((target, mates.get(_place(target), ())))
    return {
        name: Turn(name, rollout, own, statuses, settings.get(name, Settings()), now) for name, own in slots.items()
    }


def _over(tasks: Sequence[Task], rollout: Rollout, acts: list[Act]) -> Step:
    if rollout.phase == "rolling-back" and rollout.message:
        acts.append(Act("rolled-back", "", None, None, f"rolled back: {rollout.message}"))
        told = Rollout((), (), "rolled-back", message=rollout.message, cause=rollout.cause)
        return Step(_sorted(tasks), told, tuple(acts))
    acts.append(Act("done", "", None, None, "every service is as it is to be"))
    return Step(_sorted(tasks), None, tuple(acts))


def _place(task: Task) -> Place:
    return (task.service, task.slot)


def _by_place(tasks: Sequence[Task]) -> dict[Place, list[Task]]:
    found: dict[Place, list[Task]] = {}
    for task in tasks:
        found.setdefault(_place(task), []).append(task)
    return found


def _sorted(tasks: Sequence[Task]) -> tuple[Task, ...]:
    return tuple(sorted(tasks, key=lambda task: (*_place(task), task.id)))
