"""The restart table, cell by cell, and the arithmetic of the delay."""

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.decide.restart import CAP, FIRST, JITTER, STABLE, TABLE, Condition, Happened, judge
from agent.wire.messages import OnUnhealthy, Restart

HAPPENED = get_args(Happened)
CONDITIONS = get_args(Condition)

EXPECTED = """
                 default    no         on-failure always     unless-stopped
exit-0           completed  completed  completed  again      again
exit-error       failed     failed     again      again      again
oom              failed     failed     again      again      again
unhealthy        again      leave      again      again      again
start-failed     again      again      again      again      again
cannot-start     failed     failed     failed     failed     failed
conmon-lost      again      again      again      again      again
network-renewed  at-once    at-once    at-once    at-once    at-once
host-rebooted    at-once    failed     at-once    at-once    at-once
rested-well      leave      leave      leave      at-once    at-once
rested-badly     leave      leave      at-once    at-once    at-once
user-stop        stopped    stopped    stopped    stopped    stopped
user-start       at-once    at-once    at-once    at-once    at-once
restart-request  at-once    at-once    at-once    at-once    at-once
agent-restart    leave      leave      leave      leave      leave
dependency-restarted at-once at-once   at-once    at-once    at-once
up-running       leave      leave      leave      leave      leave
up-completed     leave      leave      leave      leave      leave
up-failed        at-once    at-once    at-once    at-once    at-once
up-stopped       at-once    at-once    at-once    at-once    at-once
"""


def test_the_whole_table() -> None:
    lines = [line.split() for line in EXPECTED.strip().splitlines()]
    expected = {c: {row[0]: row[1 + i] for row in lines[1:]} for i, c in enumerate(lines[0])}
    assert expected == TABLE


@pytest.mark.parametrize(
    ("ran", "failures", "delay", "after"),
    [
        pytest.param(STABLE, 0, 0.0, 0, id="stable: at once"),
        pytest.param(STABLE, 9, 0.0, 0, id="stable: earlier failures are forgotten"),
        pytest.param(STABLE - 0.1, 0, 0.1, 1, id="first quick one"),
        pytest.param(0.5, 1, 0.2, 2, id="second"),
        pytest.param(0.5, 4, 1.6, 5, id="fifth"),
        pytest.param(None, 50, CAP, 51, id="never ran: capped"),
    ],
)
def test_delay(ran: float | None, failures: int, delay: float, after: int) -> None:
    verdict = judge(Restart(condition="always"), "exit-error", ran=ran, failures=failures, retries=0, roll=0.5)
    assert (verdict.outcome, verdict.failures) == ("again", after)
    assert verdict.delay == pytest.approx(delay)


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize(
    ("said", "outcome"), [("restart", "again"), ("recreate", "anew"), ("stop", "failed"), ("none", "leave")]
)
def test_x_gorae_on_unhealthy_outdoes_the_policy(condition: Condition, said: OnUnhealthy, outcome: str) -> None:
    policy = Restart(condition=condition)
    verdict = judge(policy, "unhealthy", ran=None, failures=0, retries=0, roll=0.5, on_unhealthy=said)
    assert (verdict.outcome, verdict.delay > 0) == (outcome, outcome in ("again", "anew"))
    assert f"x-gorae-on-unhealthy: {said}" in verdict.rule
    exited = judge(policy, "exit-error", ran=None, failures=0, retries=0, roll=0.5, on_unhealthy=said)
    assert exited == judge(policy, "exit-error", ran=None, failures=0, retries=0, roll=0.5)


@pytest.mark.parametrize(
    ("condition", "happened", "retries", "outcome"),
    [
        pytest.param("on-failure", "exit-error", 2, "again", id="one left"),
        pytest.param("on-failure", "exit-error", 3, "failed", id="used up"),
        pytest.param("always", "exit-0", 3, "completed", id="used up, and it had done well"),
        pytest.param("on-failure", "oom", 3, "failed", id="oom counts"),
        pytest.param("on-failure", "unhealthy", 3, "failed", id="unhealthy counts"),
        pytest.param("on-failure", "start-failed", 3, "again", id="the host's trouble does not"),
        pytest.param("on-failure", "conmon-lost", 3, "again", id="nor does ours"),
        pytest.param("on-failure", "restart-request", 3, "at-once", id="nor the user's wish"),
    ],
)
def test_max_attempts(condition: Condition, happened: Happened, retries: int, outcome: str) -> None:
    policy = Restart(condition=condition, max_attempts=3)
    assert judge(policy, happened, ran=1.0, failures=0, retries=retries, roll=0.5).outcome == outcome


def test_an_attempt_as_long_as_the_window_succeeded() -> None:
    policy = Restart(condition="on-failure", max_attempts=1, window=30.0)
    assert judge(policy, "exit-error", ran=29.0, failures=0, retries=1, roll=0.5).outcome == "failed"
    verdict = judge(policy, "exit-error", ran=30.0, failures=0, retries=1, roll=0.5)
    assert (verdict.outcome, verdict.retries) == ("again", 1)


def test_the_policys_delay_is_the_least() -> None:
    policy = Restart(condition="always", delay=5.0)
    assert judge(policy, "exit-0", ran=60.0, failures=0, retries=0, roll=0.5).delay == 5.0
    assert judge(policy, "exit-0", ran=0.0, failures=20, retries=0, roll=0.5).delay == CAP


def test_what_the_user_asks_for_forgives() -> None:
    verdict = judge(Restart(condition="on-failure"), "user-start", ran=None, failures=5, retries=3, roll=0.5)
    assert (verdict.delay, verdict.failures, verdict.retries) == (0.0, 0, 0)


@given(
    condition=st.sampled_from(CONDITIONS),
    happened=st.sampled_from(HAPPENED),
    ran=st.none() | st.floats(0, 1e6),
    failures=st.integers(0, 10_000),
    retries=st.integers(0, 100),
    limit=st.none() | st.integers(0, 100),
    roll=st.floats(0, 1, exclude_max=True),
)
def test_bounds(
    condition: Condition,
    happened: Happened,
    ran: float | None,
    failures: int,
    retries: int,
    limit: int | None,
    roll: float,
) -> None:
    policy = Restart(condition=condition, max_attempts=limit)
    verdict = judge(policy, happened, ran=ran, failures=failures, retries=retries, roll=roll)
    assert 0 <= verdict.delay <= CAP * (1 + JITTER)
    assert verdict.outcome in ("again", "anew") or verdict.delay == 0
    assert verdict.failures == 0 or verdict.outcome not in ("again", "anew") or verdict.delay >= FIRST * (1 - JITTER)
    assert limit is None or verdict.retries <= max(limit, retries)
    assert happened in verdict.rule and condition in verdict.rule
