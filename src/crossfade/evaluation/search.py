"""search(): the exact nearest gallery items of each query, in blocks.

A tile of scores is one matrix product, and after the first blocks nearly no score beats a query's k-th best so far: one
maximum over the tile is then nearly all the work that selection costs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt

from crossfade.embeddings import Embeddings
from crossfade.errors import EvaluationError
from crossfade.evaluation.similarity import (
    Correction,
    Floats,
    GalleryBlock,
    PreparedGallery,
    prepared_queries,
    require_metric,
)
from crossfade.spaces import Metric, require_same

__all__ = ["Neighbours", "search"]

Rows64 = npt.NDArray[np.int64]

QUERY_TILE = 1024
"""Queries in one tile of scores."""

QUERIES_A_THREAD = 64
"""With fewer queries a thread, the matrix product's own threads do better."""

FOLD = 16
"""A row of a tile is folded this many times to its peaks, and only a peak that beats the bound is unfolded again."""

QUERY_PASS = 16_384
"""Queries that share one reading of the gallery."""

SPARE = 8
"""Candidates kept beyond k, so that rescoring in float64 can reorder what float32 could not tell apart."""

RESCORE_BYTES = 1 << 27
"""Gallery vectors gathered at a time while rescoring."""


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The k best gallery items of each query, best first.

    Attributes:
        rows: [q, k] int64, row numbers in the gallery; −1 where the gallery has no k others.
        scores: [q, k] float32: cosine, inner product, or negated Euclidean distance; −∞ where there is no row. Of a
            corrected search they are what it ranked by, under l2 from −½‖q − g‖².
    """

    rows: Rows64
    scores: Floats


def search(
    queries: Embeddings,
    gallery: Embeddings,
    *,
    k: int,
    metric: Metric | None = None,
    exclude_same_id: bool = False,
    correction: Correction | None = None,
    block: int = 4096,
) -> Neighbours:
    """The exact k nearest gallery items of each query.

    Candidates are chosen in float32 and rescored in float64, so that equal vectors have equal scores wherever they stand;
    of equal scores the lower gallery row comes first. The gallery is read in blocks, and a memory map is never held whole.

    Args:
        queries: q vectors.
        gallery: n vectors in the same space.
        k: how many to return for each query, 1 ≤ k ≤ n.
        metric: how to compare; by default as their space says.
        exclude_same_id: leave out the gallery item that has the query's own id.
        correction: what is added to the scores of this gallery's items (:mod:`crossfade.evaluation.hubness`).
        block: gallery rows scored at a time; the result does not depend on it.

    Raises:
        SpaceMismatch: queries and gallery live in two spaces.
        InvalidVectors: a vector is not finite, or is zero under cosine.
        EvaluationError: k is out of range, or the correction is of another gallery.
    """
    require_same(queries.space, gallery.space, what="The queries")
    metric = metric or gallery.space.metric
    require_metric(metric)
    if not 1 <= k <= len(gallery):
        raise EvaluationError(f"k must lie between 1 and the gallery's {len(gallery)} items; found {k}.")
    if correction is not None:
        correction.require(len(gallery))
        if correction.active is not None:
            return _dynamic(queries, gallery, correction, k, metric, exclude_same_id, block)
    own = gallery.locate(queries.ids) if exclude_same_id else None
    offsets = None if correction is None else correction.offsets
    prepared = PreparedGallery(gallery, metric, block=block, offsets=offsets)
    kept = min(len(gallery), k + SPARE + (own is not None))
    rows = np.full((len(queries), k), -1, dtype=np.int64)
    scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
    for start in range(0, len(queries), QUERY_PASS):
        stop = min(start + QUERY_PASS, len(queries))
        vectors = prepared_queries(queries, metric, start=start, stop=stop)
        with _threads(stop - start) as threads:
            best = _candidates(vectors, prepared, threads, kept=kept, widest=min(block, len(gallery)))
            exact = _rescored(queries, gallery, metric, start, best.rows, threads, offsets)
        if own is not None:
            exact[best.rows == own[start:stop, None]] = -np.inf
        order = np.lexsort((best.rows, -exact), axis=1)[:, :k]
        chosen = np.take_along_axis(exact, order, axis=1)
        found = chosen > -np.inf
        rows[start:stop] = np.where(found, np.take_along_axis(best.rows, order, axis=1), -1)
        scores[start:stop] = chosen
    return Neighbours(rows, scores)


def _dynamic(
    queries: Embeddings,
    gallery: Embeddings,
    correction: Correction,
    k: int,
    metric: Metric,
    exclude_same_id: bool,
    block: int,
) -> Neighbours:
    """Corrected answers for the queries whose best one is active, plain ones for the others; under l2 all as −½‖q − g‖²."""
    nothing = Correction(np.zeros(len(gallery), dtype=np.float32))
    plain, corrected = (
        search(queries, gallery, k=k, metric=metric, exclude_same_id=exclude_same_id, correction=each, block=block)
        for each in (nothing, replace(correction, active=None))
    )
    first = plain.rows[:, 0]
    assert correction.active is not None
    active = (correction.active[first] & (first >= 0))[:, None]
    return Neighbours(np.where(active, corrected.rows, plain.rows), np.where(active, corrected.scores, plain.scores))


def _candidates(vectors: Floats, prepared: PreparedGallery, threads: _Threads, *, kept: int, widest: int) -> _Best:
    """The ``kept`` best of the gallery for each of ``vectors``, by float32 scores; ``widest`` is the largest block."""
    best = _Best(len(vectors), kept)
    parts = threads.parts(len(vectors))
    share = max((part.stop - part.start for part in parts), default=0)
    step = -(-share // -(-share // QUERY_TILE))
    buffers = [np.empty(step * _folds(widest), dtype=np.float32) for _ in parts]

    def take_in(piece: GalleryBlock, thread: int) -> None:
        """One thread's queries against a block of the gallery; it alone touches their candidates."""
        columns, width = len(piece.matrix), _folds(len(piece.matrix))
        for first in range(parts[thread].start, parts[thread].stop, step):
            tile = vectors[first : min(first + step, parts[thread].stop)]
            out = buffers[thread][: len(tile) * width].reshape(len(tile), width)
            piece.score(tile, out[:, :columns])
            out[:, columns:] = -np.inf
            best.update(out, first, piece.start)

    for piece in prepared:
        threads.each(partial(take_in, piece))
    return best


