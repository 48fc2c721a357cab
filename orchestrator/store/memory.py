"""The store's in-memory twin, for tests and simulations; passes the same conformance suite as sqlite.py."""

from __future__ import annotations

from collections.abc import Sequence

from agent.kit.errors import GoraeError
from agent.kit.ids import Ulids
from agent.wire.messages import Event, HostStatus, StackStatus
from orchestrator.decide.records import Counter, Identity, Revision, StackRecord
from orchestrator.store.port import KEEP_EVENTS, KEEP_GONE, KEEP_REVISIONS, Change, Loaded


class MemoryStore:
    """`fail`: what the next commits raise, for tests of a full disk."""

    def __init__(self, keep_events: int = KEEP_EVENTS) -> None:
        self.fail: GoraeError | None = None
        self._keep = keep_events
        self._identity = Identity(Ulids().next())
        self._stacks: dict[str, StackRecord] = {}
        self._counters: dict[str, Counter] = {}
        self._revisions: dict[tuple[str, int], Revision] = {}
        self._statuses: dict[str, StackStatus] = {}
        self._cursors: dict[str, int] = {}
        self._host: HostStatus | None = None
        self._drained = 0.0
        self._events: dict[str, Event] = {}

    async def load(self) -> Loaded:
        own = [id for id, event in self._events.items() if event.source == "orchestrator"]
        return Loaded(
            identity=self._identity,
            stacks=dict(sorted(self._stacks.items())),
            counters=dict(self._counters),
            statuses=dict(self._statuses),
            cursors=dict(self._cursors),
            host=self._host,
            last_event=max(own, default=None),
            drained=self._drained,
        )

    async def commit(self, change: Change) -> None:
        if self.fail is not None:
            raise self.fail
        self._identity = change.identity or self._identity
        self._host = change.host or self._host
        self._drained = self._drained if change.drained is None else change.drained
        for revision in change.revisions:
            self._revisions.setdefault((revision.stack, revision.number), revision)
            self._count(revision.stack, 0, revision.number)
        for name, record in change.stacks.items():
            if record is None:
                self._stacks.pop(name, None)
                self._statuses.pop(name, None)
            else:
                self._stacks[name] = record
                self._count(name, record.generation, record.revision)
        used = {(record.name, record.revision) for record in self._stacks.values()}
        for revision in change.revisions:
            for key in [key for key in self._revisions if key[0] == revision.stack and key not in used]:
                if key[1] <= revision.number - KEEP_REVISIONS:
                    del self._revisions[key]
        if None in change.stacks.values():
            gone = [r for r in self._revisions.values() if r.stack not in self._stacks]
            for revision in sorted(gone, key=lambda r: (-r.at, r.stack, -r.number))[KEEP_GONE:]:
                del self._revisions[revision.stack, revision.number]
        if change.forget_statuses:
            self._statuses.clear()
        for name, status in change.statuses.items():
            kept = self._statuses.get(name)
            newer = kept is None or (status.epoch, status.seq) > (kept.epoch, kept.seq)
            if name in self._stacks and newer:
                self._statuses[name] = status
        for event in change.events:
            self._events.setdefault(event.id, event)
        for id in sorted(self._events)[: -self._keep]:
            del self._events[id]
        if change.cursor is not None:
            self._cursors[change.cursor.journal_id] = change.cursor.seq

    def _count(self, stack: str, generation: int, revision: int) -> None:
        known = self._counters.get(stack, Counter())
        self._counters[stack] = Counter(max(known.generation, generation), max(known.revision, revision))

    async def revision(self, stack: str, number: int) -> Revision | None:
        return self._revisions.get((stack, number))

    async def revisions(self, stack: str) -> Sequence[Revision]:
        return [self._revisions[key] for key in sorted(self._revisions) if key[0] == stack]

    async def events(
        self,
        *,
        stack: str | None = None,
        services: Sequence[str] = (),
        since: float | None = None,
        limit: int = 1000,
        after: str | None = None,
    ) -> Sequence[Event]:
        kept = list(self._events)
        later = kept[kept.index(after) + 1 :] if after in self._events else kept
        found = [
            event
            for event in (self._events[id] for id in sorted(later))
            if (stack is None or event.stack == stack)
            and (not services or event.service in services)
            and (since is None or event.at >= since)
        ]
        return found[max(len(found) - limit, 0) :]

    async def close(self) -> None:
        pass
