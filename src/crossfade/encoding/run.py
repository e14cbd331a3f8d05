"""``encode``: items → vectors on disk, in batches, resumable after a kill, past corrupt items.

What is on disk after a kill is whole shards; the same call goes on after the last of them. A batch always begins at a
multiple of the batch size, counted in readable items, and so does a shard: a run that was killed and continued calls
the model with the same batches as one that was not, and writes the same bytes. (Where memory forced a smaller batch, or
ctrl-C cut a shard short, the rows are the same and only their division into files, or the last bit of a float, may
differ.)
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from crossfade.datasets.base import ImageItem, TextItem, Value
from crossfade.embeddings import Embeddings
from crossfade.encoders import Encoder, Role, load_encoder
from crossfade.encoding.folder import EncodeSummary, EncodingFolder, InMemory, Sink, exclusive
from crossfade.encoding.interrupts import first_interrupt
from crossfade.encoding.items import Columns, Item, Items, as_items, read_ahead
from crossfade.encoding.progress import Meter, ProgressOption
from crossfade.errors import (
    ConfigError,
    CorruptItem,
    DatasetError,
    EncoderError,
    FormatError,
    InvalidIds,
    OutOfMemory,
    StorageError,
)

__all__ = ["EncodeSummary", "encode"]

_THREADS = min(8, os.cpu_count() or 1)  # that decode images while the model computes


def encode(
    items: Iterable[Any],
    *,
    encoder: Encoder | str,
    out: str | Path | None = None,
    batch_size: int = 64,
    role: Role = "document",
    shard_rows: int = 8192,
    progress: ProgressOption = False,
    resume: bool = True,
    on_corrupt: Literal["report", "raise"] = "report",
    retry_corrupt: bool = False,
    on_finish: Callable[[EncodeSummary], None] | None = None,
) -> Embeddings:
    """Encode items of one modality.

    Args:
        items: :class:`ImageItem` or :class:`TextItem` of a data set; or texts (``str``), image files (``Path``) or
            Pillow images, each alone or as ``(id, …)``. They must come in the same order at every call that continues
            one folder.
        encoder: an encoder, or what :func:`crossfade.encoders.load_encoder` loads on the best device there is.
        out: a folder, continued if an earlier call was stopped; by default the vectors stay in memory.
        batch_size: items in one forward pass; halved as often as needed where memory runs out.
        role: whether the texts are stored (``document``) or searched with (``query``); decides the prefix.
        shard_rows: rows after which a file is closed: at most so many are lost by a kill.
        progress: show it on stderr, or call this with each :class:`~crossfade.encoding.progress.Progress`.
        resume: go on in a folder that holds rows; if false, such a folder is refused.
        on_corrupt: ``report`` lists an unreadable item in ``out/corrupt.jsonl`` and goes on; ``raise`` stops at it.
        retry_corrupt: try the items that an earlier run listed once more; those that can be read now are put at the
            end.
        on_finish: called with the :class:`EncodeSummary`, which is also in ``out/encoding.json``.

    Returns:
        The embeddings, memory-mapped if they are on disk.

    Raises:
        DatasetError: there are no items, or all are corrupt, or they are not of one kind.
        InvalidIds: two items have the same id.
        CorruptItem: an item cannot be read, and ``on_corrupt`` is ``raise``.
        SpaceMismatch: ``out`` holds vectors of another space, modality or role.
        FormatError: ``out`` was written from other items, or in another order.
        EncoderError: the model failed; what is written stands.
        StorageError: the disk is full; what is written stands.
        KeyboardInterrupt: ctrl-C; finished batches are written, and the message says how to go on.
    """
    if batch_size < 1 or shard_rows < 1:
        raise ConfigError(f"batch_size and shard_rows must be at least 1; found {batch_size} and {shard_rows}.")
    if on_corrupt not in ("report", "raise"):
        raise ConfigError(f"on_corrupt must be 'report' or 'raise'; found {on_corrupt!r}.")
    source = as_items(items)
    _refuse_repeats(items)
    model = load_encoder(encoder) if isinstance(encoder, str) else encoder
    if source.modality not in model.space.modalities:
        held = ", ".join(model.space.modalities)
        raise EncoderError(
            f"{model.space.model} encodes {held} only; the items are {source.modality}s. Choose another."
        )
    path = None if out is None else Path(out)
    with nullcontext() if path is None else exclusive(path):
        sink: Sink
        if path is None:
            sink = InMemory(model.space, source.modality)
        else:
            sink = EncodingFolder(path, model.space, source.modality, role=role, resume=resume)
            sink.begin(batch_size)
        label = f"Encoding {source.modality}s with {model.space.model}"
        with Meter(label, progress, total=source.count) as meter, first_interrupt(meter) as stop:
            rows = max(shard_rows // batch_size, 1) * batch_size
            run = _Run(model, sink, meter, role, batch_size, rows, Columns.of(source.first))
            summary = run.over(source, stop, raising=on_corrupt == "raise", retry=retry_corrupt, path=path)
        embeddings = sink.finish(summary)
    if summary.corrupt:
        place = "" if path is None else f"; they are listed in {path / 'corrupt.jsonl'}"
        meter.say(f"{len(summary.corrupt)} items could not be read and have no vector{place}.")
    if summary.truncated:
        meter.say(
            f"{summary.truncated} of {summary.encoded} texts are longer than {model.space.model} takes; it cut them."
        )
    if on_finish is not None:
        on_finish(summary)
    return embeddings


@dataclass
class _Run:
    """One pass over the items."""

    model: Encoder
    sink: Sink
    meter: Meter
    role: Role
    batch_size: int
    shard_rows: int
    columns: Columns
    fits: int = 0  # items that fit into memory at once; 0 is "not known to be limited"
    encoded: int = 0
    truncated: int | None = 0
    repeated: int = 0
    texts: set[int] = field(default_factory=set)  # hashes of those that came
    ids: list[str] = field(default_factory=list)
    vectors: list[npt.NDArray[np.float32]] = field(default_factory=list)
    metadata: list[Mapping[str, Value]] = field(default_factory=list)

    def over(
        self, source: Items, stop: threading.Event, *, raising: bool, retry: bool, path: Path | None
    ) -> EncodeSummary:
        start = time.monotonic()
        listed = dict(self.sink.corrupt)
        again: list[Item] = []
        try:
            todo = _unwritten(source.stream, self.sink, listed, again, path)
            self._encode_all(todo, stop, raising=raising, path=path)
            if retry:
                written = set(self.sink.written)
                unread = (item for item in again if item.id not in written)
                self._encode_all(unread, stop, raising=raising, path=path)
        except StorageError:
            raise
        except Exception:
            self._flush()  # what has been paid for is kept
            raise
        self._flush()
        if not self.sink.written:
            reason = next(iter(self.sink.corrupt.values()), "")
            raise DatasetError(
                f"At least one item must be readable; all {len(self.sink.corrupt)} are corrupt: {reason}"
            )
        written = set(self.sink.written)
        corrupt = {item: reason for item, reason in self.sink.corrupt.items() if item not in written}
        seconds = time.monotonic() - start
        rate = round(self.encoded / seconds, 3)
        return EncodeSummary(
            len(written), self.encoded, corrupt, round(seconds, 3), rate, self.truncated, self.repeated
        )

    def _encode_all(self, items: Iterator[Item], stop: threading.Event, *, raising: bool, path: Path | None) -> None:
        pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="crossfade-decode")
        try:
            batch: list[tuple[Item, Any]] = []
            for item, content, reason in read_ahead(items, pool, depth=self.batch_size):
                if reason is not None:
                    if raising:
                        raise CorruptItem(f"{item.id!r} cannot be read: {reason}")
                    if item.id not in self.sink.corrupt:
                        self.sink.report(item.id, reason)
                    continue
                batch.append((item, content))
                if len(batch) == self.batch_size:
                    self._encode(batch)
                    batch = []
                if stop.is_set():
                    raise self._stopped(path)
            if batch:
                self._encode(batch)
            if stop.is_set():
                raise self._stopped(path)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _encode(self, batch: list[tuple[Item, Any]]) -> None:
        done = 0
        while done < len(batch):
            size = min(self.fits or len(batch), len(batch) - done)
            part = batch[done : done + size]
            try:
                self._keep(part, self._vectors([content for _, content in part]))
            except OutOfMemory:
                if size == 1:
                    raise
                self.fits = max(size // 2, 1)
                self.meter.say(f"Memory ran out with {size} items at once; going on with {self.fits}.")
                continue
            done += size
        if len(self.ids) >= self.shard_rows:
            self._flush()
        self.meter.update(len(self.sink.written) + len(self.ids), worked=self.encoded, skipped=len(self.sink.corrupt))

    def _vectors(self, contents: list[Any]) -> npt.NDArray[np.float32]:
        if isinstance(contents[0], str):
            return self.model.encode_texts(contents, role=self.role)
        return self.model.encode_images(contents)

    def _keep(self, part: list[tuple[Item, Any]], vectors: npt.NDArray[np.float32]) -> None:
        expected = (len(part), self.model.space.dimension)
        if vectors.shape != expected or not np.isfinite(vectors).all():
            raise EncoderError(
                f"{self.model.space.model} must give finite vectors of shape {expected}; it gave {vectors.shape}, or "
                "NaN, for "
                f"the batch that begins with {part[0][0].id!r}. Use dtype float32, or another model."
            )
        metadata = [self.columns.checked(item) for item, _ in part]
        self.ids += [item.id for item, _ in part]
        self.metadata += metadata
        self.vectors.append(np.asarray(vectors, dtype=np.float32))
        self.encoded += len(part)
        if isinstance(part[0][0], TextItem):
            self._count([text for _, text in part])

    def _count(self, texts: list[str]) -> None:
        longer = self.model.truncated(texts, role=self.role)
        self.truncated = None if longer is None or self.truncated is None else self.truncated + longer
        known = len(self.texts)
        self.texts.update(map(hash, texts))
        self.repeated += len(texts) - (len(self.texts) - known)

    def _flush(self) -> None:
        if self.ids:
            ids, vectors, metadata = self.ids, np.concatenate(self.vectors), self.metadata
            self.ids, self.vectors, self.metadata = [], [], []
            self.sink.append(ids, vectors, self.columns.arrays(metadata))

    def _stopped(self, path: Path | None) -> KeyboardInterrupt:
        self._flush()
        if path is None:
            return KeyboardInterrupt("Stopped; the vectors were in memory only and are gone.")
        message = f"Stopped: {len(self.sink.written)} rows are in {path}. Run the same encode again to go on."
        self.meter.say(message)
        return KeyboardInterrupt(message)


def _refuse_repeats(items: Iterable[Any]) -> None:
    """Find repeated ids before anything is written, where that needs no reading: in a list of items."""
    if isinstance(items, list | tuple):
        seen: set[str] = set()
        for item in items:
            if isinstance(item, ImageItem | TextItem):
                _first_time(item.id, seen)


def _first_time(name: str, seen: set[str]) -> None:
    if name in seen:
        raise InvalidIds(f"Ids must be unique; {name!r} comes twice. Drop or rename the duplicate.")
    seen.add(name)


def _unwritten(
    items: Iterator[Item], sink: Sink, listed: Mapping[str, str], again: list[Item], path: Path | None
) -> Iterator[Item]:
    """The items that have no row yet; those ``listed`` as corrupt go to ``again``.

    Raises:
        FormatError: the rows that are there are not, in order, the items that come.
    """
    written = [name for name in sink.written if name not in listed]
    way_out = "Offer the same items in the same order, or choose another folder."
    seen: set[str] = set()
    row = 0
    for item in items:
        _first_time(item.id, seen)
        if item.id in listed:
            again.append(item)
        elif row < len(written):
            if item.id != written[row]:
                raise FormatError(
                    f"{path} was written from other items: its row {row} is {written[row]!r}, and now {item.id!r} "
                    f"comes there. {way_out}"
                )
            row += 1
        elif sink.complete:
            raise FormatError(
                f"{path} is finished with {len(written)} rows, and now {item.id!r} comes after them. {way_out}"
            )
        else:
            yield item
    if row < len(written):
        raise FormatError(
            f"{path} was written from more items: it has {len(written)} rows, and only {row} of them come now; the "
            "first that does "
            f"not is {written[row]!r}. {way_out}"
        )
