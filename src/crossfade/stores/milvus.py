"""Milvus: a server, or Milvus Lite, which keeps a file in the process that opens it.

::

    milvus://host:19530/photos?db=shop            milvus+https:// for a server behind TLS
    milvus:///srv/vectors.db#photos               the file of Milvus Lite

The token for a server comes from MILVUS_TOKEN. Ids are the primary key: VARCHAR or INT64. Vector fields are those of
32-bit numbers, compared as their index says. Columns are the scalar fields; JSON and arrays are read and written as
JSON text, and where the dynamic field is enabled, its keys are columns, too. Filters are boolean expressions. Notes are
properties of the collection, ``crossfade.note.`` before their key. Every read asks for the consistency level Strong. A
server must have loaded the collection; a file is loaded when it is opened.

What it cannot do: a second vector field is not declared. Milvus Lite can add none, and Milvus' partial upsert, which a
server would fill one by, reads and writes a row again in two steps, so that what others write in between is lost, and
makes rows that do not exist. Rows cannot be written where Milvus makes the ids (an upsert gives a row another one) or
where the rows lie in partitions by name (an upsert looks for the row in one partition only). A scan goes by pages in
the order of the ids, and rows written meanwhile may be seen or not. Milvus Lite is used by one process, which keeps the
file until it ends.
"""

from __future__ import annotations

import json
import os
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, final

import numpy as np
import numpy.typing as npt

from crossfade.errors import ConfigError, InvalidVectors, StoreChanged, Unsupported
from crossfade.stores.address import Address
from crossfade.stores.backend import Backend, Capabilities, Description, Query, VectorField
from crossfade.stores.conditions import Condition
from crossfade.stores.exact import exact_search, rows_at_a_time
from crossfade.stores.milvus_client import Client, Row
from crossfade.stores.milvus_filters import dynamic, expression, literal, one_of
from crossfade.stores.records import Hits, Id, Records, Value, Vectors

__all__ = ["MilvusBackend", "connect"]

Floats = npt.NDArray[np.float32]

MOST_ROWS = 16_384
"""Rows that a server gives in one answer, at most."""

MESSAGE_BYTES = 16 << 20
"""Bytes of rows in one message, about; a server takes 64 MiB."""

IDS_AT_A_TIME = 1000
QUERIES_AT_A_TIME = 1000

NOTE = "crossfade.note."

WRITING: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
"""File or server of Milvus Lite, which does not bear two writers at once → the lock of this process's."""


def connect(address: Address) -> Backend:
    """Open a collection that exists.

    Raises:
        ConfigError: the address names no collection, or has what Milvus does not know.
        MissingExtra: pymilvus or milvus-lite is not installed.
        Unreachable: nobody answers, or the token is refused, or another process has the file.
        StoreChanged: there is no such collection.
    """
    address.require_options("db")
    embedded = not address.host
    collection = address.fragment if embedded else address.path.strip("/")
    if address.user or not collection or "/" in collection or (address.fragment and not embedded):
        raise ConfigError(
            "An address of Milvus is milvus://host:19530/collection or milvus:///folder/file.db#collection, without a "
            "user: the token stands in MILVUS_TOKEN."
        )
    if embedded:
        _require_file(address)
        uri, token = str(address.file()), ""
    else:
        secure = address.scheme.endswith("+https")
        uri = f"{'https' if secure else 'http'}://{address.host}:{address.port or (443 if secure else 19530)}"
        token = os.environ.get("MILVUS_TOKEN", "")
    database = address.options.get("db", "")
    client = Client(uri, collection, address=address.text, token=token, database=database, embedded=embedded)
    writing = WRITING[str(Path(uri).resolve()) if embedded else uri] if client.lite else nullcontext()
    return MilvusBackend(client, address.text, writing)


def _require_file(address: Address) -> None:
    path = address.file()
    if path.suffix != ".db" or address.scheme != "milvus":
        raise ConfigError(
            f"The file of Milvus Lite is named as milvus:///folder/file.db#collection; found {address.text}."
        )
    if not path.exists():
        raise StoreChanged(
            f"{address.text} must name a file of Milvus Lite that exists; there is none. Check the path."
        )


