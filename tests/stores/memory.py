"""Collections in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from crossfade.stores import MemoryBackend, Records, Store, VectorField
from crossfade.stores.conditions import Kind
from crossfade.stores.ids import IdKind
from stores.base import Maker


class MemoryMaker(Maker):
    """It has no client of its own."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._made: list[MemoryBackend] = []

    def make(self, fields: Sequence[VectorField], columns: Mapping[str, Kind], ids: IdKind, records: Records) -> Store:
        number = len(self._made)
        self._made.append(MemoryBackend(fields, columns=columns, ids=ids, name=str(number)))
        store = Store(self._made[-1])
        store.upsert(records)
        return store

    def again(self, store: Store) -> Store:
        return Store(self._made[int(store.address.partition(":")[2])])

    def destroy(self, store: Store) -> None:
        pytest.skip("a collection in memory is gone with its process alone")
