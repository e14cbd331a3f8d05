"""The few SVG elements that the figures are written with; colours are CSS classes and follow light and dark."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Scale", "element", "figure", "nice_ticks", "number", "polyline", "spread", "text"]

Value = str | int | float


def number(value: float) -> str:
    """A coordinate with at most two decimals: the same bytes on every machine."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


def element(name: str, attributes: Mapping[str, Value] | None = None, content: str = "") -> str:
    """One element; attribute values are escaped, ``content`` is SVG already."""
    written = "".join(
        f' {key}="{html.escape(value) if isinstance(value, str) else number(value)}"'
        for key, value in (attributes or {}).items()
        if value != ""
    )
    return f"<{name}{written}>{content}</{name}>"


def text(words: str, x: Value, y: Value, *, style: str = "", anchor: str = "start") -> str:
    """Words at a place, escaped; ``style`` is a CSS class."""
    place: dict[str, Value] = {"x": x, "y": y, "class": style, "text-anchor": "" if anchor == "start" else anchor}
    return element("text", place, html.escape(words))


def polyline(xs: Sequence[float], ys: Sequence[float], *, style: str) -> str:
    """A line through points."""
    return element(
        "polyline",
        {"points": " ".join(f"{number(x)},{number(y)}" for x, y in zip(xs, ys, strict=True)), "class": style},
    )


def figure(parts: Sequence[str], *, width: int, height: int, label: str) -> str:
    """A drawing that scales with its place; ``label`` is what a screen reader says."""
    box: dict[str, Value] = {"viewBox": f"0 0 {width} {height}", "role": "img", "aria-label": label, "class": "figure"}
    return element("svg", box, "".join(parts))


@dataclass(frozen=True, slots=True)
class Scale:
    """Data values to places, linearly."""

    low: float
    high: float
    start: float
    stop: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.stop - self.start)


def nice_ticks(low: float, high: float, *, about: int = 5) -> tuple[float, ...]:
    """Round values between ``low`` and ``high``, steps of 1, 2, 2.5 or 5 times a power of ten."""
    if not high > low:
        return (low,)
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1.0, 2.0, 2.5, 5.0, 10.0) if m * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return tuple(round(i * step, 10) for i in range(first, last + 1))


def spread(places: Sequence[float], *, gap: float, low: float, high: float) -> tuple[float, ...]:
    """Move labels until neighbours are ``gap`` apart, in their order and between ``low`` and ``high``."""
    order = sorted(range(len(places)), key=lambda i: places[i])
    moved = [min(max(places[i], low), high) for i in order]
    for i in range(1, len(moved)):
        moved[i] = max(moved[i], moved[i - 1] + gap)
    if moved and moved[-1] > high:
        moved[-1] = high
        for i in range(len(moved) - 2, -1, -1):
            moved[i] = min(moved[i], moved[i + 1] - gap)
    out = [0.0] * len(places)
    for place, i in zip(moved, order, strict=True):
        out[i] = place
    return tuple(out)
