"""The store in memory: exact, plain, and what every other one is compared with."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import final

import numpy as np
import numpy.typing as npt

from crossfade.stores.backend import Backend, Capabilities, Description, Query, VectorField
from crossfade.stores.conditions import Condition, Kind, holds
from crossfade.stores.exact import SCORES
from crossfade.stores.ids import IdKind
from crossfade.stores.records import Hits, Id, Records, Value, Vectors

__all__ = ["MemoryBackend"]

Floats = npt.NDArray[np.float32]


@final
class MemoryBackend(Backend):
    """A collection in this process; it is gone with it.

    Every call holds one lock, so that calls of several threads follow one another.

    Args:
        fields: the vector fields; a metric of None lets each search choose.
        columns: name → what it holds.
        ids: what ids are.
        name: of the collection.
    """

    capabilities = Capabilities(shared=False)

    def __init__(
        self,
        fields: Sequence[VectorField],
        *,
        columns: Mapping[str, Kind] | None = None,
        ids: IdKind = "string",
        name: str = "memory",
    ) -> None:
        self.address = f"memory:{name}"
        self._ids: IdKind = ids
        self._fields = {field.name: field for field in fields}
        self._columns = dict(columns or {})
        self._vectors: dict[str, dict[Id, Floats]] = {field.name: {} for field in fields}
        self._rows: dict[Id, dict[str, Value]] = {}
        self._notes: dict[str, str] = {}
        self._lock = threading.RLock()

    def describe(self) -> Description:
        """See :meth:`Backend.describe`."""
        with self._lock:
            return Description(self._ids, dict(self._fields), dict(self._columns))

    def count(self, where: tuple[Condition, ...], lacking: str | None = None) -> int:
        """See :meth:`Backend.count`."""
        with self._lock:
            without = {} if lacking is None else self._vectors[lacking]
            return sum(id_ not in without for id_ in self._meeting(where))

    def scan(
        self, fields: Sequence[str], columns: Sequence[str], where: tuple[Condition, ...], batch: int
    ) -> Iterator[Records]:
        """See :meth:`Backend.scan`; the order is that of the first insertion."""
        with self._lock:
            whole = self._records(self._meeting(where), fields, columns)
        for start in range(0, len(whole), batch):
            yield whole.select(range(start, min(start + batch, len(whole))))

    def fetch(self, ids: Sequence[Id], fields: Sequence[str], columns: Sequence[str]) -> Records:
        """See :meth:`Backend.fetch`."""
        with self._lock:
            return self._records([id_ for id_ in dict.fromkeys(ids) if id_ in self._rows], fields, columns)

    def search(self, query: Query) -> list[Hits]:
        """See :meth:`Backend.search`; always exact, in float64; of equal scores the row inserted first comes first."""
        with self._lock:
            having = self._vectors[query.field]
            ids = [id_ for id_ in self._meeting(query.where) if id_ in having]
            if query.lacking is not None:
                ids = [id_ for id_ in ids if id_ not in self._vectors[query.lacking]]
            if not ids:
                return [Hits([], np.empty(0, dtype=np.float32)) for _ in query.vectors]
            stored = np.stack([having[id_] for id_ in ids]).astype(np.float64)
        scores = SCORES[query.metric](query.vectors.astype(np.float64), stored)
        best = np.argsort(-scores, axis=1, kind="stable")[:, : query.k]
        return [
            Hits([ids[place] for place in places], scores[number, places].astype(np.float32))
            for number, places in enumerate(best)
        ]

    def upsert(self, records: Records) -> None:
        """See :meth:`Backend.upsert`."""
        with self._lock:
            for number, id_ in enumerate(records.ids):
                self._rows[id_] = {
                    name: column[number] for name, column in records.columns.items() if column[number] is not None
                }
                for stored in self._vectors.values():
                    stored.pop(id_, None)
                for name, vectors in records.vectors.items():
                    if vectors.present[number]:
                        self._vectors[name][id_] = vectors.values[number].copy()

    def set_vectors(self, field: str, ids: Sequence[Id], vectors: Floats | None) -> int:
        """See :meth:`Backend.set_vectors`."""
        with self._lock:
            for number, id_ in enumerate(ids):
                if vectors is None:
                    self._vectors[field].pop(id_, None)
                elif id_ in self._rows:
                    self._vectors[field][id_] = vectors[number].copy()
            return sum(id_ in self._rows for id_ in ids)

    def delete(self, ids: Sequence[Id]) -> int:
        """See :meth:`Backend.delete`."""
        with self._lock:
            for stored in self._vectors.values():
                for id_ in ids:
                    stored.pop(id_, None)
            return sum(self._rows.pop(id_, None) is not None for id_ in ids)

    def add_field(self, field: VectorField) -> None:
        """See :meth:`Backend.add_field`."""
        with self._lock:
            self._fields[field.name], self._vectors[field.name] = field, {}

    def drop_field(self, name: str) -> None:
        """See :meth:`Backend.drop_field`."""
        with self._lock:
            del self._fields[name], self._vectors[name]

    def notes(self) -> dict[str, str]:
        """See :meth:`Backend.notes`."""
        with self._lock:
            return dict(self._notes)

    def note(self, key: str, text: str | None) -> None:
        """See :meth:`Backend.note`."""
        with self._lock:
            if text is None:
                self._notes.pop(key, None)
            else:
                self._notes[key] = text

    def has_column(self, name: str) -> bool:
        """See :meth:`Backend.has_column`: the columns are all named."""
        return False

    def close(self) -> None:
        """Nothing is held."""

    def _meeting(self, where: tuple[Condition, ...]) -> list[Id]:
        rows = self._rows.items()
        return [id_ for id_, row in rows if all(holds(each, row.get(each.column)) for each in where)]

    def _records(self, ids: list[Id], fields: Sequence[str], columns: Sequence[str]) -> Records:
        vectors = {
            name: Vectors.from_rows([self._vectors[name].get(id_) for id_ in ids], self._fields[name].dimension)
            for name in fields
        }
        return Records(ids, vectors, {name: [self._rows[id_].get(name) for id_ in ids] for name in columns})
