"""Methods beside each other on the same queries, as the HTML, Markdown and terminal tables show them."""

from __future__ import annotations

from dataclasses import dataclass

from crossfade.evaluation.result import DirectionResult, Estimate, Outcome
from crossfade.reporting.matrix import Mark, metric_names

__all__ = ["RivalRow", "rival_rows"]


@dataclass(frozen=True, slots=True)
class RivalRow:
    """One method on the old gallery: every metric, and its lead over old/old at the deciding one.

    ``mark`` says whether the lead is surely above or below zero; ``upgrade`` is the method that the report is about.
    """

    method: str
    estimates: tuple[Estimate | None, ...]
    lead: Estimate | None
    mark: Mark
    outcome: Outcome
    two_encoders: bool
    upgrade: bool

    @property
    def notes(self) -> str:
        """The verdict, and what else must be said of the method in a word or two."""
        said = (("this upgrade", self.upgrade), ("two encoders", self.two_encoders))
        return ", ".join([*(note for note, holds in said if holds), self.outcome])


def rival_rows(direction: DirectionResult, method: str) -> tuple[RivalRow, ...]:
    """The upgrade by ``method`` and each rival, the best first; none where nothing was compared."""
    if not direction.rivals or "mapped/old" not in direction.scores:
        return ()
    entries = [(method, direction.scores["mapped/old"].metrics, direction.verdict, False, True)]
    entries += [(name, r.metrics, r.verdict, r.two_encoders, False) for name, r in direction.rivals.items()]
    rows = []
    for name, metrics, verdict, two_encoders, upgrade in entries:
        lead = verdict.difference
        mark: Mark = "" if lead is None else "above" if lead.low > 0.0 else "below" if lead.high < 0.0 else ""
        estimates = tuple(metrics.get(metric) for metric in metric_names(direction))
        rows.append(RivalRow(name, estimates, lead, mark, verdict.outcome, two_encoders, upgrade))
    deciding = metric_names(direction).index(direction.metric)
    return tuple(sorted(rows, key=lambda row: -(found.value if (found := row.estimates[deciding]) else 0.0)))
