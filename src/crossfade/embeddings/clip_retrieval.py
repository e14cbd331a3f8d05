"""The folder that clip-retrieval writes (https://github.com/rom1504/clip-retrieval), read and written.

::

    folder/
      img_emb/img_emb_0.npy         [rows, dimension]; one file a shard, also numbered img_emb_00, img_emb_01, …
      text_emb/text_emb_0.npy       the captions' vectors, row for row those of the same shard's images
      metadata/metadata_0.parquet   image_path, caption, and whatever else was kept

Row i of a text shard is the caption of row i of the image shard, so both have one id: that of the image. An image and
its caption are therefore linked by equal ids: ``links = [(i, i) for i in texts.ids]``.

The layout has no place for a space: :func:`write_clip_retrieval` adds ``crossfade-space.json``, which clip-retrieval
ignores; for folders from elsewhere the space must be named.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from crossfade.embeddings.core import Embeddings
from crossfade.embeddings.npy import read_space_note, write_space_note
from crossfade.embeddings.rows import Rows
from crossfade.embeddings.shards import resolve_modality, resolve_space
from crossfade.errors import ConfigError, FormatError, InvalidIds
from crossfade.files import atomic_folder, read_npy, write_npy
from crossfade.spaces import Modality, Space, require_same

__all__ = ["is_clip_retrieval", "read_clip_retrieval", "write_clip_retrieval"]

FOLDERS: dict[Modality, str] = {"image": "img_emb", "text": "text_emb"}
METADATA = "metadata"
IMAGE_PATH, CAPTION = "image_path", "caption"
NOTE = "crossfade-space.json"


def is_clip_retrieval(folder: Path) -> bool:
    """Whether ``folder`` has clip-retrieval's layout."""
    return any((folder / name).is_dir() for name in FOLDERS.values())


def read_clip_retrieval(
    folder: str | Path,
    *,
    space: Space | None = None,
    modality: Modality | None = None,
    ids: str | None = None,
    metadata: Sequence[str] | None = None,
) -> Embeddings:
    """Open one modality of a clip-retrieval folder, memory-mapped, its shards in the order of their numbers.

    Args:
        folder: the folder that holds img_emb, text_emb or both.
        space: where the vectors live; may be left out for folders that :func:`write_clip_retrieval` wrote.
        modality: ``image`` or ``text``; may be left out where the folder holds one only.
        ids: the metadata column that names the rows; by default ``image_path`` where there is one, else the row
            numbers.
        metadata: the metadata columns to keep; by default ``caption`` where there is one.

    Raises:
        ConfigError: the folder holds both modalities and none is named, or no space is known.
        FormatError: a shard or its metadata is missing or damaged, they differ in rows, or there is no such column.
        InvalidIds: the ids repeat or are missing.
        SpaceMismatch: the folder says another space.
        UnsafeFormat: a shard holds Python objects.
    """
    folder = Path(folder)
    stored = read_space_note(folder / NOTE)[0] if (folder / NOTE).exists() else None
    there = [known for known, name in FOLDERS.items() if (folder / name).is_dir()]
    if not there:
        raise FormatError(
            f"{folder} must hold {' or '.join(FOLDERS.values())} and does not. Name clip-retrieval's folder."
        )
    if modality is None and len(there) > 1:
        raise ConfigError(f"{folder} holds images and texts. Name one: modality='image' or modality='text'.")
    if modality is not None and modality not in there:
        raise FormatError(f"{folder} holds {there[0]} vectors only; asked for {modality} ones.")
    chosen = modality or there[0]
    name = FOLDERS[chosen]
    shards = _numbered(folder / name, name, ".npy")
    if not shards:
        raise FormatError(f"{folder / name} must hold {name}_N.npy files, and none is there.")
    matrices = {number: read_npy(path) for number, path in shards.items()}
    rows = Rows([matrices[number] for number in shards])
    space = resolve_space(stored, space, source=folder, dimension=rows.shape[1])
    resolve_modality(None, chosen, source=folder, space=space)
    columns = _columns(folder, shards, matrices, ids=ids, metadata=metadata)
    names = columns.pop("", np.arange(len(rows)))
    return Embeddings(names, rows, space, chosen, metadata=columns)


def _numbered(folder: Path, name: str, suffix: str) -> dict[int, Path]:
    """Shard number → file, in the order of the numbers."""
    found: dict[int, Path] = {}
    for path in folder.iterdir() if folder.is_dir() else ():
        match = re.fullmatch(rf"{name}_(\d+){re.escape(suffix)}", path.name)
        if match is None:
            continue
        number = int(match[1])
        if number in found:
            raise FormatError(f"{found[number]} and {path.name} have one number. Keep one of them.")
        found[number] = path
    return dict(sorted(found.items()))


