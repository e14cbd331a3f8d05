"""Columns of Arrow tables as NumPy arrays and back: vectors, ids and metadata, each with what it may not hold."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from crossfade.embeddings.ids import Ids, as_ids
from crossfade.errors import FormatError, InvalidIds, InvalidVectors

__all__ = [
    "ids_array",
    "ids_of",
    "metadata_array",
    "metadata_of",
    "reading",
    "require_column",
    "vectors_array",
    "vectors_of",
]


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what Arrow says of a damaged file into a FormatError that names the file."""
    try:
        yield
    except FileNotFoundError as error:
        raise FormatError(f"{path} is missing. Check the name.") from error
    except (pa.ArrowException, OSError) as error:
        raise FormatError(f"{path} cannot be read ({error}). It may be truncated or damaged: copy it again.") from error


def require_column(schema: pa.Schema, name: str, *, path: Path, option: str) -> None:
    """Refuse a column name that the table does not have exactly once.

    Raises:
        FormatError: names the columns that there are.
    """
    if schema.names.count(name) != 1:
        raise FormatError(
            f"{path} must have one column {name!r} and has {schema.names}. Name the right one with {option}=…."
        )


def vectors_of(column: Any, *, path: Path, first_row: int) -> npt.NDArray[Any]:
    """A list column as a matrix [rows, dimension], without a copy.

    Args:
        column: an Arrow array, a fixed-size list, list or large list of float16, float32 or float64.
        path: the file, for errors.
        first_row: the row number of the column's first row in the file, for errors.

    Raises:
        InvalidVectors: it is no such column, a row or a number is missing, or rows have several lengths.
    """
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    kind = column.type
    fixed = pa.types.is_fixed_size_list(kind)
    if not (fixed or pa.types.is_list(kind) or pa.types.is_large_list(kind)) or not pa.types.is_floating(
        kind.value_type
    ):
        raise InvalidVectors(
            f"Vectors must be a list column of float16, float32 or float64; found {kind} in {path}. Name the column "
            "of vectors."
        )
    if column.null_count:
        row = first_row + int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
        raise InvalidVectors(f"Every row must have a vector; row {row} of {path} has none. Drop or encode it.")
    if fixed:
        dimension = int(kind.list_size)
    else:
        lengths = np.diff(column.offsets.to_numpy())
        dimension = int(lengths[0]) if len(lengths) else 0
        ragged = np.flatnonzero(lengths != dimension)
        if len(ragged):
            raise InvalidVectors(
                f"Vectors must have one dimension; in {path} row {first_row} has {dimension} numbers and row "
                f"{first_row + int(ragged[0])} has {int(lengths[ragged[0]])}. Drop or re-encode the odd ones."
            )
    values = column.flatten()
    if values.null_count:
        place = int(np.flatnonzero(values.is_null().to_numpy(zero_copy_only=False))[0])
        raise InvalidVectors(
            f"A vector must have no missing number; row {first_row + place // dimension} of {path} has one. "
            "Re-encode it."
        )
    return np.asarray(values.to_numpy(zero_copy_only=True)).reshape(len(column), dimension)


def ids_of(column: Any, *, path: Path, first_row: int) -> Ids:
    """A column of strings or whole numbers as ids.

    Raises:
        InvalidIds: it is of another type, or an id is missing or empty.
        FormatError: a string is not UTF-8.
    """
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = column.type
    if not (pa.types.is_integer(kind) or _is_text(kind)):
        raise InvalidIds(f"Ids must be strings or whole numbers; {path} has {kind}. Name another column of ids.")
    if column.null_count:
        row = first_row + int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
        raise InvalidIds(f"Every row must have an id; row {row} of {path} has none. Give it one.")
    column.validate(full=True)
    try:
        return as_ids(column.to_numpy(zero_copy_only=False))
    except InvalidIds as error:
        raise InvalidIds(f"{path}, rows from {first_row}: {error}") from error


def metadata_of(column: Any) -> npt.NDArray[Any]:
    """A metadata column as an array: numbers and booleans in their type, texts as fixed-width strings.

    A missing text reads as an empty one, a missing number as NaN (the column becomes float64), a missing boolean as
    None. Other types (lists, dates, records) are written out as strings.

    Raises:
        pyarrow.ArrowInvalid: a string is not UTF-8.
    """
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = column.type
    if pa.types.is_null(kind):
        return np.full(len(column), "", dtype="<U1")
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
        return np.asarray(column.to_numpy(zero_copy_only=False))
    column.validate(full=True)
    texts = ["" if value is None else str(value) for value in column.to_pylist()]
    return np.asarray(texts, dtype=np.str_) if texts else np.empty(0, dtype="<U1")


def vectors_array(matrix: npt.NDArray[Any]) -> pa.FixedSizeListArray[Any]:
    """A matrix [rows, dimension] as a fixed-size list column, without a copy."""
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(matrix).reshape(-1)), matrix.shape[1])


def ids_array(ids: Ids) -> pa.Array[Any]:
    """Ids as a string column.

    Raises:
        InvalidIds: an id cannot be written as UTF-8.
    """
    try:
        return pa.array(ids.tolist(), type=pa.string())
    except UnicodeEncodeError as error:
        raise InvalidIds(f"Ids must be valid Unicode to be stored; {error.object!r} is not. Rename it.") from error


def metadata_array(name: str, column: npt.NDArray[Any]) -> pa.Array[Any]:
    """A metadata column as an Arrow array.

    Raises:
        FormatError: its values are of a type, or of several types, that Arrow cannot hold.
    """
    try:
        values: pa.Array[Any] = pa.array(column.tolist() if column.dtype.kind in "UO" else column)
        return values
    except (pa.ArrowException, UnicodeEncodeError, TypeError) as error:
        raise FormatError(
            f"A metadata column must be of strings, numbers or booleans; {name!r} is not ({error}). Convert or drop it."
        ) from error


def _is_text(kind: pa.DataType) -> bool:
    return str(kind) in ("string", "large_string", "string_view")
