"""The agent's memory on disk: SQLite, because a power cut must not lose what was promised.

WAL with synchronous=FULL survived every simulated power cut; NORMAL did not. Calls made together share one commit: who
comes first writes for all who wait. A file that cannot be read is moved aside and a new one begun; the state is then
read again from what runs. A full disk is Temporary: nothing was written, nothing may be promised.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import aiosqlite

from agent.journal.schema import MIGRATIONS
from agent.kit import disk
from agent.kit.errors import Permanent, Temporary
from agent.kit.ids import Ulids
from agent.ports import Change, JournalState
from agent.wire.messages import Event

LIMIT = 10_000  # undelivered events kept
SLACK = 500  # more, before the oldest are cut in one go
LOST = "journal.lost"  # the first event of a journal that was begun because the one before could not be read


def knows_tasks(path: Path) -> bool:
    """Whether the journal at `path` has a record of any task; False where there is none, or none to be read."""
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as db:
            return db.execute("SELECT 1 FROM records LIMIT 1").fetchone() is not None
    except sqlite3.Error:
        return False


class SqliteJournal:
    def __init__(self, path: Path, limit: int = LIMIT, slack: int = SLACK) -> None:
        self._path = path
        self._limit, self._slack = limit, slack
        self._db: aiosqlite.Connection | None = None
        self._turn = asyncio.Lock()
        self._waiting: list[tuple[Change, asyncio.Future[None]]] = []
        self._count = 0  # events kept

    async def load(self) -> JournalState:
        """Open, migrate, raise the epoch. Permanent journal-newer when a later version has written it."""
        if self._db is None:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                self._db = await self._open()
            except sqlite3.DatabaseError as error:
                if isinstance(error, sqlite3.OperationalError):
                    raise _unwritable(self._path, error) from error
                self._db = await self._begin_anew(error)
        try:
            return await self._read(self._db)
        except sqlite3.OperationalError as error:
            await self._db.rollback()
            raise _unwritable(self._path, error) from error

    async def _open(self) -> aiosqlite.Connection:
        db = await aiosqlite.connect(self._path, timeout=5.0)
        try:
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "cache_size=-512"):
                await db.execute(f"PRAGMA {pragma}")
            rows = await db.execute_fetchall("PRAGMA quick_check(1)")
            if [tuple(row) for row in rows] != [("ok",)]:
                raise sqlite3.DatabaseError(f"quick_check: {next(iter(rows))[0]}")
            await _migrate(db, self._path)
        except BaseException:
            await db.close()
            raise
        return db

    async def _begin_anew(self, error: Exception) -> aiosqlite.Connection:
        """The unreadable file stays beside the new one, for whoever wants to look."""
        aside = self._path.with_name(f"{self._path.name}.unreadable-{time.time_ns()}")
        for suffix in ("", "-wal", "-shm"):
            part = self._path.with_name(self._path.name + suffix)
            if part.exists():
                part.rename(aside.with_name(aside.name + suffix))
        db = await self._open()
        event = Event(
            id=Ulids().next(),
            at=time.time(),
            kind=LOST,
            reason="unreadable",
            message=f"the agent's journal could not be read and was moved aside to {aside.name}: {error}",
            evidence={"moved_to": str(aside)},
        )
        await db.execute("INSERT INTO events (id, document) VALUES (?, ?)", (event.id, event.model_dump_json()))
        await db.commit()
        return db

    async def _read(self, db: aiosqlite.Connection) -> JournalState:
        meta = await _pairs(db, "SELECT key, value FROM meta")
        epoch = int(meta.get("epoch", "0")) + 1
        journal_id = meta.get("journal_id") or uuid.uuid4().hex
        await db.executemany(
            "INSERT OR REPLACE INTO meta VALUES (?, ?)", [("epoch", str(epoch)), ("journal_id", journal_id)]
        )
        await db.commit()
        self._count = int((await _rows(db, "SELECT count(*) FROM events"))[0][0])
        last = await _rows(db, "SELECT seq, id, document FROM events ORDER BY seq DESC LIMIT 1")
        return JournalState(
            journal_id=journal_id,
            epoch=epoch,
            # The newest event is never forgotten, and what an agent finds at its start is recorded with one.
            fresh=not last or Event.model_validate_json(last[0][2]).kind == LOST,
            bound_store_id=meta.get("bound_store_id"),
            assignments=await _pairs(db, "SELECT stack, document FROM assignments"),
            records=await _pairs(db, "SELECT task, document FROM records"),
            last_event=(int(last[0][0]), str(last[0][1])) if last else None,
            acknowledged=int(meta.get("acknowledged", "0")),
        )

    async def record(self, change: Change) -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((change, done))
        async with self._turn:
            if not done.done():
                await self._commit_all()
        await done

    async def _commit_all(self) -> None:
        batch, self._waiting = self._waiting, []
        db = self._opened()
        try:
            await self._write(db, [change for change, _ in batch])
            await db.commit()
        except BaseException as error:
            failure = _unwritable(self._path, error)
            with suppress(sqlite3.Error):  # a disk that does not take the change may not take that either
                await db.rollback()
            for _, done in batch:
                if not done.done():
                    done.set_exception(failure)
                    done.exception()  # seen: whoever was cancelled will not look
            if isinstance(error, sqlite3.Error):
                return
            raise
        for _, done in batch:
            if not done.done():
                done.set_result(None)

    async def _write(self, db: aiosqlite.Connection, changes: Sequence[Change]) -> None:
        assignments: dict[str, str | None] = {}
        records: dict[str, str | None] = {}
        events: list[Event] = []
        bound = None
        for change in changes:
            assignments.update(change.assignments)
            records.update(change.records)
            events.extend(change.events)
            bound = change.bound_store_id or bound
        await _replace(db, "assignments", "stack", assignments)
        await _replace(db, "records", "task", records)
        if bound:
            await db.execute("INSERT OR REPLACE INTO meta VALUES ('bound_store_id', ?)", (bound,))
        if events:
            # A caller whose commit was interrupted says the same again. No INSERT OR IGNORE: it would use up a number.
            await db.executemany(
                "INSERT INTO events (id, document) SELECT ?1, ?2 WHERE NOT EXISTS (SELECT 1 FROM events WHERE id = ?1)",
                [(event.id, event.model_dump_json()) for event in events],
            )
            self._count += len(events)
            if self._count > self._limit + self._slack:
                await self._cut(db)

    async def _cut(self, db: aiosqlite.Connection) -> None:
        """Forget the oldest; a gap event under the number of the last forgotten one says how many are missing."""
        self._count = int((await _rows(db, "SELECT count(*) FROM events"))[0][0])
        excess = self._count - self._limit
        if excess <= 0:
            return
        rows = await _rows(db, "SELECT seq, document FROM events ORDER BY seq LIMIT ?", (excess + 1,))
        gone = [(int(seq), Event.model_validate_json(document)) for seq, document in rows]
        lost = sum(int(e.evidence.get("lost", 1)) if e.kind == "gap" else 1 for _, e in gone)
        seq, last = gone[-1]
        gap = last.model_copy(
            update={
                "kind": "gap",
                "reason": "journal-full",
                "message": f"{lost} events were forgotten: nobody took them over",
                "evidence": {"lost": lost},
                **dict.fromkeys(("stack", "service", "slot", "task", "attempt", "cause")),
            }
        )
        await db.execute("DELETE FROM events WHERE seq < ?", (seq,))
        await db.execute("UPDATE events SET document = ? WHERE seq = ?", (gap.model_dump_json(), seq))
        self._count -= excess

    async def events_after(self, seq: int, limit: int) -> Sequence[tuple[int, Event]]:
        try:
            rows = await _rows(
                self._opened(), "SELECT seq, document FROM events WHERE seq > ? ORDER BY seq LIMIT ?", (seq, limit)
            )
        except sqlite3.Error as error:
            raise _unwritable(self._path, error) from error
        return [(int(number), Event.model_validate_json(document)) for number, document in rows]

    async def forget_events(self, through: int) -> None:
        """The newest one stays on disk, delivered or not: it is where numbers and ids go on after a restart."""
        async with self._turn:
            db = self._opened()
            try:
                await db.execute(
                    "DELETE FROM events WHERE seq <= ? AND seq < (SELECT max(seq) FROM events)", (through,)
                )
                await db.execute(
                    "INSERT INTO meta VALUES ('acknowledged', ?1) ON CONFLICT (key) DO UPDATE "
                    "SET value = max(CAST(value AS INTEGER), CAST(?1 AS INTEGER))",
                    (str(through),),
                )
                await db.commit()
            except sqlite3.Error as error:
                await db.rollback()
                raise _unwritable(self._path, error) from error
            self._count = int((await _rows(db, "SELECT count(*) FROM events"))[0][0])

    async def close(self) -> None:
        if self._db is not None:
            async with self._turn:
                await self._db.close()
                self._db = None

    def _opened(self) -> aiosqlite.Connection:
        if self._db is None:
            raise Permanent(f"cannot use {self._path}: it is not open", code="journal-closed")
        return self._db


async def _migrate(db: aiosqlite.Connection, path: Path) -> None:
    version = int((await _rows(db, "PRAGMA user_version"))[0][0])
    if version > len(MIGRATIONS):
        raise Permanent(
            f"cannot read {path}: a newer gorae has written it",
            code="journal-newer",
            hint="start the newer version again",
        )
    for number, statements in enumerate(MIGRATIONS[version:], version + 1):
        await db.execute("BEGIN IMMEDIATE")
        for statement in statements:
            await db.execute(statement)
        await db.execute(f"PRAGMA user_version = {number}")
        await db.commit()


async def _replace(db: aiosqlite.Connection, table: str, key: str, changed: Mapping[str, str | None]) -> None:
    kept = [(name, document) for name, document in changed.items() if document is not None]
    gone = [(name,) for name, document in changed.items() if document is None]
    if kept:
        await db.executemany(f"INSERT OR REPLACE INTO {table} VALUES (?, ?)", kept)
    if gone:
        await db.executemany(f"DELETE FROM {table} WHERE {key} = ?", gone)


async def _rows(db: aiosqlite.Connection, sql: str, arguments: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in await db.execute_fetchall(sql, arguments)]


async def _pairs(db: aiosqlite.Connection, sql: str) -> dict[str, str]:
    return {str(key): str(value) for key, value in await _rows(db, sql)}


def _unwritable(path: Path, error: BaseException) -> Temporary:
    """SQLite says "I/O error" of much: of a full disk, too, when it has no room for the file that its readers share."""
    why = disk.trouble(path.parent)
    if getattr(error, "sqlite_errorname", "") == "SQLITE_FULL":
        why = f"no space left on the disk of {path.parent}"
    meanwhile = "what runs runs on, and the rest goes on by itself"
    if why.startswith("no space"):
        return Temporary(
            f"cannot write the journal {path.name}: {why}",
            code="journal-full",
            hint=f"free some of it (gorae df): {meanwhile}",
        )
    return Temporary(
        f"cannot write the journal {path}: {why or error}",
        code="journal-unwritable",
        hint=f"look at the disk of {path.parent} (dmesg): {meanwhile}",
    )
