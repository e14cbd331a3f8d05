"""A table of LanceDB as all processes see it: its newest version, writing among others, and errors in our words."""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast, final

import pyarrow as pa

from crossfade.errors import CrossfadeError, MissingExtra, StoreChanged, StoreError, Unreachable

if TYPE_CHECKING:
    from lancedb.table import AsyncTable, Table

__all__ = ["LanceDBConnection"]

T = TypeVar("T")

PATIENCE = 120.0
"""Seconds in which a write that others get ahead of is tried again."""

AHEAD = re.compile(r"commit conflict|concurrent (transaction|writ)|contention|retry_timeout", re.IGNORECASE)
"""In what LanceDB says where another process wrote first; nothing was written then."""


@final
class LanceDBConnection:
    """One table.

    Args:
        folder: the database.
        name: of the table.
        id_column: which column ids stand in.
        address: what the table is called in messages.

    Attributes:
        table: of which each read looks for a newer version first.

    Raises:
        MissingExtra: LanceDB is not installed.
        Unreachable: the folder may not be read.
        StoreChanged: there is no such folder, or no such table in it.
    """

    def __init__(self, folder: Path, name: str, *, id_column: str, address: str) -> None:
        self._folder, self._name, self._id, self._address = folder, name, id_column, address
        try:
            import lancedb
            from lancedb.background_loop import LOOP
        except ImportError as error:
            raise MissingExtra("lancedb", extra="stores", feature="The store LanceDB") from error
        self._require_folder()  # the client would make it
        with self.translated("be opened"):
            always, session = timedelta(0), lancedb.Session()
            self._database = lancedb.connect(folder, read_consistency_interval=always, session=session)
            self.table = self._open()
            self._loop = cast(Any, LOOP)
            database = self._loop.run(lancedb.connect_async(folder, read_consistency_interval=always, session=session))
            self._asked: AsyncTable = self._loop.run(database.open_table(name))

    def asked(self, search: Callable[[AsyncTable], Awaitable[pa.Table]]) -> pa.Table:
        """Search in one turn of the client's event loop, where its ``table.search`` takes five of them: 1 ms of one search."""
        rows: pa.Table = self._loop.run(search(self._asked))
        return rows

    def schema(self, needed: Sequence[str] = ()) -> pa.Schema:
        """Of this moment.

        Args:
            needed: columns.

        Raises:
            StoreChanged: there is no column of ids, or one of those columns is not there.
        """
        schema = self.table.schema
        if self._id not in schema.names:
            raise StoreChanged(
                f"{self._address} must have the column of ids {self._id!r}; it has {schema.names}. Name the column of "
                "ids: ?id=column."
            )
        self._require(needed, schema.names)
        return schema

    def schema_at(self, version: int) -> pa.Schema:
        """Of an earlier moment."""
        table = self._open()
        table.checkout(version)
        return table.schema

    @contextmanager
    def translated(self, doing: str, needed: Sequence[str] = ()) -> Iterator[None]:
        """Turn errors of the client into ours.

        Args:
            doing: what the table could not.
            needed: columns; where one is gone, that is said.

        Raises:
            Unreachable: the folder may not be read.
            StoreChanged: the table or a column is gone.
            StoreError: anything else.
        """
        try:
            yield
        except CrossfadeError:
            raise
        except Exception as error:  # the client raises what it likes
            self._require_folder()
            self._require(needed, self._names(known=needed))
            raise StoreError(f"{self._address} could not {doing}: {_said(error)}") from error

    def persistently(self, write: Callable[[], T]) -> T:
        """Write, and again where another process got ahead, or added or dropped a column meanwhile.

        Args:
            write: what does so; of a call that failed nothing was written.
        """
        until, pause = time.monotonic() + PATIENCE, 0.01
        while True:
            schema = self.table.schema
            try:
                return write()
            except (RuntimeError, ValueError, OSError) as error:
                overtaken = AHEAD.search(str(error)) or self.table.schema != schema
                if not overtaken or time.monotonic() > until:
                    raise
            time.sleep(pause * random.random())
            pause = min(2 * pause, 1.0)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Let one process of this machine at a time do what LanceDB does not keep apart.

        Raises:
            StoreError: the file of the lock cannot be made.
        """
        try:
            import fcntl
        except ImportError:  # Windows has no such locks
            yield
            return
        path = self._folder / f"{self._name}.crossfade.lock"
        self._require_folder()
        try:
            file = open(path, "a")  # noqa: SIM115
        except OSError as error:
            raise StoreError(
                f"Who writes to {self._address} must be able to write {path} as well: {error.strerror}."
            ) from error
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _open(self) -> Table:
        try:
            return self._database.open_table(self._name)
        except ValueError as error:
            if "was not found" not in str(error):
                raise
            raise StoreChanged(
                f"{self._address} must be a table of LanceDB; the folder {self._folder} has none of the name "
                f"{self._name!r}. Name another, or find out who dropped it."
            ) from error

    def _require(self, needed: Sequence[str], names: Sequence[str]) -> None:
        missing = [name for name in needed if name not in names]
        if missing:
            raise StoreChanged(
                f"{self._address} must have the columns {missing}, and has them no more. Find out who dropped them."
            )

    def _names(self, known: Sequence[str]) -> Sequence[str]:
        """Of the columns that there are; those ``known`` where not even that can be read."""
        try:
            return self._open().schema.names
        except StoreChanged:
            raise
        except (RuntimeError, ValueError, OSError):
            return known

    def _require_folder(self) -> None:
        try:
            there = self._folder.is_dir()
            readable = os.access(self._folder, os.R_OK | os.X_OK)
        except PermissionError:
            there, readable = True, False
        if not there:
            raise StoreChanged(
                f"{self._address} must lie in a folder, and there is none: {self._folder}. Check the path."
            )
        if not readable:
            raise Unreachable(
                f"{self._address} lies in a folder that may not be read: {self._folder}. Ask for that right."
            )


def _said(error: Exception) -> str:
    """The first line of what the client says, without the place in its own source."""
    first = str(error).partition("\n")[0]
    return f"{type(error).__name__}: {re.sub(r', /[^ ]*[.]rs:[0-9:]+$', '', first)[:300]}"
