"""What a data set is to Crossfade: items in a stable order, and which text belongs to which image.

Every reader in :mod:`crossfade.datasets` is a final subclass of :class:`Dataset`. Items are lazy: an image is opened when
its ``load`` is called, so that millions of them can be listed, and so that one corrupt file stops nothing but itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Union

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Dataset", "ImageItem", "Link", "TextItem", "Value"]

Value = Union[str, int, float]


@dataclass(frozen=True, slots=True)
class ImageItem:
    """One image.

    Attributes:
        id: unique within the data set's images.
        load: opens and fully decodes it, in RGB; raises :class:`~crossfade.errors.CorruptItem` where it cannot.
        metadata: columns by which results can be sliced, such as ``label``.
    """

    id: str
    load: Callable[[], Image]
    metadata: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TextItem:
    """One text: a caption, a query or a document; ``id`` is unique within the data set's texts."""

    id: str
    text: str
    metadata: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Link:
    """Says that the text ``text`` (its id) describes the image ``image`` (its id)."""

    text: str
    image: str


class Dataset(ABC):
    """Images, texts or both, in an order that is the same at every reading.

    The order is what lets :func:`crossfade.encode` resume after a kill.
    """

    name: str

    @abstractmethod
    def images(self) -> Iterator[ImageItem]:
        """Every image, in a stable order; an empty iterator for a text-only data set."""

    @abstractmethod
    def texts(self) -> Iterator[TextItem]:
        """Every text, in a stable order; an empty iterator for an image-only data set."""

    @abstractmethod
    def links(self) -> Iterator[Link]:
        """Which text describes which image; an empty iterator where nothing is said."""
