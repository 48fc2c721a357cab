"""What only a journal on a disk can meet: kills, damage, a full disk, a newer version."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from agent.journal.journal import SqliteJournal
from agent.kit.errors import Permanent, Temporary
from agent.ports import Change
from tests.agent.conformance.test_journal import event


async def test_calls_made_together_share_a_commit(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / "journal.db")
    await journal.load()
    assert journal._db is not None
    commits, commit = 0, journal._db.commit

    async def counting() -> None:
        nonlocal commits
        commits += 1
        await commit()

    journal._db.commit = counting  # type: ignore[method-assign]
    await asyncio.gather(*(journal.record(Change(records={f"t{n}": "x"}, events=[event()])) for n in range(100)))
    assert commits <= 2
    await journal.close()


WRITER = """
import asyncio, sys
from pathlib import Path
from agent.journal.journal import SqliteJournal
from agent.ports import Change

async def main():
    journal = SqliteJournal(Path(sys.argv[1]))
    await journal.load()
    for number in range(100000):
        await journal.record(Change(records={"t1": str(number)}))
        print(number, flush=True)

asyncio.run(main())
"""


def test_what_was_promised_survives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    for _ in range(3):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        promised = -1
        while promised < 30:
            promised = int(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
        promised = int(([str(promised), *writer.stdout.read().split()])[-1])
        writer.wait()
        writer.stdout.close()
        database = sqlite3.connect(path)
        (kept,) = database.execute("SELECT document FROM records WHERE task = 't1'").fetchone()
        database.close()
        assert int(kept) >= promised


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda path: path.write_bytes(b"this is no database" * 500), id="overwritten"),
        pytest.param(lambda path: os.truncate(path, 5000), id="cut short"),
        pytest.param(lambda path: _scribble(path), id="scribbled on"),
    ],
)
async def test_an_unreadable_journal_is_moved_aside(tmp_path: Path, damage: object) -> None:
    path = tmp_path / "journal.db"
    journal = SqliteJournal(path)
    before = await journal.load()
    await journal.record(Change(records={f"t{n}": "x" * 500 for n in range(100)}))
    await journal.close()
    damage(path)  # type: ignore[operator]
    journal = SqliteJournal(path)
    state = await journal.load()
    assert (state.records, state.epoch, state.fresh) == ({}, 1, True) and state.journal_id != before.journal_id
    ((_, told),) = await journal.events_after(0, 10)
    assert told.kind == "journal.lost" and (tmp_path / Path(str(told.evidence["moved_to"])).name).exists()
    await journal.record(Change(records={"t1": "1"}))
    await journal.close()


def _scribble(path: Path) -> None:
    with path.open("r+b") as file:
        for page in range(1, path.stat().st_size // 4096):
            file.seek(page * 4096)
            file.write(b"\xff" * 2000)


async def test_a_full_disk_is_temporary_and_promises_nothing(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / "journal.db")
    await journal.load()
    await journal.record(Change(records={"t1": "before"}))
    assert journal._db is not None
    ((pages,),) = await journal._db.execute_fetchall("PRAGMA page_count")
    await journal._db.execute_fetchall(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(Temporary) as caught:
        await journal.record(Change(records={"t1": "after", "t2": "x" * 100_000}))
    assert caught.value.code == "journal-full"
    await journal._db.execute_fetchall("PRAGMA max_page_count = 100000")
    await journal.record(Change(records={"t3": "again"}))
    assert (await journal.load()).records == {"t1": "before", "t3": "again"}
    await journal.close()


@pytest.mark.parametrize(
    ("room", "flags", "said", "code"),
    [
        pytest.param(9, 0, "{file}: disk I/O error", "journal-unwritable", id="broken"),
        pytest.param(0, 0, "journal.db: no space left on the disk of {place}", "journal-full", id="no room beside it"),
        pytest.param(
            9, os.ST_RDONLY, "{file}: the file system of {place} is read-only", "journal-unwritable", id="read-only"
        ),
    ],
)
async def test_what_is_wrong_with_the_disk_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int, flags: int, said: str, code: str
) -> None:
    journal = SqliteJournal(tmp_path / "journal.db")
    await journal.load()

    async def broken(*_: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    assert journal._db is not None
    monkeypatch.setattr(journal._db, "executemany", broken)
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result((1, 1, 10, room, room, 10, 9, 9, flags, 255)))
    with pytest.raises(Temporary) as caught:
        await journal.record(Change(records={"t1": "1"}))
    said = said.format(file=tmp_path / "journal.db", place=tmp_path)
    assert (caught.value.message, caught.value.code) == (f"cannot write the journal {said}", code)
    assert "what runs runs on" in caught.value.hint
    await journal.close()


async def test_a_caller_that_is_cancelled_does_not_take_others_with_it(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / "journal.db")
    await journal.load()
    first = asyncio.ensure_future(journal.record(Change(records={"t1": "1"})))
    second = asyncio.ensure_future(journal.record(Change(records={"t2": "2"})))
    await asyncio.sleep(0)
    first.cancel()
    results = await asyncio.gather(first, second, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert results[1] is None or isinstance(results[1], Temporary)
    await journal.record(Change(records={"t3": "3"}))
    assert (await journal.load()).records["t3"] == "3"
    await journal.close()


async def test_a_newer_journal_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal = SqliteJournal(path)
    await journal.load()
    await journal.close()
    database = sqlite3.connect(path)
    database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(Permanent, match="a newer gorae"):
        await SqliteJournal(path).load()
    assert [p.name for p in tmp_path.iterdir() if "unreadable" in p.name] == []


async def test_a_closed_journal_says_so(tmp_path: Path) -> None:
    with pytest.raises(Permanent, match="not open"):
        await SqliteJournal(tmp_path / "journal.db").events_after(0, 1)
