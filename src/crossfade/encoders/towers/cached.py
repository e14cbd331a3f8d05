"""A frozen tower: the features that it gave once, by id."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import torch

from crossfade.datasets.base import ImageItem, TextItem
from crossfade.embeddings import Embeddings
from crossfade.encoders.towers.tower import Inputs, Tower
from crossfade.errors import PairingError

__all__ = ["CachedTower"]


@final
class CachedTower(Tower):
    """A tower that never runs: nothing upstream of its features trains.

    Args:
        embeddings: the features of every item that will be asked for, memory-mapped where they are on disk.
    """

    def __init__(self, embeddings: Embeddings) -> None:
        super().__init__()
        self.modality = embeddings.modality
        self.name = embeddings.space.model
        self.model = None
        self._embeddings = embeddings

    def content(self, item: ImageItem | TextItem) -> Any:
        """The item's id; nothing is opened."""
        return item.id

    def prepare(self, contents: Sequence[Any]) -> Inputs:
        """Read the features of these ids.

        Raises:
            PairingError: an id has none.
        """
        rows = self._embeddings.locate(list(contents))
        if (rows < 0).any():
            missing = contents[int((rows < 0).argmax())]
            raise PairingError(f"Every {self.modality} must have cached features; {missing!r} has none. Encode it too.")
        return {"features": torch.from_numpy(self._embeddings.rows.take(rows))}

    def forward(self, inputs: Inputs) -> torch.Tensor:
        features: torch.Tensor = inputs["features"]
        return features
