"""Cosine similarities of matching and of random pairs, as two overlaid histograms."""

from __future__ import annotations

from collections.abc import Sequence

from crossfade.reporting.drawn import Cosines
from crossfade.reporting.figures.svg import Scale, element, figure, nice_ticks, number, text

__all__ = ["cosine_histogram"]

WIDTH, HEIGHT = 440, 210
LEFT, RIGHT, TOP, BOTTOM = 10, 430, 34, 172


def cosine_histogram(cosines: Cosines) -> str:
    """Draw one panel: random pairs in grey, matching ones in the accent colour (deep tone before the map)."""
    x = Scale(cosines.edges[0], cosines.edges[-1], LEFT, RIGHT)
    peak = max(*cosines.matching, *cosines.random)
    y = Scale(0.0, peak or 1.0, BOTTOM, TOP + 6)
    tone = "mapped" if cosines.stage == "after" else "new"
    parts = [element("line", {"x1": LEFT, "x2": RIGHT, "y1": BOTTOM, "y2": BOTTOM, "class": "base"})]
    for tick in nice_ticks(x.low, x.high, about=6):
        parts.append(element("line", {"x1": x(tick), "x2": x(tick), "y1": BOTTOM, "y2": BOTTOM + 4, "class": "base"}))
        parts.append(text(f"{tick:g}".replace("-", "−"), x(tick), BOTTOM + 18, style="tick", anchor="middle"))
    parts.append(text("cosine similarity", LEFT, BOTTOM + 34, style="axis"))
    parts.append(_steps(cosines.edges, cosines.random, x, y, "old"))
    parts.append(_steps(cosines.edges, cosines.matching, x, y, tone))
    parts += _means(cosines, x, tone)
    label = (
        f"Cosine similarity of {cosines.title} {cosines.stage} the map: matching pairs {cosines.means[0]:.2f} "
        f"on average, random pairs {cosines.means[1]:.2f}; a matching pair is the more similar one "
        f"in {cosines.separation:.0%} of cases"
    )
    return figure(parts, width=WIDTH, height=HEIGHT, label=label)


def _steps(edges: Sequence[float], shares: Sequence[float], x: Scale, y: Scale, tone: str) -> str:
    """A filled outline of the bars."""
    points = [f"{number(x(edges[0]))},{number(y(0))}"]
    for left, right, share in zip(edges[:-1], edges[1:], shares, strict=True):
        points += [f"{number(x(left))},{number(y(share))}", f"{number(x(right))},{number(y(share))}"]
    points.append(f"{number(x(edges[-1]))},{number(y(0))}")
    return element("g", {"class": f"tone-{tone}"}, element("polygon", {"points": " ".join(points), "class": "steps"}))


def _means(cosines: Cosines, x: Scale, tone: str) -> list[str]:
    """A dashed line at each mean, named above; the names lean outwards, and one is raised where they would meet."""
    parts = []
    matching, random = cosines.means
    taken: list[tuple[float, float]] = []
    for mean, colour, word, outward in (
        (random, "old", "random", random > matching),
        (matching, tone, "matching", matching >= random),
    ):
        at, words = x(mean), f"{word} {mean:.2f}".replace("-", "−")
        room = 7.0 * len(words)
        right = outward if LEFT + room < at < RIGHT - room else at <= LEFT + room
        span = (at, at + room) if right else (at - room, at)
        clash = any(span[0] < end and start < span[1] for start, end in taken)
        taken.append(span)
        line = element("line", {"x1": at, "x2": at, "y1": TOP - (20 if clash else 6), "y2": BOTTOM, "class": "mean"})
        name = text(words, at, TOP - (24 if clash else 10), style="end", anchor="start" if right else "end")
        parts.append(element("g", {"class": f"tone-{colour}"}, line + name))
    return parts
