"""Who on which machine reaches what: the published ports of a stack as people ask for them. Pure."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

from agent.wire.messages import StackStatus, Task, TaskStatus
from orchestrator.decide.records import StackRecord


def rows(record: StackRecord, status: StackStatus | None) -> list[dict[str, Any]]:
    """One per published port and service, sorted by port: {stack, service, protocol, host_ip, published, target, reach,
    state, ready, tasks}. `published`: None while the agent has picked none. `ready` of `tasks` containers answer;
    state: open if one does, else closed. `reach`: everyone, this host, or host (who reaches the address host_ip)."""
    reported = {task.id: task for task in status.tasks} if status else {}
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for task in record.tasks:
        told = reported.get(task.id)
        for host_ip, published, protocol, target in _ports(task, told):
            row = found.setdefault(
                (published or 0, protocol, host_ip, task.service, target),
                {
                    "stack": record.name,
                    "service": task.service,
                    "protocol": protocol,
                    "host_ip": host_ip,
                    "published": published,
                    "target": target,
                    "reach": reach(host_ip),
                    "ready": 0,
                    "tasks": 0,
                },
            )
            row["tasks"] += 1
            row["ready"] += _answers(task, told)
    return [row | {"state": "open" if row["ready"] else "closed"} for _, row in sorted(found.items())]


def reach(host_ip: str) -> str:
    if not host_ip or ip_address(host_ip).is_unspecified:
        return "everyone"
    return "this host" if ip_address(host_ip).is_loopback else "host"


def _ports(task: Task, told: TaskStatus | None) -> list[tuple[str, int | None, str, int]]:
    """What the agent has told of, else what the file says."""
    ports = told.ports if told and told.ports else task.container.ports
    return [(port.host_ip, port.published, port.protocol, port.target) for port in ports]


def _answers(task: Task, told: TaskStatus | None) -> bool:
    return told is not None and told.state == "running" and told.health in ("none", "healthy")
