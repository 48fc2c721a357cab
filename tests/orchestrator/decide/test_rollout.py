"""Rollouts step by step as tables, then as a state machine over every report an agent could send."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agent.wire.messages import ContainerSpec, Task, TaskStatus
from orchestrator.compose.model import LockedImage, Stack
from orchestrator.decide import rollout as r
from orchestrator.decide.records import Rollout
from orchestrator.decide.update import Order, Settings, settings

NOW = 1000.0
START, STOP = Settings("start-first", "free"), Settings("stop-first", "held")
ROLL = {"failure_action": "rollback"}


def task(id: str, slot: int = 1, template: str = "old", service: str = "web", **fields: Any) -> Task:
    container = ContainerSpec(image="web:1", image_id="sha256:1")
    return Task(id=id, service=service, slot=slot, template=template, container=container, **fields)


def status(of: Task, state: str = "running", health: str = "healthy", **fields: Any) -> TaskStatus:
    return TaskStatus.model_validate(
        {
            **{"id": of.id, "service": of.service, "slot": of.slot, "template": of.template, "state": state},
            **{"health": health if state == "running" else "none", "started_at": NOW - 100, "attempt": 1},
            **{"restart_request": of.restart_request, **fields},
        }
    )


def told(*statuses: TaskStatus) -> dict[str, TaskStatus]:
    return {one.id: one for one in statuses}


OLD = tuple(task(f"a{slot}", slot) for slot in (1, 2, 3))
NEW = tuple(task(f"b{slot}", slot, "new") for slot in (1, 2, 3))
UP = told(*map(status, OLD))


def shown(tasks: Sequence[Task]) -> str:
    return " ".join(f"{task.id}" + (f"|{task.beside}" if task.beside else "") for task in tasks)


def step(
    how: Settings,
    tasks: Sequence[Task] = OLD,
    statuses: Mapping[str, TaskStatus] = UP,
    now: float = NOW,
    goal: Sequence[Task] = NEW,
    **fields: Any,
) -> r.Step:
    moved = tuple(task.id for task in goal)
    return r.step(Rollout(tuple(goal), moved, **fields), tasks, statuses, {"web": how}, {}, now)


@pytest.mark.parametrize(
    ("how", "tasks", "reports", "after"),
    [
        pytest.param(START, OLD, UP, "a1 b1|a1 a2 a3", id="start-first: the new one beside the old"),
        pytest.param(STOP, OLD, UP, "b1 a2 a3", id="stop-first: the new one in its place"),
        pytest.param(Settings("stop-first", parallelism=2), OLD, UP, "b1 b2 a3", id="two at a time"),
        pytest.param(Settings("start-first", parallelism=0), OLD, UP, "a1 b1|a1 a2 b2|a2 a3 b3|a3", id="all at a time"),
        pytest.param(START, OLD, {}, "b1 b2 b3", id="what does not answer has nothing to lose"),
        pytest.param(
            START,
            OLD,
            told(status(OLD[0]), status(OLD[1]), status(OLD[2], "backoff")),
            "a1 a2 b3",
            id="the broken one first",
        ),
        pytest.param(
            START,
            (OLD[0], NEW[0].model_copy(update={"beside": "a1"}), *OLD[1:]),
            UP | told(status(NEW[0], health="starting")),
            "a1 b1|a1 a2 a3",
            id="the old one stays until the new one is healthy",
        ),
        pytest.param(
            START,
            (OLD[0], NEW[0].model_copy(update={"beside": "a1"}), *OLD[1:]),
            UP | told(status(NEW[0])),
            "b1|a1 a2 b2|a2 a3",
            id="then it goes, and the next begins",
        ),
        pytest.param(
            START,
            (OLD[0], NEW[0].model_copy(update={"beside": "a1"}), *OLD[1:]),
            UP | told(status(NEW[0], health="none", started_at=NOW - 0.5)),
            "a1 b1|a1 a2 a3",
            id="unchecked: not before it has run a second",
        ),
        pytest.param(
            Settings("start-first", monitor=30.0),
            (OLD[0], NEW[0].model_copy(update={"beside": "a1"}), *OLD[1:]),
            UP | told(status(NEW[0], started_at=NOW - 20)),
            "a1 b1|a1 a2 a3",
            id="monitor: healthy, but not for long enough",
        ),
        pytest.param(
            START, OLD, told(*(status(old, "completed") for old in OLD)), "b1 b2 b3", id="jobs that are done give way"
        ),
    ],
)
def test_one_step(how: Settings, tasks: Sequence[Task], reports: Mapping[str, TaskStatus], after: str) -> None:
    assert shown(step(how, tasks, reports).tasks) == after


def test_it_says_when_to_look_again() -> None:
    tasks = (OLD[0], NEW[0].model_copy(update={"beside": "a1"}), *OLD[1:])
    found = step(START, tasks, UP | told(status(NEW[0], health="none", started_at=NOW - 0.5)))
    assert found.again == NOW + 0.5


def test_delay_is_counted_from_when_the_batch_was_done_and_survives_a_restart() -> None:
    how = Settings("stop-first", delay=10.0)
    tasks, reports = (NEW[0], *OLD[1:]), UP | told(status(NEW[0]))
    first = step(how, tasks, reports)
    assert (shown(first.tasks), first.again) == ("b1 a2 a3", NOW + 10)
    assert first.rollout is not None
    later = r.step(first.rollout, tasks, reports, {"web": how}, {}, NOW + 10)
    assert shown(later.tasks) == "b1 b2 a3"


FAILED = UP | told(status(NEW[0], "backoff", message="exit 1"))
BESIDE = (OLD[0], NEW[0].model_copy(update={"beside": "a1"}), *OLD[1:])


@pytest.mark.parametrize(
    ("fields", "back", "expected"),
    [
        pytest.param(ROLL, 4, ("updating", True, "a1 b1|a1 a2 a3"), id="rollback"),
        pytest.param(ROLL, None, ("paused", False, "a1 b1|a1 a2 a3"), id="nothing to go back to: pause"),
        pytest.param({"failure_action": "pause"}, 4, ("paused", False, "a1 b1|a1 a2 a3"), id="pause"),
        pytest.param({"failure_action": "continue"}, 4, ("updating", False, "a1 b1|a1 a2 b2|a2 a3"), id="continue"),
        pytest.param(
            {**ROLL, "ratio": 0.4}, 4, ("updating", False, "a1 b1|a1 a2 b2|a2 a3"), id="one of three may fail"
        ),
        pytest.param({**ROLL, "ratio": 0.3}, 4, ("updating", True, "a1 b1|a1 a2 a3"), id="one of three may not"),
    ],
)
def test_a_failure(fields: dict[str, Any], back: int | None, expected: tuple[str, bool, str]) -> None:
    found = step(Settings("start-first", **fields), BESIDE, FAILED, back=back)
    assert found.rollout is not None
    assert (found.rollout.phase, found.back, shown(found.tasks)) == expected
    assert next((act.kind, act.message) for act in found.acts) == ("failed", "exit 1")
    if found.back or found.rollout.phase == "paused":
        assert found.rollout.message == "web.1 failed: exit 1"


@pytest.mark.parametrize("reason", ["interrupted", "waiting", "slot-busy", "network-awaited", "mount-missing"])
def test_a_start_that_the_end_of_agent_or_host_interrupted_is_no_failure(reason: str) -> None:
    reports = UP | told(status(NEW[0], "backoff", reason=reason))
    found = step(Settings("start-first", failure_action="rollback"), BESIDE, reports, back=4)
    assert not found.back and shown(found.tasks) == "a1 b1|a1 a2 a3" and found.acts == ()


JOB = Settings("stop-first", "a job", failure_action="rollback", job=True)


@pytest.mark.parametrize(
    ("reports", "phase", "after"),
    [
        pytest.param(told(*(status(old, "completed") for old in OLD)), "updating", "b1 b2 b3", id="done: begun anew"),
        pytest.param(told(*(status(old, health="none") for old in OLD)), "updating", "b1 b2 b3", id="all at once"),
        pytest.param(told(*(status(new, health="none") for new in NEW)), "updating", "b1 b2 b3", id="not over yet"),
        pytest.param(
            told(*(status(new, "backoff", failures=4) for new in NEW)), "updating", "b1 b2 b3", id="tried again"
        ),
        pytest.param(told(*(status(new, "completed") for new in NEW)), None, "b1 b2 b3", id="over"),
    ],
)
def test_a_changed_job(reports: Mapping[str, TaskStatus], phase: str | None, after: str) -> None:
    tasks = OLD if "a1" in reports else NEW
    found = step(JOB, tasks, reports, back=4)
    assert (found.rollout.phase if found.rollout else None, shown(found.tasks), found.back) == (phase, after, False)


@pytest.mark.parametrize(
    "bad", [status(NEW[0], "failed", message="exit 1"), status(NEW[0], "backoff", failures=5, message="exit 1")]
)
def test_a_job_that_does_not_succeed_goes_back(bad: TaskStatus) -> None:
    found = step(JOB, NEW, told(bad, *(status(new, "completed") for new in NEW[1:])), back=4)
    assert found.back and found.rollout is not None and found.rollout.message == "web.1 failed: exit 1"


def test_what_was_paused_ends_when_it_gets_well() -> None:
    found = step(Settings("start-first", failure_action="pause"), (OLD[0], BESIDE[1]), FAILED, goal=NEW[:1])
    assert found.rollout is not None and found.rollout.phase == "paused"
    well = r.step(found.rollout, found.tasks, UP | told(status(NEW[0])), {"web": START}, {}, NOW)
    assert shown(well.tasks) == "b1|a1"
    over = r.step(well.rollout or found.rollout, well.tasks, told(status(NEW[0])), {"web": START}, {}, NOW)
    assert over.rollout is None


def test_a_service_waits_for_those_that_it_depends_on() -> None:
    old, new = (task("d1", service="db"), OLD[0]), (task("d2", 1, "new", "db"), NEW[0])
    reports, how = told(*map(status, old)), {"web": START, "db": STOP}
    goal = Rollout(new, ("d2", "b1"))
    first = r.step(goal, old, reports, how, {"web": ["db"]}, NOW)
    assert shown(first.tasks) == "d2 a1"
    then = r.step(goal, first.tasks, reports | told(status(new[0])), how, {"web": ["db"]}, NOW)
    assert shown(then.tasks) == "d2 a1 b1|a1"


def test_what_is_overtaken_in_the_middle_goes_if_it_was_not_ready() -> None:
    last = task("c1", 1, "newer")
    goal = r.begin((last, *OLD[1:]), BESIDE, Rollout(NEW, ("b1", "b2", "b3")), None)
    assert goal.moved == ("c1",)
    found = r.step(goal, BESIDE, UP | told(status(NEW[0], "starting")), {"web": START}, {}, NOW)
    assert shown(found.tasks) == "a1 c1|a1 a2 a3"


def test_the_way_back_keeps_what_still_runs() -> None:
    assert r.basis(NEW, BESIDE, {"web": "old"}) == OLD
    assert r.basis(NEW, BESIDE, {"web": "newer"}) == NEW
    goal = r.begin((OLD[0], *OLD[1:]), BESIDE, None, None)
    assert goal.moved == ()


def test_on_the_way_back_what_serves_goes_after_the_old_one_serves() -> None:
    goal = Rollout(OLD, (), "rolling-back", message="why")
    reports = UP | told(status(OLD[0], "starting"), status(NEW[0]))
    found = r.step(goal, BESIDE, reports, {"web": START}, {}, NOW)
    assert found.rollout is not None and shown(found.tasks) == "a1 b1|a1 a2 a3"
    found = r.step(found.rollout, found.tasks, reports | told(status(OLD[0])), {"web": START}, {}, NOW)
    assert shown(found.tasks) == "a1 a2 a3"


def test_a_lost_rollout_is_known_by_two_tasks_in_a_slot() -> None:
    found = r.resumed(BESIDE)
    assert found is not None and (shown(found.target), found.moved) == ("b1|a1 a2 a3", ("b1",))
    assert r.resumed(OLD) is None


def _order(images: Sequence[str] = (), **service: Any) -> tuple[str, str]:
    stack = Stack.model_validate({"name": "shop", "services": {"web": {"image": "web:1", **service}}})
    stack = stack.model_copy(update={"images": {"web:1": LockedImage(id="x", volumes=tuple(images))}})
    found = settings(stack)["web"]
    return found.order, found.why


@pytest.mark.parametrize(
    ("service", "images", "order", "why"),
    [
        ({}, (), "start-first", "nothing forbids that old and new run side by side"),
        (
            {"mounts": [{"type": "volume", "source": "d", "target": "/d"}]},
            (),
            "stop-first",
            "both would write to the volume d",
        ),
        (
            {"mounts": [{"type": "bind", "source": "/d", "target": "/d"}]},
            (),
            "stop-first",
            "both would write to the directory /d",
        ),
        (
            {"mounts": [{"type": "bind", "source": "/d", "target": "/d", "read_only": True}]},
            (),
            "start-first",
            "nothing forbids",
        ),
        ({"mounts": [{"type": "tmpfs", "target": "/d"}]}, ["/d"], "start-first", "nothing forbids"),
        ({}, ["/data"], "stop-first", "both would write to the image's volume /data"),
        ({"naming": {"container": "x"}}, (), "stop-first", "container_name gives the name x"),
        ({"network_mode": "host"}, (), "stop-first", "both would open the same ports, for network_mode is host"),
        ({"network_mode": "service:x"}, (), "stop-first", "both would open the same ports"),
        ({"network_mode": "none"}, (), "start-first", "nothing forbids"),
        ({"networks": {"n": {"addresses": ["10.9.0.2"]}}}, (), "stop-first", "the address 10.9.0.2 belongs to one"),
        ({"volumes_from": [{"service": "db"}]}, (), "stop-first", "both would write to the volumes of db"),
        ({"ports": [{"target": 80, "published": 8080}]}, (), "start-first", "nothing forbids"),
        (
            {"ports": [{"target": 80, "published": 8080, "mode": "host"}]},
            (),
            "stop-first",
            "port 8080 is in mode host, and belongs to one container at a time",
        ),
        ({"ports": [{"target": 80, "mode": "host"}]}, (), "stop-first", "port 80 is in mode host"),
        ({"job": True}, (), "stop-first", "a job is begun anew"),
        ({"update": {"order": "start-first"}}, (), "start-first", "the file says so"),
        ({"update": {"order": "stop-first"}, "naming": {"container": "x"}}, (), "stop-first", "the file says so"),
        (
            {"update": {"order": "start-first"}, "ports": [{"target": 80, "mode": "host"}]},
            (),
            "start-first",
            "the file says so, though port 80 is in mode host, and belongs to one container at a time",
        ),
    ],
    ids=str,
)
def test_the_order_and_its_reason(service: dict[str, Any], images: Sequence[str], order: str, why: str) -> None:
    found = _order(images, **service)
    assert found[0] == order and found[1].startswith(why)
    assert ("though" in found[1]) == ("though" in why)


def test_a_failed_update_goes_back_and_a_failed_way_back_stops() -> None:
    stack = Stack.model_validate({"name": "shop", "services": {"web": {"image": "web:1"}}})
    assert settings(stack)["web"].failure_action == "rollback"
    assert settings(stack, back=True)["web"].failure_action == "pause"


# The state machine ------------------------------------------------------------------------------------------------


class Rolling(RuleBasedStateMachine):
    """An agent that reports anything, in any order; the orchestrator may be away for as long as it likes between."""

    @initialize(
        order=st.sampled_from(["start-first", "stop-first"]),
        replicas=st.integers(1, 5),
        parallelism=st.integers(0, 3),
        ratio=st.sampled_from([0.0, 0.3]),
        action=st.sampled_from(["continue", "pause", "rollback"]),
    )
    def begin(self, order: Order, replicas: int, parallelism: int, ratio: float, action: Any) -> None:
        self.how = Settings(order, "", parallelism, failure_action=action, ratio=ratio)
        self.tasks: tuple[Task, ...] = tuple(task(f"a{slot}", slot) for slot in range(1, replicas + 1))
        self.old = self.tasks
        self.statuses = told(*map(status, self.tasks))
        self.ids = itertools.count()
        self.now = NOW
        self.goal: Rollout | None = None
        self.back = False

    def ready(self, tasks: Sequence[Task]) -> set[str]:
        return {
            t.id
            for t in tasks
            if self.statuses.get(t.id, status(t, "pending")).state == "running" and r_ready(t, self.statuses)
        }

    @precondition(lambda self: self.goal is None)
    @rule()
    def update(self) -> None:
        slots = [t.slot for t in self.tasks]
        target = [task(f"n{next(self.ids)}", slot, f"t{next(self.ids)}") for slot in slots]
        self.old = self.tasks
        self.goal = r.begin(target, self.tasks, None, 1)
        self.advance()

    @precondition(lambda self: self.goal is not None)
    @rule(data=st.data())
    def report(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from(self.tasks))
        state = data.draw(st.sampled_from(["pending", "starting", "running", "running", "backoff", "failed"]))
        health = data.draw(st.sampled_from(["starting", "healthy", "unhealthy", "none"]))
        self.statuses[one.id] = status(one, state, health, started_at=self.now)

    @precondition(lambda self: self.goal is not None)
    @rule(seconds=st.floats(0, 5))
    def advance(self, seconds: float = 0.0) -> None:
        assert self.goal is not None
        self.now += seconds
        before, had = self.tasks, self.ready(self.tasks)
        found = r.step(self.goal, before, self.statuses, {"web": self.how}, {}, self.now)
        lost = had - {t.id for t in found.tasks}
        covered = {t.slot for t in found.tasks if t.id in self.ready(found.tasks)}
        bare = {t.slot for t in before if t.id in lost} - covered
        most = 0 if self.how.order == "start-first" else self.how.parallelism or len(self.old)
        assert len(bare) <= most, (bare, "ready ones were taken away, more than the order allows")
        if bare:
            begun = {t.id for t in before} & set(self.goal.moved)
            assert begun <= self.ready(before) | set(found.rollout.failed if found.rollout else begun)
        assert all(act.message for act in found.acts)
        self.tasks, self.goal = found.tasks, found.rollout
        if found.back:
            assert self.goal is not None and self.goal.message and self.goal.failed
            self.restore()

    def restore(self) -> None:
        """The old revision again, as the orchestrator plans it: by template."""
        assert self.goal is not None
        templates = {old.slot: old.template for old in self.old}
        target = []
        for one in self.goal.target:
            mates = [t for t in self.tasks if t.slot == one.slot and t.template == templates[one.slot]]
            target.append(mates[0] if mates else task(f"r{next(self.ids)}", one.slot, templates[one.slot]))
        fresh = r.begin(target, self.tasks, None, None)
        self.goal = Rollout(fresh.target, fresh.moved, "rolling-back", message="why")
        self.advance()

    @precondition(lambda self: self.goal is not None and self.goal.phase == "rolled-back")
    @rule()
    def restored_exactly(self) -> None:
        assert [(t.slot, t.template) for t in self.tasks] == [(t.slot, t.template) for t in self.old]
        self.goal = None

    @precondition(lambda self: self.goal is not None and self.goal.phase == "paused")
    @rule()
    def given_up(self) -> None:
        """Somebody says `up` again."""
        assert self.goal is not None
        self.goal = r.begin(self.goal.target, self.tasks, self.goal, 1)

    @precondition(lambda self: self.goal is not None and self.goal.phase in ("updating", "rolling-back"))
    @rule()
    def it_ends_in_bounded_steps(self) -> None:
        """If from now on everything becomes well."""
        assert self.goal is not None
        goal, tasks, reports = self.goal, self.tasks, dict(self.statuses)
        for _ in range(4 * len(self.old) + 4):
            reports |= told(*(status(t) for t in tasks if t.id not in goal.failed))
            found = r.step(goal, tasks, reports, {"web": self.how}, {}, self.now + 1000)
            if found.rollout is None or found.back or found.rollout.phase in ("paused", "rolled-back"):
                return
            goal, tasks = found.rollout, found.tasks
        raise AssertionError(f"no end: {shown(tasks)} {goal}")

    @invariant()
    def two_of_a_slot_only_side_by_side(self) -> None:
        for slot in {t.slot for t in getattr(self, "tasks", ())}:
            mates = [t for t in self.tasks if t.slot == slot]
            assert len(mates) <= 2
            if len(mates) == 2:
                assert self.how.order == "start-first"
                assert (mates[0].beside == mates[1].id) != (mates[1].beside == mates[0].id)


def r_ready(one: Task, statuses: Mapping[str, TaskStatus]) -> bool:
    from orchestrator.decide.turn import ready

    return ready(one, statuses.get(one.id))


Rolling.TestCase.settings = hypothesis_settings(max_examples=150, stateful_step_count=30, deadline=None)
TestRolling = Rolling.TestCase
