"""Rows of LanceDB as Arrow has them: their shape, and records from them and into them, by whole columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from crossfade.errors import InvalidVectors, StoreError
from crossfade.stores.conditions import Kind
from crossfade.stores.ids import IdKind
from crossfade.stores.records import Id, Records, Value, Vectors

__all__ = [
    "dimension_of",
    "evenly",
    "id_kind_of",
    "ids_array",
    "kind_of_column",
    "mark_of",
    "marks_array",
    "records_of",
    "rows_of",
    "vectors_array",
]

Floats = npt.NDArray[np.float32]


def mark_of(field: str) -> str:
    """The column beside an added field that says which rows have a vector there: to filter by emptiness, LanceDB would read the
    vectors themselves.
    """
    return f"{field}__filled"


def dimension_of(type_: pa.DataType) -> int | None:
    """Of the vectors in a column of this type; None where it holds none."""
    if not isinstance(type_, pa.FixedSizeListType) or not pa.types.is_floating(type_.value_type):
        return None
    return int(type_.list_size)


def id_kind_of(type_: pa.DataType) -> IdKind | None:
    """What ids in a column of this type are; None where they can be none."""
    if _is_uuid(type_):
        return "uuid"
    kind = kind_of_column(type_)
    return kind if kind in ("string", "integer") and not pa.types.is_dictionary(type_) else None


def _is_uuid(type_: pa.DataType) -> bool:
    return isinstance(type_, pa.BaseExtensionType) and type_.extension_name == "arrow.uuid"


def kind_of_column(type_: pa.DataType) -> Kind:
    """What a column of this type holds."""
    if pa.types.is_dictionary(type_):
        type_ = type_.value_type
    if pa.types.is_string(type_) or pa.types.is_large_string(type_):
        return "string"
    if pa.types.is_integer(type_):
        return "integer"
    if pa.types.is_floating(type_):
        return "number"
    return "boolean" if pa.types.is_boolean(type_) else "other"


def evenly(batches: Iterable[pa.RecordBatch], size: int) -> Iterator[pa.Table]:
    """The same rows, ``size`` at a time but for the last: a table that grew by small writes yields them as small."""
    held: list[pa.RecordBatch] = []
    count = 0
    for each in batches:
        held.append(each)
        count += each.num_rows
        while count >= size:
            whole = pa.Table.from_batches(held)
            yield whole.slice(0, size)
            held, count = whole.slice(size).to_batches(), count - size
    if count:
        yield pa.Table.from_batches(held)


def records_of(rows: pa.Table, id_column: str, fields: Sequence[str], columns: Sequence[str]) -> Records:
    """Rows as records.

    Raises:
        StoreError: a row has no id, or one has the id of another.
    """
    ids = ids_of(rows[id_column])
    if len(set(ids)) < len(ids):
        raise StoreError(
            f"Rows must have an id each, and once; in the column {id_column!r}, {len(ids) - len(set(ids))} of "
            f"{len(ids)} repeat. LanceDB does not see to that: delete those rows, or name another column."
        )
    return Records(
        ids,
        {name: _vectors_of(rows[name]) for name in fields},
        {name: _values_of(rows[name]) for name in columns},
    )


def ids_of(column: pa.ChunkedArray[Any]) -> list[Id]:
    """Ids from their column.

    Raises:
        StoreError: a row has none.
    """
    if column.null_count:
        raise StoreError(
            f"Each row must have an id; {column.null_count} of {len(column)} have none. Name a column of ids that has "
            "no empty values: ?id=column."
        )
    found: list[Any] = column.to_pylist()
    return [str(id_) for id_ in found] if _is_uuid(column.type) else found


def _vectors_of(column: pa.ChunkedArray[Any]) -> Vectors:
    dimension = dimension_of(column.type) or 0
    values = np.zeros((len(column), dimension), dtype=np.float32)
    present = np.ones(len(column), dtype=bool)
    start = 0
    for chunk in column.chunks:
        stop = start + len(chunk)
        flat: pa.Array[Any] = cast(Any, chunk).values
        numbers = flat.slice(chunk.offset * dimension, len(chunk) * dimension).to_numpy(zero_copy_only=False)
        with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, as the metric would find it
            values[start:stop] = numbers.reshape(len(chunk), dimension)
        if chunk.null_count:
            present[start:stop] = chunk.is_valid().to_numpy(zero_copy_only=False)
        start = stop
    values[~present] = 0
    return Vectors(values, present)


def _values_of(column: pa.ChunkedArray[Any]) -> list[Value]:
    """Values as Python has them; of a kind that no other store knows (times, lists, bytes) their text."""
    found: list[Any] = column.to_pylist()
    if kind_of_column(column.type) == "other":
        return [None if value is None else str(value) for value in found]
    return found


def rows_of(records: Records, schema: pa.Schema, id_column: str) -> pa.Table:
    """Records as whole rows of a table: each column of ``schema`` is there, and empty where nothing was given.

    Raises:
        InvalidVectors: the column of a field cannot hold a vector.
        StoreError: a column cannot hold what was given, or may not be empty.
    """
    arrays: list[pa.Array[Any]] = []
    marks = {mark_of(name): vectors.present for name, vectors in records.vectors.items()}
    for column in schema:
        if column.name == id_column:
            array = ids_array(records.ids, column.type)
        elif column.name in records.vectors:
            vectors = records.vectors[column.name]
            array = vectors_array(vectors.values, column, present=vectors.present)
        elif column.name in records.columns:
            array = _array(records.columns[column.name], column.type, f"the column {column.name!r}")
        elif column.name in marks and pa.types.is_boolean(column.type):
            array = marks_array(marks[column.name])
        else:
            array = pa.nulls(len(records), column.type)
        if array.null_count and not column.nullable:
            raise StoreError(
                f"The column {column.name!r} must have a value in each row; {array.null_count} of {len(records)} rows "
                "have none. Give one."
            )
        arrays.append(array)
    return pa.Table.from_arrays(arrays, schema=schema.remove_metadata())


def ids_array(ids: Sequence[Id], type_: pa.DataType) -> pa.Array[Any]:
    """Ids as their column has them.

    Raises:
        StoreError: it cannot hold one.
    """
    if _is_uuid(type_):
        content = [bytes.fromhex(str(each).replace("-", "")) for each in ids]
        return pa.ExtensionArray.from_storage(cast(pa.BaseExtensionType, type_), pa.array(content, type=pa.binary(16)))
    return _array(ids, type_, "the column of ids")


def vectors_array(
    vectors: Floats | None, column: pa.Field[Any], *, rows: int = 0, present: npt.NDArray[np.bool_] | None = None
) -> pa.Array[Any]:
    """Vectors as their column has them.

    Args:
        vectors: [n, d]; None: ``rows`` rows without one.
        column: of the table.
        rows: how many, where there are no vectors.
        present: which rows have one; None: all.

    Raises:
        InvalidVectors: a component is too large for a column of smaller floats.
        StoreError: the column may not be empty.
    """
    if vectors is None:
        if not column.nullable:
            raise StoreError(f"The field {column.name!r} must have a vector in each row, and cannot be emptied.")
        empty: pa.Array[Any] = pa.nulls(rows, column.type)
        return empty
    with np.errstate(over="ignore"):
        numbers = vectors.astype(column.type.value_type.to_pandas_dtype(), copy=False)
    if numbers.dtype.itemsize < vectors.dtype.itemsize and not np.isfinite(numbers).all():
        raise InvalidVectors(
            f"The field {column.name!r} holds {column.type.value_type} numbers, to {np.finfo(numbers.dtype).max:g}; "
            "larger ones were to be written. Normalise the vectors, or add a field for them."
        )
    mask = None if present is None or present.all() else pa.array(~present)
    return pa.FixedSizeListArray.from_arrays(pa.array(numbers.reshape(-1)), type=column.type, mask=mask)


def marks_array(present: npt.NDArray[np.bool_]) -> pa.Array[Any]:
    """True for rows that have a vector, and nothing for the others, as for rows that another client wrote."""
    return pa.array(np.ones(len(present), dtype=bool), mask=~present)


def _array(values: Sequence[object], type_: pa.DataType, what: str) -> pa.Array[Any]:
    try:
        return pa.array(values, type=type_)
    except (pa.ArrowException, OverflowError, TypeError, ValueError):
        raise StoreError(
            f"Values for {what} must be {type_}; some cannot be stored as that. Give values of that type."
        ) from None
