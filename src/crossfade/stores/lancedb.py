"""LanceDB: tables in a folder, searched within this process; nothing has to run.

``lancedb:///srv/vectors?id=id#photos`` is the table ``photos`` of the folder ``/srv/vectors``, and its ids stand in the
column ``id``, which is what is taken where the address names none.

=========================  =====================================================================================
ids                        a column of strings, of whole numbers, or of Arrow's UUIDs
vector fields              columns of fixed-size lists of floats of 16, 32 or 64 bits. Each search names its
                           metric, unless there is an index on the column: then the index has it
columns                    all others; of times, lists and the like the text is read
an empty field, *lacking*  ``NULL``, by a filter that LanceDB applies before it searches
an added field             a column that may be empty, and beside it the column ``<field>__filled``, by which *lacking*
                           filters: in some 20 ns a row, where ``NULL`` vectors take 2 µs for each row that has one
``set_vectors``            a merge of the columns id and field alone, into rows that match. LanceDB writes each such
                           row anew from its newest version, and begins again where another process changed it
scan                       one query, and so one version of the table
notes                      metadata of the column of ids, each key by itself
what others wrote          every call looks for a newer version first (0.1 ms)
=========================  =====================================================================================

Crossfade's processes on one machine wait for each other where LanceDB does not keep them apart (by a lock on
``<table>.crossfade.lock`` in the folder; Windows has none): inserting, since nothing makes an id unique, and notes
beside a change of fields, which LanceDB lets overwrite them.

What it cannot do. Another program that inserts the same new id at the same moment makes a second row, unless the column
of ids is the table's ``unenforced primary key``; one that adds or drops a column at the moment of a note may lose the
note. Rows that were written anew are outside of an index until ``table.optimize()``: they are found, by comparing each.
Who empties
an added field by another client empties the column beside it, too: such rows would else be searched in neither field.
By cosine a zero vector is like no other: such rows are not found, and a zero query finds none. A table with LanceDB's
own embedding functions is read only, since its client embeds anew whatever is written there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from crossfade.errors import ConfigError, StoreChanged, StoreError
from crossfade.spaces import METRICS, Metric
from crossfade.stores.address import Address
from crossfade.stores.backend import Backend, Capabilities, Description, Query, VectorField
from crossfade.stores.conditions import Condition
from crossfade.stores.lancedb_connection import LanceDBConnection
from crossfade.stores.lancedb_filters import filtered, one_of, quoted
from crossfade.stores.lancedb_rows import (
    dimension_of,
    evenly,
    id_kind_of,
    ids_array,
    ids_of,
    kind_of_column,
    mark_of,
    marks_array,
    records_of,
    rows_of,
    vectors_array,
)
from crossfade.stores.records import Hits, Id, Records

if TYPE_CHECKING:
    from lancedb._lancedb import MergeResult
    from lancedb.merge import LanceMergeInsertBuilder
    from lancedb.query import LanceQueryBuilder
    from lancedb.table import AsyncTable

__all__ = ["LanceDBBackend", "connect"]

Floats = npt.NDArray[np.float32]

EMBEDS = b"embedding_functions"
"""In the metadata of a table for which LanceDB's client makes embeddings itself, of whatever is written."""

NOTE = "crossfade:"
"""Before each key of a note, among the metadata of the column of ids."""

IDS_AT_A_TIME = 20_000
"""Ids in one filter: LanceDB reads its SQL at 5 µs an id, and the column of ids once a filter."""

QUERIES_AT_A_TIME = 256
"""Queries in one search; LanceDB holds the results of all."""

REFINED = 10
"""Rows compared by their own vectors, for each that is wanted of an index of compressed vectors."""

PARTITIONS = 20
"""Partitions of an index that are searched at least, as by LanceDB itself; more where a filter leaves too few rows."""

COUNTED_FROM = 1000
"""From so many rows a query on, it asks for no more than there are: LanceDB sets memory aside for what is asked for."""


