"""Published recalls of the upgrade CLIP ViT-B/32 → ViT-L/14 and → ViT-H/14: R@1 in percent, raw captions, whole data sets.

A hit is any right answer in the top K. Sets and checkpoints are those of :mod:`crossfade.reproduction.requirements`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["PUBLISHED", "SOURCE", "Published"]

SOURCE = "2609.39836"
"""The paper that all rows are taken from; it ran XBT (2405.14715) on the same protocol."""


@dataclass(frozen=True)
class Published:
    """A row of a table.

    Attributes:
        system: the key of the measured row that it stands beside.
        label: what it is.
        recalls: data set → R@1 image→text and text→image, in percent.
    """

    system: str
    label: str
    recalls: Mapping[str, tuple[float, float]]


def _row(system: str, label: str, *values: tuple[float, float]) -> Published:
    return Published(system, label, dict(zip(("flickr30k", "coco", "nocaps"), values, strict=True)))


_OLD = _row("old/old", "old B/32", (40.62, 21.73), (28.76, 14.47), (71.29, 45.24))

PUBLISHED: Mapping[str, tuple[Published, ...]] = {
    "l14-b32": (
        _OLD,
        _row("xbt", "XBT", (42.47, 22.38), (30.73, 15.55), (75.02, 48.02)),
        _row("procrustes-text", "Procrustes on text", (42.89, 21.49), (30.27, 14.03), (69.22, 43.92)),
        _row("slerp", "SLERP (two encoders)", (48.00, 23.33), (33.40, 15.26), (73.98, 46.59)),
        _row("new/new", "L/14 re-indexed", (48.72, 28.27), (34.33, 18.68), (73.36, 47.84)),
        _row("xbt/xbt", "XBT re-indexed", (43.50, 39.59), (33.32, 27.61), (77.22, 63.48)),
    ),
    "h14-b32": (
        _OLD,
        _row("xbt", "XBT", (41.09, 23.70), (30.33, 15.82), (76.62, 51.14)),
        _row("procrustes-both", "Procrustes on both", (50.06, 26.58), (35.50, 17.35), (76.40, 51.58)),
        _row("slerp", "SLERP (two encoders)", (52.03, 27.43), (36.71, 17.90), (78.42, 52.55)),
        _row("new/new", "H/14 re-indexed", (59.38, 43.07), (43.50, 28.56), (84.27, 63.53)),
    ),
}
"""Name of the pair → its rows, in the order in which they are shown."""
