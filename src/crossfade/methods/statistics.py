"""The sums that closed forms need of the pairs, in one pass over files of any size.

For pairs (x_i, y_i) of one modality::

    n    Σ x_i    Σ y_i    Xᵀ X = Σ x_i x_iᵀ    Xᵀ Y = Σ x_i y_iᵀ    tr(Yᵀ Y) = Σ ‖y_i‖²

They add up: over blocks, over files, over machines, and over the folds of a cross-validation, whose training sums are
the total minus the fold's own. Blocks are multiplied in float32 and summed in float64.

============  ==============  ============
symbol        field           shape
============  ==============  ============
n             ``count``       ()
Σ x_i         ``sum_x``       [d_s]
Σ y_i         ``sum_y``       [d_t]
Xᵀ X          ``xx``          [d_s, d_s]
Xᵀ Y          ``xy``          [d_s, d_t]
tr(Yᵀ Y)      ``yy``          ()
============  ==============  ============
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from crossfade.embeddings.rows import ahead
from crossfade.errors import InvalidVectors
from crossfade.methods.base import Floats
from crossfade.spaces import Modality, Space

if TYPE_CHECKING:
    from crossfade.pairing import Pairs, Part

__all__ = ["Moments", "collect", "total"]

BLOCK = 8_192
"""Rows multiplied at a time: 25 MB of float32 at dimension 768."""

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Moments:
    """Sums over some pairs; ``xx`` is None where no method asked for it. Adds and subtracts."""

    count: int
    sum_x: Doubles
    sum_y: Doubles
    xy: Doubles
    yy: float
    xx: Doubles | None = None

    def __add__(self, other: Moments) -> Moments:
        return self._combine(other, 1)

    def __sub__(self, other: Moments) -> Moments:
        return self._combine(other, -1)

    def _combine(self, other: Moments, sign: int) -> Moments:
        gram = None if self.xx is None or other.xx is None else self.xx + sign * other.xx
        return Moments(
            count=self.count + sign * other.count,
            sum_x=self.sum_x + sign * other.sum_x,
            sum_y=self.sum_y + sign * other.sum_y,
            xy=self.xy + sign * other.xy,
            yy=self.yy + sign * other.yy,
            xx=gram,
        )

    @property
    def gram(self) -> Doubles:
        """Xᵀ X, where it was collected."""
        assert self.xx is not None, "collect(gram=True) was not asked for"
        return self.xx

    @property
    def mean_x(self) -> Doubles:
        """μ = Σ x_i / n."""
        return self.sum_x / max(self.count, 1)

    @property
    def mean_y(self) -> Doubles:
        """ν = Σ y_i / n."""
        return self.sum_y / max(self.count, 1)

    def about(self, mean_x: Doubles, mean_y: Doubles) -> Moments:
        """The sums of (x_i − μ, y_i − ν) for any μ and ν, such as the means of other pairs."""
        n, sx, sy = self.count, self.sum_x, self.sum_y
        gram = None
        if self.xx is not None:
            cross = np.outer(sx, mean_x)
            gram = self.xx - cross - cross.T + n * np.outer(mean_x, mean_x)
        return Moments(
            count=n,
            sum_x=sx - n * mean_x,
            sum_y=sy - n * mean_y,
            xy=self.xy - np.outer(sx, mean_y) - np.outer(mean_x, sy) + n * np.outer(mean_x, mean_y),
            yy=self.yy - 2.0 * float(sy @ mean_y) + n * float(mean_y @ mean_y),
            xx=gram,
        )


def total(moments: Iterable[Moments]) -> Moments:
    """The sum of at least one."""
    return reduce(Moments.__add__, moments)


def collect(pairs: Pairs, *, gram: bool, folds: int = 1, seed: int = 0) -> Mapping[Modality, tuple[Moments, ...]]:
    """One pass over the pairs.

    Args:
        pairs: any number of them; what is held in memory is a few blocks and the sums.
        gram: whether Xᵀ X is needed, the larger of the two products.
        folds: into how many folds to divide the items; the same item, whatever the order, is always in the same fold.
        seed: of the division.

    Returns:
        Modality → the sums of each fold.

    Raises:
        InvalidVectors: a vector is not finite, or zero in a space that is normalised.
    """
    result: dict[Modality, tuple[Moments, ...]] = {}
    for part in pairs.parts:
        fold_of = pairs.folds(part, count=folds, seed=seed) if folds > 1 else None
        sums = [_Sums(pairs.source.dimension, pairs.target.dimension, gram=gram) for _ in range(folds)]
        for fold, x, y in _blocks(part, pairs, fold_of):
            sums[fold].add(x, y)
        result[part.modality] = tuple(s.moments() for s in sums)
    return result


class _Sums:
    """Running sums in float64."""

    def __init__(self, d_s: int, d_t: int, *, gram: bool) -> None:
        self.count = 0
        self.sum_x, self.sum_y = np.zeros(d_s), np.zeros(d_t)
        self.xy = np.zeros((d_s, d_t))
        self.xx = np.zeros((d_s, d_s)) if gram else None
        self.yy = 0.0

    def add(self, x: Floats, y: Floats) -> None:
        ones = np.ones(len(x), dtype=np.float32)
        self.count += len(x)
        self.sum_x += ones @ x
        self.sum_y += ones @ y
        self.yy += float(np.dot(y.ravel(), y.ravel()))
        self.xy += x.T @ y
        if self.xx is not None:
            self.xx += x.T @ x  # BLAS syrk: NumPy sees that both are one array, and computes one triangle

    def moments(self) -> Moments:
        return Moments(self.count, self.sum_x, self.sum_y, self.xy, self.yy, self.xx)


def _blocks(part: Part, pairs: Pairs, fold_of: npt.NDArray[np.int64] | None) -> Iterator[tuple[int, Floats, Floats]]:
    """(fold, x [k, d_s], y [k, d_t]); the next block is read and converted in a second thread meanwhile."""

    # One block is read while the one before is multiplied: two buffers a side, used in turn.
    d_s, d_t = pairs.source.dimension, pairs.target.dimension
    buffers = [(np.empty((BLOCK, d_s), np.float32), np.empty((BLOCK, d_t), np.float32)) for _ in range(2)]

    def read(start: int) -> list[tuple[int, Floats, Floats]]:
        stop = min(start + BLOCK, len(part))
        into_x, into_y = buffers[start // BLOCK % 2]
        if fold_of is None:
            x = part.source.rows.read(start, stop, out=into_x)
            y = part.target.rows.read(start, stop, out=into_y)
            chosen = [(0, x, y)]
        else:
            order = start + np.argsort(fold_of[start:stop], kind="stable")
            ends = np.cumsum(np.bincount(fold_of[start:stop]))
            x, y = part.source.rows.take(order, out=into_x), part.target.rows.take(order, out=into_y)
            firsts = [0, *ends[:-1].tolist()]
            chosen = [(f, x[a:b], y[a:b]) for f, (a, b) in enumerate(zip(firsts, ends.tolist(), strict=True)) if b > a]
        for _, x, y in chosen:
            _require_directions(x, pairs.source, part, "source")
            _require_directions(y, pairs.target, part, "target")
        return chosen

    starts = range(0, len(part), BLOCK)
    for start, chosen in zip(starts, ahead(read, starts), strict=True):
        yield from chosen
        part.source.rows.release(start, start + BLOCK)
        part.target.rows.release(start, start + BLOCK)


def _require_directions(block: Floats, space: Space, part: Part, side: str) -> None:
    if space.normalized and not np.einsum("ij,ij->i", block, block).min() > 0.0:
        embeddings = part.source if side == "source" else part.target
        embeddings.require_nonzero()
        raise InvalidVectors(
            f"The {side} vectors of the pairs must not be zero, since {space} is normalised. Re-encode."
        )
