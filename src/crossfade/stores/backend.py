"""What a vector store must be able to do: the protocol behind :class:`~crossfade.stores.Store`.

One file a store implements :class:`Backend` over that store's own client. What it is given was checked; what it cannot do it
declares, and is never asked for. It raises only errors of :mod:`crossfade.errors`, and no credential stands in them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from crossfade.spaces import Metric
from crossfade.stores.conditions import Condition, Kind
from crossfade.stores.ids import IdKind
from crossfade.stores.records import Hits, Id, Records

__all__ = ["Backend", "Capabilities", "Description", "Query", "VectorField"]

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class Capabilities:
    """What a store can do.

    Attributes:
        write: rows can be inserted, replaced and deleted.
        filter: a search can be narrowed by conditions on columns.
        second_field: another vector field can be added, filled row by row, told from an empty one in a search, and
            dropped. Without it there is no backfilling in place.
        notes: it keeps small texts beside the collection.
        keeps_vectors: what is read is what was written, to float32; not so where the store normalises.
        snapshot: a scan shows one moment, whatever is written meanwhile.
        shared: several processes may have it open at once.
    """

    write: bool = True
    filter: bool = True
    second_field: bool = True
    notes: bool = True
    keeps_vectors: bool = True
    snapshot: bool = True
    shared: bool = True


@dataclass(frozen=True, slots=True)
class VectorField:
    """A vector field.

    Attributes:
        name: of it; empty where a store's only field has no name.
        dimension: of its vectors.
        metric: how the store compares them; None where each search says so.
    """

    name: str
    dimension: int
    metric: Metric | None = None


@dataclass(frozen=True, slots=True)
class Description:
    """The shape of a collection.

    Attributes:
        ids: what ids are.
        fields: name → vector field.
        columns: name → what it holds; those that are known where the store asks for no schema.
        schemaless: whether rows may have columns beside these.
    """

    ids: IdKind
    fields: Mapping[str, VectorField]
    columns: Mapping[str, Kind]
    schemaless: bool = False


@dataclass(frozen=True, eq=False, slots=True)
class Query:
    """A search.

    Attributes:
        vectors: float32 [q, d].
        field: in which it is searched.
        k: rows for each query.
        metric: how vectors are compared.
        where: what rows must meet.
        lacking: only rows that have no vector in this field; None: all.
        exact: whether every row must be compared, and no index may be asked.
    """

    vectors: Floats
    field: str
    k: int
    metric: Metric
    where: tuple[Condition, ...] = ()
    lacking: str | None = None
    exact: bool = False


class Backend(ABC):
    """One collection in one store.

    Attributes:
        address: where it is, without secrets.
        capabilities: what it can do.
    """

    address: str
    capabilities: Capabilities

    @abstractmethod
    def describe(self) -> Description:
        """Its shape at this moment.

        Raises:
            StoreChanged: the collection is not there (any more).
        """

    @abstractmethod
    def count(self, where: tuple[Condition, ...], lacking: str | None = None) -> int:
        """How many rows meet the conditions, and have no vector in the field ``lacking``, at this moment."""

    @abstractmethod
    def scan(
        self, fields: Sequence[str], columns: Sequence[str], where: tuple[Condition, ...], batch: int
    ) -> Iterator[Records]:
        """Every row once, at most ``batch`` at a time, in an order that is the same as long as nothing is written."""

    @abstractmethod
    def fetch(self, ids: Sequence[Id], fields: Sequence[str], columns: Sequence[str]) -> Records:
        """The rows of those ids that exist, in the order of ``ids``, as they are at this moment."""

    @abstractmethod
    def search(self, query: Query) -> list[Hits]:
        """The best rows of each query."""

    def indexed(self, field: str, metric: Metric) -> bool | None:
        """Whether the collection's owner made an index for these searches; None where the store makes its own, or has none."""
        return None

    @abstractmethod
    def upsert(self, records: Records) -> None:
        """Insert rows, or replace them whole: what is not given of a row is not there afterwards.

        All are visible when it returns; of a call that is killed some may be, each whole.
        """

    @abstractmethod
    def set_vectors(self, field: str, ids: Sequence[Id], vectors: Floats | None) -> int:
        """Fill one field of rows that exist, or empty it; everything else of them stays, also what is written meanwhile.

        Returns:
            How many of them exist. A row that does not is not made.
        """

    @abstractmethod
    def delete(self, ids: Sequence[Id]) -> int:
        """Delete rows; how many of them were there."""

    @abstractmethod
    def add_field(self, field: VectorField) -> None:
        """Add a vector field, empty in every row."""

    @abstractmethod
    def drop_field(self, name: str) -> None:
        """Drop a vector field with all its vectors."""

    @abstractmethod
    def notes(self) -> dict[str, str]:
        """The texts that Crossfade keeps beside the collection, by key."""

    @abstractmethod
    def note(self, key: str, text: str | None) -> None:
        """Keep a text, or forget it."""

    @abstractmethod
    def has_column(self, name: str) -> bool:
        """Whether any row has a column that :meth:`describe` did not name; asked of schemaless collections only."""

    @abstractmethod
    def close(self) -> None:
        """Let go of connections."""
