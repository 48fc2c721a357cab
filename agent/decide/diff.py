"""Assigned × journalled × observed: which tasks need a worker, what is an orphan, and what to believe after an absence.

An orphan is something of this instance that nothing accounts for. When the journal was lost, what runs is *not* an
orphan: until an assignment of its stack says otherwise it is left alone, because absence never means remove.
"""

from __future__ import annotations

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


@dataclass(frozen=True, slots=True)
class Diff:
    workers: tuple[str, ...]
    orphans: tuple[str, ...]
    strangers: tuple[str, ...]  # of a stack we know nothing of


def diff(
    assigned: Iterable[str],
    journalled: Iterable[str],
    seen: Observed,
    owner: Mapping[str, str | None],
    stacks: Set[str],
) -> Diff:
    """`owner`: task → its stack, where the host still tells; `stacks`: those with an accepted assignment."""
    workers = set(assigned) | set(journalled)
    unknown = (set(seen.attempts) | seen.parts) - workers
    strangers = {task for task in unknown if owner.get(task) is not None and owner[task] not in stacks}
    return Diff(tuple(sorted(workers)), tuple(sorted(unknown - strangers)), tuple(sorted(strangers)))


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


def free_index(taken: Set[int], start: int) -> int | None:
    """The next free allocation index from `start` on: a freed address is not given out again at once, so that a late
    packet or a cached name does not meet a stranger. None: all are taken."""
    return next((i % TASKS for i in range(start, start + TASKS) if i % TASKS not in taken), None)
