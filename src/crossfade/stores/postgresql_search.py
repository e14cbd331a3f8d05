"""Searches in PostgreSQL: by an index where there is one, else by comparing every row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from psycopg.sql import SQL

from crossfade.spaces import Metric
from crossfade.stores import postgresql_sql as sql
from crossfade.stores.backend import Query
from crossfade.stores.postgresql_connections import Connection
from crossfade.stores.postgresql_table import Table
from crossfade.stores.records import Hits

__all__ = ["prepare", "search"]

Floats = npt.NDArray[np.float32]

MOST_CANDIDATES = 1000
"""Largest ``hnsw.ef_search``."""

ITERATIVE = (0, 8)
"""The version of pgvector that began to scan an index on until enough rows meet the conditions."""


def search(connection: Connection, table: Table, query: Query) -> list[Hits]:
    """The best rows of each query; of those whose index gave too few, by comparing every row."""
    if not _ask_index(connection, table, query):
        return _hits(connection, table, query, query.vectors, index=False)
    with connection.transaction():
        prepare(connection, table, query.k)
        found = _hits(connection, table, query, query.vectors, index=True)
    short = [number for number, hits in enumerate(found) if len(hits) < query.k]
    for number, hits in zip(short, _hits(connection, table, query, query.vectors[short], index=False), strict=True):
        found[number] = hits
    return found


def prepare(connection: Connection, table: Table, k: int) -> None:
    """Let the index give at least k rows, in this transaction; what the role or the database sets higher stays."""
    candidates = "greatest($1::int, coalesce(nullif(current_setting('hnsw.ef_search', true), ''), '40')::int)::text"
    settings = [f"set_config('hnsw.ef_search', {candidates}, true)"]
    if table.extension.version >= ITERATIVE:
        settings.append("set_config('hnsw.iterative_scan', 'strict_order', true)")
        settings.append("set_config('ivfflat.iterative_scan', 'relaxed_order', true)")
    connection.execute(SQL("SELECT {}").format(SQL(", ".join(settings))), [min(k, MOST_CANDIDATES)])


def _ask_index(connection: Connection, table: Table, query: Query) -> bool:
    """Whether there is an index that can answer; for a zero vector none can by cosine."""
    if query.exact or (query.metric == "cosine" and not query.vectors.any(axis=1).all()):
        return False
    statement = sql.has_index(table, query.field, query.metric)
    row = connection.execute(statement.text, statement.parameters).fetchone()
    return row is not None and bool(row[0])


def _hits(connection: Connection, table: Table, query: Query, vectors: Floats, *, index: bool) -> list[Hits]:
    """One statement a query, all sent before the first answer is read."""
    if not len(vectors):
        return []
    statements = [sql.search(table, query, one, index=index) for one in vectors]
    found: list[Hits] = []
    with connection.cursor(binary=True) as cursor:
        cursor.executemany(statements[0].text, [each.parameters for each in statements], returning=True)
        more: bool | None = True
        while more:
            found.append(_best(cursor.fetchall(), query.metric))
            more = cursor.nextset()
    return found


def _best(rows: Sequence[tuple[Any, ...]], metric: Metric) -> Hits:
    distances = np.array([row[1] for row in rows], dtype=np.float64)
    scores = np.nan_to_num(1 - distances, nan=0.0) if metric == "cosine" else -distances
    order = np.argsort(-scores, kind="stable")  # an index may give them out of order
    return Hits([rows[row][0] for row in order], scores[order].astype(np.float32))