@final
class MilvusBackend(Backend):
    """A collection of Milvus.

    Args:
        client: calls about it.
        address: for messages.
        writing: held while rows are written.
    """

    def __init__(self, client: Client, address: str, writing: AbstractContextManager[Any]) -> None:
        self.address = address
        self._client, self._writing = client, writing
        shape = client.shape
        self.capabilities = Capabilities(
            write=not shape.generated and (shape.partitioned or not client.has_named_partitions()),
            second_field=False,
            snapshot=False,
            shared=not client.lite,
        )

    def describe(self) -> Description:
        """See :meth:`Backend.describe`."""
        return self._client.describe().description()

    def count(self, where: tuple[Condition, ...], lacking: str | None = None) -> int:
        """See :meth:`Backend.count`."""
        test = expression(where, self._client.shape.columns)
        return 0 if test is None else int(self._client.query(test, ["count(*)"])[0]["count(*)"])

    def scan(
        self, fields: Sequence[str], columns: Sequence[str], where: tuple[Condition, ...], batch: int
    ) -> Iterator[Records]:
        """See :meth:`Backend.scan`; by pages, as the client's own iterator, which does not quote ids."""
        shape = self._client.shape
        test = expression(where, shape.columns)
        size = sum(shape.fields[name].dimension for name in fields) * 4 + 64
        limit = min(batch, MOST_ROWS, max(1, MESSAGE_BYTES // size))
        last: Id | None = None
        while test is not None:
            after = [] if last is None else [f"{shape.primary} > {literal(last)}"]
            tests = " and ".join([*after, *([f"({test})"] if test else [])])
            rows = self._client.query(tests, [shape.primary, *fields, *columns], limit=limit, ordered=True)
            if not rows:
                return
            last = rows[-1][shape.primary]
            yield self._records(rows, fields, columns)

    def fetch(self, ids: Sequence[Id], fields: Sequence[str], columns: Sequence[str]) -> Records:
        """See :meth:`Backend.fetch`."""
        primary, asked = self._client.shape.primary, list(dict.fromkeys(ids))
        found: dict[Id, Row] = {}
        for some in _chunks(asked):
            for row in self._client.query(one_of(primary, some), [primary, *fields, *columns]):
                found[row[primary]] = row
        return self._records([found[id_] for id_ in asked if id_ in found], fields, columns)

    def search(self, query: Query) -> list[Hits]:
        """See :meth:`Backend.search`; an exact one asks an index that compares every row, and scans where it is "
        "another."""
        if query.k > MOST_ROWS or (query.exact and query.field not in self._client.shape.exact):
            batch = rows_at_a_time(len(query.vectors))
            return exact_search(query, self.scan([query.field], [], query.where, batch))
        test = expression(query.where, self._client.shape.columns)
        if test is None:
            return [Hits([], np.empty(0, dtype=np.float32)) for _ in query.vectors]
        hits: list[Hits] = []
        for start in range(0, len(query.vectors), QUERIES_AT_A_TIME):
            part = replace(query, vectors=query.vectors[start : start + QUERIES_AT_A_TIME])
            for ids, distances in self._client.search(part, test):
                scores = np.asarray(distances, dtype=np.float32)
                if query.metric == "l2":  # Milvus gives the square
                    scores = -np.sqrt(np.maximum(scores, 0))
                hits.append(Hits(ids, scores))
        return hits

    def upsert(self, records: Records) -> None:
        """See :meth:`Backend.upsert`."""
        self._require_vectors(records)
        for start, stop in _messages(records):
            part = records.select(range(start, stop))
            with self._writing:
                self._client.upsert(self._rows(part))

    def set_vectors(self, field: str, ids: Sequence[Id], vectors: Floats | None) -> int:
        """See :meth:`Backend.set_vectors`; never asked for."""
        raise self._no_second_field()

    def delete(self, ids: Sequence[Id]) -> int:
        """See :meth:`Backend.delete`."""
        count, primary = 0, self._client.shape.primary
        for some in _chunks(ids):
            test = one_of(primary, some)
            with self._writing:
                count += len(self._client.query(test, [primary]))
                self._client.delete(test)
        return count

    def add_field(self, field: VectorField) -> None:
        """See :meth:`Backend.add_field`; never asked for."""
        raise self._no_second_field()

    def drop_field(self, name: str) -> None:
        """See :meth:`Backend.drop_field`; never asked for."""
        raise self._no_second_field()

    def notes(self) -> dict[str, str]:
        """See :meth:`Backend.notes`."""
        properties = self._client.properties().items()
        return {name.removeprefix(NOTE): str(text) for name, text in properties if name.startswith(NOTE)}

    def note(self, key: str, text: str | None) -> None:
        """See :meth:`Backend.note`."""
        with self._writing:
            if text is not None or NOTE + key in self._client.properties():
                self._client.set_property(NOTE + key, text)

    def has_column(self, name: str) -> bool:
        """See :meth:`Backend.has_column`."""
        return bool(self._client.query(f"exists {dynamic(name)}", [self._client.shape.primary], limit=1))

    def close(self) -> None:
        """See :meth:`Backend.close`; the process keeps the file of Milvus Lite until it ends."""
        self._client.close()

    def _records(self, rows: list[Row], fields: Sequence[str], columns: Sequence[str]) -> Records:
        return Records(
            [row[self._client.shape.primary] for row in rows],
            {name: self._vectors(name, [row.get(name) for row in rows]) for name in fields},
            {name: [_value(row.get(name)) for row in rows] for name in columns},
        )

    def _vectors(self, name: str, found: list[Any]) -> Vectors:
        dimension = self._client.shape.fields[name].dimension
        lengths = {len(row) for row in found if row is not None}
        if lengths - {dimension}:
            raise StoreChanged(
                f"The field {name!r} of {self.address} had {dimension} dimensions; now it has {sorted(lengths)}."
            )
        if not found or any(row is None for row in found):
            return Vectors.from_rows(found, dimension)
        return Vectors.of(np.stack(found))

    def _rows(self, records: Records) -> list[Row]:
        """Records as the client takes them; what a row lacks becomes null, or the default of its column."""
        shape = self._client.shape
        rows: list[Row] = [{shape.primary: id_} for id_ in records.ids]
        for name, vectors in records.vectors.items():
            for row, vector, present in zip(rows, vectors.values, vectors.present.tolist(), strict=True):
                if present:
                    row[name] = vector
        for name, values in records.columns.items():
            for row, value in zip(rows, values, strict=True):
                if value is not None:
                    row[name] = self._array(name, value) if name in shape.arrays else value
        if self._client.lite and shape.schemaless:
            self._forget_dynamic(rows)
        return rows

    def _forget_dynamic(self, rows: list[Row]) -> None:
        """Make keys outside the schema null that stored rows have and these have not: Milvus Lite would keep them."""
        primary = self._client.shape.primary
        here = {row[primary]: row for row in rows}
        for some in _chunks(list(here)):
            for stored in self._client.query(one_of(primary, some), ["$meta"]):
                for key in stored.keys() - {primary}:
                    here[stored[primary]].setdefault(key, None)

    def _array(self, name: str, value: Value) -> list[Any]:
        try:
            array = json.loads(str(value))
        except ValueError:
            array = None
        if not isinstance(array, list):
            raise ConfigError(f"The column {name!r} of {self.address} takes arrays as JSON text; a value is none.")
        return array

    def _require_vectors(self, records: Records) -> None:
        for name in self._client.shape.fields.keys() - self._client.shape.nullable:
            if name not in records.vectors or not records.vectors[name].present.all():
                raise InvalidVectors(
                    f"Each row of {self.address} must have a vector in the field {name!r}; some have none. Leave those "
                    "out."
                )

    def _no_second_field(self) -> Unsupported:
        return Unsupported(f"{self.address} cannot have a vector field added, filled row by row or dropped.")


def _chunks(ids: Sequence[Id]) -> Iterator[Sequence[Id]]:
    for start in range(0, len(ids), IDS_AT_A_TIME):
        yield ids[start : start + IDS_AT_A_TIME]


def _messages(records: Records) -> Iterator[tuple[int, int]]:
    """The rows that go into one message each, from and to."""
    sizes = np.full(len(records), 256 + 4 * sum(each.values.shape[1] for each in records.vectors.values()))
    for values in records.columns.values():
        sizes += np.fromiter((4 * len(v) if isinstance(v, str) else 0 for v in values), np.int64, len(values))
    start, size = 0, 0
    for row, more in enumerate(sizes.tolist()):
        if row > start and (size + more > MESSAGE_BYTES or row - start == MOST_ROWS):
            yield start, row
            start, size = row, 0
        size += more
    if len(records) > start:
        yield start, len(records)


def _value(found: Any) -> Value:
    """A value of a column; JSON and arrays as text."""
    if found is None or isinstance(found, str | int | float):
        return found
    plain = list(found) if not isinstance(found, dict | list) else found
    return json.dumps(plain, ensure_ascii=False)
