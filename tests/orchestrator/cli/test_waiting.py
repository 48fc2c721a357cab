"""When `up` waits no longer: a function of the status document."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.cli.waiting import MOMENT, hopeless
from tests.orchestrator.cli.fakes import service, stack, task

AT = 1000.0
LATELY, LONG_AGO = AT - MOMENT / 2, AT - MOMENT

DEAD = service("dead", task(state="failed"), failed=True, since=LONG_AGO)
JUST_DEAD = service("dead", task(state="failed"), failed=True, since=LATELY)
WAITS = service("waits", task(state="waiting"), failed=True, since=900.0)
LOOPS = service("loops", task(state="backoff", attempt=5))
CANNOT = service("cannot", task(state="backoff", attempt=0, failures=5))
FELL = service("fell", task(state="backoff", attempt=2, failures=1))
STARTS = service("starts", task(state="starting"))
ILL = service("ill", task(health="unhealthy"))
YOUNG = service("young", task(health="starting"))
RUNS, DONE = service("runs"), service("done", task(state="completed"))


@pytest.mark.parametrize(
    ("rows", "over"),
    [
        pytest.param([RUNS], False, id="nothing is wrong"),
        pytest.param([STARTS, RUNS], False, id="one starts"),
        pytest.param([FELL, RUNS], False, id="one fell once"),
        pytest.param([JUST_DEAD], True, id="all have failed"),
        pytest.param([JUST_DEAD, RUNS, DONE, ILL], True, id="one has failed, the others rest"),
        pytest.param([JUST_DEAD, STARTS], False, id="just failed, one starts"),
        pytest.param([DEAD, STARTS], True, id="failed a moment ago, one starts"),
        pytest.param([DEAD, YOUNG], True, id="failed, one is not healthy yet"),
        pytest.param([DEAD, FELL], True, id="failed, one turns ill again and again"),
        pytest.param([DEAD, LOOPS], True, id="failed, one ends again and again"),
        pytest.param([WAITS, JUST_DEAD, STARTS], False, id="a job just failed, with what waits for it"),
        pytest.param([WAITS, DEAD, STARTS], True, id="a job failed, with what waits for it"),
        pytest.param([LOOPS, RUNS], True, id="one ends again and again, the others rest"),
        pytest.param([CANNOT, RUNS], True, id="one cannot be started, the others rest"),
        pytest.param([LOOPS, STARTS], False, id="one ends again and again: it may come right meanwhile"),
    ],
)
def test_hopeless(rows: list[dict[str, Any]], over: bool) -> None:
    entry = stack("shop", *rows, converged=False, state="failed")
    assert hopeless(entry, 3, AT) is over


@pytest.mark.parametrize(
    ("more", "over"),
    [
        pytest.param({"converged": True}, False, id="it has converged"),
        pytest.param({"observed_generation": 2}, False, id="the agent has not seen it yet"),
        pytest.param({"state": "stopping"}, False, id="it is to go"),
        pytest.param({"update": {"phase": "updating"}}, False, id="an update may go back by itself"),
        pytest.param({"update": {"phase": "rolling-back"}}, False, id="an update goes back"),
        pytest.param({"update": {"phase": "paused"}}, True, id="an update is paused"),
        pytest.param({"update": {"phase": "rolled-back"}}, True, id="an update has gone back, and that failed too"),
    ],
)
def test_of_a_stack_with_one_that_has_failed(more: dict[str, Any], over: bool) -> None:
    entry = stack("shop", DEAD, STARTS, **{"converged": False, "state": "failed", **more})
    assert hopeless(entry, 3, AT) is over
