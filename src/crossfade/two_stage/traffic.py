"""What traffic costs: how many distinct gallery items two-stage retrieval has embedded after so many queries.

Queries are drawn from a query set with replacement. With p_q the chance that the next query is q, and C(q) its N
candidates, item i is a candidate of one query with the chance

    P_i = Σ_{q : i ∈ C(q)} p_q                                                                                        (1)

and after s queries the expected number of distinct items embedded is

    E(s) = Σ_i 1 − (1 − P_i)^s                                                                                        (2)

Uniform traffic has p_q = 1 / q; Zipf traffic has p_q ∝ r_q^(−a), where r_q is the query's rank in a random order of
popularity. (2) is exact, so there is nothing to simulate: only the order of popularity is random, and seeded.

A query set is finite, and so is what it can touch: beyond as many queries as it holds, traffic that brings new queries
touches more than (2) says.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from crossfade.errors import EvaluationError

__all__ = ["Traffic", "expected_embedded", "popularity", "touch_chances"]

Values = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """The traffic for which costs are shown.

    Attributes:
        exponent: a of Zipf traffic, above 0; about 1 is what logs of search engines show.
        served: numbers of queries after which the cost is told.

    Raises:
        EvaluationError: a value is out of range.
    """

    exponent: float = 1.0
    served: tuple[int, ...] = (100, 1_000, 10_000, 100_000)

    def __post_init__(self) -> None:
        if not 0.0 < self.exponent < 100.0:
            raise EvaluationError(f"The exponent of Zipf traffic must lie above 0; found {self.exponent}.")
        if not self.served or any(s < 1 for s in self.served) or list(self.served) != sorted(set(self.served)):
            raise EvaluationError(f"Numbers of queries served must be 1 or more and ascend; found {self.served}.")


def popularity(queries: int, *, exponent: float, seed: int) -> Values:
    """p_q ∝ r_q^(−exponent), r_q a random order of 1 … q: [q], summing to 1; exponent 0 is uniform traffic."""
    ranks = np.random.default_rng(seed).permutation(queries) + 1.0
    weights = ranks**-exponent
    return np.asarray(weights / weights.sum())


def touch_chances(candidates: Ints, chances: Values, *, gallery: int) -> Values:
    """P_i of every gallery item: [gallery].

    Args:
        candidates: [q, N] distinct gallery rows of each query; −1 is none.
        chances: [q] p_q.
        gallery: number of gallery items.
    """
    weights = np.broadcast_to(chances[:, None], candidates.shape)
    present = candidates >= 0
    touched = np.bincount(candidates[present], weights=weights[present], minlength=gallery)  # Eq. (1)
    return touched.astype(np.float64)


def expected_embedded(touched: Values, served: int) -> float:
    """E(s) for the items' ``touched`` chances P_i after ``served`` queries."""
    with np.errstate(divide="ignore"):  # an item that every query touches: log 0, and 1 − e^−∞ = 1
        return float(-np.expm1(served * np.log1p(-np.minimum(touched, 1.0))).sum())  # Eq. (2)
