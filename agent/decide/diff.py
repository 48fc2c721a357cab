"""Assigned × journalled × observed: what is an orphan, and what to believe after an absence.

An orphan is something of this instance that nothing accounts for. What is found when the journal was lost is *not* an
orphan but a stranger: until an assignment of its stack says otherwise it is left alone, because absence never means
remove. Strangers are written into the new journal, as such.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field, replace

from agent.decide.record import TaskRecord
from agent.decide.view import Seen
from agent.kit.pools import TASKS
from agent.ports import Found


@dataclass(frozen=True, slots=True)
class Observed:
    """One look at the host: task → attempts, and the tasks that have each kind of part."""

    attempts: Mapping[str, tuple[Found, ...]] = field(default_factory=dict)
    sandboxes: frozenset[str] = frozenset()
    rootfs: frozenset[str] = frozenset()
    mounts: frozenset[str] = frozenset()
    network: frozenset[str] = frozenset()

    @property
    def parts(self) -> frozenset[str]:
        """Tasks that have more than attempts."""
        return self.sandboxes | self.rootfs | self.mounts | self.network

    def seen(self, task: str) -> Seen:
        """Nothing is believed to be prepared or published: ensuring it again costs little and is always right."""
        return Seen(attempts=self.attempts.get(task, ()), leftovers=task in self.parts)


def observed(
    found: Iterable[Found],
    *,
    sandboxes: Iterable[str],
    rootfs: Iterable[str],
    mounts: Iterable[str],
    network: Iterable[str],
) -> Observed:
    attempts: dict[str, tuple[Found, ...]] = {}
    for one in sorted(found, key=lambda f: (f.task, f.attempt)):
        attempts[one.task] = (*attempts.get(one.task, ()), one)
    return Observed(attempts, frozenset(sandboxes), frozenset(rootfs), frozenset(mounts), frozenset(network))


def orphans(
    accounted: Iterable[str], seen: Observed, strangers: Mapping[str, str], stacks: Set[str]
) -> tuple[str, ...]:
    """`accounted`: tasks assigned or journalled. `strangers`: task → stack, of what was found without a journal; they
    are orphans once `stacks`, those with an accepted assignment, include theirs."""
    spared = {task for task, stack in strangers.items() if stack not in stacks}
    return tuple(sorted((set(seen.attempts) | seen.parts) - set(accounted) - spared))


def adopted(record: TaskRecord, attempts: tuple[Found, ...], boot: str, now: float) -> TaskRecord | None:
    """The record that fits an attempt which runs but which the journal does not know, or None if it needs none.

    Happens when the journal was lost, or is older than what runs: what is observed wins.
    """
    alive = [f for f in attempts if f.process is not None]
    newest = max(alive, key=lambda f: f.attempt, default=None)
    if newest is None or (record.attempt >= newest.attempt and record.state != "pending"):
        return None
    return replace(
        record,
        state="running",
        since=now,
        attempt=newest.attempt,
        process=newest.process,
        boot=boot,
        met=boot,
        started_at=now,
        until=None,
        stop=None,
        reason="adopted",
        message="found running",
    )


_STRANGER = "stranger"


def dump_stranger(stack: str) -> str:
    """In the journal, in place of the record that a stranger has not."""
    return json.dumps({_STRANGER: stack})


def load_stranger(document: str) -> str | None:
    """The stack of a stranger; None: the document is something else."""
    try:
        found = json.loads(document)
    except ValueError:
        return None
    stack = found.get(_STRANGER) if isinstance(found, dict) else None
    return stack if isinstance(stack, str) else None


def free_index(taken: Set[int], start: int) -> int | None:
    """The next free allocation index from `start` on: a freed address is not given out again at once, so that a late
    packet or a cached name does not meet a stranger. None: all are taken."""
    return next((i % TASKS for i in range(start, start + TASKS) if i % TASKS not in taken), None)
