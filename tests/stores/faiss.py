"""Indexes in files: strings as ids beside a flat index, whole numbers in the index's own map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from crossfade.stores import Records, Store, VectorField, open_store
from crossfade.stores.address import parse_address
from crossfade.stores.conditions import Kind
from crossfade.stores.ids import IdKind
from stores.base import Maker


class FaissMaker(Maker):
    """One pair of files a collection; under cosine rows are normalised before they are added, as FAISS asks for."""

    id_kinds: ClassVar[tuple[IdKind, ...]] = ("string", "integer")

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._made = 0

    def make(self, fields: Sequence[VectorField], columns: Mapping[str, Kind], ids: IdKind, records: Records) -> Store:
        import faiss

        (field,) = fields
        path = self.folder / f"{self._made}.index"
        self._made += 1
        vectors = records.vectors[field.name].values.copy()
        if field.metric == "cosine":
            faiss.normalize_L2(vectors)
        index = faiss.IndexFlatL2(field.dimension) if field.metric == "l2" else faiss.IndexFlatIP(field.dimension)
        if ids == "integer":
            index = faiss.IndexIDMap(index)
            index.add_with_ids(vectors, np.asarray(records.ids, dtype=np.int64))
        else:
            index.add(vectors)
            lines = "".join(f"{id_}\n" for id_ in records.ids)
            path.with_suffix(".ids.txt").write_text(lines, encoding="utf-8", newline="")
        faiss.write_index(index, str(path))
        return open_store(f"faiss://{path}?field={field.name}")

    def again(self, store: Store) -> Store:
        return open_store(store.address)

    def destroy(self, store: Store) -> None:
        parse_address(store.address).file().unlink()
