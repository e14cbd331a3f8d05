"""How each system is named, explained and coloured, everywhere in a report.

The colour says which model made the query (old: warm grey, mapped: accent, new: deep tone); the three systems that the
question is about are drawn solid, the others dashed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from crossfade.evaluation.result import DirectionResult, System

__all__ = ["PRINCIPAL", "STYLES", "SystemStyle", "Tone", "present"]

Tone = Literal["old", "mapped", "new"]

PRINCIPAL: tuple[System, ...] = ("old/old", "mapped/old", "new/new")
"""The gap that a report is about: what runs today, the upgrade, the full re-index."""


@dataclass(frozen=True, slots=True)
class SystemStyle:
    """The words and the colour of one system.

    Attributes:
        tone: the colour, by the model that made the query.
        short: at most two words, for labels in figures.
        meaning: one line for a table.
        dashed: whether its lines are dashed.
    """

    tone: Tone
    short: str
    meaning: str
    dashed: bool


STYLES: Mapping[System, SystemStyle] = {
    "old/old": SystemStyle("old", "old", "what runs today", False),
    "mapped/old": SystemStyle("mapped", "mapped", "the upgrade: new queries, mapped, on the old gallery", False),
    "new/old": SystemStyle("new", "unmapped", "new queries on the old gallery with no map", True),
    "old/mapped": SystemStyle("old", "old on mapped", "old queries on items added by the new model, mapped", True),
    "mapped/mapped": SystemStyle("mapped", "mapped both", "the new model, mapped, on both sides", True),
    "new/new": SystemStyle("new", "re-indexed", "a full re-index with the new model", False),
}


def present(direction: DirectionResult) -> tuple[System, ...]:
    """The systems that were evaluated, in the order of :data:`STYLES`."""
    return tuple(system for system in STYLES if system in direction.scores)
