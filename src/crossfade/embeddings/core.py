"""Ids, vectors, and the space they live in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from crossfade.embeddings.rows import Block, Rows
from crossfade.errors import ConfigError, InvalidIds, InvalidVectors
from crossfade.spaces import MODALITIES, Modality, Space

__all__ = ["Embeddings", "Ids", "as_ids", "item_keys"]

Ids = npt.NDArray[np.str_]

ZERO_NORM = 1e-12
"""A norm below this counts as zero: the direction of such a vector is rounding noise."""


def as_ids(ids: Sequence[object] | npt.NDArray[Any]) -> Ids:
    """Ids as a one-dimensional array of strings; whole numbers are written out.

    Raises:
        InvalidIds: an id is empty or a number with a fraction, or they are not one-dimensional.
    """
    array = ids if isinstance(ids, np.ndarray) and ids.dtype.kind == "U" else np.asarray(ids)
    if array.ndim != 1:
        raise InvalidIds(f"Ids must be a list, one id a row; found an array of shape {array.shape}.")
    if len(array) == 0:
        return np.empty(0, dtype="<U1")
    if array.dtype.kind in "iuO":
        array = np.asarray([str(value) for value in array.tolist()])
    elif array.dtype.kind == "S":
        array = np.char.decode(array, "utf-8")
    if array.dtype.kind != "U":
        raise InvalidIds(f"Ids must be strings or whole numbers; found {array.dtype}. Convert them first.")
    if np.any(array == ""):
        raise InvalidIds(f"No id may be empty; row {int(np.flatnonzero(array == '')[0])} is. Give every row an id.")
    return array


def item_keys(ids: Ids, *, salt: str) -> npt.NDArray[np.uint64]:
    """A 64-bit key for each id: uint64 [n]; equal ids and salts have equal keys, on every machine and at every width.

    One pass of FNV-1a over the code points of all ids at once, then the finaliser of SplitMix64. It is not cryptographic:
    it divides items at random and recognises them again without their names being stored.

    Args:
        ids: [n] strings.
        salt: what the ids are ids of (``image``), or the seed of a split.
    """
    start = 0xCBF29CE484222325
    for byte in salt.encode():
        start = ((start ^ byte) * 0x100000001B3) % 2**64
    keys = np.full(len(ids), start, dtype=np.uint64)
    if len(ids):
        points = np.ascontiguousarray(ids).view(np.uint32).reshape(len(ids), -1)
        for column in points.T:
            mixed = (keys ^ column) * np.uint64(0x100000001B3)
            keys = np.where(column == 0, keys, mixed)
    keys = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    keys = (keys ^ (keys >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return keys ^ (keys >> np.uint64(31))


class Embeddings:
    """Vectors of one modality in one space, each with an id.

    The matrix may be a memory map over many files: it is read in blocks and never held whole unless :meth:`matrix` is called.

    Args:
        ids: n unique ids, strings or whole numbers.
        vectors: [n, d] array (float16, float32 or float64), or :class:`Rows` over several.
        space: where they live; its dimension must be d.
        modality: ``image`` or ``text``.
        metadata: columns of length n by which results can be sliced.

    Raises:
        InvalidIds: ids repeat, or there are not n of them.
        InvalidVectors: the set is empty, the dimension is not the space's, or a value is not finite (an array in memory is
            checked at once, a memory map as it is read).
    """

    def __init__(
        self,
        ids: Sequence[object] | npt.NDArray[Any],
        vectors: npt.NDArray[Any] | Rows,
        space: Space,
        modality: Modality,
        *,
        metadata: Mapping[str, Sequence[Any] | npt.NDArray[Any]] | None = None,
    ) -> None:
        if modality not in MODALITIES:
            raise ConfigError(f"A modality must be one of {', '.join(MODALITIES)}; found {modality!r}.")
        if modality not in space.modalities:
            raise ConfigError(
                f"The space {space} holds {', '.join(space.modalities)} only; found {modality!r} vectors for it."
            )
        self.ids = as_ids(ids)
        self.rows = vectors if isinstance(vectors, Rows) else Rows([np.asanyarray(vectors)])
        self.space = space
        self.modality: Modality = modality
        count, dimension = self.rows.shape
        if count == 0:
            raise InvalidVectors("A set of embeddings must not be empty, and this one has no rows.")
        if dimension != space.dimension:
            raise InvalidVectors(
                f"Vectors of {space} must have dimension {space.dimension}; found {dimension}. Name the right space."
            )
        if len(self.ids) != count:
            raise InvalidIds(f"There must be one id a row; found {len(self.ids)} ids for {count} rows.")
        self._order = np.argsort(self.ids, kind="stable")
        ordered = self.ids[self._order]
        repeats = ordered[1:][ordered[1:] == ordered[:-1]]
        if len(repeats):
            raise InvalidIds(
                f"Ids must be unique; {len(repeats)} repeat, the first is {repeats[0]!r}. Drop or rename the duplicates."
            )
        self.metadata = {name: np.asarray(column) for name, column in (metadata or {}).items()}
        for name, column in self.metadata.items():
            if len(column) != count:
                raise InvalidIds(
                    f"A metadata column must have one value a row; {name!r} has {len(column)} for {count} rows."
                )
        if not any(isinstance(shard, np.memmap) for shard in self.rows.shards):
            for _ in self.rows.blocks():
                pass

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return f"Embeddings({len(self)} × {self.dimension} {self.modality}, {self.space})"

    @property
    def dimension(self) -> int:
        """Number of components of each vector."""
        return self.rows.shape[1]

    def matrix(self) -> npt.NDArray[np.float32]:
        """All vectors in memory, float32 [n, d]; for sets known to be small."""
        return self.rows.read(0, len(self))

    def blocks(self, size: int = 8192) -> Iterator[Block]:
        """All vectors in order as float32 blocks of at most ``size`` rows."""
        return self.rows.blocks(size)

    def select(self, rows: npt.NDArray[Any] | Sequence[int]) -> Embeddings:
        """Only these rows (numbers or a mask), in this order; no vector is read."""
        chosen = np.asarray(rows)
        chosen = np.flatnonzero(chosen) if chosen.dtype == bool else chosen.astype(np.int64)
        if len(chosen) == 0:
            raise InvalidVectors("A selection of embeddings must not be empty, and this one names no rows.")
        columns = {name: column[chosen] for name, column in self.metadata.items()}
        return Embeddings(self.ids[chosen], self.rows.select(chosen), self.space, self.modality, metadata=columns)

    def locate(self, ids: Sequence[object] | npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """The row number of each id, and -1 where there is none: [len(ids)] int64."""
        wanted = as_ids(ids)
        if len(wanted) == 0:
            return np.empty(0, dtype=np.int64)
        place = np.searchsorted(self.ids, wanted, sorter=self._order)
        candidate = self._order[np.minimum(place, len(self) - 1)]
        return np.where(self.ids[candidate] == wanted, candidate, -1).astype(np.int64)

    def require_nonzero(self) -> None:
        """Refuse zero vectors, which have no direction and cannot be normalised.

        Raises:
            InvalidVectors: says how many there are and names the first.
        """
        zero = [
            b.start + np.flatnonzero(np.einsum("ij,ij->i", b.matrix, b.matrix) < ZERO_NORM**2) for b in self.blocks()
        ]
        rows = np.concatenate(zero)
        if len(rows):
            raise InvalidVectors(
                f"A vector must not be zero where it is normalised; {len(rows)} are, the first is {self.ids[rows[0]]!r}. "
                "Re-encode those items or leave them out."
            )

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write Crossfade's own folder format (see the docs page on artifacts).

        Raises:
            StorageError: the folder exists and may not be overwritten, or cannot be written; nothing is left half-written.
        """
        from crossfade.embeddings.folder import save_folder

        save_folder(self, Path(path), overwrite=overwrite)

    @classmethod
    def load(cls, path: str | Path) -> Embeddings:
        """Open a folder that :meth:`save` or :func:`crossfade.encode` wrote, memory-mapped.

        Raises:
            FormatError: the folder is missing, damaged or incomplete.
            NewerFormat: a later Crossfade wrote it.
        """
        from crossfade.embeddings.folder import load_folder

        return load_folder(Path(path))
