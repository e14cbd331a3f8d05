"""What may be encoded: the items of a data set, or plain texts, image files and Pillow images."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from crossfade.datasets.base import Dataset, ImageItem, TextItem, Value
from crossfade.datasets.images import ImageFile
from crossfade.errors import ConfigError, DatasetError
from crossfade.spaces import Modality

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Columns", "Item", "Items", "as_items", "read_ahead"]

Item = ImageItem | TextItem


@dataclass(frozen=True)
class Items:
    """Items of one modality, to be read once.

    Attributes:
        modality: what all of them are.
        first: the first of them (they are not empty).
        count: how many there are, where that is known beforehand.
        stream: all of them, the first included.
    """

    modality: Modality
    first: Item
    count: int | None
    stream: Iterator[Item]


def as_items(given: Iterable[Any]) -> Items:
    """Read the modality off the first item, and promise the others.

    Args:
        given: :class:`ImageItem` or :class:`TextItem`; or texts (``str``), image files (``Path``) and Pillow images,
            each alone or as ``(id, …)``. Alone, a file's id is its path, and any other's is its position. A ``str`` is
            always a text.

    Raises:
        ConfigError: not a collection of items at all.
        DatasetError: there are none, or (while reading) one is of another kind.
    """
    if isinstance(given, Dataset):
        raise ConfigError(f"A data set has images and texts; encode one of them: {given.name}.images() or .texts().")
    if isinstance(given, str | bytes | Path) or not isinstance(given, Iterable):
        raise ConfigError(
            f"Items must come as a list or another iterable; found {type(given).__name__}. Put it in a list."
        )
    stream = (_as_item(value, position) for position, value in enumerate(given))
    first = next(stream, None)
    if first is None:
        raise DatasetError("There must be at least one item to encode; found none. Check the data set.")
    modality: Modality = "image" if isinstance(first, ImageItem) else "text"
    count = len(given) if isinstance(given, Sized) else None
    return Items(modality, first, count, _of_one_kind(chain([first], stream), type(first)))


def _of_one_kind(stream: Iterator[Item], kind: type[Item]) -> Iterator[Item]:
    for position, item in enumerate(stream):
        if not isinstance(item, kind):
            raise DatasetError(
                f"All items must be of one kind; item {position} ({item.id!r}) is {type(item).__name__} after "
                f"{kind.__name__}. "
                "Encode images and texts apart."
            )
        yield item


def _as_item(value: object, position: int) -> Item:
    if isinstance(value, ImageItem | TextItem):
        if not isinstance(value.id, str) or not value.id:
            raise DatasetError(f"An item's id must be a text that is not empty; item {position} has {value.id!r}.")
        return value
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str | int):
        return _named(value[1], str(value[0]), position)
    return _named(value, value.as_posix() if isinstance(value, Path) else str(position), position)


def _named(value: object, name: str, position: int) -> Item:
    if not name:
        raise DatasetError(f"An item's id must not be empty; item {position}'s is.")
    if isinstance(value, str):
        return TextItem(name, value)
    if isinstance(value, Path):
        return ImageItem(name, ImageFile(value, name))
    if hasattr(value, "convert") and hasattr(value, "size"):
        return ImageItem(name, _InMemory(value))  # type: ignore[arg-type]
    raise DatasetError(
        f"An item must be an ImageItem, a TextItem, a text, a Path or a Pillow image, alone or as (id, …); item "
        f"{position} is "
        f"{type(value).__name__}. Convert it."
    )


@dataclass(frozen=True, slots=True)
class _InMemory:
    image: Image

    def __call__(self) -> Image:
        return self.image.convert("RGB")


@dataclass(frozen=True)
class Columns:
    """The metadata columns, as the first item has them: name → whether it holds text."""

    text: Mapping[str, bool]

    @classmethod
    def of(cls, first: Item) -> Columns:
        return cls({name: isinstance(value, str) for name, value in first.metadata.items()})

    def checked(self, item: Item) -> Mapping[str, Value]:
        for name, value in item.metadata.items():
            if name not in self.text:
                raise DatasetError(
                    f"All items must have the metadata columns of the first ({', '.join(self.text) or 'none'}); "
                    f"{item.id!r} has {name!r} too. Give it to every item, or to none."
                )
            if not self.text[name] and isinstance(value, str):
                raise DatasetError(
                    f"A metadata column must hold either text or numbers; {name!r} holds numbers, and {value!r} at "
                    f"{item.id!r}."
                )
        return item.metadata

    def arrays(self, rows: list[Mapping[str, Value]]) -> dict[str, npt.NDArray[Any]]:
        """Columns of the rows' values; a missing one is empty text or NaN."""
        return {
            name: np.asarray([str(row.get(name, "")) for row in rows], dtype=np.str_)
            if text
            else np.asarray([row.get(name, np.nan) for row in rows])
            for name, text in self.text.items()
        }


def read_ahead(
    items: Iterator[Item], pool: ThreadPoolExecutor, *, depth: int
) -> Iterator[tuple[Item, Any, str | None]]:
    """Each item with its text or its decoded image, or with the reason why it has none; images are decoded ahead."""
    waiting: deque[tuple[Item, Future[Any]]] = deque()
    for item in items:
        if isinstance(item, TextItem):
            yield item, item.text, _unreadable(item)
            continue
        waiting.append((item, pool.submit(item.load)))
        if len(waiting) > depth:
            yield _decoded(*waiting.popleft())
    while waiting:
        yield _decoded(*waiting.popleft())


def _decoded(item: Item, future: Future[Any]) -> tuple[Item, Any, str | None]:
    try:
        return item, future.result(), None
    except Exception as error:  # an image's loader may be anyone's
        return item, None, str(error) or type(error).__name__


def _unreadable(item: TextItem) -> str | None:
    text: object = item.text
    if not isinstance(text, str):
        return f"a text must be a str, and this is {type(text).__name__}"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "the text holds halves of characters (lone surrogates)"
    return None
