"""Searches in PostgreSQL: by an index where there is one, else by comparing every row."""

from __future__ import annotations

import time
from collections.abc import Sequence
from math import isnan
from operator import itemgetter
from typing import Any, final

import numpy as np
import numpy.typing as npt
from psycopg.sql import SQL

from crossfade.spaces import Metric
from crossfade.stores import postgresql_sql as sql
from crossfade.stores.backend import Query
from crossfade.stores.postgresql_connections import Connection
from crossfade.stores.postgresql_table import Table
from crossfade.stores.records import Hits

__all__ = ["Indexes", "prepare", "search"]

Floats = npt.NDArray[np.float32]

MOST_CANDIDATES = 1000
"""Largest ``hnsw.ef_search``."""

CANDIDATES = 40
"""What ``hnsw.ef_search`` is where nobody set it."""

FRESH = 2.0
"""Seconds for which a field is taken to have an index, or none."""

ITERATIVE = (0, 8)
"""The version of pgvector that began to scan an index on until enough rows meet the conditions."""


@final
class Indexes:
    """Which fields of a table have an index, as it was at most :data:`FRESH` seconds ago: to say so PostgreSQL takes half as long
    as a search by it. Where one was dropped or made since, a search compares every row once more than it must.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[str, Metric], tuple[float, bool]] = {}

    def has(self, connection: Connection, table: Table, field: str, metric: Metric) -> bool:
        """Whether one gives the rows of a field in the order of a metric."""
        then, known = self._known.get((field, metric), (-FRESH, False))
        if time.monotonic() - then < FRESH:
            return known
        statement = sql.has_index(table, field, metric)
        row = connection.execute(statement.text, statement.parameters).fetchone()
        found = row is not None and bool(row[0])
        self._known[field, metric] = (time.monotonic(), found)
        return found


def search(connection: Connection, table: Table, query: Query, indexes: Indexes) -> list[Hits]:
    """The best rows of each query; of those whose index gave too few, by comparing every row."""
    by_index = _can(query) and indexes.has(connection, table, query.field, query.metric)
    if not by_index:
        return _hits(connection, table, query, query.vectors, index=False)
    found = _bare(connection, table, query)
    if found is None:
        with connection.transaction():
            prepare(connection, table, query.k)
            found = _hits(connection, table, query, query.vectors, index=True)
    short = [number for number, hits in enumerate(found) if len(hits) < query.k]
    for number, hits in zip(short, _hits(connection, table, query, query.vectors[short], index=False), strict=True):
        found[number] = hits
    return found


def _bare(connection: Connection, table: Table, query: Query) -> list[Hits] | None:
    """What the index gives by the server's own settings, in one statement in place of four; None where that may be too few rows,
    or was. Other settings only let the index look further, so enough rows are the same by both.
    """
    if query.where or query.lacking is not None or query.k > CANDIDATES:
        return None
    found = _hits(connection, table, query, query.vectors, index=True)
    return found if all(len(hits) == query.k for hits in found) else None


def prepare(connection: Connection, table: Table, k: int) -> None:
    """Let the index give at least k rows, in this transaction; what the role or the database sets higher stays."""
    candidates = "greatest($1::int, coalesce(nullif(current_setting('hnsw.ef_search', true), ''), '40')::int)::text"
    settings = [f"set_config('hnsw.ef_search', {candidates}, true)"]
    if table.extension.version >= ITERATIVE:
        settings.append("set_config('hnsw.iterative_scan', 'strict_order', true)")
        settings.append("set_config('ivfflat.iterative_scan', 'relaxed_order', true)")
    connection.execute(SQL("SELECT {}").format(SQL(", ".join(settings))), [min(k, MOST_CANDIDATES)])


def _can(query: Query) -> bool:
    """Whether an index may answer; for a zero vector none can by cosine."""
    return not query.exact and (query.metric != "cosine" or bool(query.vectors.any(axis=1).all()))


def _hits(connection: Connection, table: Table, query: Query, vectors: Floats, *, index: bool) -> list[Hits]:
    """One statement a query, all sent before the first answer is read."""
    if not len(vectors):
        return []
    statements = [sql.search(table, query, one, index=index) for one in vectors]
    if len(statements) == 1:  # a pipeline of one takes longer than the statement alone
        rows = connection.execute(statements[0].text, statements[0].parameters, binary=True).fetchall()
        return [_best(rows, query.metric)]
    found: list[Hits] = []
    with connection.cursor(binary=True) as cursor:
        cursor.executemany(statements[0].text, [each.parameters for each in statements], returning=True)
        more: bool | None = True
        while more:
            found.append(_best(cursor.fetchall(), query.metric))
            more = cursor.nextset()
    return found


def _best(rows: Sequence[tuple[Any, ...]], metric: Metric) -> Hits:
    """In order, since an index may give rows out of it; by cosine a distance from a zero vector is NaN, and counts as 1."""
    scored = [(-d if metric != "cosine" else 0.0 if isnan(d) else 1 - d, id_) for id_, d in rows]
    scored.sort(key=itemgetter(0), reverse=True)  # stable
    return Hits([id_ for _, id_ in scored], np.array([score for score, _ in scored], dtype=np.float32))
