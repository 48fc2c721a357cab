"""depends_on, as the agent honours it with nobody to ask: gates before a start, and the reverse order of a stop.

A service meets a condition when *all* its current tasks do; one without tasks (scaled to 0) meets every condition.
The gates hold at a task's first start, at its start after a stop, and at boot. A crashed task does not wait for them
again: its dependencies were met once, and to wait for a sick dependency would only spread the outage.

Compose Specification, 05-services.md, depends_on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from agent.decide.record import TaskRecord
from agent.decide.states import LIVE
from agent.wire.messages import Dependency


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
    return ""


def _unmet(need: Dependency, record: TaskRecord, boot: str) -> str:
    name = f"{record.service}.{record.slot}" if record.slot > 1 else record.service
    if need.condition == "service_started":
        # Running now, or started since the host (and gorae's runtime directory) came up.
        started = record.state == "running" or (record.started_at is not None and record.boot == boot)
        return "" if started else f"{name} to start ({_now(record)})"
    if need.condition == "service_healthy":
        if record.state == "running" and record.health.status == "none":
            return f"{name} to become healthy, but it has no healthcheck"
        healthy = record.state == "running" and record.health.status == "healthy"
        return "" if healthy else f"{name} to become healthy ({_now(record)})"
    return "" if record.state == "completed" else f"{name} to complete ({_now(record)})"


def _now(record: TaskRecord) -> str:
    if record.state == "running" and record.health.status != "none":
        return f"it is {record.health.status}"
    return f"it is {record.state}"


def _may_still_come(record: TaskRecord) -> bool:
    """required: false waits while there is hope, and goes on without a dependency that has failed or was stopped."""
    return record.state in ("pending", "preparing", "starting") or (
        record.state == "running" and record.health.status == "starting"
    )


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