def _columns(
    folder: Path,
    shards: dict[int, Path],
    matrices: dict[int, npt.NDArray[Any]],
    *,
    ids: str | None,
    metadata: Sequence[str] | None,
) -> dict[str, npt.NDArray[Any]]:
    """The metadata columns over all shards; the ids, where a column names them, stand under the empty name."""
    from crossfade.embeddings.tables import column_names, read_columns

    tables = _numbered(folder / METADATA, METADATA, ".parquet")
    if not tables:
        if ids is not None or metadata:
            raise FormatError(
                f"{folder / METADATA} must hold metadata_N.parquet files for named columns; none is there."
            )
        return {}
    absent = [path.name for number, path in shards.items() if number not in tables]
    if absent:
        raise FormatError(
            f"{absent[0]} and {len(absent) - 1} more have no metadata of their number in {folder / METADATA}."
        )
    present = column_names(tables[next(iter(shards))])
    id_column = ids or (IMAGE_PATH if IMAGE_PATH in present else None)
    kept = [CAPTION] if metadata is None and CAPTION in present else list(metadata or ())
    wanted = list(dict.fromkeys([*kept, *([id_column] if id_column else [])])) or present[:1]
    parts: list[dict[str, npt.NDArray[Any]]] = []
    for number, path in shards.items():
        part = read_columns(tables[number], wanted)
        counts = {len(matrices[number]), *(len(column) for column in part.values())}
        if len(counts) > 1:
            raise FormatError(
                f"{path} and {tables[number].name} must have as many rows; found {len(matrices[number])} vectors and "
                f"{len(next(iter(part.values())))} rows of metadata. Make that shard again."
            )
        parts.append(part)
    joined = {column: np.concatenate([part[column] for part in parts]) for column in wanted}
    names = {"": joined[id_column]} if id_column else {}
    return {column: joined[column] for column in kept} | names


def write_clip_retrieval(
    embeddings: Embeddings,
    folder: str | Path,
    *,
    texts: Embeddings | None = None,
    overwrite: bool = False,
    shard_rows: int = 1_000_000,
) -> None:
    """Write clip-retrieval's layout, all or nothing; ids become ``image_path``, metadata columns keep their names.

    Args:
        embeddings: images, or texts alone.
        folder: where to.
        texts: one caption an image, of the same space and with the images' ids, in any order.
        overwrite: whether a folder that stands there may be replaced.
        shard_rows: rows in a shard.

    Raises:
        InvalidIds: an image has no text or the reverse.
        SpaceMismatch: images and texts live in two spaces.
        ConfigError: a metadata column is called image_path, or ``texts`` are not texts beside images.
        StorageError: the folder exists and may not be overwritten, or cannot be written.
    """
    from crossfade.embeddings.tables import write_columns

    sets = [embeddings]
    if texts is not None:
        require_same(texts.space, embeddings.space, what="The texts", hint="Encode both with one model.")
        if embeddings.modality != "image" or texts.modality != "text":
            raise ConfigError(f"Texts go beside images; found {texts.modality} beside {embeddings.modality} vectors.")
        rows = texts.locate(embeddings.ids)
        if (rows < 0).any() or len(texts) != len(embeddings):
            raise InvalidIds(
                f"clip-retrieval keeps one text an image, under the image's id; {int((rows < 0).sum())} of "
                f"{len(rows)} images "
                f"have none, and there are {len(texts)} texts. Choose one text an image."
            )
        sets.append(texts.select(rows))
    columns = {**embeddings.metadata, **(sets[-1].metadata)}
    if IMAGE_PATH in columns:
        raise ConfigError(f"The ids are written as {IMAGE_PATH}, and a metadata column has that name. Rename it.")
    columns = {IMAGE_PATH: embeddings.ids, **columns}
    shards = range(0, len(embeddings), shard_rows)
    width = len(str(len(shards) - 1))
    with atomic_folder(Path(folder), overwrite=overwrite) as temporary:
        for number, start in enumerate(shards):
            digits = str(number).zfill(width)
            for one in sets:
                name = FOLDERS[one.modality]
                write_npy(temporary / name / f"{name}_{digits}.npy", one.rows.stored(start, start + shard_rows))
            part = {name: column[start : start + shard_rows] for name, column in columns.items()}
            write_columns(temporary / METADATA / f"metadata_{digits}.parquet", part)
        write_space_note(temporary / NOTE, embeddings.space, None)
