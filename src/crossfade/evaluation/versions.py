"""Sequences of models: the compatibility matrix, average compatibility and multi-model accuracy (CoReS, 2111.07632)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from crossfade.embeddings import Embeddings
from crossfade.errors import EvaluationError
from crossfade.evaluation.ranks import measure
from crossfade.evaluation.relevance import Relevance

__all__ = ["average_compatibility", "average_multimodel_accuracy", "compatibility_matrix"]

Matrix = npt.NDArray[np.float64]


def compatibility_matrix(
    queries: Sequence[Sequence[Embeddings]], galleries: Sequence[Embeddings], *, relevant: Relevance, metric: str
) -> Matrix:
    """M [t, t], lower triangular: M_ij is the metric of version i's queries on version j's gallery, j ≤ i; NaN above.

    Args:
        queries: ``queries[i][j]`` are version i's queries in the space of gallery j, for j = 0 … i.
        galleries: one of each version, oldest first.
        relevant: what is right for what; queries without a positive are left out.
        metric: ``R@K``, ``CMC@K``, ``mAP``, ``nDCG@K`` or ``MRR``.

    Raises:
        EvaluationError: a row has not as many sets as versions up to it, or no query has a positive.
        SpaceMismatch: queries are not in the space of the gallery that they search.
    """
    if len(queries) != len(galleries) or any(len(row) != i + 1 for i, row in enumerate(queries)):
        raise EvaluationError(
            f"Version i must have queries for the galleries 0 to i; found {[len(row) for row in queries]} for "
            f"{len(galleries)} galleries."
        )
    matrix = np.full((len(galleries), len(galleries)), np.nan)
    for i, row in enumerate(queries):
        for j, asked in enumerate(row):
            judgements = relevant.judge(asked, galleries[j])
            rows = np.empty(0, np.int64) if judgements is None else np.flatnonzero(judgements.answerable())
            if judgements is None or len(rows) == 0:
                raise EvaluationError(f"No query of version {i} has a right answer in gallery {j}. Check their ids.")
            found = measure(asked.select(rows), galleries[j], judgements.select(rows), metrics=[metric])
            matrix[i, j] = found.values[metric].mean()
    return matrix


def average_compatibility(matrix: Matrix) -> float:
    """AC: the share of pairs i > j with M_ij > M_jj, strictly. (CoReS and its successors differ about equality.)

    Args:
        matrix: [t, t], of which the lower triangle is read; t ≥ 2.

    Raises:
        EvaluationError: the matrix is not square, has fewer than two versions, or its lower triangle is not finite.
    """
    lower = _lower(matrix, minimum=2)
    i, j = np.tril_indices(len(lower), -1)
    return float(np.mean(lower[i, j] > lower[j, j]))


def average_multimodel_accuracy(matrix: Matrix) -> float:
    """AM: the mean of M_ij over i ≥ j, the diagonal included.

    Args:
        matrix: [t, t], of which the lower triangle is read.

    Raises:
        EvaluationError: the matrix is not square, or its lower triangle is not finite.
    """
    lower = _lower(matrix, minimum=1)
    return float(np.mean(lower[np.tril_indices(len(lower))]))


def _lower(matrix: Matrix, *, minimum: int) -> Matrix:
    values = np.asarray(matrix, dtype=np.float64)
    if values.ndim != 2 or values.shape[0] != values.shape[1] or len(values) < minimum:
        raise EvaluationError(
            f"A compatibility matrix must be square with at least {minimum} versions; found {values.shape}."
        )
    if not np.isfinite(values[np.tril_indices(len(values))]).all():
        raise EvaluationError("Every entry on and below the diagonal must be finite. Measure the missing ones.")
    return values
