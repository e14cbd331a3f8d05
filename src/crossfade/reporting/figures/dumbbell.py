"""The gap of one slice in the height of a table row."""

from __future__ import annotations

from collections.abc import Mapping

from crossfade.evaluation.result import Estimate, System
from crossfade.reporting.figures.svg import Scale, element, number
from crossfade.reporting.formatting import percent
from crossfade.reporting.systems import PRINCIPAL, STYLES

__all__ = ["dumbbell"]

HEIGHT = 22


def dumbbell(estimates: Mapping[System, Estimate], *, low: float, high: float) -> str:
    """Draw old, mapped and new on an axis that all rows of a table share.

    Args:
        estimates: any of old/old, mapped/old and new/new.
        low: left end of the axis.
        high: right end of the axis, above ``low``.
    """
    known = [(system, estimates[system]) for system in PRINCIPAL if system in estimates]
    if not known:
        return ""
    scale = Scale(low, high, 2.0, 98.0)
    middle = HEIGHT / 2
    parts = []
    values = [estimate.value for _, estimate in known]
    parts.append(_line(scale(min(values)), scale(max(values)), "track"))
    old, mapped = estimates.get("old/old"), estimates.get("mapped/old")
    if mapped is not None:
        whisker = _line(scale(mapped.low), scale(mapped.high), "whisker")
        parts.append(element("g", {"class": "tone-mapped"}, whisker))
    if old is not None and mapped is not None:
        parts.append(_line(scale(old.value), scale(mapped.value), "won" if mapped.value >= old.value else "lost"))
    for system, estimate in known:
        dot = element("circle", {"cx": f"{number(scale(estimate.value))}%", "cy": middle, "r": 4, "class": "dot"})
        parts.append(element("g", {"class": f"tone-{STYLES[system].tone}"}, dot))
    label = ", ".join(f"{system} {percent(estimate.value)}" for system, estimate in known)
    box: dict[str, str | int | float] = {
        "width": "100%",
        "height": HEIGHT,
        "role": "img",
        "aria-label": label,
        "class": "dumbbell",
    }
    return element("svg", box, "".join(parts))


def _line(a: float, b: float, style: str) -> str:
    middle = HEIGHT / 2
    return element("line", {"x1": f"{number(a)}%", "x2": f"{number(b)}%", "y1": middle, "y2": middle, "class": style})
