"""The gap: what runs today, the upgrade, and the full re-index on one axis, each with its interval.

Places are percentages of the width, so that the words keep their size on a narrow screen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from crossfade.evaluation.result import Estimate, System
from crossfade.reporting.figures.svg import Scale, element, nice_ticks, number, text
from crossfade.reporting.formatting import interval, percent
from crossfade.reporting.systems import PRINCIPAL, STYLES

__all__ = ["gap_bar"]

HEIGHT = 206
AXIS = 98
BAND = 8
LEVEL = 14
"""Pixels between the bar and the line of an interval."""


@dataclass(frozen=True, slots=True)
class _Stop:
    """One system on the bar."""

    system: System
    estimate: Estimate
    above: bool
    anchor: str
    level: int


def gap_bar(estimates: Mapping[System, Estimate], *, metric: str) -> str:
    """Draw the gap old → mapped → re-indexed.

    Args:
        estimates: any of old/old, mapped/old and new/new; others are left out.
        metric: named in the label.
    """
    known = [(system, estimates[system]) for system in PRINCIPAL if system in estimates]
    if not known:
        return ""
    low, high = min(e.low for _, e in known), max(e.high for _, e in known)
    room = 0.24 * (high - low) or 0.05
    scale = Scale(low - room, high + room, 0.0, 100.0)
    parts = [_axis(scale), _track(estimates, scale)]
    parts += [_stop(stop, scale) for stop in _stops(known)]
    label = f"{metric}: " + ", ".join(
        f"{system} {percent(e.value)} percent, interval {interval(e)}" for system, e in known
    )
    box: dict[str, str | int | float] = {
        "width": "100%",
        "height": HEIGHT,
        "role": "img",
        "aria-label": label,
        "class": "gap",
    }
    return element("svg", box, "".join(parts))


def _stops(known: Sequence[tuple[System, Estimate]]) -> list[_Stop]:
    """Old and new are named above the bar, leaning outwards; mapped below it."""
    ends = [estimate.value for system, estimate in known if system != "mapped/old"]
    stops: list[_Stop] = []
    for system, estimate in known:
        below = system == "mapped/old"
        outer = "end" if estimate.value == min(ends, default=0) and len(ends) > 1 else "start"
        level = LEVEL if below else -LEVEL
        if any(s.level == level and s.estimate.low < estimate.high and estimate.low < s.estimate.high for s in stops):
            level -= 6
        stops.append(_Stop(system, estimate, not below, "middle" if below else outer, level))
    return stops


def _axis(scale: Scale) -> str:
    parts = []
    for tick in nice_ticks(scale.low, scale.high, about=6):
        if tick < 0 or tick > 1 or not 4 < scale(tick) < 96:
            continue
        place = _at(scale(tick))
        parts.append(element("line", {"x1": place, "x2": place, "y1": AXIS - 24, "y2": AXIS + 18, "class": "grid"}))
        parts.append(text(f"{100 * tick:g}", place, HEIGHT - 4, style="tick", anchor="middle"))
    return "".join(parts)


def _track(estimates: Mapping[System, Estimate], scale: Scale) -> str:
    old, mapped, new = (estimates.get(system) for system in PRINCIPAL)
    parts = []
    if old is not None and new is not None:
        parts.append(_bar(scale(old.value), scale(new.value), "track"))
    if old is not None and mapped is not None:
        parts.append(_bar(scale(old.value), scale(mapped.value), "won" if mapped.value >= old.value else "lost"))
    return "".join(parts)


def _bar(a: float, b: float, style: str) -> str:
    left, right = min(a, b), max(a, b)
    return element(
        "rect",
        {"x": _at(left), "width": _at(right - left), "y": AXIS - BAND / 2, "height": BAND, "rx": 2, "class": style},
    )


def _stop(stop: _Stop, scale: Scale) -> str:
    tone, value = STYLES[stop.system].tone, stop.estimate
    place = _at(scale(value.value))
    level = AXIS + stop.level
    span: dict[str, str | int | float] = {"x1": _at(scale(value.low)), "x2": _at(scale(value.high)), "class": "span"}
    parts = [element("line", {**span, "y1": level, "y2": level})]
    parts.append(element("circle", {"cx": place, "cy": AXIS, "r": 7, "class": "dot"}))
    name, figure, bounds = (16, 40, 57) if stop.above else (AXIS + 36, AXIS + 60, AXIS + 77)
    if stop.above:
        parts.append(element("line", {"x1": place, "x2": place, "y1": 63, "y2": AXIS - 8, "class": "leader"}))
    parts.append(text(STYLES[stop.system].short, place, name, style="name", anchor=stop.anchor))
    parts.append(text(percent(value.value), place, figure, style="big", anchor=stop.anchor))
    parts.append(text(interval(value), place, bounds, style="bounds", anchor=stop.anchor))
    return element("g", {"class": f"tone-{tone}"}, "".join(parts))


def _at(share: float) -> str:
    return f"{number(share)}%"
