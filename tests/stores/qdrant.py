"""Collections of Qdrant's local mode: one folder, whose client the maker and all stores share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from qdrant_client import QdrantClient, models

from crossfade.stores import Records, Store, VectorField, open_store
from crossfade.stores.conditions import Kind
from crossfade.stores.ids import IdKind
from crossfade.stores.qdrant_local import LocalFolder, borrow
from stores.base import Maker

DISTANCES = {"cosine": models.Distance.COSINE, "dot": models.Distance.DOT, "l2": models.Distance.EUCLID}


class QdrantMaker(Maker):
    """String ids stand in the payload, under a point id that says nothing; the others are the points' own."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        QdrantClient(path=str(folder)).close()
        self._shared: LocalFolder | None = None
        self._made = 0

    @property
    def shared(self) -> LocalFolder:
        if self._shared is None:
            self._shared = borrow(self.folder)
        return self._shared

    def make(self, fields: Sequence[VectorField], columns: Mapping[str, Kind], ids: IdKind, records: Records) -> Store:
        self._made += 1
        name = f"made{self._made}"
        self.shared.client.create_collection(
            name,
            vectors_config={
                field.name: models.VectorParams(size=field.dimension, distance=DISTANCES[field.metric or "cosine"])
                for field in fields
            },
        )
        points = [self._point(row, ids, records) for row in range(len(records))]
        if points:
            self.shared.client.upsert(name, points=points, wait=True)
        options = "id=item" if ids == "string" else f"ids={ids}"
        return open_store(f"qdrant://{self.folder}/{name}?{options}")

    def again(self, store: Store) -> Store:
        return open_store(store.address)

    def destroy(self, store: Store) -> None:
        self.shared.client.delete_collection(store.address.rpartition("/")[2].partition("?")[0])

    def let_go(self) -> None:
        if self._shared is not None:
            self._shared.release()
            self._shared = None

    def close(self) -> None:
        self.let_go()

    def _point(self, row: int, ids: IdKind, records: Records) -> models.PointStruct:
        payload = {name: column[row] for name, column in records.columns.items() if column[row] is not None}
        if ids == "string":
            payload["item"] = records.ids[row]
        return models.PointStruct(
            id=1000 - row if ids == "string" else records.ids[row],
            vector={
                name: vectors.values[row].tolist() for name, vectors in records.vectors.items() if vectors.present[row]
            },
            payload=payload,
        )
