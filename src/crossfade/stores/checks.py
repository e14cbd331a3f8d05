"""What every store is spared: the tables and checks behind :class:`~crossfade.stores.Store`."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from crossfade.errors import ConfigError, InvalidVectors
from crossfade.stores.backend import VectorField
from crossfade.stores.conditions import Kind

__all__ = ["LACKING", "MEETS", "matrix_of", "require_k"]

MEETS: Mapping[Kind, tuple[Kind, ...]] = {
    "string": ("string",),
    "integer": ("integer", "number"),
    "number": ("integer", "number"),
    "boolean": ("boolean",),
    "other": (),
}
"""What a column holds → the kinds of values that it can be compared with."""

LACKING = {
    "write": "Writing rows",
    "filter": "A filter",
    "second_field": "A second vector field",
    "notes": "A note beside the collection",
    "keeps_vectors": "Reading vectors as they were written",
    "snapshot": "A scan of one moment",
    "shared": "Use by several processes at once",
}
"""Capability → what it is, for the message that it is lacking."""


def matrix_of(vectors: npt.NDArray[np.floating], shape: VectorField) -> npt.NDArray[np.float32]:
    found = np.asarray(vectors, dtype=np.float32)
    matrix = np.ascontiguousarray(found[None] if found.ndim == 1 else found)
    if matrix.ndim != 2 or matrix.shape[1] != shape.dimension:
        raise InvalidVectors(
            f"Vectors for the field {shape.name!r} must have {shape.dimension} components; found {found.shape}."
        )
    if not np.vdot(matrix, matrix) < np.inf and not np.isfinite(matrix).all():  # squares of finite numbers may overflow
        raise InvalidVectors(
            f"Vectors for the field {shape.name!r} must be finite; some are not. Leave those rows out."
        )
    return matrix


def require_k(k: object) -> None:
    """Refuse what is no number of rows to be found.

    Raises:
        ConfigError: it is not a whole number of at least 1.
    """
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise ConfigError(f"k must be a whole number of at least 1; found {k!r}.")
