"""Scores of a few rows that are in memory, as their space compares them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from crossfade.spaces import Space

__all__ = ["compared", "scores"]

Floats = npt.NDArray[np.float32]


def compared(rows: Floats, space: Space) -> Floats:
    """Rows [b, d] as a space compares them: of unit norm under cosine."""
    if space.metric != "cosine":
        return rows
    unit: Floats = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


def scores(queries: Floats, rows: Floats, space: Space) -> Sequence[Floats]:
    """[q, b] scores of rows under a space's metric.

    Args:
        queries: float32 [q, d]; of cosine spaces, too, they need no unit norm.
        rows: float32 [b, d], as :func:`compared` gives them.
        space: whose metric compares them.
    """
    if space.metric == "l2":
        squares = (queries**2).sum(axis=1)[:, None] - 2.0 * queries @ rows.T + (rows**2).sum(axis=1)
        distances: Floats = -np.sqrt(np.maximum(squares, 0.0))
        return list(distances)
    return list(compared(queries, space) @ rows.T)
