"""Stamps: which old vector the native vector of a row belongs to.

An application that knows nothing of the upgrade changes an item by writing its old vector anew. What was made of the item
before, its native vector, is then stale, and the stamp says so.
"""

from __future__ import annotations

from hashlib import blake2b

import numpy as np

from crossfade.stores import Id, Records

__all__ = ["NOTHING", "stamps_of"]

NOTHING = 0
"""The stamp of a row that has no old vector."""


def stamps_of(records: Records, field: str) -> dict[Id, int]:
    """A whole number of 64 bits for each row, by the bits of its vector as the store gives it.

    Args:
        records: as they were read.
        field: the old field.
    """
    vectors = records.vectors[field]
    values = np.ascontiguousarray(vectors.values, dtype="<f4")
    return {
        id_: _number(row.data) if there else NOTHING
        for id_, row, there in zip(records.ids, values, vectors.present.tolist(), strict=True)
    }


def _number(row: memoryview) -> int:
    return int.from_bytes(blake2b(row, digest_size=8).digest(), "little", signed=True) or 1
