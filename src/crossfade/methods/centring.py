"""What is subtracted before a linear map is solved for: nothing, one mean of all pairs, or one mean for each modality.

Image and text vectors of one dual encoder lie around two different centroids, some distance apart (the modality gap).
An affine map whose mean was fitted on one modality shifts the other to the wrong place; a mean for each modality
("Canonicalizing", 2602.17584) does not::

    z ↦ (z − μ_m) W + ν_m      with one W, and means μ_m (source), ν_m (target) for modality m
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import numpy.typing as npt

from crossfade.errors import ConfigError
from crossfade.methods.statistics import Moments, total
from crossfade.spaces import Modality

__all__ = ["Centre", "Means", "centred", "check_centre", "means"]

Centre = Literal["none", "joint", "modality"]
Means = Mapping[Modality, tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]]


def check_centre(centre: str, allowed: tuple[Centre, ...]) -> None:
    """Refuse an unknown way of centring.

    Raises:
        ConfigError: it is not among ``allowed``.
    """
    if centre not in allowed:
        raise ConfigError(f"center must be one of {', '.join(allowed)}; found {centre!r}.")


def means(moments: Mapping[Modality, Moments], centre: Centre) -> Means:
    """Modality → (μ_m [d_s], ν_m [d_t]); a modality without pairs has the joint mean."""
    joint = total(moments.values())
    if centre == "none":
        zero = (np.zeros_like(joint.sum_x), np.zeros_like(joint.sum_y))
        return dict.fromkeys(moments, zero)
    if centre == "joint":
        return dict.fromkeys(moments, (joint.mean_x, joint.mean_y))
    return {
        m: (part.mean_x, part.mean_y) if part.count else (joint.mean_x, joint.mean_y) for m, part in moments.items()
    }


def centred(moments: Mapping[Modality, Moments], around: Means) -> Moments:
    """The sums over all modalities, each about its own means."""
    return total(part.about(*around[m]) for m, part in moments.items())
