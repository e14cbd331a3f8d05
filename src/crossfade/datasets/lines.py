"""UTF-8 text and JSON from files, with errors that name the file, the line and the way out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from crossfade.errors import DatasetError

__all__ = ["decode", "parse_json", "read_bytes", "read_json_document", "read_lines", "require_file"]

_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_UTF8_MARK = b"\xef\xbb\xbf"


def decode(data: bytes, *, source: str, line: int = 1, offset: int = 0) -> str:
    """Decode UTF-8; a byte-order mark at the very start of a file is dropped.

    Args:
        data: the bytes.
        source: where they came from, for the error.
        line: the number, from 1, of their first line in the source.
        offset: the position of their first byte in the source.

    Raises:
        DatasetError: they are not UTF-8.
    """
    if offset == 0 and data.startswith(_UTF8_MARK):
        data, offset = data[len(_UTF8_MARK) :], len(_UTF8_MARK)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        sixteen = offset == 0 and data.startswith(_UTF16_MARKS)
        guess = "UTF-16" if sixteen else "ISO-8859-1"
        where = line + data.count(b"\n", 0, error.start)
        raise DatasetError(
            f"{source} must be UTF-8, and line {where} is not (byte 0x{data[error.start]:02x} at offset "
            f"{offset + error.start}). Convert it, for example with: iconv -f {guess} -t UTF-8 OLD > NEW"
        ) from error


def parse_json(text: str, *, source: str, line: int | None = None) -> Any:
    """Parse JSON.

    Raises:
        DatasetError: it is not JSON; the message names ``source`` and the line.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        at = line if line is not None else getattr(error, "lineno", 1)
        raise DatasetError(
            f"{source} must hold JSON, and line {at} is not ({error}). Mend that line; if it is the last one, the "
            "file may be truncated: copy it again."
        ) from error


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a UTF-8 file with their numbers from 1, without line ends, one at a time.

    Only ``\\n`` and ``\\r\\n`` end a line: a text may hold any other Unicode separator.

    Raises:
        DatasetError: the file cannot be read, or is not UTF-8.
    """
    try:
        with open(path, "rb") as file:
            offset = 0
            for number, data in enumerate(file, start=1):
                yield (
                    number,
                    decode(data, source=str(path), line=number, offset=offset).removesuffix("\n").removesuffix("\r"),
                )
                offset += len(data)
    except OSError as error:
        raise unreadable(path, error) from error


def read_bytes(path: Path) -> bytes:
    """A whole file.

    Raises:
        DatasetError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from error


def read_json_document(path: Path, *, hook: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """A file that is one JSON value.

    Args:
        path: the file.
        hook: called with each object as it is closed; what it returns takes the object's place. Dropping what is not
            needed there keeps the memory of a large file low.

    Raises:
        DatasetError: it cannot be read, or is not JSON in UTF-8.
    """
    text = decode(read_bytes(path), source=str(path))
    if hook is None:
        return parse_json(text, source=str(path))
    try:
        return json.loads(text, object_hook=hook)
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path} must be JSON and is not ({error}). It may be truncated: copy it again.") from error


def require_file(path: Path, *, what: str) -> None:
    """Refuse a file that is not there.

    Raises:
        DatasetError: nothing stands at ``path``, or a folder does.
    """
    if not path.is_file():
        found = "a folder" if path.is_dir() else "nothing"
        raise DatasetError(f"{what} must be a file, and {found} stands at {path}. Check the path.")


def unreadable(path: Path, error: OSError) -> DatasetError:
    """The error for a file that the system does not let us read."""
    return DatasetError(
        f"{path} cannot be read: {error.strerror or error}. Check that it is there and that you may read it."
    )
