"""Records on disk, in public, and how a task is to be stopped."""

import signal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.decide.endpoints import leaves, ready, serves
from agent.decide.health import HealthState
from agent.decide.record import Stop, TaskRecord, dump, ending, load, signal_number, status
from agent.ports import Exit, ImageConfig, Serving
from agent.wire.messages import Dependency, Resources, Restart
from tests.agent.decide.make import NOW, PORT, allocation, record, task

evidence = st.dictionaries(st.text(), st.text() | st.integers() | st.none() | st.lists(st.text()))
finite = st.floats(0, 2e9)


@given(
    evidence=evidence,
    since=finite,
    until=st.none() | finite,
    state=st.sampled_from(["pending", "running", "stopping", "backoff", "failed"]),
    stop=st.none() | st.builds(Stop, st.sampled_from(["stopped", "removed"]), st.none() | finite, finite),
    exit_=st.none()
    | st.builds(Exit, st.none() | st.integers(0, 255), st.none() | st.integers(1, 64), st.booleans(), finite),
    message=st.text(),
)
def test_every_record_survives_the_journal(state: str, exit_: Exit | None, **fields: Any) -> None:
    made = record(state=state, exit=exit_, policy=Restart(max_attempts=3), health=HealthState("healthy", 2), **fields)
    assert isinstance(made, TaskRecord) and load(dump(made)) == made


def test_a_record_of_another_version_is_read_as_far_as_it_is_understood() -> None:
    made = record(state="backoff", until=NOW, stop=Stop("backoff", NOW), exit=Exit(1, None, False, NOW))
    document = dump(made)
    assert load(document[:-1] + ', "new_field": 1}') == made
    with pytest.raises(ValueError, match="validation error"):
        load("{}")


def test_the_public_face() -> None:
    shown = status(
        record(
            state="running",
            health=HealthState("healthy"),
            allocation=allocation(ports=(PORT,)),
            resources=Resources(memory=1),
            policy=Restart(),
            exit=Exit(137, 9, True, NOW),
        )
    )
    assert (shown.state, shown.health, shown.pid, shown.address) == ("running", "healthy", 100, "10.181.0.16")
    assert (shown.exit_code, shown.oom, shown.ports, shown.next_at) == (137, True, (PORT,), None)
    waiting = status(record(state="backoff", until=NOW, health=HealthState("healthy")))
    assert (waiting.next_at, waiting.pid, waiting.health) == (NOW, None, "none")


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("SIGTERM", 15),
        ("term", 15),
        ("9", 9),
        ("SIGRTMIN", int(signal.SIGRTMIN)),
        ("SIGRTMIN+3", int(signal.SIGRTMIN) + 3),
        ("SIGRTMIN+99", None),
        ("TERM+1", None),
        ("0", None),
        ("65", None),
        ("BANANA", None),
        ("9" * 64_000, None),
        ("", None),
    ],
)
def test_signal_names(name: str, number: int | None) -> None:
    assert signal_number(name) == number


@pytest.mark.parametrize(
    ("own", "images", "expected"),
    [(None, "", 15), (None, "SIGQUIT", 3), ("SIGINT", "SIGQUIT", 2), ("SIGBANANA", "", 15)],
)
def test_who_says_how_it_is_stopped(own: str | None, images: str, expected: int) -> None:
    made = task(grace=3.0, needs=(Dependency(service="db"), Dependency(service="a"), Dependency(service="db")))
    made = made.model_copy(update={"policy": made.policy.model_copy(update={"stop_signal": own})})
    found = ending(made, ImageConfig(id="", layers=(), stop_signal=images))
    assert (found.signal, found.grace, found.needs) == (expected, 3.0, ("a", "db"))


@pytest.mark.parametrize(
    ("state", "health", "expected"),
    [
        ("running", "none", True),
        ("running", "healthy", True),
        ("running", "starting", False),
        ("running", "unhealthy", False),
    ],
)
def test_who_serves_published_ports_and_its_virtual_address(state: str, health: str, expected: bool) -> None:
    made = record(
        state=state,
        health=HealthState(health),  # type: ignore[arg-type]
        allocation=allocation(3, (PORT,)),
        virtual="10.181.4.16",
    )
    assert ready(made) is expected
    level, ports = ("ready", (PORT,)) if expected else ("running", ())
    assert serves(made) == Serving("10.181.0.19", level, ports, "10.181.4.16")  # type: ignore[arg-type]


@pytest.mark.parametrize(("state", "health"), [("starting", "none"), ("stopping", "healthy"), ("backoff", "none")])
def test_who_is_not_ready(state: str, health: str) -> None:
    assert not ready(record(state=state, health=HealthState(health)))  # type: ignore[arg-type]


def test_who_leaves_drains_while_it_lives() -> None:
    made = record(allocation=allocation(3, (PORT,)), virtual="10.181.4.16")
    assert leaves(made, alive=True) == Serving("10.181.0.19", "draining")
    assert leaves(made, alive=False) == Serving("10.181.0.19", "gone")
