"""What every Journal promises; run against the real one and the fake."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.fakes.journal import FakeJournal
from agent.journal.journal import SqliteJournal
from agent.kit.ids import Ulids
from agent.ports import Change, Journal
from agent.wire.messages import Event

ULIDS = Ulids()


def event(kind: str = "task.exited", **fields: object) -> Event:
    return Event(id=ULIDS.next(), at=1.0, kind=kind, **fields)  # type: ignore[arg-type]


@pytest.fixture(params=["sqlite", "fake"])
async def journal(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Journal]:
    made: Journal = (
        SqliteJournal(tmp_path / "agent" / "journal.db", limit=10, slack=0)
        if request.param == "sqlite"
        else FakeJournal(limit=10)
    )
    await made.load()
    yield made
    await made.close()


async def test_what_was_recorded_is_loaded(journal: Journal) -> None:
    happened = event()
    await journal.record(
        Change(assignments={"shop": "{}"}, records={"t1": "1", "t2": "2"}, events=[happened], bound_store_id="S1")
    )
    await journal.record(Change(records={"t1": "3", "t2": None}))
    state = await journal.load()
    assert (state.assignments, state.records, state.bound_store_id) == ({"shop": "{}"}, {"t1": "3"}, "S1")
    assert state.last_event == (1, happened.id)


async def test_each_load_is_another_epoch_of_the_same_journal(journal: Journal) -> None:
    first, second = await journal.load(), await journal.load()
    assert second.epoch == first.epoch + 1 and second.journal_id == first.journal_id


async def test_a_journal_is_fresh_until_something_happened(journal: Journal) -> None:
    assert (await journal.load()).fresh, "however often it was opened"
    await journal.record(Change(events=[event()]))
    await journal.forget_events(1)
    assert not (await journal.load()).fresh


async def test_a_change_leaves_alone_what_it_does_not_name(journal: Journal) -> None:
    await journal.record(Change(assignments={"a": "1", "b": "2"}, bound_store_id="S1"))
    await journal.record(Change(assignments={"a": None}))
    await journal.record(Change())
    state = await journal.load()
    assert (state.assignments, state.bound_store_id) == ({"b": "2"}, "S1")


async def test_events_are_numbered_without_holes(journal: Journal) -> None:
    events = [event() for _ in range(6)]
    await journal.record(Change(events=events[:2]))
    await journal.record(Change(events=events[2:]))
    assert await journal.events_after(0, 100) == list(enumerate(events, 1))
    assert await journal.events_after(2, 2) == [(3, events[2]), (4, events[3])]


async def test_numbers_go_on_after_everything_was_forgotten(journal: Journal) -> None:
    await journal.record(Change(events=[event(), event()]))
    await journal.forget_events(2)
    last = event()
    await journal.record(Change(events=[last]))
    assert await journal.events_after(2, 100) == [(3, last)]
    assert (await journal.load()).last_event == (3, last.id)


async def test_the_last_event_is_known_even_when_it_was_forgotten(journal: Journal) -> None:
    last = event()
    await journal.record(Change(events=[event(), last]))
    await journal.forget_events(2)
    state = await journal.load()
    assert (state.last_event, state.acknowledged) == ((2, last.id), 2)


async def test_the_highest_acknowledged_number_is_kept(journal: Journal) -> None:
    await journal.record(Change(events=[event() for _ in range(12)]))
    for through in (3, 11, 9):
        await journal.forget_events(through)
    assert (await journal.load()).acknowledged == 11


async def test_an_event_said_twice_is_kept_once(journal: Journal) -> None:
    same = event()
    await journal.record(Change(events=[same]))
    await journal.record(Change(events=[same, event()]))
    assert [seq for seq, _ in await journal.events_after(0, 100)] == [1, 2]


async def test_what_nobody_takes_is_cut_with_a_gap_that_counts(journal: Journal) -> None:
    for number in range(25):
        await journal.record(Change(events=[event(message=str(number))]))
    kept = await journal.events_after(0, 100)
    assert len(kept) == 10
    seq, gap = kept[0]
    assert (gap.kind, gap.evidence, seq) == ("gap", {"lost": 16}, 16)
    assert [number for number, _ in kept] == list(range(16, 26))
    assert [e.message for _, e in kept[1:]] == [str(number) for number in range(16, 25)]


async def test_many_at_once(journal: Journal) -> None:
    await asyncio.gather(*(journal.record(Change(records={f"t{number}": str(number)})) for number in range(200)))
    assert len((await journal.load()).records) == 200


async def test_concurrent_changes_of_one_record_keep_their_order(journal: Journal) -> None:
    await asyncio.gather(*(journal.record(Change(records={"t1": str(number)})) for number in range(50)))
    assert (await journal.load()).records == {"t1": "49"}
