"""Paired comparisons of rows over both directions, with intervals over images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from crossfade.evaluation import Bootstrap, Estimate

RESAMPLES = 10_000
LEVEL = 0.95


DIRECTIONS = ("image→text", "text→image")


def per_image(
    ranks: Mapping[str, np.ndarray], owners: np.ndarray, *, depth: int, directions: Sequence[str] = DIRECTIONS
) -> np.ndarray:
    """The share in R@depth of each image and its captions, the directions averaged: [images].

    In both, with hits h of image i, and of its captions c::

        v_i = ½ (h_i + mean over c of h_c),   mean over i of v_i = ½ (R@K image→text + R@K text→image)

    Args:
        ranks: direction → rank of the first right answer.
        owners: the image of each caption, by row.
        depth: K.
        directions: one or both.

    Raises:
        ValueError: images have different numbers of captions, and the second equation does not hold.
    """
    image, text = ((ranks[name] <= depth).astype(np.float64) for name in DIRECTIONS)
    counts = np.bincount(owners, minlength=len(image))
    if len(np.unique(counts)) != 1 or counts[0] == 0:
        raise ValueError(f"Every test image must have equally many captions; found {sorted(set(counts.tolist()))}.")
    each = dict(zip(DIRECTIONS, (image, np.bincount(owners, weights=text, minlength=len(image)) / counts), strict=True))
    values: np.ndarray = np.mean([each[name] for name in directions], axis=0)
    return values


def difference(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> Estimate:
    """mean(first) − mean(second), with its interval.

    Args:
        first: :func:`per_image` of one row, one array a seed: each image is averaged over the seeds, then resampled.
        second: of another row, the same seeds.
    """
    values = np.mean(first, axis=0) - np.mean(second, axis=0)
    bootstrap = _bootstrap(len(values))
    return bootstrap.estimate(float(values.mean()), bootstrap.means(values[:, None])[:, 0])


def closed(mapped: Sequence[np.ndarray], old: Sequence[np.ndarray], new: Sequence[np.ndarray]) -> Estimate | None:
    """(mapped − old) / (new − old), with its interval; None where new is not surely above old. See :func:`difference`."""
    before = np.mean(old, axis=0)
    rises = np.stack([np.mean(mapped, axis=0) - before, np.mean(new, axis=0) - before], axis=1)
    reached, possible = rises.mean(axis=0)
    if possible <= 0.0:
        return None
    bootstrap = _bootstrap(len(rises))
    resampled = bootstrap.means(rises)
    return bootstrap.ratio(float(reached / possible), resampled[:, 0], resampled[:, 1])


def _bootstrap(images: int) -> Bootstrap:
    return Bootstrap(np.arange(images), resamples=RESAMPLES, level=LEVEL, seed=0)
