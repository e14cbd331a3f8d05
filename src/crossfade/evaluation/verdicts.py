"""The verdict on one direction and on all of them, with its sentence."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from crossfade.evaluation.intervals import Bootstrap, more_queries_needed
from crossfade.evaluation.result import DirectionResult, Estimate, Outcome, Verdict

__all__ = ["combine", "decide", "unmeasured"]

Values = npt.NDArray[np.float64]

MIN_GROUPS = 20
"""Fewer independent queries than this decide nothing: a percentile interval is too narrow on them (our choice)."""

MIN_CHANGED = 10
"""Nor do fewer that changed at all: on k changes in one direction the sign test gives p = 2^(1 − k) (our choice)."""


def decide(
    name: str, metric: str, old: Values, mapped: Values, groups: npt.NDArray[np.int64], bootstrap: Bootstrap
) -> Verdict:
    """Compare mapped/old with old/old, query by query.

    Args:
        name: the direction, for the sentence.
        metric: the metric that decides, for the sentence.
        old: [q] its values under old/old.
        mapped: [q] its values under mapped/old.
        groups: [q] queries that stand or fall together.
        bootstrap: over these groups.
    """
    change = mapped - old
    difference = bootstrap.estimate(float(change.mean()), bootstrap.means(change[:, None])[:, 0])
    changed = int(np.count_nonzero(np.bincount(bootstrap.group, weights=np.abs(change))))
    enough = bootstrap.groups >= MIN_GROUPS and (changed == 0 or changed >= MIN_CHANGED)
    outcome: Outcome = "undecided"
    if enough and difference.low > 0.0:
        outcome = "compatible"
    elif enough and difference.high <= 0.0:
        outcome = "not compatible"
    more = None
    if outcome == "undecided":
        more = more_queries_needed(change, groups, level=bootstrap.level)
        short = math.ceil(len(change) * MIN_GROUPS / bootstrap.groups) - len(change)
        more = None if more is None else max(more, short)
    numbers = (
        f"{metric} goes from {old.mean():.3f} (old/old) to {mapped.mean():.3f} (mapped/old) on {len(change)} {name} queries, "
        f"a difference of {difference.value:+.3f} with a {bootstrap.level:.0%} interval from "
        f"{difference.low:+.3f} to {difference.high:+.3f}"
    )
    sentence = f"{outcome.capitalize()}: {numbers}{_reason(outcome, enough, bootstrap.groups, changed, more)}."
    return Verdict(outcome, metric, difference, len(change), more, sentence)


def _reason(outcome: Outcome, enough: bool, groups: int, changed: int, more: int | None) -> str:
    if outcome == "compatible":
        return ", which lies above zero"
    if outcome == "not compatible":
        return ", which does not reach above zero" if changed else ": no query changed"
    why = ", which holds zero"
    if not enough:
        why = (
            f", but only {groups} independent queries were asked and {changed} of them changed, which decides nothing "
            f"(at least {MIN_GROUPS} and {MIN_CHANGED} are needed)"
        )
    if more is None:
        return f"{why}; the difference is too close to zero for any practical number of queries to decide"
    return f"{why}; about {more} more queries of this kind would be expected to decide"


def unmeasured(name: str, metric: str, queries: int, modality: str) -> Verdict:
    """The verdict where the old model's vectors of the queries are not at hand."""
    return Verdict(
        "undecided",
        metric,
        None,
        queries,
        None,
        f"Undecided: old/old cannot be measured on {name}, because the old model's vectors of the {queries} "
        f"{modality} queries are "
        "not at hand. Encode these queries with the old model too and pass them as old_queries.",
    )


def combine(directions: Sequence[DirectionResult]) -> Verdict:
    """The verdict on all directions: compatible only where every one is, not compatible where any is."""
    if len(directions) == 1:
        return directions[0].verdict
    verdicts = {direction.name: direction.verdict for direction in directions}
    outcomes = {verdict.outcome for verdict in verdicts.values()}
    order: tuple[Outcome, ...] = ("not compatible", "undecided", "compatible")
    outcome = next(outcome for outcome in order if outcome in outcomes)
    deciding = [verdict for verdict in verdicts.values() if verdict.outcome == outcome]
    decisive = min(deciding, key=lambda verdict: _value(verdict.difference))
    more = [verdict.more_queries for verdict in deciding]
    named = [number for number in more if number is not None]
    total = max(named) if outcome == "undecided" and len(named) == len(more) else None
    listing = "; ".join(f"{name} {verdict.outcome}{_plus(verdict.difference)}" for name, verdict in verdicts.items())
    sentence = (
        f"{outcome.capitalize()} over {len(verdicts)} directions: {listing} ({decisive.metric}, mapped/old − old/old)."
    )
    queries = sum(verdict.queries for verdict in verdicts.values())
    return Verdict(outcome, decisive.metric, decisive.difference, queries, total, sentence)


def _value(difference: Estimate | None) -> float:
    return -math.inf if difference is None else difference.value


def _plus(difference: Estimate | None) -> str:
    return "" if difference is None else f" ({difference.value:+.3f})"
