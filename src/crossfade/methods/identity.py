"""Identity: the new vectors as they are, for spaces of one dimension.

The row that every table needs: what happens when somebody swaps the model and changes nothing else. It is right only
where the new model was trained to be compatible (BCT, 2003.11942); between two independent models it gives noise.

Needs: equal dimensions; no pairs. Gives: a :class:`~crossfade.methods.linear.LinearAdapter` for every modality that
both spaces hold. Fails: on unequal dimensions; nothing is padded or cut off, which would be a method of its own.

Equation::

    z = n(v)        (1), n(·) only where the old space is normalised

============  ===========  =======
symbol        variable     shape
============  ===========  =======
v             ``vectors``  [d]
I             ``matrix``   [d, d]
============  ===========  =======
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from crossfade.errors import FitError
from crossfade.methods.base import Adapter, Method, shared_modalities
from crossfade.methods.linear import LinearAdapter

if TYPE_CHECKING:
    from crossfade.pairing import Pairs

__all__ = ["Identity"]


def identity_map(dimension: int) -> npt.NDArray[Any]:
    """I, [d, d]."""
    return np.eye(dimension, dtype=np.float32)  # Eq. (1)


@dataclass(frozen=True)
class Identity(Method):
    """The new vectors as they are."""

    name: ClassVar[str] = "identity"
    adapter: ClassVar[type[Adapter]] = LinearAdapter

    def solve(self, pairs: Pairs, *, seed: int) -> LinearAdapter:
        """Nothing is fitted.

        Raises:
            FitError: the dimensions differ.
        """
        d_s, d_t = pairs.source.dimension, pairs.target.dimension
        if d_s != d_t:
            raise FitError(
                f"Identity needs spaces of one dimension; found {d_s} (new) and {d_t} (old). Use procrustes, which "
                "has a rectangular form."
            )
        zeros = dict.fromkeys(shared_modalities(pairs), np.zeros(d_t))
        return LinearAdapter(pairs.source, pairs.target, matrix=identity_map(d_s), offsets=zeros)
