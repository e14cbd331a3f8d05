"""Where the items of a collection come from, when they are encoded anew: a data set, or the collection's own columns.

::

    photos/                    any data set; its ids are those of the rows
    column:description         a column of texts
    column:path                a column of image files, where the gallery holds images
    column:path?root=/srv      the same, below a folder
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from crossfade.embeddings.core import Ids
from crossfade.errors import ConfigError
from crossfade.spaces import Modality
from crossfade.stores import Id, Store
from crossfade.two_stage.items import Embed, ItemEmbedder

if TYPE_CHECKING:
    import numpy as np

    from crossfade.encoders import Encoder

__all__ = ["embedder", "native_ids"]

COLUMN = "column:"


def embedder(source: str, store: Store, encoder: Encoder, modality: Modality) -> Embed:
    """What makes vectors of a collection's rows.

    Args:
        source: see the module.
        store: the collection.
        encoder: the model.
        modality: what its rows are.

    Raises:
        ConfigError: the collection has no such column.
        DatasetError: the data set cannot be read.
    """
    if source.startswith(COLUMN):
        name, _, query = source.removeprefix(COLUMN).partition("?")
        options = dict(parse_qsl(query))
        if set(options) - {"root"}:
            raise ConfigError(f"A column of items has the option root; found {sorted(options)}.")
        store.fetch([], columns=[name])  # that it exists
        return _Column(store, name, encoder, modality, Path(options.get("root", "")))
    from crossfade.datasets import open_dataset

    data = open_dataset(source)
    items = data.images() if modality == "image" else data.texts()
    return ItemEmbedder(encoder, {item.id: item for item in items}, modality=modality)


class _Column:
    """Encodes what a column holds: the rows of a batch are read together, as they are at that moment."""

    def __init__(self, store: Store, column: str, encoder: Encoder, modality: Modality, root: Path) -> None:
        self._store, self._column, self._root = store, column, root
        self._encoder, self._modality = encoder, modality

    def __call__(self, ids: Ids) -> np.ndarray[Any, Any]:
        rows = self._store.fetch(native_ids(ids, self._store), columns=[self._column])
        items: Mapping[str, Any] = {
            str(id_): value if self._modality == "text" else self._root / str(value)
            for id_, value in zip(rows.ids, rows.columns[self._column], strict=True)
            if isinstance(value, str)
        }
        return ItemEmbedder(self._encoder, items, modality=self._modality)(ids)


def native_ids(ids: Ids, store: Store) -> list[Id]:
    """Ids as the store has them: whole numbers where its ids are."""
    numbers = store.shape.ids == "integer"
    return [int(id_) if numbers else id_ for id_ in ids.tolist()]
