"""The metrics, as pure functions on ranks: no vectors, no ids, one value a query.

Three numbers about a query's positives (the right gallery items) are all that any of them needs:

* ``first``: the rank, from 1, of the best positive; of equal scores the lower gallery row comes first, as in
  :func:`~crossfade.evaluation.search.search`;
* ``above`` [m]: for each positive, how many gallery items score strictly higher;
* ``reached`` [m]: for each positive, how many gallery items score at least as high, itself included.

The query's own item is no part of the gallery where it is excluded.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from crossfade.errors import EvaluationError

__all__ = [
    "MetricName",
    "average_precision",
    "first_match",
    "ndcg",
    "parse_metric",
    "reciprocal_rank",
]

Ints = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]


def first_match(first: Ints, k: int) -> Values:
    """R@K with any positive, which is also CMC@K: 1 where a positive is among the first K, else 0: [q].

    Args:
        first: [q] rank of the first positive.
        k: how deep to look.
    """
    return (first <= k).astype(np.float64)


def reciprocal_rank(first: Ints) -> Values:
    """1 / rank of the first positive: [q]; its mean is MRR."""
    return 1.0 / first


def average_precision(reached: Ints) -> float:
    """Average precision by scikit-learn's rule: items of equal score are retrieved together.

    AP = Σ_t (R_t − R_{t−1})·P_t over the distinct scores t, which is the mean over positives of
    (positives that score at least as high) / (gallery items that score at least as high).

    Args:
        reached: [m] counts for the m ≥ 1 positives, ascending.
    """
    positives = np.arange(1, len(reached) + 1)
    if len(reached) > 1 and (reached[1:] == reached[:-1]).any():
        positives = np.searchsorted(reached, reached, side="right")
    return float(np.mean(positives / reached))


def ndcg(above: Ints, reached: Ints, grades: Values, *, k: int) -> float:
    """nDCG@K by scikit-learn's ``ndcg_score``: linear gain, discount 1/log₂(rank + 1), ties share discounts.

    Args:
        above: [m] for each positive.
        reached: [m] for each positive.
        grades: [m] relevance of each positive, above 0.
        k: how deep to look.
    """
    discounts = np.concatenate([[0.0], np.cumsum(1.0 / np.log2(np.arange(2, k + 2)))])
    shared = (discounts[np.minimum(reached, k)] - discounts[np.minimum(above, k)]) / (reached - above)
    ideal = np.sort(grades)[::-1][:k]
    return float((grades * shared).sum() / (ideal * np.diff(discounts)[: len(ideal)]).sum())


@dataclass(frozen=True, slots=True)
class MetricName:
    """A metric's name, taken apart: ``kind`` is R, CMC, mAP, nDCG or MRR; ``k`` is 0 where all ranks count."""

    name: str
    kind: str
    k: int

    @property
    def needs_all(self) -> bool:
        """Whether the ranks of all positives are needed, and not of the first alone."""
        return self.kind in ("mAP", "nDCG")


def parse_metric(name: str) -> MetricName:
    """Take ``R@5``, ``CMC@1``, ``nDCG@10``, ``mAP`` or ``MRR`` apart.

    Raises:
        EvaluationError: the name is none of these.
    """
    match = re.fullmatch(r"(?:(R|CMC|nDCG)@([1-9]\d*))|(mAP|MRR)", name)
    if match is None:
        raise EvaluationError(f"A metric must be R@K, CMC@K, nDCG@K, mAP or MRR; found {name!r}.")
    return MetricName(name, match[1] or match[3], int(match[2] or 0))
