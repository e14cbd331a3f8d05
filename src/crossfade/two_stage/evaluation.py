"""evaluate_two_stage(): quality and cost of two-stage retrieval by the number of candidates N, beside a full re-index.

One search of the old gallery with the largest N serves every N, because the candidates of a smaller N are the first of a
larger one's. The rank of a query's first right answer is its rank among the N re-ranked candidates where one of them is
right; otherwise its rank in the first stage, whose order goes on behind them. Hence R@K for K > N is defined, and a right
answer that was not recalled stands behind all N candidates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from crossfade.embeddings import Embeddings
from crossfade.errors import EvaluationError
from crossfade.evaluation import Bootstrap, Judgements, PerQuery, Relevance, measure, search
from crossfade.evaluation.leakage import leakage_warning
from crossfade.evaluation.metrics import first_match, parse_metric, reciprocal_rank
from crossfade.evaluation.result import Estimate
from crossfade.evaluation.similarity import Correction
from crossfade.evaluation.systems import AdapterLike, Sets, Sides
from crossfade.spaces import Modality
from crossfade.two_stage.result import METRIC, METRICS, TwoStageDirection, TwoStageEvaluation, TwoStageSize
from crossfade.two_stage.search import rerank_scores
from crossfade.two_stage.traffic import Traffic, expected_embedded, popularity, touch_chances

__all__ = ["evaluate_two_stage", "first_ranks"]

Values = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

SCORED_QUERIES = 512
"""Queries whose candidates' new vectors are in memory together."""


def evaluate_two_stage(
    adapter: AdapterLike,
    *,
    queries: Sets,
    gallery: Sets,
    new_gallery: Sets,
    relevant: Relevance,
    sizes: Sequence[int] = (10, 20, 50, 100, 200, 500),
    level: float = 0.95,
    seed: int = 0,
    old_queries: Sets | None = None,
    traffic: Traffic | None = None,
    corrections: Mapping[str, Correction] | None = None,
    resamples: int = 2000,
) -> TwoStageEvaluation:
    """Measure two-stage retrieval in every direction that ``relevant`` speaks of.

    Args:
        adapter: from the new model's space to the old one's.
        queries: the new model's vectors of held-out queries, one set a modality.
        gallery: the stored old vectors that they search, one set a modality.
        new_gallery: the new model's vectors of the same gallery items.
        relevant: what is right for what.
        sizes: numbers of candidates; one beyond a gallery re-ranks all of it.
        level: confidence level of every interval.
        seed: of the bootstrap, and of which queries are popular.
        old_queries: the old model's vectors of the queries: for the row old/old, and for two-encoder adapters.
        traffic: for which the cost is told; by default 100 to 100,000 queries and Zipf traffic of exponent 1.
        corrections: direction (``text→image``) → what its first stage adds to the scores of the gallery's items; the row
            mapped/old stays plain, so that adapter and correction are told apart.
        resamples: bootstrap resamples behind every interval.

    Raises:
        SpaceMismatch: a set of vectors does not live where its name says.
        EvaluationError: nothing can be evaluated, or an option is out of range.
        InvalidVectors: a vector is not finite, or is zero under cosine.
    """
    numbers = tuple(sorted(set(sizes)))
    traffic = traffic or Traffic()
    if not numbers or numbers[0] < 1:
        raise EvaluationError(f"Numbers of candidates must be 1 or more; found {list(sizes)}.")
    sides = Sides.build(adapter, queries, gallery, old_queries, new_gallery)
    measured: list[_Measured] = []
    warnings: list[str] = []
    for asked in sides.queries:
        for stored in sides.gallery:
            correction = (corrections or {}).get(f"{asked}→{stored}")
            direction = _direction(sides, asked, stored, relevant, numbers, correction, warnings)
            if direction is not None:
                measured.append(direction)
    if not measured:
        raise EvaluationError(
            f"No query can be evaluated: the judgements name no right answer in a gallery with new vectors. "
            f"{' '.join(warnings)} Check that queries, judgements and galleries use the same ids."
        )
    bootstraps = [Bootstrap(m.judgements.groups, resamples=resamples, level=level, seed=seed) for m in measured]
    directions = tuple(m.result(b, traffic, seed) for m, b in zip(measured, bootstraps, strict=True))
    return TwoStageEvaluation(
        source=adapter.source.to_dict(),
        target=adapter.target.to_dict(),
        method=type(adapter).__name__ if adapter.provenance is None else adapter.provenance.method,
        directions=directions,
        mean_reached=_mean_reached(measured, bootstraps),
        exponent=traffic.exponent,
        warnings=tuple(warnings),
        level=level,
        resamples=resamples,
        seed=seed,
    )


