"""What the orchestrator asks of its database. Two implementations, sqlite.py and memory.py, pass one conformance suite.

Everything that belongs together is one Change, and one transaction. What commit() has returned from survives a power
cut; what it raised for has not happened.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from agent.wire.messages import Cursor, Event, HostStatus, StackStatus
from orchestrator.decide.records import Counter, Identity, Revision, StackRecord

KEEP_EVENTS = 100_000  # the newest stay
KEEP_REVISIONS = 100  # of each stack, the newest; the one in use always
KEEP_GONE = 1000  # revisions of stacks that are gone, the newest of all of them together


@dataclass(frozen=True, slots=True)
class Change:
    """None and empty: leave alone. A stack set to None is deleted, with its status; its revisions and events
    stay, as many as are kept.

    Statuses of no stack, or not newer than the kept one by (epoch, seq), are dropped; `forget_statuses` first drops all
    (the agent's journal is a new one, and so is its count of epochs). `drained`: Unix seconds, 0.0: it is not (any
    more).
    """

    identity: Identity | None = None
    stacks: Mapping[str, StackRecord | None] = field(default_factory=dict)
    revisions: Sequence[Revision] = ()  # one that exists is never changed
    statuses: Mapping[str, StackStatus] = field(default_factory=dict)
    forget_statuses: bool = False
    events: Sequence[Event] = ()  # an id that exists is not taken again
    cursor: Cursor | None = None
    host: HostStatus | None = None
    drained: float | None = None


@dataclass(frozen=True, slots=True)
class Loaded:
    """Everything small, at the start. `last_event`: the highest event id of the orchestrator's own. `drained`: since
    when the host is; 0.0: it is not."""

    identity: Identity
    stacks: dict[str, StackRecord]
    counters: dict[str, Counter]
    statuses: dict[str, StackStatus]
    cursors: dict[str, int]  # journal_id → seq
    host: HostStatus | None
    last_event: str | None
    drained: float = 0.0


class Store(Protocol):
    async def load(self) -> Loaded: ...

    async def commit(self, change: Change) -> None:
        """All of it or nothing; durable on return. Temporary disk-full, store-failed; Permanent store-corrupt."""

    async def revision(self, stack: str, number: int) -> Revision | None: ...

    async def revisions(self, stack: str) -> Sequence[Revision]:
        """Oldest first."""

    async def events(
        self,
        *,
        stack: str | None = None,
        services: Sequence[str] = (),
        since: float | None = None,
        limit: int = 1000,
        after: str | None = None,
    ) -> Sequence[Event]:
        """The newest `limit` that match, oldest first (by id, which grows with time). No `services`: of all.
        `after`: an event's id; those that were committed after it alone, or all, if it is not kept any more."""

    async def close(self) -> None: ...
