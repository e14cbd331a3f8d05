"""TwoStage: recall N candidates from the old gallery through the adapter, re-rank them in the new model's own space.

With φ the adapter, o the stored old vectors, g the new vectors and s a space's own similarity:

1. recall:   C(q) = the N gallery items with the largest s_old(φ(q), o);
2. re-rank:  C(q) in descending order of s_new(q, g), of equal scores the lower gallery row first;
3. the rest: candidates without a new vector, then the items behind C(q), both in the order of the first stage.

So an item that the first stage does not recall cannot rise, and with N = n the ranking is that of a full re-index. g is
made when an item is first a candidate: only what queries touch is ever embedded.

Not specified by any paper (our choice): what has no new vector comes after what has one, since its score would be one of
another scale.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from crossfade.embeddings import Embeddings
from crossfade.embeddings.core import Ids
from crossfade.errors import ConfigError, EvaluationError, SpaceMismatch
from crossfade.evaluation import search
from crossfade.evaluation.similarity import Correction, prepared_queries
from crossfade.methods.base import Adapter
from crossfade.spaces import Metric, require_same
from crossfade.two_stage.cache import VectorCache
from crossfade.two_stage.items import Embed, embed_all

__all__ = ["TwoStage", "TwoStageCounts", "TwoStageNeighbours", "rerank_scores"]

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

PASS_CANDIDATES = 1 << 16
"""Candidates of all queries of one pass: their distinct new vectors are in memory together."""

GATHERED = 1 << 24
"""Numbers of candidates' vectors gathered at a time while they are scored: 128 MB as float64."""


@dataclass(frozen=True, slots=True)
class TwoStageCounts:
    """What has been done so far.

    Attributes:
        queries: queries served.
        hits: distinct candidates of a pass whose new vector was there already.
        embedded: distinct candidates of a pass whose new vector had to be made.
        failed: gallery items that cannot be embedded.
    """

    queries: int
    hits: int
    embedded: int
    failed: int


@dataclass(frozen=True, slots=True)
class TwoStageNeighbours:
    """The k best gallery items of each query, best first.

    Attributes:
        ids: [q, k] ids of gallery items.
        rows: [q, k] int64, their row numbers in the gallery.
        scores: [q, k] float32: similarity in the new space; NaN where an item was not re-ranked.
        failed: ids of candidates of these queries that have no new vector, in the order of the gallery.
    """

    ids: Ids
    rows: Ints
    scores: Floats
    failed: tuple[str, ...]


