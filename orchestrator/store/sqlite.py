"""The store in SQLite: WAL, synchronous=FULL, one connection, one transaction per Change.

synchronous=FULL is not negotiable: with NORMAL, WAL loses acknowledged commits at a power cut.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import aiosqlite

from agent.kit.errors import UserError
from agent.kit.ids import Ulids
from agent.wire.messages import Event, HostStatus, StackStatus, Task
from orchestrator.decide.records import Counter, Identity, Revision, StackRecord
from orchestrator.store import rows
from orchestrator.store.port import KEEP_EVENTS, KEEP_GONE, KEEP_REVISIONS, Change, Loaded
from orchestrator.store.schema import MIGRATIONS

_SWEEP = 1000  # events between two sweeps of old ones
_PRAGMAS = (
    "PRAGMA busy_timeout = 5000",
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    "PRAGMA journal_size_limit = 4194304",
)
_UPSERT_STATUS = """
    INSERT INTO statuses SELECT name, ?2, ?3, ?4 FROM stacks WHERE name = ?1
    ON CONFLICT (stack) DO UPDATE SET epoch = excluded.epoch, seq = excluded.seq, document = excluded.document
    WHERE (excluded.epoch, excluded.seq) > (statuses.epoch, statuses.seq)
"""
_UPSERT_COUNTER = """
    INSERT INTO counters VALUES (?, ?, ?) ON CONFLICT (stack) DO UPDATE
    SET generation = max(generation, excluded.generation), revision = max(revision, excluded.revision)
"""
_FORGET_REVISIONS = """
    DELETE FROM revisions WHERE stack = ? AND number <= ?
    AND NOT EXISTS (SELECT 1 FROM stacks WHERE name = stack AND stacks.revision = number)
"""
_FORGET_GONE = """
    DELETE FROM revisions WHERE (stack, number) IN (
        SELECT stack, number FROM revisions WHERE stack NOT IN (SELECT name FROM stacks)
        ORDER BY at DESC, stack, number DESC LIMIT -1 OFFSET ?)
