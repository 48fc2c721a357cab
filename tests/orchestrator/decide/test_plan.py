"""Plans as text, and two properties: applying a plan gives exactly what is desired, and a second plan keeps it all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.wire.messages import Task
from orchestrator.compose.model import Stack
from orchestrator.decide.expand import Desired, as_it_is, expand
from orchestrator.decide.order import order
from orchestrator.decide.plan import Intent, Plan, plan
from tests.support.orchestrating import stack


def ids(start: int = 1) -> Callable[[], str]:
    numbers = count(start)
    return lambda: f"t{next(numbers)}"


def images(model: Stack) -> dict[str, str]:
    return {service.image: f"sha256:{service.image}" for service in model.services.values()}


def up(model: Stack, current: tuple[Task, ...] = (), start: int = 1, over: Mapping[str, str] | None = None) -> Plan:
    desired = expand(model, images(model))
    return plan(desired, current, Intent(), order=order(model.services), new_id=ids(start), over=over)


def act(verb: str, tasks: tuple[Task, ...], *services: str, over: Mapping[str, str] | None = None) -> Plan:
    intent = Intent(verb, frozenset(services) or None)  # type: ignore[arg-type]
    return plan(as_it_is(tasks), tasks, intent, order=(), new_id=ids(100), over=over)


WEB = {"image": "web:1", "replicas": 2, "depends_on": {"db": {}}}
DB = {"image": "db:1"}
BOTH = up(stack(web=WEB, db=DB)).tasks


PAUSED = act("pause", BOTH, "db").tasks


def changed(**fields: Any) -> Stack:
    return stack(web={**WEB, **fields}, db=DB)


@pytest.mark.parametrize(
    ("model", "current", "text"),
    [
        pytest.param(
            stack(web=WEB, db=DB),
            (),
            """
            create   db.1   new service
            create   web.1  new service
            create   web.2  new service
            """,
            id="a new stack, dependencies first",
        ),
        pytest.param(
            stack(web=WEB, db=DB),
            BOTH,
            """
            keep     db.1   unchanged
            keep     web.1  unchanged
            keep     web.2  unchanged
            """,
            id="unchanged",
        ),
        pytest.param(
            changed(environment={"A": "1"}, command=["run"]),
            BOTH,
            """
            keep     db.1   unchanged
            replace  web.1  command and environment changed
            replace  web.2  command and environment changed
            """,
            id="template changed",
        ),
        pytest.param(
            changed(stop_grace_period=3, restart={"condition": "always"}, resources={"memory": 1 << 20}),
            BOTH,
            """
            keep     db.1   unchanged
            update   web.1  restart, resources and stop grace changed
            update   web.2  restart, resources and stop grace changed
            """,
            id="policy changed, in place",
        ),
        pytest.param(
            changed(replicas=3),
            BOTH,
            """
            keep     db.1   unchanged
            keep     web.1  unchanged
            keep     web.2  unchanged
            create   web.3  scaled up from 2 to 3
            """,
            id="scaled up",
        ),
        pytest.param(
            stack(web={**WEB, "replicas": 0}, db=DB),
            BOTH,
            """
            remove   web.2  scaled down to 0
            remove   web.1  scaled down to 0
            keep     db.1   unchanged
            """,
            id="scaled to nothing, highest slot first",
        ),
        pytest.param(
            stack(web={"image": "web:1", "replicas": 2}),
            BOTH,
            """
            remove   db.1   the file no longer has this service
            update   web.1  depends on changed
            update   web.2  depends on changed
            """,
            id="service gone",
        ),
        pytest.param(
            changed(),
            act("stop", BOTH, "web").tasks,
            """
            keep     db.1   unchanged
            start    web.1  up starts what was stopped
            start    web.2  up starts what was stopped
            """,
            id="up starts what the user stopped",
        ),
        pytest.param(
            changed(resources={"cpus": 0.5}),
            act("stop", BOTH, "web").tasks,
            """
            keep     db.1   unchanged
            start    web.1  up starts what was stopped; resources changed
            start    web.2  up starts what was stopped; resources changed
            """,
            id="start, and the policy rides along",
        ),
    ],
)
def test_up(model: Stack, current: tuple[Task, ...], text: str) -> None:
    assert up(model, current, start=50).text() == "\n".join(line.strip() for line in text.strip().splitlines())


@pytest.mark.parametrize(
    ("verb", "services", "before", "text"),
    [
        ("stop", (), BOTH, ["stop     db.1   stop was asked for", "stop     web.1  stop was asked for"]),
        ("stop", ("db",), BOTH, ["stop     db.1   stop was asked for", "keep     web.1  unchanged"]),
        ("start", (), BOTH, ["keep     db.1   unchanged", "keep     web.1  unchanged"]),
        ("restart", ("web",), BOTH, ["keep     db.1   unchanged", "restart  web.1  restart was asked for"]),
        ("recreate", ("db",), BOTH, ["replace  db.1   recreate was asked for", "keep     web.1  unchanged"]),
        ("pause", ("db",), BOTH, ["pause    db.1   pause was asked for", "keep     web.1  unchanged"]),
        ("pause", ("db",), act("stop", BOTH, "db").tasks, ["keep     db.1   unchanged", "keep     web.1  unchanged"]),
        ("unpause", (), PAUSED, ["unpause  db.1   unpause resumes what was paused", "keep     web.1  unchanged"]),
        ("unpause", ("db",), act("stop", BOTH, "db").tasks, ["keep     db.1   unchanged", "keep     web.1  unchanged"]),
        ("start", ("db",), PAUSED, ["unpause  db.1   start resumes what was paused", "keep     web.1  unchanged"]),
        ("restart", ("db",), PAUSED, ["restart  db.1   restart was asked for", "keep     web.1  unchanged"]),
        ("stop", ("db",), PAUSED, ["stop     db.1   stop was asked for", "keep     web.1  unchanged"]),
        (
            "restart",
            (),
            act("stop", BOTH).tasks,
            ["start    db.1   restart starts what was stopped", "start    web.1  restart starts what was stopped"],
        ),
    ],
    ids=[
        *(
            "stop all",
            "stop one",
            "start what runs",
            "restart one",
            "recreate one",
            "pause one",
            "pause what is stopped",
        ),
        *("unpause all", "unpause what is stopped", "start a paused one", "restart a paused one", "stop a paused one"),
        "restart what is stopped",
    ],
)
def test_verbs(verb: str, services: tuple[str, ...], before: tuple[Task, ...], text: list[str]) -> None:
    assert act(verb, before, *services).text().splitlines()[:2] == text


def test_restart_raises_the_request_and_keeps_the_task() -> None:
    after = {task.id: task for task in act("restart", BOTH, "web").tasks}
    assert [after[t.id].restart_request for t in BOTH] == [0, 1, 1]
    twice = act("restart", tuple(after.values()), "web").tasks
    assert [t.restart_request for t in twice] == [0, 2, 2]


def test_recreate_makes_a_new_task_of_the_same_template() -> None:
    after = act("recreate", BOTH, "db").tasks
    assert after[0].id != BOTH[0].id
    assert after[0].model_copy(update={"id": BOTH[0].id, "lineage": ""}) == BOTH[0]


def test_the_tasks_of_a_slot_are_of_one_lineage() -> None:
    first = BOTH[0]
    again = act("recreate", act("recreate", BOTH, "db").tasks, "db").tasks
    updated = up(changed(command=["x"]), again, start=50).tasks
    assert first.lineage == "" and {task.lineage for task in (again[0], updated[0])} == {first.id}


def test_a_stopped_task_that_is_replaced_or_scaled_stays_stopped_except_by_up() -> None:
    stopped = act("stop", BOTH).tasks
    assert {task.desired for task in act("recreate", stopped).tasks} == {"stopped"}
    assert {task.desired for task in up(changed(command=["x"]), stopped, start=50).tasks} == {"running"}


@pytest.mark.parametrize(
    ("verb", "over", "kinds"),
    [
        ("up", "failed", ["keep", "start", "keep"]),
        ("up", "completed", ["keep", "keep", "keep"]),
        ("start", "completed", ["keep", "start", "keep"]),
        ("start", "failed", ["keep", "start", "keep"]),
        ("stop", "failed", ["stop", "stop", "stop"]),
        ("scale", "failed", ["keep", "keep", "keep"]),
    ],
)
def test_what_ended_by_itself(verb: str, over: str, kinds: list[str]) -> None:
    ended = {BOTH[1].id: over}
    planned = up(changed(), BOTH, over=ended) if verb == "up" else act(verb, BOTH, over=ended)
    assert [action.kind for action in planned.actions] == kinds
    started = {action.task.id: action.task for action in planned.actions if action.task and action.kind == "start"}
    assert all(task.restart_request == 1 for task in started.values())


SERVICE = st.fixed_dictionaries(
    {
        "image": st.sampled_from(["a:1", "b:1"]),
        "replicas": st.integers(0, 4),
        "environment": st.dictionaries(st.sampled_from("XY"), st.sampled_from("12"), max_size=1),
        "stop_grace_period": st.sampled_from([None, 1.0, 2.0]),
    }
)
MODEL = st.dictionaries(st.sampled_from(["web", "db", "job"]), SERVICE, max_size=3).map(
    lambda services: Stack.model_validate({"name": "shop", "services": services})
)


def wanted(desired: Mapping[str, Desired]) -> set[tuple[object, ...]]:
    return {
        (name, slot, want.template, want.policy.model_dump_json())
        for name, want in desired.items()
        for slot in range(1, want.replicas + 1)
    }


@given(before=MODEL, verb=st.sampled_from(["stop", "restart", "recreate", "start", "pause", "unpause"]), after=MODEL)
def test_applying_the_plan_gives_exactly_what_is_desired(before: Stack, verb: str, after: Stack) -> None:
    first = act(verb, up(before).tasks).tasks
    planned = up(after, first, start=1000)
    got = planned.tasks
    desired = expand(after, images(after))
    assert {(t.service, t.slot, t.template, t.policy.model_dump_json()) for t in got} == wanted(desired)
    assert all(task.desired == "running" for task in got)
    assert len({task.id for task in got}) == len({(task.service, task.slot) for task in got}) == len(got)
    kept = {task.id: task for task in first}
    for task in got:  # the same id means the same container
        assert task.id not in kept or kept[task.id].container == task.container
    same = {(t.service, t.slot, t.template): t.id for t in first}
    for task in got:  # and what need not be replaced is not
        assert same.get((task.service, task.slot, task.template), task.id) == task.id


@given(before=MODEL, after=MODEL)
def test_a_second_plan_keeps_everything(before: Stack, after: Stack) -> None:
    got = up(after, up(before).tasks, start=1000).tasks
    again = up(after, got, start=2000)
    assert not again.changes
    assert again.tasks == got


@given(model=MODEL)
def test_a_plan_prints_the_same_every_time(model: Stack) -> None:
    assert up(model).text() == up(model).text()
