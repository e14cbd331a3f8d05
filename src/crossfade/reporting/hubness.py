"""The systems with a hubness correction, as the HTML, Markdown and terminal tables show them: apart from the matrix."""

from __future__ import annotations

from dataclasses import dataclass

from crossfade.evaluation.result import DirectionResult, Estimate, Hubness, System
from crossfade.reporting.formatting import count
from crossfade.reporting.matrix import Mark, metric_names

__all__ = ["HubnessRow", "hubness_rows", "hubness_words"]

NAMES = {"csls": "CSLS", "querybank_normalisation": "query-bank normalisation"}


@dataclass(frozen=True, slots=True)
class HubnessRow:
    """One corrected system: every metric, and what the correction changes at the deciding one.

    ``mark`` says whether the change is surely above or below zero.
    """

    system: System
    estimates: tuple[Estimate | None, ...]
    change: Estimate
    mark: Mark


def hubness_rows(direction: DirectionResult) -> tuple[HubnessRow, ...]:
    """A row for each corrected system; none where no bank of queries was given."""
    if direction.hubness is None:
        return ()
    found = direction.hubness
    return tuple(
        HubnessRow(
            system,
            tuple(found.scores[system].metrics.get(name) for name in metric_names(direction)),
            change,
            "above" if change.low > 0.0 else "below" if change.high < 0.0 else "",
        )
        for system, change in found.changes.items()
    )


def hubness_words(hubness: Hubness) -> str:
    """What was done: ``CSLS (neighbours 10, dose 1.0) by a bank of 30,000 queries``."""
    options = ", ".join(
        f"{name.replace('_', ' ')} {value}" for name, value in hubness.correction.items() if name != "name"
    )
    name = str(hubness.correction.get("name", ""))
    return f"{NAMES.get(name, name)}{f' ({options})' if options else ''} by a bank of {count(hubness.bank)} queries"
