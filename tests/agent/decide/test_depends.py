"""Gates of depends_on, and who must stop first."""

import pytest

from agent.decide.depends import first_of_all, gate, holders, renewed, upstream
from agent.decide.health import HealthState
from agent.decide.record import Ending, TaskRecord
from agent.wire.messages import Dependency, Hook
from tests.agent.decide.make import BOOT, NOW, record, task

HEALTHY, STARTING = HealthState("healthy"), HealthState("starting")


def db(state: str = "running", slot: int = 1, **fields: object) -> TaskRecord:
    return record(f"d{slot}", "db", state=state, slot=slot, **fields)


def need(condition: str = "service_started", *, required: bool = True) -> Dependency:
    return Dependency.model_validate({"service": "db", "condition": condition, "required": required})


@pytest.mark.parametrize(
    ("dependency", "records", "message"),
    [
        pytest.param(need(), [db()], "", id="started: it runs"),
        pytest.param(need(), [db("pending")], "db to start (it is pending)", id="started: not yet"),
        pytest.param(need(), [db("completed", started_at=NOW)], "", id="started: it did, and has completed"),
        pytest.param(need(), [db("backoff", started_at=NOW)], "", id="started: it did, and crashed"),
        pytest.param(
            need(),
            [db("backoff", started_at=NOW, boot="old")],
            "db to start (it is backoff)",
            id="started: before this boot",
        ),
        pytest.param(need("service_healthy"), [db(health=HEALTHY)], "", id="healthy"),
        pytest.param(
            need("service_healthy"),
            [db(health=STARTING)],
            "db to become healthy (it is starting)",
            id="healthy: not yet",
        ),
        pytest.param(
            need("service_healthy"), [db()], "db to become healthy, but it has no healthcheck", id="unchecked"
        ),
        pytest.param(
            need("service_healthy"), [db("backoff")], "db to become healthy (it is backoff)", id="healthy: it crashed"
        ),
        pytest.param(need("service_completed_successfully"), [db("completed")], "", id="completed"),
        pytest.param(
            need("service_completed_successfully"),
            [db("failed")],
            "db to complete (it is failed)",
            id="completed: it failed",
        ),
        pytest.param(need(), [db(), db("pending", 2)], "db.2 to start (it is pending)", id="all its tasks must"),
        pytest.param(
            need(),
            [db(greeting=True)],
            "db to start (its post_start commands run)",
            id="started: not ready for anybody",
        ),
        pytest.param(
            need("service_healthy"),
            [db(health=HEALTHY, greeting=True)],
            "db to become healthy (its post_start commands run)",
            id="healthy: not ready for anybody",
        ),
        pytest.param(
            need("service_healthy"),
            [db(health=HEALTHY, boot="old")],
            "db to be looked at after the boot",
            id="healthy: before this boot",
        ),
        pytest.param(need(), [db(boot="old")], "db to be looked at after the boot", id="started: it ran before"),
        pytest.param(
            need("service_completed_successfully"),
            [db("completed", boot="old")],
            "db to be looked at after the boot",
            id="completed: before this boot",
        ),
        pytest.param(
            need(required=False), [db(boot="old")], "db to be looked at after the boot", id="optional: it ran before"
        ),
        pytest.param(
            need(required=False), [db("stopped", boot="old")], "", id="optional: it was stopped before this boot"
        ),
        pytest.param(need(), [], "", id="scaled to 0"),
        pytest.param(need(), None, "db, which the stack does not have", id="no such service"),
        pytest.param(need(required=False), None, "", id="optional: no such service"),
        pytest.param(need("service_healthy", required=False), [db("failed")], "", id="optional: it has failed"),
        pytest.param(
            need("service_healthy", required=False),
            [db("pending")],
            "db to become healthy (it is pending)",
            id="optional: there is hope",
        ),
        pytest.param(
            need("service_healthy", required=False),
            [db(health=HealthState("unhealthy"))],
            "",
            id="optional: it is sick",
        ),
    ],
)
def test_gate(dependency: Dependency, records: list[TaskRecord] | None, message: str) -> None:
    found = gate([dependency], {} if records is None else {"db": records}, BOOT)
    assert (found.open, found.message) == (not message, f"waiting for {message}" if message else "")


def test_every_missing_dependency_is_named() -> None:
    needs = [need(), Dependency(service="queue")]
    queue = record("q1", "queue", state="pending")
    found = gate(needs, {"db": [db("pending")], "queue": [queue]}, BOOT)
    assert found.message == "waiting for db to start (it is pending); queue to start (it is pending)"


