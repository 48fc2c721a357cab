"""Whose assignments does the agent obey, and is this database fit to give them? Pure (design: Identity).

Generations are compared only within one store_id. Three cases: the agent obeys this store (or none yet); this
database is new and the agent obeys another store; this database is an older copy of what the agent has seen. In the
last two, what runs is taken over from the agent's reports before anything is assigned, so no container restarts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from agent.wire.messages import Assignment, HostStatus, Online, Report, StackStatus
from orchestrator.decide.records import Counter, Identity, StackRecord
from orchestrator.decide.rollout import resumed


@dataclass(slots=True)
class Seen:
    """What the agent said in this bus session: the newest of each topic. Nothing older can prove anything."""

    online: Online | None = None
    host: HostStatus | None = None
    statuses: dict[str, StackStatus] = field(default_factory=dict)
    reports: dict[str, Report] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Wait:
    """Not enough is known; `why` names what is missing."""

    why: str


@dataclass(frozen=True, slots=True)
class Bound:
    """Assignments may be published."""


@dataclass(frozen=True, slots=True)
class Rename:
    """This database is a restored copy: it needs a new store_id before it can take over."""

    why: str


@dataclass(frozen=True, slots=True)
class Adopt:
    """The agent's journal is complete: take it over."""

    store_id: str
    assignments: tuple[Assignment, ...]

    @property
    def drained(self) -> bool:
        """Whether the host was."""
        return any(task.desired == "drained" for told in self.assignments for task in told.tasks)


Verdict = Wait | Bound | Rename | Adopt


def judge(identity: Identity, counters: Mapping[str, Counter], cursors: Mapping[str, int], seen: Seen) -> Verdict:
    """What to do next; asked again after every message of the agent. `cursors`: journal → number of the last event
    that was taken over."""
    host = seen.host
    if seen.online is None or not seen.online.online:
        return Wait("the agent is away")
    if host is None or host.epoch != seen.online.epoch:
        return Wait("the agent has not described its host yet")
    bound = host.bound_store_id
    if bound == identity.store_id:
        return _restored(identity, counters, cursors, seen, host) or Bound()
    if bound is None or bound in identity.adopts:
        return Bound()
    if identity.settled:
        return Rename(f"the agent obeys store {bound}, which came after this database's {identity.store_id}")
    for stack, generation in sorted(host.stacks.items()):
        report = seen.reports.get(stack)
        if report is None or report.bound_store_id != bound or report.assignment.generation != generation:
            return Wait(f"the agent has not reported stack {stack} yet")
    return Adopt(bound, tuple(seen.reports[stack].assignment for stack in sorted(host.stacks)))


def _restored(
    identity: Identity, counters: Mapping[str, Counter], cursors: Mapping[str, int], seen: Seen, host: HostStatus
) -> Rename | None:
    taken = cursors.get(host.journal_id, 0)
    if host.acknowledged > taken:  # a cursor is published after it is durable: also a stack that is gone leaves this
        return Rename(
            f"the agent's events were taken over up to {host.acknowledged}, this database has them to {taken}"
        )
    told = dict(host.stacks)
    for stack, status in seen.statuses.items():
        if status.store_id == identity.store_id:
            told[stack] = max(told.get(stack, 0), status.observed_generation)
    for stack, generation in sorted(told.items()):
        known = counters.get(stack, Counter()).generation
        if generation > known:
            return Rename(f"the agent has generation {generation} of stack {stack}, this database only {known}")
    return None


def renamed(identity: Identity, store_id: str) -> Identity:
    return Identity(store_id=store_id, former=(*identity.former, identity.store_id))


def adopted(identity: Identity, store_id: str) -> Identity:
    return replace(identity, adopts=(*identity.adopts, store_id), settled=True)


def take_over(
    records: Mapping[str, StackRecord], identity: Identity, verdict: Adopt, now: float
) -> dict[str, StackRecord]:
    """The records that change. What the agent reports wins, unless this database is a copy from the same line (it was
    called so before) and has a newer generation. A stack that only the database knows is held, not started."""
    same_line = verdict.store_id in identity.former
    changed: dict[str, StackRecord] = {}
    for told in verdict.assignments:
        ours = records.get(told.stack)
        if ours is not None and same_line and ours.generation > told.generation:
            continue
        changed[told.stack] = StackRecord(
            name=told.stack,
            generation=told.generation,
            revision=told.revision,
            model=told.model,
            tasks=tuple(
                task.model_copy(update={"desired": "running"}) if task.desired == "drained" else task
                for task in told.tasks
            ),
            updated_at=now,
            cause=told.cause,
            removed=told.removed,
            remove_volumes=told.remove_volumes,
            virtual=dict(told.virtual),
            rollout=resumed(told.tasks),
        )
    reported = {told.stack for told in verdict.assignments}
    for name, ours in records.items():
        if name not in reported and not ours.held:
            changed[name] = replace(ours, held=True, virtual={})
    taken = {number for record in changed.values() for number in record.virtual.values()}
    for name, ours in records.items():  # newer than what was reported: its next change gives it other addresses
        if name not in changed and not taken.isdisjoint(ours.virtual.values()):
            changed[name] = replace(ours, virtual={s: n for s, n in ours.virtual.items() if n not in taken})
    return changed
