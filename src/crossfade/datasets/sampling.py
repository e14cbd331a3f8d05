"""A random part of a data set, chosen by item: enough pairs to fit on, without encoding everything."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import final

import numpy as np

from crossfade.datasets.base import Dataset, ImageItem, Link, TextItem
from crossfade.embeddings.core import as_ids, item_keys
from crossfade.errors import DatasetError

__all__ = ["Sampled"]


@final
class Sampled(Dataset):
    """``count`` random items of another data set, in its order: images with all their texts, or texts where there are no images.

    The choice depends on the ids and the seed alone, and a smaller sample is part of a larger one.

    Args:
        dataset: what to sample from; it is listed once, and no image is opened for it.
        count: how many images (or texts) to keep; all of them where there are fewer.
        seed: another seed, another sample.

    Raises:
        DatasetError: ``count`` is below 1.
    """

    def __init__(self, dataset: Dataset, count: int, *, seed: int = 0) -> None:
        if count < 1:
            raise DatasetError(f"A sample must have at least one item; found {count}.")
        self.dataset = dataset
        self.count = count
        self.seed = seed
        self.name = dataset.name

    @cached_property
    def _images(self) -> frozenset[str]:
        return self._lowest([item.id for item in self.dataset.images()])

    @cached_property
    def _texts(self) -> frozenset[str]:
        if self._images:
            return frozenset(link.text for link in self.dataset.links() if link.image in self._images)
        return self._lowest([item.id for item in self.dataset.texts()])

    def _lowest(self, ids: list[str]) -> frozenset[str]:
        if not ids:
            return frozenset()
        keys = item_keys(as_ids(ids), salt=f"sample/{self.seed}")
        return frozenset(ids[row] for row in np.argsort(keys, kind="stable")[: self.count])

    def images(self) -> Iterator[ImageItem]:
        """The chosen images."""
        return (item for item in self.dataset.images() if item.id in self._images)

    def texts(self) -> Iterator[TextItem]:
        """Every text of a chosen image; chosen texts where there are no images."""
        return (item for item in self.dataset.texts() if item.id in self._texts)

    def links(self) -> Iterator[Link]:
        """The links of the chosen images."""
        return (link for link in self.dataset.links() if link.image in self._images)
