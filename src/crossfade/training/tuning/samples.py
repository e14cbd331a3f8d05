"""Image–text pairs to train on: which text describes which image, which of them are duplicates, which are left out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from crossfade.datasets.base import Dataset, ImageItem, Link, TextItem
from crossfade.embeddings import Embeddings
from crossfade.embeddings.ids import item_keys
from crossfade.errors import DatasetError
from crossfade.spaces import Modality

__all__ = ["Samples"]

_SHARE = 1_000_000

T = TypeVar("T", ImageItem, TextItem)


@dataclass(frozen=True, eq=False)
class Samples:
    """Pairs of an image and a text that describes it.

    Attributes:
        images: every image that has a pair.
        texts: every text that has a pair.
        links: (row of the text, row of the image) of each pair, int64 [n, 2].
        items: the item of each pair, int64 [n]: pairs that share an image or a text, also through other pairs, are of
            one item.
        left_out: why a linked image or text is not among them, by ``image:id`` or ``text:id``.
    """

    images: tuple[ImageItem, ...]
    texts: tuple[TextItem, ...]
    links: npt.NDArray[np.int64]
    items: npt.NDArray[np.int64]
    left_out: Mapping[str, str]

    def __len__(self) -> int:
        return len(self.links)

    @classmethod
    def of(
        cls,
        dataset: Dataset,
        untuned: Mapping[Modality, Embeddings],
        *,
        reasons: Mapping[str, str] | None = None,
    ) -> Samples:
        """The pairs of a data set whose both sides have a vector.

        Args:
            dataset: with links.
            untuned: the untouched model's vectors; an item that has none could not be read.
            reasons: why, by the same keys as :attr:`left_out`.

        Raises:
            DatasetError: no pair is left.
        """
        return cls.from_links(dataset.images(), dataset.texts(), dataset.links(), untuned, reasons=reasons)

    @classmethod
    def from_links(
        cls,
        images: Iterable[ImageItem],
        texts: Iterable[TextItem],
        links: Iterable[Link],
        untuned: Mapping[Modality, Embeddings],
        *,
        reasons: Mapping[str, str] | None = None,
    ) -> Samples:
        """As :meth:`of`, from the three parts of a data set."""
        known_images, known_texts = _with_vectors(images, untuned["image"]), _with_vectors(texts, untuned["text"])
        left_out: dict[str, str] = {}
        rows: list[tuple[int, int]] = []
        for link in links:
            text, image = known_texts.get(link.text), known_images.get(link.image)
            if text is not None and image is not None:
                rows.append((text[0], image[0]))
                continue
            for kind, name, found in (("image", link.image, image), ("text", link.text, text)):
                if found is None:
                    key = f"{kind}:{name}"
                    left_out[key] = (reasons or {}).get(key, "it is not in the data set")
        if not rows:
            raise DatasetError(
                "There must be at least one text linked to an image that can be read; found none. "
                + (f"{len(left_out)} were left out, the first: {next(iter(left_out.items()))}." if left_out else "")
            )
        pairs = np.unique(np.asarray(rows, dtype=np.int64), axis=0)
        used_texts, text_rows = np.unique(pairs[:, 0], return_inverse=True)
        used_images, image_rows = np.unique(pairs[:, 1], return_inverse=True)
        all_images, all_texts = list(known_images.values()), list(known_texts.values())
        kept = np.stack([text_rows, image_rows], axis=1).astype(np.int64)
        return cls(
            tuple(all_images[row][1] for row in used_images.tolist()),
            tuple(all_texts[row][1] for row in used_texts.tolist()),
            kept,
            _components(kept),
            left_out,
        )

    def split(self, *, share: float, seed: int) -> tuple[Samples, Samples]:
        """Divide by item: (training, held out); which item falls where depends on its first image's id and the seed.

        Args:
            share: of the items that is held out, below 1; 0 holds none out.
            seed: another seed, another division.

        Raises:
            DatasetError: a side would be empty.
        """
        leader = np.full(int(self.items.max()) + 1, "", dtype=object)
        for item, image in zip(self.items.tolist(), self.links[:, 1].tolist(), strict=True):
            name = self.images[image].id
            leader[item] = name if leader[item] == "" else min(leader[item], name)
        keys = item_keys(leader[self.items].astype(np.str_), salt=f"xbt-tuning/{seed}")
        out = (keys % np.uint64(_SHARE)).astype(np.int64) < share * _SHARE
        if share > 0.0 and (out.all() or not out.any()):
            raise DatasetError(
                f"{len(leader)} items are too few to hold out a share of {share}. Bring more pairs, or set held_out=0."
            )
        return self.only(~out), self.only(out)

    def only(self, pairs: npt.NDArray[Any]) -> Samples:
        """Only these pairs, named by number or by a mask."""
        return replace(self, links=self.links[pairs], items=self.items[pairs])

    def item_keys(self) -> npt.NDArray[np.uint64]:
        """Keys of every item that these pairs hold, sorted, as :meth:`crossfade.Pairs.item_keys` has them."""
        texts = np.asarray([self.texts[row].id for row in np.unique(self.links[:, 0]).tolist()], dtype=np.str_)
        images = np.asarray([self.images[row].id for row in np.unique(self.links[:, 1]).tolist()], dtype=np.str_)
        return np.unique(np.concatenate([item_keys(texts, salt="text"), item_keys(images, salt="image")]))


def _with_vectors(items: Iterable[T], vectors: Embeddings) -> dict[str, tuple[int, T]]:
    listed: Sequence[T] = list(items)
    if not listed:
        return {}
    rows = vectors.locate([item.id for item in listed])
    with_vector = [item for item, row in zip(listed, rows.tolist(), strict=True) if row >= 0]
    return {item.id: (place, item) for place, item in enumerate(with_vector)}


def _components(links: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    texts = int(links[:, 0].max()) + 1
    nodes = texts + int(links[:, 1].max()) + 1
    graph = coo_array((np.ones(len(links), dtype=np.int8), (links[:, 0], texts + links[:, 1])), (nodes, nodes))
    _, component = connected_components(graph, directed=False)
    found: npt.NDArray[np.int64] = component[links[:, 0]].astype(np.int64)
    return found
