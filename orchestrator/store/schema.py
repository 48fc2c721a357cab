"""The schema as numbered migrations: PRAGMA user_version says how many have run. A released one never changes."""

from __future__ import annotations

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;

    -- The highest numbers of each name ever; rows stay when the stack goes.
    CREATE TABLE counters (
        stack TEXT PRIMARY KEY, generation INTEGER NOT NULL, revision INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE revisions (
        stack TEXT NOT NULL, number INTEGER NOT NULL, at REAL NOT NULL, uid INTEGER, model TEXT NOT NULL,
        PRIMARY KEY (stack, number)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE stacks (
        name TEXT PRIMARY KEY, generation INTEGER NOT NULL, revision INTEGER NOT NULL,
        updated_at REAL NOT NULL, cause TEXT,
        removed INTEGER NOT NULL, remove_volumes INTEGER NOT NULL, held INTEGER NOT NULL,
        FOREIGN KEY (name, revision) REFERENCES revisions (stack, number)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE tasks (
        id TEXT PRIMARY KEY,
        stack TEXT NOT NULL REFERENCES stacks (name) ON DELETE CASCADE,
        service TEXT NOT NULL, slot INTEGER NOT NULL, document TEXT NOT NULL,
        UNIQUE (stack, service, slot)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE statuses (
        stack TEXT PRIMARY KEY REFERENCES stacks (name) ON DELETE CASCADE,
        epoch INTEGER NOT NULL, seq INTEGER NOT NULL, document TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE events (
        id TEXT PRIMARY KEY, at REAL NOT NULL, source TEXT NOT NULL, stack TEXT, service TEXT, document TEXT NOT NULL
    ) STRICT;
    CREATE INDEX events_of ON events (stack, id);
    CREATE INDEX events_at ON events (at);

    CREATE TABLE cursors (journal_id TEXT PRIMARY KEY, seq INTEGER NOT NULL) STRICT, WITHOUT ROWID;
    """,
    """
    -- JSON: service → number of its virtual address. A stack of before gets its numbers with its next change.
    ALTER TABLE stacks ADD COLUMN virtual TEXT NOT NULL DEFAULT '{}';
    """,
    """
    -- JSON: decide/records.py Rollout. While one is under way, two tasks may share a slot.
    ALTER TABLE stacks ADD COLUMN rollout TEXT;
    CREATE TABLE tasks_of_slots (
        id TEXT PRIMARY KEY,
        stack TEXT NOT NULL REFERENCES stacks (name) ON DELETE CASCADE,
        service TEXT NOT NULL, slot INTEGER NOT NULL, document TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
    INSERT INTO tasks_of_slots SELECT id, stack, service, slot, document FROM tasks;
    DROP TABLE tasks;
    ALTER TABLE tasks_of_slots RENAME TO tasks;
    CREATE INDEX tasks_of ON tasks (stack, service, slot);
    """,
)
