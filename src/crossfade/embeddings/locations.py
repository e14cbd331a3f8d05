"""Opens stored vectors by what stands at a place, whichever of the formats it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from crossfade.embeddings.clip_retrieval import is_clip_retrieval, read_clip_retrieval
from crossfade.embeddings.core import Embeddings
from crossfade.embeddings.folder import load_folder
from crossfade.embeddings.npy import VECTORS, read_npy_pair
from crossfade.embeddings.shards import resolve_modality, resolve_space
from crossfade.embeddings.tables import ARROW_SUFFIXES, PARQUET_SUFFIXES, read_arrow, read_parquet, table_columns
from crossfade.errors import ConfigError, FormatError
from crossfade.spaces import Modality, Space

__all__ = ["FORMATS", "format_of", "open_embeddings"]

FORMATS = ("crossfade", "clip-retrieval", "npy", "parquet", "arrow")
"""What :func:`format_of` can answer."""

SUFFIXES = {".npy": "npy", **dict.fromkeys(PARQUET_SUFFIXES, "parquet"), **dict.fromkeys(ARROW_SUFFIXES, "arrow")}
MAGIC = {b"\x93NUMPY": "npy", b"PAR1": "parquet", b"ARROW1": "arrow"}


def open_embeddings(
    location: str | Path,
    *,
    space: Space | None = None,
    modality: Modality | None = None,
    ids: str | None = None,
    vectors: str | None = None,
    metadata: Sequence[str] = (),
) -> Embeddings:
    """Open stored vectors: Crossfade's folder, clip-retrieval's, .npy, Parquet or Arrow, one file or a folder of them.

    Args:
        location: the file or folder.
        space: where the vectors live; may be left out where the place says it.
        modality: ``image`` or ``text``; may be left out where the place says it or the space holds one only.
        ids: for Parquet, Arrow and clip-retrieval the column of ids; for .npy the file of ids.
        vectors: for Parquet and Arrow the column of vectors.
        metadata: for Parquet and Arrow the columns to keep for slicing results, of those that there are; a folder of
            Crossfade's brings all of its own.

    Raises:
        FormatError: nothing is there, it is of no known format, of several, or damaged.
        ConfigError: an option does not concern this format, or no space or modality is known.
        SpaceMismatch: the place says another space or modality.
    """
    path = Path(location)
    kind = format_of(path)
    if vectors is not None and kind not in ("parquet", "arrow"):
        raise ConfigError(
            f"{path} is of the format {kind}, which has no columns of vectors to choose; found {vectors!r}."
        )
    if kind == "crossfade":
        if ids is not None:
            raise ConfigError(f"{path} is Crossfade's own folder and brings its ids; found ids={ids!r}. Leave it out.")
        embeddings = load_folder(path)
        resolve_space(embeddings.space, space, source=path, dimension=embeddings.dimension)
        resolve_modality(embeddings.modality, modality, source=path, space=embeddings.space)
        return embeddings
    if kind == "clip-retrieval":
        return read_clip_retrieval(path, space=space, modality=modality, ids=ids)
    if kind == "npy":
        return read_npy_pair(path, ids, space=space, modality=modality)
    read = read_parquet if kind == "parquet" else read_arrow
    present = set(table_columns(path)) if metadata else set()
    kept = [name for name in dict.fromkeys(metadata) if name in present]
    return read(path, space=space, modality=modality, ids=ids or "id", vectors=vectors or "vector", metadata=kept)


def format_of(path: Path) -> str:
    """Which of :data:`FORMATS` stands at ``path``: by the files' names, else by their first bytes.

    Raises:
        FormatError: nothing is there, it is of no known format, or files of several formats lie there.
    """
    if not path.exists():
        raise FormatError(f"{path} is missing. Check the name.")
    if path.is_file():
        return _of_file(path)
    if (path / "embeddings.json").exists():
        return "crossfade"
    found = {"clip-retrieval"} if is_clip_retrieval(path) else set()
    found |= {SUFFIXES[entry.suffix] for entry in path.iterdir() if entry.suffix in SUFFIXES and entry.is_file()}
    if (path / VECTORS).exists() and len(found) == 1:
        return "npy"
    if len(found) > 1:
        raise FormatError(
            f"{path} holds vectors in several formats ({', '.join(sorted(found))}). Name one of the files."
        )
    if not found:
        raise FormatError(
            f"{path} holds no embeddings: neither embeddings.json, nor img_emb or text_emb, nor .npy, Parquet or "
            "Arrow files."
        )
    return found.pop()


def _of_file(path: Path) -> str:
    if path.suffix in SUFFIXES:
        return SUFFIXES[path.suffix]
    with open(path, "rb") as file:
        start = file.read(8)
    for magic, kind in MAGIC.items():
        if start.startswith(magic):
            return kind
    raise FormatError(f"{path} is none of .npy, Parquet and Arrow, by its name and its first bytes. Convert it first.")
