"""judge_two_stage(): evaluate two-stage retrieval on two collections, on items that the adapter was not fitted on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from crossfade.embeddings.collection import Collection
from crossfade.errors import EvaluationError
from crossfade.judging import Judgement, relevance_of, restrict, unseen
from crossfade.methods.base import Adapter
from crossfade.spaces import Modality
from crossfade.two_stage.evaluation import evaluate_two_stage
from crossfade.two_stage.result import TwoStageEvaluation
from crossfade.two_stage.traffic import Traffic

__all__ = ["judge_two_stage"]


def judge_two_stage(
    adapter: Adapter,
    *,
    old: Collection,
    new: Collection,
    sizes: Sequence[int],
    judgement: Judgement | None = None,
    traffic: Traffic | None = None,
) -> TwoStageEvaluation:
    """What ``crossfade two-stage`` measures: queries, relevance and leakage are treated as in :func:`crossfade.judge`.

    Args:
        adapter: from the new collection's space to the old one's.
        old: the gallery, and the old model's vectors of the queries.
        new: the new model's vectors of the queries and of the gallery's items.
        sizes: numbers of candidates.
        judgement: how to judge; its slices and its deciding metric are not looked at.
        traffic: for which the cost is told.

    Raises:
        SpaceMismatch: a collection is not in the adapter's space.
        EvaluationError: no query is left, or no gallery has new vectors of all its items.
    """
    judgement = judgement or Judgement()
    queries, left_out = dict(new.sets), 0
    if not judgement.all_queries:
        queries, left_out = unseen([adapter], new, old.links or new.links)
    renewed = [new.sets[m] for m, gallery in old.sets.items() if m in new.sets and _covers(new, old, m)]
    if not renewed:
        raise EvaluationError(
            "Two stages are measured against a full re-index, which needs the new vectors of every gallery item; no gallery "
            "has them. Encode a sample of the gallery with both models, and give that as both sides."
        )
    result = evaluate_two_stage(
        adapter,
        queries=list(queries.values()),
        gallery=list(old.sets.values()),
        new_gallery=renewed,
        relevant=relevance_of(judgement.relevant, old, new, queries),
        sizes=sizes,
        level=judgement.level,
        seed=judgement.seed,
        old_queries=list(restrict(old.sets, queries).values()) or None,
        traffic=traffic,
        resamples=judgement.resamples,
    )
    if left_out:
        note = f"{left_out} queries were left out, because the adapter was fitted on them or on their answers."
        result = replace(result, warnings=(*result.warnings, note))
    return result


def _covers(new: Collection, old: Collection, modality: Modality) -> bool:
    return bool((new.sets[modality].locate(old.sets[modality].ids) >= 0).all())
