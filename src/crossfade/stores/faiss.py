"""FAISS: an index in a file, with a file of ids beside it; read and searched, never written.

::

    faiss:///srv/photos.index                     ids in photos.ids.txt, .ids.npy or .ids.parquet, if one is there
    faiss:///srv/photos.index?ids=names.txt       another file of ids, from the index's folder on
    faiss:///srv/photos.index?ids=all.parquet&id=key&field=image&metric=cosine

Ids are those of the file, one a row in the order of the index's numbers; without a file they are the numbers
themselves, also of an IDMap. There is one field, ``vector`` if the option ``field`` does not call it otherwise, and
there are no columns. An index of inner products compares by cosine where its rows are of length 1, and by the inner
product otherwise: the option ``metric`` says which, and by default a sample of the rows does. Under cosine queries are
normalised here.

Notes stand in a JSON file beside the index, which gets ``.crossfade.json`` behind its name. In a folder that cannot be
written there are those that are there. Vectors are what was added for Flat, HNSW, NSG and IVF with Flat, and an exact
search compares each; quantised indexes give about the vectors, and an exact search compares with what they give. Other
kinds can be searched, and not read. Under cosine what is read is of length 1, whatever the model gave.

The file is mapped into memory. Replace an index by renaming another over it: then scans that have begun end on the old
one, and everything else says that the index is another. An index that is written to in place is refused from then on,
and to cut one short while it is read may end the process.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import final

import numpy as np
import numpy.typing as npt

from crossfade.errors import ConfigError, FormatError, NewerFormat, StorageError, StoreChanged, Unsupported
from crossfade.files import read_json, write_json
from crossfade.spaces import Metric
from crossfade.stores.address import Address
from crossfade.stores.backend import Backend, Capabilities, Description, Query, VectorField
from crossfade.stores.conditions import Condition
from crossfade.stores.exact import exact_search, rows_at_a_time
from crossfade.stores.faiss_ids import SUFFIXES, RowIds, read_ids
from crossfade.stores.faiss_index import IndexFile
from crossfade.stores.records import Hits, Id, Records, Vectors

__all__ = ["FaissBackend", "connect"]

Floats = npt.NDArray[np.float32]

INNER_PRODUCT, L2 = 0, 1
"""FAISS' numbers of metrics."""

NOTES_VERSION = 1

SAMPLE = 1000
"""Rows by which lengths are judged."""

UNIT_TOLERANCE = 1e-3
UNIT_TOLERANCE_LOSSY = 5e-2
"""How far from 1 a length may be where vectors come back as they were added, and where they do not: our choice."""


def connect(address: Address) -> Backend:
    """Open an index that exists.

    Raises:
        ConfigError: the address has what FAISS does not know, or does not say by what the index compares.
        MissingExtra: FAISS is not installed.
        StoreChanged: there is no such file.
        StoreError: it is no index.
        InvalidIds: ids are not as many as rows, or repeat.
        FormatError: the file of ids is damaged.
    """
    address.require_options("ids", "id", "field", "metric")
    path = address.file()
    if address.fragment or address.user:
        raise ConfigError("An address of FAISS is faiss:///folder/name.index, without a user and a name behind #.")
    named = address.options.get("ids")
    ids = path.parent / named if named else _ids_beside(path, address.text)
    return FaissBackend(
        path,
        ids,
        address=address.text,
        column=address.options.get("id"),
        field=address.options.get("field", "vector"),
        metric=address.options.get("metric"),
    )


def _ids_beside(path: Path, address: str) -> Path | None:
    found = [beside for suffix in SUFFIXES if (beside := path.with_name(f"{path.stem}.ids{suffix}")).exists()]
    if len(found) > 1:
        raise ConfigError(
            f"One file beside {address} must have its ids; found {', '.join(each.name for each in found)}. Name one by "
            "ids=."
        )
    return found[0] if found else None


