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
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tokenize import TokenError
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from crossfade.errors import FormatError, StorageError, UnsafeFormat

__all__ = ["atomic_file", "atomic_folder", "read_json", "read_npy", "write_json", "write_npy", "write_npy_blocks"]


DIRECT_BYTES = 16 << 20
"""Arrays from this size on are written past the page cache."""

CHUNK_BYTES = 8 << 20
"""Bytes in one write: whole pages."""


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
    write_npy_blocks(path, [np.ascontiguousarray(array)], shape=array.shape, dtype=array.dtype)


def write_npy_blocks(
    path: Path, blocks: Iterable[npt.NDArray[Any]], *, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> None:
    """Write as :func:`write_npy` an array that comes in blocks of rows; each is written before the next is asked for.

    Args:
        path: the file.
        blocks: C-contiguous arrays of ``dtype``; the memory of one may be used again for the next.
        shape: that of the whole array.
        dtype: that of the whole array.

    Raises:
        StorageError: it could not be written; ``path`` is as it was, also after an error from ``blocks``.
        UnsafeFormat: it holds Python objects, which only pickle could store.
        ValueError: the blocks do not make up such an array.
    """
    if dtype.hasobject:
        raise UnsafeFormat(f"{path} cannot hold Python objects, which only pickle could store. Convert them first.")
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    )
    size = math.prod(shape) * dtype.itemsize
    with atomic_file(path) as temporary, _Output(temporary, size) as output:
        output.append(np.frombuffer(header.getvalue(), dtype=np.uint8))
        for block in blocks:
            size -= block.nbytes
            if block.dtype != dtype or size < 0:
                raise ValueError(f"Blocks of {path} must make up {shape} of {dtype}; found one of {block.dtype}.")
            output.append(block.reshape(-1).view(np.uint8))
        if size:
            raise ValueError(f"Blocks of {path} must make up {shape} of {dtype}; {size} bytes are missing.")


class _Output:
    """A new file that grows by bytes.

    A large one is written past the page cache, which costs more than the disk where its pages are new.

    Args:
        path: the file.
        size: about how many bytes it will hold.
    """

    def __init__(self, path: Path, size: int) -> None:
        self._direct = getattr(os, "O_DIRECT", 0) if size >= DIRECT_BYTES else 0
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0)
        try:
            self._descriptor = os.open(path, flags | self._direct, 0o666)
        except OSError as error:
            if not self._direct or error.errno != errno.EINVAL:  # EINVAL: the file system knows no such writes
                raise
            self._direct = 0
            self._descriptor = os.open(path, flags, 0o666)
        pages = mmap.mmap(-1, CHUNK_BYTES if self._direct else mmap.PAGESIZE)  # direct writes are of whole pages
        self._buffer = np.frombuffer(pages, dtype=np.uint8)
        self._filled = 0
        self._size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and self._filled:
                self._write(self._buffer[: -(-self._filled // mmap.PAGESIZE) * mmap.PAGESIZE])
                os.ftruncate(self._descriptor, self._size)
        finally:
            os.close(self._descriptor)

    def append(self, content: npt.NDArray[np.uint8]) -> None:
        """Add ``content`` to the end."""
        self._size += len(content)
        while len(content) and self._direct:
            count = min(len(content), len(self._buffer) - self._filled)
            self._buffer[self._filled : self._filled + count] = content[:count]
            self._filled, content = self._filled + count, content[count:]
            if self._filled == len(self._buffer):
                self._write(self._buffer)
                self._filled = 0
        self._write(content)

    def _write(self, content: npt.NDArray[np.uint8]) -> None:
        """Write all of ``content``, in as many calls as it takes."""
        while len(content):
            try:
                content = content[os.write(self._descriptor, content.data) :]
            except OSError as error:
                if not self._direct or error.errno != errno.EINVAL:
                    raise
                self._write_through_cache()

    def _write_through_cache(self) -> None:
        """Go on in the usual way: some file systems open for direct writes and then refuse them."""
        import fcntl

        flags = fcntl.fcntl(self._descriptor, fcntl.F_GETFL)
        fcntl.fcntl(self._descriptor, fcntl.F_SETFL, flags & ~self._direct)
        self._direct = 0


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
