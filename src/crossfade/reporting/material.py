"""What a report shows beside the numbers: curves, histograms, pictures, examples. All of it is optional."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL.Image import Image

from crossfade.embeddings.core import Embeddings
from crossfade.errors import EvaluationError
from crossfade.evaluation.relevance import Relevance
from crossfade.evaluation.result import DirectionResult, Evaluation, QueryChange, System
from crossfade.methods.base import Adapter
from crossfade.reporting.cosines import compare_cosines
from crossfade.reporting.drawn import Cosines, Curve, Example, Item, Picture
from crossfade.reporting.pictures import SameItems, draw_pictures
from crossfade.reporting.rankings import (
    OUTCOMES,
    Retrieved,
    curves,
    draw_examples,
    outcomes,
    retrieve,
    worse,
)
from crossfade.reporting.thumbnails import Album
from crossfade.spaces import Modality

__all__ = ["DirectionMaterial", "Material", "collect_material"]

Sets = Embeddings | Sequence[Embeddings]


@dataclass(frozen=True, slots=True)
class DirectionMaterial:
    """What a report shows of one direction.

    Attributes:
        curves: recall at K of every system.
        outcomes: what the upgrade does to the queries → share of them.
        examples: queries with what each system retrieves.
        worse: the same for the worst negative flips.
        queries: query id → what it looks like, for every flip that the evaluation lists.
    """

    curves: tuple[Curve, ...] = ()
    outcomes: Mapping[str, float] = field(default_factory=dict)
    examples: tuple[Example, ...] = ()
    worse: tuple[Example, ...] = ()
    queries: Mapping[str, Item] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Material:
    """Everything that a report shows beside an :class:`~crossfade.evaluation.result.Evaluation`; plain values.

    Attributes:
        data: role → name of the data, for example ``queries`` → ``glyphs, unseen faces``; shown as provenance.
        directions: direction → its curves and examples.
        cosines: histograms, before and after the map.
        pictures: both spaces in two dimensions.
        seed: what the items that are shown were drawn with.
    """

    data: Mapping[str, str] = field(default_factory=dict)
    directions: Mapping[str, DirectionMaterial] = field(default_factory=dict)
    cosines: tuple[Cosines, ...] = ()
    pictures: tuple[Picture, ...] = ()
    seed: int = 0


def collect_material(
    adapter: Adapter,
    evaluation: Evaluation,
    *,
    queries: Sets,
    gallery: Sets,
    relevant: Relevance,
    old_queries: Sets | None = None,
    new_gallery: Sets | None = None,
    load_image: Callable[[str], Image] | None = None,
    text_of: Callable[[str], str] | None = None,
    data: Mapping[str, str] | None = None,
    examples: int = 8,
    seed: int = 0,
) -> Material:
    """Search once more, look items up, and keep what can be drawn: afterwards no vector is needed.

    Args:
        adapter: the one that was evaluated.
        evaluation: what was found; its systems are the ones searched.
        queries: the new model's vectors of the queries, one set a modality.
        gallery: the old model's vectors of the gallery, one set a modality.
        relevant: what is right for what, as in the evaluation.
        old_queries: the old model's vectors of the queries.
        new_gallery: the new model's vectors of the gallery.
        load_image: image id → image; without it images are shown by their ids.
        text_of: text id → text; without it texts are shown by their ids.
        data: role → name of the data.
        examples: how many example queries a direction.
        seed: draws what is shown.

    Raises:
        EvaluationError: a direction of the evaluation has no queries, gallery or judgements here.
    """
    album = Album(load_image, text_of)
    new_side, old_side = _Side(queries, new_gallery), _Side(old_queries, gallery)
    mapped = _Side(
        [adapter.transform(s, old=old_side.queries.get(s.modality)) for s in new_side.queries.values()],
        [adapter.transform(s, old=old_side.gallery.get(s.modality)) for s in new_side.gallery.values()],
    )
    sides = {"old": old_side, "new": new_side, "mapped": mapped}
    directions = {
        result.name: _direction(result, sides, relevant, album, count=examples, seed=seed)
        for result in evaluation.directions
    }
    same = _same_items(sides)
    cosines = tuple(
        histogram
        for modality, (old, new, through) in same.items()
        for histogram in compare_cosines(old, new, through, title=modality, seed=seed)
    )
    sampled = [SameItems.sample(*three, seed=seed) for three in same.values()]
    pictures = draw_pictures([items for items in sampled if items is not None], seed=seed)
    return Material(dict(data or {}), directions, cosines, pictures, seed)


class _Side:
    """One model's queries and gallery by modality."""

    def __init__(self, queries: Sets | None, gallery: Sets | None) -> None:
        self.queries = _by_modality(queries)
        self.gallery = _by_modality(gallery)


