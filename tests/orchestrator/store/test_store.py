"""One conformance suite for the store and its twin; then what only a disk can do."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.kit.clock import FakeClock
from agent.kit.errors import Permanent, Temporary, UserError
from agent.kit.ids import Ulids
from agent.wire.messages import Cursor, Event, StackStatus
from orchestrator.decide.records import Counter, Identity, Revision, StackRecord
from orchestrator.store import rows
from orchestrator.store.ledger import Ledger
from orchestrator.store.memory import MemoryStore
from orchestrator.store.port import Change, Store
from orchestrator.store.schema import MIGRATIONS
from orchestrator.store.sqlite import SqliteStore
from tests.orchestrator.decide.test_plan import up
from tests.orchestrator.decide.test_schedule import host
from tests.support.orchestrating import stack

MODEL = stack(web={"image": "web:1", "replicas": 2})
RECORD = StackRecord("shop", 3, 2, MODEL.model_dump(mode="json", exclude_defaults=True), up(MODEL).tasks, 5.0, "e1")
RECORD = replace(RECORD, virtual={"web": 7, "db": 1007})
REVISION = Revision("shop", 2, 5.0, 1000, RECORD.model)
ULIDS = Ulids()

Make = Callable[..., Awaitable[Store]]


@pytest.fixture(params=["sqlite", "memory"])
async def make(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Make]:
    made: list[Store] = []

    async def make(**options: Any) -> Store:
        if request.param == "memory":
            store: Store = MemoryStore(**options)
        else:
            store = await SqliteStore.open(tmp_path / "o.db", **options)
        made.append(store)
        return store

    yield make
    for store in made:
        await store.close()


@pytest.fixture
async def store(make: Make) -> Store:
    return await make()


def status(epoch: int, seq: int, name: str = "shop") -> StackStatus:
    return StackStatus(store_id="s", stack=name, observed_generation=1, epoch=epoch, seq=seq)


def event(**fields: Any) -> Event:
    return Event(id=ULIDS.next(1.0), **{"at": 1.0, "kind": "task.started", **fields})


async def test_a_new_store_is_empty_and_somebody(store: Store) -> None:
    loaded = await store.load()
    assert loaded.identity.store_id
    assert loaded.identity == Identity(loaded.identity.store_id)
    assert (loaded.stacks, loaded.counters, loaded.statuses, loaded.cursors, loaded.host) == ({}, {}, {}, {}, None)


async def test_everything_comes_back_as_it_was(store: Store) -> None:
    identity = Identity("new", former=("a",), adopts=("b", "c"), settled=True)
    told = event(source="orchestrator", stack="shop")
    change = Change(
        identity=identity,
        stacks={"shop": RECORD},
        revisions=[REVISION],
        statuses={"shop": status(1, 1)},
        events=[told],
        cursor=Cursor(journal_id="j", seq=7),
        host=host(),
        drained=9.5,
    )
    await store.commit(change)
    await store.commit(Change(events=[event()]))  # what is not said is left alone
    loaded = await store.load()
    assert loaded.identity == identity
    assert loaded.stacks == {"shop": RECORD}
    assert loaded.counters == {"shop": Counter(3, 2)}
    assert loaded.statuses == {"shop": status(1, 1)}
    assert (loaded.cursors, loaded.host, loaded.last_event, loaded.drained) == ({"j": 7}, host(), told.id, 9.5)
    await store.commit(Change(drained=0.0))
    assert (await store.load()).drained == 0.0
    assert await store.revision("shop", 2) == REVISION
    assert await store.revision("shop", 1) is None


async def test_a_stack_is_replaced_whole(store: Store) -> None:
    await store.commit(Change(stacks={"shop": RECORD}, revisions=[REVISION]))
    after = replace(RECORD, generation=4, tasks=RECORD.tasks[1:], removed=True, remove_volumes=True, held=True)
    await store.commit(Change(stacks={"shop": after}))
    assert (await store.load()).stacks == {"shop": after}


async def test_what_is_removed_leaves_its_numbers_revisions_and_events(store: Store) -> None:
    told = event(stack="shop")
    await store.commit(
        Change(stacks={"shop": RECORD}, revisions=[REVISION], events=[told], statuses={"shop": status(1, 1)})
    )
    await store.commit(Change(stacks={"shop": None}))
    loaded = await store.load()
    assert (loaded.stacks, loaded.statuses, loaded.counters) == ({}, {}, {"shop": Counter(3, 2)})
    assert list(await store.revisions("shop")) == [REVISION]
    assert list(await store.events(stack="shop")) == [told]


async def test_a_revision_never_changes(store: Store) -> None:
    await store.commit(Change(revisions=[REVISION]))
    await store.commit(Change(revisions=[replace(REVISION, model={"other": 1}), replace(REVISION, number=3)]))
    assert list(await store.revisions("shop")) == [REVISION, replace(REVISION, number=3)]


@pytest.mark.parametrize(
    ("messages", "kept"),
    [
        ([(1, 1), (1, 2)], (1, 2)),
        ([(1, 2), (1, 1)], (1, 2)),
        ([(1, 9), (2, 1)], (2, 1)),
        ([(2, 1), (1, 9)], (2, 1)),
    ],
    ids=["newer", "older", "later epoch", "earlier epoch"],
)
async def test_a_status_that_is_not_newer_is_dropped(
    store: Store, messages: list[tuple[int, int]], kept: tuple[int, int]
) -> None:
    await store.commit(Change(stacks={"shop": RECORD}, revisions=[REVISION]))
    for epoch, seq in messages:
        await store.commit(Change(statuses={"shop": status(epoch, seq), "ghost": status(1, 1, "ghost")}))
    assert (await store.load()).statuses == {"shop": status(*kept)}
    await store.commit(Change(forget_statuses=True, statuses={"shop": status(0, 1)}))
    assert (await store.load()).statuses == {"shop": status(0, 1)}


async def test_events_are_found_in_order_and_taken_once(store: Store) -> None:
    web, db, other = (
        event(stack="shop", service="web", at=1.0),
        event(stack="shop", service="db", at=2.0),
        event(at=3.0),
    )
    await store.commit(Change(events=[other, web]))
    await store.commit(Change(events=[db, web]))
    assert list(await store.events()) == [web, db, other]
    assert list(await store.events(stack="shop")) == [web, db]
    assert list(await store.events(stack="shop", services=("db",))) == [db]
    assert list(await store.events(since=2.0)) == [db, other]
    assert list(await store.events(limit=2)) == [db, other]
    assert list(await store.events(limit=0)) == []


async def test_only_the_newest_events_stay(make: Make) -> None:
    store = await make(keep_events=10)
    made = [event() for _ in range(25)]
    for one in made:
        await store.commit(Change(events=[one]))
    kept = list(await store.events())
    assert kept == made[-len(kept) :]
    assert 10 <= len(kept) < 20


async def test_only_the_newest_revisions_stay_and_those_in_use(store: Store) -> None:
    await store.commit(Change(stacks={"shop": RECORD}, revisions=[REVISION]))
    for number in range(3, 120):
        await store.commit(Change(revisions=[replace(REVISION, number=number)]))
    assert [r.number for r in await store.revisions("shop")] == [2, *range(20, 120)]
    for number in range(120, 123):
        used = replace(RECORD, revision=number)
        await store.commit(Change(stacks={"shop": used}, revisions=[replace(REVISION, number=number)]))
    assert [r.number for r in await store.revisions("shop")] == list(range(23, 123))


async def test_of_stacks_that_are_gone_only_the_newest_revisions_stay(store: Store) -> None:
    gone = [Revision(f"s{number}", 1, float(number), None, {}) for number in range(1005)]
    await store.commit(Change(stacks={"shop": RECORD}, revisions=[replace(REVISION, at=-1.0), *gone]))
    await store.commit(Change(stacks={"s3": None}))
    kept = [revision.stack for revision in gone if await store.revision(revision.stack, 1)]
    assert kept == [f"s{number}" for number in range(5, 1005)]
    assert await store.revision("shop", 2)
    assert (await store.load()).counters["s0"] == Counter(0, 1)


# What only a disk can do ------------------------------------------------------------------------------------------


async def test_the_disk_is_as_safe_as_promised(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "o.db")
    found = {name: (await store._rows(f"PRAGMA {name}"))[0][0] for name in ("journal_mode", "synchronous")}
    assert found == {"journal_mode": "wal", "synchronous": 2}
    assert (await store._rows("PRAGMA foreign_keys"))[0][0] == 1
    assert (await store._rows("PRAGMA user_version"))[0][0] == len(MIGRATIONS)
    await store.close()


async def test_old_events_go_however_often_it_is_opened(tmp_path: Path) -> None:
    for _ in range(5):
        store = await SqliteStore.open(tmp_path / "o.db", keep_events=10)
        await store.commit(Change(events=[event() for _ in range(6)]))
        count = len(await store.events())
        await store.close()
    assert count <= 12


async def test_a_reader_sees_no_transaction_that_is_under_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = await SqliteStore.open(tmp_path / "o.db")
    read: list[asyncio.Task[Any]] = []

    async def fail(added: int) -> None:
        read.append(asyncio.create_task(store.events()))
        await asyncio.sleep(0.05)
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(store, "_sweep", fail)
    with pytest.raises(Temporary):
        await store.commit(Change(events=[event()]))
    assert await read[0] == []
    await store.close()


async def test_a_row_that_makes_no_sense_is_damage(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "o.db")
    await store.commit(Change(stacks={"shop": RECORD}, revisions=[REVISION]))
    await store._db.execute("UPDATE tasks SET document = '{}'")
    with pytest.raises(Permanent, match="the database is damaged") as caught:
        await store.load()
    assert (caught.value.code, "move the file away" in caught.value.hint) == ("store-corrupt", True)
    await store.close()


async def test_a_database_is_opened_again_with_the_same_identity(tmp_path: Path) -> None:
    first = await SqliteStore.open(tmp_path / "o.db")
    await first.commit(Change(stacks={"shop": RECORD}, revisions=[REVISION]))
    identity = (await first.load()).identity
    await first.close()
    second = await SqliteStore.open(tmp_path / "o.db")
    loaded = await second.load()
    await second.close()
    assert (loaded.identity, loaded.stacks) == (identity, {"shop": RECORD})


async def test_a_change_that_fails_half_way_leaves_nothing(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "o.db")
    twin = replace(RECORD, name="twin")  # the same task ids again: refused by the last statement
    with pytest.raises(Temporary):
        await store.commit(
            Change(
                stacks={"shop": RECORD, "twin": twin},
                revisions=[REVISION, replace(REVISION, stack="twin")],
                events=[event()],
            )
        )
    loaded = await store.load()
    assert (loaded.stacks, loaded.counters) == ({}, {})
    assert list(await store.events()) == []
    await store.commit(Change(stacks={"shop": RECORD}, revisions=[REVISION]))
    await store.close()


async def test_a_full_disk_is_said_and_nothing_is_acknowledged(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "o.db")
    ledger = await Ledger.open(store, FakeClock())
    await ledger.commit(Change(stacks={"shop": RECORD}, revisions=[REVISION]))
    pages = (await store._rows("PRAGMA page_count"))[0][0]
    await store._rows(f"PRAGMA max_page_count = {pages}")
    after = replace(RECORD, generation=4)
    with pytest.raises(Temporary) as caught:
        await ledger.commit(Change(stacks={"shop": after}, events=[event(message="x" * 20_000) for _ in range(5)]))
    assert caught.value.code == "disk-full"
    assert "the disk is full" in caught.value.message
    assert ledger.stacks == {"shop": RECORD} == (await store.load()).stacks
    assert ledger.counters == {"shop": Counter(3, 2)}
    await store._rows("PRAGMA max_page_count = 1000000")
    await ledger.commit(Change(stacks={"shop": after}))
    assert ledger.stacks == (await store.load()).stacks == {"shop": after}
    await store.close()


@pytest.mark.parametrize(
    ("room", "flags", "said", "code"),
    [
        pytest.param(9, 0, "disk I/O error", "store-failed", id="broken"),
        pytest.param(0, 0, "the disk is full", "disk-full", id="no room for the files beside it"),
        pytest.param(9, os.ST_RDONLY, "the file system of /srv is read-only", "store-failed", id="read-only"),
    ],
)
def test_what_is_wrong_with_the_disk_is_said(
    monkeypatch: pytest.MonkeyPatch, room: int, flags: int, said: str, code: str
) -> None:
    found = os.statvfs_result((4096, 4096, 99, room, room, 99, 9, 9, flags, 255))
    monkeypatch.setattr(os, "statvfs", lambda _: found)
    error = rows.wrapped(sqlite3.OperationalError("disk I/O error"), "open", Path("/srv/o.db"))
    assert (error.message, error.code) == (f"cannot open /srv/o.db: {said}", code)


async def test_a_database_of_before_virtual_addresses_is_taken_up(tmp_path: Path) -> None:
    path = tmp_path / "o.db"
    with sqlite3.connect(path) as db:
        db.executescript(f"{MIGRATIONS[0]}; PRAGMA user_version = 1")
        db.execute("INSERT INTO revisions VALUES ('shop', 1, 1.0, 0, '{}')")
        db.execute("INSERT INTO stacks VALUES ('shop', 1, 1, 1.0, NULL, 0, 0, 0)")
    store = await SqliteStore.open(path)
    loaded = await store.load()
    assert (loaded.stacks["shop"].generation, loaded.stacks["shop"].virtual) == (1, {})
    await store.close()


async def test_a_later_versions_database_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "o.db") as db:
        db.execute("PRAGMA user_version = 999")
    db.close()
    with pytest.raises(UserError) as caught:
        await SqliteStore.open(tmp_path / "o.db")
    assert caught.value.code == "store-newer"


async def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "o.db").write_bytes(b"this is no database, whatever it may be called" * 100)
    with pytest.raises(Permanent) as caught:
        await SqliteStore.open(tmp_path / "o.db")
    assert caught.value.code == "store-corrupt"
    assert str(tmp_path / "o.db") in caught.value.message


# The ledger ---------------------------------------------------------------------------------------------------------


async def test_memory_is_never_ahead_of_the_disk() -> None:
    store = MemoryStore()
    ledger = await Ledger.open(store, FakeClock())
    store.fail = Temporary("cannot save", code="disk-full")
    with ledger.follow() as queue, pytest.raises(Temporary):
        await ledger.commit(Change(stacks={"shop": RECORD}, events=[event()], cursor=Cursor(journal_id="j", seq=1)))
    assert (ledger.stacks, ledger.cursors, queue.qsize()) == ({}, {}, 0)


class SlowStore(MemoryStore):
    def __init__(self) -> None:
        super().__init__()
        self.entered, self.go = asyncio.Event(), asyncio.Event()

    async def commit(self, change: Change) -> None:
        self.entered.set()
        await self.go.wait()
        await super().commit(change)


async def test_a_cancelled_commit_is_not_forgotten() -> None:
    store = SlowStore()
    ledger = await Ledger.open(store, FakeClock())
    writing = asyncio.create_task(ledger.commit(Change(stacks={"shop": RECORD})))
    await store.entered.wait()
    writing.cancel()
    await asyncio.sleep(0)
    assert not writing.done()
    store.go.set()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert ledger.stacks == (await store.load()).stacks == {"shop": RECORD}


async def test_a_follower_that_lags_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.store.ledger.BACKLOG", 2)
    ledger = await Ledger.open(MemoryStore(), FakeClock())
    with ledger.follow() as queue:
        await ledger.commit(Change(events=[event() for _ in range(5)]))
        got = [queue.get_nowait() for _ in range(queue.qsize())]
    assert [one is None for one in got] == [False, False, True]


async def test_own_event_ids_go_on_after_a_restart() -> None:
    store = MemoryStore()
    ledger = await Ledger.open(store, FakeClock(wall=2e9))
    first = ledger.event("stack.applied", "up")
    await ledger.commit(Change(events=[first]))
    later = await Ledger.open(store, FakeClock(wall=1e9))  # the clock was set back meanwhile
    assert later.event("stack.applied", "up").id > first.id
