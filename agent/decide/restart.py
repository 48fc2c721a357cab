"""Policy × what happened → what to do: one table, and the arithmetic of the delay.

`default` is what a Compose file without `restart:` gets. Compose itself would leave a hung service hanging; here exits
are final, but a failed health check restarts, and what was running comes back at boot.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from agent.kit import backoff
from agent.wire.messages import Restart

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
    "host-rebooted",  # it was running when the host went down
    "rested-well",  # at boot: it had completed
    "rested-badly",  # at boot: it had failed
    "user-stop",
    "user-start",
    "restart-request",
    "agent-restart",  # it ran on; it is adopted
]
Outcome = Literal["again", "at-once", "completed", "failed", "stopped", "leave"]

_SAME: dict[Happened, Outcome] = {
    "start-failed": "again",
    "cannot-start": "failed",
    "conmon-lost": "again",
    "network-renewed": "at-once",
    "user-stop": "stopped",
    "user-start": "at-once",
    "restart-request": "at-once",
    "agent-restart": "leave",
}

TABLE: dict[Condition, dict[Happened, Outcome]] = {
    "default": {
        **_SAME,
        "exit-0": "completed",
        "exit-error": "failed",
        "oom": "failed",
        "unhealthy": "again",
        "host-rebooted": "at-once",
        "rested-well": "leave",
        "rested-badly": "leave",
    },
    "no": {
        **_SAME,
        "exit-0": "completed",
        "exit-error": "failed",
        "oom": "failed",
        "unhealthy": "leave",  # to stop it and leave it down would be worse
        "host-rebooted": "failed",
        "rested-well": "leave",
        "rested-badly": "leave",
    },
    "on-failure": {
        **_SAME,
        "exit-0": "completed",
        "exit-error": "again",
        "oom": "again",
        "unhealthy": "again",
        "host-rebooted": "at-once",
        "rested-well": "leave",
        "rested-badly": "at-once",
    },
    "always": {
        **_SAME,
        "exit-0": "again",
        "exit-error": "again",
        "oom": "again",
        "unhealthy": "again",
        "host-rebooted": "at-once",
        "rested-well": "at-once",
        "rested-badly": "at-once",
    },
    "unless-stopped": {
        **_SAME,
        "exit-0": "again",
        "exit-error": "again",
        "oom": "again",
        "unhealthy": "again",
        "host-rebooted": "at-once",
        "rested-well": "at-once",
        "rested-badly": "at-once",
    },
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
    policy: Restart, happened: Happened, *, ran: float | None, failures: int, retries: int, roll: float
) -> Verdict:
    """`ran`: seconds the attempt ran, None if it never did. `roll` in [0, 1): the caller's random number."""
    outcome = TABLE[policy.condition][happened]
    rule = f"{happened} → {outcome} ({policy.condition})"
    if outcome != "again":
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
                f"{happened} → no more than {policy.max_attempts} restarts ({policy.condition})",
            )
        retries += 1
    # An attempt that had to be stopped as unhealthy was not stable, however long it ran.
    stable = ran is not None and ran >= STABLE and happened != "unhealthy"
    failures = 0 if stable else failures + 1
    delay = backoff.delay(failures, first=FIRST, cap=CAP, jitter=JITTER, roll=roll)
    return Verdict("again", max(delay, policy.delay or 0.0), failures, retries, rule)
