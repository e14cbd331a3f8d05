"""What an evaluation of two-stage retrieval found: quality and cost by the number of candidates, and which to take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from crossfade.errors import EvaluationError
from crossfade.evaluation.result import Estimate

__all__ = ["METRICS", "Recommendation", "TwoStageDirection", "TwoStageEvaluation", "TwoStageSize"]

METRICS = ("R@1", "R@5", "R@10", "MRR")
"""The metrics of every row; for labels R@K is CMC@K."""

METRIC = "R@10"
"""The metric by which a size is recommended unless another is asked for."""

SHARE = 0.98
"""The share of a full re-index that a recommended size reaches unless another is asked for."""


@dataclass(frozen=True, slots=True)
class TwoStageSize:
    """One number of candidates in one direction.

    Attributes:
        candidates: N.
        metrics: of the re-ranked list.
        recalled: share of queries with a right answer among the N candidates: what re-ranking cannot exceed.
        reached: metric → its ratio to new/new, paired; None where new/new is too near zero for an interval.
        embedded: distinct gallery items that the evaluated queries, each asked once, have as candidates.
        saved: share of the gallery that is then still not embedded.
        uniform: queries served → expected number of distinct items embedded, under uniform traffic.
        zipf: the same under Zipf traffic.
    """

    candidates: int
    metrics: Mapping[str, Estimate]
    recalled: Estimate
    reached: Mapping[str, Estimate | None]
    embedded: int
    saved: float
    uniform: Mapping[int, float]
    zipf: Mapping[int, float]


@dataclass(frozen=True, slots=True)
class TwoStageDirection:
    """One direction of retrieval, such as ``text→image``.

    Attributes:
        name: query modality → gallery modality.
        queries: how many queries.
        gallery: how many gallery items.
        systems: ``old/old`` (where the old vectors of the queries are known), ``mapped/old`` (one stage) and ``new/new``
            (a full re-index) → metric → estimate.
        sizes: ascending.
    """

    name: str
    queries: int
    gallery: int
    systems: Mapping[str, Mapping[str, Estimate]]
    sizes: tuple[TwoStageSize, ...]


@dataclass(frozen=True, slots=True)
class Recommendation:
    """Which number of candidates to take.

    Attributes:
        candidates: the smallest N that reaches ``share`` in every direction; None where none of those measured does.
        metric: what was asked of it.
        share: of new/new.
        certain: whether the lower end of the paired interval had to reach it, and not the mean alone.
        sentence: all of this in plain words, with the cost.
    """

    candidates: int | None
    metric: str
    share: float
    certain: bool
    sentence: str


@dataclass(frozen=True, slots=True)
class TwoStageEvaluation:
    """Two-stage retrieval beside one stage and a full re-index.

    Attributes:
        source: the new space.
        target: the old space.
        method: how the adapter was made.
        directions: every direction that could be measured.
        mean_reached: N → the mean R@10 over directions as a share of new/new's, paired; None as in
            :attr:`TwoStageSize.reached`.
        exponent: of Zipf traffic.
        warnings: what to know before believing the numbers.
        level: confidence level of the intervals.
        resamples: bootstrap resamples behind them.
        seed: of the bootstrap and of the order of popularity.
    """

    source: Mapping[str, Any]
    target: Mapping[str, Any]
    method: str
    directions: tuple[TwoStageDirection, ...]
    mean_reached: Mapping[int, Estimate | None]
    exponent: float
    warnings: tuple[str, ...]
    level: float
    resamples: int
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON values; numbers as keys become texts when written."""
        return {"kind": "two-stage evaluation", **asdict(self)}

    def recommend(self, *, metric: str = METRIC, share: float = SHARE, certain: bool = False) -> Recommendation:
        """The smallest measured N whose ``metric`` is at least ``share`` of new/new's in every direction.

        Args:
            metric: one of R@1, R@5, R@10, MRR.
            share: of new/new, above 0 and at most 1.
            certain: ask it of the lower end of the paired interval, and not of the mean alone.

        Raises:
            EvaluationError: an argument is out of range.
        """
        if metric not in METRICS:
            raise EvaluationError(f"A metric to recommend by must be one of {', '.join(METRICS)}; found {metric!r}.")
        if not 0.0 < share <= 1.0:
            raise EvaluationError(f"The share of new/new must lie above 0 and at most at 1; found {share}.")
        for columns in zip(*(direction.sizes for direction in self.directions), strict=True):
            estimates = [size.reached[metric] for size in columns]
            if all(e is not None and (e.low if certain else e.value) >= share for e in estimates):
                sentence = self._yes(columns, metric, share, certain)
                return Recommendation(columns[0].candidates, metric, share, certain, sentence)
        return Recommendation(None, metric, share, certain, self._no(metric, share, certain))

    def _yes(self, columns: tuple[TwoStageSize, ...], metric: str, share: float, certain: bool) -> str:
        told = []
        for direction, size in zip(self.directions, columns, strict=True):
            told.append(
                f"{_share(size.reached[metric])} on {direction.queries:,} {direction.name} queries over a gallery of "
                f"{direction.gallery:,}{self._cost(direction, size)}"
            )
        how = f"at {self.level:.0%} confidence" if certain else "on average"
        return (
            f"Take N = {columns[0].candidates}: the smallest measured whose {metric} is at least {share:.1%} of a full "
            f"re-index {how}; it reaches {'; '.join(told)}."
        )

    def _cost(self, direction: TwoStageDirection, size: TwoStageSize) -> str:
        within = [served for served in size.zipf if served <= direction.queries]
        if not within:
            return ""
        served = within[-1]
        uniform, zipf = (side[served] / direction.gallery for side in (size.uniform, size.zipf))
        return f", of which {served:,} queries embed {zipf:.0%} (Zipf traffic) to {uniform:.0%} (uniform)"

    def _no(self, metric: str, share: float, certain: bool) -> str:
        sizes = self.directions[0].sizes
        told = [f"{_share(d.sizes[-1].reached[metric])} {d.name}" for d in self.directions]
        how = f"at {self.level:.0%} confidence" if certain else "on average"
        return (
            f"No measured N has a {metric} of at least {share:.1%} of a full re-index {how}: N = {sizes[-1].candidates}, the "
            f"largest, reaches {'; '.join(told)}. Measure larger N, fit a better adapter, or ask for a smaller share."
        )


def _share(estimate: Estimate | None) -> str:
    if estimate is None:
        return "an unknown share"
    return f"{estimate.value:.1%} [{estimate.low:.1%}, {estimate.high:.1%}]"