def _by_modality(sets: Sets | None) -> dict[Modality, Embeddings]:
    if sets is None:
        return {}
    return {s.modality: s for s in ([sets] if isinstance(sets, Embeddings) else sets)}


def _direction(
    result: DirectionResult,
    sides: Mapping[str, _Side],
    relevant: Relevance,
    album: Album,
    *,
    count: int,
    seed: int,
) -> DirectionMaterial:
    asked, _, stored = result.name.partition("→")
    queries = next((s for m, s in sides["new"].queries.items() if m == asked), None)
    gallery = next((s for m, s in sides["old"].gallery.items() if m == stored), None)
    judgements = None if queries is None or gallery is None else relevant.judge(queries, gallery)
    if queries is None or gallery is None or judgements is None:
        raise EvaluationError(
            f"Every evaluated direction needs queries, a gallery and judgements; {result.name} lacks one of them. "
            f"Given were queries of {', '.join(sides['new'].queries) or 'no modality'} and a gallery of "
            f"{', '.join(sides['old'].gallery) or 'no modality'}: pass what the evaluation was made from."
        )
    queries = queries.select(judgements.answerable())
    found = {
        system: retrieved
        for system in result.scores
        if (retrieved := _retrieve(system, queries, gallery.modality, sides, relevant)) is not None
    }
    if "mapped/old" not in found:
        return DirectionMaterial(curves(found))
    outcome = outcomes(found, result)
    shares = {name: float(np.mean(outcome == name)) for name in OUTCOMES if name in outcome}
    return DirectionMaterial(
        curves(found),
        shares,
        draw_examples(found, queries, outcome, album, count=count, seed=seed),
        worse(found, queries, result, album),
        {change.id: album.item(queries.modality, change.id) for change in _changes(result)},
    )


def _retrieve(
    system: System, queries: Embeddings, stored: Modality, sides: Mapping[str, _Side], relevant: Relevance
) -> Retrieved | None:
    """What one system finds for ``queries``, in their order; None where its vectors are not at hand."""
    ask, _, store = system.partition("/")
    asking, gallery = sides[ask].queries.get(queries.modality), sides[store].gallery.get(stored)
    if asking is None or gallery is None or asking.dimension != gallery.dimension:
        return None
    rows = asking.locate(queries.ids)
    if (rows < 0).any():
        return None
    ordered = asking.select(rows)
    if system == "new/old":  # what happens where nobody notices that the spaces differ
        ordered = Embeddings(ordered.ids, ordered.rows, gallery.space, ordered.modality)
    judgements = relevant.judge(ordered, gallery)
    return None if judgements is None else retrieve(ordered, gallery, judgements)


def _changes(result: DirectionResult) -> tuple[QueryChange, ...]:
    return () if result.flips is None else (*result.flips.worst, *result.flips.best)


def _same_items(sides: Mapping[str, _Side]) -> dict[Modality, tuple[Embeddings, Embeddings, Embeddings]]:
    """Modality → old, new and mapped vectors of the same items: queries where they are known, else the gallery."""
    same: dict[Modality, tuple[Embeddings, Embeddings, Embeddings]] = {}
    for modality in ("image", "text"):
        for part in ("queries", "gallery"):
            sets = [getattr(sides[name], part).get(modality) for name in ("old", "new", "mapped")]
            if modality not in same and all(s is not None for s in sets):
                same[modality] = (sets[0], sets[1], sets[2])
    return same
