"""Mapping whole sets of vectors, a shard a thread.

::

    each thread     a shard of its own:  read a block, convert to float32, map, convert back, write; block after block

Each thread's matrix product is its own, so that none waits for another that reads or writes; there are more threads than
cores, so that a core works while a disk does. A few blocks are in memory at a time, whatever the size of the set.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from crossfade.embeddings.core import Embeddings
from crossfade.embeddings.float16 import narrow
from crossfade.embeddings.folder import EmbeddingsWriter
from crossfade.embeddings.rows import Rows, ahead
from crossfade.files import atomic_folder, read_npy

if TYPE_CHECKING:
    from crossfade.methods.base import Adapter

__all__ = ["MappedBlocks"]

SHARD_ROWS = 32_768
MOST_WORKERS = 16
"""Shards made at a time, at most: each takes some thirty megabytes."""

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class MappedBlocks:
    """The vectors of ``embeddings`` through ``adapter``, to be had once.

    Attributes:
        adapter: the map.
        embeddings: in its source space.
        companion: the old model's vectors of the same items, row for row; only for two-encoder adapters.
        dtype: number format of the result, float16 or float32.
        block: rows mapped at a time.
    """

    adapter: Adapter
    embeddings: Embeddings
    companion: Embeddings | None
    dtype: np.dtype[Any]
    block: int

    def in_memory(self) -> Embeddings:
        """The mapped embeddings, in memory."""
        space, modality = self.adapter.target, self.embeddings.modality
        result = np.empty((len(self.embeddings), space.dimension), dtype=self.dtype)
        for start, mapped in self._mapped():
            self._round(mapped, result[start : start + len(mapped)])
        return Embeddings(self.embeddings.ids, result, space, modality, metadata=self.embeddings.metadata)

    def to_folder(self, path: Path) -> Embeddings:
        """Write the mapped embeddings to ``path``, all or nothing, and open them."""
        from threadpoolctl import threadpool_limits

        cores = os.cpu_count() or 1
        workers = min(2 * cores, MOST_WORKERS)
        with atomic_folder(path) as temporary:
            writer = EmbeddingsWriter(temporary, self.adapter.target, self.embeddings.modality)
            with (
                threadpool_limits(max(1, cores // workers), user_api="blas"),
                ThreadPoolExecutor(workers, "crossfade-map") as pool,
            ):
                starts = range(0, len(self.embeddings), SHARD_ROWS)
                written = [pool.submit(self._write_shard, writer, *numbered) for numbered in enumerate(starts)]
                try:
                    writer.add([shard.result() for shard in written])
                finally:
                    pool.shutdown(wait=True, cancel_futures=True)
            writer.seal()
        return self.embeddings.moved(Rows([read_npy(path / name) for name in writer.names()]), self.adapter.target)

    def _write_shard(self, writer: EmbeddingsWriter, number: int, start: int) -> dict[str, Any]:
        """Map rows ``start`` to ``start + SHARD_ROWS`` into the files of shard ``number``."""
        part = slice(start, start + SHARD_ROWS)
        ids = self.embeddings.ids[part]
        columns = {name: column[part] for name, column in self.embeddings.metadata.items()}
        return writer.write(number, ids, self._rounded(start, start + len(ids)), self.dtype, columns)

    def _rounded(self, start: int, stop: int) -> Iterator[npt.NDArray[Any]]:
        """Rows ``start`` to ``stop``, mapped, a block at a time; the next block takes the memory of the one before."""
        rows, modality = self.embeddings.rows, self.embeddings.modality
        old_rows = None if self.companion is None else self.companion.rows
        size = min(self.block, stop - start)
        read = np.empty((size, rows.shape[1]), dtype=np.float32)
        rounded = np.empty((size, self.adapter.target.dimension), dtype=self.dtype)
        for first in range(start, stop, size):
            last = min(first + size, stop)
            vectors = rows.read(first, last, out=read)
            old = None if old_rows is None else old_rows.read(first, last)
            mapped = self.adapter.map(vectors, modality, old=old)
            rows.release(first, last)
            self._round(mapped, rounded[: last - first])
            yield rounded[: last - first]

    def _mapped(self) -> Iterator[tuple[int, Floats]]:
        rows, modality = self.embeddings.rows, self.embeddings.modality
        old_rows = None if self.companion is None else self.companion.rows

        # One block is read while the one before is mapped: two buffers, used in turn.
        buffers = [np.empty((self.block, rows.shape[1]), dtype=np.float32) for _ in range(2)]

        def read(start: int) -> tuple[int, Floats, Floats | None]:
            stop = start + self.block
            vectors = rows.read(start, stop, out=buffers[start // self.block % 2])
            return start, vectors, None if old_rows is None else old_rows.read(start, stop)

        for start, vectors, old in ahead(read, range(0, len(rows), self.block)):
            yield start, self.adapter.map(vectors, modality, old=old)
            rows.release(start, start + self.block)

    def _round(self, mapped: Floats, out: npt.NDArray[Any]) -> None:
        if self.dtype == np.float16 and self.adapter.target.normalized:
            narrow(mapped, out)
        else:
            out[...] = mapped
