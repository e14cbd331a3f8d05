"""Both models' vectors on two axes: a principal component analysis of the old vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from crossfade.embeddings.core import Embeddings
from crossfade.reporting.drawn import Picture, PointSet, Stage
from crossfade.spaces import Modality

__all__ = ["SameItems", "draw_pictures"]

FITTED_ON = 2000
POINTS = 220
JOINED = 36

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class SameItems:
    """Items of one modality under both models, row for row: old [n, d_old], new [n, d_new], mapped [n, d_old]."""

    modality: Modality
    old: Floats
    new: Floats
    mapped: Floats

    @classmethod
    def sample(cls, old: Embeddings, new: Embeddings, mapped: Embeddings, *, seed: int) -> SameItems | None:
        """At most :data:`FITTED_ON` items that both have; None where there are none."""
        place = old.locate(new.ids)
        shared = np.flatnonzero(place >= 0)
        if len(shared) == 0:
            return None
        chosen = np.sort(np.random.default_rng(seed).permutation(shared)[:FITTED_ON])
        return cls(old.modality, old.rows.take(place[chosen]), new.rows.take(chosen), mapped.rows.take(chosen))


def draw_pictures(items: Sequence[SameItems], *, seed: int) -> tuple[Picture, ...]:
    """Before the map (where the dimensions agree) and after it, on the same axes and limits."""
    old = np.concatenate([item.old for item in items]) if items else np.empty((0, 0), np.float32)
    if len(old) < 3 or old.shape[1] < 2:
        return ()
    centre = old.mean(axis=0)
    deviations = (old - centre).astype(np.float64)
    variances, axes = np.linalg.eigh(deviations.T @ deviations)
    plane = axes[:, [-1, -2]].astype(np.float32)
    plane *= np.where(plane[np.argmax(np.abs(plane), axis=0), [0, 1]] < 0, -1, 1)
    explained = float(variances[-2:].sum() / variances.sum()) if variances.sum() > 0 else 0.0
    generator = np.random.default_rng(seed)
    rows = [generator.permutation(len(item.old))[:POINTS] for item in items]
    stages: list[Stage] = ["before", "after"] if items[0].new.shape[1] == old.shape[1] else ["after"]
    laid = {
        stage: [
            ((item.old[r] - centre) @ plane, ((item.mapped if stage == "after" else item.new)[r] - centre) @ plane)
            for item, r in zip(items, rows, strict=True)
        ]
        for stage in stages
    }
    every = np.concatenate([part for stage in stages for pair in laid[stage] for part in pair])
    limits = tuple(float(v) for axis in (0, 1) for v in (every[:, axis].min(), every[:, axis].max()))
    return tuple(
        Picture(
            stage,
            _sets(items, laid[stage]),
            _joins(laid[stage]),
            explained,
            (limits[0], limits[1], limits[2], limits[3]),
        )
        for stage in stages
    )


def _sets(items: Sequence[SameItems], laid: Sequence[tuple[Floats, Floats]]) -> tuple[PointSet, ...]:
    olds = [PointSet(i.modality, "old", _points(old)) for i, (old, _) in zip(items, laid, strict=True)]
    news = [PointSet(i.modality, "new", _points(new)) for i, (_, new) in zip(items, laid, strict=True)]
    return (*olds, *news)


def _joins(laid: Sequence[tuple[Floats, Floats]]) -> tuple[tuple[float, float, float, float], ...]:
    share = JOINED // max(len(laid), 1)
    lines = np.concatenate([np.concatenate([old[:share], new[:share]], axis=1) for old, new in laid])
    return tuple((float(a), float(b), float(c), float(d)) for a, b, c, d in lines)


def _points(rows: Floats) -> tuple[tuple[float, float], ...]:
    return tuple((float(x), float(y)) for x, y in rows)
