"""What a data set holds and what is wrong with it, found without opening an image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from crossfade.datasets.base import Dataset
from crossfade.datasets.images import ImageFile
from crossfade.embeddings.core import item_keys
from crossfade.errors import CorruptItem, DatasetError

__all__ = ["DatasetSummary", "Finding", "check"]

_CHUNK = 65_536
_EXAMPLES = 3

Keys = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong with ``count`` items, the first of them named."""

    count: int = 0
    examples: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self.count > 0


@dataclass(frozen=True)
class DatasetSummary:
    """Counts, and what is wrong.

    Attributes:
        name: of the data set.
        images: how many.
        texts: how many.
        links: how many.
        duplicate_images: image ids that come more than once.
        duplicate_texts: text ids that come more than once.
        texts_without_image: texts that no link gives an image; empty for a data set without images.
        images_without_text: images that no link gives a text; empty for a data set without texts.
        broken_links: links to a text or an image that is not there, as ``TEXT → IMAGE``.
        missing_files: images whose file is not there; empty where it was not asked.
        corrupt_images: images that cannot be decoded; empty where it was not asked.
        errors: where reading stopped: a file that is truncated or not UTF-8; the counts are of what came before.
    """

    name: str
    images: int
    texts: int
    links: int
    duplicate_images: Finding
    duplicate_texts: Finding
    texts_without_image: Finding
    images_without_text: Finding
    broken_links: Finding
    missing_files: Finding
    corrupt_images: Finding
    errors: tuple[str, ...] = ()

    @property
    def problems(self) -> tuple[str, ...]:
        """One sentence for each thing that is wrong; empty for a sound data set."""
        told = (
            ("image ids come more than once", self.duplicate_images),
            ("text ids come more than once", self.duplicate_texts),
            ("captions have no image", self.texts_without_image),
            ("images have no caption", self.images_without_text),
            ("links name a text or an image that is not there", self.broken_links),
            ("image files are missing", self.missing_files),
            ("images cannot be decoded", self.corrupt_images),
        )
        found = [f"{f.count} {what}, such as {', '.join(map(repr, f.examples))}." for what, f in told if f]
        return (*found, *self.errors)

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON values."""
        return {**asdict(self), "problems": list(self.problems)}

    def __str__(self) -> str:
        counts = f"{self.name}: {self.images} images, {self.texts} texts, {self.links} links"
        return "\n".join((counts, *(f"  {problem}" for problem in self.problems)))


def check(dataset: Dataset, *, files: bool = True, decode: bool = False) -> DatasetSummary:
    """List a data set and say what is wrong with it; eight bytes of memory an id, and two a link.

    Args:
        dataset: what to check.
        files: whether to look for each image's file (no image is opened).
        decode: whether to decode every image, which takes as long as reading them all.
    """
    errors: list[str] = []
    missing, corrupt = _Tally(), _Tally()
    image_keys = _keys(_seen(dataset, files=files, decode=decode, missing=missing, corrupt=corrupt), "image", errors)
    text_keys = _keys((item.id for item in dataset.texts()), "text", errors)
    linked_texts = _keys((link.text for link in dataset.links()), "text", errors)
    linked_images = _keys((link.image for link in dataset.links()), "image", errors)
    both = len(image_keys) > 0 and len(text_keys) > 0
    count = min(len(linked_texts), len(linked_images))
    broken = ~(np.isin(linked_texts[:count], text_keys) & np.isin(linked_images[:count], image_keys))
    nothing = np.zeros(0, dtype=bool)
    return DatasetSummary(
        name=dataset.name,
        images=len(image_keys),
        texts=len(text_keys),
        links=count,
        duplicate_images=_name(_repeats(image_keys), (item.id for item in dataset.images())),
        duplicate_texts=_name(_repeats(text_keys), (item.id for item in dataset.texts())),
        texts_without_image=_name(
            ~np.isin(text_keys, linked_texts) if both else nothing, (item.id for item in dataset.texts())
        ),
        images_without_text=_name(
            ~np.isin(image_keys, linked_images) if both else nothing, (item.id for item in dataset.images())
        ),
        broken_links=_name(broken, (f"{link.text} → {link.image}" for link in dataset.links())),
        missing_files=missing.finding,
        corrupt_images=corrupt.finding,
        errors=tuple(dict.fromkeys(errors)),
    )


@dataclass(slots=True)
class _Tally:
    """Counts items as they pass, and keeps the names of the first."""

    count: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, name: str) -> None:
        self.count += 1
        if len(self.examples) < _EXAMPLES:
            self.examples.append(name)

    @property
    def finding(self) -> Finding:
        return Finding(self.count, tuple(self.examples))


def _seen(dataset: Dataset, *, files: bool, decode: bool, missing: _Tally, corrupt: _Tally) -> Iterator[str]:
    """The ids of the images, each looked at as it passes."""
    for item in dataset.images():
        if files and isinstance(item.load, ImageFile) and not item.load.exists():
            missing.add(item.id)
        elif decode:
            try:
                item.load()
            except CorruptItem:
                corrupt.add(item.id)
        yield item.id


def _keys(ids: Iterator[str], salt: str, errors: list[str]) -> Keys:
    """A 64-bit key for each id, as far as the ids can be read: uint64 [n]."""
    chunks: list[Keys] = [np.zeros(0, dtype=np.uint64)]
    pending: list[str] = []
    try:
        for name in ids:
            pending.append(name)
            if len(pending) == _CHUNK:
                chunks.append(item_keys(np.asarray(pending), salt=salt))
                pending = []
    except DatasetError as error:
        errors.append(str(error))
    if pending:
        chunks.append(item_keys(np.asarray(pending), salt=salt))
    return np.concatenate(chunks)


def _repeats(keys: Keys) -> npt.NDArray[np.bool_]:
    """Which keys stood before: bool [n]."""
    _, first = np.unique(keys, return_index=True)
    repeated = np.ones(len(keys), dtype=bool)
    repeated[first] = False
    return repeated


def _name(wrong: npt.NDArray[np.bool_], names: Iterator[str]) -> Finding:
    """Count the wrong ones, and name the first by going through ``names`` once more, no further than needed."""
    rows = np.flatnonzero(wrong)
    wanted = set(rows[:_EXAMPLES].tolist())
    if not wanted:
        return Finding()
    last = max(wanted)
    named = [name for row, name in zip(range(last + 1), names, strict=False) if row in wanted]
    return Finding(len(rows), tuple(named))
