"""Labelled images: one subfolder a class (ImageFolder), or Parquet with a column of labels.

Two images are relevant to each other when their metadata column ``label`` agrees. With a ``template`` such as
``a photo of a {}.`` there is also one text a class, linked to all of its images.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import final

from crossfade.datasets.base import Dataset, ImageItem, Link, TextItem, Value
from crossfade.datasets.columns import IMAGE_COLUMNS, choose_column, row_id
from crossfade.datasets.folders import list_files
from crossfade.datasets.images import IMAGE_SUFFIXES, ImageFile
from crossfade.datasets.metadata import typed
from crossfade.datasets.parquet import BinaryCell, PackedImage
from crossfade.datasets.rows import Row, RowSource
from crossfade.errors import ConfigError, DatasetError

__all__ = ["ImageFolder", "LabelledParquet", "class_text"]


def class_text(template: str, name: str) -> str:
    """The text of a class: ``template`` with ``{}`` replaced by its name.

    Raises:
        ConfigError: the template has no ``{}``.
    """
    if "{}" not in template:
        raise ConfigError(f"A template must hold {{}} where the name of the class goes; found {template!r}.")
    return template.replace("{}", name)


@final
@dataclass(frozen=True)
class ImageFolder(Dataset):
    """``PATH/CLASS/….jpg``: an image's label is the subfolder that it is in; its id is its path below ``PATH``.

    Attributes:
        path: the folder of class folders.
        template: where given, each class has a text, ``{}`` standing for its name; the text's id is the class.
        name: of the data set; by default the folder's.

    Raises:
        DatasetError: the folder is missing, holds no image, or holds one outside every class.
    """

    path: Path
    template: str = ""
    name: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.name or self.path.resolve().name)
        if not self.path.is_dir():
            raise DatasetError(f"An ImageFolder must be a folder; found {self.path}. Check the path.")
        if self.template:
            class_text(self.template, "")

    def images(self) -> Iterator[ImageItem]:
        """Every image, class by class, sorted by path."""
        for name in self._files:
            yield ImageItem(name, ImageFile(self.path / name, name), {"label": _folder(name)})

    def texts(self) -> Iterator[TextItem]:
        """One text a class where there is a template, sorted by class; otherwise none."""
        if self.template:
            for label in dict.fromkeys(_folder(name) for name in self._files):
                yield TextItem(label, class_text(self.template, label), {"label": label})

    def links(self) -> Iterator[Link]:
        """Each class's text with its images."""
        if self.template:
            yield from (Link(_folder(name), name) for name in self._files)

    @cached_property
    def _files(self) -> list[str]:
        files = list_files(self.path, suffixes=IMAGE_SUFFIXES)
        stray = [name for name in files if "/" not in name]
        if not files or stray:
            found = f"{stray[0]} is in none" if stray else "found no image"
            raise DatasetError(
                f"An ImageFolder must hold its images in one subfolder a class; in {self.path} {found}. Open it with "
                "the kind folder."
            )
        return files


@final
@dataclass(frozen=True)
class LabelledParquet(Dataset):
    """Parquet with image bytes and labels.

    Attributes:
        path: the file, or a folder of Parquet.
        image: the column of image bytes; by default the first of :data:`crossfade.datasets.columns.IMAGE_COLUMNS`.
        label: the column of labels, strings or whole numbers.
        class_name: the column of the classes' names, for their texts; by default the labels themselves.
        id: the column of ids; by default ``id``, or else the number of the row, from 0.
        template: where given, each class has a text, ``{}`` standing for its name; the text's id is the label.
        name: of the data set; by default the file's.

    Raises:
        DatasetError: the file is missing or damaged, or has no such column.
    """

    path: Path
    image: str = ""
    label: str = "label"
    class_name: str = ""
    id: str = ""
    template: str = ""
    name: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.name or self.path.stem)
        if self.template:
            class_text(self.template, "")
        _ = self._columns

    def images(self) -> Iterator[ImageItem]:
        """Every image in the order of the file; the other columns are metadata, too."""
        image, identity = self._columns
        columns = self._source.metadata(used=(image, identity, self.label))
        for row in self._source.rows(images=image):
            name = row_id(row, identity)
            cell = row.values[image]
            if not isinstance(cell, BinaryCell):
                raise DatasetError(
                    f"The column {image!r} of {self.path} must hold image bytes. Open a table of paths as parquet."
                )
            yield ImageItem(name, PackedImage(cell, name), {**typed(row.values, columns), "label": self._label(row)})

    def texts(self) -> Iterator[TextItem]:
        """One text a class where there is a template, in the order in which the classes first come; otherwise none."""
        if self.template:
            seen: set[Value] = set()
            for row in self._source.rows(images=self._columns[0]):
                label = self._label(row)
                if label not in seen:
                    seen.add(label)
                    named = row.values.get(self.class_name) if self.class_name else label
                    yield TextItem(str(label), class_text(self.template, str(named)), {"label": label})

    def links(self) -> Iterator[Link]:
        """Each class's text with its images."""
        if self.template:
            for row in self._source.rows(images=self._columns[0]):
                yield Link(str(self._label(row)), row_id(row, self._columns[1]))

    @cached_property
    def _source(self) -> RowSource:
        return RowSource(self.path, "parquet")

    @cached_property
    def _columns(self) -> tuple[str, str]:
        image = choose_column(self._source, self.image, IMAGE_COLUMNS, what="image")
        if not image:
            raise DatasetError(
                f"{self.path} must have a column of images; found {', '.join(self._source.columns)}. Name it."
            )
        choose_column(self._source, self.label, (), what="label")
        choose_column(self._source, self.class_name, (), what="class name")
        return image, choose_column(self._source, self.id, ("id",), what="id")

    def _label(self, row: Row) -> Value:
        value = row.values[self.label]
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise DatasetError(f"{row} must have a string or a whole number as its label; found {value!r}.")
        return value


def _folder(name: str) -> str:
    return name.split("/", 1)[0]
