"""Points of Qdrant as rows, and rows as points."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias
from uuid import UUID, uuid5

import numpy as np

from crossfade.errors import ConfigError, InvalidIds, StoreChanged, StoreError, Unsupported
from crossfade.stores.conditions import Kind, kind_of
from crossfade.stores.ids import LARGEST, IdKind
from crossfade.stores.records import Id, Records, Value, Vectors

if TYPE_CHECKING:
    from qdrant_client import models

__all__ = [
    "Point",
    "column_of",
    "emptied",
    "ids_of",
    "indexed",
    "kinds_of",
    "new_place",
    "payloads_of",
    "points_of",
    "requests",
    "require_places",
    "vectors_of",
]

Point: TypeAlias = "models.Record | models.ScoredPoint"

PLACES = UUID("5b0d3c1e-7a5f-5f0e-9a53-6d1c2f6c0f27")
"""Namespace of the point ids of new rows whose own id stands in the payload; never changed."""

INDEXES: Mapping[str, Kind] = {
    "keyword": "string",
    "text": "string",
    "uuid": "string",
    "datetime": "string",
    "integer": "integer",
    "float": "number",
    "bool": "boolean",
}
"""Kind of an index → what its column holds."""

TOP_LEVEL = re.compile(r'"[^"\\]*"|[^"\\.\[\]]+')
"""A path of one key."""

REQUEST_BYTES = 8 * 2**20
"""Of one request, about; a server takes four times as much unless it is told otherwise."""

REQUEST_ROWS = 4096
NUMBER_BYTES = 22
"""Of a float32 in JSON, at most."""


def new_place(id_: Id) -> str:
    """The point id of a row whose own id stands in the payload: the same in every process."""
    return str(uuid5(PLACES, str(id_)))


def ids_of(points: Sequence[Point], kind: IdKind, key: str | None, address: str) -> list[Id]:
    """What the application calls these points.

    Raises:
        StoreError: one has no id of this kind, or two have the same.
    """
    found = [point.id if key is None else (point.payload or {}).get(key) for point in points]
    wanted = int if kind == "integer" else str
    for point, id_ in zip(points, found, strict=True):
        if type(id_) is not wanted or (isinstance(id_, int) and id_ > LARGEST):
            where = "be the point's own" if key is None else f"stand under {key!r} in the payload"
            raise StoreError(
                f"Ids of {address} are of the kind {kind!r} and must {where}; the point {point.id} has {_named(id_)} there. "
                "Name the key that holds them by the option id, and their kind by the option ids."
            )
    ids: list[Id] = [id_ for id_ in found if isinstance(id_, int | str)]
    if len(set(ids)) < len(ids):
        twice = next(id_ for id_ in ids if ids.count(id_) > 1)
        raise StoreError(
            f"Each id of {address} must stand in one point; {twice!r} stands under {key!r} in several. Delete all but one."
        )
    return ids


def vectors_of(points: Sequence[Point], field: str, dimension: int, address: str) -> Vectors:
    """One vector field of these points.

    Raises:
        StoreChanged: a vector is of another dimension.
    """
    rows = [_vector(point.vector, field) for point in points]
    other = next((len(row) for row in rows if row is not None and len(row) != dimension), None)
    if other is not None:
        raise StoreChanged(
            f"The field {field!r} of {address} had {dimension} dimensions, and has {other} now. Open the store again."
        )
    present = np.fromiter((row is not None for row in rows), dtype=bool, count=len(rows))
    values = np.zeros((len(rows), dimension), dtype=np.float32)
    if present.any():
        values[present] = np.array([row for row in rows if row is not None], dtype=np.float32)
    return Vectors(values, present)


def column_of(points: Sequence[Point], column: str, address: str) -> list[Value]:
    """One column of these points.

    Raises:
        Unsupported: a point has a list or an object there.
    """
    found = [(point.payload or {}).get(column) for point in points]
    for point, value in zip(points, found, strict=True):
        if value is not None and kind_of(value) == "other":
            raise Unsupported(
                f"A column must hold text, numbers or booleans to be read; {column!r} of {address} has {_named(value)} in the "
                f"point {point.id}. Leave the column out."
            )
    return found


def kinds_of(payloads: Sequence[Mapping[str, object]]) -> dict[str, Kind]:
    """What the columns of some rows hold; those that hold values of several kinds are left out."""
    seen: dict[str, set[Kind]] = {}
    for payload in payloads:
        for name, value in payload.items():
            if value is not None:
                seen.setdefault(name, set()).add(kind_of(value))  # type: ignore[arg-type]  # a list or an object is "other"
    numbers: set[Kind] = {"integer", "number"}
    return {
        name: "number" if len(kinds) > 1 else next(iter(kinds))
        for name, kinds in seen.items()
        if len(kinds) == 1 or kinds == numbers
    }


def indexed(schema: Mapping[str, models.PayloadIndexInfo]) -> dict[str, Kind]:
    """The columns that have an index, and what they hold; an index on a part of one is left out."""
    return {
        path.strip('"'): INDEXES.get(index.data_type.value, "other")
        for path, index in schema.items()
        if TOP_LEVEL.fullmatch(path)
    }


def payloads_of(records: Records, key: str | None) -> list[dict[str, Value]]:
    """What stands beside the vectors of each row.

    Raises:
        ConfigError: a column is the one that holds the ids, or a number cannot be kept as JSON.
    """
    if key is not None and key in records.columns:
        raise ConfigError(f"The ids stand under {key!r} in the payload, which cannot be a column too. Leave it out.")
    payloads: list[dict[str, Value]] = [{} if key is None else {key: id_} for id_ in records.ids]
    for name, column in records.columns.items():
        for payload, value in zip(payloads, column, strict=True):
            if isinstance(value, float) and not math.isfinite(value):
                raise ConfigError(
                    f"Numbers must be finite; the column {name!r} has {value}. Give None where there is none."
                )
            if isinstance(value, int) and not -LARGEST - 1 <= value <= LARGEST:
                raise ConfigError(f"Whole numbers must have at most 64 bits; the column {name!r} has one with more.")
            if value is not None:
                payload[name] = value
    return payloads


def require_places(ids: Sequence[Id]) -> None:
    """Refuse ids that no point can have.

    Raises:
        InvalidIds: one is a negative number.
    """
    negative = next((id_ for id_ in ids if isinstance(id_, int) and id_ < 0), None)
    if negative is not None:
        raise InvalidIds(
            f"A point of Qdrant is numbered from 0; found {negative}. Keep such ids in the payload, and name its key by the "
            "option id."
        )


def points_of(
    places: Sequence[models.ExtendedPointId],
    records: Records,
    payloads: Sequence[dict[str, Value]],
    rows: range,
    *,
    unnamed: bool,
) -> list[models.PointStruct]:
    """Rows as points.

    Args:
        places: of all rows, their point ids.
        records: all rows.
        payloads: of all rows.
        rows: the ones to be sent.
        unnamed: whether the collection's only field has no name.
    """
    from qdrant_client import models

    given: list[dict[str, list[float]]] = [{} for _ in rows]
    for name, vectors in records.vectors.items():
        part = slice(rows.start, rows.stop)
        sent = zip(given, vectors.values[part].tolist(), vectors.present[part].tolist(), strict=True)
        for point, values, present in sent:
            if present:
                point[name] = values
    return [
        models.PointStruct.model_construct(  # the values are ours: to check them again takes longer than to send them
            id=places[row], vector=vector[""] if unnamed and vector else vector, payload=payloads[row]
        )
        for row, vector in zip(rows, given, strict=True)
    ]


def emptied(
    names: Sequence[str], places: Sequence[models.ExtendedPointId], records: Records, rows: range
) -> list[models.UpdateOperation]:
    """What empties the fields that rows are not given, of rows that exist.

    Servers of some versions keep such vectors when they replace a point that lies in an optimised segment.
    """
    from qdrant_client import models

    operations: list[models.UpdateOperation] = []
    for name in names:
        vectors = records.vectors.get(name)
        lacking = [places[row] for row in rows if vectors is None or not vectors.present[row]]
        if lacking:
            there = models.Filter(must=[models.HasIdCondition(has_id=lacking)])
            operations.append(
                models.DeleteVectorsOperation(delete_vectors=models.DeleteVectors(filter=there, vector=[name]))
            )
    return operations


def requests(dimensions: int, payloads: Sequence[Mapping[str, Value]] | int) -> Iterator[range]:
    """Rows in parts, each of a size that a server takes in one request.

    Args:
        dimensions: numbers in the vectors of one row.
        payloads: of the rows, or how many rows there are, where only vectors are sent.
    """
    count = payloads if isinstance(payloads, int) else len(payloads)
    start, size = 0, 0
    for row in range(count):
        more = 64 + NUMBER_BYTES * dimensions
        if not isinstance(payloads, int):
            more += sum(len(name) + 4 * len(v) if isinstance(v, str) else 40 for name, v in payloads[row].items())
        if row > start and (size + more > REQUEST_BYTES or row - start >= REQUEST_ROWS):
            yield range(start, row)
            start, size = row, 0
        size += more
    if count:
        yield range(start, count)


def _vector(vector: object, field: str) -> list[float] | None:
    """One field of what Qdrant gives as a point's vector: a list where there is only the one without a name."""
    if isinstance(vector, dict):
        return vector.get(field)
    return vector if isinstance(vector, list) and not field else None


def _named(value: object) -> str:
    """What a value is, without the value."""
    return "nothing" if value is None else f"a value of the type {type(value).__name__}"
