"""The heart: from what is wanted, what is remembered and what is seen, the one next step of one task. Pure.

The worker calls it again after each step, so every function here looks at the facts afresh and none keeps a plan.
States in which nothing runs are decided here; running.py and stopping.py have the two in which something does.
"""

from __future__ import annotations

from dataclasses import replace

from agent.decide import running, stopping
from agent.decide.action import Action, Clean, Discard, Draft, Gone, Move, Prepare, Start, Tail, Wait
from agent.decide.record import TaskRecord
from agent.decide.restart import Happened, judge
from agent.decide.steps import clear, enter, failed_to_start, hold, note, retry, unwanted, withdraw
from agent.decide.view import Seen, View, World
from agent.wire.messages import Task


def next_action(task: Task | None, record: TaskRecord, seen: Seen, world: World, now: float) -> Action:
    """`task` None: no longer assigned. Returns Wait when there is nothing to do, Gone when nothing is left."""
    return _HANDLERS[record.state](View(task, record, seen, world, now))


def _pending(v: View) -> Action:
    if v.task is None:
        return clear(v)
    if not v.wanted:
        reason, message = unwanted(v)
        return enter(v, "stopped", reason, message, restart_request=v.task.restart_request)
    if blocked := _blocked(v):
        return blocked
    return _prepare(v)


def _blocked(v: View) -> Action | None:
    """Why an attempt may not be prepared yet: the slot's previous task, a disk that is away, the dependencies, or the
    network of another task."""
    if not v.world.slot_free:
        return hold(v, "slot-busy", "waiting for the slot's previous task to be gone")
    if v.world.unmounted:
        return _mount_missing(v)
    if v.record.met != v.world.boot and not v.world.gate.open:
        return hold(v, "waiting", v.world.gate.message)
    if not v.world.network.open:
        return hold(v, "network-awaited", v.world.network.message)
    return None


def _mount_missing(v: View) -> Action:
    """What a container wrote now would go into the empty directory below, and be hidden when the mount comes."""
    points = v.world.unmounted
    sources = [source for source, point in sorted(v.record.mounts.items()) if point in points]
    message = (
        f"mount missing: {', '.join(points)}, where {', '.join(sources)} was at up; it starts when that is mounted"
    )
    if (v.record.reason, v.record.message) == ("mount-missing", message):
        return Wait()
    event = Draft("task.waiting", "mount-missing", message, {"mounts": list(points)}, cause="world")
    return note(v, durable=True, event=event, reason="mount-missing", message=message)


def _prepare(v: View) -> Move:
    # The evidence of a failed start stays, so that the same failure again is known to be the same.
    kept = v.record.evidence
    ending = replace(v.record.ending, once=v.task is not None and v.task.container.once)
    return enter(v, "preparing", "", evidence=kept, met=v.world.boot, until=None, stop=None, ending=ending)


def _preparing(v: View) -> Action:
    if not v.wanted:
        return stopping.begin(v, "removed" if v.task is None else "stopped")
    if trouble := v.seen.trouble(Prepare):
        return failed_to_start(v, trouble)
    if blocked := _blocked(v):
        return blocked
    for found in v.seen.attempts:
        if found.process is not None:  # never two live attempts
            return retry(v, Clean(found.attempt))
    if v.record.joined != v.world.joined:
        return _join(v)
    if not v.seen.prepared:
        return Prepare()
    record = v.record
    attempt = max([record.attempt, *(f.attempt for f in v.seen.attempts)]) + 1
    return enter(
        v,
        "starting",
        "",
        evidence=record.evidence,
        met=v.world.boot,
        attempt=attempt,
        restarts=record.restarts + (1 if record.attempt else 0),
        process=None,
        space=v.seen.space,
        ending=v.world.ending or record.ending,
        upstream=dict(v.world.upstream),
        restart_request=v.task.restart_request if v.task else record.restart_request,
    )


def _join(v: View) -> Action:
    """Into the sandbox of another task. What it wrote belongs to ids that end with the task it was with before: with
    another one it begins anew, as with docker compose, which makes a new container."""
    before, joined = v.record.joined, v.world.joined
    if before is not None and joined is not None and before.task != joined.task:
        for found in v.seen.attempts:
            return retry(v, Clean(found.attempt))
        if v.seen.leftovers:
            return retry(v, Discard())
    return note(v, durable=True, joined=joined)


