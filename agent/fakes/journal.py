"""The agent's journal in memory. It outlives the loops that use it: `load` again is another start of the agent."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from agent.kit.errors import GoraeError
from agent.ports import Change, JournalState
from agent.wire.messages import Event


class FakeJournal:
    """`failures`: raised by the next calls of record(), one each; `unreadable`: of load(). `changes`: what was
    recorded, in order."""

    def __init__(self, limit: int = 10_000) -> None:
        self.failures: list[GoraeError] = []
        self.unreadable: list[GoraeError] = []
        self.changes: list[Change] = []
        self.assignments: dict[str, str] = {}
        self.records: dict[str, str] = {}
        self.events: list[tuple[int, Event]] = []
        self.bound_store_id: str | None = None
        self.epoch = 0
        self.id = uuid.uuid4().hex
        self._limit = limit
        self._last: tuple[int, str] | None = None
        self._acknowledged = 0

    async def load(self) -> JournalState:
        if self.unreadable:
            raise self.unreadable.pop(0)
        self.epoch += 1
        return JournalState(
            self.id,
            self.epoch,
            self._last is None,
            self.bound_store_id,
            dict(self.assignments),
            dict(self.records),
            self._last,
            self._acknowledged,
        )

    async def record(self, change: Change) -> None:
        if self.failures:
            raise self.failures.pop(0)
        self.changes.append(change)
        _merge(self.assignments, change.assignments)
        _merge(self.records, change.records)
        self.bound_store_id = change.bound_store_id or self.bound_store_id
        known = {event.id for _, event in self.events}
        for event in change.events:
            if event.id not in known:
                seq = (self._last[0] if self._last else 0) + 1
                self._last = (seq, event.id)
                self.events.append((seq, event))
        self._bound()

    def _bound(self) -> None:
        excess = len(self.events) - self._limit
        if excess <= 0:
            return
        gone, self.events = self.events[: excess + 1], self.events[excess + 1 :]
        lost = sum(int(e.evidence.get("lost", 1)) if e.kind == "gap" else 1 for _, e in gone)
        seq, last = gone[-1]
        self.events.insert(0, (seq, gap(last, lost)))

    async def events_after(self, seq: int, limit: int) -> Sequence[tuple[int, Event]]:
        return [entry for entry in self.events if entry[0] > seq][:limit]

    async def forget_events(self, through: int) -> None:
        self.events = [entry for entry in self.events if entry[0] > through]
        self._acknowledged = max(self._acknowledged, through)

    async def close(self) -> None:
        """Nothing is held open."""


def _merge(kept: dict[str, str], change: object) -> None:
    assert hasattr(change, "items")
    for key, value in change.items():
        if value is None:
            kept.pop(key, None)
        else:
            kept[key] = value


def gap(last: Event, lost: int) -> Event:
    """In place of the last one that was forgotten, under its id and number, so that the numbers go on from there."""
    return Event(
        id=last.id,
        at=last.at,
        boot_id=last.boot_id,
        monotonic=last.monotonic,
        kind="gap",
        reason="journal-full",
        message=f"{lost} events were forgotten: nobody took them over",
        evidence={"lost": lost},
    )
