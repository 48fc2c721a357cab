"""What to do about a task that runs, and about one that has just ended. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from agent.decide import health, stopping
from agent.decide.action import Action, Clean, Draft, Freeze, Move, Publish, Rename, Tail, Update, Wait
from agent.decide.endpoints import serves
from agent.decide.health import HealthState
from agent.decide.restart import CAP, JITTER, Happened, judge
from agent.decide.steps import enter, exit_evidence, exit_text, note, retry, withdraw
from agent.decide.view import View
from agent.ports import Exit, Found

LONGEST = CAP * (1 + JITTER)  # seconds an attempt can be put off, unless the policy's delay is longer
TAIL_LINES, TAIL_WIDTH = 10, 300  # characters
NEWS = frozenset({"healthy", "unhealthy"})


def started(v: View, found: Found) -> Move:
    """starting → running: its process has been seen."""
    checked = v.world.check not in (None, "unknown")
    again = f" (attempt {v.record.attempt})" if v.record.attempt > 1 else ""
    return enter(
        v,
        "running",
        "",
        event=Draft(
            "task.started", "started", f"started{again}", {"pid": found.process.pid if found.process else None}
        ),
        process=found.process,
        started_at=v.now,
        until=None,
        stop=None,
        policy=None,
        primed=True,
        greeting=v.task is not None and bool(v.task.policy.post_start),
        greeted=0,
        paused=False,
        health=HealthState("starting") if checked else HealthState(),
        resources=v.seen.resources or v.record.resources,
    )


def step(v: View) -> Action:
    found = v.current
    if found is None or found.process is None:
        return _ended(v, found)
    if v.record.process != found.process or v.record.boot != v.world.boot:
        return note(v, durable=True, process=found.process, boot=v.world.boot)
    if v.seen.probes:
        return _probed(v)
    return _stop(v) or _greet(v) or _health(v) or _pause(v) or _keep(v)


def _stop(v: View) -> Action | None:
    """Why a task that runs should not run on."""
    record, task = v.record, v.task
    if task is None or not v.wanted:
        if v.world.holders:
            names = ", ".join(v.world.holders)
            message = f"waiting to stop until {names} has stopped"
            return note(v, reason="stopping-later", message=message) if message != record.message else Wait()
        return stopping.begin(v, "removed" if task is None else "stopped")
    if task.restart_request > record.restart_request:
        return stopping.begin_restart(v, "restart-request", "restart asked for by the user", cause="user")
    if v.current is not None and v.current.process is not None and v.current.process.conmon is None:
        return stopping.begin_restart(
            v, "conmon-lost", "its monitor (conmon) died: no log, no exit code", cause="world"
        )
    if v.world.joined is not None and record.joined is not None and v.world.joined != record.joined:
        message = "the network that it shares was made anew"
        return stopping.begin_restart(v, "network-renewed", message, cause="world")
    if v.world.renewed:
        message = f"{v.world.renewed}, on which it depends, was restarted"
        return stopping.begin_restart(v, "dependency-restarted", message, cause="user")
    if record.health.status == "unhealthy":
        return stopping.begin_unhealthy(v)
    return None


def _greet(v: View) -> Move | None:
    """What becomes of its post_start commands, which the worker runs while `greeting` is set."""
    assert v.task is not None
    hooked, left = v.seen.hooked, len(v.task.policy.post_start) - v.record.greeted
    if not v.record.greeting or (hooked is None and left > 0):
        return None
    if hooked is not None and not hooked.ok:
        return stopping.begin_restart(v, "start-failed", hooked.message, cause="task", evidence=hooked.evidence)
    if left > 1:
        return note(v, durable=True, greeted=v.record.greeted + 1)
    event = Draft("task.hooked", "post-start", "its post_start commands are done")
    return note(v, durable=True, event=event, greeting=False)


def _pause(v: View) -> Action | None:
    assert v.task is not None
    wanted, frozen = v.task.desired == "paused", v.seen.frozen
    if frozen is not None and frozen != v.record.paused:
        text = "paused" if frozen else "resumed"
        event = Draft(f"task.{text}", f"user-{text}", f"{text} by the user", cause="user")
        return note(v, durable=True, event=event, paused=frozen)
    if frozen == wanted:
        return None  # not known: an agent may have died between the deed and its record
    if wanted and (step := withdraw(v)):
        return step
    return retry(v, Freeze(wanted))


def _probed(v: View) -> Move:
    """Fold the oldest probe result; results of another attempt are dropped by the worker."""
    check, record, probe = v.world.check, v.record, v.seen.probes[0]
    if check is None or check == "unknown" or probe.attempt != record.attempt:
        return note(v, folded=True)
    state = health.fold(record.health, check, probe.result, probe.age, probe.at)
    if state.status == record.health.status or state.status not in NEWS:
        return note(v, folded=True, health=state)
    message = "healthy" if state.status == "healthy" else f"its healthcheck failed {state.streak} times in a row"
    evidence = health.evidence(state) if state.status == "unhealthy" else {}
    event = Draft(f"task.{state.status}", state.status, message, evidence, cause="world")
    return note(v, durable=True, folded=True, event=event, health=state)


def _health(v: View) -> Action | None:
    """The healthcheck itself may come and go: it is policy, not part of the container."""
    status, check = v.record.health.status, v.world.check
    if check is None and status != "none":
        return note(v, durable=True, health=HealthState())
    if check is not None and check != "unknown" and status == "none":
        return note(v, durable=True, health=HealthState("starting"))
    return None


def _keep(v: View) -> Action:
    """In step with its policy: how it is to be stopped, its ports, names and limits; nothing of older attempts."""
    record, seen, task = v.record, v.seen, v.task
    assert task is not None
    if v.world.ending is not None and v.world.ending != record.ending:
        return note(v, durable=True, ending=v.world.ending)
    if seen.resources is not None and seen.resources != record.resources:
        event = Draft("task.updated", "resources", "its limits were changed in place", cause="user")
        return note(v, durable=True, event=event, resources=seen.resources)
    if v.world.upstream.keys() != record.upstream.keys():
        known = {name: record.upstream.get(name, now) for name, now in v.world.upstream.items()}
        return note(v, durable=True, upstream=known)
    if v.world.virtual != record.virtual:
        return note(v, durable=True, virtual=v.world.virtual)
    if record.joined is None and v.world.joined is not None:  # adopted without a record
        return note(v, durable=True, joined=v.world.joined)
    todo: list[Action] = []
    if seen.published != serves(record) and (record.virtual or record.allocation.ports or seen.published):
        todo.append(Publish(serves(record)))
    todo.extend(Clean(f.attempt) for f in seen.attempts if f.attempt != record.attempt)
    if seen.named != v.world.peers:
        todo.append(Rename(v.world.peers))
    if task.policy.resources != record.resources:
        todo.append(Update(task.policy.resources))
    waits = [retry(v, action) for action in todo]
    ready = next((action for action in waits if not isinstance(action, Wait)), None)
    if ready is not None:
        return ready
    if not waits and record.message:
        return note(v, reason="", message="")
    return min((w for w in waits if isinstance(w, Wait)), key=lambda w: w.until or 0.0, default=Wait())


def _ended(v: View, found: Found | None) -> Action:
    record, task = v.record, v.task
    exit_ = found.exit if found else None
    if exit_ is None and record.boot != v.world.boot:  # whatever was left of it
        return _rebooted(v)
    exit_ = exit_ or Exit(None, None, False, v.now)
    if task is None or task.desired == "stopped":  # what ends by itself before it is drained has its verdict
        return stopping.begin(replace(v, record=replace(record, exit=exit_)), "removed" if task is None else "stopped")
    happened = _happened(exit_)
    ran = max(0.0, exit_.at - record.started_at) if record.started_at is not None else 0.0
    if task.restart_request > record.restart_request:
        happened = "restart-request"
    verdict = judge(
        task.policy.restart, happened, ran=ran, failures=record.failures, retries=record.retries, roll=v.world.roll
    )
    again = verdict.outcome in ("again", "at-once")
    if v.seen.tail is None and not (again and verdict.delay == 0):
        return Tail()  # not on the way to an immediate restart: that must not wait for a file
    evidence = {**exit_evidence(exit_), "ran": round(ran, 3), "rule": verdict.rule}
    if v.seen.tail:
        evidence["log_tail"] = list(v.seen.tail)
    text = exit_text(exit_)
    if verdict.failures > 1:
        text += f", {verdict.failures} times in a row"
    event = Draft("task.exited", happened, text, {**evidence, "delay": round(verdict.delay, 3)}, cause="world")
    counts: dict[str, Any] = {
        "exit": exit_,
        "failures": verdict.failures,
        "retries": verdict.retries,
        "process": None,
        "health": HealthState(),
    }
    if again:
        return enter(
            v,
            "backoff",
            happened,
            text,
            event=event,
            evidence=evidence,
            until=v.now + verdict.delay,
            **counts,
        )
    return enter(
        v,
        "completed" if verdict.outcome == "completed" else "failed",
        happened,
        text,
        event=event,
        evidence=evidence,
        policy=task.policy.restart,
        **counts,
    )


def _happened(exit_: Exit) -> Happened:
    if exit_.oom:
        return "oom"
    if exit_.code is None:
        return "conmon-lost"  # also: it vanished. Whatever its policy, nobody knows that it was done
    return "exit-0" if exit_.code == 0 else "exit-error"


def _rebooted(v: View) -> Action:
    task, record = v.task, v.record
    if task is None or not v.wanted:
        return stopping.begin(v, "removed" if task is None else "stopped")
    verdict = judge(task.policy.restart, "host-rebooted", ran=None, failures=0, retries=0, roll=0.5)
    gone: dict[str, Any] = {"process": None, "health": HealthState()}
    if verdict.outcome == "at-once":
        text = "it ran when the host went down; started again"
        event = Draft("task.again", "host-rebooted", text, {"rule": verdict.rule}, cause="world")
        return enter(
            v, "preparing", "host-rebooted", text, event=event, failures=0, retries=record.retries, met="", **gone
        )
    text = "it ran when the host went down, and its restart policy is no"
    event = Draft("task.failed", "host-rebooted", text, {"rule": verdict.rule}, cause="world")
    return enter(v, "failed", "host-rebooted", text, event=event, policy=task.policy.restart, **gone)
