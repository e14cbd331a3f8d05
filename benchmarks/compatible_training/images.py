"""The labelled images: natural ones of 100 classes, and printed characters in typefaces that no model was trained on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import final

from crossfade.datasets import Dataset, Glyphs, ImageItem, LabelledParquet, Link, TextItem

__all__ = ["DATA", "FOLDER", "GLYPHS", "NATURAL", "Images", "Thinned", "opened"]

NATURAL, GLYPHS = "tiny-imagenet-32", "glyphs"
DATA = (NATURAL, GLYPHS)
FOLDER = "tiny-imagenet-32"
CHARACTERS = 400
SIZE = 32


@dataclass(frozen=True)
class Images:
    """One data set.

    Attributes:
        name: one of :data:`DATA`.
        train: what the newest model is trained on; older ones on a part of it.
        test: queries and gallery; never trained on.
        augmentation: of training images.
        passes: epochs for one of the command line's; a small set is passed over more often.
        described: what was kept of the data set, for keys.
    """

    name: str
    train: Dataset
    test: Dataset
    augmentation: str
    passes: int
    described: str


def opened(name: str, folder: Path | None, *, quick: bool) -> Images:
    """Open a data set.

    Args:
        name: one of :data:`DATA`.
        folder: of the natural images.
        quick: 20 classes and few images.
    """
    if name == GLYPHS:
        count = 20 if quick else CHARACTERS
        train, test = (Glyphs(split, characters=count, size=SIZE) for split in ("train", "unseen-faces"))
        return Images(name, train, test, "glyphs", 2, f"{count} characters")
    if folder is None:
        raise FileNotFoundError(f"The natural images must stand beside the project; found no folder {FOLDER}.")
    natural, held = (LabelledParquet(folder / f"{part}.parquet") for part in ("train", "val"))
    if quick:
        return Images(name, Thinned(natural, 40, 20), Thinned(held, 5, 20), "cifar", 1, "20 classes")
    return Images(name, natural, held, "cifar", 1, "all")


@final
class Thinned(Dataset):
    """The first images of the first classes, for a quick look.

    Args:
        data: labelled by whole numbers from 0.
        each: images of a class.
        classes: how many.
    """

    def __init__(self, data: Dataset, each: int, classes: int) -> None:
        self.name = data.name
        self._data, self._each, self._classes = data, each, classes

    def images(self) -> Iterator[ImageItem]:
        """See :meth:`Dataset.images`."""
        seen: Counter[int] = Counter()
        for item in self._data.images():
            label = int(item.metadata["label"])
            seen[label] += 1
            if label < self._classes and seen[label] <= self._each:
                yield item

    def texts(self) -> Iterator[TextItem]:
        """None."""
        return iter(())

    def links(self) -> Iterator[Link]:
        """None."""
        return iter(())
