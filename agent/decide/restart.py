"""Policy × what happened → what to do: one table, and the arithmetic of the delay.

`default` is what a Compose file without `restart:` gets. Compose itself would leave a hung service hanging; here exits
are final, but a failed health check restarts, and what was running comes back at boot. docs/task-model.md shows these
tables as they are (diagram.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from agent.kit import backoff
from agent.wire.messages import OnUnhealthy, Restart

Condition = Literal["default", "no", "on-failure", "always", "unless-stopped"]
Happened = Literal[
    "exit-0",
    "exit-error",  # any other code, a signal, or an end nobody saw
    "oom",
    "unhealthy",
    "start-failed",  # for now: may work later
    "cannot-start",  # never, unchanged: no such command
    "conmon-lost",  # the process runs on, without log and exit code
    "network-renewed",  # of another task, which it shares: what it is in now leads nowhere
    "dependency-restarted",  # by the user or an update, not by itself; for depends_on with restart: true
    "agent-restart",  # it ran on; it is adopted
    "host-rebooted",  # it was running when the host went down
    "rested-well",  # at boot: it had completed
    "rested-badly",  # at boot: it had failed
    "user-stop",
    "user-start",
    "restart-request",
    "up-running",  # `gorae up` of an unchanged file, and what it finds (orchestrator/decide/plan.py)
    "up-completed",
    "up-failed",
    "up-stopped",
]
Outcome = Literal["again", "anew", "at-once", "completed", "failed", "stopped", "leave"]

_ALWAYS: dict[Happened, Outcome] = {  # whatever the policy
    "start-failed": "again",
    "cannot-start": "failed",
    "conmon-lost": "again",
    "network-renewed": "at-once",
    "dependency-restarted": "at-once",
    "agent-restart": "leave",
    "user-stop": "stopped",
    "user-start": "at-once",
    "restart-request": "at-once",
    "up-running": "leave",
    "up-completed": "leave",
    "up-failed": "at-once",
    "up-stopped": "at-once",
}
_PERSISTENT: dict[Happened, Outcome] = {
    **_ALWAYS,
    "exit-0": "again",
    "exit-error": "again",
    "oom": "again",
    "unhealthy": "again",
    "host-rebooted": "at-once",
    "rested-well": "at-once",
    "rested-badly": "at-once",
}

TABLE: dict[Condition, dict[Happened, Outcome]] = {
    "default": {
        **_ALWAYS,
        "exit-0": "completed",
        "exit-error": "failed",
        "oom": "failed",
        "unhealthy": "again",
        "host-rebooted": "at-once",
        "rested-well": "leave",
        "rested-badly": "leave",
    },
    "no": {
        **_ALWAYS,
        "exit-0": "completed",
        "exit-error": "failed",
        "oom": "failed",
        "unhealthy": "leave",  # to stop it and leave it down would be worse
        "host-rebooted": "failed",
        "rested-well": "leave",
        "rested-badly": "leave",
    },
    "on-failure": {
        **_ALWAYS,
        "exit-0": "completed",
        "exit-error": "again",
        "oom": "again",
        "unhealthy": "again",
        "host-rebooted": "at-once",
        "rested-well": "leave",
        "rested-badly": "at-once",
    },
    "always": _PERSISTENT,
    "unless-stopped": _PERSISTENT,
}

# x-gorae-on-unhealthy, where a file has it, in place of the row "unhealthy".
UNHEALTHY: dict[OnUnhealthy, Outcome] = {"restart": "again", "recreate": "anew", "stop": "failed", "none": "leave"}

SAYS: dict[Happened, str] = {  # each row for people, in the order of the document
    "exit-0": "exit 0",
    "exit-error": "exit ≠ 0, or killed",
    "oom": "killed: out of memory",
    "unhealthy": "health check failed",
    "dependency-restarted": "dependency restarted (`restart: true`)",
    "agent-restart": "the agent was restarted",
    "host-rebooted": "the host was rebooted: it ran",
    "rested-well": "the host was rebooted: it had completed",
    "rested-badly": "the host was rebooted: it had failed",
    "user-stop": "stopped by the user",
    "user-start": "started by the user",
    "restart-request": "restart asked for by the user",
    "up-running": "`up` again: it runs",
    "up-completed": "`up` again: it had completed",
    "up-failed": "`up` again: it had failed",
    "up-stopped": "`up` again: it was stopped by the user",
    "start-failed": "it cannot be started for now",
    "cannot-start": "it can never be started (no such command)",
    "conmon-lost": "monitor (conmon) lost",
    "network-renewed": "the network it shares was made anew",
}

STABLE = 10.0  # seconds an attempt must run for its failures to be forgotten
FIRST, CAP, JITTER = 0.1, 60.0, 0.1  # seconds, seconds, share

# Counted against max_attempts: the program's own failures, not the host's or the agent's troubles.
_COUNTED: frozenset[Happened] = frozenset({"exit-0", "exit-error", "oom", "unhealthy"})


@dataclass(frozen=True, slots=True)
class Verdict:
    """`delay`: seconds to the next attempt. failures, retries: the record's new counts."""

    outcome: Outcome
    delay: float
    failures: int
    retries: int
    rule: str  # "exit-error → again (always)", for people


def judge(
    policy: Restart,
    happened: Happened,
    *,
    ran: float | None,
    failures: int,
    retries: int,
    roll: float,
    on_unhealthy: OnUnhealthy | None = None,
) -> Verdict:
    """`ran`: seconds the attempt ran, None if it never did, or never was healthy. `roll` in [0, 1): the caller's
    random number. `on_unhealthy` None: the file does not say."""
    outcome, by = TABLE[policy.condition][happened], str(policy.condition)
    if happened == "unhealthy" and on_unhealthy is not None:
        outcome, by = UNHEALTHY[on_unhealthy], f"x-gorae-on-unhealthy: {on_unhealthy}"
    rule = f"{happened} → {outcome} ({by})"
    if outcome not in ("again", "anew"):
        return Verdict(outcome, 0.0, 0, 0 if outcome == "at-once" else retries, rule)
    if policy.window is not None and ran is not None and ran >= policy.window:
        retries = 0  # deploy.restart_policy.window: the restart before this one has succeeded
    if happened in _COUNTED:
        if policy.max_attempts is not None and retries >= policy.max_attempts:
            return Verdict(
                "completed" if happened == "exit-0" else "failed",
                0.0,
                failures,
                retries,
                f"{happened} → no more than {policy.max_attempts} restarts ({by})",
            )
        retries += 1
    stable = ran is not None and ran >= STABLE
    failures = 0 if stable else failures + 1
    delay = backoff.delay(failures, first=FIRST, cap=CAP, jitter=JITTER, roll=roll)
    return Verdict(outcome, max(delay, policy.delay or 0.0), failures, retries, rule)
