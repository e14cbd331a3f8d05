"""The backend of a store in PostgreSQL; :mod:`crossfade.stores.postgresql` says what it maps to what."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, final

import numpy as np
import numpy.typing as npt
from psycopg import Cursor

from crossfade.errors import ConfigError, StoreChanged
from crossfade.spaces import Metric
from crossfade.stores import postgresql_sql as sql
from crossfade.stores.backend import Backend, Capabilities, Description, Query, VectorField
from crossfade.stores.conditions import Condition
from crossfade.stores.postgresql_binary import vectors_of
from crossfade.stores.postgresql_connections import Connection, Connections
from crossfade.stores.postgresql_notes import NOTES, read_notes, write_note
from crossfade.stores.postgresql_search import Indexes, search
from crossfade.stores.postgresql_table import Extension, Place, Table, read_table
from crossfade.stores.records import Hits, Id, Records, Vectors

__all__ = ["PostgreSQLBackend"]

Floats = npt.NDArray[np.float32]

LOCK_TIMEOUT = "5s"
"""How long a change of the table's shape waits for those who use it; they wait behind it as long."""

BYTES = 2**20
"""Of vectors and texts in one statement or answer, about; more in one was slower."""

LONGEST_NAME = 63
"""Bytes of a name; PostgreSQL cuts off the rest."""


