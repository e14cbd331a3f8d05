"""The verdict in plain words: the first sentence that a reader of a report meets."""

from __future__ import annotations

from collections.abc import Sequence

from crossfade.evaluation.result import DirectionResult, Evaluation
from crossfade.reporting.formatting import count

__all__ = ["headline"]


def headline(evaluation: Evaluation) -> str:
    """What the verdict means for who must decide, without a metric in it."""
    directions = evaluation.directions
    outcome, more = evaluation.verdict.outcome, evaluation.verdict.more_queries
    if outcome == "compatible":
        everywhere = "" if len(directions) == 1 else ", in every direction"
        return (
            "The new model’s queries, through the map, search the stored gallery better than the old model’s own "
            f"queries do{everywhere}. Nothing needs to be embedded again."
        )
    concerned = [direction for direction in directions if direction.verdict.outcome == outcome]
    where = "" if len(directions) == 1 else f" in {_names(concerned)}"
    if outcome == "not compatible":
        return (
            f"The upgrade does not beat what runs today{where}. Keep the old model’s queries there, try another "
            "method, or re-index."
        )
    if all(direction.verdict.difference is None for direction in concerned):
        return f"What runs today was not measured{where}, so nobody can say whether the upgrade beats it."
    if more is None:
        return (
            f"These queries cannot tell the upgrade from what runs today{where}: no practical number of further "
            "queries of this kind is expected to."
        )
    return (
        f"These queries cannot tell whether the upgrade beats what runs today{where}. About {count(more)} more would "
        "be expected to decide."
    )


def _names(directions: Sequence[DirectionResult]) -> str:
    return " and ".join(
        direction.name.replace("→", "\N{NO-BREAK SPACE}→\N{NO-BREAK SPACE}") for direction in directions
    )
