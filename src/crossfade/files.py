"""Writing files so that a crash, a full disk or ctrl-C leaves what stood there before; reading .npy without pickle."""

from __future__ import annotations

import errno
import io
import json
import math
import mmap
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
import numpy.typing as npt

from crossfade.errors import FormatError, StorageError, UnsafeFormat

__all__ = ["atomic_file", "atomic_folder", "read_json", "read_npy", "write_json", "write_npy"]


DIRECT_BYTES = 16 << 20
"""Arrays from this size on are written past the page cache."""

DIRECT_CHUNK = 8 << 20
"""Bytes in one such write: whole pages."""


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; it becomes ``path`` in one step when the block ends without an error.

    Raises:
        StorageError: the file could not be written; ``path`` is as it was.
    """
    temporary = path.parent / f".{path.name}.{os.getpid()}.tmp"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
        _make_durable(path.parent)
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(
            f"{path} could not be written: {error.strerror or error}. Nothing was changed; free some space or choose "
            "another place."
        ) from error
    finally:
        with suppress(OSError):  # where the folder itself is missing or is no folder
            temporary.unlink(missing_ok=True)


def _make_durable(folder: Path) -> None:
    """Ask the system to write the folder's list of names to the disk, where folders can be opened at all."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def atomic_folder(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary folder beside ``path``; it becomes ``path`` when the block ends without an error.

    Raises:
        StorageError: ``path`` exists and ``overwrite`` is false, or it could not be written; ``path`` is as it was.
    """
    if path.exists() and not overwrite:
        raise StorageError(
            f"{path} exists already, and nothing is overwritten unasked. Choose another place, or allow overwriting."
        )
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
        temporary.chmod(0o755)
        yield temporary
        if path.exists():
            retired = temporary.with_suffix(".old")
            os.replace(path, retired)
            try:
                os.replace(temporary, path)
            except BaseException:
                os.replace(retired, path)
                raise
            shutil.rmtree(retired, ignore_errors=True) if retired.is_dir() else retired.unlink()
        else:
            os.replace(temporary, path)
    except OSError as error:
        if isinstance(error, StorageError) and temporary is not None:  # name the place that the user named
            raise StorageError(str(error).replace(str(temporary), str(path))) from error
        raise StorageError(
            f"{path} could not be written: {error.strerror or error}. Nothing was changed; free some space or choose "
            "another place."
        ) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, in one step."""
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        FormatError: the file is missing, not UTF-8, or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FormatError(f"{path} is missing. Check the folder's name.") from error
    except OSError as error:
        raise FormatError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise FormatError(
            f"{path} must be JSON in UTF-8 and is not ({error}). It may be truncated: copy it again."
        ) from error


def write_npy(path: Path, array: npt.NDArray[Any]) -> None:
    """Write an array as .npy, in one step; a large one past the page cache, where the file system can.

    Raises:
        StorageError: it could not be written; ``path`` is as it was.
        UnsafeFormat: it holds Python objects, which only pickle could store.
    """
    if array.dtype.hasobject:
        raise UnsafeFormat(f"{path} cannot hold Python objects, which only pickle could store. Convert them first.")
    contiguous = np.ascontiguousarray(array).reshape(array.shape)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(contiguous))
    content = contiguous.reshape(-1).view(np.uint8)
    with atomic_file(path) as temporary:
        if len(content) < DIRECT_BYTES or not _write_directly(temporary, header.getvalue(), content):
            with open(temporary, "wb") as file:
                file.write(header.getvalue())
                file.write(content.data)  # unlike tofile, this says why it fails


def _write_directly(path: Path, header: bytes, content: npt.NDArray[np.uint8]) -> bool:
    """Write both without the page cache, which costs more than the disk where its pages are new.

    Returns:
        False where the file system has no such writes; they must then be written in the usual way.
    """
    parts = [np.frombuffer(header, dtype=np.uint8), content]
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_DIRECT, 0o666)
    except (OSError, AttributeError) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        return False
    aligned = mmap.mmap(-1, DIRECT_CHUNK)  # whole pages, as such writes ask for
    buffer = np.frombuffer(aligned, dtype=np.uint8)
    try:
        filled = 0
        for part in parts:
            taken = 0
            while taken < len(part):
                count = min(len(part) - taken, DIRECT_CHUNK - filled)
                buffer[filled : filled + count] = part[taken : taken + count]
                filled, taken = filled + count, taken + count
                if filled == DIRECT_CHUNK:
                    _write_all(descriptor, aligned, filled)
                    filled = 0
        if filled:
            _write_all(descriptor, aligned, -(-filled // mmap.PAGESIZE) * mmap.PAGESIZE)
            os.ftruncate(descriptor, sum(len(part) for part in parts))
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return False
    finally:
        os.close(descriptor)
    return True


def _write_all(descriptor: int, buffer: mmap.mmap, count: int) -> None:
    """Write the first ``count`` bytes, in as many calls as it takes."""
    with memoryview(buffer) as view:
        written = 0
        while written < count:
            written += os.write(descriptor, view[written:count])


def read_npy(path: Path, *, memory_map: bool = True) -> npt.NDArray[Any]:
    """Open a .npy file, memory-mapped by default, and never through pickle.

    Raises:
        FormatError: the file is missing, truncated or not .npy.
        UnsafeFormat: it holds Python objects, which only pickle could read.
    """
    try:
        with open(path, "rb") as file:
            version = np.lib.format.read_magic(file)
            reader = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            shape, _, dtype = reader.get(version, np.lib.format.read_array_header_2_0)(file)
            start = file.tell()
        size = path.stat().st_size
    except FileNotFoundError as error:
        raise FormatError(f"{path} is missing. Check the name.") from error
    except OSError as error:
        raise FormatError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (ValueError, TypeError, EOFError, SyntaxError, TokenError, RecursionError) as error:
        raise FormatError(
            f"{path} must be a .npy file and is not ({error}). It may be truncated: copy it again."
        ) from error
    if dtype.hasobject:
        raise UnsafeFormat(
            f"{path} holds Python objects, which only pickle could read. Save it again as numbers or fixed-width "
            "strings."
        )
    expected = start + math.prod(shape) * dtype.itemsize
    if size < expected or min(shape, default=0) < 0:
        raise FormatError(
            f"{path} must have {expected} bytes by its header and has {size}. It is truncated: copy it again."
        )
    mapped = memory_map and expected > start
    array: npt.NDArray[Any] = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    return array