@final
class PostgreSQLBackend(Backend):
    """A table with vector columns; :func:`connect` opens one.

    Args:
        connections: to the server.
        place: the table.
        extension: pgvector in its database.
    """

    def __init__(self, connections: Connections, place: Place, extension: Extension) -> None:
        self.address = place.address
        self._connections = connections
        self._indexes = Indexes()
        self._place = place
        self._extension = extension
        self._table = self._read()
        self._place = replace(place, id=self._table.id)  # another primary key later is another collection
        self.capabilities = Capabilities(keeps_vectors=not self._table.halves)

    def describe(self) -> Description:
        """See :meth:`Backend.describe`; the column of the ids is not among the columns."""
        self._table = table = self._read()
        return Description(table.ids, table.fields, {name: column.kind for name, column in table.columns.items()})

    def indexed(self, field: str, metric: Metric) -> bool:
        """See :meth:`Backend.indexed`."""
        return bool(self._one(sql.has_index(self._having((field,), ()), field, metric)))

    def count(self, where: tuple[Condition, ...], lacking: str | None = None) -> int:
        """See :meth:`Backend.count`."""
        fields = () if lacking is None else (lacking,)
        return self._one(sql.count(self._having(fields, _names(where)), where, lacking))

    def scan(
        self, fields: Sequence[str], columns: Sequence[str], where: tuple[Condition, ...], batch: int
    ) -> Iterator[Records]:
        """See :meth:`Backend.scan`; on a connection of its own, in the order of the ids.

        Until it ends, or is closed, the server keeps what is replaced and deleted meanwhile, and no field can be added.
        """
        table = self._having(fields, (*columns, *_names(where)))
        statement = sql.scan(table, fields, columns, where)
        parts = [
            stop - start for start, stop in _parts(batch, sum(4 * table.fields[name].dimension for name in fields))
        ]
        with self._connections.snapshot() as connection, connection.cursor("crossfade", binary=True) as cursor:
            cursor.execute(statement.text, statement.parameters)
            while rows := [row for size in parts for row in cursor.fetchmany(size)]:
                yield self._records(table, rows, fields, columns)

    def fetch(self, ids: Sequence[Id], fields: Sequence[str], columns: Sequence[str]) -> Records:
        """See :meth:`Backend.fetch`."""
        table = self._having(fields, columns)
        statement = sql.fetch(table, list(dict.fromkeys(ids)), fields, columns)
        rows = self._connections.read(lambda connection: _run(connection, statement).fetchall())
        return self._records(table, rows, fields, columns)

    def search(self, query: Query) -> list[Hits]:
        """See :meth:`Backend.search`."""
        wanted = [query.field, *([] if query.lacking is None else [query.lacking])]
        table = self._having(wanted, _names(query.where))
        return self._connections.read(lambda connection: search(connection, table, query, self._indexes))

    def upsert(self, records: Records) -> None:
        """See :meth:`Backend.upsert`; in one transaction: all of a call's rows become visible together, or none.

        Raises:
            ConfigError: a column cannot be written, or holds other values.
        """
        texts = sum(len(value) for column in records.columns.values() for value in column if isinstance(value, str))
        each = texts // len(records) + sum(4 * vectors.values.shape[1] for vectors in records.vectors.values())
        order = sorted(range(len(records)), key=lambda row: records.ids[row])

        def work(connection: Connection) -> None:
            _run(connection, sql.lock_table(self._table))
            self._table = read_table(connection, self._place, self._extension)
            table = self._having(records.vectors, records.columns)
            _run(connection, sql.lock(table, records.ids))
            for start, stop in _parts(len(order), each):
                _run(connection, sql.upsert(table, records.select(order[start:stop])))

        self._connections.write(work, needs="INSERT, UPDATE and SELECT on it")

    def set_vectors(self, field: str, ids: Sequence[Id], vectors: Floats | None) -> int:
        """See :meth:`Backend.set_vectors`; in one transaction."""
        table = self._having([field], ())

        def work(connection: Connection) -> int:
            _run(connection, sql.lock(table, ids))
            if vectors is None:
                return _run(connection, sql.empty(table, field, ids)).rowcount
            parts = _parts(len(ids), 4 * vectors.shape[1])
            return sum(_run(connection, sql.fill(table, field, ids[a:b], vectors[a:b])).rowcount for a, b in parts)

        return self._connections.write(work, needs="UPDATE and SELECT on it")

    def delete(self, ids: Sequence[Id]) -> int:
        """See :meth:`Backend.delete`; in one transaction."""
        table = self._having((), ())

        def work(connection: Connection) -> int:
            _run(connection, sql.lock(table, ids, to_delete=True))
            return _run(connection, sql.delete(table, ids)).rowcount

        return self._connections.write(work, needs="DELETE, UPDATE and SELECT on it")

    def add_field(self, field: VectorField) -> None:
        """See :meth:`Backend.add_field`; no row is rewritten, and no index is made.

        Raises:
            ConfigError: the name is longer than those of PostgreSQL.
        """
        if len(field.name.encode()) > LONGEST_NAME:
            raise ConfigError(f"A name in PostgreSQL has at most {LONGEST_NAME} bytes; found {field.name!r}.")
        self._alter(sql.add(self._table, field))

    def drop_field(self, name: str) -> None:
        """See :meth:`Backend.drop_field`."""
        self._alter(sql.drop(self._having([name], ()), name))

    def notes(self) -> dict[str, str]:
        """See :meth:`Backend.notes`."""
        return self._connections.read(lambda connection: read_notes(connection, self._place))

    def note(self, key: str, text: str | None) -> None:
        """See :meth:`Backend.note`."""
        rights = f"CREATE in the schema, or SELECT, INSERT, UPDATE and DELETE on the table {NOTES}"
        self._connections.write(lambda connection: write_note(connection, self._place, key, text), needs=rights)

    def has_column(self, name: str) -> bool:
        """See :meth:`Backend.has_column`: the columns are all named."""
        return False

    def close(self) -> None:
        """See :meth:`Backend.close`; the connection of a scan is closed with the scan."""
        self._connections.close()

    def _read(self) -> Table:
        return self._connections.read(lambda connection: read_table(connection, self._place, self._extension))

    def _having(self, fields: Iterable[str], columns: Iterable[str]) -> Table:
        """The table, if it has these."""
        table = self._table
        gone = sorted({*fields} - {*table.fields} | {*columns} - {*table.columns})
        if gone:
            raise StoreChanged(f"{self.address} has no {', '.join(gone)} any more. Find out who dropped or changed it.")
        return table

    def _one(self, statement: sql.Statement) -> int:
        def work(connection: Connection) -> int:
            return int(_run(connection, statement).fetchall()[0][0])

        return self._connections.read(work)

    def _alter(self, statement: sql.Statement) -> None:
        def work(connection: Connection) -> None:
            connection.execute("SELECT set_config('lock_timeout', $1, true)", [LOCK_TIMEOUT])
            _run(connection, statement)

        self._connections.write(work, needs="to own the table, or to be a member of the role that does")

    def _records(
        self, table: Table, rows: Sequence[tuple[Any, ...]], fields: Sequence[str], columns: Sequence[str]
    ) -> Records:
        """Rows as statements that read give them."""
        parts = list(zip(*rows, strict=True)) if rows else [()] * (1 + len(fields) + len(columns))
        vectors: dict[str, Vectors] = {}
        for name, found in zip(fields, parts[1:], strict=False):
            try:
                vectors[name] = vectors_of(found, table.fields[name].dimension)
            except ValueError as error:
                raise StoreChanged(
                    f"The field {name!r} of {self.address} has {error}. Find out who changed it."
                ) from None
        values = [list(part) for part in parts[1 + len(fields) :]]
        return Records(list(parts[0]), vectors, dict(zip(columns, values, strict=True)))


def _names(where: tuple[Condition, ...]) -> list[str]:
    return [condition.column for condition in where]


def _parts(count: int, size: int) -> Iterator[tuple[int, int]]:
    """Where the parts of so many rows of this size begin and end."""
    step = max(1, BYTES // max(1, size))
    return ((start, min(start + step, count)) for start in range(0, count, step))


def _run(connection: Connection, statement: sql.Statement) -> Cursor[tuple[Any, ...]]:
    return connection.execute(statement.text, statement.parameters, binary=True)
