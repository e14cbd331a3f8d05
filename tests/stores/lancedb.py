"""Tables of LanceDB in one folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import lancedb
import pyarrow as pa

from crossfade.stores import Records, Store, VectorField, open_store
from crossfade.stores.conditions import Kind
from crossfade.stores.ids import IdKind
from stores.base import Maker

COLUMNS: Mapping[Kind, pa.DataType] = {
    "string": pa.string(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "boolean": pa.bool_(),
    "other": pa.timestamp("us"),
}
IDS: Mapping[IdKind, pa.DataType] = {"string": pa.string(), "integer": pa.int64(), "uuid": pa.uuid()}


class LanceDBMaker(Maker):
    """Each collection is a table; its ids stand in a column that a filter has to quote."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.database = lancedb.connect(folder, read_consistency_interval=timedelta(0))
        self._made = 0

    def make(self, fields: Sequence[VectorField], columns: Mapping[str, Kind], ids: IdKind, records: Records) -> Store:
        self._made += 1
        name = f"made{self._made}"
        schema = pa.schema(
            [
                pa.field("Item Id", IDS[ids]),
                *(pa.field(field.name, pa.list_(pa.float32(), field.dimension)) for field in fields),
                *(pa.field(column, COLUMNS[kind]) for column, kind in columns.items()),
            ]
        )
        table = self.database.create_table(name, schema=schema)
        if len(records):
            table.add(self._rows(records, schema, ids), on_bad_vectors="null")
        return open_store(f"lancedb://{self.folder}?id=Item%20Id#{name}")

    def again(self, store: Store) -> Store:
        return open_store(store.address)

    def destroy(self, store: Store) -> None:
        self.database.drop_table(store.address.rpartition("#")[2])

    def _rows(self, records: Records, schema: pa.Schema, ids: IdKind) -> pa.Table:
        names = [UUID(str(each)).bytes for each in records.ids] if ids == "uuid" else list(records.ids)
        columns: dict[str, list] = {"Item Id": names}
        for field, vectors in records.vectors.items():
            columns[field] = [
                row.tolist() if there else None for row, there in zip(vectors.values, vectors.present, strict=True)
            ]
        columns |= {column: list(values) for column, values in records.columns.items()}
        return pa.Table.from_pydict({name: columns.get(name, [None] * len(records)) for name in schema.names}, schema)