@final
class FaissBackend(Backend):
    """An index in a file.

    Args:
        path: of the index.
        ids: the file of its ids; None where its numbers are ids.
        address: for messages.
        column: of a Parquet file of ids.
        field: what the vectors are called.
        metric: what an index of inner products compares by; by default a sample of its rows says.
    """

    def __init__(
        self,
        path: Path,
        ids: Path | None,
        *,
        address: str,
        column: str | None = None,
        field: str = "vector",
        metric: str | None = None,
    ) -> None:
        self.address = address
        self._path, self._ids_path = path, ids
        self._index = IndexFile(path, address=address)
        self._ids_state = self._state_of_ids()
        names = None if ids is None else read_ids(ids, column)
        self._ids = RowIds(self._index.labels, names, address=address)
        self._field = VectorField(field, self._index.dimension, self._metric(metric))
        self._notes = path.with_name(path.name + ".crossfade.json")
        self.capabilities = Capabilities(
            write=False,
            filter=False,
            second_field=False,
            notes=os.access(path.parent, os.W_OK) or self._notes.exists(),
            keeps_vectors=self._index.lossless and self._field.metric != "cosine",
        )

    def describe(self) -> Description:
        """See :meth:`Backend.describe`."""
        self._require_same()
        return Description(self._ids.kind, {self._field.name: self._field}, {})

    def count(self, where: tuple[Condition, ...], lacking: str | None = None) -> int:
        """See :meth:`Backend.count`."""
        self._require_same()
        return self._index.count

    def scan(
        self, fields: Sequence[str], columns: Sequence[str], where: tuple[Condition, ...], batch: int
    ) -> Iterator[Records]:
        """See :meth:`Backend.scan`; it goes on with the old file where another is renamed over it."""
        self._require_same()
        for start in range(0, self._index.count, batch):
            rows = np.arange(start, min(start + batch, self._index.count))
            self._index.require_unwritten()
            records = self._records(rows, fields)
            self._index.require_unwritten()
            yield records

    def fetch(self, ids: Sequence[Id], fields: Sequence[str], columns: Sequence[str]) -> Records:
        """See :meth:`Backend.fetch`."""
        self._require_same()
        records = self._records(self._ids.rows(list(dict.fromkeys(ids))), fields)
        self._require_same()
        return records

    def search(self, query: Query) -> list[Hits]:
        """See :meth:`Backend.search`; with the parameters that were saved with the index."""
        self._require_same()
        if query.exact and not self._index.flat:
            return exact_search(query, self.scan([query.field], [], (), rows_at_a_time(len(query.vectors))))
        asked = query.vectors
        if query.metric == "cosine":
            lengths = np.linalg.norm(asked, axis=1, keepdims=True)
            asked = np.divide(asked, lengths, out=np.zeros_like(asked), where=lengths > 0)
        hits = []
        for labels, distances in self._index.search(asked, query.k):
            scores = distances
            if query.metric == "l2":  # FAISS gives the square
                scores = -np.sqrt(np.maximum(distances, 0))
            hits.append(Hits(self._ids.of(labels), scores))
        self._require_same()
        return hits

    def upsert(self, records: Records) -> None:
        """See :meth:`Backend.upsert`; never asked for."""
        raise self._read_only()

    def set_vectors(self, field: str, ids: Sequence[Id], vectors: Floats | None) -> int:
        """See :meth:`Backend.set_vectors`; never asked for."""
        raise self._read_only()

    def delete(self, ids: Sequence[Id]) -> int:
        """See :meth:`Backend.delete`; never asked for."""
        raise self._read_only()

    def add_field(self, field: VectorField) -> None:
        """See :meth:`Backend.add_field`; never asked for."""
        raise self._read_only()

    def drop_field(self, name: str) -> None:
        """See :meth:`Backend.drop_field`; never asked for."""
        raise self._read_only()

    def notes(self) -> dict[str, str]:
        """See :meth:`Backend.notes`."""
        self._require_same()
        if not self._notes.exists():
            return {}
        said = read_json(self._notes)
        version, kept = (said.get("format_version"), said.get("notes")) if isinstance(said, dict) else (None, None)
        if isinstance(version, int) and version > NOTES_VERSION:
            raise NewerFormat(
                f"{self._notes} is of version {version}; this Crossfade knows {NOTES_VERSION}. Upgrade it."
            )
        if version is None or not isinstance(kept, dict) or not all(isinstance(text, str) for text in kept.values()):
            raise FormatError(
                f"{self._notes} must hold notes by key and does not. Mend it, or delete it to forget them."
            )
        return kept

    def note(self, key: str, text: str | None) -> None:
        """See :meth:`Backend.note`."""
        with self._locked():
            kept = {name: kept for name, kept in self.notes().items() if name != key}
            if text is not None:
                kept[key] = text
            write_json(self._notes, {"format_version": NOTES_VERSION, "notes": kept})

    def has_column(self, name: str) -> bool:
        """See :meth:`Backend.has_column`: there are none."""
        return False

    def close(self) -> None:
        """See :meth:`Backend.close`."""
        self._index.close()

    def _records(self, rows: npt.NDArray[np.integer], fields: Sequence[str]) -> Records:
        return Records(self._ids.at(rows), {name: Vectors.of(self._index.vectors(rows)) for name in fields})

    def _metric(self, wanted: str | None) -> Metric:
        index = self._index
        if index.metric_type == L2 and wanted in (None, "l2"):
            return "l2"
        if index.metric_type != INNER_PRODUCT or wanted not in (None, "cosine", "dot"):
            raise ConfigError(
                f"{self.address} must compare by the inner product (the option metric is cosine or dot) or by L2 (it "
                f"is l2 or not given); found FAISS' metric {index.metric_type}" + (f" and {wanted}." if wanted else ".")
            )
        if wanted == "dot":
            return "dot"
        if not index.readable:
            if wanted is None:
                raise ConfigError(
                    f"{self.address} must say by what it compares, since its rows cannot be read: add metric=cosine, "
                    "if they are of length 1, or metric=dot."
                )
            return "cosine"
        rows = np.unique(np.linspace(0, index.count - 1, min(index.count, SAMPLE)).astype(np.int64))
        lengths = np.linalg.norm(index.vectors(rows), axis=1)
        tolerance = UNIT_TOLERANCE if index.lossless else UNIT_TOLERANCE_LOSSY
        unit = bool((np.abs(lengths - 1) <= tolerance).all())
        if wanted == "cosine" and not unit:
            raise ConfigError(
                f"Rows of {self.address} must be of length 1 to be compared by cosine; lengths from "
                f"{lengths.min():.3g} to {lengths.max():.3g} were found. Say metric=dot, or normalise vectors before "
                "they are added."
            )
        return "cosine" if unit else "dot"

    def _require_same(self) -> None:
        """Refuse to answer for files that are gone, or are others than those that were opened."""
        if not self._path.exists():
            raise StoreChanged(f"{self.address} must name an index that exists; there is none any more.")
        if not self._index.is_at(self._path) or self._state_of_ids() != self._ids_state:
            raise StoreChanged(
                f"{self.address} is another index, or has other ids, than when it was opened. Open it again."
            )
        self._index.require_unwritten()

    def _state_of_ids(self) -> tuple[int, int, int] | None:
        if self._ids_path is None:
            return None
        try:
            found = self._ids_path.stat()
        except FileNotFoundError:
            raise StoreChanged(f"The ids of {self.address} must stand in {self._ids_path}; it is gone.") from None
        return found.st_mtime_ns, found.st_size, found.st_ino

    def _read_only(self) -> Unsupported:
        return Unsupported(
            f"{self.address} is read and searched only. Build another index, or take a store that can write."
        )

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Let no other process change the notes; the lock vanishes with the process, however it ends."""
        lock = self._notes.with_name(f".{self._notes.name}.lock")
        try:
            file = open(lock, "ab")  # noqa: SIM115
        except OSError as error:
            raise StorageError(f"Notes of {self.address} could not be written: {error.strerror or error}.") from None
        with file:
            if sys.platform != "win32":
                import fcntl

                fcntl.flock(file, fcntl.LOCK_EX)
            yield
