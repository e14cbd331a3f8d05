"""The labelled images: natural ones of 100 classes, and printed characters in typefaces that no model was trained on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

from crossfade.datasets import Dataset, Glyphs, ImageItem, LabelledParquet, Link, TextItem

__all__ = ["DATA", "FOLDER", "GLYPHS", "NATURAL", "Chosen", "Images", "opened"]

NATURAL, GLYPHS = "tiny-imagenet-32", "glyphs"
DATA = (NATURAL, GLYPHS)
FOLDER = "tiny-imagenet-32"
CHARACTERS = 400
SIZE = 32

HELD_IMAGES = 30
"""Of each natural class's training images: the last ones choose weights in place of the test images."""
HELD_FACES = ("DejaVuSans-Oblique", "DejaVuSerif-Bold", "STIXGeneralBolIta")
"""Of the typefaces that are trained on: the same for glyphs."""


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

    def tuning(self) -> Images:
        """The training images alone, a part of them in the place of the test images."""
        counts: Counter[object] = Counter(item.metadata["label"] for item in self.train.images())

        def held(item: ImageItem, number: int) -> bool:
            if self.name == GLYPHS:
                return item.metadata["typeface"] in HELD_FACES
            return number >= counts[item.metadata["label"]] - HELD_IMAGES

        return replace(
            self,
            train=Chosen(self.train, lambda item, number: not held(item, number)),
            test=Chosen(self.train, held),
            described=f"{self.described}, tuning",
        )


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
        few, fewer = (Chosen(data, _first(each, 20)) for data, each in ((natural, 40), (held, 5)))
        return Images(name, few, fewer, "cifar", 1, "20 classes")
    return Images(name, natural, held, "cifar", 1, "all")


def _first(each: int, classes: int) -> Callable[[ImageItem, int], bool]:
    return lambda item, number: int(item.metadata["label"]) < classes and number < each


@final
class Chosen(Dataset):
    """Some images of a data set.

    Args:
        data: labelled.
        wanted: of an image and its number among those of its class, from 0.
    """

    def __init__(self, data: Dataset, wanted: Callable[[ImageItem, int], bool]) -> None:
        self.name = data.name
        self._data, self._wanted = data, wanted

    def images(self) -> Iterator[ImageItem]:
        """See :meth:`Dataset.images`."""
        seen: Counter[object] = Counter()
        for item in self._data.images():
            label = item.metadata["label"]
            if self._wanted(item, seen[label]):
                yield item
            seen[label] += 1

    def texts(self) -> Iterator[TextItem]:
        """None."""
        return iter(())

    def links(self) -> Iterator[Link]:
        """None."""
        return iter(())
