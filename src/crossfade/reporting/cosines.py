"""How similar the two models' vectors of one item are, against those of two random items."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from crossfade.embeddings.core import Embeddings
from crossfade.reporting.drawn import Cosines, Stage

__all__ = ["compare_cosines"]

SAMPLE = 2000

Floats = npt.NDArray[np.float32]


def compare_cosines(
    old: Embeddings, new: Embeddings, mapped: Embeddings, *, title: str, seed: int
) -> tuple[Cosines, ...]:
    """Histograms before the map (where the dimensions agree) and after it, over the same bins.

    Args:
        old: the old model's vectors.
        new: the new model's vectors of some of the same ids.
        mapped: ``new`` through the adapter, row for row.
        title: what is compared.
        seed: chooses the items, at most :data:`SAMPLE`, and the random pairs.

    Returns:
        Nothing where fewer than two ids are shared.
    """
    place = old.locate(new.ids)
    shared = np.flatnonzero(place >= 0)
    if len(shared) < 2:
        return ()
    generator = np.random.default_rng(seed)
    chosen = np.sort(generator.permutation(shared)[:SAMPLE])
    turn = int(generator.integers(1, len(chosen)))
    reference = _unit(old.rows.take(place[chosen]))
    stages: list[tuple[Stage, Floats]] = []
    if new.dimension == old.dimension:
        stages.append(("before", _unit(new.rows.take(chosen))))
    stages.append(("after", _unit(mapped.rows.take(chosen))))
    values = [
        (np.einsum("ij,ij->i", rows, reference), np.einsum("ij,ij->i", np.roll(rows, turn, axis=0), reference))
        for _, rows in stages
    ]
    everything = np.concatenate([part for pair in values for part in pair])
    low, high = np.floor(everything.min() * 10) / 10, np.ceil(everything.max() * 10) / 10
    edges = np.linspace(max(low, -1.0), min(max(high, low + 0.1), 1.0), round(4 * len(chosen) ** (1 / 3)) + 1)
    return tuple(
        _histogram(title, stage, edges, matching, random)
        for (stage, _), (matching, random) in zip(stages, values, strict=True)
    )


def _histogram(title: str, stage: Stage, edges: npt.NDArray[np.float64], matching: Floats, random: Floats) -> Cosines:
    def shares(values: Floats) -> tuple[float, ...]:
        inside = np.clip(values, edges[0], edges[-1])
        return tuple((np.histogram(inside, edges)[0] / len(values)).tolist())

    means = (float(matching.mean()), float(random.mean()))
    return Cosines(
        title, stage, tuple(edges.tolist()), shares(matching), shares(random), means, _separation(matching, random)
    )


def _separation(matching: Floats, random: Floats) -> float:
    """P(matching > random), ties counting half: the area under the ROC curve."""
    ordered = np.sort(random)
    below = np.searchsorted(ordered, matching, side="left") + np.searchsorted(ordered, matching, side="right")
    return float(below.mean() / (2 * len(random)))


def _unit(rows: Floats) -> Floats:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(norms == 0, 1, norms), dtype=np.float32)
