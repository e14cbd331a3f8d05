"""What rows of a FAISS index are called: by a file beside it, or by the index's own numbers.

The file has one id a row, in the order of the index's numbers 0, 1, 2 and so on: text in UTF-8 with one id a line, an
array in .npy, or a column of a Parquet file.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import final

import numpy as np
import numpy.typing as npt

from crossfade.errors import ConfigError, FormatError, InvalidIds, StoreChanged
from crossfade.files import read_npy
from crossfade.stores.ids import LARGEST, IdKind, require_ids
from crossfade.stores.records import Id

__all__ = ["SUFFIXES", "RowIds", "read_ids"]

Labels = npt.NDArray[np.int64]
Names = list[str] | Labels

SUFFIXES = (".txt", ".npy", ".parquet")


@final
class RowIds:
    """The ids of an index's rows.

    Args:
        labels: the index's numbers of its rows, int64 [n], each once.
        names: the id of each number; None where numbers are ids themselves.
        address: for messages.

    Attributes:
        kind: strings or whole numbers.

    Raises:
        InvalidIds: names are fewer than rows or more, or repeat.
    """

    def __init__(self, labels: Labels, names: Names | None, *, address: str) -> None:
        self._labels, self._names = labels, names
        self.kind: IdKind = "string" if isinstance(names, list) else "integer"
        self._order = np.argsort(labels, kind="stable")
        self._sorted = labels[self._order]
        self._numbers: dict[Id, int] | None = None
        if names is None:
            return
        count = len(labels)
        counted = bool((self._sorted == np.arange(count)).all())
        most = int(self._sorted[-1]) + 1 if count else 0
        if (counted and len(names) != count) or most > len(names) or (count and self._sorted[0] < 0):
            raise InvalidIds(
                f"There must be one id for each row of {address}; found {len(names)} ids for {count} rows"
                + ("" if counted else f", numbered up to {most - 1}")
                + ". Name the file that was written with the index."
            )
        self._numbers = {id_: number for number, id_ in enumerate(self._list(names))}
        if len(self._numbers) < len(names):
            raise InvalidIds(f"Ids of {address} must each stand once; {len(names) - len(self._numbers)} repeat.")

    def at(self, rows: npt.NDArray[np.integer]) -> list[Id]:
        """Ids of rows by their number, counted from 0."""
        labels = self._labels[rows]
        if isinstance(self._names, list) and len(labels) and (np.diff(labels) == 1).all():
            return [*self._names[int(labels[0]) : int(labels[-1]) + 1]]
        return self.of(labels)

    def of(self, labels: Labels) -> list[Id]:
        """Ids of rows by the index's numbers."""
        if isinstance(self._names, list):
            return [self._names[label] for label in labels.tolist()]
        return self._list(labels if self._names is None else self._names[labels])

    def rows(self, ids: Sequence[Id]) -> Labels:
        """The numbers of those rows that exist, counted from 0, in the order of ``ids``."""
        if self._numbers is not None:
            ids = [self._numbers[id_] for id_ in ids if id_ in self._numbers]
        asked = np.asarray(ids, dtype=np.int64)
        places = np.searchsorted(self._sorted, asked)
        there = np.flatnonzero(places < len(self._sorted))
        there = there[self._sorted[places[there]] == asked[there]]
        found: Labels = self._order[places[there]]
        return found

    @staticmethod
    def _list(names: Names) -> list[Id]:
        return [*names] if isinstance(names, list) else names.tolist()


def read_ids(path: Path, column: str | None) -> Names:
    """The ids in a file.

    Args:
        path: of the file; its suffix says what it is.
        column: of a Parquet file; by default ``id``.

    Raises:
        ConfigError: the suffix is none of those known, or there is no such column.
        StoreChanged: there is no such file.
        FormatError: it is damaged, or of another format.
        InvalidIds: an id is empty, or is none that a store takes.
    """
    if path.suffix not in SUFFIXES or (column is not None and path.suffix != ".parquet"):
        raise ConfigError(
            f"Ids stand in a file of {', '.join(SUFFIXES)}, and an option id names the column of a .parquet; found "
            f"{path}."
        )
    if not path.exists():
        raise StoreChanged(f"The file of ids {path} must exist; there is none. Name it by the option ids.")
    readers = {".txt": _read_text, ".npy": _read_array}
    found = _read_column(path, column or "id") if path.suffix == ".parquet" else readers[path.suffix](path)
    if isinstance(found, list):
        require_ids(found, "string")
    return found


def _read_text(path: Path) -> Names:
    try:
        lines = path.read_bytes().decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise FormatError(f"{path} must be text in UTF-8; {error.reason} at byte {error.start}.") from None
    if lines[-1] == "":
        lines.pop()
    if lines and all(line.endswith("\r") for line in lines):
        lines = [line[:-1] for line in lines]
    if "" in lines:
        raise InvalidIds(f"{path} must have one id a line; line {lines.index('') + 1} is empty.")
    return lines


def _read_array(path: Path) -> Names:
    array = read_npy(path)
    if array.ndim != 1 or array.dtype.kind not in "iuU":
        raise FormatError(f"{path} must be a row of strings or whole numbers; found {array.shape} of {array.dtype}.")
    return array.tolist() if array.dtype.kind == "U" else _whole(array, path)


def _read_column(path: Path, column: str) -> Names:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            if column not in file.schema_arrow.names:
                raise ConfigError(
                    f"{path} has the columns {', '.join(file.schema_arrow.names)}; {column!r} was asked for. Name it "
                    "by the option id."
                )
            found = file.read(columns=[column]).column(column)
    except pa.ArrowException as error:
        raise FormatError(f"{path} must be a Parquet file and cannot be read as one. Copy it again.") from error
    if found.null_count:
        raise InvalidIds(f"Each row of {path} must have an id; {found.null_count} have none in {column!r}.")
    if pa.types.is_integer(found.type):
        return _whole(found.to_numpy(), path)
    if not (pa.types.is_string(found.type) or pa.types.is_large_string(found.type)):
        raise FormatError(f"The column {column!r} of {path} must hold strings or whole numbers; found {found.type}.")
    return [str(id_) for id_ in found.to_pylist()]


def _whole(numbers: npt.NDArray[np.integer], path: Path) -> Labels:
    if numbers.dtype.kind == "u" and len(numbers) and int(numbers.max()) > LARGEST:
        raise InvalidIds(f"Ids in {path} must be whole numbers of 64 bits with a sign; found {numbers.max()}.")
    return numbers.astype(np.int64)
