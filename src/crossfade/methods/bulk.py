"""Mapping whole sets of vectors: block by block, with the next block read and the last one written meanwhile.

::

    reading thread   read block i + 1, convert to float32
    this thread      map block i (the matrix product)
    writing thread   convert block i − 1, gather shards
    disk thread      write the shard before

At most a few blocks and three shards are in memory at a time, whatever the size of the set.
"""

from __future__ import annotations

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

SHARD_ROWS = 65_536
PENDING = 2
"""Mapped blocks that may wait for the writing thread."""

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
        with (
            atomic_folder(path) as temporary,
            ThreadPoolExecutor(1, thread_name_prefix="crossfade-disk") as disk,
            ThreadPoolExecutor(1, thread_name_prefix="crossfade-write") as writing,
        ):
            shards = _Shards(self, EmbeddingsWriter(temporary, self.adapter.target, self.embeddings.modality), disk)
            waiting: deque[Future[None]] = deque()
            for start, mapped in self._mapped():
                waiting.append(writing.submit(shards.add, start, mapped))
                if len(waiting) > PENDING:
                    waiting.popleft().result()
            for future in waiting:
                future.result()
            shards.finish()
        return load_folder(path)

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


class _Shards:
    """Collects mapped blocks into shards: one is filled while the disk thread writes the one before."""

    def __init__(self, blocks: MappedBlocks, writer: EmbeddingsWriter, disk: ThreadPoolExecutor) -> None:
        self._blocks = blocks
        self._writer = writer
        self._disk = disk
        self._writing: Future[None] | None = None
        self._first = 0
        self._filled = 0
        dimension = blocks.adapter.target.dimension
        count = min(SHARD_ROWS, len(blocks.embeddings))
        self._buffers = [np.empty((count, dimension), dtype=blocks.dtype) for _ in range(2)]

    def add(self, start: int, mapped: Floats) -> None:
        """Take one block, rows ``start`` and following."""
        taken = 0
        while taken < len(mapped):
            count = min(len(mapped) - taken, len(self._buffers[0]) - self._filled)
            self._blocks._round(mapped[taken : taken + count], self._buffers[0][self._filled : self._filled + count])
            taken += count
            self._filled += count
            if self._filled == len(self._buffers[0]):
                self._flush()

    def finish(self) -> None:
        """Write what remains, and mark the set as complete."""
        self._flush()
        if self._writing is not None:
            self._writing.result()
        self._writer.finish()

    def _flush(self) -> None:
        if self._writing is not None:
            self._writing.result()
            self._writing = None
        if not self._filled:
            return
        part = slice(self._first, self._first + self._filled)
        columns = {name: column[part] for name, column in self._blocks.embeddings.metadata.items()}
        ids = self._blocks.embeddings.ids[part]
        self._writing = self._disk.submit(self._writer.append, ids, self._buffers[0][: self._filled], columns)
        self._first += self._filled
        self._filled = 0
        self._buffers.reverse()
