"""The one fold: desired × reported → the status document of docs/api.md. Pure; the API, `watch` and tests use it.

The document is stable: fields may be added, none renamed. Nothing in it depends on the present time, so that an
unchanged stack gives equal bytes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from agent.wire.messages import PublishedPort, StackStatus, Task, TaskStatus
from orchestrator.decide.records import StackRecord
from orchestrator.decide.turn import ready

# The first state that any task of a service is in names the service; the first that any service is in, the stack.
PRECEDENCE = (
    "failed",
    "backoff",
    "updating",
    "stopping",
    "waiting",
    "starting",
    "unknown",
    "paused",
    "running",
    "completed",
    "stopped",
)
_HEALTH = ("unhealthy", "starting", "healthy", "none")
_COMING = {"preparing": "starting", "starting": "starting", "removed": "stopping"}
_UNTOLD: dict[str, Any] = TaskStatus(id="", service="", slot=0, template="", state="pending").model_dump()
_TASK_KEYS = (
    *("id", "slot", "state", "health", "attempt", "restarts", "since", "started_at", "pid", "address", "exit_code"),
    *("oom", "reason", "message", "evidence", "next_at", "failures", "paused"),
)
NOT_ADOPTED = "the restored database names it, but the agent does not run it"


def fold(record: StackRecord, status: StackStatus | None, online: bool, drained: bool = False) -> dict[str, Any]:
    """One stack's entry. `status`: the newest the agent sent, of any generation, or None. `drained`: the host is."""
    record = record.drained() if drained else record
    reported = {task.id: task for task in status.tasks} if status else {}
    observed = status.observed_generation if status else 0
    seen = observed >= record.generation
    assigned = {task.id for task in record.tasks}
    leaving = [task for id, task in reported.items() if id not in assigned and task.state != "removed"]
    names = list(record.model.get("services", {}))
    names += sorted(({task.service for task in record.tasks} | {task.service for task in leaving}) - set(names))
    services = [
        _service(
            record,
            name,
            [task for task in record.tasks if task.service == name],
            reported,
            [task for task in leaving if task.service == name],
            told=online,
            seen=seen,
            still=drained,
        )
        for name in names
    ]
    _propagate(record, services)
    converged = online and seen and not record.removed and not record.held
    for service in services:
        service["converged"] = converged and service["converged"]
    converged = converged and (drained or record.rollout is None or record.rollout.phase == "rolled-back")
    converged = converged and all(service["converged"] for service in services)
    return {
        "name": record.name,
        "generation": record.generation,
        "observed_generation": observed,
        "revision": record.revision,
        "converged": converged,
        "state": "stopping" if record.removed else _first(service["state"] for service in services),
        "update": _update(record, reported),
        "services": services,
    }


def of_some(entry: dict[str, Any], services: Collection[str]) -> dict[str, Any]:
    """The entry, as if the stack had only these services. How an update ended that did not end well concerns all."""
    rows = [row for row in entry["services"] if row["name"] in services]
    update = entry["update"]
    if update and update["services"] and not update["services"].keys() & set(services):
        update = None
    return {**entry, "services": rows, "update": update, "converged": all(row["converged"] for row in rows)}


def _update(record: StackRecord, reported: Mapping[str, TaskStatus]) -> dict[str, Any] | None:
    """What is under way, or how it ended if it did not end well. `services`: those that change, how far each is."""
    under_way = record.rollout
    if under_way is None:
        return None
    services: dict[str, dict[str, int]] = {}
    for target in under_way.target:
        if target.id in under_way.moved:
            count = services.setdefault(target.service, {"done": 0, "of": 0})
            count["of"] += 1
            count["done"] += _changed(target, record.tasks, reported.get(target.id))
    return {"phase": under_way.phase, "message": under_way.message, "back": under_way.back, "services": services}


def _changed(target: Task, tasks: Sequence[Task], status: TaskStatus | None) -> bool:
    """Whether it is alone in its slot, and ready."""
    mates = [task for task in tasks if (task.service, task.slot) == (target.service, target.slot)]
    return [mate.id for mate in mates] == [target.id] and ready(target, status)


def _first(states: Any) -> str:
    present = set(states)
    return next((state for state in PRECEDENCE if state in present), "stopped")


