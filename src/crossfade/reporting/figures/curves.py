"""Recall against K, one line a system, named at its end."""

from __future__ import annotations

import math
from collections.abc import Sequence

from crossfade.reporting.drawn import Curve
from crossfade.reporting.figures.svg import Scale, element, figure, nice_ticks, polyline, spread, text
from crossfade.reporting.formatting import percent
from crossfade.reporting.systems import STYLES

__all__ = ["recall_curves"]

WIDTH, HEIGHT = 480, 320
LEFT, RIGHT, TOP, BOTTOM = 34, 342, 14, 282
SHOWN_CUTOFFS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


def recall_curves(curves: Sequence[Curve], *, direction: str) -> str:
    """Draw R@K over K on a logarithmic axis.

    Args:
        curves: at least one, of any cut-offs; with few cut-offs each is marked with a point.
        direction: named in the label.
    """
    if not curves:
        return ""
    first, last = min(c.cutoffs[0] for c in curves), max(c.cutoffs[-1] for c in curves)
    top = max(max(c.recall) for c in curves)
    ceiling = next((t for t in (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9) if t >= top * 1.02), 1.0)
    x = Scale(math.log10(first), math.log10(max(last, first + 1)), LEFT, RIGHT)
    y = Scale(0.0, ceiling, BOTTOM, TOP)
    parts = [_grid(x, y, first, last)]
    ordered = sorted(curves, key=lambda c: (not STYLES[c.system].dashed, c.system == "mapped/old"))
    parts += [_curve(curve, x, y) for curve in ordered]
    ends = spread([y(c.recall[-1]) for c in curves], gap=15, low=TOP + 4, high=BOTTOM - 2)
    for curve, end in zip(curves, ends, strict=True):
        style = STYLES[curve.system]
        at = y(curve.recall[-1])
        leader = [RIGHT + 2.0, RIGHT + 10.0], [at, end]
        words = f"{style.short} {percent(curve.recall[-1])}"
        parts.append(
            element(
                "g",
                {"class": f"tone-{style.tone}"},
                polyline(*leader, style="leader") + text(words, RIGHT + 13, end + 4, style="end"),
            )
        )
    label = f"Recall at K, {direction}: " + "; ".join(
        f"{c.system} " + ", ".join(f"R@{k} {percent(r)}" for k, r in _at_shown(c)) for c in curves
    )
    return figure(parts, width=WIDTH, height=HEIGHT, label=label)


def _at_shown(curve: Curve) -> list[tuple[int, float]]:
    return [(k, r) for k, r in zip(curve.cutoffs, curve.recall, strict=True) if k in (1, 10, 100)]


def _grid(x: Scale, y: Scale, first: int, last: int) -> str:
    parts = []
    for tick in nice_ticks(0.0, y.high, about=5):
        parts.append(element("line", {"x1": LEFT, "x2": RIGHT, "y1": y(tick), "y2": y(tick), "class": "grid"}))
        parts.append(text(f"{100 * tick:g}", LEFT - 8, y(tick) + 4, style="tick", anchor="end"))
    for cutoff in SHOWN_CUTOFFS:
        if first <= cutoff <= last:
            parts.append(text(str(cutoff), x(math.log10(cutoff)), BOTTOM + 18, style="tick", anchor="middle"))
    parts.append(text("K, the number of retrieved items looked at", LEFT, BOTTOM + 34, style="axis"))
    return "".join(parts)


def _curve(curve: Curve, x: Scale, y: Scale) -> str:
    style = STYLES[curve.system]
    xs = [x(math.log10(k)) for k in curve.cutoffs]
    ys = [y(r) for r in curve.recall]
    parts = [polyline(xs, ys, style="curve dashed" if style.dashed else "curve")]
    if len(xs) <= 6:
        parts += [element("circle", {"cx": a, "cy": b, "r": 3.2, "class": "dot"}) for a, b in zip(xs, ys, strict=True)]
    return element("g", {"class": f"tone-{style.tone}"}, "".join(parts))
