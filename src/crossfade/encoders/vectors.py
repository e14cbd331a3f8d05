"""The last step of every encoder: finite float32 rows of unit norm."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from crossfade.errors import EncoderError

__all__ = ["no_rows", "unit_rows"]

_ZERO = 1e-12  # a norm below this has no direction


def unit_rows(matrix: npt.NDArray[Any], *, model: str, rows: int) -> npt.NDArray[np.float32]:
    """Each row divided by its L2 norm, in float32.

    Args:
        matrix: [rows, d], any real number format.
        model: who made it, for the message.
        rows: how many there must be.

    Returns:
        float32 [rows, d].

    Raises:
        EncoderError: the count is wrong, a value is not finite, or a row is zero.
    """
    if matrix.ndim != 2 or len(matrix) != rows:
        raise EncoderError(f"{model} must give one vector an item; found shape {matrix.shape} for {rows} items.")
    wide = np.asarray(matrix, dtype=np.float64)
    norms = np.sqrt(np.einsum("ij,ij->i", wide, wide))
    if not np.isfinite(norms).all():
        row = int(np.flatnonzero(~np.isfinite(norms))[0])
        raise EncoderError(
            f"{model} gave NaN or infinity for item {row} of the batch. Use dtype float32, or bfloat16 instead of "
            "float16."
        )
    if rows and norms.min() < _ZERO:
        raise EncoderError(
            f"{model} gave a zero vector for item {int(norms.argmin())} of the batch, which has no direction."
        )
    return np.asarray(wide / norms[:, None], dtype=np.float32)


def no_rows(dimension: int) -> npt.NDArray[np.float32]:
    """What an empty batch gives: float32 [0, dimension]."""
    return np.empty((0, dimension), dtype=np.float32)
