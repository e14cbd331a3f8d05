"""Scores of a few rows that are in memory, as their space compares them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from crossfade.spaces import Space

__all__ = ["scores"]

Floats = npt.NDArray[np.float32]


def scores(queries: Floats, rows: Floats, space: Space) -> Sequence[Floats]:
    """[q, b] scores of rows under a space's metric; rows and queries of cosine spaces need no unit norm.

    Args:
        queries: float32 [q, d].
        rows: float32 [b, d].
        space: whose metric compares them.
    """
    if space.metric == "l2":
        squares = (queries**2).sum(axis=1)[:, None] - 2.0 * queries @ rows.T + (rows**2).sum(axis=1)
        distances: Floats = -np.sqrt(np.maximum(squares, 0.0))
        return list(distances)
    if space.metric == "cosine":
        queries, rows = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (queries, rows))
    return list(queries @ rows.T)