def _starting(v: View) -> Action:
    if (found := v.current) is not None and (found.process is not None or found.exit is not None):
        return running.started(v, found)
    if not v.wanted:
        return stopping.begin(v, "removed" if v.task is None else "stopped")
    if trouble := v.seen.trouble(Start):
        if trouble.permanent and v.seen.tail is None:
            return Tail()
        return failed_to_start(v, trouble)
    if found is not None or not v.seen.prepared:
        return enter(v, "backoff", "interrupted", "the agent ended while it was starting", until=v.now)
    return Start(v.record.attempt)


def _resting(v: View) -> Action:
    record, task = v.record, v.task
    if task is None:
        return clear(v)
    if step := _tidy(v):
        return step
    if task.desired == "drained" and record.state != "stopped":
        return Wait()  # what is done stays done, and what has failed is for when the host is drained no more
    if not v.wanted:
        reason, message = unwanted(v)
        if record.state != "stopped":
            event = Draft("task.stopped", reason, f"{message}; it was not running", cause="user")
            return enter(v, "stopped", reason, event=event, restart_request=task.restart_request)
        if record.restart_request != task.restart_request or record.reason == "host-drained" != reason:
            return note(v, durable=True, restart_request=task.restart_request, reason=reason)
        return Wait()
    if record.reason == "host-drained":
        return _again(v, "host-undrained", "started again: the host is drained no more", cause="user")
    if record.state == "stopped" or task.restart_request > record.restart_request:
        # Dependencies are awaited again: a whole stack may be coming up.
        return _again(v, "user-started", "started by the user", cause="user")
    if record.boot != v.world.boot:
        happened: Happened = "rested-well" if record.state == "completed" else "rested-badly"
        if _verdict(v, happened) == "at-once":
            return _again(v, "host-rebooted", "started again after the host came up", cause="world")
        return note(v, durable=True, boot=v.world.boot)
    if record.policy is not None and record.policy != task.policy.restart:
        last = record.exit
        happened = "oom" if last and last.oom else "exit-0" if record.state == "completed" else "exit-error"
        if _verdict(v, "cannot-start" if record.reason == "cannot-start" else happened) in ("again", "at-once"):
            return _again(v, "policy-changed", "started again by its changed restart policy", cause="user")
        return note(v, durable=True, policy=task.policy.restart)
    return Wait()


def _verdict(v: View, happened: Happened) -> str:
    assert v.task is not None
    return judge(v.task.policy.restart, happened, ran=None, failures=0, retries=0, roll=0.5).outcome


def _again(v: View, reason: str, message: str, cause: str) -> Move:
    assert v.task is not None
    draft = Draft("task.again", reason, message, cause="user" if cause == "user" else "world")
    return enter(
        v,
        "preparing",
        reason,
        message,
        event=draft,
        until=None,
        stop=None,
        failures=0,
        retries=0,
        met="",
        restart_request=v.task.restart_request,
    )


def _tidy(v: View) -> Action | None:
    """At rest nothing is published and no attempt is left over."""
    if step := withdraw(v):
        return step
    for found in v.seen.attempts:
        return retry(v, Clean(found.attempt))
    return None


def _backoff(v: View) -> Action:
    record, task = v.record, v.task
    if task is None:
        return clear(v)
    if not v.wanted:
        reason, message = unwanted(v)
        event = Draft("task.stopped", reason, f"{message}; it waited to be restarted", cause="user")
        return enter(v, "stopped", reason, event=event, until=None, restart_request=task.restart_request)
    if task.restart_request > record.restart_request:
        return _again(v, "restart-request", "restarted by the user", cause="user")
    longest = v.now + max(running.LONGEST, task.policy.restart.delay or 0.0)
    until = record.until or 0.0
    if until > longest:  # a wall clock that was set back must not turn seconds into years
        return note(v, durable=True, until=longest)
    if v.now >= until:
        # Where others answer, nobody is to be sent here meanwhile; alone, it is refused either way, and sooner up.
        return (v.world.company and withdraw(v)) or _blocked(v) or _prepare(v)
    return _tidy(v) or Wait(until)


def _removed(v: View) -> Action:
    return Gone()


_HANDLERS = {
    "pending": _pending,
    "preparing": _preparing,
    "starting": _starting,
    "running": running.step,
    "stopping": stopping.step,
    "backoff": _backoff,
    "stopped": _resting,
    "completed": _resting,
    "failed": _resting,
    "removed": _removed,
}
