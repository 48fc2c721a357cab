"""What is told of what does not get on, and when."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from agent.kit.errors import Temporary
from agent.kit.troubles import Troubles


def full(disk: str = "a") -> Temporary:
    return Temporary(f"cannot write {disk}", code="full", hint="free some")


@pytest.mark.parametrize(
    ("steps", "told", "edges"),
    [
        pytest.param([], [], 0, id="none"),
        pytest.param([lambda t: t.found("x", full(), 5.0)], [("cannot write a", 5.0, "")], 1, id="one"),
        pytest.param([lambda t: t.over("x")], [], 0, id="over before it began"),
        pytest.param(
            [lambda t: t.found("x", full(), 5.0), lambda t: t.found("x", full(), 9.0)],
            [("cannot write a", 5.0, "")],
            1,
            id="the same again is no news",
        ),
        pytest.param(
            [lambda t: t.found("x", full(), 5.0), lambda t: t.found("x", full("b"), 9.0)],
            [("cannot write b", 5.0, "")],
            2,
            id="other words for the same",
        ),
        pytest.param(
            [lambda t: t.found("x", full(), 5.0), lambda t: t.over("x")],
            [],
            2,
            id="over",
        ),
        pytest.param(
            [lambda t: t.found("x", full(), 5.0), lambda t: t.found("y", full(), 6.0), lambda t: t.over("x")],
            [("cannot write a", 6.0, "")],
            2,
            id="one of two is over",
        ),
        pytest.param(
            [lambda t: t.found("x", full(), 5.0), lambda t: t.found("y", full("v"), 6.0, "shop")],
            [("cannot write a", 5.0, ""), ("cannot write v", 6.0, "shop")],
            2,
            id="of everybody and of one stack",
        ),
    ],
)
def test_told(steps: list[Callable[[Troubles], None]], told: list[tuple[str, float, str]], edges: int) -> None:
    troubles, rung = Troubles(), []
    troubles.changed = lambda: rung.append(1)
    for step in steps:
        step(troubles)
    assert [(one.message, one.since, one.stack) for one in troubles.told()] == told
    assert len(rung) == edges
