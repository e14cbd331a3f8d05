"""What every system retrieves for every query of one direction, as far as a report looks: ranks, curves, examples."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from crossfade.embeddings.core import Embeddings
from crossfade.evaluation.ranks import measure
from crossfade.evaluation.relevance import Judgements
from crossfade.evaluation.result import DirectionResult, System
from crossfade.evaluation.search import search
from crossfade.reporting.drawn import Answer, Curve, Example, Ranking
from crossfade.reporting.systems import PRINCIPAL
from crossfade.reporting.thumbnails import Album

__all__ = ["OUTCOMES", "Retrieved", "curves", "draw_examples", "outcomes", "retrieve", "worse"]

DEPTH = 100
SHOWN = 5
DRAWN_WORST = 8
SHOWN_TEXTS = 3  # beneath a query that got worse: texts take more room than images
MENDED, KEPT, MISSED, BROKEN = "mended", "right in both", "missed by both", "broken"
FOUND, LOST = "found", "missed"
OUTCOMES = (MENDED, KEPT, BROKEN, MISSED, FOUND, LOST)


@dataclass(frozen=True, eq=False)
class Retrieved:
    """One system: who searches what, what is right, and the rank of each query's first right answer, [q] from 1."""

    queries: Embeddings
    gallery: Embeddings
    judgements: Judgements
    ranks: npt.NDArray[np.int64]


def retrieve(queries: Embeddings, gallery: Embeddings, judgements: Judgements) -> Retrieved:
    """Rank by the evaluation's own rules.

    Args:
        queries: q vectors.
        gallery: in the same space.
        judgements: of these q queries in this gallery, at least one right answer each.
    """
    ranks = measure(queries, gallery, judgements, metrics=("R@1",)).first
    return Retrieved(queries, gallery, judgements, ranks)


def curves(found: Mapping[System, Retrieved]) -> tuple[Curve, ...]:
    """Recall at every K to :data:`DEPTH`."""
    return tuple(Curve.from_ranks(system, r.ranks, depth=min(DEPTH, len(r.gallery))) for system, r in found.items())


def outcomes(found: Mapping[System, Retrieved], direction: DirectionResult) -> npt.NDArray[np.str_]:
    """What the upgrade does to each query [q], at the cut-off of the flips' metric (1 where it has none)."""
    metric = direction.flips.metric if direction.flips is not None else direction.metric
    written = re.search(r"@(\d+)", metric)
    cutoff = int(written.group(1)) if written else 1
    hit = {system: r.ranks <= cutoff for system, r in found.items()}
    after = hit["mapped/old"]
    if "old/old" not in hit:
        return np.where(after, FOUND, LOST)
    before = hit["old/old"]
    return np.where(before, np.where(after, KEPT, BROKEN), np.where(after, MENDED, MISSED))


def draw_examples(
    found: Mapping[System, Retrieved],
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
    return _examples(found, chosen, [str(outcome[q]) for q in chosen], album, shown=SHOWN)


def worse(found: Mapping[System, Retrieved], direction: DirectionResult, album: Album) -> tuple[Example, ...]:
    """The worst negative flips with what is retrieved before and after."""
    if direction.flips is None:
        return ()
    upgraded = found["mapped/old"]
    located = upgraded.queries.locate([change.id for change in direction.flips.worst[:DRAWN_WORST]])
    rows = located[located >= 0].tolist()
    shown = SHOWN if upgraded.gallery.modality == "image" else SHOWN_TEXTS
    return _examples(found, rows, [BROKEN] * len(rows), album, shown=shown)


def _examples(
    found: Mapping[System, Retrieved], rows: Sequence[int], names: Sequence[str], album: Album, *, shown: int
) -> tuple[Example, ...]:
    """The queries of ``rows`` with the first ``shown`` answers of each principal system."""
    if not rows:
        return ()
    queries = found["mapped/old"].queries
    columns = [_rankings(system, found[system], rows, album, shown) for system in PRINCIPAL if system in found]
    items = [album.item(queries.modality, str(queries.ids[row])) for row in rows]
    return tuple(
        Example(item, name, rankings)
        for item, name, rankings in zip(items, names, zip(*columns, strict=True), strict=True)
    )


def _rankings(
    system: System, retrieved: Retrieved, rows: Sequence[int], album: Album, shown: int
) -> tuple[Ranking, ...]:
    """What one system retrieves for each of ``rows``."""
    gallery, judgements = retrieved.gallery, retrieved.judgements
    asking = retrieved.queries.select(rows)
    exclude = bool((judgements.own >= 0).any())
    neighbours = search(asking, gallery, k=min(shown, len(gallery)), exclude_same_id=exclude)
    rankings = []
    for query, best in zip(rows, neighbours.rows.tolist(), strict=True):
        right = set(judgements.positives(query).tolist())
        answers = tuple(
            Answer(album.item(gallery.modality, str(gallery.ids[row])), row in right) for row in best if row >= 0
        )
        rankings.append(Ranking(system, int(retrieved.ranks[query]), answers))
    return tuple(rankings)
