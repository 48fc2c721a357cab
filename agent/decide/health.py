"""Health as a fold of probe results, by Docker's rules (docs.docker.com, HEALTHCHECK); no clock, no probe runs here.

starting → healthy at the first success; → unhealthy after `retries` failures in a row. Failures within start_period
do not count until the first success. A slow start is therefore starting, not unhealthy.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace

from agent.ports import ProbeResult
from agent.wire.messages import Health, Healthcheck

INTERVAL, TIMEOUT, RETRIES, START_PERIOD, START_INTERVAL = 30.0, 30.0, 3, 0.0, 5.0
SHORTEST = 0.001  # seconds; Docker's floor for every duration
SPREAD = 0.1  # of the first delay


@dataclass(frozen=True, slots=True)
class Check:
    """A healthcheck with nothing left open. `spec`: what the prober is given."""

    spec: Healthcheck
    interval: float
    timeout: float
    retries: int
    start_period: float
    start_interval: float


@dataclass(frozen=True, slots=True)
class HealthState:
    """`streak`: failures in a row that counted. `proven`: this attempt has been healthy. The rest tells of the last
    probe, for people."""

    status: Health = "none"
    streak: int = 0
    proven: bool = False
    output: str = ""
    code: int | None = None
    timed_out: bool = False
    at: float | None = None  # Unix seconds


def effective(spec: Healthcheck | None, image: Healthcheck | None) -> Check | None:
    """The service's healthcheck over the image's, key by key, over the defaults; None: it is not checked."""
    if spec is None:
        spec, image = image, None
    if spec is None or spec.kind == "none":
        return None
    if spec.kind == "exec" and not spec.test and image is not None:
        spec = spec.model_copy(update={"test": image.test})
    if spec.kind == "exec" and (not spec.test or spec.test[0] == "NONE"):
        return None
    if spec.kind in ("http", "tcp") and spec.port is None:
        return None

    def first(name: str, default: float) -> float:
        # Zero means "as inherited", as in Docker's API.
        own, inherited = getattr(spec, name), getattr(image, name, None)
        return float(own or inherited or default)

    return Check(
        spec=spec,
        interval=max(SHORTEST, first("interval", INTERVAL)),
        timeout=max(SHORTEST, first("timeout", TIMEOUT)),
        retries=max(1, int(first("retries", RETRIES))),
        start_period=first("start_period", START_PERIOD),
        start_interval=max(SHORTEST, first("start_interval", START_INTERVAL)),
    )


def fold(state: HealthState, check: Check, result: ProbeResult, age: float, at: float) -> HealthState:
    """`age`: seconds from the attempt's start to the probe's."""
    told = replace(state, output=result.output, code=result.code, timed_out=result.timed_out, at=at)
    if result.ok:
        return replace(told, status="healthy", streak=0, proven=True)
    if state.status == "starting" and age < check.start_period:
        return told
    streak = state.streak + 1
    return replace(told, streak=streak, status="unhealthy" if streak >= check.retries else state.status)


def pause(state: HealthState, check: Check, age: float) -> float:
    """Seconds from the end of one probe (or from the start) to the next."""
    if state.status == "starting" and age < check.start_period:
        return check.start_interval
    return check.interval


def phase(task: str) -> float:
    """In [0, 1), the same for a task at every start."""
    return zlib.crc32(task.encode()) / 2**32


def first_pause(state: HealthState, check: Check, age: float, phase: float) -> float:
    """What is shortened once so that 100 tasks do not all run a probe in the same instant: the first pause by up to a
    tenth (a program gets nearly all the time it was promised), the first after it became healthy by up to all of it."""
    return pause(state, check, age) * (1 - (1.0 if state.status == "healthy" else SPREAD) * phase)


def evidence(state: HealthState) -> dict[str, object]:
    """What a person needs to see of the last probe."""
    return {
        "probe_output": state.output[-1024:],
        "probe_code": state.code,
        "probe_timed_out": state.timed_out,
        "failures": state.streak,
    }