def connect(address: Address) -> LanceDBBackend:
    """Open a table.

    Raises:
        ConfigError: the address names no folder or no table, or has an option that there is not.
        MissingExtra: LanceDB is not installed.
        Unreachable: the folder may not be read.
        StoreChanged: there is no such folder, or no such table in it.
    """
    address.require_options("id")
    folder = address.file()
    if not address.fragment:
        raise ConfigError(f"{address.text} must name a table behind a #, as lancedb:///folder#table.")
    return LanceDBBackend(folder, address.fragment, id_column=address.options.get("id") or "id", address=address.text)


@final
class LanceDBBackend(Backend):
    """A table of LanceDB.

    Args:
        folder: the database.
        table: its name.
        id_column: which column ids stand in.
        address: what the table is called in messages.
    """

    def __init__(self, folder: Path, table: str, *, id_column: str, address: str) -> None:
        self.address = address
        self._id = id_column
        self._connection = LanceDBConnection(folder, table, id_column=id_column, address=address)
        self._table = self._connection.table
        with self._connection.translated("be opened"):
            schema = self._connection.schema()
        halves = any(dimension_of(c.type) is not None and pa.types.is_float16(c.type.value_type) for c in schema)
        embeds = EMBEDS in (schema.metadata or {})
        self.capabilities = Capabilities(keeps_vectors=not halves, write=not embeds, second_field=not embeds)

    def describe(self) -> Description:
        """See :meth:`Backend.describe`."""
        with self._connection.translated("be described"):
            schema = self._connection.schema()
            ids = schema.field(self._id).type
            kind = id_kind_of(ids)
            if kind is None:
                raise StoreError(
                    f"Ids must be strings, whole numbers or UUIDs; the column {self._id!r} of {self.address} holds "
                    f"{ids}. Name another: ?id=column."
                )
            others = [column for column in schema if column.name != self._id]
            found = {c.name: VectorField(c.name, size) for c in others if (size := dimension_of(c.type)) is not None}
            for field, metric in self._indexed(list(found)):
                found[field] = replace(found[field], metric=metric)
        hidden = {*found, *(mark_of(field) for field in found)}
        return Description(kind, found, {c.name: kind_of_column(c.type) for c in others if c.name not in hidden})

    def count(self, where: tuple[Condition, ...], lacking: str | None = None) -> int:
        """See :meth:`Backend.count`."""
        needed = [*(each.column for each in where), *([] if lacking is None else [lacking])]
        with self._connection.translated("be counted", needed):
            return int(self._table.count_rows(self._filter(where, lacking)))

    def scan(
        self, fields: Sequence[str], columns: Sequence[str], where: tuple[Condition, ...], batch: int
    ) -> Iterator[Records]:
        """See :meth:`Backend.scan`; the order is that of LanceDB's fragments."""
        needed = [*fields, *columns, *(each.column for each in where)]
        with self._connection.translated("be scanned", needed):
            rows = evenly(self._rows(self._filter(where), fields, columns).to_batches(batch_size=batch), batch)
        while True:
            with self._connection.translated("be scanned", needed):
                part = next(rows, None)
                found = None if part is None else records_of(part, self._id, fields, columns)
            if found is None:
                return
            yield found

    def fetch(self, ids: Sequence[Id], fields: Sequence[str], columns: Sequence[str]) -> Records:
        """See :meth:`Backend.fetch`."""
        wanted = list(dict.fromkeys(ids))
        with self._connection.translated("be read", [*fields, *columns]):
            parts = [self._rows(those, fields, columns).to_arrow() for those in self._filters_of(wanted)]
            rows = pa.concat_tables(parts)
            place = {id_: row for row, id_ in enumerate(ids_of(rows[self._id]))}
            order = pa.array([place[id_] for id_ in wanted if id_ in place], type=pa.int64())
            return records_of(rows.take(order), self._id, fields, columns)

    def search(self, query: Query) -> list[Hits]:
        """See :meth:`Backend.search`; what an index finds is compared again by its own vectors."""
        needed = [query.field, *(each.column for each in query.where)]
        with self._connection.translated("be searched", needed if query.lacking is None else [*needed, query.lacking]):
            where = self._filter(query.where, query.lacking)
            k = query.k if query.k < COUNTED_FROM else max(1, min(query.k, self._table.count_rows()))
            return [
                hits
                for start in range(0, len(query.vectors), QUERIES_AT_A_TIME)
                for hits in self._nearest(query, query.vectors[start : start + QUERIES_AT_A_TIME], k, where)
            ]

    def indexed(self, field: str, metric: Metric) -> bool:
        """See :meth:`Backend.indexed`; rows outside of it are compared each."""
        with self._connection.translated("be described", [field]):
            self._connection.schema([field])
            return (field, metric) in self._indexed([field])

    def upsert(self, records: Records) -> None:
        """See :meth:`Backend.upsert`."""
        with self._connection.alone(), self._connection.translated("be written"):
            while not self._connection.persistently(lambda: self._replaced(records)):
                pass

    def set_vectors(self, field: str, ids: Sequence[Id], vectors: Floats | None) -> int:
        """See :meth:`Backend.set_vectors`."""
        with self._connection.translated("be written"):
            return self._connection.persistently(lambda: self._filled(field, ids, vectors))

    def delete(self, ids: Sequence[Id]) -> int:
        """See :meth:`Backend.delete`."""
        with self._connection.translated("be written"):
            done: list[Any] = [
                self._connection.persistently(partial(self._table.delete, those)) for those in self._filters_of(ids)
            ]
            return sum(each.num_deleted_rows for each in done)

    def add_field(self, field: VectorField) -> None:
        """See :meth:`Backend.add_field`; of 32-bit floats, and compared by any metric until there is an index on it."""
        column = pa.field(field.name, pa.list_(pa.float32(), field.dimension))
        added = pa.schema([column, pa.field(mark_of(field.name), pa.bool_())])
        with self._connection.alone(), self._connection.translated("be given a field"):
            self._connection.persistently(lambda: self._table.add_columns(added))

    def drop_field(self, name: str) -> None:
        """See :meth:`Backend.drop_field`; an index on it goes with it."""
        with self._connection.alone(), self._connection.translated("be rid of a field", [name]):
            mark = mark_of(name)
            dropped = [name, mark] if mark in self._connection.schema([name]).names else [name]
            self._connection.persistently(lambda: self._table.drop_columns(dropped))

    def notes(self) -> dict[str, str]:
        """See :meth:`Backend.notes`."""
        with self._connection.translated("be read"):
            kept = self._connection.schema().field(self._id).metadata or {}
        texts = {key.decode(): text.decode() for key, text in kept.items()}
        return {key.removeprefix(NOTE): text for key, text in texts.items() if key.startswith(NOTE)}

    def note(self, key: str, text: str | None) -> None:
        """See :meth:`Backend.note`."""
        update = {"path": quoted(self._id), "metadata": {NOTE + key: text}}
        with self._connection.alone(), self._connection.translated("be noted on"):
            self._connection.persistently(lambda: self._table.update_field_metadata(update))

    def has_column(self, name: str) -> bool:
        """See :meth:`Backend.has_column`: the columns are all named."""
        return False

    def close(self) -> None:
        """Nothing is held but caches, which go with this object."""

    def _indexed(self, fields: Sequence[str]) -> Iterator[tuple[str, Metric]]:
        """The fields that have an index, and how it compares."""
        columns = {written: field for field in fields for written in (field, quoted(field))}
        for index in self._table.list_indices():
            stats = self._table.index_stats(index.name) if index.columns[0] in columns else None
            if stats is not None and stats.distance_type in METRICS:
                yield columns[index.columns[0]], stats.distance_type

    def _filter(self, where: tuple[Condition, ...], lacking: str | None = None) -> str | None:
        if not where and lacking is None:
            return None
        types = {c.name: c.type for c in self._connection.schema([each.column for each in where])}
        if lacking is not None and mark_of(lacking) in types:
            lacking = mark_of(lacking)
        return filtered(where, types, lacking)

    def _filters_of(self, ids: Sequence[Id]) -> list[str]:
        """Filters that together keep the rows of these ids."""
        type_ = self._connection.schema().field(self._id).type
        kind = id_kind_of(type_)
        if kind is None:
            raise StoreChanged(f"The column of ids {self._id!r} of {self.address} holds {type_} now, which are no ids.")
        starts = range(0, max(1, len(ids)), IDS_AT_A_TIME)
        return [one_of(self._id, ids[start : start + IDS_AT_A_TIME], kind, type_) for start in starts]

    def _rows(self, where: str | None, fields: Sequence[str], columns: Sequence[str]) -> LanceQueryBuilder:
        rows = self._table.search().select([self._id, *fields, *columns])
        return rows if where is None else rows.where(where)

    def _nearest(self, query: Query, vectors: Floats, k: int, where: str | None) -> Iterator[Hits]:
        several = len(vectors) > 1

        async def asked(table: AsyncTable) -> pa.Table:
            search = table.query().nearest_to(vectors if several else vectors[0]).column(query.field)
            search = search.distance_type(query.metric).limit(k).select([self._id, "_distance"])
            if where is not None:
                search = search.where(where)
            if query.exact:
                search = search.bypass_vector_index()
            else:
                search = search.refine_factor(REFINED).minimum_nprobes(PARTITIONS)
                search = search.maximum_nprobes(0)  # all, if need be
            return await search.to_arrow()

        rows = self._connection.asked(asked)
        ids, distances = ids_of(rows[self._id]), rows["_distance"].to_numpy()
        if not several:
            yield Hits(ids, _scores(distances, query.metric))
            return
        numbers = rows["query_index"].to_numpy()
        order = np.lexsort((distances, numbers))
        scores = _scores(distances, query.metric)
        bounds = np.searchsorted(numbers[order], np.arange(len(vectors) + 1))
        for first, last in pairwise(bounds):
            places = order[first:last]
            yield Hits([ids[place] for place in places], scores[places])

    def _replaced(self, records: Records) -> bool:
        """Write whole rows; False where a column was added meanwhile, and they may have kept what they had there."""
        schema = self._connection.schema([*records.vectors, *records.columns])
        merge = self._table.merge_insert(self._id).when_matched_update_all().when_not_matched_insert_all()
        done = self._merge(merge, rows_of(records, schema, self._id))
        return self._table.schema == schema or self._connection.schema_at(done.version) == schema

    def _filled(self, field: str, ids: Sequence[Id], vectors: Floats | None) -> int:
        """Write one field; how many rows there are."""
        schema = self._connection.schema([field])
        named, filled = schema.field(self._id), schema.field(field)
        arrays = [ids_array(ids, named.type), vectors_array(vectors, filled, rows=len(ids))]
        written = [named, filled]
        if mark_of(field) in schema.names:
            arrays.append(marks_array(np.full(len(ids), vectors is not None)))
            written.append(schema.field(mark_of(field)))
        rows = pa.Table.from_arrays(arrays, schema=pa.schema(written))
        return self._merge(self._table.merge_insert(self._id).when_matched_update_all(), rows).num_updated_rows

    def _merge(self, merge: LanceMergeInsertBuilder, rows: pa.Table) -> MergeResult:
        """Write the columns that ``rows`` have; all at once, or nothing."""
        result: MergeResult = merge.execute(rows, on_bad_vectors="null")  # to the client, an empty one is bad
        return result


def _scores(distances: Floats, metric: Metric) -> Floats:
    """Scores from LanceDB's distances: one less the similarity, or the square of the Euclidean distance."""
    scores = -np.sqrt(np.maximum(distances, 0)) if metric == "l2" else 1 - distances
    return scores.astype(np.float32, copy=False)
