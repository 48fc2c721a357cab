"""Whose sandbox a task joins."""

from __future__ import annotations

import pytest

from agent.decide.joining import joins, owners
from agent.wire.messages import Naming, Task
from tests.agent.decide.make import task


def of(id_: str, service: str = "web", slot: int = 1, mode: str = "", name: str = "") -> Task:
    return task(id_, service, slot, container={"network_mode": mode, "naming": Naming(container=name)})


@pytest.mark.parametrize(
    ("mode", "stacks", "before", "found"),
    [
        pytest.param("service:web", {"a": [of("w1")]}, "", "w1", id="the service"),
        pytest.param("service:web", {"a": [of("w1"), of("w2", slot=2)]}, "", "w2", id="slot for slot"),
        pytest.param("service:web", {"a": [of("w3", slot=3), of("w1")]}, "", "w1", id="the first, without such a slot"),
        pytest.param("service:web", {"a": [of("o", slot=2), of("n", slot=2)]}, "", "n", id="the newer of two"),
        pytest.param("service:web", {"a": [of("o", slot=2), of("n", slot=2)]}, "o", "o", id="or the one it is with"),
        pytest.param("service:web", {"a": [of("n", slot=2)]}, "o", "n", id="until that is gone"),
        pytest.param("service:web", {"a": [], "b": [of("w1")]}, "", None, id="none of another stack"),
        pytest.param("service:web", {"a": [of("w1", mode="none")]}, "", "w1", id="a loopback"),
        pytest.param("service:web", {"a": [of("w1", mode="host")]}, "", None, id="not the host's"),
        pytest.param("service:web", {"a": [of("w1", mode="service:x")]}, "", None, id="not who joins another"),
        pytest.param("container:vpn", {"b": [of("v", name="vpn")]}, "", "v", id="by container_name, anywhere"),
        pytest.param("container:b-web-1", {"b": [of("v")]}, "", "v", id="by the name compose gives"),
        pytest.param("container:web", {"a": [of("v")]}, "", None, id="not by the service's"),
    ],
)
def test_owners(mode: str, stacks: dict[str, list[Task]], before: str, found: str | None) -> None:
    mine = of("me", "side", slot=2, mode=mode)
    asked = {**stacks, "a": [*stacks.get("a", []), mine]}
    answer = owners(asked, {"me": before} if before else {})
    assert answer.get("me") == found and answer.keys() <= {"me", "w1"}


@pytest.mark.parametrize(
    ("mode", "answer"), [("", False), ("none", False), ("host", False), ("service:x", True), ("container:x", True)]
)
def test_joins(mode: str, answer: bool) -> None:
    assert joins(of("t", mode=mode).container) is answer
