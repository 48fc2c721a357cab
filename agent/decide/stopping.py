"""How a task is brought to its end, and what follows. Pure. The order: out of ports and virtual address, and that is
committed; connections end, or have had their time; pre_stop commands; the stop signal; its grace; KILL.

A stop is over when the process has been seen to end, never because a signal was sent.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from agent.decide import health
from agent.decide.action import Action, Clean, Count, Discard, Draft, Freeze, Kill, Move, Publish, Signal, Wait
from agent.decide.health import HealthState
from agent.decide.record import Stop
from agent.decide.restart import Happened, judge
from agent.decide.steps import clear, enter, exit_evidence, exit_text, hold, note, retry, unwanted, withdraw
from agent.decide.view import View
from agent.ports import Exit

PATIENCE = 10.0  # seconds in which what is stopped by a user must get out of ports and virtual address
KILL_AGAIN = 5.0  # seconds; a process in the kernel (D state) dies when it comes out, or needs another one
COUNT_AGAIN = 0.25  # seconds between two looks at open connections; one look costs about 10 ms
_HASTY = frozenset({"start-failed", "conmon-lost"})  # what it does is not worth waiting for


def begin(v: View, then: Literal["stopped", "removed"]) -> Move:
    reason, message = unwanted(v)
    event = Draft("task.stopping", reason, message, cause="user")
    request = v.record.restart_request if v.task is None else v.task.restart_request
    ended = v.record.exit if v.record.state == "running" and not v.alive else None
    return enter(v, "stopping", reason, message, event=event, stop=Stop(then), exit=ended, restart_request=request)


def begin_restart(
    v: View,
    happened: Happened,
    message: str,
    cause: Literal["user", "world", "task"],
    evidence: dict[str, Any] | None = None,
) -> Move:
    """Stop, to run again whatever the policy says."""
    assert v.task is not None
    verdict = judge(
        v.task.policy.restart,
        happened,
        ran=None if happened == "start-failed" else _age(v),
        failures=v.record.failures,
        retries=v.record.retries,
        roll=v.world.roll,
    )
    return enter(
        v,
        "stopping",
        happened,
        message,
        event=Draft("task.stopping", happened, message, {"rule": verdict.rule, **(evidence or {})}, cause=cause),
        evidence=evidence,
        stop=Stop("backoff", delay=verdict.delay, quick=happened in _HASTY),
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
        # What never was healthy has not run well, however long it ran.
        ran=_age(v) if record.health.proven else None,
        failures=record.failures,
        retries=record.retries,
        roll=v.world.roll,
        on_unhealthy=v.task.policy.on_unhealthy,
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
        stop=Stop(
            "backoff" if verdict.outcome in ("again", "anew") else "failed",
            delay=verdict.delay,
            quick=True,
            fresh=verdict.outcome == "anew",
        ),
        exit=None,
        failures=verdict.failures,
        retries=verdict.retries,
    )


def _age(v: View) -> float | None:
    return None if v.record.started_at is None else max(0.0, v.now - v.record.started_at)


def step(v: View) -> Action:
    stop = v.record.stop or Stop("stopped")
    if v.task is None and stop.then != "removed":
        reason, message = unwanted(v)
        return note(v, durable=True, stop=replace(stop, then="removed"), reason=reason, message=message)
    if v.task is not None and not v.wanted and stop.then in ("backoff", "failed"):
        reason, message = unwanted(v)
        return note(v, durable=True, stop=replace(stop, then="stopped"), reason=reason, message=message)
    return _end(v, stop) if v.alive else _ended(v, stop)


def _end(v: View, stop: Stop) -> Action:
    """The process still lives."""
    if step := _leave(v, stop) or _drain(v, stop) or _hooks(v, stop):
        return step
    grace = v.record.ending.grace
    deadline = stop.deadline
    if deadline is None or deadline > v.now + grace:  # the second: the clock was set back
        # Journalled before the signal: an agent that dies in between sends it again, and the grace is not begun anew.
        return note(v, durable=True, event=_unwell(v, stop), stop=replace(stop, deadline=v.now + grace))
    if v.now >= deadline:
        return _kill(v)
    if not v.seen.signalled:
        return _by(deadline, retry(v, Signal(v.record.ending.signal)))
    return Wait(deadline)


def _leave(v: View, stop: Stop) -> Action | None:
    """Out of ports and virtual address, and thawed. Where one of the two cannot be done (the host has no nft any more),
    what a user stopped is ended all the same; what others would have to answer for waits, and answers meanwhile."""
    end = v.record.since + PATIENCE
    for action, step in ((Publish, withdraw(v)), (Freeze, _thaw(v))):
        if step is None:
            continue
        if stop.then != "stopped" or v.seen.trouble(action) is None:
            return step
        if v.now < end:
            return _by(end, step)
    return None


def _by(end: float, action: Action) -> Action:
    """No wait beyond `end`."""
    return Wait(min(action.until or end, end)) if isinstance(action, Wait) else action


def _thaw(v: View) -> Action | None:
    """A frozen process takes no signal, and answers nobody whose connection is to end."""
    return None if v.seen.frozen is False else retry(v, Freeze(False))


def _drain(v: View, stop: Stop) -> Action | None:
    record, limit, flows = v.record, v.record.ending.drain, v.seen.flows
    if stop.quick or not limit or not (record.virtual or record.allocation.ports):
        return None
    if stop.hooked is not None or stop.deadline is not None:
        return None
    if stop.drained is None or stop.drained > v.now + limit:
        return note(v, durable=True, stop=replace(stop, drained=v.now + limit))
    if v.now >= stop.drained or (flows is not None and flows.count == 0):
        return None
    if flows is None or not flows.at <= v.now < flows.at + COUNT_AGAIN:
        return _by(stop.drained, retry(v, Count()))
    return _by(stop.drained, hold(v, "draining", "waiting for its connections to end", flows.at + COUNT_AGAIN))


def _hooks(v: View, stop: Stop) -> Action | None:
    """Its pre_stop commands, which the worker runs while `hooked` is set and no deadline is; they have as much time as
    the process has after them."""
    grace, hooked = v.record.ending.grace, v.seen.hooked
    left = len(v.record.ending.hooks) - stop.ran
    if left <= 0 or stop.deadline is not None or (hooked is not None and (left == 1 or not hooked.ok)):
        return None
    if stop.hooked is None or stop.hooked > v.now + grace:
        return note(v, durable=True, stop=replace(stop, hooked=v.now + grace))
    if hooked is not None:
        return note(v, durable=True, stop=replace(stop, ran=stop.ran + 1))
    return Wait(stop.hooked) if v.now < stop.hooked else None


def _unwell(v: View, stop: Stop) -> Draft | None:
    """What is to be told of the pre_stop commands when the signal is sent: nothing, when they went well."""
    if stop.hooked is None or stop.deadline is not None or (v.seen.hooked is not None and v.seen.hooked.ok):
        return None
    if v.seen.hooked is None:
        return Draft("task.hook-failed", "pre-stop", "its pre_stop commands were not done within its grace period")
    return Draft("task.hook-failed", "pre-stop", v.seen.hooked.message, v.seen.hooked.evidence)


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
    if stop.fresh and v.seen.leftovers:
        return retry(v, Discard())
    return _rest(v, stop, record.exit)


def _rest(v: View, stop: Stop, exit_: Exit | None) -> Move:
    record = v.record
    text = exit_text(exit_) if exit_ else "it did not run"
    gone: dict[str, Any] = {"stop": None, "health": HealthState(), "greeting": False}
    evidence = {**record.evidence, **exit_evidence(exit_)}
    if stop.then == "backoff":
        return enter(
            v,
            "backoff",
            record.reason,
            record.message,
            evidence=evidence,
            until=v.now + stop.delay,
            primed=record.primed and not stop.fresh,
            **gone,
        )
    if stop.then == "failed":
        event = Draft("task.failed", record.reason, f"{record.message}; it stays down", evidence)
        policy = v.task.policy.restart if v.task else None
        return enter(v, "failed", record.reason, record.message, event=event, evidence=evidence, policy=policy, **gone)
    reason, message = unwanted(v) if v.task is not None and not v.wanted else ("user-stopped", "stopped")
    said = f"{message}, {text}" if reason == "host-drained" else f"stopped: {text}"
    event = Draft("task.stopped", reason, said, exit_evidence(exit_))
    return enter(v, "stopped", reason, said, event=event, met="", **gone)
