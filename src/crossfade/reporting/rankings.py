"""What every system retrieves for every query of one direction, as far as a report looks: ranks, curves, examples."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from crossfade.embeddings.core import Embeddings
from crossfade.evaluation.relevance import Judgements
from crossfade.evaluation.result import DirectionResult, System
from crossfade.evaluation.search import search
from crossfade.reporting.drawn import Answer, Curve, Example, Ranking
from crossfade.reporting.systems import PRINCIPAL
from crossfade.reporting.thumbnails import Album

__all__ = ["OUTCOMES", "Retrieved", "curves", "draw_examples", "outcomes", "retrieve", "worse"]

DEPTH = 100
SHOWN = 5
SHOWN_TEXTS = 3  # beneath a query that got worse: texts take more room than images
MENDED, KEPT, MISSED, BROKEN = "mended", "right in both", "missed by both", "broken"
FOUND, LOST = "found", "missed"
OUTCOMES = (MENDED, KEPT, BROKEN, MISSED, FOUND, LOST)


@dataclass(frozen=True, eq=False)
class Retrieved:
    """One system: gallery rows [q, k], best first; which are right [q, k]; the first right one's rank [q], or 0."""

    gallery: Embeddings
    rows: npt.NDArray[np.int64]
    right: npt.NDArray[np.bool_]
    ranks: npt.NDArray[np.int64]


def retrieve(queries: Embeddings, gallery: Embeddings, judgements: Judgements) -> Retrieved:
    """Search to :data:`DEPTH` and judge.

    Args:
        queries: q vectors.
        gallery: in the same space.
        judgements: of these q queries in this gallery.
    """
    depth = min(DEPTH, len(gallery))
    rows = search(queries, gallery, k=depth, exclude_same_id=bool((judgements.own >= 0).any())).rows
    right = np.stack([np.isin(row, judgements.targets[query]) for query, row in enumerate(rows)])
    right &= (rows >= 0) & (rows != judgements.own[:, None])
    ranks = np.where(right.any(axis=1), right.argmax(axis=1) + 1, 0)
    return Retrieved(gallery, rows, right, ranks)


def curves(found: Mapping[System, Retrieved]) -> tuple[Curve, ...]:
    """Recall at every K to the depth searched."""
    return tuple(Curve.from_ranks(system, r.ranks, depth=r.rows.shape[1]) for system, r in found.items())


def outcomes(found: Mapping[System, Retrieved], direction: DirectionResult) -> npt.NDArray[np.str_]:
    """What the upgrade does to each query [q], at the cut-off of the flips' metric (1 where it has none)."""
    metric = direction.flips.metric if direction.flips is not None else direction.metric
    written = re.search(r"@(\d+)", metric)
    cutoff = int(written.group(1)) if written else 1
    hit = {system: (r.ranks > 0) & (r.ranks <= cutoff) for system, r in found.items()}
    after = hit["mapped/old"]
    if "old/old" not in hit:
        return np.where(after, FOUND, LOST)
    before = hit["old/old"]
    return np.where(before, np.where(after, KEPT, BROKEN), np.where(after, MENDED, MISSED))


def draw_examples(
    found: Mapping[System, Retrieved],
    queries: Embeddings,
    outcome: npt.NDArray[np.str_],
    album: Album,
    *,
    count: int,
    seed: int,
) -> tuple[Example, ...]:
    """``count`` queries drawn at random, evenly from the outcomes that occur."""
    generator = np.random.default_rng(seed)
    groups = [np.flatnonzero(outcome == name) for name in OUTCOMES]
    shuffled = [generator.permutation(group).tolist() for group in groups if len(group)]
    chosen: list[int] = []
    turns = max((len(group) for group in shuffled), default=0)
    for turn in range(turns):
        chosen += [group[turn] for group in shuffled if turn < len(group)]
        if len(chosen) >= count:
            break
    chosen = chosen[:count]
    chosen.sort(key=lambda query: (OUTCOMES.index(str(outcome[query])), query))
    return tuple(_example(found, queries, q, str(outcome[q]), album, shown=SHOWN) for q in chosen)


def worse(
    found: Mapping[System, Retrieved], queries: Embeddings, direction: DirectionResult, album: Album
) -> tuple[Example, ...]:
    """The worst negative flips with what is retrieved before and after."""
    if direction.flips is None:
        return ()
    rows = queries.locate([change.id for change in direction.flips.worst])
    shown = SHOWN if found["mapped/old"].gallery.modality == "image" else SHOWN_TEXTS
    return tuple(_example(found, queries, int(q), BROKEN, album, shown=shown) for q in rows if q >= 0)


def _example(
    found: Mapping[System, Retrieved], queries: Embeddings, query: int, outcome: str, album: Album, *, shown: int
) -> Example:
    rankings = tuple(_ranking(system, found[system], query, album, shown) for system in PRINCIPAL if system in found)
    return Example(album.item(queries.modality, str(queries.ids[query])), outcome, rankings)


def _ranking(system: System, retrieved: Retrieved, query: int, album: Album, shown: int) -> Ranking:
    gallery = retrieved.gallery
    rows: Sequence[int] = [row for row in retrieved.rows[query, :shown].tolist() if row >= 0]
    answers = tuple(
        Answer(album.item(gallery.modality, str(gallery.ids[row])), bool(right))
        for row, right in zip(rows, retrieved.right[query, : len(rows)].tolist(), strict=True)
    )
    return Ranking(system, int(retrieved.ranks[query]) or None, answers)
