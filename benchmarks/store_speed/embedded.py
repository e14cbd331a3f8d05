"""The stores that run within the process, by their own clients."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from benchmarks.store_speed.client import FIELD, NEW_FIELD, Client

__all__ = ["Faiss", "LanceDB", "Milvus", "Qdrant"]

Floats = npt.NDArray[np.float32]

BATCH = 1000
"""Rows in one call, for clients that are to be called in batches."""

PAGE = 4096
"""Rows in one call of FAISS, as by default in a scan of Crossfade's."""


class LanceDB(Client):
    """Tables in a folder, read as Arrow batches and written by ``merge_insert``; the index is IVF-PQ, one partition for 4,096
    rows.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        import lancedb

        self._database = lancedb.connect(folder / "lancedb")
        self._tables: dict[str, Any] = {}

    def make(self, name: str, vectors: Floats, *, index: bool) -> None:
        from lancedb.index import IvfPq

        table = self._database.create_table(name, _arrow(list(range(len(vectors))), FIELD, vectors))
        if index and len(vectors) >= 256:  # fewer do not train it
            partitions = max(1, len(vectors) // 4096)
            table.create_index(FIELD, config=IvfPq(distance_type="cosine", num_partitions=partitions))
        self._tables[name] = table

    def address(self, name: str) -> str:
        return f"lancedb:{self.folder / 'lancedb'}#{name}"

    def scan(self, name: str) -> tuple[list[int], Floats]:
        ids: list[int] = []
        parts: list[Floats] = []
        for batch in self._tables[name].search().select(["id", FIELD]).to_batches():
            ids += batch["id"].to_pylist()
            parts.append(batch[FIELD].flatten().to_numpy().reshape(len(batch), -1))
        return ids, np.concatenate(parts)

    def search(self, name: str, vector: Floats, k: int) -> list[int]:
        asked = self._tables[name].search(vector, vector_column_name=FIELD).distance_type("cosine").limit(k)
        asked = asked.select(["id", "_distance"]).refine_factor(10).minimum_nprobes(20).maximum_nprobes(0)
        found: list[int] = asked.to_arrow()["id"].to_pylist()
        return found

    def upsert(self, name: str, ids: list[int], vectors: Floats) -> None:
        merge = self._tables[name].merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
        merge.execute(_arrow(ids, FIELD, vectors))

    def add_field(self, name: str, dimension: int) -> None:
        self._tables[name].add_columns(pa.schema([pa.field(NEW_FIELD, pa.list_(pa.float32(), dimension))]))

    def set_vectors(self, name: str, ids: list[int], vectors: Floats) -> None:
        self._tables[name].merge_insert("id").when_matched_update_all().execute(_arrow(ids, NEW_FIELD, vectors))


def _arrow(ids: list[int], field: str, vectors: Floats) -> pa.Table:
    flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
    return pa.table({"id": pa.array(ids, pa.int64()), field: flat})


class Qdrant(Client):
    """Collections of the local mode, which compares every row, scrolled and written in batches."""

    rows: ClassVar[int] = 1_000

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        from qdrant_client import QdrantClient

        from crossfade.stores.qdrant_local import borrow

        place = folder / "qdrant"
        QdrantClient(path=str(place)).close()
        self._shared = borrow(place)  # a folder has one client in a process
        self._client = self._shared.client

    def make(self, name: str, vectors: Floats, *, index: bool) -> None:
        from qdrant_client import models

        params = models.VectorParams(size=vectors.shape[1], distance=models.Distance.COSINE)
        self._client.create_collection(name, vectors_config={FIELD: params})
        self.upsert(name, list(range(len(vectors))), vectors)

    def address(self, name: str) -> str:
        return f"qdrant://{self.folder / 'qdrant'}/{name}?ids=integer"

    def scan(self, name: str) -> tuple[list[int], Floats]:
        ids: list[int] = []
        parts: list[Floats] = []
        following: Any = None
        while True:
            page, following = self._client.scroll(
                name, limit=BATCH, offset=following, with_payload=False, with_vectors=[FIELD]
            )
            ids += [point.id for point in page]
            parts.append(np.array([point.vector[FIELD] for point in page], dtype=np.float32))
            if following is None:
                return ids, np.concatenate(parts)

    def search(self, name: str, vector: Floats, k: int) -> list[int]:
        found = self._client.query_points(name, query=vector.tolist(), using=FIELD, limit=k, with_payload=False)
        return [point.id for point in found.points]

    def upsert(self, name: str, ids: list[int], vectors: Floats) -> None:
        from qdrant_client import models

        for part in _batches(len(ids)):
            points = models.Batch(ids=ids[part], vectors={FIELD: vectors[part].tolist()})
            self._client.upsert(name, points=points, wait=True)

    def add_field(self, name: str, dimension: int) -> None:
        from qdrant_client import models

        dense = models.DenseVectorConfig(size=dimension, distance=models.Distance.COSINE)
        self._client.create_vector_name(name, NEW_FIELD, models.DenseVectorNameConfig(dense=dense))

    def set_vectors(self, name: str, ids: list[int], vectors: Floats) -> None:
        from qdrant_client import models

        for part in _batches(len(ids)):
            given = zip(ids[part], vectors[part].tolist(), strict=True)
            points = [models.PointVectors(id=id_, vector={NEW_FIELD: vector}) for id_, vector in given]
            self._client.update_vectors(name, points=points, wait=True)

    def close(self) -> None:
        self._shared.release()


def _batches(count: int, size: int = BATCH) -> Iterator[slice]:
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


class Milvus(Client):
    """Collections in a file of Milvus Lite, read by its iterator and written in batches; the index is HNSW."""

    rows: ClassVar[int] = 500

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        from pymilvus import MilvusClient

        logging.getLogger("pymilvus").setLevel(logging.ERROR)  # its iterator warns that Lite gives no time stamp
        self._file = folder / "milvus.db"
        self._client = MilvusClient(str(self._file))

    def make(self, name: str, vectors: Floats, *, index: bool) -> None:
        from pymilvus import DataType

        schema = self._client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field(FIELD, DataType.FLOAT_VECTOR, dim=vectors.shape[1])
        indexes = self._client.prepare_index_params()
        indexes.add_index(FIELD, index_type="HNSW" if index else "FLAT", metric_type="COSINE")
        self._client.create_collection(name, schema=schema, index_params=indexes)
        self.upsert(name, list(range(len(vectors))), vectors)

    def address(self, name: str) -> str:
        return f"milvus://{self._file}#{name}"

    def scan(self, name: str) -> tuple[list[int], Floats]:
        ids: list[int] = []
        parts: list[Floats] = []
        rows = self._client.query_iterator(
            name, batch_size=BATCH, output_fields=["id", FIELD], consistency_level="Strong", strict_float32=True
        )
        while page := rows.next():
            ids += [row["id"] for row in page]
            parts.append(np.stack([row[FIELD] for row in page]))
        rows.close()
        return ids, np.concatenate(parts)

    def search(self, name: str, vector: Floats, k: int) -> list[int]:
        (found,) = self._client.search(
            name,
            data=vector[None],
            anns_field=FIELD,
            limit=k,
            output_fields=["id"],
            search_params={"metric_type": "COSINE"},
            consistency_level="Strong",
        )
        return list(found.ids)

    def upsert(self, name: str, ids: list[int], vectors: Floats) -> None:
        for part in _batches(len(ids)):
            given = zip(ids[part], vectors[part], strict=True)
            self._client.upsert(name, [{"id": id_, FIELD: vector} for id_, vector in given])

    def close(self) -> None:
        from milvus_lite.server_manager import server_manager_instance

        self._client.close()
        server_manager_instance.release_server(str(self._file))


class Faiss(Client):
    """A flat index of inner products, held in memory; its numbers are the ids."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._indexes: dict[str, Any] = {}

    def make(self, name: str, vectors: Floats, *, index: bool) -> None:
        import faiss

        flat = faiss.IndexFlatIP(vectors.shape[1])
        flat.add(vectors)
        faiss.write_index(flat, str(self.folder / f"{name}.index"))
        self._indexes[name] = flat

    def address(self, name: str) -> str:
        return f"faiss://{self.folder / f'{name}.index'}?field={FIELD}&metric=cosine"

    def scan(self, name: str) -> tuple[list[int], Floats]:
        index = self._indexes[name]
        rows = np.empty((index.ntotal, index.d), dtype=np.float32)
        for part in _batches(index.ntotal, PAGE):
            rows[part] = index.reconstruct_n(part.start, part.stop - part.start)
        return list(range(index.ntotal)), rows

    def search(self, name: str, vector: Floats, k: int) -> list[int]:
        _, found = self._indexes[name].search(vector[None], k)
        return found[0].tolist()