def first_ranks(candidates: Ints, scores: npt.NDArray[np.float32], right: Flags, recalled: Ints) -> Ints:
    """The rank, from 1, of each query's first right answer once its candidates are re-ranked: [q].

    Args:
        candidates: [q, N] gallery rows.
        scores: [q, N] in the new space; −∞ where there is no candidate.
        right: [q, N] which candidates are right answers.
        recalled: [q] rank of the first right answer in the first stage; it holds where no candidate is right.
    """
    best = np.where(right, scores, -np.inf).max(axis=1)
    level = scores == best[:, None]
    row = np.where(level & right, candidates, np.iinfo(np.int64).max).min(axis=1)
    ahead = (scores > best[:, None]) | (level & (candidates < row[:, None]))
    ranks = 1 + np.count_nonzero(ahead, axis=1)
    behind = np.maximum(recalled, candidates.shape[1] + 1)
    first: Ints = np.where(right.any(axis=1), ranks, behind)
    return first


@dataclass(frozen=True)
class _Measured:
    """One direction before its intervals: per-query values of every system and size.

    Attributes:
        systems: system → per-query metrics.
        sizes: N → per-query metrics of two stages.
        candidates: [q, largest N] gallery rows, best of the first stage first.
        right: [q, largest N] which of them are right answers.
    """

    name: str
    gallery: int
    judgements: Judgements
    systems: dict[str, PerQuery]
    sizes: dict[int, PerQuery]
    candidates: Ints
    right: Flags

    def result(self, bootstrap: Bootstrap, traffic: Traffic, seed: int) -> TwoStageDirection:
        """Means with intervals, and the cost."""
        queries = len(self.candidates)
        full = self.systems["new/new"]
        chances = [popularity(queries, exponent=a, seed=seed) for a in (0.0, traffic.exponent)]
        sizes = []
        for number, found in self.sizes.items():
            candidates = self.candidates[:, :number]
            recalled = np.asarray(self.right[:, :number].any(axis=1), dtype=np.float64)
            embedded = len(np.unique(candidates[candidates >= 0]))
            uniform, zipf = (
                {s: round(expected_embedded(touched, s), 3) for s in traffic.served}
                for touched in (touch_chances(candidates, p, gallery=self.gallery) for p in chances)
            )
            sizes.append(
                TwoStageSize(
                    candidates=number,
                    metrics=_estimates(found, bootstrap),
                    recalled=bootstrap.estimate(float(recalled.mean()), bootstrap.means(recalled[:, None])[:, 0]),
                    reached={m: _ratio(found.values[m], full.values[m], bootstrap) for m in METRICS},
                    embedded=embedded,
                    saved=1.0 - embedded / self.gallery,
                    uniform=uniform,
                    zipf=zipf,
                )
            )
        systems = {name: _estimates(found, bootstrap) for name, found in self.systems.items()}
        return TwoStageDirection(self.name, queries, self.gallery, systems, tuple(sizes))


