"""Low-rank affine map: one of the three forms of Drift-Adapter (2509.23471), r = 64.

Needs: more pairs than the rank, of every modality that shall be mapped. Gives: a
:class:`~crossfade.methods.linear.LinearAdapter` whose matrix has rank r. Fails: where the old space uses more than r
directions, which most do; the 95–99 % of recall that its paper reports did not reproduce independently (24–50 %).

Equations, with rows of X new and of Y old vectors, centred by the means μ_m, ν_m of their modality m::

    z = n(A B v + t)                                                        (1), the paper's form: A [d_t, r], B [r,
    d_s] min over rank(W) ≤ r of ‖X W − Y‖²_F + λ ‖W‖²_F                          (2), with W = (A B)ᵀ W_λ = (Xᵀ X + λ
    I)⁻¹ Xᵀ Y                                               (3), the minimum without the rank V = the r leading
    eigenvectors of W_λᵀ (Xᵀ X + λ I) W_λ                 (4) W = W_λ V Vᵀ
    (5), the minimum of (2) (Izenman, 1975)

==============  ============  ===========
symbol          variable      shape
==============  ============  ===========
W_λ             ``full``      [d_s, d_t]
V               ``leading``   [d_t, r]
W               ``matrix``    [d_s, d_t]
μ_m, ν_m        ``around``    [d_s], [d_t]
==============  ============  ===========

Deviations: the paper trains A, B and t by gradient descent on the squared error; this is the exact minimum of the same
error in closed form (reduced-rank regression). It centres each modality by its own means (2602.17584) where the
paper, which is about text, has one offset t.

Not specified by the paper (our choice): the penalty λ, 10⁻³ times the mean eigenvalue of Xᵀ X, which only keeps (3)
solvable. W is stored and applied as one matrix. A rank above min(d_s, d_t) is that of the full matrix.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from crossfade.errors import ConfigError
from crossfade.methods.base import Adapter, Method, require_pairs
from crossfade.methods.centring import Centre, centred, check_centre, means
from crossfade.methods.linear import LinearAdapter
from crossfade.methods.statistics import Moments, collect, total

if TYPE_CHECKING:
    from crossfade.pairing import Pairs

__all__ = ["LowRank", "reduced_rank_map"]

Doubles = npt.NDArray[np.float64]


def reduced_rank_map(moments: Moments, *, rank: int, penalty: float) -> Doubles:
    """W [d_s, d_t] of rank at most ``rank`` from the sums about the means."""
    regularized = moments.gram + penalty * np.eye(len(moments.gram))
    full = np.linalg.solve(regularized, moments.xy)  # Eq. (3)
    explained = full.T @ moments.xy
    _, vectors = np.linalg.eigh((explained + explained.T) / 2.0)
    leading = vectors[:, -rank:]  # Eq. (4): (Xᵀ X + λ I) W_λ is Xᵀ Y
    matrix: Doubles = (full @ leading) @ leading.T  # Eq. (5)
    return matrix


@dataclass(frozen=True)
class LowRank(Method):
    """Low-rank affine map by reduced-rank regression.

    Attributes:
        rank: r (2509.23471).
        relative_penalty: λ in multiples of the mean eigenvalue of Xᵀ X (our choice).
        center: ``modality`` (2602.17584) or ``joint``.
    """

    rank: int = 64
    relative_penalty: float = 1e-3
    center: Centre = "modality"

    name: ClassVar[str] = "low_rank"
    adapter: ClassVar[type[Adapter]] = LinearAdapter

    def __post_init__(self) -> None:
        check_centre(self.center, ("modality", "joint"))
        if self.rank < 1 or not self.relative_penalty > 0.0:
            raise ConfigError(
                f"A low-rank map needs a rank of at least 1 and a positive penalty; found {self.rank} and "
                f"{self.relative_penalty}."
            )

    def solve(self, pairs: Pairs, *, seed: int) -> LinearAdapter:
        """Fit from the statistics of one pass; nothing is random.

        Raises:
            FitError: not more pairs than the rank.
        """
        rank = min(self.rank, pairs.source.dimension, pairs.target.dimension)
        require_pairs(pairs, rank + 1, method="A low-rank map", why="more than its rank")
        moments = {m: total(folds) for m, folds in collect(pairs, gram=True).items()}
        around = means(moments, self.center)
        about = centred(moments, around)
        penalty = self.relative_penalty * float(np.trace(about.gram)) / len(about.gram)
        matrix = reduced_rank_map(about, rank=rank, penalty=penalty)
        return LinearAdapter.centred(pairs.source, pairs.target, matrix=matrix, means=around)  # Eq. (1)
