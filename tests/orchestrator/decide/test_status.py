"""The fold, as rows: what a user reads for what the agent said."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.wire.messages import Health, PublishedPort, StackStatus, State, Task, TaskStatus
from orchestrator.decide.records import StackRecord
from orchestrator.decide.status import PRECEDENCE, fold, of_some
from tests.orchestrator.decide.test_plan import act, up
from tests.support.orchestrating import stack

MODEL = stack(
    web={"image": "web:1", "replicas": 2, "depends_on": {"db": {}}, "ports": [{"target": 80, "published": 8080}]},
    db={"image": "db:1"},
)
TASKS = up(MODEL).tasks  # db.1, web.1, web.2
RECORD = StackRecord("shop", 2, 1, MODEL.model_dump(mode="json", exclude_defaults=True), TASKS, 1000.0)


def told(task: Task, state: State = "running", health: Health = "none", **more: Any) -> TaskStatus:
    return TaskStatus(
        id=task.id, service=task.service, slot=task.slot, template=task.template, state=state, health=health, **more
    )


def status(*tasks: TaskStatus, generation: int = 2) -> StackStatus:
    return StackStatus(store_id="s", stack="shop", observed_generation=generation, epoch=1, seq=1, tasks=tasks)


def row(document: dict[str, Any], name: str) -> dict[str, Any]:
    return next(service for service in document["services"] if service["name"] == name)


ALL = tuple(told(task) for task in TASKS)
DB, WEB1, WEB2 = TASKS


@pytest.mark.parametrize(
    ("record", "reported", "online", "web", "converged", "state"),
    [
        pytest.param(RECORD, status(*ALL), True, "2/2 running none", True, "running", id="running"),
        pytest.param(
            RECORD,
            status(ALL[0], told(WEB1, health="healthy"), told(WEB2, health="starting")),
            True,
            "1/2 running starting",
            False,
            "running",
            id="health still starting",
        ),
        pytest.param(RECORD, status(*ALL), False, "2/2 unknown none", False, "unknown", id="the agent is offline"),
        pytest.param(
            replace(RECORD, tasks=(DB, *(task.model_copy(update={"desired": "paused"}) for task in (WEB1, WEB2)))),
            status(ALL[0], told(WEB1, paused=True), told(WEB2, paused=True)),
            True,
            "0/2 paused none",
            True,
            "paused",
            id="paused",
        ),
        pytest.param(
            RECORD,
            status(ALL[0], told(WEB1, paused=True), ALL[2]),
            True,
            "1/2 paused none",
            False,
            "paused",
            id="resuming",
        ),
        pytest.param(RECORD, None, True, "0/2 starting none", False, "starting", id="the agent has not said yet"),
        pytest.param(RECORD, status(*ALL, generation=1), True, "2/2 running none", False, "running", id="older"),
        pytest.param(
            RECORD,
            status(ALL[0], told(WEB1, "pending"), told(WEB2, "pending")),
            True,
            "0/2 waiting none",
            False,
            "waiting",
            id="waiting for dependencies",
        ),
        pytest.param(
            RECORD,
            status(ALL[0], ALL[1], told(WEB2, "backoff", reason="exit", message="exit 1, 5th time")),
            True,
            "1/2 backoff none: exit 1, 5th time",
            False,
            "backoff",
            id="one in backoff names the service",
        ),
        pytest.param(
            RECORD,
            status(ALL[0], ALL[1], told(WEB2, "failed", message="exit 2")),
            True,
            "1/2 failed none! exit 2",
            False,
            "failed",
            id="failed",
        ),
        pytest.param(
            RECORD,
            status(ALL[0], ALL[1], told(WEB2, "failed", message="exit 2"), generation=1),
            True,
            "1/2 starting none",
            False,
            "starting",
            id="failed, but the agent has not seen the latest",
        ),
        pytest.param(
            RECORD,
            status(ALL[0], told(WEB1, "completed"), told(WEB2, "completed"), generation=1),
            True,
            "0/2 completed none",
            False,
            "running",
            id="done, and the agent has not seen the latest: another service's update",
        ),
        pytest.param(
            replace(RECORD, tasks=(DB, *(task.model_copy(update={"restart_request": 1}) for task in (WEB1, WEB2)))),
            status(ALL[0], told(WEB1, "completed"), told(WEB2, "completed"), generation=1),
            True,
            "0/2 starting none",
            False,
            "starting",
            id="done, and asked for again",
        ),
        pytest.param(
            replace(RECORD, tasks=tuple(task.model_copy(update={"desired": "drained"}) for task in TASKS)),
            status(
                told(DB, "stopped"),
                told(WEB1, "pending"),
                told(WEB2, "stopped"),
                told(WEB1.model_copy(update={"id": "old"}), "stopping"),
            ),
            True,
            "0/2 stopping none",
            False,
            "stopping",
            id="drained in the middle of an update",
        ),
        pytest.param(
            RECORD,
            status(told(DB, "failed", message="no such file"), told(WEB1, "pending"), told(WEB2, "pending")),
            True,
            "0/2 waiting none! waits for db, which failed",
            False,
            "failed",
            id="what waits for the failed has failed",
        ),
        pytest.param(
            RECORD,
            status(ALL[0], told(WEB1, "completed"), told(WEB2, "completed")),
            True,
            "0/2 completed none",
            True,
            "running",
            id="a job that is done is converged",
        ),
        pytest.param(
            RECORD,
            status(*ALL, told(WEB2.model_copy(update={"id": "old"}), "stopping")),
            True,
            "2/2 updating none",
            False,
            "updating",
            id="the old task of a slot is still there",
        ),
        pytest.param(
            RECORD,
            status(*ALL, told(WEB2.model_copy(update={"id": "old", "slot": 3}), "stopping")),
            True,
            "2/2 stopping none",
            False,
            "stopping",
            id="scaling down",
        ),
        pytest.param(
            replace(RECORD, tasks=act("stop", TASKS, "web").tasks),
            status(ALL[0], told(WEB1, "stopped"), told(WEB2, "stopping")),
            True,
            "0/2 stopping none",
            False,
            "stopping",
            id="stopping",
        ),
        pytest.param(
            replace(RECORD, tasks=act("stop", TASKS, "web").tasks),
            status(ALL[0], told(WEB1, "stopped"), told(WEB2, "stopped")),
            True,
            "0/2 stopped none",
            True,
            "running",
            id="stopped",
        ),
        pytest.param(
            replace(RECORD, tasks=act("restart", TASKS, "web").tasks),
            status(*ALL),
            True,
            "2/2 running none",
            False,
            "running",
            id="a restart that was not done yet",
        ),
        pytest.param(
            replace(RECORD, tasks=act("start", TASKS, "web", over={WEB1.id: "failed"}).tasks),
            status(ALL[0], told(WEB1, "failed"), ALL[2]),
            True,
            "1/2 starting none",
            False,
            "starting",
            id="started again after it failed",
        ),
        pytest.param(
            replace(RECORD, tasks=(), removed=True),
            status(told(WEB1, "stopping")),
            True,
            "0/0 stopping none",
            False,
            "stopping",
            id="being removed",
        ),
        pytest.param(
            replace(RECORD, held=True),
            None,
            True,
            "0/2 stopped none! the restored database names it, but the agent does not run it",
            False,
            "stopped",
            id="held",
        ),
        pytest.param(
            replace(RECORD, tasks=(DB,)), status(ALL[0]), True, "0/0 stopped none", True, "running", id="scaled to 0"
        ),
    ],
)
def test_fold(
    record: StackRecord, reported: StackStatus | None, online: bool, web: str, converged: bool, state: str
) -> None:
    document = fold(record, reported, online)
    found = row(document, "web")
    text = f"{found['ready']}/{found['replicas']} {found['state']} {found['health']}"
    text += "!" if found["failed"] else ":" if found["message"] else ""
    assert f"{text} {found['message']}".strip() == web
    assert (document["converged"], document["state"]) == (converged, state)


def test_ports_are_the_agents_once_it_has_said_them() -> None:
    assert row(fold(RECORD, None, True), "web")["ports"] == ["0.0.0.0:8080 → 80"]
    ports = (
        PublishedPort(target=80, published=8080),
        PublishedPort(target=53, published=40053, protocol="udp", host_ip="::1"),
    )
    document = fold(RECORD, status(ALL[0], told(WEB1, ports=ports), told(WEB2, ports=ports[:1])), True)
    assert row(document, "web")["ports"] == ["0.0.0.0:8080 → 80", "[::1]:40053 → 53/udp"]


def test_a_task_row_has_the_documented_keys() -> None:
    for reported in (None, status(*ALL)):
        keys = set(row(fold(RECORD, reported, True), "web")["tasks"][0])
        assert keys == {
            *("id", "slot", "state", "health", "attempt", "restarts", "since", "started_at", "pid", "address"),
            *("exit_code", "oom", "reason", "message", "evidence", "next_at", "ports"),
            *("failures", "paused"),
        }


STATES = ["pending", "preparing", "starting", "running", "stopping", "backoff", "stopped", "completed", "failed"]


@given(
    states=st.lists(st.sampled_from(STATES), min_size=3, max_size=3),
    health=st.sampled_from(["none", "starting", "healthy", "unhealthy"]),
    stop=st.booleans(),
    known=st.integers(0, 3),
    online=st.booleans(),
)
def test_every_combination_folds(states: list[State], health: Health, stop: bool, known: int, online: bool) -> None:
    tasks = act("stop", TASKS).tasks if stop else TASKS
    reported = status(*(told(t, s, health) for t, s in list(zip(TASKS, states, strict=True))[:known]))
    document = json.loads(json.dumps(fold(replace(RECORD, tasks=tasks), reported, online)))
    for service in document["services"]:
        assert service["state"] in PRECEDENCE
        assert 0 <= service["ready"] <= service["replicas"]
        assert not (document["converged"] and service["failed"])
    if document["converged"]:
        assert online
        assert known == 3
        settled = {"stopped"} if stop else {"running", "completed"}
        assert set(states) <= settled


@pytest.mark.parametrize(
    ("states", "web", "converged"),
    [
        (("running", "running", "running"), "stopping", False),
        (("stopped", "running", "stopped"), "stopping", False),
        (("stopped", "stopped", "stopped"), "stopped", True),
        (("completed", "stopped", "failed"), "failed", True),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, tuple) else None,
)
def test_of_a_drained_host(states: tuple[State, ...], web: str, converged: bool) -> None:
    document = fold(RECORD, status(*map(told, TASKS, states)), True, True)
    assert (row(document, "web")["state"], document["converged"]) == (web, converged)


def test_what_was_drained_is_awaited_when_it_is_no_more() -> None:
    document = fold(RECORD, status(*(told(task, "stopped") for task in TASKS)), True)
    assert (row(document, "web")["state"], document["converged"]) == ("starting", False)


@pytest.mark.parametrize(("state", "converged"), [("running", False), ("completed", True), ("backoff", False)])
def test_a_job_is_as_it_should_be_when_it_has_completed(state: State, converged: bool) -> None:
    model = {**RECORD.model, "services": {**RECORD.model["services"], "db": {"image": "db:1", "job": True}}}
    document = fold(replace(RECORD, model=model), status(told(DB, state), *ALL[1:]), True)
    assert document["converged"] == converged


def test_a_one_shot_without_the_mode_of_a_job_is_up_while_it_runs_and_when_it_is_done() -> None:
    for state in ("running", "completed"):
        assert fold(RECORD, status(told(DB, state), *ALL[1:]), True)["converged"]


def test_of_some_services_says_nothing_of_the_others() -> None:
    whole = fold(RECORD, status(ALL[0], told(WEB1, "backoff"), ALL[2]), True)
    assert [(one["name"], one["converged"]) for one in whole["services"]] == [("web", False), ("db", True)]
    assert not whole["converged"]
    some = of_some(whole, ["db"])
    assert some["converged"] and [one["name"] for one in some["services"]] == ["db"]
    assert not of_some(whole, ["db", "web"])["converged"]
    changing = whole | {"update": {"phase": "paused", "message": "", "back": None, "services": {"web": {}}}}
    assert of_some(changing, ["db"])["update"] is None and of_some(changing, ["web"])["update"]
    over = whole | {"update": {"phase": "rolled-back", "message": "", "back": None, "services": {}}}
    assert of_some(over, ["db"])["update"], "what was gone back from may have been about these"
