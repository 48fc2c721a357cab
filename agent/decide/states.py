"""The one place where a task's state may change. docs/task-model.md's diagram is generated from this table."""

from __future__ import annotations

from typing import get_args

from agent.wire.messages import State

# Why each edge exists is said beside it; an edge that is not here is a bug and raises.
TRANSITIONS: dict[State, dict[State, str]] = {
    "pending": {
        "preparing": "dependencies are met and the slot is free",
        "stopped": "the user stopped it before it began",
        "failed": "it can never start (the image is gone)",
        "removed": "no longer assigned",
    },
    "preparing": {
        "starting": "sandbox, root file system, volumes and network are there",
        "backoff": "preparing failed for now",
        "failed": "preparing can never work",
        "stopping": "stopped or no longer assigned meanwhile",
    },
    "starting": {
        "running": "crun started the process",
        "backoff": "starting failed for now",
        "failed": "the command cannot be started",
        "stopping": "stopped or no longer assigned meanwhile",
    },
    "running": {
        "stopping": "user, update, removal, restart request or failed health check",
        "backoff": "it exited and its policy restarts it",
        "completed": "it exited with 0 and its policy lets it rest",
        "failed": "it exited otherwise and its policy lets it rest",
        "preparing": "the host was rebooted or the sandbox is gone: begin again",
    },
    "stopping": {
        "stopped": "the user asked for it, or the host is drained",
        "backoff": "it is to run again",
        "failed": "it was stopped as unhealthy and its policy lets it rest",
        "removed": "nothing of it is left",
    },
    "backoff": {
        "preparing": "the delay is over",
        "stopped": "the user stopped it meanwhile",
        "failed": "its policy allows no more attempts",
        "removed": "no longer assigned, nothing of it is left",
    },
    "stopped": {
        "preparing": "the user started it, or the host is drained no more",
        "removed": "no longer assigned, nothing of it is left",
    },
    "completed": {
        "preparing": "started again by the user or by its policy at boot",
        "stopped": "the user stopped it: it stays down at boot",
        "removed": "no longer assigned, nothing of it is left",
    },
    "failed": {
        "preparing": "started again by the user, a changed policy or boot",
        "stopped": "the user stopped it: it stays down at boot",
        "removed": "no longer assigned, nothing of it is left",
    },
    "removed": {},
}

assert set(TRANSITIONS) == set(get_args(State))

LIVE: frozenset[State] = frozenset({"preparing", "starting", "running", "stopping"})
RESTING: frozenset[State] = frozenset({"stopped", "completed", "failed"})


class IllegalTransition(Exception):
    """A bug in ours, never a user's mistake."""


def check(old: State, new: State) -> State:
    """`new`, if the table allows it after `old`; staying is always allowed."""
    if new != old and new not in TRANSITIONS[old]:
        raise IllegalTransition(f"{old} → {new}")
    return new
