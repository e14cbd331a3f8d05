"""Images and texts in a table: JSONL, JSON, CSV, TSV or Parquet.

======================  ==========================================  ========================================
what a row holds        image id                                    text id
======================  ==========================================  ========================================
a list of texts,        ``image_id``, or else the row's ``id``      ``IMAGE_ID#0``, ``IMAGE_ID#1``, …
or no text at all
one text and a path     ``image_id``, or else the path: rows        the row's ``id``, or else ``IMAGE_ID#n``
                        of one image id are one image               for the n-th text of that image
one text and bytes      ``image_id``, or else the row's ``id``      as above
======================  ==========================================  ========================================

A row without ``id`` is named by its number, counted from 0. Which of the forms a table has is decided by its first
text. A blank text is no text, and an empty path is no image. Other columns become metadata of the image and of its
texts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, final

from crossfade.datasets.base import Dataset, ImageItem, Link, TextItem, Value
from crossfade.datasets.columns import IMAGE_COLUMNS, TEXT_COLUMNS, choose_column, row_id, texts_of
from crossfade.datasets.images import ImageFile
from crossfade.datasets.metadata import typed
from crossfade.datasets.parquet import BinaryCell, PackedImage
from crossfade.datasets.rows import Row, RowFormat, RowSource
from crossfade.errors import DatasetError

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["ImageTextTable"]


@dataclass(frozen=True, slots=True)
class _Columns:
    image: str
    text: str
    id: str
    image_id: str
    one_text: bool  # a row holds one text, not a list of them


@dataclass(frozen=True, slots=True)
class _Entry:
    """What one row says: its image's id (empty where it has none), its texts by id, and its metadata.

    Only where images are ``shared`` may several rows name one; elsewhere an id that comes twice is a mistake, and
    not hidden.
    """

    row: Row
    image: str
    shared: bool
    texts: tuple[tuple[str, str], ...]
    metadata: dict[str, Value]


@final
@dataclass(frozen=True)
class ImageTextTable(Dataset):
    """A table with an image a row and, usually, texts.

    Attributes:
        path: the file, or a folder of Parquet.
        image_root: the folder that relative image paths start from; by default the table's own.
        image: the column of images: paths, or in Parquet also bytes, plain or as a struct of ``bytes`` and ``path``;
            by default the first of :data:`crossfade.datasets.columns.IMAGE_COLUMNS` that there is.
        text: the column of texts; by default the first of :data:`crossfade.datasets.columns.TEXT_COLUMNS` that there
            is.
        id: the column of the rows' ids; by default ``id``.
        image_id: the column of the images' ids; by default ``image_id``.
        format: how to read a table whose suffix does not tell.
        delimiter: between the fields of a CSV.
        name: of the data set; by default the file's.

    Raises:
        DatasetError: the table is missing, damaged or not UTF-8, a column does not exist, or an image is a web address.
    """

    path: Path
    image_root: Path | None = None
    image: str = ""
    text: str = ""
    id: str = ""
    image_id: str = ""
    format: RowFormat = ""
    delimiter: str = ""
    name: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.name or self.path.stem)
        _ = self._columns

    def images(self) -> Iterator[ImageItem]:
        """Every image once, where a row first names it."""
        seen: set[str] = set()
        for entry in self._entries():
            if not entry.image or (entry.shared and entry.image in seen):
                continue
            if entry.shared:
                seen.add(entry.image)
            yield ImageItem(entry.image, self._load(entry), entry.metadata)

    def texts(self) -> Iterator[TextItem]:
        """Every text, row by row."""
        for entry in self._entries():
            for name, text in entry.texts:
                yield TextItem(name, text, entry.metadata)

    def links(self) -> Iterator[Link]:
        """Each text with the image of its row."""
        for entry in self._entries():
            if entry.image:
                yield from (Link(name, entry.image) for name, _ in entry.texts)

    @cached_property
    def _source(self) -> RowSource:
        return RowSource(self.path, self.format, self.delimiter)

    @cached_property
    def _columns(self) -> _Columns:
        source = self._source
        image = choose_column(source, self.image, IMAGE_COLUMNS, what="image")
        if not image:
            raise DatasetError(
                f"{self.path} must have a column of images ({', '.join(IMAGE_COLUMNS)}); found "
                f"{', '.join(source.columns)}. Name it with the option image, or open a text-only table with the kind "
                "texts."
            )
        text = choose_column(source, self.text, TEXT_COLUMNS, what="text")
        first = next((v for row in source.rows(images=image) if (v := row.values.get(text))), None) if text else None
        return _Columns(
            image=image,
            text=text,
            id=choose_column(source, self.id, ("id",), what="id"),
            image_id=choose_column(source, self.image_id, ("image_id",), what="image id"),
            one_text=isinstance(first, str),
        )

    def _entries(self) -> Iterator[_Entry]:
        columns = self._columns
        used = (columns.image, columns.text, columns.id, columns.image_id)
        metadata = self._source.metadata(used=used)
        counts: Counter[str] = Counter()
        for row in self._source.rows(images=columns.image):
            image = self._image_id(row)
            shared = bool(columns.image_id) or (columns.one_text and isinstance(row.values.get(columns.image), str))
            texts = tuple(texts_of(row, columns.text)) if columns.text else ()
            if columns.one_text and columns.id:
                named = tuple((row_id(row, columns.id), text) for _, text in texts)
            else:
                owner = image or row_id(row, columns.id)
                named = tuple((f"{owner}#{counts[owner] + position}", text) for position, text in texts)
                if shared and texts:
                    counts[owner] += texts[-1][0] + 1
            yield _Entry(row, image, shared, named, typed(row.values, metadata))

    def _image_id(self, row: Row) -> str:
        columns = self._columns
        value = row.values.get(columns.image)
        if value is None or value == "":
            return ""
        if not isinstance(value, str | BinaryCell):
            raise DatasetError(f"{row} must have a path as its image in {columns.image!r}; found {value!r}.")
        if isinstance(value, str) and value.startswith(("http://", "https://", "s3://", "gs://")):
            raise DatasetError(
                f"{row} must have a local path as its image, and has a web address. Crossfade fetches nothing "
                "unasked: download the images first, for example with img2dataset, and open its shards."
            )
        if columns.image_id:
            return row_id(row, columns.image_id)
        if columns.one_text and isinstance(value, str):
            return value
        return row_id(row, columns.id)

    def _load(self, entry: _Entry) -> Callable[[], Image]:
        root = self.image_root or (self.path if self.path.is_dir() else self.path.parent)
        value = entry.row.values[self._columns.image]
        if isinstance(value, BinaryCell):
            return PackedImage(value, entry.image, root / value.path if value.path else None)
        return ImageFile(root / value, entry.image)
