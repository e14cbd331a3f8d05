"""measure(): where each query's positives stand in the whole gallery, exactly, a few queries at a time.

A tile of queries is scored against the whole gallery, so that memory is bounded by the tile and not by queries × gallery. Only
the positives need ranks. Where all of them do, the row of scores is sorted once and the positives are looked up in it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from crossfade.embeddings import Embeddings
from crossfade.errors import EvaluationError
from crossfade.evaluation.metrics import (
    Ints,
    MetricName,
    Values,
    average_precision,
    first_match,
    ndcg,
    parse_metric,
    reciprocal_rank,
)
from crossfade.evaluation.relevance import Judgements
from crossfade.evaluation.similarity import Correction, Floats, PreparedGallery, prepared_queries, require_metric
from crossfade.spaces import Metric, require_same

__all__ = ["PerQuery", "measure"]

TILE_SCORES = 1 << 26
"""Scores held at a time: 256 MB of float32."""

GALLERY_BLOCK = 8192


@dataclass(frozen=True, slots=True)
class PerQuery:
    """One value a query, in the order of the queries.

    Attributes:
        first: [q] rank, from 1, of the first positive; of equal scores the lower gallery row comes first.
        values: metric name → [q] float64.
    """

    first: Ints
    values: Mapping[str, Values]


def measure(
    queries: Embeddings,
    gallery: Embeddings,
    judgements: Judgements,
    *,
    metrics: Sequence[str],
    metric: Metric | None = None,
    correction: Correction | None = None,
    tile_scores: int = TILE_SCORES,
) -> PerQuery:
    """Rank each query's positives and compute ``metrics``.

    Args:
        queries: q vectors.
        gallery: n vectors in the same space.
        judgements: the q queries' positives as rows of this gallery, at least one each.
        metrics: ``R@K``, ``CMC@K``, ``mAP``, ``nDCG@K``, ``MRR``.
        metric: how to compare vectors; by default as their space says.
        correction: what is added to the scores of this gallery's items; a query's own item has no say in it.
        tile_scores: scores held in memory at a time; the result does not depend on it.

    Raises:
        SpaceMismatch: queries and gallery live in two spaces.
        InvalidVectors: a vector is not finite, or is zero under cosine.
        EvaluationError: an unknown metric, a query without a positive, or a correction of another gallery.
    """
    require_same(queries.space, gallery.space, what="The queries")
    metric = metric or gallery.space.metric
    require_metric(metric)
    names = [parse_metric(name) for name in metrics]
    if correction is not None:
        correction.require(len(gallery))
    if len(judgements.targets) != len(queries):
        raise EvaluationError(
            f"There must be judgements for each query; found {len(judgements.targets)} for {len(queries)}."
        )
    if any(len(rows) == 0 for rows in judgements.targets):
        raise EvaluationError("Every evaluated query must have a positive in the gallery. Leave the others out.")
    thorough = [name for name in names if name.needs_all]
    first = np.empty(len(queries), dtype=np.int64)
    values = {name.name: np.empty(len(queries)) for name in thorough}
    prepared = PreparedGallery(gallery, metric, block=GALLERY_BLOCK)
    tile = max(1, tile_scores // len(gallery))
    buffer = np.empty((min(tile, len(queries)), len(gallery)), dtype=np.float32)

    def rank(start: int, rows: Floats) -> None:
        for query, scores in enumerate(rows, start=start):
            targets, own = judgements.positives(query), int(judgements.own[query])
            if own >= 0:
                scores[own] = -np.inf
            if correction is not None:
                correction.apply(scores)
            first[query] = _first(scores, targets)
            if thorough:
                _thorough(scores, targets, judgements.grades_of(query), thorough, values, query)

    workers = os.cpu_count() or 1
    with ThreadPoolExecutor(max_workers=workers) as pool:
        for start in range(0, len(queries), tile):
            stop = min(start + tile, len(queries))
            vectors = prepared_queries(queries, metric, start=start, stop=stop)
            scores = buffer[: stop - start]
            for piece in prepared:
                piece.score(vectors, scores[:, piece.start : piece.start + len(piece.matrix)])
            share = -(-len(scores) // workers)
            parts = range(0, len(scores), share)
            list(pool.map(rank, [start + part for part in parts], [scores[part : part + share] for part in parts]))
    for name in names:
        if not name.needs_all:
            values[name.name] = reciprocal_rank(first) if name.kind == "MRR" else first_match(first, name.k)
    return PerQuery(first, {name.name: values[name.name] for name in names})


def _first(scores: Floats, targets: Ints) -> int:
    """The rank of the best of ``targets`` (ascending rows) among ``scores`` [n]."""
    own = scores[targets]
    best = int(np.argmax(own))
    ahead = np.count_nonzero(scores > own[best])
    ties = np.count_nonzero(scores[: targets[best]] == own[best])
    return int(ahead + ties) + 1


def _thorough(
    scores: Floats,
    targets: Ints,
    grades: npt.NDArray[np.float64] | None,
    names: Sequence[MetricName],
    values: Mapping[str, Values],
    query: int,
) -> None:
    """Write the metrics that need the rank of every positive of one query."""
    ordered = np.sort(scores)
    own = scores[targets]
    if grades is None:
        own.sort()
    reached = len(ordered) - np.searchsorted(ordered, own, side="left")
    for name in names:
        if name.kind == "mAP":
            ascending = reached[::-1] if grades is None else np.sort(reached)
            values[name.name][query] = average_precision(ascending)
        else:
            above = len(ordered) - np.searchsorted(ordered, own, side="right")
            gains = np.ones(len(own)) if grades is None else grades
            values[name.name][query] = ndcg(above, reached, gains, k=name.k)
