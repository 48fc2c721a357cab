"""Health by Docker's rules."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.decide import health
from agent.decide.health import HealthState, effective, fold, pause
from agent.ports import ProbeResult
from agent.wire.messages import Healthcheck
from tests.agent.decide.make import check

GOOD, BAD = ProbeResult(True, "ok", 0), ProbeResult(False, "connection refused", 1)


def after(results: str, *, age: float = 100.0, start: str = "starting", **fields: float) -> HealthState:
    """`results`: one letter a probe, g or b."""
    state = HealthState(start)  # type: ignore[arg-type]
    for letter in results:
        state = fold(state, check(**fields), GOOD if letter == "g" else BAD, age, 1.0)
    return state


@pytest.mark.parametrize(
    ("results", "fields", "status"),
    [
        pytest.param("", {}, "starting", id="no probe yet"),
        pytest.param("g", {}, "healthy", id="the first success"),
        pytest.param("bb", {}, "starting", id="two failures of three"),
        pytest.param("bbb", {}, "unhealthy", id="three failures"),
        pytest.param("gbb", {}, "healthy", id="still healthy after two"),
        pytest.param("gbbb", {}, "unhealthy", id="no longer after three"),
        pytest.param("gbbgbb", {}, "healthy", id="a success forgives"),
        pytest.param("bbbg", {}, "healthy", id="it recovered"),
        pytest.param("b", {"retries": 1}, "unhealthy", id="one is enough"),
        pytest.param("bbbbbb", {"start_period": 200.0}, "starting", id="failures while it starts do not count"),
        pytest.param("gbbb", {"start_period": 200.0}, "unhealthy", id="after the first success they do"),
    ],
)
def test_fold(results: str, fields: dict[str, float], status: str) -> None:
    assert after(results, **fields).status == status


def test_the_last_probe_is_kept_as_evidence() -> None:
    assert health.evidence(after("bbb")) == {
        "probe_output": "connection refused",
        "probe_code": 1,
        "probe_timed_out": False,
        "failures": 3,
    }


@pytest.mark.parametrize(
    ("status", "age", "seconds"),
    [
        pytest.param("starting", 0.0, 5.0, id="within the start period: start_interval"),
        pytest.param("starting", 60.0, 30.0, id="after it: interval"),
        pytest.param("healthy", 1.0, 30.0, id="healthy within it: interval"),
    ],
)
def test_pause(status: str, age: float, seconds: float) -> None:
    assert pause(HealthState(status), check(start_period=60.0), age) == seconds  # type: ignore[arg-type]


@given(st.floats(0, 1, exclude_max=True))
def test_first_probes_are_spread_but_never_late(phase: float) -> None:
    first = health.first_pause(HealthState("starting"), check(), 0.0, phase)
    assert 27.0 <= first <= 30.0


@given(st.floats(0, 1, exclude_max=True))
def test_healthy_ones_are_probed_all_over_the_interval(phase: float) -> None:
    assert health.first_pause(HealthState("healthy"), check(), 0.0, phase) == pytest.approx(30.0 * (1 - phase))


def test_a_hundred_that_start_together_are_not_in_step() -> None:
    """Of 100 that become healthy in one instant, no tenth of the interval sees the probes of more than a quarter."""
    state = HealthState("healthy", proven=True)
    times = [health.first_pause(state, check(), 1.0, health.phase(f"t{number}")) for number in range(100)]
    assert max(sum(at <= time < at + 3 for time in times) for at in range(0, 30, 3)) <= 25


def test_phase_differs_between_tasks_and_stays() -> None:
    phases = {health.phase(f"t{number}") for number in range(100)}
    assert len(phases) > 90 and all(0 <= p < 1 for p in phases)
    assert health.phase("t1") == health.phase("t1")


IMAGE = Healthcheck(kind="exec", test=("CMD", "redis-cli", "ping"), interval=7.0, retries=9)


@pytest.mark.parametrize(
    ("spec", "image", "expected"),
    [
        pytest.param(None, None, None, id="neither"),
        pytest.param(None, IMAGE, ("redis-cli", 7.0, 30.0, 9), id="the image's"),
        pytest.param(
            Healthcheck(interval=2.0), IMAGE, ("redis-cli", 2.0, 30.0, 9), id="the image's test, own interval"
        ),
        pytest.param(
            Healthcheck(test=("CMD", "x"), timeout=1.0), IMAGE, ("x", 7.0, 1.0, 9), id="own test, rest inherited"
        ),
        pytest.param(Healthcheck(test=("CMD", "x")), None, ("x", 30.0, 30.0, 3), id="Docker's defaults"),
        pytest.param(Healthcheck(kind="none"), IMAGE, None, id="switched off"),
        pytest.param(Healthcheck(test=("NONE",)), IMAGE, None, id="switched off by NONE"),
        pytest.param(Healthcheck(interval=2.0), None, None, id="nothing to run"),
        pytest.param(
            Healthcheck(test=("CMD", "x"), interval=0.0, retries=0), None, ("x", 30.0, 30.0, 3), id="0: default"
        ),
        pytest.param(Healthcheck(kind="http"), None, None, id="http without a port"),
    ],
)
def test_effective(
    spec: Healthcheck | None, image: Healthcheck | None, expected: tuple[str, float, float, int] | None
) -> None:
    found = effective(spec, image)
    if expected is None:
        assert found is None
    else:
        assert found is not None
        assert (found.spec.test[1], found.interval, found.timeout, found.retries) == expected


def test_http_needs_no_test() -> None:
    found = effective(Healthcheck(kind="http", port=80, interval=1.0), None)
    assert found is not None and found.interval == 1.0


@given(st.text("gb", max_size=40), st.integers(1, 5))
def test_unhealthy_only_after_that_many_in_a_row(results: str, retries: int) -> None:
    state = after(results, retries=retries)
    tail = len(results) - len(results.rstrip("b"))
    assert (state.status == "unhealthy") == (tail >= retries)
    assert state.streak == tail
