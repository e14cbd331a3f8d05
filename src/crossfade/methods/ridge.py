"""Ridge regression from new to old vectors (Hoerl and Kennard, 1970), its penalty chosen by cross-validation.

Needs: at least ten pairs, of every modality that shall be mapped. Gives: a
:class:`~crossfade.methods.linear.LinearAdapter`. It may stretch and shear, which a rotation cannot, and so follows
the old space more closely where there are many pairs. Fails: with few pairs in many dimensions it draws vectors
towards the mean, and it was fitted on a mean squared error, which is not what retrieval measures.

Equations, with rows of X new and of Y old vectors, centred by the means μ_m, ν_m of their modality m::

    W_λ = (Xᵀ X + λ I)⁻¹ Xᵀ Y                                                        (1)
    E_k(λ) = tr(Y_kᵀ Y_k) − 2 tr(W_λᵀ X_kᵀ Y_k) + tr(W_λᵀ X_kᵀ X_k W_λ)              (2), W_λ from the other folds
    λ* = argmin_λ Σ_k E_k(λ)                                                         (3)
    z = n((v − μ_m) W + ν_m)                                                         (4)

(2) needs no second pass: it is a function of the sums of each fold. With Xᵀ X = Q diag(d) Qᵀ of the other folds,
every λ costs only one division by d + λ.

=============  ===============  ===========
symbol         variable         shape
=============  ===============  ===========
Xᵀ X, Xᵀ Y     ``gram, xy``     [d_s, d_s], [d_s, d_t]
W_λ            ``coefficients``  [d_s, d_t]
E_k(λ)         ``errors``       [number of λ]
μ_m, ν_m       ``around``       [d_s], [d_t]
=============  ===============  ===========

Deviations: none; for a given λ it equals scikit-learn's ``Ridge(alpha=λ)`` on the centred pairs.

Not specified by the sources (our choice): the grid of λ, as multiples of the mean eigenvalue tr(XᵀX)/d_s, so that it
means the same for any number of pairs and any scale; five folds, divided by item. Drift-Adapter (2509.23471) has no
ridge; it is here because it is what users reach for.
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

__all__ = ["Ridge", "coefficients", "held_out_errors"]

Doubles = npt.NDArray[np.float64]


def coefficients(moments: Moments, penalty: float) -> Doubles:
    """W_λ from the sums about the means, [d_s, d_t]."""
    regularized = moments.gram + penalty * np.eye(len(moments.gram))
    return np.asarray(np.linalg.solve(regularized, moments.xy), dtype=np.float64)  # Eq. (1)


def held_out_errors(train: Moments, test: Moments, penalties: Doubles) -> Doubles:
    """E_k(λ) for every λ: the squared error on ``test`` of W_λ fitted on ``train``, both about train's means."""
    d, q = np.linalg.eigh(train.gram)
    projected = q.T @ train.xy
    linear = np.einsum("ij,ij->i", projected, q.T @ test.xy)
    quadratic = (q.T @ test.gram @ q) * (projected @ projected.T)
    shrink = 1.0 / (np.maximum(d, 0.0)[None, :] + penalties[:, None])
    errors: Doubles = test.yy - 2.0 * shrink @ linear + np.einsum("li,ij,lj->l", shrink, quadratic, shrink)  # Eq. (2)
    return errors


@dataclass(frozen=True)
class Ridge(Method):
    """Ridge regression.

    Attributes:
        penalty: λ, scikit-learn's ``alpha``; None chooses it on held-out folds.
        center: ``modality`` (2602.17584) or ``joint``, one mean for all pairs (the textbook's).
        grid: the λ to choose from, in multiples of the mean eigenvalue of Xᵀ X (our choice).
        folds: of the cross-validation (our choice).
    """

    penalty: float | None = None
    center: Centre = "modality"
    grid: tuple[float, ...] = (1e-5, 1e-4, 1e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0, 10.0)
    folds: int = 5

    name: ClassVar[str] = "ridge"
    adapter: ClassVar[type[Adapter]] = LinearAdapter

    def __post_init__(self) -> None:
        check_centre(self.center, ("modality", "joint"))
        if self.penalty is not None and not self.penalty > 0.0:
            raise ConfigError(
                f"Ridge's penalty must be positive; found {self.penalty}. Leave it out to have it chosen."
            )
        if self.folds < 2 or not self.grid or not min(self.grid) > 0.0:
            raise ConfigError(
                f"Ridge needs at least two folds and a grid of positive penalties; found {self.folds} and {self.grid}."
            )

    def solve(self, pairs: Pairs, *, seed: int) -> LinearAdapter:
        """Fit from the statistics of one pass; ``seed`` divides the folds.

        Raises:
            FitError: fewer than ten pairs.
        """
        require_pairs(pairs, 10, method="Ridge", why="two for each fold of the cross-validation")
        choose = self.penalty is None
        by_fold = collect(pairs, gram=True, folds=self.folds if choose else 1, seed=seed)
        moments = {m: total(folds) for m, folds in by_fold.items()}
        around = means(moments, self.center)
        about = centred(moments, around)
        scale = float(np.trace(about.gram)) / len(about.gram)
        if choose:
            penalties = scale * np.asarray(self.grid)
            errors = np.zeros(len(penalties))
            for fold in range(self.folds):
                test = {m: folds[fold] for m, folds in by_fold.items()}
                train = {m: moments[m] - part for m, part in test.items()}
                if not sum(part.count for part in test.values()) or not sum(part.count for part in train.values()):
                    continue
                train_means = means(train, self.center)
                errors += held_out_errors(centred(train, train_means), centred(test, train_means), penalties)
            penalty = float(penalties[int(np.argmin(errors))])  # Eq. (3)
        else:
            penalty = float(self.penalty or 0.0)
        matrix = coefficients(about, penalty)
        return LinearAdapter.centred(pairs.source, pairs.target, matrix=matrix, means=around)  # Eq. (4)
