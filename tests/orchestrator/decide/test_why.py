"""Chains of causes, as people read them."""

from __future__ import annotations

from typing import Any

import pytest

from agent.wire.messages import Event
from orchestrator.cli.verbs.why import text
from orchestrator.decide.why import explain, waits


def event(id: str, kind: str, at: float, cause: str | None = None, **fields: Any) -> Event:
    own = {"service": "web", "slot": 2, "task": "t1", "stack": "shop", "source": "agent"} | fields
    return Event.model_validate({"id": id, "kind": kind, "at": at, "cause": cause, **own})


APPLIED = event(
    "e1",
    "stack.applied",
    1,
    service=None,
    slot=None,
    task=None,
    source="orchestrator",
    message="up: 1 create (by uid 0)",
)
PLANNED = event("e2", "plan.create", 1, "e1", source="orchestrator", message="new service")
BEGUN = event("e3", "task.started", 2, "e1", attempt=1)
SICK = [
    event("e4", "task.exited", 50, service="db", slot=1, task="d1", message="killed: out of memory"),
    event(
        "e5",
        "task.unhealthy",
        60,
        None,
        message="its healthcheck failed 3 times in a row",
        evidence={"output": "GET /health → 503"},
    ),
    event(
        "e6",
        "task.stopping",
        61,
        "e5",
        evidence={"rule": "unhealthy → again (default)"},
        message="its healthcheck failed",
    ),
    event("e7", "task.exited", 62, "e6", message="exit 143"),
    event("e8", "task.started", 63, "e7", attempt=4),
]


def test_an_illness_is_followed_to_where_it_began_and_its_dependency_is_told() -> None:
    found = explain([APPLIED, PLANNED, BEGUN, *SICK], "web", {"db"})
    assert found is not None and found["sentence"] == "web.2 was started again (attempt 4)"
    assert [fact["id"] for fact in found["because"]] == ["e7", "e6", "e5"]
    assert found["because"][2]["lines"] == ["GET /health → 503"]
    assert found["rule"] == "unhealthy → again (default)"
    assert [fact["sentence"] for fact in found["before"]] == ["db.1 ended: killed: out of memory"]
    lines = text(found, "shop/web")
    assert lines[0].startswith("web.2 was started again (attempt 4), at ")
    assert "           │ GET /health → 503" in lines and "  rule     unhealthy → again (default)" in lines
    assert lines[-1].startswith("try  gorae logs shop/web --since ")


def test_a_start_is_somebodys_and_says_what_was_planned() -> None:
    found = explain([APPLIED, PLANNED, BEGUN], "web", set())
    assert found is not None and [fact["sentence"] for fact in found["because"]] == [
        "new service",
        "up: 1 create (by uid 0)",
    ]
    assert found["before"] == []


def test_a_crash_goes_back_to_the_life_before_and_no_further() -> None:
    crash = event("e4", "task.exited", 50, "e3", message="exit 1", evidence={"log_tail": list("abcdefg"), "rule": "r"})
    found = explain([APPLIED, PLANNED, BEGUN, crash], "web", set())
    assert found is not None and (found["because"], found["lines"]) == ([], list("cdefg"))


def test_causes_that_go_in_a_circle_or_are_forgotten_end_the_chain() -> None:
    one, other = event("e1", "task.exited", 1, "e2"), event("e2", "task.again", 2, "e1")
    found = explain([one, other], "web", set())
    assert found is not None and [fact["id"] for fact in found["because"]] == ["e1"]
    assert explain([], "web", set()) is None


def test_the_end_of_the_container_that_an_update_replaced_is_not_how_the_service_is() -> None:
    asked = event("e9", "stack.applied", 70, service=None, slot=None, task=None, source="orchestrator", message="up")
    new = event("e10", "task.started", 71, "e9", task="t2", attempt=1)
    old = event("e11", "task.exited", 72, "e9", message="exit 0")
    found = explain([APPLIED, PLANNED, BEGUN, asked, new, old], "web", set())
    assert found is not None and (found["sentence"], found["at"]) == ("web.2 was started", 71)
    failed = event("e10", "task.start-failed", 71, "e9", task="t2", message="no such command")
    found = explain([APPLIED, PLANNED, BEGUN, asked, failed], "web", set())
    assert found is not None and found["sentence"] == "web.2 could not be started: no such command"


WAITING = {"name": "web", "state": "waiting", "since": 70.0, "message": "waiting for db to complete (it is failed)"}
FAILED = event("e9", "task.failed", 69, service="db", slot=1, task="d1", message="exit 3; it stays down")


def test_who_waits_is_told_for_what_and_what_became_of_that() -> None:
    found = waits([APPLIED, PLANNED, FAILED], WAITING, {"db"})
    assert found is not None and text(found, "shop/web")[0].startswith(
        "web is waiting for db to complete (it is failed), at "
    )
    assert found["because"] == []
    assert [fact["sentence"] for fact in found["before"]] == ["db.1 failed: exit 3; it stays down"]


def test_who_waits_after_it_ran_is_told_how_that_ended() -> None:
    stopped = event("e9", "task.stopped", 65, message="stopped: exit 143")
    found = waits([APPLIED, PLANNED, BEGUN, stopped], WAITING, {"db"})
    assert found is not None and [fact["sentence"] for fact in found["because"]] == [
        "web.2 was stopped: stopped: exit 143"
    ]


@pytest.mark.parametrize(
    "row",
    [
        pytest.param({"state": "running", "message": ""}, id="runs"),
        pytest.param({"state": "waiting", "message": "mount missing: /mnt"}, id="an event says that"),
        pytest.param({"state": "starting", "message": ""}, id="starts"),
    ],
)
def test_others_are_explained_by_their_events(row: dict[str, Any]) -> None:
    assert waits([FAILED], {**WAITING, **row}, {"db"}) is None


def test_an_earlier_stack_of_the_name_is_another_one() -> None:
    gone = event("f0", "stack.removed", 70, service=None, slot=None, task=None, source="orchestrator")
    applied = APPLIED.model_copy(update={"id": "f1", "at": 75.0})
    begun = BEGUN.model_copy(update={"id": "f2", "at": 76.0, "cause": "f1", "task": "t9"})
    found = explain([APPLIED, PLANNED, BEGUN, *SICK, FAILED, gone, applied, begun], "web", {"db"})
    assert found is not None and (found["at"], found["before"]) == (76.0, [])
    left = explain([APPLIED, PLANNED, BEGUN, gone], "web", {"db"})
    assert left is not None and left["at"] == 2, "nothing came after it"