"""
_UPSERT_META = "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"


class SqliteStore:
    """Use `open`. Methods may be called concurrently."""

    def __init__(self, path: Path, connection: aiosqlite.Connection, keep_events: int) -> None:
        self._path = path
        self._db = connection
        self._keep = keep_events
        self._since_sweep = _SWEEP  # how many there are from earlier lives is not known
        self._busy = asyncio.Lock()  # one connection: a read inside a transaction would see what may yet not happen

    @classmethod
    async def open(cls, path: Path, keep_events: int = KEEP_EVENTS) -> SqliteStore:
        """Make or migrate the database. UserError store-newer: it was written by a later version."""
        connection = await _connect(path)
        store = cls(path, connection, keep_events)
        try:
            async with store._errors("open"):
                for pragma in _PRAGMAS:
                    await connection.execute(pragma)
                await store._migrate()
        except BaseException:
            await connection.close()
            raise
        return store

    async def close(self) -> None:
        await self._db.close()

    async def load(self) -> Loaded:
        async with self._errors("read"):
            meta = {key: json.loads(value) for key, value in await self._rows("SELECT key, value FROM meta")}
            identity = meta["identity"]
            tasks: dict[str, list[Task]] = {}
            for stack, document in await self._rows("SELECT stack, document FROM tasks ORDER BY service, slot, id"):
                tasks.setdefault(stack, []).append(Task.model_validate_json(document))
            stacks = await self._rows(
                "SELECT name, generation, stacks.revision, model, updated_at, cause,"
                " removed, remove_volumes, held, virtual, rollout"
                " FROM stacks JOIN revisions ON stack = name AND number = stacks.revision ORDER BY name"
            )
            statuses = await self._rows("SELECT stack, document FROM statuses")
            counters = await self._rows("SELECT stack, generation, revision FROM counters")
            last = await self._rows("SELECT max(id) FROM events WHERE source = 'orchestrator'")
            return Loaded(
                identity=Identity(
                    identity["store_id"],
                    tuple(identity["former"]),
                    tuple(identity["adopts"]),
                    identity["settled"],
                ),
                stacks={row[0]: rows.stack(row, tasks.get(row[0], ())) for row in stacks},
                counters={stack: Counter(generation, revision) for stack, generation, revision in counters},
                statuses={stack: StackStatus.model_validate_json(document) for stack, document in statuses},
                cursors=dict(await self._rows("SELECT journal_id, seq FROM cursors")),
                host=HostStatus.model_validate(meta["host"]) if "host" in meta else None,
                last_event=last[0][0],
                drained=float(meta.get("drained", 0.0)),
            )

    async def commit(self, change: Change) -> None:
        async with self._busy, self._errors("save the change in"), self._transaction():
            await self._write(change)

    async def _write(self, change: Change) -> None:
        run, many = self._db.execute, self._db.executemany
        if change.identity is not None:
            await run(_UPSERT_META, ("identity", json.dumps(asdict(change.identity))))
        if change.host is not None:
            await run(_UPSERT_META, ("host", change.host.model_dump_json()))
        if change.drained is not None:
            await run(_UPSERT_META, ("drained", json.dumps(change.drained)))
        if change.revisions:
            await many(
                "INSERT OR IGNORE INTO revisions VALUES (?, ?, ?, ?, ?)", map(rows.revision_row, change.revisions)
            )
            await many(_UPSERT_COUNTER, [(r.stack, 0, r.number) for r in change.revisions])
        for name, record in change.stacks.items():
            if record is None:
                await run("DELETE FROM stacks WHERE name = ?", (name,))
            else:
                await self._write_stack(record)
        await many(_FORGET_REVISIONS, [(r.stack, r.number - KEEP_REVISIONS) for r in change.revisions])
        if None in change.stacks.values():
            await run(_FORGET_GONE, (KEEP_GONE,))
        if change.forget_statuses:
            await run("DELETE FROM statuses")
        if change.statuses:
            await many(
                _UPSERT_STATUS,
                [(name, s.epoch, s.seq, s.model_dump_json()) for name, s in change.statuses.items()],
            )
        if change.events:
            await many("INSERT OR IGNORE INTO events VALUES (?, ?, ?, ?, ?, ?)", map(rows.event_row, change.events))
            await self._sweep(len(change.events))
        if change.cursor is not None:
            await run(
                "INSERT INTO cursors VALUES (?, ?) ON CONFLICT (journal_id) DO UPDATE SET seq = excluded.seq",
                (change.cursor.journal_id, change.cursor.seq),
            )

    async def _write_stack(self, record: StackRecord) -> None:
        await self._db.execute(_UPSERT_COUNTER, (record.name, record.generation, record.revision))
        await self._db.execute(
            "INSERT INTO stacks VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET"
            " generation = excluded.generation, revision = excluded.revision, updated_at = excluded.updated_at,"
            " cause = excluded.cause, removed = excluded.removed, remove_volumes = excluded.remove_volumes,"
            " held = excluded.held, virtual = excluded.virtual, rollout = excluded.rollout",
            (
                *(record.name, record.generation, record.revision, record.updated_at, record.cause),
                *(record.removed, record.remove_volumes, record.held, json.dumps(record.virtual)),
                rows.rollout(record.rollout),
            ),
        )
        await self._db.execute("DELETE FROM tasks WHERE stack = ?", (record.name,))
        await self._db.executemany(
            "INSERT INTO tasks VALUES (?, ?, ?, ?, ?)",
            [(task.id, record.name, task.service, task.slot, task.model_dump_json()) for task in record.tasks],
        )

    async def _sweep(self, added: int) -> None:
        self._since_sweep += added
        if self._since_sweep >= min(_SWEEP, self._keep):
            self._since_sweep = 0
            await self._db.execute(
                "DELETE FROM events WHERE id <= (SELECT id FROM events ORDER BY id DESC LIMIT 1 OFFSET ?)",
                (self._keep,),
            )

    async def revision(self, stack: str, number: int) -> Revision | None:
        found = await self._read("SELECT * FROM revisions WHERE stack = ? AND number = ?", (stack, number))
        return rows.revision(found[0]) if found else None

    async def revisions(self, stack: str) -> Sequence[Revision]:
        return [
            rows.revision(row)
            for row in await self._read("SELECT * FROM revisions WHERE stack = ? ORDER BY number", (stack,))
        ]

    async def events(
        self,
        *,
        stack: str | None = None,
        services: Sequence[str] = (),
        since: float | None = None,
        limit: int = 1000,
        after: str | None = None,
    ) -> Sequence[Event]:
        tests: list[tuple[str, Sequence[Any]]] = [
            ("stack = ?", () if stack is None else (stack,)),
            (f"service IN ({', '.join('?' * len(services))})", services),
            ("at >= ?", () if since is None else (since,)),
            ("rowid > coalesce((SELECT rowid FROM events WHERE id = ?), 0)", () if after is None else (after,)),
        ]
        where = " AND ".join(test for test, values in tests if values) or "1"
        values = [value for _, values in tests for value in values]
        found = await self._read(
            f"SELECT document FROM events WHERE {where} ORDER BY id DESC LIMIT ?", (*values, max(limit, 0))
        )
        return [Event.model_validate_json(row[0]) for row in reversed(found)]

    async def _read(self, query: str, values: Iterable[Any] = ()) -> list[Any]:
        async with self._busy, self._errors("read"):
            return await self._rows(query, values)

    async def _rows(self, query: str, values: Iterable[Any] = ()) -> list[Any]:
        return list(await self._db.execute_fetchall(query, values))

    async def _migrate(self) -> None:
        done = (await self._rows("PRAGMA user_version"))[0][0]
        if done > len(MIGRATIONS):
            raise UserError(
                f"cannot use {self._path}: it was written by a later version of gorae",
                code="store-newer",
                hint="install that version again, or restore the database of this one",
            )
        for number, script in enumerate(MIGRATIONS[done:], start=done + 1):
            await self._db.executescript(f"BEGIN IMMEDIATE; {script}; PRAGMA user_version = {number}; COMMIT")
        identity = json.dumps(asdict(Identity(Ulids().next())))
        await self._db.execute("INSERT OR IGNORE INTO meta VALUES ('identity', ?)", (identity,))

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[None]:
        await self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            await self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # a full disk has rolled back by itself
                await self._db.execute("ROLLBACK")
            raise

    @asynccontextmanager
    async def _errors(self, doing: str) -> AsyncIterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise rows.wrapped(error, doing, self._path) from error
        except (ValueError, LookupError, TypeError) as error:  # pydantic's errors are ValueErrors
            raise rows.damaged(doing, self._path, f"a row of it makes no sense: {error}") from error


async def _connect(path: Path) -> aiosqlite.Connection:
    try:
        return await aiosqlite.connect(path, isolation_level=None)
    except sqlite3.Error as error:
        raise rows.wrapped(error, "open", path) from error