class TwoStage:
    """Two-stage retrieval over a stored old gallery.

    Args:
        adapter: from the new model's space to the gallery's.
        gallery: the stored old vectors.
        embed: ids [n] → new vectors [n, d]; a row of NaN is an item that cannot be embedded. See
            :class:`~crossfade.two_stage.items.ItemEmbedder` for an encoder with the items themselves.
        new_gallery: instead of ``embed``, new vectors that are there already; items that it lacks count as failed.
        candidates: N, how many of the first stage are re-ranked.
        cache: where new vectors made by ``embed`` are kept; without one they are made anew at every search.
        batch: ids given to ``embed`` at a time; halved where memory runs out.
        correction: what the first stage adds to the scores of this gallery's items, such as
            :func:`~crossfade.evaluation.hubness.csls_offsets`: fewer hubs among the candidates leave room for others.

    Raises:
        SpaceMismatch: the gallery is not in the adapter's target space, or the cache, the encoder or ``new_gallery`` not in
            its source space and of the gallery's modality.
        ConfigError: not exactly one source of new vectors, or an option out of range.
        EvaluationError: the correction is of another gallery.
    """

    def __init__(
        self,
        adapter: Adapter,
        gallery: Embeddings,
        embed: Embed | None = None,
        *,
        new_gallery: Embeddings | None = None,
        candidates: int = 100,
        cache: VectorCache | None = None,
        batch: int = 256,
        correction: Correction | None = None,
    ) -> None:
        if (embed is None) == (new_gallery is None):
            raise ConfigError("New vectors come from one place: pass either embed or new_gallery.")
        if new_gallery is not None and cache is not None:
            raise ConfigError(
                "A cache keeps what embed makes; with new_gallery there is nothing to keep. Leave it out."
            )
        if candidates < 1 or batch < 1:
            raise ConfigError(f"candidates and batch must be at least 1; found {candidates} and {batch}.")
        require_same(gallery.space, adapter.target, what="The gallery's vectors")
        if correction is not None:
            correction.require(len(gallery))
        for what, source in (("The cache's", cache), ("The encoder's", embed), ("The new gallery's", new_gallery)):
            space, modality = getattr(source, "space", None), getattr(source, "modality", None)
            if space is not None:
                require_same(space, adapter.source, what=f"{what} vectors")
            if modality not in (None, gallery.modality):
                raise SpaceMismatch(f"{what} vectors must be {gallery.modality}, as the gallery is; found {modality}.")
        self.adapter = adapter
        self.gallery = gallery
        self.candidates = candidates
        self.cache = cache
        self.batch = batch
        self.correction = correction
        self._embed = embed
        self._new_gallery = new_gallery
        self._touched = np.zeros(len(gallery), dtype=bool)
        self._failed = np.zeros(len(gallery), dtype=bool)
        self._lock = threading.Lock()
        self._queries = self._hits = self._embedded = 0

    @property
    def counts(self) -> TwoStageCounts:
        """What has been done since this was made; with ``new_gallery``, what an unbounded cache would have saved."""
        with self._lock:
            return TwoStageCounts(self._queries, self._hits, self._embedded, int(self._failed.sum()))

    @property
    def failed(self) -> tuple[str, ...]:
        """Ids of gallery items that cannot be embedded; they are not tried again before :meth:`retry_failed`."""
        return tuple(self.gallery.ids[self._failed].tolist())

    def retry_failed(self) -> None:
        """Try the failed items again when they are next candidates."""
        with self._lock:
            self._failed[:] = False

    def search(self, queries: Embeddings, k: int = 10, *, old: Embeddings | None = None) -> TwoStageNeighbours:
        """The k best gallery items of each query.

        Args:
            queries: q vectors in the new space, of any modality that the adapter maps.
            k: how many to return, 1 ≤ k ≤ n. Behind the N re-ranked ones the first stage's order goes on.
            old: the old model's vectors of the queries; only two-encoder adapters need them.

        Raises:
            SpaceMismatch: the queries are not in the adapter's source space.
            EvaluationError: k is out of range.
            InvalidVectors: a query is not finite, or is zero under cosine.
            EncoderError: the new model failed; what it had made is in the cache.
        """
        if not 1 <= k <= len(self.gallery):
            raise EvaluationError(f"k must lie between 1 and the gallery's {len(self.gallery)} items; found {k}.")
        mapped = self.adapter.transform(queries, old=old)
        depth = min(len(self.gallery), max(k, self.candidates))
        recalled = search(mapped, self.gallery, k=depth, correction=self.correction).rows
        reranked = min(self.candidates, depth)
        rows = np.empty((len(queries), k), dtype=np.int64)
        scores = np.full((len(queries), k), np.nan, dtype=np.float32)
        failed: set[int] = set()
        for start, stop in _passes(len(queries), reranked):
            best, similarity, without = self._rerank(queries, recalled[start:stop, :reranked], start)
            order = np.concatenate([best, recalled[start:stop, reranked:]], axis=1)
            rows[start:stop] = order[:, :k]
            scores[start:stop, :reranked] = similarity[:, :k]
            failed.update(without.tolist())
            with self._lock:
                self._queries += stop - start
        names = tuple(str(name) for name in self.gallery.ids[sorted(failed)]) if failed else ()
        return TwoStageNeighbours(self.gallery.ids[rows], rows, scores, names)

    def _rerank(self, queries: Embeddings, candidates: Ints, start: int) -> tuple[Ints, Floats, Ints]:
        """Candidates [p, N] of the queries from ``start`` on, best first; their scores; and the rows without a vector."""
        metric = self.adapter.source.metric
        stop = start + len(candidates)
        prepared_queries(queries, metric, start=start, stop=stop)  # refuses what has no direction
        distinct, place = np.unique(candidates, return_inverse=True)
        vectors, fine = self._vectors(distinct)
        place = place.reshape(candidates.shape)
        scores = rerank_scores(queries.rows.read(start, stop), vectors, place, metric)
        usable = fine[place]
        position = np.broadcast_to(np.arange(candidates.shape[1]), candidates.shape)
        order = np.lexsort((np.where(usable, candidates, position), np.where(usable, -scores, 0.0), ~usable), axis=1)
        similarity = np.where(usable, scores, np.nan)
        best = np.take_along_axis(candidates, order, axis=1)
        return best, np.take_along_axis(similarity, order, axis=1).astype(np.float32), distinct[~fine]

    def _vectors(self, rows: Ints) -> tuple[Floats, Flags]:
        """New vectors of gallery rows [u, d], and which of them are usable [u]."""
        ids = self.gallery.ids[rows]
        if self._new_gallery is not None:
            located = self._new_gallery.locate(ids)
            vectors = self._new_gallery.rows.take(np.maximum(located, 0))
            fine = located >= 0
            with self._lock:
                self._failed[rows[~fine]] = True
                self._hits += int(self._touched[rows[fine]].sum())
                self._embedded += int((~self._touched[rows[fine]]).sum())
                self._touched[rows[fine]] = True
            return vectors, fine
        vectors = np.zeros((len(rows), self.adapter.source.dimension), dtype=np.float32)
        fine = np.zeros(len(rows), dtype=bool)
        if self.cache is not None:
            fine, vectors = self.cache.get(ids)
        with self._lock:
            self._hits += int(fine.sum())
        missing = np.flatnonzero(~fine & ~self._failed[rows])
        for first in range(0, len(missing), self.batch):
            self._make(rows, missing[first : first + self.batch], vectors, fine)
        return vectors, fine

    def _make(self, rows: Ints, missing: Ints, vectors: Floats, fine: Flags) -> None:
        """Embed one batch of ``missing`` places of ``rows``, and keep what came out."""
        assert self._embed is not None
        ids = self.gallery.ids[rows[missing]]
        made = embed_all(self._embed, ids, self.adapter.source)
        vectors[missing[made.fine]] = made.vectors[made.fine]
        fine[missing] = made.fine
        if self.cache is not None and made.fine.any():
            self.cache.put(ids[made.fine], made.vectors[made.fine])
        with self._lock:
            self._failed[rows[missing]] = ~made.fine
            self._embedded += int(made.fine.sum())