def _direction(
    sides: Sides,
    asked: Modality,
    stored: Modality,
    relevant: Relevance,
    sizes: tuple[int, ...],
    correction: Correction | None,
    warnings: list[str],
) -> _Measured | None:
    """Measure one direction; None where there is nothing to measure. Adds to ``warnings``."""
    gallery, name = sides.gallery[stored], f"{asked}→{stored}"
    judgements = relevant.judge(sides.queries[asked], gallery)
    if judgements is None or not judgements.answerable().any():
        return None
    adapter, old, renewed = sides.adapter, sides.old_queries.get(asked), sides.new_gallery.get(stored)
    reason = None
    if asked not in adapter.modalities:
        reason = f"the adapter was fitted for {', '.join(adapter.modalities)} only"
    elif renewed is None:
        reason = f"the new vectors of the {stored} gallery are not at hand"
    elif adapter.two_encoders and old is None:
        reason = "a two-encoder adapter needs the old vectors of the queries"
    if reason is not None or renewed is None:
        warnings.append(f"{name} is left out: {reason}.")
        return None
    answerable = judgements.answerable()
    if not answerable.all():
        left_out = int((~answerable).sum())
        warnings.append(f"{name}: {left_out} of {len(answerable)} queries have no right answer and are left out.")
    rows = np.flatnonzero(answerable)
    judgements = judgements.select(rows)
    new = sides.queries[asked].select(rows)
    before = None if old is None else old.select(rows)
    leak = None
    if adapter.provenance is not None and len(adapter.provenance.fitted_on):
        leak = leakage_warning(new, gallery, judgements, adapter.provenance.fitted_on)
    warnings += [] if leak is None else [leak]
    mapped = adapter.transform(new, old=before) if adapter.two_encoders else adapter.transform(new)
    asking = {"mapped/old": (mapped, gallery), "new/new": (new, renewed)}
    if before is not None:
        asking = {"old/old": (before, gallery), **asking}
    systems = {s: measure(q, g, judgements, metrics=METRICS) for s, (q, g) in asking.items()}
    own = bool((judgements.own >= 0).any())
    depth = min(len(gallery), sizes[-1])
    candidates = search(mapped, gallery, k=depth, exclude_same_id=own, correction=correction).rows
    first_stage = systems["mapped/old"].first
    if correction is not None:
        first_stage = measure(mapped, gallery, judgements, metrics=METRICS, correction=correction).first
    right = np.stack([np.isin(row, judgements.positives(query)) for query, row in enumerate(candidates)])
    scores = _scores(new, renewed, candidates)
    recalled = np.where(right.any(axis=1), right.argmax(axis=1) + 1, np.maximum(first_stage, depth + 1))
    found = {n: _per_query(first_ranks(candidates[:, :n], scores[:, :n], right[:, :n], recalled)) for n in sizes}
    return _Measured(name, len(gallery), judgements, systems, found, candidates, right)


def _scores(queries: Embeddings, gallery: Embeddings, candidates: Ints) -> npt.NDArray[np.float32]:
    """Scores in the new space of each query's candidates: [q, N]; −∞ where a row is −1."""
    scores = np.empty(candidates.shape, dtype=np.float32)
    for start in range(0, len(queries), SCORED_QUERIES):
        part = candidates[start : start + SCORED_QUERIES]
        distinct, place = np.unique(np.maximum(part, 0), return_inverse=True)
        asked = queries.rows.read(start, start + len(part))
        vectors = gallery.rows.take(distinct)
        scores[start : start + len(part)] = rerank_scores(
            asked, vectors, place.reshape(part.shape), queries.space.metric
        )
    return np.where(candidates >= 0, scores, np.float32(-np.inf))


def _per_query(first: Ints) -> PerQuery:
    names = [parse_metric(name) for name in METRICS]
    return PerQuery(
        first, {n.name: reciprocal_rank(first) if n.kind == "MRR" else first_match(first, n.k) for n in names}
    )


def _estimates(found: PerQuery, bootstrap: Bootstrap) -> dict[str, Estimate]:
    values = np.stack([found.values[name] for name in METRICS], axis=1)
    resampled = bootstrap.means(values)
    return {name: bootstrap.estimate(float(values[:, i].mean()), resampled[:, i]) for i, name in enumerate(METRICS)}


def _ratio(part: Values, whole: Values, bootstrap: Bootstrap) -> Estimate | None:
    """mean(part) / mean(whole), paired over queries; None where the whole is zero or the interval has no ends."""
    if whole.mean() <= 0.0:
        return None
    resampled = bootstrap.means(np.stack([part, whole], axis=1))
    return bootstrap.ratio(float(part.mean() / whole.mean()), resampled[:, 0], resampled[:, 1])


def _mean_reached(measured: list[_Measured], bootstraps: list[Bootstrap]) -> dict[int, Estimate | None]:
    """Σ over directions of mean R@10 under N, over the same of new/new."""
    reached: dict[int, Estimate | None] = {}
    for number in measured[0].sizes:
        parts = [
            np.stack([m.sizes[number].values[METRIC], m.systems["new/new"].values[METRIC]], axis=1) for m in measured
        ]
        value = np.stack([part.mean(axis=0) for part in parts]).sum(axis=0)
        resampled = np.stack([b.means(part) for b, part in zip(bootstraps, parts, strict=True)]).sum(axis=0)
        ratio = float(value[0] / value[1]) if value[1] > 0.0 else None
        reached[number] = None if ratio is None else bootstraps[0].ratio(ratio, resampled[:, 0], resampled[:, 1])
    return reached
