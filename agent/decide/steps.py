"""Steps that several states share. Every change of state goes through `enter`, and so through the table."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from agent.decide import states
from agent.decide.action import Action, Clean, Discard, Draft, Move, Publish, Wait
from agent.decide.endpoints import leaves
from agent.decide.restart import judge
from agent.decide.view import Trouble, View
from agent.ports import Exit
from agent.wire.messages import State


def enter(
    v: View,
    state: State,
    reason: str,
    message: str = "",
    *,
    event: Draft | None = None,
    evidence: dict[str, Any] | None = None,
    **changes: Any,
) -> Move:
    """IllegalTransition is a bug in ours."""
    states.check(v.record.state, state)
    if state == "preparing" and v.record.boot != v.world.boot:
        changes["started_at"] = None  # "has been started" is said of this boot only
    if state == "preparing":
        changes["virtual"] = v.world.virtual
    record = replace(
        v.record,
        state=state,
        since=v.now,
        reason=reason,
        message=message,
        evidence=evidence or {},
        boot=v.world.boot,
        **changes,
    )
    return Move(record, event)


def note(v: View, *, durable: bool = False, folded: bool = False, event: Draft | None = None, **changes: Any) -> Move:
    """A change within the state."""
    return Move(replace(v.record, **changes), event, durable=durable, folded=folded)


def hold(v: View, reason: str, message: str, until: float | None = None) -> Action:
    """Wait, with the reason shown."""
    if (v.record.reason, v.record.message) != (reason, message):
        return note(v, reason=reason, message=message)
    return Wait(until)


def unwanted(v: View) -> tuple[str, str]:
    """(reason, sentence) of a task that is to have no process."""
    if v.task is None:
        return "unassigned", v.world.gone
    if v.task.desired == "drained":
        return "host-drained", "stopped: the host is drained"
    return "user-stopped", "stopped by the user"


def retry(v: View, action: Action) -> Action:
    """`action`, or the wait before its next try, with the trouble shown."""
    trouble = v.seen.trouble(type(action))
    if trouble is None or not trouble.at <= v.now < trouble.retry_at:
        return action
    if v.task is not None and v.record.state in states.RESTING:
        return Wait(trouble.retry_at)  # why it rests says more than why it is not tidied up yet
    return hold(v, trouble.code, trouble.message, trouble.retry_at)


def withdraw(v: View) -> Action | None:
    """Out of every published port and virtual address; None when it is."""
    wanted = leaves(v.record, alive=v.alive)
    if v.seen.published == wanted or not (v.record.allocation.ports or v.record.virtual):
        return None
    return retry(v, Publish(wanted))


def clear(v: View) -> Action:
    """Take everything of a task that does not run off the host, then let it go."""
    draining = leaves(v.record, alive=True)  # enough: with its network its flows go, too
    if v.seen.published != draining and (step := withdraw(v)):
        return step
    for found in v.seen.attempts:
        return retry(v, Clean(found.attempt))
    if v.seen.leftovers:
        return retry(v, Discard())
    event = Draft("task.removed", v.record.reason, "removed", exit_evidence(v.record.exit), cause="task")
    if v.record.state != "stopping":
        event = replace(event, reason="unassigned", cause="user")
    return enter(v, "removed", "", event=event)


def failed_to_start(v: View, trouble: Trouble) -> Move:
    """An attempt that could not be made: for now → backoff, for good → failed."""
    policy = v.task.policy.restart if v.task else v.record.policy
    evidence: dict[str, Any] = {**trouble.evidence, "code": trouble.code}
    if v.seen.tail:
        evidence["log_tail"] = list(v.seen.tail)
    if trouble.permanent or policy is None:
        event = Draft("task.failed", trouble.code, trouble.message, evidence)
        return enter(
            v, "failed", "cannot-start", trouble.message, event=event, evidence=evidence, policy=policy, until=None
        )
    verdict = judge(
        policy, "start-failed", ran=None, failures=v.record.failures, retries=v.record.retries, roll=v.world.roll
    )
    # Edge-logged: the same trouble again is the same news.
    news = v.record.evidence.get("code") != trouble.code
    event = Draft("task.start-failed", trouble.code, trouble.message, evidence)
    return enter(
        v,
        "backoff",
        "start-failed",
        trouble.message,
        event=event if news else None,
        evidence=evidence,
        until=v.now + verdict.delay,
        failures=verdict.failures,
    )


def exit_text(exit_: Exit | None) -> str:
    if exit_ is None:
        return "it ended"
    if exit_.oom:
        return "killed: out of memory"
    if exit_.code is None:
        return "it ended, and nobody saw how"
    return f"killed by signal {exit_.signal}" if exit_.signal else f"exit {exit_.code}"


def exit_evidence(exit_: Exit | None) -> dict[str, Any]:
    if exit_ is None:
        return {}
    return {"exit_code": exit_.code, "signal": exit_.signal, "oom": exit_.oom}