def rerank_scores(queries: Floats, vectors: Floats, place: Ints, metric: Metric) -> npt.NDArray[np.float32]:
    """s_new of each query with each of its candidates: float32 [q, N], computed in float64 as exact search does.

    Args:
        queries: [q, d], not zero under cosine.
        vectors: [u, d] of distinct candidates; a zero row under cosine has the score 0.
        place: [q, N] which of ``vectors`` each candidate is.
        metric: ``cosine``, ``dot`` or ``l2``.
    """
    scores = np.empty(place.shape, dtype=np.float32)
    wide = vectors.astype(np.float64)
    norms = np.sqrt(np.einsum("ud,ud->u", wide, wide))
    norms[norms == 0.0] = 1.0
    step = max(1, GATHERED // (place.shape[1] * vectors.shape[1]))
    for start in range(0, len(queries), step):
        part = place[start : start + step]
        asked, items = queries[start : start + step].astype(np.float64), wide[part]
        if metric == "l2":
            scores[start : start + step] = -np.sqrt(np.square(items - asked[:, None]).sum(axis=2))
            continue
        value = np.einsum("qd,qcd->qc", asked, items)
        if metric == "cosine":
            value /= np.sqrt(np.einsum("qd,qd->q", asked, asked))[:, None]
            value /= norms[part]
        scores[start : start + step] = value
    return scores


def _passes(queries: int, candidates: int) -> Iterator[tuple[int, int]]:
    step = max(1, PASS_CANDIDATES // candidates)
    for start in range(0, queries, step):
        yield start, min(start + step, queries)
