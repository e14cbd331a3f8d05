"""A store by its own client: what that documents for reading, writing and searching in bulk.

Ids are whole numbers, the vector field is ``vector``, and one that is added ``new``. Everything begins and ends in lists of
ids and float32 matrices.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

__all__ = ["FIELD", "NEW_FIELD", "Client"]

Floats = npt.NDArray[np.float32]

FIELD, NEW_FIELD = "vector", "new"


class Client(ABC):
    """A store by its own client.

    Args:
        folder: for files.

    Attributes:
        rows: of a collection, in a whole run.
    """

    rows: ClassVar[int] = 50_000

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @abstractmethod
    def make(self, name: str, vectors: Floats, *, index: bool) -> None:
        """Make a collection of the rows 0, 1, …, with an index where one is wanted and the store has it."""

    @abstractmethod
    def address(self, name: str) -> str:
        """Of a collection, for Crossfade."""

    @abstractmethod
    def scan(self, name: str) -> tuple[list[int], Floats]:
        """All ids and vectors."""

    @abstractmethod
    def search(self, name: str, vector: Floats, k: int) -> list[int]:
        """The ids of the best rows by cosine, with the settings of Crossfade's search."""

    def upsert(self, name: str, ids: list[int], vectors: Floats) -> None:
        """Insert rows, or replace them."""
        raise NotImplementedError

    def add_field(self, name: str, dimension: int) -> None:
        """Add an empty vector field."""
        raise NotImplementedError

    def set_vectors(self, name: str, ids: list[int], vectors: Floats) -> None:
        """Fill the added field of rows that exist."""
        raise NotImplementedError

    def close(self) -> None:  # noqa: B027
        """Stop what was started."""
