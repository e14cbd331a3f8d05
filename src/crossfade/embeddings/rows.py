"""The rows of a matrix that may lie in several memory-mapped files, read in blocks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from crossfade.errors import InvalidVectors

__all__ = ["Block", "Rows"]

DTYPES = (np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64))


@dataclass(frozen=True, slots=True)
class Block:
    """Rows ``start`` to ``start + len(matrix)`` as float32, shape [rows, dimension]."""

    start: int
    matrix: npt.NDArray[np.float32]


class Rows:
    """A read-only [n, d] matrix over one or several arrays, optionally a selection of its rows.

    Nothing is copied or read until :meth:`read`, :meth:`take` or :meth:`blocks` asks for it, and each of them checks that
    what it hands out is finite.

    Args:
        shards: arrays of shape [n_i, d], float16, float32 or float64, of one dimension; usually memory maps.
        selection: row numbers [n] into the concatenated shards; all of them by default.
    """

    def __init__(self, shards: Sequence[npt.NDArray[Any]], *, selection: npt.NDArray[np.int64] | None = None) -> None:
        if not shards:
            raise InvalidVectors("A set of vectors must have at least one array, and has none.")
        for shard in shards:
            if shard.ndim != 2:
                raise InvalidVectors(
                    f"Vectors must be a matrix [rows, dimension]; found an array of shape {shard.shape}."
                )
            if shard.dtype not in DTYPES:
                raise InvalidVectors(
                    f"Vectors must be float16, float32 or float64; found {shard.dtype}. Convert them first."
                )
            if shard.shape[1] != shards[0].shape[1]:
                raise InvalidVectors(
                    f"All shards must have one dimension; found {shards[0].shape[1]} and {shard.shape[1]}."
                )
        self.shards = tuple(shards)
        self.dtype: np.dtype[Any] = shards[0].dtype
        self._offsets = np.cumsum([0, *(len(shard) for shard in shards)])
        self.selection = selection

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, dimension)."""
        rows = self._offsets[-1] if self.selection is None else len(self.selection)
        return int(rows), int(self.shards[0].shape[1])

    def __len__(self) -> int:
        return self.shape[0]

    def select(self, rows: npt.NDArray[np.int64]) -> Rows:
        """The same matrix with only these rows, in this order; nothing is read."""
        return Rows(self.shards, selection=rows if self.selection is None else self.selection[rows])

    def take(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """The named rows as float32, shape [len(rows), dimension]."""
        wanted = np.asarray(rows, dtype=np.int64)
        return self._finite(self._gather(wanted if self.selection is None else self.selection[wanted]), wanted)

    def read(self, start: int, stop: int) -> npt.NDArray[np.float32]:
        """Rows ``start`` to ``stop`` as float32; a view, where they already are float32 in one shard."""
        start, stop = max(start, 0), min(stop, len(self))
        wanted = np.arange(start, stop)
        if self.selection is not None:
            return self._finite(self._gather(self.selection[start:stop]), wanted)
        first = int(np.searchsorted(self._offsets, start, side="right")) - 1
        first = min(first, len(self.shards) - 1)
        if stop <= self._offsets[first + 1]:
            offset = int(self._offsets[first])
            block = np.asarray(self.shards[first][start - offset : stop - offset])
            return self._finite(np.asarray(block, dtype=np.float32), wanted)
        return self._finite(self._gather(wanted), wanted)

    def blocks(self, size: int = 8192) -> Iterator[Block]:
        """All rows in order, ``size`` at a time."""
        for start in range(0, len(self), size):
            yield Block(start, self.read(start, start + size))

    def _gather(self, physical: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        if len(self.shards) == 1:
            return np.asarray(self.shards[0][physical], dtype=np.float32)
        out = np.empty((len(physical), self.shape[1]), dtype=np.float32)
        owner = np.searchsorted(self._offsets, physical, side="right") - 1
        for shard in np.unique(owner):
            mine = owner == shard
            out[mine] = self.shards[shard][physical[mine] - self._offsets[shard]]
        return out

    def _finite(self, block: npt.NDArray[np.float32], rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        with np.errstate(over="ignore", invalid="ignore"):
            suspicious = block.size > 0 and not np.isfinite(np.dot(block.ravel(), block.ravel()))
        if suspicious:
            bad = np.flatnonzero(~np.isfinite(block).all(axis=1))
            if len(bad):
                raise InvalidVectors(
                    f"Every vector must be finite; found NaN or infinity in {len(bad)} rows, the first at row {rows[bad[0]]}. "
                    "Re-encode those items or leave them out."
                )
        return block
