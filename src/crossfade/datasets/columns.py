"""Which columns of a table hold images, texts and ids, and what a row says in them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from crossfade.datasets.rows import Row, RowSource
from crossfade.errors import DatasetError

__all__ = ["IMAGE_COLUMNS", "TEXT_COLUMNS", "choose_column", "row_id", "texts_of"]

TEXT_COLUMNS = ("texts", "captions", "text", "caption", "sentence", "document", "content")
IMAGE_COLUMNS = ("image", "image_path", "filepath", "file_path", "file_name", "filename", "img", "jpg", "png")


def choose_column(source: RowSource, named: str, defaults: Sequence[str], *, what: str) -> str:
    """The column that the user named, or the first default that there is, or an empty string.

    Raises:
        DatasetError: the named column does not exist.
    """
    if not named:
        return next((name for name in defaults if name in source.columns), "")
    if named not in source.columns:
        raise DatasetError(
            f"{source.path} must have the {what} column {named!r}; found {', '.join(source.columns)}. Name one of them."
        )
    return named


def row_id(row: Row, column: str) -> str:
    """The value of ``column``, or the number of the row where ``column`` is empty.

    Raises:
        DatasetError: the row has no id, or it is neither a string nor a whole number.
    """
    if not column:
        return str(row.number)
    value = row.values.get(column)
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise DatasetError(f"{row} must have a string or a whole number as its id in {column!r}; found {value!r}.")
    return str(value)


def texts_of(row: Row, column: str) -> Iterator[tuple[int, str]]:
    """The texts of a row with their positions; blank ones are skipped.

    Raises:
        DatasetError: the column holds neither a text nor a list of texts.
    """
    value: Any = row.values.get(column)
    for position, one in enumerate(value if isinstance(value, list) else [value]):
        if one is None:
            continue
        if not isinstance(one, str):
            raise DatasetError(f"{row} must have a text, or a list of texts, in {column!r}; found {one!r}.")
        if one.strip():
            yield position, one
