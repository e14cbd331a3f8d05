"""Records: rows of a store as arrays; some vector fields and columns of some items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from crossfade.errors import InvalidIds, InvalidVectors

__all__ = ["Hits", "Id", "Mask", "Records", "Value", "Vectors"]

Id = str | int
"""What names a row: a string or a whole number; a UUID is a string in its canonical form."""

Value = str | int | float | bool | None
"""What a column holds."""

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False, slots=True)
class Vectors:
    """One vector field of n rows.

    Attributes:
        values: float32 [n, d]; zeros where there is none.
        present: [n], which rows have one.
    """

    values: Floats
    present: Mask

    @classmethod
    def of(cls, values: npt.NDArray[Any]) -> Vectors:
        """Vectors of which each is there.

        Raises:
            InvalidVectors: they are no matrix.
        """
        matrix = np.asarray(values, dtype=np.float32)
        if matrix.ndim != 2:
            raise InvalidVectors(f"The vectors of a field must be a matrix [n, dimension]; found {matrix.shape}.")
        return cls(matrix, np.ones(len(matrix), dtype=bool))

    @classmethod
    def from_rows(cls, rows: Sequence[Any], dimension: int) -> Vectors:
        """One row each: a sequence of ``dimension`` numbers, or None."""
        present = np.fromiter((row is not None for row in rows), dtype=bool, count=len(rows))
        values = np.zeros((len(rows), dimension), dtype=np.float32)
        for number, row in enumerate(rows):
            if row is not None:
                values[number] = row
        return cls(values, present)

    def select(self, rows: npt.NDArray[Any] | Sequence[int]) -> Vectors:
        """Only these rows, in this order."""
        return Vectors(self.values[rows], self.present[rows])


@dataclass(frozen=True, eq=False, slots=True)
class Records:
    """Rows of a store.

    Attributes:
        ids: of n rows, each once.
        vectors: field → vectors of the rows.
        columns: column → n values; None where a row has none.
    """

    ids: list[Id]
    vectors: Mapping[str, Vectors] = field(default_factory=dict)
    columns: Mapping[str, list[Value]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(set(self.ids)) < len(self.ids):
            raise InvalidIds(f"Rows must have an id each, and once; {len(self.ids) - len(set(self.ids))} repeat.")
        lengths = {name: len(each.values) for name, each in self.vectors.items()}
        lengths |= {name: len(each) for name, each in self.columns.items()}
        wrong = {name: length for name, length in lengths.items() if length != len(self.ids)}
        if wrong:
            raise InvalidIds(f"Each field and column must have one value a row; {len(self.ids)} rows have {wrong}.")

    def __len__(self) -> int:
        return len(self.ids)

    def select(self, rows: Sequence[int] | npt.NDArray[Any]) -> Records:
        """Only these rows, in this order."""
        chosen = [int(row) for row in rows]
        return Records(
            [self.ids[row] for row in chosen],
            {name: each.select(chosen) for name, each in self.vectors.items()},
            {name: [each[row] for row in chosen] for name, each in self.columns.items()},
        )


@dataclass(frozen=True, eq=False, slots=True)
class Hits:
    """What a search found for one query, best first.

    Attributes:
        ids: of at most k rows.
        scores: float32, one each: cosine, inner product, or negated Euclidean distance.
    """

    ids: list[Id]
    scores: Floats

    def __len__(self) -> int:
        return len(self.ids)
