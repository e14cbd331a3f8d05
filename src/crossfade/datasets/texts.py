"""Text-only corpora: one text a line, or a column of a table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import final

from crossfade.datasets.base import Dataset, ImageItem, Link, TextItem
from crossfade.datasets.columns import TEXT_COLUMNS, choose_column, row_id, texts_of
from crossfade.datasets.lines import read_lines, require_file
from crossfade.datasets.metadata import typed
from crossfade.datasets.rows import RowFormat, RowSource
from crossfade.errors import ConfigError, DatasetError

__all__ = ["TextCorpus"]

_PLAIN = frozenset({".txt", ".text", ".lst", ""})


@final
@dataclass(frozen=True)
class TextCorpus(Dataset):
    """Texts without images, streamed: millions of them need no memory.

    Attributes:
        path: one text a line (.txt), or JSONL, JSON, CSV, TSV or Parquet.
        text: the column of the texts; by default the first of
            :data:`crossfade.datasets.columns.TEXT_COLUMNS` that there is. A list of texts in one row
            gives several, ``ID#0``, ``ID#1``, ….
        id: the column of the ids; by default ``id`` where there is one, and otherwise the number of the row.
        format: how to read a table whose suffix does not tell.
        delimiter: between the fields of a CSV.
        name: of the data set; by default the file's.

    Without ids, a text's id is the number of its line or row, **counted from 0** as the rows of a matrix are. A line
    or value that is empty or blank is skipped; the others keep their numbers. The other columns become metadata.

    Raises:
        DatasetError: the file is missing, not UTF-8, damaged, or has no such column.
    """

    path: Path
    text: str = ""
    id: str = ""
    format: RowFormat = ""
    delimiter: str = ""
    name: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.name or self.path.stem)
        if self._plain:
            require_file(self.path, what="A text corpus")
            if self.text or self.id:
                raise ConfigError(
                    f"{self.path} holds one text a line and has no columns; drop the options text and id."
                )
        else:
            _ = self._source, self._columns

    def images(self) -> Iterator[ImageItem]:
        """None."""
        return iter(())

    def texts(self) -> Iterator[TextItem]:
        """Every text in the order of the file."""
        if self._plain:
            for line, text in read_lines(self.path):
                if text.strip():
                    yield TextItem(str(line - 1), text)
            return
        text, identity = self._columns
        columns = self._source.metadata(used=(text, identity))
        for row in self._source.rows():
            metadata = typed(row.values, columns)
            name = row_id(row, identity)
            value = row.values.get(text)
            for position, one in texts_of(row, text):
                yield TextItem(f"{name}#{position}" if isinstance(value, list) else name, one, metadata)

    def links(self) -> Iterator[Link]:
        """None."""
        return iter(())

    @property
    def _plain(self) -> bool:
        return not self.format and not self.path.is_dir() and self.path.suffix.lower() in _PLAIN

    @cached_property
    def _source(self) -> RowSource:
        return RowSource(self.path, self.format, self.delimiter)

    @cached_property
    def _columns(self) -> tuple[str, str]:
        text = choose_column(self._source, self.text, TEXT_COLUMNS, what="text")
        if not text:
            raise DatasetError(
                f"{self.path} must have a column of texts ({', '.join(TEXT_COLUMNS)}); found "
                f"{', '.join(self._source.columns)}. Name it with the option text."
            )
        return text, choose_column(self._source, self.id, ("id",), what="id")
