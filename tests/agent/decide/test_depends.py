"""Gates of depends_on, and who must stop first."""

import pytest

from agent.decide.depends import gate, holders
from agent.decide.health import HealthState
from agent.decide.record import Ending, TaskRecord
from agent.wire.messages import Dependency
from tests.agent.decide.make import BOOT, NOW, record

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
