"""Vectors in .npy, with the ids beside them.

What :func:`write_npy_pair` writes and :func:`read_npy_pair` reads back without being told a space::

    folder/
      vectors.npy    [rows, dimension], float16 / float32 / float64
      ids.npy        [rows], fixed-width Unicode strings
      space.json     {"space": …, "modality": …}

Vectors from elsewhere are one .npy file or several, and the ids stand in .npy (whole numbers or fixed-width strings),
.txt (one a line), .json (a list) or a column of Parquet. .npy holds no metadata columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from crossfade.embeddings.core import Embeddings
from crossfade.embeddings.ids import Ids, as_ids
from crossfade.embeddings.rows import Rows
from crossfade.embeddings.shards import resolve_modality, resolve_space, shard_files
from crossfade.errors import FormatError, InvalidIds, InvalidVectors
from crossfade.files import atomic_folder, read_json, read_npy, write_json, write_npy
from crossfade.spaces import MODALITIES, Modality, Space

__all__ = ["read_ids", "read_npy_pair", "read_space_note", "write_npy_pair", "write_space_note"]

VECTORS, IDS, SPACE = "vectors.npy", "ids.npy", "space.json"
ID_SUFFIXES = (".npy", ".txt", ".json", ".parquet")

Location = str | Path | Sequence[str | Path]


def read_npy_pair(
    vectors: Location,
    ids: Location | None = None,
    *,
    space: Space | None = None,
    modality: Modality | None = None,
    column: str = "id",
) -> Embeddings:
    """Open vectors in .npy, memory-mapped, with ids from another file.

    Args:
        vectors: a .npy file, several in a list, a pattern (``emb_*.npy``) or a folder of them; a folder and a pattern
            are taken in the order of the numbers in the names. A folder that :func:`write_npy_pair` wrote brings ids
            and space.
        ids: .npy, .txt, .json or .parquet, one file or several; by default the row numbers, from 0.
        space: where the vectors live; may be left out where the folder says it.
        modality: ``image`` or ``text``; may be left out where the folder says it or the space holds one only.
        column: the column of ids, where they stand in Parquet.

    Raises:
        ConfigError: no space or modality is known.
        SpaceMismatch: the folder says another space or modality.
        UnsafeFormat: a file holds Python objects, which only pickle could read.
        FormatError: a file is missing, truncated or not of its format.
        InvalidIds: ids repeat, are empty, or are not as many as the vectors.
        InvalidVectors: the vectors are not a matrix of the space's dimension.
    """
    stored_space: Space | None = None
    stored_modality: Modality | None = None
    if isinstance(vectors, (str, Path)) and (Path(vectors) / VECTORS).is_file():
        folder = Path(vectors)
        if (folder / SPACE).exists():
            stored_space, stored_modality = read_space_note(folder / SPACE)
        if ids is None and (folder / IDS).exists():
            ids = folder / IDS
        vectors = folder / VECTORS
    files = shard_files(vectors, (".npy",))
    matrices = [_matrix(file) for file in files]
    for file, matrix in zip(files, matrices, strict=True):
        if matrix.shape[1] != matrices[0].shape[1]:
            raise InvalidVectors(
                f"Files of one set must have one dimension; {files[0].name} has {matrices[0].shape[1]} and {file.name} "
                f"has {matrix.shape[1]}. Name the files of one model."
            )
    rows = Rows(matrices)
    space = resolve_space(stored_space, space, source=files[0], dimension=rows.shape[1])
    modality = resolve_modality(stored_modality, modality, source=files[0], space=space)
    names: Ids | npt.NDArray[Any]
    if ids is None:
        names = np.arange(len(rows))
    else:
        names = np.concatenate([read_ids(file, column=column) for file in shard_files(ids, ID_SUFFIXES)])
    return Embeddings(names, rows, space, modality)


def _matrix(file: Path) -> npt.NDArray[Any]:
    array = read_npy(file)
    if array.ndim != 2 or array.dtype.kind != "f":
        raise InvalidVectors(
            f"{file} must hold a matrix [rows, dimension] of floating-point numbers; found {array.dtype} of shape "
            f"{array.shape}. "
            "Name the file of vectors, not that of ids."
        )
    return array


def read_ids(path: Path, *, column: str = "id") -> Ids:
    """The ids in one file: .npy, .txt (UTF-8, one a line), .json (a list) or .parquet (``column``).

    Raises:
        FormatError: the file is missing or damaged, not UTF-8, or of another kind.
        UnsafeFormat: a .npy file holds Python objects.
        InvalidIds: an id is empty, or neither a string nor a whole number.
    """
    if path.suffix == ".npy":
        return as_ids(read_npy(path, memory_map=False))
    if path.suffix == ".txt":
        return as_ids(_lines(path))
    if path.suffix == ".json":
        values = read_json(path)
        if not isinstance(values, list):
            raise FormatError(f"{path} must be a JSON list of ids; found {type(values).__name__}.")
        return _named(path, values)
    if path.suffix == ".parquet":
        from crossfade.embeddings.tables import read_columns

        return _named(path, read_columns(path, [column])[column])
    raise FormatError(f"Ids are read from {', '.join(ID_SUFFIXES)}; found {path.name}. Convert them to one of these.")


def _named(path: Path, values: Any) -> Ids:
    try:
        return as_ids(values)
    except InvalidIds as error:
        raise InvalidIds(f"{path}: {error}") from error


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise FormatError(f"{path} is missing. Check the name.") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise FormatError(f"{path} must be UTF-8 and is not (line {line}). Convert it: iconv -t utf-8.") from error
    lines = text.replace("\r\n", "\n").split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def write_npy_pair(embeddings: Embeddings, folder: str | Path, *, overwrite: bool = False, block: int = 65_536) -> None:
    """Write vectors.npy, ids.npy and space.json to ``folder``, all or nothing, ``block`` rows at a time.

    Raises:
        StorageError: the folder exists and may not be overwritten, or cannot be written.
        InvalidVectors: a vector is not finite.
    """
    with atomic_folder(Path(folder), overwrite=overwrite) as temporary:
        rows = embeddings.rows
        header = {"descr": np.lib.format.dtype_to_descr(rows.dtype), "fortran_order": False, "shape": rows.shape}
        with open(temporary / VECTORS, "wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            for start in range(0, len(rows), block):
                file.write(np.ascontiguousarray(rows.stored(start, start + block)).data)
        write_npy(temporary / IDS, embeddings.ids)
        write_space_note(temporary / SPACE, embeddings.space, embeddings.modality)


def write_space_note(path: Path, space: Space, modality: Modality | None) -> None:
    """Write which space and modality the files beside ``path`` hold."""
    note = {"space": {**space.to_dict(), "fingerprint": space.fingerprint}, "modality": modality}
    write_json(path, note)


def read_space_note(path: Path) -> tuple[Space, Modality | None]:
    """The reverse of :func:`write_space_note`.

    Raises:
        FormatError: it is not such a note.
    """
    note = read_json(path)
    if not isinstance(note, dict) or not isinstance(note.get("space"), dict):
        raise FormatError(f'{path} must be {{"space": …, "modality": …}} and is not. Remove it and name the space.')
    modality = note.get("modality")
    if modality is not None and modality not in MODALITIES:
        raise FormatError(f"{path} must name the modality {' or '.join(MODALITIES)}; found {modality!r}.")
    return Space.from_dict(note["space"]), modality
