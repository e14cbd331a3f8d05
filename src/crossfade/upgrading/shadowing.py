"""Shadowing: queries answered both ways, the old way served, and what differs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from crossfade.embeddings import Embeddings
from crossfade.errors import EvaluationError
from crossfade.evaluation import Bootstrap, Estimate
from crossfade.spaces import require_same
from crossfade.stores import Hits, Store
from crossfade.upgrading.upgrade import Upgrade

__all__ = ["Latency", "Shadow", "shadow_glimpses", "shadow_queries"]

RESAMPLES, LEVEL = 2000, 0.95
MILLISECONDS = 1e3
TIMED, TOGETHER = 100, 256
"""Queries that are asked one by one, by which latency is told; of the others, how many are asked in one call."""


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds a query, one query at a time."""

    p50: float
    p95: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Latency:
        """Of measured seconds."""
        p50, p95 = np.percentile(np.asarray(seconds) * MILLISECONDS, [50, 95])
        return cls(round(float(p50), 3), round(float(p95), 3))


@dataclass(frozen=True, slots=True)
class Shadow:
    """What queries found both ways.

    Attributes:
        queries: how many were asked.
        k: how many rows each found; of live queries at most.
        agreement: |both| / k, mean over queries: how much of an answer stays.
        same_first: share of queries whose first row stays.
        old: latency the old way.
        mapped: latency through the adapter.
        judged: queries whose right answers are known; what follows is of these, and None where there are none.
        before: R@k the old way.
        after: R@k through the adapter.
        change: after − before, paired.
        negative_flips: share of queries that found a right row and no longer do.
        positive_flips: the reverse.
    """

    queries: int
    k: int
    agreement: Estimate
    same_first: Estimate
    old: Latency
    mapped: Latency
    judged: int = 0
    before: Estimate | None = None
    after: Estimate | None = None
    change: Estimate | None = None
    negative_flips: float | None = None
    positive_flips: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def shadow_queries(
    upgrade: Upgrade,
    store: Store,
    *,
    old: Embeddings,
    new: Embeddings,
    k: int = 10,
    right: Mapping[str, Sequence[str]] | None = None,
    seed: int = 0,
) -> Shadow:
    """Ask every query both ways; nothing is changed.

    Args:
        upgrade: whose adapter maps the new vectors.
        store: the collection.
        old: logged queries by the old model.
        new: the same by the new one; they are joined by id.
        k: rows for each.
        right: query → the ids of right rows, where they are known.
        seed: of the intervals.

    Raises:
        SpaceMismatch: the vectors are of other spaces than the upgrade's.
        EvaluationError: no query is in both.
    """
    require_same(old.space, upgrade.old, what="The old model's queries")
    require_same(new.space, upgrade.new, what="The new model's queries")
    rows = new.locate(old.ids)
    both = np.flatnonzero(rows >= 0)
    if not len(both):
        raise EvaluationError(
            "No query is there by both models: their ids do not join. Encode the same queries by both."
        )
    ids = old.ids[both].tolist()
    mine = _answers(store, upgrade, old.select(both).matrix(), k)
    mapped = upgrade.adapter.map(new.select(rows[both]).matrix(), new.modality)
    theirs = _answers(store, upgrade, mapped, k)
    answers = list(zip(mine.hits, theirs.hits, strict=True))
    estimate = _Estimates(len(ids), seed)
    agreement = estimate([len(set(a.ids) & set(b.ids)) / k for a, b in answers])
    same = estimate([float(a.ids[:1] == b.ids[:1]) for a, b in answers])
    wanted = (
        {} if right is None else {n: {str(each) for each in right[name]} for n, name in enumerate(ids) if name in right}
    )
    shadow = Shadow(len(ids), k, agreement, same, old=mine.latency, mapped=theirs.latency)
    if not wanted:
        return shadow
    before, after = (
        np.asarray([float(not row.isdisjoint(map(str, way[place].ids))) for place, row in wanted.items()])
        for way in (mine.hits, theirs.hits)
    )
    estimate = _Estimates(len(wanted), seed)
    return replace(
        shadow,
        judged=len(wanted),
        before=estimate(before),
        after=estimate(after),
        change=estimate(after - before),
        negative_flips=float((before > after).mean()),
        positive_flips=float((after > before).mean()),
    )


def shadow_glimpses(upgrade: Upgrade, *, seed: int = 0) -> Shadow:
    """What live queries showed so far, which a :class:`~crossfade.upgrading.Searcher` answered both ways.

    Args:
        upgrade: whose state holds them.
        seed: of the intervals.

    Raises:
        EvaluationError: there are none.
    """
    seen = upgrade.state.glimpses()
    if not seen:
        raise EvaluationError(
            "No live query was answered both ways. Let the application search by Searcher(…, old=…, new=…, shadow=0.1), or "
            "give logged queries."
        )
    estimate = _Estimates(len(seen), seed)
    return Shadow(
        len(seen),
        max(each.k for each in seen),
        estimate([each.agreement for each in seen]),
        estimate([float(each.same_first) for each in seen]),
        old=Latency.of([each.old_seconds for each in seen]),
        mapped=Latency.of([each.mapped_seconds for each in seen]),
    )


class _Estimates:
    """Means over the same queries, with intervals of the same resamples."""

    def __init__(self, queries: int, seed: int) -> None:
        self._bootstrap = Bootstrap(np.arange(queries), resamples=RESAMPLES, level=LEVEL, seed=seed)

    def __call__(self, values: Sequence[float] | npt.NDArray[np.float64]) -> Estimate:
        each = np.asarray(values, dtype=np.float64)
        return self._bootstrap.estimate(float(each.mean()), self._bootstrap.means(each[:, None])[:, 0])


@dataclass(frozen=True, eq=False, slots=True)
class _Answers:
    """What one way of asking found, and how long each query took."""

    hits: list[Hits]
    latency: Latency


def _answers(store: Store, upgrade: Upgrade, vectors: npt.NDArray[np.float32], k: int) -> _Answers:
    """The first queries one by one, which is timed, and the others together."""
    hits, seconds = [], []
    for vector in vectors[:TIMED]:
        started = time.perf_counter()
        hits += store.search(vector, field=upgrade.old_field, k=k, metric=upgrade.old.metric)
        seconds.append(time.perf_counter() - started)
    for start in range(TIMED, len(vectors), TOGETHER):
        part = vectors[start : start + TOGETHER]
        hits += store.search(part, field=upgrade.old_field, k=k, metric=upgrade.old.metric)
    return _Answers(hits, Latency.of(seconds))