@dataclass(frozen=True, slots=True)
class _Threads:
    """A few threads that each do their part of the same work; one does it where it stands."""

    count: int
    pool: ThreadPoolExecutor | None

    def parts(self, queries: int) -> list[range]:
        """The queries of each thread, consecutive and about as many."""
        share = -(-queries // self.count)
        return [range(min(n * share, queries), min((n + 1) * share, queries)) for n in range(self.count)]

    def each(self, work: Callable[[int], None]) -> None:
        """``work`` of every thread's number, at the same time; returns when all are done."""
        if self.pool is None:
            work(0)
        else:
            list(self.pool.map(work, range(self.count)))


@contextmanager
def _threads(queries: int) -> Iterator[_Threads]:
    """A thread a core, each with a matrix product of its own, where there are queries enough for all."""
    cores = min(os.cpu_count() or 1, queries // QUERIES_A_THREAD)
    if cores < 2:
        yield _Threads(1, None)
        return
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(cores, "crossfade-search") as pool:
        yield _Threads(cores, pool)


def _folds(columns: int) -> int:
    """``columns`` rounded up to a multiple of FOLD."""
    return -(-columns // FOLD) * FOLD


class _Best:
    """The best candidates so far of each query: scores [q, kept] descending, and their gallery rows."""

    def __init__(self, queries: int, kept: int) -> None:
        self.kept = kept
        self.scores = np.full((queries, kept), -np.inf, dtype=np.float32)
        self.rows = np.full((queries, kept), -1, dtype=np.int64)

    def update(self, tile: Floats, first: int, start: int) -> None:
        """Take in the scores of queries from ``first`` on against gallery rows from ``start`` on.

        Args:
            tile: [queries, a multiple of ``FOLD``]; −∞ in the columns that are no gallery row.
            first: the first query's number.
            start: the first column's gallery row.
        """
        folded = tile.reshape(len(tile), FOLD, -1)
        peaks = folded.max(axis=1)
        lanes = peaks.shape[1]
        # Later rows lose ties, so a score must beat the bound strictly.
        bound = self.scores[first : first + len(tile), -1].copy()
        enters = peaks > bound[:, None]
        if lanes > self.kept:
            # At least ``kept`` scores reach the kept-th highest peak, so none below it can stay.
            crowded = np.flatnonzero(np.count_nonzero(enters, axis=1) > self.kept)
            if len(crowded):
                kth = np.partition(peaks[crowded], lanes - self.kept, axis=1)[:, lanes - self.kept]
                bound[crowded] = np.nextafter(kth, np.float32(-np.inf))
                enters[crowded] = peaks[crowded] > bound[crowded, None]
        query, lane = np.nonzero(enters)
        if len(query) == 0:
            return
        scores = folded[query, :, lane]
        pair, fold = np.nonzero(scores > bound[query, None])
        touched, place = np.unique(query[pair], return_inverse=True)
        self._merge(touched + first, place, scores[pair, fold], start + fold * lanes + lane[pair])

    def _merge(self, queries: Rows64, query: Rows64, scores: Floats, rows: Rows64) -> None:
        """Merge candidates (``query`` counts within ``queries``) with what stands."""
        count = len(queries)
        query = np.concatenate([np.repeat(np.arange(count), self.kept), query])
        scores = np.concatenate([self.scores[queries].ravel(), scores])
        rows = np.concatenate([self.rows[queries].ravel(), rows])
        order = np.lexsort((rows, -scores, query))
        begins = np.searchsorted(query[order], np.arange(count))
        chosen = order[begins[:, None] + np.arange(self.kept)]
        self.scores[queries] = scores[chosen]
        self.rows[queries] = rows[chosen]


def _rescored(
    queries: Embeddings,
    gallery: Embeddings,
    metric: Metric,
    start: int,
    rows: Rows64,
    threads: _Threads,
    offsets: Floats | None,
) -> Floats:
    """Scores of the candidates ``rows`` [q, c] for the queries from ``start`` on, in float64; −∞ where a row is −1."""
    scores = np.full(rows.shape, -np.inf, dtype=np.float32)
    step = max(1, RESCORE_BYTES // (8 * rows.shape[1] * gallery.dimension * threads.count))
    parts = threads.parts(len(rows))

    def rescore(thread: int) -> None:
        for first in range(parts[thread].start, parts[thread].stop, step):
            last = min(first + step, parts[thread].stop)
            vectors = queries.rows.read(start + first, start + last).astype(np.float64)
            items = gallery.rows.take(np.maximum(rows[first:last], 0).ravel()).astype(np.float64)
            items = items.reshape(last - first, rows.shape[1], -1)
            if metric == "l2":
                squares = np.square(items - vectors[:, None]).sum(axis=2)
                value = -np.sqrt(squares) if offsets is None else -0.5 * squares
            else:
                value = np.einsum("qd,qcd->qc", vectors, items)
                if metric == "cosine":
                    value /= np.sqrt(np.einsum("qd,qd->q", vectors, vectors))[:, None]
                    value /= np.sqrt(np.einsum("qcd,qcd->qc", items, items))
            if offsets is not None:
                value += offsets[np.maximum(rows[first:last], 0)]
            scores[first:last] = np.where(rows[first:last] >= 0, value, -np.inf)

    threads.each(rescore)
    return scores
