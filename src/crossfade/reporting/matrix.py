"""The whole matrix of one direction, every system × every metric, as the HTML, Markdown and terminal tables show it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from crossfade.evaluation.result import DirectionResult, Estimate, System
from crossfade.reporting.systems import present

__all__ = ["Cell", "Mark", "Row", "matrix", "metric_names"]

Mark = Literal["above", "below", ""]


@dataclass(frozen=True, slots=True)
class Cell:
    """One system at one metric; ``mark`` says whether it is surely above or below old/old."""

    metric: str
    estimate: Estimate | None
    mark: Mark


@dataclass(frozen=True, slots=True)
class Row:
    """One system at every metric."""

    system: System
    cells: tuple[Cell, ...]


def metric_names(direction: DirectionResult) -> tuple[str, ...]:
    """Every metric that any system has, the deciding one where it stands, in the order of first appearance."""
    names: dict[str, None] = {}
    for system in present(direction):
        names.update(dict.fromkeys(direction.scores[system].metrics))
    return tuple(names)


def matrix(direction: DirectionResult) -> tuple[Row, ...]:
    """A row for each evaluated system.

    A cell is marked where its interval and old/old's do not overlap, which is stricter than a paired test. For
    mapped/old at the deciding metric the paired interval of the verdict is known, and decides instead.
    """
    metrics = metric_names(direction)
    return tuple(
        Row(
            system,
            tuple(Cell(m, direction.scores[system].metrics.get(m), _mark(direction, system, m)) for m in metrics),
        )
        for system in present(direction)
    )


def _mark(direction: DirectionResult, system: System, metric: str) -> Mark:
    if system == "old/old" or "old/old" not in direction.scores:
        return ""
    found = direction.scores[system].metrics.get(metric)
    reference = direction.scores["old/old"].metrics.get(metric)
    if found is None or reference is None:
        return ""
    paired = direction.verdict.difference
    if system == "mapped/old" and metric == direction.verdict.metric and paired is not None:
        return "above" if paired.low > 0 else "below" if paired.high < 0 else ""
    return "above" if found.low > reference.high else "below" if found.high < reference.low else ""
