"""A 2-D picture of both spaces on the first two principal axes of the old vectors."""

from __future__ import annotations

from crossfade.reporting.drawn import Picture, PointSet
from crossfade.reporting.figures.svg import Scale, element, figure, number
from crossfade.spaces import Modality

__all__ = ["space_picture"]

WIDTH, TALLEST = 460, 440
INSET = 12
RADIUS = 2.6


def space_picture(picture: Picture) -> str:
    """Draw one stage: images as dots, texts as rings, old ones grey, new ones in colour; lines join the same item."""
    left, right, low, high = picture.limits
    unit = max((right - left) / (WIDTH - 2 * INSET), (high - low) / (TALLEST - 2 * INSET)) or 1.0
    height = round((high - low) / unit) + 2 * INSET
    aside = (WIDTH - (right - left) / unit) / 2
    x = Scale(left, left + unit, aside, aside + 1.0)
    y = Scale(low, low + unit, height - INSET, height - INSET - 1.0)
    tone = "mapped" if picture.stage == "after" else "new"
    joins = "".join(element("line", {"x1": x(a), "y1": y(b), "x2": x(c), "y2": y(d)}) for a, b, c, d in picture.joins)
    parts = [_points(points, x, y, tone) for points in picture.sets]
    parts.insert(sum(points.model == "old" for points in picture.sets), element("g", {"class": "joins"}, joins))
    modalities: tuple[Modality, ...] = ("image", "text")
    counts = ", ".join(
        f"{sum(len(s.points) for s in picture.sets if s.modality == modality and s.model == model)} {model} {modality}s"
        for model in ("old", "new")
        for modality in modalities
        if any(s.modality == modality and s.model == model for s in picture.sets)
    )
    label = f"Both spaces {picture.stage} the map, on the first two principal axes of the old vectors: {counts}"
    return figure(parts, width=WIDTH, height=height, label=label)


def _points(points: PointSet, x: Scale, y: Scale, tone: str) -> str:
    """One path for all points of a set: small files, and one colour."""
    style = "rings" if points.modality == "text" else "dots"
    r, across = number(RADIUS), number(2 * RADIUS)
    circle = f"a{r},{r} 0 1,0 {across},0a{r},{r} 0 1,0 -{across},0"
    path = "".join(f"M{number(x(a) - RADIUS)},{number(y(b))}{circle}" for a, b in points.points)
    colour = "old" if points.model == "old" else tone
    return element("g", {"class": f"tone-{colour}"}, element("path", {"d": path, "class": style}))
