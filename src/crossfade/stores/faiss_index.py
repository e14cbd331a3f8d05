"""A FAISS index in a file: which rows it has, what they are called, and their vectors.

An index counts its rows, or carries a number for each (IDMap, or an inverted file filled with ``add_with_ids``): a
row's label. Rows are in the order of the index, those of an inverted file in the order of their labels.
"""

from __future__ import annotations

import os
import threading
import weakref
from importlib import import_module
from pathlib import Path
from typing import Any, final

import numpy as np
import numpy.typing as npt

from crossfade.errors import InvalidIds, MissingExtra, StoreChanged, StoreError, Unsupported

__all__ = ["IndexFile"]

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

FLAT = frozenset({"IndexFlat", "IndexFlatIP", "IndexFlatL2", "IndexFlat1D"})
"""Kinds that compare every row."""

LOSSLESS = FLAT | {"IndexHNSWFlat", "IndexIVFFlat", "IndexNSGFlat", "IndexNNDescentFlat", "IndexRefineFlat"}
"""Kinds that keep vectors as they were added."""

READABLE = LOSSLESS | {
    "IndexHNSWPQ",
    "IndexHNSWSQ",
    "IndexIVFPQ",
    "IndexIVFScalarQuantizer",
    "IndexPQ",
    "IndexScalarQuantizer",
}
"""Kinds that give vectors back, if only about. Others are not asked: some end the process."""


NONE = -1
"""FAISS' number for no row."""


@final
class IndexFile:
    """An index, mapped into memory where FAISS can.

    Args:
        path: of the file.
        address: for messages.

    Attributes:
        count: rows.
        dimension: of their vectors.
        metric_type: FAISS' number of the metric.
        kind: FAISS' name of the index, without the map of ids around it.
        flat: whether a search compares every row.
        lossless: whether it keeps vectors as they were added.
        readable: whether it gives vectors back.
        labels: of the rows, int64 [n].

    Raises:
        MissingExtra: FAISS is not installed.
        StoreChanged: there is no such file.
        StoreError: it is no index, or is truncated.
        InvalidIds: labels repeat, or are not those of the rows.
    """

    def __init__(self, path: Path, *, address: str) -> None:
        self._faiss, self._address = _package(), address
        try:
            descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        except FileNotFoundError:
            raise StoreChanged(f"{address} must name an index that exists; there is none. Check the path.") from None
        except OSError as error:
            raise StoreError(f"{address} cannot be read: {error.strerror or error}.") from None
        self._descriptor = descriptor  # held, to see whether what is mapped is written to
        self._release = weakref.finalize(self, os.close, descriptor)
        self._load(path)

    def _load(self, path: Path) -> None:
        self._written = self._state()
        flags = getattr(self._faiss, "IO_FLAG_MMAP_IFC", 0)  # an older FAISS reads into memory
        try:
            self._whole = self._faiss.read_index(str(path), flags)  # keeps alive what it is made of
        except RuntimeError:
            raise StoreError(
                f"{self._address} must be an index of FAISS; it is none, is truncated, or is of a later FAISS. Write "
                "it again."
            ) from None
        if not self.is_at(path):
            raise StoreChanged(f"{self._address} was replaced while it was opened. Open it again.")
        self.count, self.dimension = int(self._whole.ntotal), int(self._whole.d)
        self.metric_type = int(self._whole.metric_type)
        self._index = self._faiss.downcast_index(self._whole)
        map_ = None
        if type(self._index).__name__ in ("IndexIDMap", "IndexIDMap2"):
            map_ = self._faiss.vector_to_array(self._index.id_map)
            self._index = self._faiss.downcast_index(self._index.index)
        self.kind = type(self._index).__name__
        innermost = self._index
        if self.kind == "IndexPreTransform":
            innermost = self._faiss.downcast_index(self._index.index)
        self.flat, self.lossless = self.kind in FLAT, self.kind in LOSSLESS
        self.readable = type(innermost).__name__ in READABLE
        self._keys = np.arange(self.count, dtype=np.int64)
        self._unmapped: Any = None
        if type(innermost).__name__.startswith("IndexIVF"):
            self._keys = np.sort(_inverted_labels(self._faiss, innermost))
            self._unmapped = innermost
        self._counted = bool((self._keys == np.arange(self.count)).all())
        self.labels = self._keys if map_ is None else map_.astype(np.int64)
        self._lock = threading.Lock()
        repeated = self.count - len(np.unique(self.labels))
        if repeated or (self.labels == NONE).any() or not (map_ is None or self._counted):
            raise InvalidIds(
                f"Rows of {self._address} must have a number each, and once, and none of them {NONE}; {repeated} "
                "repeat. Build the index again."
            )

    def require_unwritten(self) -> None:
        """Refuse to go on where the file that is mapped was written to.

        Raises:
            StoreChanged: it was.
        """
        if self._state() != self._written:
            raise StoreChanged(
                f"{self._address} was written to since it was opened. Open it again; and replace an index by renaming "
                "another over it, so that its readers can finish."
            )

    def is_at(self, path: Path) -> bool:
        """Whether the path still names this file."""
        try:
            return os.path.samestat(path.stat(), os.fstat(self._descriptor))
        except OSError:
            return False

    def search(self, queries: Floats, k: int) -> list[tuple[Labels, Floats]]:
        """Labels, and what FAISS calls distances, of the best rows of each query."""
        if not self.count or not len(queries):
            return [(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)) for _ in queries]
        distances, labels = self._whole.search(np.ascontiguousarray(queries), min(k, self.count))
        return [
            (found[found != NONE], distance[found != NONE]) for found, distance in zip(labels, distances, strict=True)
        ]

    def vectors(self, rows: npt.NDArray[np.integer]) -> Floats:
        """Vectors of rows by their number, counted from 0.

        Raises:
            Unsupported: the index does not give vectors back.
        """
        if not self.readable:
            raise Unsupported(
                f"{self._address} is an {self.kind}, which gives no vectors back: it can be searched, and not read. "
                "Keep the vectors in an index that gives them, such as Flat, HNSW or IVF with Flat."
            )
        if not len(rows):
            return np.empty((0, self.dimension), dtype=np.float32)
        self._map_inverted()
        found: Floats
        if self._counted and (np.diff(rows) == 1).all():
            found = self._index.reconstruct_n(int(rows[0]), len(rows))
        else:
            found = self._index.reconstruct_batch(self._keys[rows])
        return found

    def _map_inverted(self) -> None:
        """Let an inverted file find rows by their label; it takes memory, and is done when vectors are first read."""
        with self._lock:
            if self._unmapped is not None:
                kind = self._faiss.DirectMap
                self._unmapped.set_direct_map_type(kind.Array if self._counted else kind.Hashtable)
                self._unmapped = None

    def close(self) -> None:
        """Let go of the file."""
        self._release()

    def _state(self) -> tuple[int, int]:
        found = os.fstat(self._descriptor)
        return found.st_mtime_ns, found.st_size


def _inverted_labels(faiss: Any, index: Any) -> Labels:
    lists = index.invlists
    found = [np.empty(0, dtype=np.int64)]
    for number in range(lists.nlist):
        size = lists.list_size(number)
        if size:
            ids = lists.get_ids(number)
            found.append(faiss.rev_swig_ptr(ids, size).copy())
            lists.release_ids(number, ids)
    return np.concatenate(found)


def _package() -> Any:
    try:
        return import_module("faiss")
    except ImportError as error:
        raise MissingExtra("faiss", extra="faiss", feature="An index of FAISS") from error
