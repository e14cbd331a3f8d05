"""Parquet, read a little at a time: rows without their image bytes, and the image bytes of one row when they are
asked for."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossfade.datasets.images import open_image
from crossfade.datasets.lines import require_file
from crossfade.errors import CorruptItem, DatasetError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL.Image import Image

__all__ = ["BinaryCell", "BinaryColumn", "PackedImage", "ParquetTable", "parquet_files"]

_ROWS = 8192  # listed at once
_IMAGES = 64  # whose bytes are held at once
_BUFFER = 1 << 20  # bytes read ahead of a column, so that a large row group is not read whole


def parquet_files(path: Path) -> tuple[Path, ...]:
    """The file itself, or every .parquet file below a folder, sorted.

    Raises:
        DatasetError: there is none.
    """
    if not path.is_dir():
        require_file(path, what="A Parquet data set")
        return (path,)
    found = tuple(sorted(path.rglob("*.parquet")))
    if not found:
        raise DatasetError(f"A folder of Parquet must hold .parquet files; {path} holds none. Check the path.")
    return found


@dataclass(frozen=True)
class ParquetTable:
    """One Parquet file.

    Attributes:
        path: the file.
    """

    path: Path

    def columns(self) -> list[str]:
        """The names of its columns."""
        return list(self._open().schema_arrow.names)

    def binary(self, column: str) -> BinaryColumn | None:
        """A column of file bytes, plain or as a struct with the field ``bytes``; None where it holds something else."""
        import pyarrow as pa

        kind = self._open().schema_arrow.field(column).type
        if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
            return BinaryColumn(self.path, f"{column}.bytes", nested=True)
        return BinaryColumn(self.path, column, nested=False) if _is_bytes(kind) else None

    def texts(self) -> dict[str, bool]:
        """The columns that can be metadata: name → whether it holds text (strings, dates, decimals) or numbers."""
        import pyarrow as pa

        found: dict[str, bool] = {}
        for column in self._open().schema_arrow:
            kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
            if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
                found[column.name] = False
            elif not pa.types.is_nested(kind) and not _is_bytes(kind):
                found[column.name] = True
        return found

    def rows(self, *, without: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
        """Every row in order; of columns in ``without`` only what is not file bytes (the ``path`` of a struct).

        Raises:
            DatasetError: the file is damaged or truncated.
        """
        import pyarrow as pa

        file = self._open()
        wanted: list[str] = []
        for column in file.schema_arrow:
            if column.name not in without:
                wanted.append(column.name)
            elif pa.types.is_struct(column.type) and column.type.get_field_index("path") >= 0:
                wanted.append(f"{column.name}.path")
        if not wanted:
            yield from ({} for _ in range(file.metadata.num_rows))
            return
        try:
            for batch in file.iter_batches(_ROWS, columns=wanted):
                yield from batch.to_pylist()
        except (pa.ArrowException, OSError) as error:
            raise self._damaged(error) from error

    def _open(self) -> pq.ParquetFile:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            return pq.ParquetFile(self.path, buffer_size=_BUFFER)
        except (pa.ArrowException, OSError) as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> DatasetError:
        return DatasetError(
            f"{self.path} must be a Parquet file and cannot be read as one ({error}). It may be truncated: copy it "
            "again."
        )


class BinaryColumn:
    """The bytes of one column, row by row, fastest in order; about two times 64 rows are held at once.

    Going forward reads each page once. Going back starts again at the row's group.
    """

    def __init__(self, path: Path, column: str, *, nested: bool) -> None:
        self.path = path
        self.column = column
        self._nested = nested
        self._lock = threading.Lock()
        self._batches: Iterator[pa.RecordBatch] | None = None
        self._next = 0
        self._window: deque[tuple[int, pa.Array[Any]]] = deque(maxlen=2)

    def read(self, row: int) -> bytes | None:
        """The bytes of a row (from 0), or None for a null.

        Raises:
            CorruptItem: the file cannot be read there.
        """
        import pyarrow as pa

        with self._lock:
            try:
                return self._read(row)
            except (pa.ArrowException, OSError, StopIteration) as error:
                self._batches = None
                raise CorruptItem(
                    f"Row {row} of {self.path} cannot be read ({error}). The file may be damaged: copy it again."
                ) from error

    def _read(self, row: int) -> bytes | None:
        for start, values in self._window:
            if start <= row < start + len(values):
                return _bytes(values[row - start])
        starts = self._group_starts
        group = max(number for number, start in enumerate(starts) if start <= row)
        if self._batches is None or row < self._next or starts[group] > self._next:
            self._batches = self._open().iter_batches(
                _IMAGES, row_groups=list(range(group, len(starts))), columns=[self.column]
            )
            self._next = starts[group]
            self._window.clear()
        while True:
            batch = next(self._batches)
            column: Any = batch.column(0)
            values = column.field(0) if self._nested else column
            start, self._next = self._next, self._next + len(values)
            self._window.append((start, values))
            if row < self._next:
                return _bytes(values[row - start])

    def _open(self) -> pq.ParquetFile:
        import pyarrow.parquet as pq

        return pq.ParquetFile(self.path, buffer_size=_BUFFER)

    @cached_property
    def _group_starts(self) -> list[int]:
        metadata = self._open().metadata
        counts = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
        return list(accumulate(counts[:-1], initial=0))


@dataclass(frozen=True, slots=True)
class BinaryCell:
    """Where the bytes of one image lie.

    Attributes:
        column: the column.
        row: the row in its file, from 0.
        path: the name that the bytes carry in a struct of ``bytes`` and ``path``, or an empty string.
    """

    column: BinaryColumn
    row: int
    path: str = ""


@dataclass(frozen=True, slots=True)
class PackedImage:
    """A ``load`` from a :class:`BinaryCell`; where it is null, from the file ``fallback``."""

    cell: BinaryCell
    item: str
    fallback: Path | None = None

    def __call__(self) -> Image:
        data = self.cell.column.read(self.cell.row)
        if data is not None:
            return open_image(data, item=self.item)
        if self.fallback:
            return open_image(self.fallback, item=self.item)
        raise CorruptItem(
            f"The image {self.item} is missing: row {self.cell.row} of {self.cell.column.path} is null. Drop that row."
        )


def _is_bytes(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind)


def _bytes(scalar: pa.Scalar[Any]) -> bytes | None:
    value = scalar.as_py()
    return None if value is None else bytes(value)