def goes(id_: str, service: str, *needs: str, state: str = "running") -> TaskRecord:
    return record(id_, service, state=state, ending=Ending(needs=needs))


def test_a_dependency_stops_after_its_dependents() -> None:
    web, database = goes("w", "web", "db"), goes("d", "db")
    assert holders(database, [web, database]) == ("web",)
    assert holders(web, [web, database]) == ()


def test_who_stays_holds_nobody() -> None:
    assert holders(goes("d", "db"), [goes("d", "db")]) == ()


@pytest.mark.parametrize("state", ["stopped", "completed", "failed", "backoff", "pending"])
def test_who_does_not_run_holds_nobody(state: str) -> None:
    assert holders(goes("d", "db"), [goes("w", "web", "db", state=state)]) == ()


def test_a_cycle_does_not_hold_for_ever() -> None:
    one, other = goes("a", "a", "b"), goes("b", "b", "a")
    assert holders(one, [one, other]) == holders(other, [one, other]) == ()


def _e(slot: int, **fields: object) -> TaskRecord:
    return record(f"e{slot}", "db", state="running", slot=slot, **fields)


FOLLOW = Dependency(service="db", restart=True)
SICK = Dependency(service="db", restart=True, condition="service_healthy")
BOUND = {"db.1": "d1/0", "db.2": "d2/0"}


@pytest.mark.parametrize(
    ("need", "now", "records", "service"),
    [
        pytest.param(FOLLOW, ["d1/0", "d2/0"], [db(), db(slot=2)], "", id="nothing happened"),
        pytest.param(FOLLOW, ["d1/0", "d2/0"], [db(attempt=9), db(slot=2)], "", id="it crashed"),
        pytest.param(FOLLOW, ["d1/1", "d2/0"], [db(restart_request=1), db(slot=2)], "", id="one of two was restarted"),
        pytest.param(
            FOLLOW, ["d1/1", "d2/1"], [db(restart_request=1), db(slot=2, restart_request=1)], "db", id="all were"
        ),
        pytest.param(FOLLOW, ["d1/1", "d2/1"], [db(restart_request=1), db(slot=2)], "", id="one has yet to begin"),
        pytest.param(
            FOLLOW,
            ["d1/1", "d2/1"],
            [db("stopping", restart_request=1), db(slot=2, restart_request=1)],
            "",
            id="one is about to",
        ),
        pytest.param(FOLLOW, ["e1/0", "e2/0"], [_e(1), _e(2)], "db", id="both were replaced"),
        pytest.param(FOLLOW, ["e1/0"], [_e(1)], "db", id="replaced, and scaled down"),
        pytest.param(SICK, ["e1/0", "e2/0"], [_e(1, health=HEALTHY), _e(2, health=STARTING)], "", id="not healthy yet"),
        pytest.param(SICK, ["e1/0", "e2/0"], [_e(1, health=HEALTHY), _e(2, health=HEALTHY)], "db", id="healthy"),
        pytest.param(Dependency(service="db"), ["e1/0", "e2/0"], [_e(1), _e(2)], "", id="not to be followed"),
    ],
)
def test_a_restart_is_followed(need: Dependency, now: list[str], records: list[TaskRecord], service: str) -> None:
    asked = [entry.split("/") for entry in now]
    tasks = [task(id_, "db", slot, restart_request=int(count)) for slot, (id_, count) in enumerate(asked, 1)]
    assert renewed([need], BOUND, {"db": tasks}, {"db": records}, BOOT) == service


def test_what_is_followed_is_told_by_task_and_request() -> None:
    tasks = [task("d1", "db", restart_request=3), task("d2", "db", 2)]
    assert upstream([FOLLOW], {"db": tasks}) == {"db.1": "d1/3", "db.2": "d2/0"}
    assert upstream([need()], {"db": tasks}) == {} == upstream([FOLLOW], {})
    assert renewed([FOLLOW], {}, {"db": tasks}, {"db": [db(), db(slot=2)]}, BOOT) == ""


@pytest.mark.parametrize(
    ("slot", "per_replica", "primed", "held"),
    [(1, False, False, False), (2, False, False, True), (2, True, False, False), (2, False, True, False)],
)
def test_pre_start_once_for_all(slot: int, per_replica: bool, primed: bool, held: bool) -> None:
    hook = Hook(command=("migrate",), per_replica=per_replica)
    found = first_of_all(task("d2", "db", slot, container={"pre_start": (hook,)}), [db("starting", primed=primed)])
    assert found.open is not held
    assert ("pre_start commands of db.1 (it is starting)" in found.message) == held
