"""depends_on, as the agent honours it with nobody to ask: gates before a start, and the reverse order of a stop.

A service meets a condition when *all* its current tasks do; one without tasks (scaled to 0) meets every condition.
The gates hold at a task's first start, at its start after a stop, and at boot. A crashed task does not wait for them
again: its dependencies were met once, and to wait for a sick dependency would only spread the outage.

Compose Specification, 05-services.md, depends_on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from agent.decide.record import TaskRecord, health_of
from agent.decide.states import LIVE
from agent.wire.messages import Dependency, Task


@dataclass(frozen=True, slots=True)
class Gate:
    """`message`: what is missing, for people; "" when the gate is open."""

    open: bool = True
    message: str = ""


OPEN = Gate()


def gate(needs: Sequence[Dependency], current: Mapping[str, Sequence[TaskRecord]], boot: str) -> Gate:
    """`current`: service → records of its assigned tasks; a service that the stack does not have is absent."""
    missing = [text for need in needs if (text := _missing(need, current.get(need.service), boot))]
    return Gate(False, "waiting for " + "; ".join(missing)) if missing else OPEN


def _missing(need: Dependency, records: Sequence[TaskRecord] | None, boot: str) -> str:
    if records is None:
        return f"{need.service}, which the stack does not have" if need.required else ""
    for record in records:
        text = _unmet(need, record, boot)
        if text and (need.required or _may_still_come(record)):
            return text
        if record.boot != boot and record.state != "stopped":
            # What it was before the host (or gorae's runtime directory) came up says nothing.
            return f"{_name(record)} to be looked at after the boot"
    return ""


def _unmet(need: Dependency, record: TaskRecord, boot: str) -> str:
    name = _name(record)
    if need.condition == "service_started":
        # Running now, or started since the host (and gorae's runtime directory) came up.
        runs = record.state == "running"
        started = not record.greeting if runs else record.started_at is not None and record.boot == boot
        return "" if started else f"{name} to start ({_now(record)})"
    if need.condition == "service_healthy":
        if record.state == "running" and health_of(record) == "none":
            return f"{name} to become healthy, but it has no healthcheck"
        return "" if health_of(record) == "healthy" else f"{name} to become healthy ({_now(record)})"
    return "" if record.state == "completed" else f"{name} to complete ({_now(record)})"


def _name(record: TaskRecord) -> str:
    return f"{record.service}.{record.slot}" if record.slot > 1 else record.service


def _now(record: TaskRecord) -> str:
    if record.greeting and record.state == "running":
        return "its post_start commands run"
    if health_of(record) != "none":
        return f"it is {health_of(record)}"
    return f"it is {record.state}"


def _may_still_come(record: TaskRecord) -> bool:
    """required: false waits while there is hope, and goes on without a dependency that has failed or was stopped."""
    return record.state in ("pending", "preparing", "starting") or (health_of(record) == "starting")


def first_of_all(task: Task, records: Sequence[TaskRecord]) -> Gate:
    """Of pre_start commands that are to run once for a service, its first slot takes care; the others wait for that.
    `records`: of the service's assigned tasks."""
    leader = min(records, key=lambda record: record.slot, default=None)
    if leader is None or leader.primed or leader.slot >= task.slot:
        return OPEN
    if all(hook.per_replica for hook in task.container.pre_start):
        return OPEN
    return Gate(False, f"waiting for the pre_start commands of {leader.service}.{leader.slot} ({_now(leader)})")


def upstream(needs: Iterable[Dependency], assigned: Mapping[str, Sequence[Task]]) -> dict[str, str]:
    """Whose restarts are to be followed (`restart: true`), as they are now: SERVICE.SLOT → which task, asked to restart
    how often. A crash changes nothing of it."""
    return {
        f"{need.service}.{task.slot}": f"{task.id}/{task.restart_request}"
        for need in needs
        if need.restart
        for task in assigned.get(need.service, ())
    }


def renewed(
    needs: Iterable[Dependency],
    bound: Mapping[str, str],
    assigned: Mapping[str, Sequence[Task]],
    current: Mapping[str, Sequence[TaskRecord]],
    boot: str,
) -> str:
    """The service of which every task has been restarted or replaced since `bound` was upstream(), and which meets its
    condition again; "": none. A crash is not meant (05-services.md, depends_on, restart)."""
    for need in needs:
        now = upstream((need,), assigned)
        known = now.keys() & bound.keys()
        if not known or any(now[name] == bound[name] for name in known) or _missing(need, current[need.service], boot):
            continue
        asked = {task.id: task.restart_request for task in assigned[need.service]}
        records = current[need.service]
        if all(r.state in ("running", "completed") and r.restart_request >= asked[r.id] for r in records):
            return need.service
    return ""


def holders(record: TaskRecord, going: Iterable[TaskRecord]) -> tuple[str, ...]:
    """Services of the stack that must have stopped before `record` does. `going`: records of its stack that are to
    stop or to be removed. A cycle (never ours, but never trusted either) holds nobody."""
    leaving = [other for other in going if other.id != record.id]
    needs: dict[str, set[str]] = {}
    for other in [*leaving, record]:
        needs.setdefault(other.service, set()).update(other.ending.needs)
    below = _reachable(record.service, needs)
    return tuple(
        sorted(
            {
                other.service
                for other in leaving
                if record.service in other.ending.needs and other.service not in below and other.state in LIVE
            }
        )
    )


def _reachable(service: str, needs: Mapping[str, set[str]]) -> set[str]:
    found: set[str] = set()
    todo = [service]
    while todo:
        for name in needs.get(todo.pop(), ()):
            if name not in found:
                found.add(name)
                todo.append(name)
    return found
