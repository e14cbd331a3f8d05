"""Mapping whole sets of vectors, a shard a thread.

::

    each of a few threads   read a block, convert to float32, map, convert back; block after block of one shard
    this thread             write the shards, in order

The matrix product of each thread runs on its own share of the cores, so that no thread of the product waits for another that
is reading or converting. At most a few shards are in memory at a time, whatever the size of the set.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from crossfade.embeddings.core import Embeddings
from crossfade.embeddings.float16 import narrow
from crossfade.embeddings.folder import EmbeddingsWriter, load_folder
from crossfade.embeddings.rows import ahead
from crossfade.files import atomic_folder

if TYPE_CHECKING:
    from crossfade.methods.base import Adapter

__all__ = ["MappedBlocks"]

SHARD_ROWS = 32_768
WORKERS = 4
"""Shards made at a time, at most: each takes tens of megabytes."""

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
        columns = self.embeddings.metadata
        with atomic_folder(path) as temporary:
            writer = EmbeddingsWriter(temporary, self.adapter.target, self.embeddings.modality)
            for start, vectors in self._shards():
                part = slice(start, start + len(vectors))
                ids = self.embeddings.ids[part]
                writer.append(ids, vectors, {name: column[part] for name, column in columns.items()})
            writer.finish()
        return load_folder(path)

    def _shards(self) -> Iterator[tuple[int, npt.NDArray[Any]]]:
        """The mapped shards in order, each made by one thread while the ones before it are written."""
        from threadpoolctl import threadpool_limits

        cores = os.cpu_count() or 1
        workers = min(cores, WORKERS)
        waiting: deque[tuple[int, Future[npt.NDArray[Any]]]] = deque()
        with (
            threadpool_limits(max(1, cores // workers), user_api="blas"),
            ThreadPoolExecutor(workers, thread_name_prefix="crossfade-map") as pool,
        ):
            try:
                for start in range(0, len(self.embeddings), SHARD_ROWS):
                    waiting.append((start, pool.submit(self._shard, start)))
                    if len(waiting) > workers:
                        first, shard = waiting.popleft()
                        yield first, shard.result()
                for first, shard in waiting:
                    yield first, shard.result()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _shard(self, start: int) -> npt.NDArray[Any]:
        """Rows ``start`` to ``start + SHARD_ROWS``, mapped."""
        rows, modality = self.embeddings.rows, self.embeddings.modality
        old_rows = None if self.companion is None else self.companion.rows
        stop = min(start + SHARD_ROWS, len(rows))
        result = np.empty((stop - start, self.adapter.target.dimension), dtype=self.dtype)
        buffer = np.empty((min(self.block, stop - start), rows.shape[1]), dtype=np.float32)
        for first in range(start, stop, self.block):
            last = min(first + self.block, stop)
            vectors = rows.read(first, last, out=buffer)
            old = None if old_rows is None else old_rows.read(first, last)
            self._round(self.adapter.map(vectors, modality, old=old), result[first - start : last - start])
            rows.release(first, last)
        return result

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
