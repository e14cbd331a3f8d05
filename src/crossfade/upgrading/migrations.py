"""The schema of an upgrade's state, as the steps that lead to it: later ones are appended, and none is ever changed."""

from __future__ import annotations

__all__ = ["MIGRATIONS"]

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE facts (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

    CREATE TABLE pointer (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        stage TEXT NOT NULL,
        serving TEXT NOT NULL,
        paused TEXT NOT NULL DEFAULT ''
    );

    CREATE TABLE transitions (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        at TEXT NOT NULL,
        who TEXT NOT NULL,
        step TEXT NOT NULL,
        stage_before TEXT NOT NULL,
        stage_after TEXT NOT NULL,
        reason TEXT NOT NULL,
        metrics TEXT NOT NULL
    );

    CREATE TABLE queue (
        id NOT NULL PRIMARY KEY,
        place REAL NOT NULL,
        outcome TEXT NOT NULL DEFAULT ''
    ) WITHOUT ROWID;
    CREATE INDEX queue_order ON queue (outcome, place);

    CREATE TABLE stamps (id NOT NULL PRIMARY KEY, stamp INTEGER NOT NULL) WITHOUT ROWID;
    """,
    """
    CREATE TABLE glimpses (
        k INTEGER NOT NULL,
        agreement REAL NOT NULL,
        same_first INTEGER NOT NULL,
        old_seconds REAL NOT NULL,
        mapped_seconds REAL NOT NULL
    );
    """,
)
"""Applied in order; SQLite's ``user_version`` says how many a file has seen."""
