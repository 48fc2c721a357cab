"""Between SQLite's rows and our values, and between its errors and ours."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from agent.kit import disk
from agent.kit.errors import GoraeError, Permanent, Temporary
from agent.wire.messages import Event, Task
from orchestrator.decide.records import Revision, Rollout, StackRecord

_ROLLOUT = TypeAdapter(Rollout)


def wrapped(error: sqlite3.Error, doing: str, path: Path) -> GoraeError:
    name = getattr(error, "sqlite_errorname", "")
    # It calls a full disk an I/O error when it has no room for the files beside the database.
    wrong = disk.trouble(path.parent)
    if name == "SQLITE_FULL" or "disk is full" in str(error) or wrong.startswith("no space"):
        return Temporary(
            f"cannot {doing} {path}: the disk is full",
            code="disk-full",
            hint=f"free space on the disk of {path.parent}; what runs keeps running, and nothing was changed",
        )
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return damaged(doing, path, str(error))
    return Temporary(f"cannot {doing} {path}: {wrong or error}", code="store-failed", hint="gorae doctor")


def damaged(doing: str, path: Path, why: str) -> Permanent:
    return Permanent(
        f"cannot {doing} {path}: the database is damaged ({why})",
        code="store-corrupt",
        hint="move the file away and start again: what runs is taken over from the agent",
    )


def stack(row: Sequence[Any], tasks: Sequence[Task]) -> StackRecord:
    name, generation, revision, model, updated_at, cause, removed, remove_volumes, held, virtual, under_way = row
    return StackRecord(
        name=name,
        generation=generation,
        revision=revision,
        model=json.loads(model),
        tasks=tuple(tasks),
        updated_at=updated_at,
        cause=cause,
        removed=bool(removed),
        remove_volumes=bool(remove_volumes),
        held=bool(held),
        virtual=json.loads(virtual),
        rollout=None if under_way is None else _ROLLOUT.validate_json(under_way),
    )


def rollout(value: Rollout | None) -> str | None:
    return None if value is None else _ROLLOUT.dump_json(value, exclude_defaults=True).decode()


def revision_row(revision: Revision) -> tuple[Any, ...]:
    return (revision.stack, revision.number, revision.at, revision.uid, json.dumps(revision.model))


def revision(row: Sequence[Any]) -> Revision:
    stack, number, at, uid, model = row
    return Revision(stack, number, at, uid, json.loads(model))


def event_row(event: Event) -> tuple[Any, ...]:
    return (event.id, event.at, event.source, event.stack, event.service, event.model_dump_json())
