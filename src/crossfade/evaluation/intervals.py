"""Bootstrap intervals over queries, and how many queries a decision needs.

Groups of queries are resampled with replacement (queries that ask for exactly the same items, such as five captions of one
image, are one group, because they succeed and fail together). One set of resamples serves every system and metric, so that
their differences are paired. Intervals are percentile intervals: they never leave a metric's range, and they need no
assumption about its distribution (Efron and Tibshirani, 1993, chapter 13).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from crossfade.errors import EvaluationError
from crossfade.evaluation.result import Estimate

__all__ = ["Bootstrap", "more_queries_needed"]

Values = npt.NDArray[np.float64]

CHUNK_WEIGHTS = 1 << 22
"""Weights drawn at a time: 32 MB."""

KEPT_WEIGHTS = 1 << 25
"""Weights that are kept for the next call, if there are no more: 64 MB, in 16 bits, since a group is drawn once on average."""

POWER = 0.8
"""Chance of deciding that a sample size is asked to give."""

HOPELESS = 100
"""A decision that needs more than this many times the queries at hand is not worth naming a number for."""


class Bootstrap:
    """Resamples of groups of queries, the same for every column and at each call; only a few are kept, more are drawn anew.

    Args:
        groups: [q] integers; queries of one group are drawn together.
        resamples: how many.
        level: confidence level, 0 < level < 1.
        seed: of the draws.

    Raises:
        EvaluationError: an argument is out of range.
    """

    def __init__(self, groups: npt.NDArray[np.int64], *, resamples: int, level: float, seed: int) -> None:
        if not 0.0 < level < 1.0:
            raise EvaluationError(f"A confidence level must lie between 0 and 1; found {level}.")
        if resamples < 100:
            raise EvaluationError(f"An interval needs at least 100 resamples; found {resamples}.")
        self.members, self.group = np.unique(groups, return_inverse=True)
        self.resamples = resamples
        self.level = level
        self.seed = seed
        self._kept: list[npt.NDArray[np.uint16]] | None = None

    @property
    def groups(self) -> int:
        """Number of groups."""
        return len(self.members)

    def means(self, values: Values) -> Values:
        """The mean of each column in each resample: [q, c] → [resamples, c]."""
        columns = [*values.T, np.ones(len(values))]
        sums = np.stack([np.bincount(self.group, weights=c, minlength=self.groups) for c in columns], axis=1)
        out, start = np.empty((self.resamples, values.shape[1])), 0
        for weights in self._weights():
            totals = weights.astype(np.float64) @ sums
            out[start : start + len(weights)] = totals[:, :-1] / totals[:, -1:]
            start += len(weights)
        return out

    def estimate(self, value: float, resampled: Values) -> Estimate:
        """The percentile interval of ``resampled`` [resamples] around ``value``."""
        tail = (1.0 - self.level) / 2.0
        low, high = np.quantile(resampled, [tail, 1.0 - tail])
        return Estimate(float(value), float(low), float(high))

    def _weights(self) -> Iterable[npt.NDArray[np.integer]]:
        """How often each group is drawn, [some resamples, groups] at a time."""
        if self._kept is None and self.resamples * self.groups <= KEPT_WEIGHTS:
            self._kept = [weights.astype(np.uint16) for weights in self._drawn()]
        return self._drawn() if self._kept is None else self._kept

    def _drawn(self) -> Iterator[npt.NDArray[np.int64]]:
        generator = np.random.default_rng(self.seed)
        step = max(1, CHUNK_WEIGHTS // self.groups)
        for start in range(0, self.resamples, step):
            count = min(step, self.resamples - start)
            drawn = generator.integers(0, self.groups, size=(count, self.groups), dtype=np.int32)
            flat = (drawn + (np.arange(count) * self.groups)[:, None]).ravel()
            yield np.bincount(flat, minlength=count * self.groups).reshape(count, self.groups)

    def ratio(self, value: float, numerator: Values, denominator: Values) -> Estimate | None:
        """The interval of a ratio of two resampled quantities; None where it has no finite ends.

        A resample whose denominator is not above zero counts as infinite on the side of its numerator.
        """
        infinite = np.where(numerator >= 0, np.inf, -np.inf)
        safe = np.where(denominator > 0, denominator, 1.0)
        ratios = np.where(denominator > 0, numerator / safe, infinite)
        tail = (1.0 - self.level) / 2.0
        low, high = np.quantile(ratios, [tail, 1.0 - tail], method="nearest")
        return Estimate(value, float(low), float(high)) if np.isfinite([low, high]).all() else None


def more_queries_needed(
    difference: Values, groups: npt.NDArray[np.int64] | None = None, *, level: float = 0.95, power: float = POWER
) -> int | None:
    """How many more queries would decide, with the chance ``power``, if the observed difference is the true one.

    The normal approximation: n' = n·((z_{(1+level)/2} + z_power)·SE / |mean|)², SE the standard error over groups.

    Args:
        difference: [q] per-query difference of two systems.
        groups: [q] queries that stand or fall together; each its own by default.
        level: confidence level of the interval that is to exclude zero.
        power: chance that it then does.

    Returns:
        At least 1; None where the difference is zero, or more than 100 times the queries at hand would be needed.
    """
    queries = len(difference)
    mean = float(np.mean(difference))
    group = np.arange(queries) if groups is None else np.unique(groups, return_inverse=True)[1]
    count = int(group.max()) + 1
    if count < 2 or mean == 0.0:
        return None
    residuals = np.bincount(group, weights=difference - mean)
    error = math.sqrt(float((residuals**2).sum()) * count / (count - 1)) / queries
    if error == 0.0:
        return 1
    normal = NormalDist()
    z = normal.inv_cdf(0.5 + level / 2.0) + normal.inv_cdf(power)
    needed = queries * (z * error / mean) ** 2
    if needed > HOPELESS * queries:
        return None
    return max(1, math.ceil(needed - queries))
