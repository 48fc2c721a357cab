"""Who reaches what."""

from __future__ import annotations

from typing import Any

import pytest

from agent.wire.messages import PublishedPort, StackStatus, TaskStatus
from orchestrator.decide.ports import published_at
from orchestrator.decide.reach import reach, rows
from orchestrator.decide.records import StackRecord
from tests.orchestrator.decide.test_schedule import port, tasks
from tests.support.orchestrating import stack


@pytest.mark.parametrize(
    ("host_ip", "found"),
    [
        ("", "everyone"),
        ("0.0.0.0", "everyone"),
        ("::", "everyone"),
        ("127.0.0.1", "this host"),
        ("127.0.0.53", "this host"),
        ("::1", "this host"),
        ("192.0.2.1", "host"),
        ("2001:db8::1", "host"),
    ],
)
def test_reach(host_ip: str, found: str) -> None:
    assert reach(host_ip) == found


def test_rows() -> None:
    """Replicas share a row where they share a port; what the agent picked is shown once it has told of it."""
    wanted = tasks("shop", web={**port(8080), "replicas": 2}, api=port(None), dns=port(53, protocol="udp"))
    record = StackRecord("shop", 1, 1, {}, wanted, 0.0)
    web, other = (task for task in wanted if task.service == "web")

    def status(task: Any, published: int, health: str) -> TaskStatus:
        return TaskStatus.model_validate(
            {
                **{"id": task.id, "service": task.service, "slot": task.slot, "template": "t"},
                **{"state": "running", "health": health},
                "ports": [PublishedPort(target=80, published=published).model_dump()],
            }
        )

    def short(told: list[TaskStatus]) -> list[tuple[Any, ...]]:
        found = rows(
            record, StackStatus(store_id="s", stack="shop", observed_generation=1, epoch=1, seq=1, tasks=tuple(told))
        )
        return [(r["service"], r["published"], r["protocol"], r["state"], r["ready"], r["tasks"]) for r in found]

    assert short([]) == [
        ("api", None, "tcp", "closed", 0, 1),
        ("dns", 53, "udp", "closed", 0, 1),
        ("web", 8080, "tcp", "closed", 0, 2),
    ]
    api = next(task for task in wanted if task.service == "api")
    assert short([status(web, 8080, "healthy"), status(other, 8080, "starting"), status(api, 40_000, "none")]) == [
        ("dns", 53, "udp", "closed", 0, 1),
        ("web", 8080, "tcp", "open", 1, 2),
        ("api", 40_000, "tcp", "open", 1, 1),
    ]


def test_a_default_address_is_for_ports_that_have_none() -> None:
    ports = [{"target": 80, "published": 80}, {"target": 81, "published": 81, "host_ip": "0.0.0.0"}]
    model = stack(web={"image": "i", "ports": ports}, db={"image": "i"})
    assert published_at(model, "") == model
    found = published_at(model, "127.0.0.1")
    assert [port.host_ip for port in found.services["web"].ports] == ["127.0.0.1", "0.0.0.0"]
    assert found.services["db"] == model.services["db"]
