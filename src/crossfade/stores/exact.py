"""Exact search over a scan, for stores whose index cannot be told to compare every row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import numpy.typing as npt

from crossfade.spaces import Metric
from crossfade.stores.backend import Query
from crossfade.stores.records import Hits, Records

__all__ = ["SCORES", "exact_search", "rows_at_a_time"]

Doubles = npt.NDArray[np.float64]

SCORES_AT_A_TIME = 4_000_000
"""How many scores of queries with rows are held at once, about."""


def rows_at_a_time(queries: int) -> int:
    """Rows in one block of a scan that is searched for so many queries."""
    return max(256, min(4096, SCORES_AT_A_TIME // max(1, queries)))


def exact_search(query: Query, blocks: Iterable[Records]) -> list[Hits]:
    """The best rows of each query among rows that come in blocks, compared in float64.

    Args:
        query: what is searched; that rows meet its conditions is the caller's part.
        blocks: rows with their vectors in the field.
    """
    asked = query.vectors.astype(np.float64)
    scores = np.empty((len(asked), 0))
    names = np.empty((len(asked), 0), dtype=object)
    for block in blocks:
        vectors = block.vectors[query.field]
        ids = np.empty(len(block), dtype=object)
        ids[:] = block.ids
        ids, stored = ids[vectors.present], vectors.values[vectors.present].astype(np.float64)
        scores = np.concatenate([scores, SCORES[query.metric](asked, stored)], axis=1)
        if scores.shape[1] > query.k:
            best = np.argpartition(-scores, query.k - 1, axis=1)[:, : query.k]
        else:
            best = np.broadcast_to(np.arange(scores.shape[1]), scores.shape)
        names = np.take_along_axis(
            np.concatenate([names, np.broadcast_to(ids, (len(asked), len(ids)))], axis=1), best, axis=1
        )
        scores = np.take_along_axis(scores, best, axis=1)
    order = np.argsort(-scores, axis=1, kind="stable")
    return [
        Hits(names[row, places].tolist(), scores[row, places].astype(np.float32)) for row, places in enumerate(order)
    ]


def _cosine(queries: Doubles, stored: Doubles) -> Doubles:
    """A zero vector is at no angle to any other: its score is 0."""
    product: Doubles = _units(queries) @ _units(stored).T
    return product


def _units(vectors: Doubles) -> Doubles:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    units: Doubles = np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)
    return units


def _dot(queries: Doubles, stored: Doubles) -> Doubles:
    product: Doubles = queries @ stored.T
    return product


def _l2(queries: Doubles, stored: Doubles) -> Doubles:
    squares = (queries**2).sum(axis=1)[:, None] + (stored**2).sum(axis=1) - 2 * (queries @ stored.T)
    distances: Doubles = np.sqrt(np.maximum(squares, 0))
    return -distances


SCORES: Mapping[Metric, Callable[[Doubles, Doubles], Doubles]] = {"cosine": _cosine, "dot": _dot, "l2": _l2}
"""Metric → scores [q, n] of rows [n, d] for queries [q, d]; larger is better."""
