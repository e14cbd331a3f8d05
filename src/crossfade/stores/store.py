"""Store: one collection of one vector store, with the checks that all stores share."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import fields as fields_of
from types import TracebackType
from typing import Self, final

import numpy as np
import numpy.typing as npt

from crossfade.embeddings import Embeddings
from crossfade.errors import ConfigError, FormatError, InvalidIds, InvalidVectors, StoreChanged, Unsupported
from crossfade.spaces import METRICS, Metric, Modality, Space, require_same
from crossfade.stores.backend import Backend, Capabilities, Description, Query, VectorField
from crossfade.stores.checks import LACKING, MEETS, matrix_of, require_k
from crossfade.stores.conditions import Condition, Where, conditions, kind_of
from crossfade.stores.ids import require_ids
from crossfade.stores.records import Hits, Id, Records, Vectors

__all__ = ["Store"]

SPACE_NOTE = "crossfade.space."
"""Key of the note that says which space a field holds; the field's name follows."""


@final
class Store:
    """One collection of one vector store.

    Vectors are float32; scores are larger for better rows, whatever the store calls a distance. Nothing is cached but the
    collection's shape.

    Args:
        backend: the store's own part; :func:`crossfade.stores.open_store` chooses it by an address.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._shape = backend.describe()

    @property
    def address(self) -> str:
        """Where it is, without secrets."""
        return self._backend.address

    @property
    def capabilities(self) -> Capabilities:
        """What it can do."""
        return self._backend.capabilities

    @property
    def shape(self) -> Description:
        """The shape of the collection as it was last seen; :meth:`describe` looks again."""
        return self._shape

    def __repr__(self) -> str:
        return f"Store({self.address})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of connections; the store is not used afterwards."""
        self._backend.close()

    def describe(self) -> Description:
        """The shape of the collection at this moment."""
        self._shape = self._backend.describe()
        return self._shape

    def require(self, *needed: str) -> None:
        """Refuse at the start what the store cannot do.

        Args:
            needed: of the names of :class:`Capabilities`.

        Raises:
            Unsupported: names what it lacks and what that is needed for.
        """
        for name in needed:
            if not getattr(self.capabilities, name):
                can = [f.name for f in fields_of(Capabilities) if getattr(self.capabilities, f.name)]
                raise Unsupported(
                    f"{LACKING[name]} is asked for, and {self.address} cannot do that; it can: {', '.join(can) or 'read'}. "
                    "Take a store that can (docs/stores.md), or leave out the step that needs it."
                )

    def count(self, where: Where | None = None, *, lacking: str | None = None) -> int:
        """How many rows there are, or meet the conditions, or have no vector in the field ``lacking``."""
        if lacking is not None:
            self.require("second_field")
            (lacking,) = self._fields([lacking])
        return self._backend.count(self._conditions(where), lacking)

    def scan(
        self,
        *,
        fields: Sequence[str] = (),
        columns: Sequence[str] = (),
        where: Where | None = None,
        batch: int = 4096,
    ) -> Iterator[Records]:
        """Every row once, in an order that is the same as long as nothing is written.

        Args:
            fields: vector fields to read.
            columns: columns to read.
            where: conditions that rows must meet.
            batch: rows at a time, at most.
        """
        if batch < 1:
            raise ConfigError(f"A batch must have at least 1 row; found {batch}.")
        found = self._conditions(where)
        return self._backend.scan(self._fields(fields), self._columns(columns), found, batch)

    def fetch(self, ids: Sequence[Id], *, fields: Sequence[str] = (), columns: Sequence[str] = ()) -> Records:
        """The rows of those ids that exist, in the order of ``ids``."""
        known = self._ids(ids)
        fields, columns = self._fields(fields), self._columns(columns)
        return self._backend.fetch(known, fields, columns) if known else self._empty(fields, columns)

    def search(
        self,
        vectors: npt.NDArray[np.floating] | Embeddings,
        *,
        field: str,
        k: int,
        metric: Metric = "cosine",
        where: Where | None = None,
        lacking: str | None = None,
        exact: bool = False,
    ) -> list[Hits]:
        """The k best rows of each query.

        Args:
            vectors: float [q, d] or [d] of the field's dimension; of :class:`Embeddings` the space is compared with the
                field's, where that is known.
            field: in which it is searched.
            k: how many, at least 1; fewer are found where there are not so many.
            metric: how vectors are compared.
            where: conditions that rows must meet.
            lacking: only rows that have no vector in this field.
            exact: compare every row, and ask no index.

        Returns:
            One :class:`Hits` for each query.

        Raises:
            SpaceMismatch: the queries are of another space than the field.
            Unsupported: the store compares by another metric, or cannot filter.
        """
        if isinstance(vectors, Embeddings):
            space = self.space(field)
            if space is not None:
                require_same(vectors.space, space, what="The queries")
            vectors = vectors.matrix()
        (name,) = self._fields([field])
        shape = self._shape.fields[name]
        queries = matrix_of(vectors, shape)
        if metric not in METRICS:
            raise ConfigError(f"A metric must be one of {', '.join(METRICS)}; found {metric!r}.")
        require_k(k)
        if shape.metric not in (None, metric):
            raise Unsupported(
                f"The field {name!r} of {self.address} compares by {shape.metric}, and {metric} was asked for. Search it by "
                "its own metric."
            )
        found = self._conditions(where)
        if lacking is not None:
            self.require("second_field")
            (lacking,) = self._fields([lacking])
        return self._backend.search(Query(queries, name, k, metric, found, lacking, exact))

    def indexed(self, field: str, metric: Metric) -> bool | None:
        """Whether an index answers searches of a field by a metric; None where that is no matter of the collection's owner."""
        (name,) = self._fields([field])
        return self._backend.indexed(name, metric)

    def upsert(self, records: Records) -> None:
        """Insert rows, or replace them whole: what is not given of a row is not there afterwards.

        Raises:
            InvalidIds: an id is not of the kind that the collection has.
            InvalidVectors: a vector is not finite, or of another dimension than its field.
        """
        self.require("write")
        self._ids(records.ids)
        self._fields(list(records.vectors))
        for name, vectors in records.vectors.items():
            matrix_of(vectors.values, self._shape.fields[name])
        unknown = [name for name in records.columns if not self._shape.schemaless and name not in self._shape.columns]
        if unknown:
            raise ConfigError(f"{self.address} has the columns {sorted(self._shape.columns)}; found also {unknown}.")
        if len(records):
            self._backend.upsert(records)

    def set_vectors(self, field: str, ids: Sequence[Id], vectors: npt.NDArray[np.floating] | None) -> int:
        """Fill one field of rows that exist, or empty it; everything else of them stays.

        Args:
            field: to be filled.
            ids: of the rows.
            vectors: [n, d], or None to empty the field.

        Returns:
            How many of the rows exist; no row is made.
        """
        self.require("write", "second_field")
        known = self._ids(ids)
        (name,) = self._fields([field])
        matrix = None if vectors is None else matrix_of(vectors, self._shape.fields[name])
        if matrix is not None and len(matrix) != len(known):
            raise InvalidIds(f"There must be one id a vector; found {len(known)} ids for {len(matrix)} vectors.")
        if len(set(known)) < len(known):
            raise InvalidIds("An id must be named once where its vector is set; some repeat.")
        return self._backend.set_vectors(name, known, matrix) if known else 0

    def delete(self, ids: Sequence[Id]) -> int:
        """Delete rows; how many of them were there."""
        self.require("write")
        known = list(dict.fromkeys(self._ids(ids)))
        return self._backend.delete(known) if known else 0

    def add_field(self, name: str, *, dimension: int, metric: Metric = "cosine") -> None:
        """Add a vector field, empty in every row.

        Raises:
            ConfigError: there is one of this name already.
        """
        self.require("write", "second_field")
        shape = self.describe()
        if name in shape.fields or name in shape.columns:
            raise ConfigError(f"{self.address} has a field or column {name!r} already. Choose another name.")
        if dimension < 1 or metric not in METRICS:
            raise ConfigError(f"A field has a positive dimension and a known metric; found {dimension}, {metric!r}.")
        self._backend.add_field(VectorField(name, dimension, metric))
        self.describe()

    def drop_field(self, name: str) -> None:
        """Drop a vector field with all its vectors, and what was noted of it."""
        self.require("write", "second_field")
        (known,) = self._fields([name])
        if len(self._shape.fields) == 1:
            raise ConfigError(f"{known!r} is the only vector field of {self.address}; it is not dropped.")
        self._backend.drop_field(known)
        if self.capabilities.notes:
            self._backend.note(SPACE_NOTE + known, None)
        self.describe()

    def notes(self) -> dict[str, str]:
        """The texts that are kept beside the collection; none where it keeps none."""
        return self._backend.notes() if self.capabilities.notes else {}

    def note(self, key: str, text: str | None) -> None:
        """Keep a text beside the collection, or forget it."""
        self.require("notes")
        self._backend.note(key, text)

    def space(self, field: str) -> Space | None:
        """The space that a field was registered with; None where it was not.

        Raises:
            FormatError: what is noted is damaged.
        """
        found = self._registered(field)
        return None if found is None else found[0]

    def modality(self, field: str) -> Modality | None:
        """What a field was registered to hold vectors of; None where it was not."""
        found = self._registered(field)
        return None if found is None else found[1]

    def register(self, field: str, space: Space, modality: Modality) -> None:
        """Note which space a field holds; nothing else of the collection is touched.

        Raises:
            ConfigError: the dimension or the metric is not the field's, or it was registered with another space.
        """
        (name,) = self._fields([field])
        shape, known = self._shape.fields[name], self._registered(field)
        if modality not in space.modalities:
            raise ConfigError(f"{space} holds {', '.join(space.modalities)}; {modality} was to be registered.")
        if space.dimension != shape.dimension:
            raise ConfigError(
                f"The field {name!r} of {self.address} has {shape.dimension} dimensions; {space} was to be registered. "
                "Name the model that filled it."
            )
        if shape.metric not in (None, space.metric):
            raise ConfigError(
                f"The field {name!r} of {self.address} compares by {shape.metric}, and {space} by {space.metric}."
            )
        if known not in (None, (space, modality)):
            raise ConfigError(
                f"The field {name!r} of {self.address} is registered with {known[0]} ({known[1]}) already. Vectors of two "
                "spaces must not share a field: add a field for the other."
            )
        if known is None:
            self.require("notes")
            said = {"space": space.to_dict(), "modality": modality}
            self._backend.note(SPACE_NOTE + name, json.dumps(said, ensure_ascii=False))

    def embeddings(self, records: Records, field: str) -> Embeddings:
        """The vectors of one registered field of some rows; rows without one are left out.

        Raises:
            ConfigError: the field was not registered with a space.
            InvalidVectors: no row has a vector there.
        """
        found = self._registered(field)
        if found is None:
            raise ConfigError(
                f"Nothing says which space the field {field!r} of {self.address} holds. Register it: "
                "crossfade upgrade register."
            )
        rows = np.flatnonzero(records.vectors[field].present)
        if not len(rows):
            raise InvalidVectors(f"None of {len(records)} rows has a vector in the field {field!r}.")
        metadata = {name: np.asarray([str(column[row]) for row in rows]) for name, column in records.columns.items()}
        ids = [str(records.ids[row]) for row in rows]
        return Embeddings(ids, records.vectors[field].values[rows], found[0], found[1], metadata=metadata)

    def _registered(self, field: str) -> tuple[Space, Modality] | None:
        (name,) = self._fields([field])
        text = self.notes().get(SPACE_NOTE + name)
        if text is None:
            return None
        try:
            said = json.loads(text)
            return Space.from_dict(said["space"]), said["modality"]
        except (ValueError, KeyError, TypeError) as error:
            raise FormatError(
                f"The note {SPACE_NOTE + name!r} of {self.address} must say a space and is damaged ({error}). Forget it by "
                "store.note(key, None), and register the field again."
            ) from error

    def _fields(self, names: Sequence[str]) -> list[str]:
        if any(name not in self._shape.fields for name in names):
            self.describe()  # another process may have added it
        for name in names:
            if name not in self._shape.fields:
                raise StoreChanged(
                    f"{self.address} has the vector fields {sorted(self._shape.fields)}; {name!r} was asked for. Name one of "
                    "them, or find out who dropped it."
                )
        return list(names)

    def _columns(self, names: Sequence[str]) -> list[str]:
        for name in names:
            self._require_column(name)
        return list(names)

    def _require_column(self, name: str) -> None:
        if name in self._shape.columns or (self._shape.schemaless and self._backend.has_column(name)):
            return
        if name in self.describe().columns:
            return
        raise ConfigError(
            f"{self.address} has the columns {sorted(self._shape.columns)}; {name!r} was asked for. Name one of them."
        )

    def _conditions(self, where: Where | None) -> tuple[Condition, ...]:
        found = conditions(where)
        if found:
            self.require("filter")
        for condition in found:
            self._require_column(condition.column)
            kind = self._shape.columns.get(condition.column)
            wrong = [value for value in condition.values if kind and kind_of(value) not in MEETS[kind]]
            if wrong:
                raise ConfigError(
                    f"The column {condition.column!r} of {self.address} holds {kind} values; {wrong[0]!r} was compared with "
                    "it. Give a value of that kind."
                )
        return found

    def _ids(self, ids: Sequence[Id]) -> list[Id]:
        return require_ids(ids, self._shape.ids)

    def _empty(self, fields: Sequence[str], columns: Sequence[str]) -> Records:
        vectors = {name: Vectors.from_rows([], self._shape.fields[name].dimension) for name in fields}
        return Records([], vectors, {name: [] for name in columns})
