"""Rows of JSONL, JSON, CSV, TSV and Parquet as one thing: a mapping from column to value, with the place it came
from."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

from crossfade.datasets.lines import parse_json, read_json_document, read_lines, require_file
from crossfade.datasets.metadata import note
from crossfade.datasets.parquet import BinaryCell, ParquetTable, parquet_files
from crossfade.errors import ConfigError, DatasetError

__all__ = ["Row", "RowFormat", "RowSource"]

RowFormat = Literal["", "jsonl", "json", "csv", "parquet"]
_SUFFIXES: dict[str, RowFormat] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One row.

    Attributes:
        number: from 0, over all files of the source; the id of a row that has none.
        values: by column; None where the row has no value.
        path: the file.
        place: ``line 3`` or ``row 3``, for errors.
    """

    number: int
    values: Mapping[str, Any]
    path: Path
    place: str

    def __str__(self) -> str:
        return f"{self.path}, {self.place}"


@dataclass(frozen=True)
class RowSource:
    """A table on disk: one file, or a folder of Parquet files. Nothing is held in memory but the row at hand.

    Attributes:
        path: the file or folder.
        format: how to read it; by its suffix where empty.
        delimiter: between the fields of a CSV; by default a tab in a .tsv, otherwise a comma.

    Raises:
        DatasetError: nothing stands there, or the format cannot be told from the suffix.
    """

    path: Path
    format: RowFormat = ""
    delimiter: str = ""

    def __post_init__(self) -> None:
        if self.format not in get_args(RowFormat):
            raise ConfigError(f"The format of a table is one of jsonl, json, csv, parquet; found {self.format!r}.")
        resolved = self.format or ("parquet" if self.path.is_dir() else _SUFFIXES.get(self.path.suffix.lower(), ""))
        if not resolved:
            raise DatasetError(
                f"A table must be one of {', '.join(_SUFFIXES)}, or a folder of Parquet; found {self.path}. Name its "
                "format."
            )
        object.__setattr__(self, "format", resolved)
        if resolved != "parquet":
            require_file(self.path, what="A table")

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns; of JSON, those of the first row."""
        if self.format == "parquet":
            return tuple(self._tables[0].columns())
        if self.format == "csv":
            return tuple(self._header())
        first = next(self.rows(), None)
        return tuple(first.values) if first else ()

    def rows(self, *, images: str = "") -> Iterator[Row]:
        """Every row in order.

        Args:
            images: a column of images; where Parquet holds their bytes, each becomes a
                :class:`~crossfade.datasets.parquet.BinaryCell`, and they are not read here.

        Raises:
            DatasetError: a file is not UTF-8, a line is damaged, or a file is truncated.
        """
        if self.format == "parquet":
            yield from self._parquet_rows(images)
        elif self.format == "csv":
            yield from self._csv_rows()
        elif self.format == "jsonl":
            yield from self._jsonl_rows()
        else:
            yield from self._json_rows()

    def metadata(self, *, used: Sequence[str]) -> dict[str, bool]:
        """The columns that are not ``used``, and whether each holds text; of JSON, all of the file is read for it."""
        return {name: text for name, text in self._texts.items() if name not in used}

    @cached_property
    def _tables(self) -> list[ParquetTable]:
        return [ParquetTable(path) for path in parquet_files(self.path)]

    @cached_property
    def _texts(self) -> dict[str, bool]:
        if self.format == "parquet":
            return self._tables[0].texts()
        if self.format == "csv":
            return dict.fromkeys(self.columns, True)
        texts: dict[str, bool] = {}
        for row in self.rows():
            note(texts, row.values)
        return texts

    def _parquet_rows(self, images: str) -> Iterator[Row]:
        number = 0
        for table in self._tables:
            missing = sorted(set(self.columns) - set(table.columns()))
            if missing:
                raise DatasetError(
                    f"Every Parquet file below {self.path} must have the column {missing[0]!r}; {table.path} has not."
                )
            packed = table.binary(images) if images else None
            for index, values in enumerate(table.rows(without=(images,) if packed else ())):
                if packed:
                    values[images] = BinaryCell(packed, index, (values.get(images) or {}).get("path") or "")
                yield Row(number, values, table.path, f"row {index}")
                number += 1

    def _jsonl_rows(self) -> Iterator[Row]:
        for line, text in read_lines(self.path):
            if text.strip():
                yield self._json_row(line - 1, parse_json(text, source=str(self.path), line=line), f"line {line}")

    def _json_rows(self) -> Iterator[Row]:
        document = read_json_document(self.path)
        if not isinstance(document, list):
            raise DatasetError(
                f"{self.path} must be a JSON list of objects, one an item; found {type(document).__name__}."
            )
        for number, value in enumerate(document):
            yield self._json_row(number, value, f"entry {number}")

    def _json_row(self, number: int, value: object, place: str) -> Row:
        if not isinstance(value, dict):
            raise DatasetError(
                f'{self.path}, {place}, must be an object such as {{"image": …, "text": …}}; found '
                f"{type(value).__name__}."
            )
        return Row(number, value, self.path, place)

    def _header(self) -> list[str]:
        for _, fields in self._csv_records():
            if len(set(fields)) < len(fields):
                raise DatasetError(f"{self.path} must name each column once in its first line; found {fields}.")
            return fields
        raise DatasetError(f"{self.path} must name its columns in its first line, and is empty.")

    def _csv_rows(self) -> Iterator[Row]:
        header = self.columns
        records = self._csv_records()
        next(records)
        for number, (line, fields) in enumerate(records):
            if len(fields) != len(header):
                raise DatasetError(
                    f"{self.path}, line {line}, must have {len(header)} fields as its first line has; found "
                    f"{len(fields)}. Quote a field that holds the delimiter; if it is the last line, the file may be "
                    "truncated."
                )
            values = {name: value if value != "" else None for name, value in zip(header, fields, strict=True)}
            yield Row(number, values, self.path, f"line {line}")

    def _csv_records(self) -> Iterator[tuple[int, list[str]]]:
        """The non-empty records with the numbers of the lines that they end on."""
        delimiter = self.delimiter or ("\t" if self.path.suffix.lower() == ".tsv" else ",")
        if len(delimiter) != 1:
            raise ConfigError(f"The delimiter of a CSV must be one character; found {delimiter!r}.")
        reader = csv.reader((text + "\n" for _, text in read_lines(self.path)), delimiter=delimiter, strict=True)
        try:
            for fields in reader:
                if fields:
                    yield reader.line_num, [field.strip() if reader.line_num == 1 else field for field in fields]
        except csv.Error as error:
            raise DatasetError(
                f"{self.path}, line {reader.line_num}, must be CSV and is not ({error}). Mend that line; if it is the "
                "last one, the file may be truncated."
            ) from error
