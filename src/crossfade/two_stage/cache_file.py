"""The SQLite file of a vector cache: its tables, how it comes into being, and what a connection sets."""

from __future__ import annotations

import os
import sqlite3
import threading
from contextlib import suppress
from pathlib import Path

from crossfade.errors import StorageError

__all__ = ["APPLICATION", "VERSION", "create", "schema", "tune"]

APPLICATION = 0x58464443
"""``PRAGMA application_id``: what tells a cache from any other SQLite file."""

VERSION = 1
"""``PRAGMA user_version``: the version of the tables below."""

TABLES = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE items (number INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, used INTEGER NOT NULL);
CREATE INDEX items_by_use ON items (used, number);
CREATE TABLE vectors (number INTEGER PRIMARY KEY, vector BLOB NOT NULL);
CREATE TABLE size (bytes INTEGER NOT NULL);
INSERT INTO size VALUES (0);
"""

ROWS_A_PAGE = 8
"""A page holds about this many vectors, so that at most an eighth of it stays empty."""

LOG_BYTES = 4 << 20
"""The write-ahead log is folded into the file at about this size."""


def page_size(vector_bytes: int) -> int:
    """Bytes of a page: the power of two from 4,096 to 65,536 that holds about ``ROWS_A_PAGE`` vectors."""
    return int(min(max(1 << (ROWS_A_PAGE * vector_bytes - 1).bit_length(), 4096), 65536))


def schema(header: dict[str, str], vector_bytes: int) -> str:
    """The statements that make an empty cache with this header."""
    rows = "".join(
        f"INSERT INTO meta VALUES ('{name}', '{value.replace(chr(39), 2 * chr(39))}');"
        for name, value in header.items()
    )
    marks = f"PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {VERSION};"
    return f"PRAGMA page_size = {page_size(vector_bytes)}; {marks} BEGIN; {TABLES} {rows} COMMIT;"


def tune(connection: sqlite3.Connection, vector_bytes: int) -> None:
    """What a connection does not find in the file."""
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute(f"PRAGMA wal_autocheckpoint = {max(LOG_BYTES // page_size(vector_bytes), 16)}")
    connection.execute(f"PRAGMA journal_size_limit = {LOG_BYTES}")


def create(path: Path, header: dict[str, str], vector_bytes: int) -> None:
    """Make an empty cache that appears at ``path`` complete; where another process was first, its file stands."""
    temporary = path.parent / f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        connection = sqlite3.connect(temporary, isolation_level=None)
        try:
            connection.executescript(schema(header, vector_bytes))
            connection.execute("PRAGMA journal_mode = WAL")
        finally:
            connection.close()
        with suppress(FileExistsError):
            os.link(temporary, path)
    except (OSError, sqlite3.Error) as error:
        raise StorageError(
            f"The cache {path} could not be made: {error}. Choose another place (a local disk)."
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
