"""The journal's tables, as numbered migrations. A migration that was released is never edited; add the next one."""

from __future__ import annotations

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
        "CREATE TABLE assignments (stack TEXT PRIMARY KEY, document TEXT NOT NULL) WITHOUT ROWID",
        "CREATE TABLE records (task TEXT PRIMARY KEY, document TEXT NOT NULL) WITHOUT ROWID",
        # AUTOINCREMENT: a number is never used again, even after the newest event was forgotten.
        "CREATE TABLE events (seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, document TEXT NOT NULL)",
    ),
)
