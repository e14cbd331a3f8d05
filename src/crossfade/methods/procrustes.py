"""Orthogonal Procrustes: the rotation that brings new vectors closest to the old ones (Schönemann, 1966).

Needs: at least min(d_s, d_t) pairs, of any modality; a few thousand are better. Gives: a
:class:`~crossfade.methods.linear.LinearAdapter`. It keeps every angle of the new space (where d_s ≤ d_t), so it cannot
overfit much, and it is the mandatory baseline: on CLIP H/14 → B/32 it beats the published XBT in most cells
(2609.39836). Fails: where the two models order their items differently, since no rotation changes an order.

Equations, with rows of X new and of Y old vectors of the same items::

    U Σ Vᵀ = svd(Xᵀ Y)                    (1)
    R = U Vᵀ                              (2)
    z = n(v R)                            (3), center="none"
    z = n((v − μ_m) R + ν_m)              (4), center="modality", one R and two means for modality m (2602.17584);
                                               X and Y in (1) are centred in the same way

R maximises tr(Rᵀ Xᵀ Y), the summed inner product of mapped and old vectors. Where d_s ≤ d_t that is the same as
minimising ‖X R − Y‖_F; where d_s > d_t it is not, because R then shortens vectors, and the inner product is what
retrieval uses.

============  ============  ===========
symbol        variable      shape
============  ============  ===========
Xᵀ Y          ``moments.xy``  [d_s, d_t]
R             ``rotation``  [d_s, d_t]
μ_m, ν_m      ``around``    [d_s], [d_t]
============  ============  ===========

Deviations: none for square R. The rectangular form takes the thin singular value decomposition of (1).

Not specified by the sources (our choice): vectors are used as they are stored, not normalised first: where a space
says it is normalised they already are, and elsewhere their lengths may mean something. With center="none" nothing in
the map belongs to a modality, so it agrees to map every modality that both spaces hold, also one without pairs; with
center="modality" only those that had pairs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from crossfade.methods.base import Adapter, Method, require_pairs, shared_modalities
from crossfade.methods.centring import Centre, centred, check_centre, means
from crossfade.methods.linear import LinearAdapter
from crossfade.methods.statistics import collect, total

if TYPE_CHECKING:
    from crossfade.pairing import Pairs

__all__ = ["Procrustes", "orthogonal_map"]


def orthogonal_map(cross: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """R from Xᵀ Y, both [d_s, d_t]; orthonormal rows or columns, whichever are fewer."""
    u, _, vt = np.linalg.svd(cross, full_matrices=False)  # Eq. (1)
    rotation: npt.NDArray[np.float64] = u @ vt  # Eq. (2)
    return rotation


@dataclass(frozen=True)
class Procrustes(Method):
    """Orthogonal Procrustes.

    Attributes:
        center: ``none`` (Schönemann, 1966) or ``modality`` ("Canonicalizing", 2602.17584).
    """

    center: Centre = "none"

    name: ClassVar[str] = "procrustes"
    adapter: ClassVar[type[Adapter]] = LinearAdapter
    variants: ClassVar[tuple[Mapping[str, Any], ...]] = ({}, {"center": "modality"})

    def __post_init__(self) -> None:
        check_centre(self.center, ("none", "modality"))

    def solve(self, pairs: Pairs, *, seed: int) -> LinearAdapter:
        """Fit from the statistics of one pass; nothing is random.

        Raises:
            FitError: fewer pairs than min(d_s, d_t), which leave some directions free.
        """
        smaller = min(pairs.source.dimension, pairs.target.dimension)
        require_pairs(pairs, smaller, method="Procrustes", why="one for each dimension of the smaller space")
        moments = {m: total(folds) for m, folds in collect(pairs, gram=False).items()}
        around = means(moments, self.center)
        rotation = orthogonal_map(centred(moments, around).xy)
        if self.center == "none":
            zeros = dict.fromkeys(shared_modalities(pairs), np.zeros(pairs.target.dimension))
            return LinearAdapter(pairs.source, pairs.target, matrix=rotation, offsets=zeros)  # Eq. (3)
        return LinearAdapter.centred(pairs.source, pairs.target, matrix=rotation, means=around)  # Eq. (4)
