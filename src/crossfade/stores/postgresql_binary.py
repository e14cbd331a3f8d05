"""Values in PostgreSQL's binary format, whole columns at a time.

pgvector sends a vector as its dimension (int16), a zero (int16) and its components (float4); an array is a header of five int32
and, for each element, its length (int32, −1 for NULL) and its bytes. All numbers are big-endian.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from crossfade.stores.records import Vectors

__all__ = ["Binary", "integers", "texts", "vector", "vectors", "vectors_of"]

Floats = npt.NDArray[np.float32]

TEXT, BIGINT = 25, 20
"""Of these types the numbers are the same in every database; that of the type ``vector`` is not."""

NULL = (-1).to_bytes(4, "big", signed=True)


@dataclass(frozen=True, slots=True, repr=False)
class Binary:
    """A parameter in the binary format; the statement says of which type it is.

    Attributes:
        data: its bytes.
    """

    data: bytes


def vector(values: Floats) -> Binary:
    """One vector."""
    return Binary(_vectors(values[None]).tobytes())


def vectors(values: Vectors, type_number: int) -> Binary:
    """An array of vectors, NULL where there is none.

    Args:
        values: of n rows.
        type_number: of the type ``vector`` in this database.
    """
    count = len(values.values)
    inner = _vectors(values.values)
    elements = np.empty(count, dtype=[("length", ">i4"), ("element", inner.dtype)])
    elements["length"], elements["element"] = inner.dtype.itemsize, inner
    header = _header(count, type_number, nulls=not values.present.all())
    if values.present.all():
        return Binary(header + elements.tobytes())
    pieces = (elements[row].tobytes() if there else NULL for row, there in enumerate(values.present))
    return Binary(header + b"".join(pieces))


def integers(values: Sequence[int]) -> Binary:
    """An array of whole numbers of 64 bits."""
    elements = np.empty(len(values), dtype=[("length", ">i4"), ("element", ">i8")])
    elements["length"], elements["element"] = 8, values
    return Binary(_header(len(values), BIGINT, nulls=False) + elements.tobytes())


def texts(values: Sequence[str | None]) -> Binary:
    """An array of texts."""
    return Binary(_header(len(values), TEXT, nulls=None in values) + b"".join(_text_pieces(values)))


def vectors_of(found: Sequence[bytes | None], dimension: int) -> Vectors:
    """Vectors as PostgreSQL sent them, None where there is none.

    Raises:
        ValueError: one is of another dimension.
    """
    present = np.fromiter((each is not None for each in found), dtype=bool, count=len(found))
    layout = _layout(dimension)
    data = b"".join(each for each in found if each is not None)
    other = {len(each) for each in found if each is not None} - {layout.itemsize}
    if other:
        raise ValueError(f"vectors of {sorted((length - 4) // 4 for length in other)} dimensions, not {dimension}")
    values = np.zeros((len(found), dimension), dtype=np.float32)
    values[present] = np.frombuffer(data, dtype=layout)["values"]
    return Vectors(values, present)


def _layout(dimension: int) -> np.dtype[np.void]:
    return np.dtype([("dimension", ">i2"), ("unused", ">i2"), ("values", ">f4", (dimension,))])


def _vectors(values: Floats) -> npt.NDArray[np.void]:
    found = np.zeros(len(values), dtype=_layout(values.shape[1]))
    found["dimension"], found["values"] = values.shape[1], values
    return found


def _header(count: int, type_number: int, *, nulls: bool) -> bytes:
    """Dimensions, whether there are NULLs, the elements' type, how many they are, and the number of the first."""
    if not count:
        return np.array([0, 0, type_number], dtype=">i4").tobytes()
    return np.array([1, nulls, type_number, count, 1], dtype=">u4").tobytes()


def _text_pieces(values: Iterable[str | None]) -> Iterable[bytes]:
    for value in values:
        if value is None:
            yield NULL
        else:
            encoded = value.encode()
            yield len(encoded).to_bytes(4, "big")
            yield encoded
