"""Crossfade's own folder of vectors: shards of .npy, and one manifest that says what they are.

::

    folder/
      embeddings.json       format_version, space, modality, complete, shards: [{rows, and the names of its files}, …]
      vectors-00000.npy     [rows, dimension], float16 / float32 / float64
      ids-00000.npy         [rows], fixed-width Unicode strings
      metadata-00000.parquet   only where there are metadata columns

A shard counts only once the manifest lists it, and the manifest is replaced in one step: a writer that is killed leaves
whole shards and nothing else. That is what makes ``encode`` resumable.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from crossfade.embeddings.core import Embeddings, Ids, as_ids
from crossfade.embeddings.float16 import halves_are_finite
from crossfade.embeddings.rows import Rows
from crossfade.errors import FormatError, InvalidIds, InvalidVectors, NewerFormat, SpaceMismatch
from crossfade.files import atomic_folder, read_json, read_npy, write_json, write_npy, write_npy_blocks
from crossfade.spaces import Modality, Space

__all__ = ["FORMAT_VERSION", "EmbeddingsWriter", "load_folder", "save_folder"]

FORMAT_VERSION = 1
MANIFEST = "embeddings.json"


class EmbeddingsWriter:
    """Appends shards to a folder; each :meth:`append` is durable when it returns, and a killed writer can be reopened.

    Args:
        path: the folder; made if missing, continued if it holds an unfinished set of the same space and modality.
        space: where the vectors live.
        modality: ``image`` or ``text``.

    Raises:
        SpaceMismatch: the folder holds vectors of another space or modality.
    """

    def __init__(self, path: Path, space: Space, modality: Modality) -> None:
        self.path = path
        self.space = space
        self.modality = modality
        self._shards: list[dict[str, Any]] = []
        self._complete = False
        if (path / MANIFEST).exists():
            manifest = _manifest(path)
            found = Space.from_dict(manifest["space"])
            if found != space or manifest["modality"] != modality:
                raise SpaceMismatch(
                    f"{path} holds {manifest['modality']} vectors of {found}, and {modality} vectors of {space} "
                    "cannot be added to it. "
                    "Choose another folder."
                )
            self._shards = list(manifest["shards"])
            self._complete = bool(manifest["complete"])
        for stray in path.glob(".*.tmp"):  # what a killed writer had begun
            stray.unlink(missing_ok=True)

    @property
    def complete(self) -> bool:
        """Whether :meth:`finish` was reached."""
        return self._complete

    @property
    def count(self) -> int:
        """Rows written so far."""
        return sum(int(shard["rows"]) for shard in self._shards)

    def ids(self) -> Ids:
        """The ids written so far, in order."""
        parts = [read_npy(self.path / shard["ids"], memory_map=False) for shard in self._shards]
        return as_ids(np.concatenate(parts)) if parts else np.empty(0, dtype="<U1")

    def append(
        self, ids: Ids, vectors: npt.NDArray[Any], metadata: Mapping[str, npt.NDArray[Any]] | None = None
    ) -> None:
        """Write one shard durably.

        Args:
            ids: [n] strings.
            vectors: [n, d].
            metadata: columns of length n; every shard must have the same ones.

        Raises:
            InvalidIds: not as many ids as rows, or the metadata columns are not those of the shards before.
            InvalidVectors: not of the space's dimension, or not finite.
            StorageError: it could not be written; the shards before it still stand.
        """
        if len(ids) != len(vectors):
            raise InvalidIds(f"There must be one id a row; found {len(ids)} ids for {len(vectors)} rows.")
        matrix = Rows([vectors])
        if matrix.shape[1] != self.space.dimension:
            raise InvalidVectors(
                f"Vectors of {self.space} must have dimension {self.space.dimension}; found {matrix.shape[1]}."
            )
        self.add([self.write(len(self._shards), ids, [np.ascontiguousarray(vectors)], vectors.dtype, metadata)])

    def write(
        self,
        number: int,
        ids: Ids,
        blocks: Iterable[npt.NDArray[Any]],
        dtype: np.dtype[Any],
        metadata: Mapping[str, npt.NDArray[Any]] | None = None,
    ) -> dict[str, Any]:
        """Write the files of one shard, without yet counting it in; several threads may, each another shard.

        Args:
            number: the shard's place among all.
            ids: [n] strings.
            blocks: the vectors, C-contiguous [≤ n, d] each, n rows in all; each is written before the next is asked for.
            dtype: the vectors' number format.
            metadata: columns of length n.

        Returns:
            The shard's entry in the manifest, for :meth:`add`.

        Raises:
            As :meth:`append`.
        """
        self._require_columns(list(metadata or {}))
        shard: dict[str, Any] = {
            "rows": len(ids),
            "vectors": f"vectors-{number:05d}.npy",
            "ids": f"ids-{number:05d}.npy",
            "metadata": None,
            "columns": sorted(metadata or {}),
        }
        shape = (len(ids), self.space.dimension)
        write_npy_blocks(self.path / shard["vectors"], map(_require_finite, blocks), shape=shape, dtype=dtype)
        write_npy(self.path / shard["ids"], np.asarray(ids))
        if metadata:
            from crossfade.embeddings.tables import write_columns

            shard["metadata"] = f"metadata-{number:05d}.parquet"
            write_columns(self.path / shard["metadata"], metadata)
        return shard

    def add(self, shards: Sequence[dict[str, Any]]) -> None:
        """Count in what :meth:`write` wrote, in this order."""
        self._shards.extend(shards)
        self._write_manifest()

    def _require_columns(self, names: list[str]) -> None:
        before = self._shards[0].get("columns", []) if self._shards else sorted(names)
        if sorted(names) != before:
            raise InvalidIds(f"Every shard must have the same metadata columns: {before}; found {sorted(names)}.")

    def finish(self) -> Embeddings:
        """Mark the set as complete and open it, which checks it as a whole.

        Raises:
            FormatError: it has no shard.
            InvalidIds: an id repeats.
        """
        self.seal()
        return load_folder(self.path)

    def seal(self) -> None:
        """Mark the set as complete; for ids that are known to be unique, which :meth:`finish` looks at again."""
        self._complete = True
        self._write_manifest()

    def names(self) -> list[str]:
        """The files of the vectors, in order."""
        return [str(shard["vectors"]) for shard in self._shards]

    def _write_manifest(self) -> None:
        write_json(
            self.path / MANIFEST,
            {
                "format": "crossfade-embeddings",
                "format_version": FORMAT_VERSION,
                "modality": self.modality,
                "complete": self._complete,
                "space": {**self.space.to_dict(), "fingerprint": self.space.fingerprint},
                "shards": self._shards,
            },
        )


def _require_finite(block: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if block.dtype != np.float16 or not halves_are_finite(block):
        for _ in Rows([block]).blocks():
            pass  # reading a block refuses what is not finite
    return block


def save_folder(embeddings: Embeddings, path: Path, *, overwrite: bool, shard_rows: int = 262_144) -> None:
    """Write ``embeddings`` to ``path``, all or nothing, in shards of ``shard_rows`` and in their own number format."""
    with atomic_folder(path, overwrite=overwrite) as temporary:
        writer = EmbeddingsWriter(temporary, embeddings.space, embeddings.modality)
        for start in range(0, len(embeddings), shard_rows):
            part = slice(start, start + shard_rows)
            columns = {name: column[part] for name, column in embeddings.metadata.items()}
            writer.append(embeddings.ids[part], embeddings.rows.stored(start, start + shard_rows), columns)
        writer.seal()


def load_folder(path: Path) -> Embeddings:
    """Open what :class:`EmbeddingsWriter` wrote, memory-mapped."""
    manifest = _manifest(path)
    if not manifest["complete"]:
        done = sum(int(shard["rows"]) for shard in manifest["shards"])
        raise FormatError(
            f"{path} is unfinished: {done} rows were written before it stopped. Run the same encode again to go on."
        )
    shards = manifest["shards"]
    vectors = [read_npy(path / shard["vectors"]) for shard in shards]
    ids = [read_npy(path / shard["ids"], memory_map=False) for shard in shards]
    for shard, matrix, names in zip(shards, vectors, ids, strict=True):
        if not len(matrix) == len(names) == shard["rows"]:
            raise FormatError(
                f"{path / shard['vectors']} must hold {shard['rows']} rows by its manifest; found {len(matrix)} "
                "vectors and "
                f"{len(names)} ids. The folder is damaged: copy it again."
            )
    columns: dict[str, npt.NDArray[Any]] = {}
    if shards and all(shard["metadata"] for shard in shards):
        from crossfade.embeddings.tables import read_columns

        parts = [read_columns(path / shard["metadata"]) for shard in shards]
        columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    space = Space.from_dict(manifest["space"])
    if not shards:
        raise FormatError(f"{path} holds no vectors. Encode at least one item.")
    return Embeddings(np.concatenate(ids), Rows(vectors), space, manifest["modality"], metadata=columns)


def _manifest(path: Path) -> dict[str, Any]:
    if not (path / MANIFEST).exists():
        raise FormatError(
            f"{path} is not a folder of embeddings: it has no {MANIFEST}. Other formats enter by Embeddings.from_… "
            "functions."
        )
    manifest = read_json(path / MANIFEST)
    if not isinstance(manifest, dict) or not isinstance(manifest.get("format_version"), int):
        raise FormatError(f"{path / MANIFEST} must name its format_version and does not. Copy the folder again.")
    if manifest["format_version"] > FORMAT_VERSION:
        raise NewerFormat(
            f"{path} has format version {manifest['format_version']}; this Crossfade reads up to {FORMAT_VERSION}. "
            "Upgrade crossfade."
        )
    missing = sorted({"space", "modality", "complete", "shards"} - set(manifest))
    sound = not missing and isinstance(manifest["space"], dict) and isinstance(manifest["shards"], list)
    if not sound or not all(
        isinstance(shard, dict) and {"rows", "vectors", "ids", "metadata"} <= set(shard) for shard in manifest["shards"]
    ):
        raise FormatError(
            f"{path / MANIFEST} must name space, modality, complete and every shard's files; {missing or 'an entry'} "
            "is "
            "missing. The folder is damaged: copy it again."
        )
    return dict(manifest)
