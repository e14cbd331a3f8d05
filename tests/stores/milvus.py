"""Collections in a file of Milvus Lite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from crossfade.stores import Records, Store, VectorField, open_store
from crossfade.stores.conditions import Kind
from crossfade.stores.ids import IdKind
from stores.base import Maker

TYPES = {"string": "VARCHAR", "integer": "INT64", "number": "DOUBLE", "boolean": "BOOL"}
METRICS = {"cosine": "COSINE", "dot": "IP", "l2": "L2"}


class MilvusMaker(Maker):
    """One file, in which each collection has a name of its own."""

    id_kinds: ClassVar[tuple[IdKind, ...]] = ("string", "integer")

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.file = folder / "vectors.db"
        self._made = 0
        self._client: Any = None

    def client(self) -> Any:
        from pymilvus import MilvusClient

        if self._client is None:
            self._client = MilvusClient(str(self.file))
        return self._client

    def make(self, fields: Sequence[VectorField], columns: Mapping[str, Kind], ids: IdKind, records: Records) -> Store:
        from pymilvus import DataType

        client, name = self.client(), f"collection_{self._made}"
        self._made += 1
        schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field(
            "id", DataType.INT64 if ids == "integer" else DataType.VARCHAR, is_primary=True, max_length=1000
        )
        indexes = client.prepare_index_params()
        for field in fields:
            schema.add_field(field.name, DataType.FLOAT_VECTOR, dim=field.dimension)
            indexes.add_index(field.name, index_type="HNSW", metric_type=METRICS[field.metric or "cosine"])
        for column, kind in columns.items():
            schema.add_field(column, DataType[TYPES[kind]], nullable=True, max_length=1000)
        client.create_collection(name, schema=schema, index_params=indexes)
        if len(records):
            client.insert(name, as_rows(records))
        return open_store(f"milvus://{self.file}#{name}")

    def again(self, store: Store) -> Store:
        return open_store(store.address)

    def destroy(self, store: Store) -> None:
        self.client().drop_collection(store.address.partition("#")[2])

    def close(self) -> None:
        from milvus_lite.server_manager import server_manager_instance

        if self._client is not None:
            self._client.close()
            server_manager_instance.release_server(str(self.file))


def as_rows(records: Records) -> list[dict[str, Any]]:
    """Rows as Milvus' own client takes them."""
    return [
        {
            "id": id_,
            **{name: vectors.values[number] for name, vectors in records.vectors.items()},
            **{name: values[number] for name, values in records.columns.items()},
        }
        for number, id_ in enumerate(records.ids)
    ]