def _service(
    record: StackRecord,
    name: str,
    tasks: Sequence[Task],
    reported: Mapping[str, TaskStatus],
    leaving: Sequence[TaskStatus],
    *,
    told: bool,
    seen: bool,
    still: bool,
) -> dict[str, Any]:
    """`still`: no change goes on meanwhile."""
    slots = {task.slot for task in leaving}
    changing = record.rollout is not None and any(
        not still and target.service == name and target.id in record.rollout.moved for target in record.rollout.target
    )
    model = record.model.get("services", {}).get(name, {})
    depends, job = bool(model.get("depends_on")), bool(model.get("job"))
    rows, states = [], []
    for task in tasks:
        status = reported.get(task.id)
        state = _state(task, status, replacing=task.slot in slots, depends=depends, seen=seen)
        coming = state == "starting" and any(mate.id == task.beside for mate in tasks)
        states.append("updating" if coming else state)
        rows.append(_row(task, status))
    for status in leaving:
        rows.append(_row(None, status))
        states.append("updating" if any(task.slot == status.slot and task.wanted for task in tasks) else "stopping")
    state = _first([*states, "updating"] if changing else states) if told else "unknown"
    shown = _shown(rows, states, state if state in states else _first(states))
    live = [row for row in rows[: len(tasks)] if row["state"] == "running"]
    held = {"state": "stopped", "reason": "not-adopted", "message": NOT_ADOPTED, "failed": True}
    return {
        "name": name,
        "replicas": len({task.slot for task in tasks}),
        "ready": len({row["slot"] for row in live if row["health"] in ("none", "healthy")}),
        "state": state,
        "health": next((health for health in _HEALTH if any(row["health"] == health for row in live)), "none"),
        "since": max((row["since"] for row in shown), default=record.updated_at) or record.updated_at,
        "reason": next((row["reason"] for row in shown if row["reason"]), ""),
        "message": next((row["message"] for row in shown if row["message"]), ""),
        "ports": _ports(tasks, reported),
        "image": model.get("image", ""),
        "failed": told and "failed" in states,
        "tasks": rows,
        "converged": not leaving
        and not changing
        and all(_done(task, reported.get(task.id), job=job) for task in tasks),
    } | (held if record.held else {})


def _shown(rows: Sequence[dict[str, Any]], states: Sequence[str], state: str) -> list[dict[str, Any]]:
    """The tasks that gave the service its state, and so its reason; how a task that starts again had ended is past."""
    over = ("failed", "completed", "stopped") if state == "starting" else ()
    return [row for row, own in zip(rows, states, strict=True) if own == state and row["state"] not in over]


def _state(task: Task, status: TaskStatus | None, *, replacing: bool, depends: bool, seen: bool) -> str:
    if status is not None and status.reason == "mount-missing" and task.desired == "running":
        return "waiting"
    if status is None or status.state == "pending":
        if not task.wanted:
            return "stopping"
        if replacing:
            return "updating"
        return "waiting" if depends and status is not None else "starting"
    if task.desired == "drained" and status.state in ("failed", "completed"):
        return status.state
    if not task.wanted:
        return "stopped" if status.state == "stopped" else "stopping"
    if status.state in ("failed", "completed", "stopped"):
        # What has failed may be asked for again by what the agent has not seen yet; what is done is asked by number.
        unsure = not seen and status.state == "failed"
        again = unsure or status.restart_request < task.restart_request or status.state == "stopped"
        return "starting" if again else status.state
    if status.paused:
        return "paused"
    return _COMING.get(status.state, status.state)


def _done(task: Task, status: TaskStatus | None, *, job: bool) -> bool:
    """Whether the task is as it should be and can stay so; a job is when it has completed."""
    if status is not None and task.desired == "drained":
        return status.state in ("stopped", "completed", "failed")
    if status is None or status.restart_request < task.restart_request:
        return False
    if task.desired == "stopped":
        return status.state == "stopped"
    if (task.desired == "paused") != status.paused and status.state == "running":
        return False
    lives = status.state == "running" and status.health in ("none", "healthy")
    return status.state == "completed" or (lives and (not job or task.desired == "paused"))


def _row(task: Task | None, status: TaskStatus | None) -> dict[str, Any]:
    if status is None:
        assert task is not None
        row = {key: _UNTOLD[key] for key in _TASK_KEYS} | {"id": task.id, "slot": task.slot, "ports": []}
        return row | {"evidence": {}}
    row = {key: getattr(status, key) for key in _TASK_KEYS}
    row["state"] = "paused" if status.paused else status.state
    row["ports"] = [_port(port) for port in status.ports]
    return row


def _port(port: PublishedPort) -> str:
    host = port.host_ip or "0.0.0.0"
    host = f"[{host}]" if ":" in host else host
    return f"{host}:{port.published} → {port.target}" + ("/udp" if port.protocol == "udp" else "")


def _ports(tasks: Sequence[Task], reported: Mapping[str, TaskStatus]) -> list[str]:
    """Host ports the agent reports; before it does, the fixed ones."""
    found: dict[str, None] = {}
    for task in tasks:
        status = reported.get(task.id)
        for port in status.ports if status else ():
            found[_port(port)] = None
        for wish in () if status and status.ports else task.container.ports:
            if wish.published is not None:
                published = PublishedPort(
                    target=wish.target, published=wish.published, protocol=wish.protocol, host_ip=wish.host_ip
                )
                found[_port(published)] = None
    return list(found)


def _propagate(record: StackRecord, services: list[dict[str, Any]]) -> None:
    """A service that waits for one that has failed will not come up by itself either."""
    by_name = {service["name"]: service for service in services}
    changed = True
    while changed:
        changed = False
        for service in services:
            if service["state"] != "waiting" or service["failed"]:
                continue
            for other, how in record.model["services"].get(service["name"], {}).get("depends_on", {}).items():
                if how.get("required", True) and other in by_name and by_name[other]["failed"]:
                    service["failed"] = changed = True
                    service["message"] = service["message"] or f"waits for {other}, which failed"
                    service["reason"] = service["reason"] or "dependency-failed"
                    break
