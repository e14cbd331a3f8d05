"""The slices of one direction as tables: what the HTML and the Markdown report show."""

from __future__ import annotations

from dataclasses import dataclass

from crossfade.evaluation.result import DirectionResult, Estimate, System
from crossfade.reporting.systems import STYLES

__all__ = ["SliceRow", "SliceTable", "slice_tables"]


@dataclass(frozen=True, slots=True)
class SliceRow:
    """One value of the column."""

    value: str
    size: int
    by_system: dict[System, Estimate]

    def estimates(self, systems: tuple[System, ...]) -> tuple[Estimate | None, ...]:
        """One estimate, or None, for each of ``systems``."""
        return tuple(self.by_system.get(system) for system in systems)


@dataclass(frozen=True, slots=True)
class SliceTable:
    """One slice column; ``low`` and ``high`` bound every interval in it."""

    column: str
    systems: tuple[System, ...]
    rows: tuple[SliceRow, ...]
    low: float
    high: float


def slice_tables(direction: DirectionResult) -> tuple[SliceTable, ...]:
    """A table for each slice column, the largest slices first."""
    tables = []
    for column, by_value in direction.slices.items():
        sizes = direction.slice_sizes.get(column, {})
        rows = [SliceRow(str(value), sizes.get(value, 0), dict(found)) for value, found in by_value.items()]
        rows.sort(key=lambda row: (-row.size, row.value))
        systems = tuple(system for system in STYLES if any(system in row.by_system for row in rows))
        bounds = [bound for row in rows for e in row.by_system.values() for bound in (e.low, e.high, e.value)]
        low, high = min(bounds, default=0.0), max(bounds, default=1.0)
        tables.append(SliceTable(column, systems, tuple(rows), low, high if high > low else low + 0.01))
    return tuple(tables)
