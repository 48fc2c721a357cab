"""How a task is brought to its end: out of the ports, the signal, the grace, KILL; and what follows. Pure.

A stop is over when the process has been seen to end, never because a signal was sent.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from agent.decide import health
from agent.decide.action import Action, Clean, Draft, Kill, Move, Signal, Wait
from agent.decide.health import HealthState
from agent.decide.record import Stop
from agent.decide.restart import Happened, judge
from agent.decide.steps import clear, enter, exit_evidence, exit_text, hold, note, retry, withdraw
from agent.decide.view import View
from agent.ports import Exit

KILL_AGAIN = 5.0  # seconds; a process in the kernel (D state) dies when it comes out, or needs another one

_SAID = {"stopped": "stopped by the user", "removed": "no longer assigned"}


def begin(v: View, then: Literal["stopped", "removed"]) -> Move:
    reason = "user-stopped" if then == "stopped" else "unassigned"
    event = Draft("task.stopping", reason, _SAID[then], cause="user")
    request = v.record.restart_request if v.task is None else v.task.restart_request
    ended = v.record.exit if v.record.state == "running" and not v.alive else None
    return enter(v, "stopping", reason, _SAID[then], event=event, stop=Stop(then), exit=ended, restart_request=request)


def begin_restart(v: View, happened: Happened, message: str, cause: Literal["user", "world", "task"]) -> Move:
    """Stop, to run again whatever the policy says."""
    assert v.task is not None
    verdict = judge(
        v.task.policy.restart,
        happened,
        ran=_age(v),
        failures=v.record.failures,
        retries=v.record.retries,
        roll=v.world.roll,
    )
    return enter(
        v,
        "stopping",
        happened,
        message,
        event=Draft("task.stopping", happened, message, {"rule": verdict.rule}, cause=cause),
        stop=Stop("backoff", delay=verdict.delay),
        exit=None,
        failures=verdict.failures,
        retries=verdict.retries,
        restart_request=v.task.restart_request,
    )


def begin_unhealthy(v: View) -> Move | None:
    """None: its policy lets it run on, unhealthy."""
    assert v.task is not None
    record = v.record
    verdict = judge(
        v.task.policy.restart,
        "unhealthy",
        ran=_age(v),
        failures=record.failures,
        retries=record.retries,
        roll=v.world.roll,
    )
    if verdict.outcome == "leave":
        return None
    message = f"its healthcheck failed {record.health.streak} times in a row"
    evidence = {**health.evidence(record.health), "rule": verdict.rule}
    return enter(
        v,
        "stopping",
        "unhealthy",
        message,
        event=Draft("task.stopping", "unhealthy", message, {"rule": verdict.rule}),
        evidence=evidence,
        stop=Stop("backoff" if verdict.outcome == "again" else "failed", delay=verdict.delay),
        exit=None,
        failures=verdict.failures,
        retries=verdict.retries,
    )


def _age(v: View) -> float | None:
    return None if v.record.started_at is None else max(0.0, v.now - v.record.started_at)


def step(v: View) -> Action:
    stop = v.record.stop or Stop("stopped")
    if v.task is None and stop.then != "removed":
        return note(v, durable=True, stop=replace(stop, then="removed"), reason="unassigned", message=_SAID["removed"])
    if v.task is not None and not v.wanted and stop.then in ("backoff", "failed"):
        return note(
            v, durable=True, stop=replace(stop, then="stopped"), reason="user-stopped", message=_SAID["stopped"]
        )
    return _end(v, stop) if v.alive else _ended(v, stop)


def _end(v: View, stop: Stop) -> Action:
    """The process still lives."""
    if step := withdraw(v):
        return step
    grace = v.record.ending.grace
    deadline = stop.deadline
    if deadline is None or deadline > v.now + grace:  # the second: the clock was set back
        # Journalled before the signal: an agent that dies in between sends it again, and the grace is not begun anew.
        return note(v, durable=True, stop=replace(stop, deadline=v.now + grace))
    if v.now >= deadline:
        return _kill(v)
    if not v.seen.signalled:
        action = retry(v, Signal(v.record.ending.signal))
        return action if not isinstance(action, Wait) else Wait(min(action.until or deadline, deadline))
    return Wait(deadline)


def _kill(v: View) -> Action:
    if v.seen.killed_at is None:
        return retry(v, Kill())
    if v.seen.killed_at <= v.now < v.seen.killed_at + KILL_AGAIN:
        return Wait(v.seen.killed_at + KILL_AGAIN)
    stuck = "cannot be killed yet: the kernel holds its process"
    if v.record.message != stuck:
        return hold(v, "unkillable", stuck)
    return retry(v, Kill())


def _ended(v: View, stop: Stop) -> Action:
    found, record = v.current, v.record
    ended = found.exit if found else None
    if record.process is not None or (ended is not None and ended != record.exit):
        if found is not None and ended is None:
            ended = Exit(None, None, False, v.now)
        told = Draft("task.exited", record.reason, exit_text(ended), exit_evidence(ended))
        return note(v, durable=True, event=told, exit=ended, process=None)
    if stop.then == "removed":
        return clear(v)
    if step := withdraw(v):
        return step
    for other in v.seen.attempts:
        return retry(v, Clean(other.attempt))
    return _rest(v, stop, record.exit)


def _rest(v: View, stop: Stop, exit_: Exit | None) -> Move:
    record = v.record
    text = exit_text(exit_) if exit_ else "it did not run"
    gone: dict[str, Any] = {"stop": None, "health": HealthState()}
    evidence = {**record.evidence, **exit_evidence(exit_)}
    if stop.then == "backoff":
        return enter(
            v,
            "backoff",
            record.reason,
            record.message,
            evidence=evidence,
            until=v.now + stop.delay,
            **gone,
        )
    if stop.then == "failed":
        event = Draft("task.failed", record.reason, f"{record.message}; its policy allows no more restarts", evidence)
        policy = v.task.policy.restart if v.task else None
        return enter(v, "failed", record.reason, record.message, event=event, evidence=evidence, policy=policy, **gone)
    event = Draft("task.stopped", "user-stopped", f"stopped: {text}", exit_evidence(exit_))
    return enter(v, "stopped", "user-stopped", f"stopped: {text}", event=event, met="", **gone)
