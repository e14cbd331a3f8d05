"""Qdrant: a collection of a server, or of a folder in the local mode of its client.

::

    qdrant://host:6333/photos                  a server; qdrant+https:// behind TLS; the key is in QDRANT_API_KEY
    qdrant:///srv/vectors/photos               the collection photos of the folder /srv/vectors
    qdrant://host/photos?id=sku                rows are named by what stands under sku in the payload
    qdrant://host/photos?ids=integer           what ids are, where the collection is empty

How Qdrant's features are used:

* A vector field is a dense named vector; a collection with one vector without a name has the field ``""``. Its metric is
  fixed. Cosine fields normalise on write, so that ``keeps_vectors`` holds only where there are none. Sparse vectors and
  multivectors are not seen, and a replaced row loses its own.
* A row is a point. Its id is the point's, an unsigned integer or a UUID; or, with the option ``id``, the string or whole
  number under that key of the payload. Existing points may then have any point id, a new row gets one that its id alone
  determines, and each call looks its rows up by a filter: give that key a payload index. A point keeps its id.
* Columns are top-level keys of the payload, of which no list is kept anywhere: those with an index and those of some points
  are described. Text is not compared by bounds; a list meets a condition when one of its elements does.
* A row lacks a vector where Qdrant's condition ``has_vector`` does not hold.
* Notes are texts in the collection's metadata, from Qdrant 1.16; a field is added and dropped from 1.18. An older server
  can be read, searched and written to.
* A scan follows the point ids page by page: it shows what is written meanwhile. Every write waits until it is applied.
* In a cluster whose shards have replicas, a read sees each finished write only where ``write_consistency_factor`` is the
  ``replication_factor``.

The local mode is one process's, compares every row, and keeps rows by pickle: open no folder that you do not trust.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast, final
from uuid import uuid4

import numpy as np

from crossfade.errors import ConfigError, StoreChanged, StoreError, Unsupported
from crossfade.spaces import Metric
from crossfade.stores.address import Address
from crossfade.stores.backend import Backend, Capabilities, Description, Floats, Query, VectorField
from crossfade.stores.conditions import Condition
from crossfade.stores.ids import IdKind
from crossfade.stores.qdrant_connection import KEY, Connection, PointsGone, open_folder, open_server, version_of
from crossfade.stores.qdrant_filters import named, payload_key, rows_meeting
from crossfade.stores.qdrant_points import (
    column_of,
    emptied,
    indexed,
    kinds_of,
    new_place,
    payloads_of,
    points_of,
    requests,
    require_places,
    vectors_of,
)
from crossfade.stores.qdrant_rows import LOOKED_UP, Rows
from crossfade.stores.records import Hits, Id, Records

if TYPE_CHECKING:
    from qdrant_client import models

__all__ = ["QdrantBackend", "connect"]

PORT = 6333
NOTE = "crossfade.note."
"""What keys of the collection's metadata begin with that are notes."""

SAMPLE = 64
"""Points that are looked at for what columns there are, and what ids."""

ASKED = 64
"""Queries in one request."""

ATTEMPTS = 8
"""To write vectors while others delete the rows."""

METRICS: Mapping[str, Metric] = {"Cosine": "cosine", "Dot": "dot", "Euclid": "l2"}


def connect(address: Address) -> QdrantBackend:
    """Open a collection.

    Raises:
        ConfigError: the address or an option cannot be understood.
        MissingExtra: the client is not installed.
        Unreachable: the server does not answer, or another process has the folder open.
        StoreChanged: there is no such folder or collection.
    """
    address.require_options("id", "ids")
    key, ids = address.options.get("id"), address.options.get("ids")
    kinds = ("integer", "uuid") if key is None else ("string", "integer")
    if key == "" or ids not in (None, *kinds):
        raise ConfigError(
            f"The option id names a key of the payload, and ids is here one of {', '.join(kinds)}; found {key!r} and {ids!r}."
        )
    if address.user:
        raise ConfigError(f"An address of Qdrant names no user; this one does. Take it out: a key is read from {KEY}.")
    before, _, collection = address.path.strip("/").rpartition("/")
    if not collection or address.fragment or not (address.host or before):
        raise ConfigError(
            "An address of Qdrant is qdrant://host:6333/collection, qdrant+https://host/collection or "
            f"qdrant:///folder/collection; found {address.text!r}."
        )
    if address.host:
        connection = open_server(
            address.host,
            address.port or PORT,
            collection,
            https=address.scheme == "qdrant+https",
            prefix=before,
            secret=os.environ.get(KEY) or None,
            address=address.text,
        )
    elif address.scheme != "qdrant":
        raise ConfigError(f"{address.text} must name a host; a folder has the scheme qdrant.")
    else:
        connection = open_folder(Path("/", before), collection, address=address.text)
    try:
        backend = QdrantBackend(
            connection, Rows(connection, key=key, ids=cast("IdKind | None", ids)), _able(connection)
        )
        backend.describe()
    except BaseException:
        connection.close()
        raise
    return backend


@final
class QdrantBackend(Backend):
    """One collection of Qdrant.

    Args:
        connection: to it; closed with this.
        rows: of it.
        capabilities: what its server can do.
    """

    def __init__(self, connection: Connection, rows: Rows, capabilities: Capabilities) -> None:
        self.address = connection.address
        self.capabilities = capabilities
        self._connection = connection
        self._collection = connection.collection
        self._rows = rows
        self._fields: dict[str, VectorField] = {}

    def describe(self) -> Description:
        """See :meth:`Backend.describe`; columns are those with an index, and those of some points."""
        info = self._shape()
        sample, _ = self._rows.page(None, None, SAMPLE, payload=True)
        columns = {**kinds_of([point.payload or {} for point in sample]), **indexed(info.payload_schema)}
        if self._rows.key is not None:
            columns.pop(self._rows.key, None)
        self._rows.learn(sample)
        return Description(self._rows.ids, dict(self._fields), columns, schemaless=True)

    def count(self, where: tuple[Condition, ...], lacking: str | None = None) -> int:
        """See :meth:`Backend.count`."""
        meeting = rows_meeting(where, lacking=lacking)
        return self._connection.ask(
            lambda client: client.count(self._collection, count_filter=meeting, exact=True)
        ).count

    def scan(
        self, fields: Sequence[str], columns: Sequence[str], where: tuple[Condition, ...], batch: int
    ) -> Iterator[Records]:
        """See :meth:`Backend.scan`; the order is that of the point ids."""
        meeting, payload = rows_meeting(where), self._rows.payload(columns)
        page, following = self._rows.page(meeting, None, batch, payload=payload, fields=fields)
        while page:
            yield self._records(page, fields, columns)
            if following is None:
                return
            page, following = self._rows.page(meeting, following, batch, payload=payload, fields=fields)

    def fetch(self, ids: Sequence[Id], fields: Sequence[str], columns: Sequence[str]) -> Records:
        """See :meth:`Backend.fetch`."""
        asked = list(dict.fromkeys(ids))
        found = self._rows.existing(asked, fields=fields, columns=columns)
        return self._records([found[id_] for id_ in asked if id_ in found], fields, columns)

    def search(self, query: Query) -> list[Hits]:
        """See :meth:`Backend.search`."""
        hits: list[Hits] = []
        for start in range(0, len(query.vectors), ASKED):
            for answer in self._answers(query, query.vectors[start : start + ASKED].tolist()):
                scores = np.array([point.score for point in answer.points], dtype=np.float32)
                hits.append(Hits(self._rows.names(answer.points), -scores if query.metric == "l2" else scores))
        return hits

    def upsert(self, records: Records) -> None:
        """See :meth:`Backend.upsert`."""
        from qdrant_client import models

        payloads = payloads_of(records, self._rows.key)
        if self._rows.key is None:
            require_places(records.ids)
            places: list[models.ExtendedPointId] = [*records.ids]
        else:
            known = self._rows.places(records.ids)
            places = [known[id_] if id_ in known else new_place(id_) for id_ in records.ids]
        params = self._shape().config.params
        unnamed = isinstance(params.vectors, models.VectorParams)
        names = [*([""] if unnamed else params.vectors or {}), *(params.sparse_vectors or {})]
        dimensions = sum(vectors.values.shape[1] for vectors in records.vectors.values())
        for rows in requests(dimensions, payloads):
            points = models.PointsList(points=points_of(places, records, payloads, rows, unnamed=unnamed))
            before = [] if self._connection.local else emptied(names, places, records, rows)
            self._update([*before, models.UpsertOperation(upsert=points)])

    def set_vectors(self, field: str, ids: Sequence[Id], vectors: Floats | None) -> int:
        """See :meth:`Backend.set_vectors`; repeated without the rows that others delete meanwhile."""
        for _ in range(ATTEMPTS):
            places = self._rows.places(ids)
            there = [row for row, id_ in enumerate(ids) if id_ in places]
            try:
                if vectors is None:
                    self._empty(field, list(places.values()))
                else:
                    self._fill(field, [ids[row] for row in there], places, vectors[there])
            except PointsGone:
                continue
            return len(there)
        raise StoreError(
            f"Rows of {self.address} were deleted {ATTEMPTS} times while their vectors were written. Try again when less is "
            "deleted."
        )

    def delete(self, ids: Sequence[Id]) -> int:
        """See :meth:`Backend.delete`."""
        from qdrant_client import models

        places = self._rows.places(ids)
        gone = list(places)
        for start in range(0, len(gone), LOOKED_UP):
            part = gone[start : start + LOOKED_UP]
            selected = (
                models.PointIdsList(points=[*part])
                if self._rows.key is None
                else models.FilterSelector(filter=named(self._rows.key, part))
            )
            self._update([models.DeleteOperation(delete=selected)])
        return len(gone)

    def add_field(self, field: VectorField) -> None:
        """See :meth:`Backend.add_field`.

        A server answers when it knows of the field, and before its shards do. They take their writes in order: an empty one
        that all of them have applied says that the field is there.
        """
        from qdrant_client import models

        distance = next(name for name, metric in METRICS.items() if metric == field.metric)
        dense = models.DenseVectorConfig(size=field.dimension, distance=models.Distance(distance))
        nobody = models.Filter(must=[models.HasIdCondition(has_id=[str(uuid4())])])
        self._connection.ask(
            lambda client: client.create_vector_name(
                self._collection, field.name, models.DenseVectorNameConfig(dense=dense), wait=True
            )
        )
        emptying = models.DeleteVectors(filter=nobody, vector=[field.name])
        self._update([models.DeleteVectorsOperation(delete_vectors=emptying)])

    def drop_field(self, name: str) -> None:
        """See :meth:`Backend.drop_field`."""
        self._connection.ask(lambda client: client.delete_vector_name(self._collection, name, wait=True))

    def notes(self) -> dict[str, str]:
        """See :meth:`Backend.notes`."""
        metadata = self._shape().config.metadata or {}
        return {
            name.removeprefix(NOTE): text
            for name, text in metadata.items()
            if name.startswith(NOTE) and isinstance(text, str)
        }

    def note(self, key: str, text: str | None) -> None:
        """See :meth:`Backend.note`; Qdrant merges metadata key by key, and None takes a key out."""
        self._connection.ask(lambda client: client.update_collection(self._collection, metadata={NOTE + key: text}))

    def has_column(self, name: str) -> bool:
        """See :meth:`Backend.has_column`."""
        from qdrant_client import models

        if name == self._rows.key:
            return False
        empty = models.IsEmptyCondition(is_empty=models.PayloadField(key=payload_key(name)))
        return bool(self._rows.page(models.Filter(must_not=[empty]), None, 1)[0])

    def close(self) -> None:
        """See :meth:`Backend.close`."""
        self._connection.close()

    def _shape(self) -> models.CollectionInfo:
        """The collection as Qdrant describes it now; its fields are remembered."""
        from qdrant_client import models

        info = self._connection.ask(lambda client: client.get_collection(self._collection))
        found = info.config.params.vectors or {}
        named_params = {"": found} if isinstance(found, models.VectorParams) else found
        dense = {name: params for name, params in named_params.items() if params.multivector_config is None}
        for name, params in dense.items():
            if params.distance not in METRICS:
                raise Unsupported(
                    f"A field must compare by cosine, dot product or Euclidean distance; {name!r} of {self.address} compares "
                    f"by {params.distance}. Crossfade has no such metric."
                )
        self._fields = {n: VectorField(n, params.size, METRICS[params.distance]) for n, params in dense.items()}
        exact = (None, models.Datatype.FLOAT32)
        keeps = all(p.datatype in exact and METRICS[p.distance] != "cosine" for p in dense.values())
        self.capabilities = replace(self.capabilities, keeps_vectors=keeps)
        return info

    def _records(self, points: Sequence[models.Record], fields: Sequence[str], columns: Sequence[str]) -> Records:
        if any(name not in self._fields for name in fields):
            self._shape()
        vectors = {name: vectors_of(points, name, self._field(name).dimension, self.address) for name in fields}
        if not all(each.present.all() for each in vectors.values()):
            self._shape()  # of a field that was dropped Qdrant gives no vectors, too
            for name in fields:
                self._field(name)
        return Records(
            self._rows.names(points), vectors, {name: column_of(points, name, self.address) for name in columns}
        )

    def _field(self, name: str) -> VectorField:
        if name not in self._fields:
            raise StoreChanged(
                f"{self.address} has the vector fields {sorted(self._fields)}; {name!r} was there and is not any more. Find "
                "out who dropped it."
            )
        return self._fields[name]

    def _fill(
        self, field: str, ids: Sequence[Id], places: Mapping[Id, models.ExtendedPointId], vectors: Floats
    ) -> None:
        from qdrant_client import models

        for rows in requests(vectors.shape[1], len(ids)):
            part = ids[rows.start : rows.stop]
            points = [
                models.PointVectors.model_construct(id=places[id_], vector={field: values} if field else values)
                for id_, values in zip(part, vectors[rows.start : rows.stop].tolist(), strict=True)
            ]
            still = (
                None if self._rows.key is None else named(self._rows.key, part)
            )  # a point may be another row's by now
            filled = models.UpdateVectors(points=points, update_filter=still)
            self._update([models.UpdateVectorsOperation(update_vectors=filled)])

    def _empty(self, field: str, places: Sequence[models.ExtendedPointId]) -> None:
        from qdrant_client import models

        for start in range(0, len(places), LOOKED_UP):
            part = models.DeleteVectors(points=[*places[start : start + LOOKED_UP]], vector=[field])
            self._update([models.DeleteVectorsOperation(delete_vectors=part)])

    def _update(self, operations: Sequence[models.UpdateOperation]) -> None:
        """Do this to points, in this order; it is applied when this returns."""
        self._connection.write(
            lambda client: client.batch_update_points(self._collection, update_operations=operations, wait=True)
        )

    def _answers(self, query: Query, vectors: list[list[float]]) -> list[models.QueryResponse]:
        """What is answered to some of a query's vectors; to a single one in less time than to a batch of one."""
        from qdrant_client import models

        name, field, payload = self._collection, query.field or None, self._rows.payload()
        meeting = rows_meeting(query.where, lacking=query.lacking)
        every = models.SearchParams(exact=True) if query.exact and not self._connection.local else None
        if len(vectors) == 1:
            answer = self._connection.ask(
                lambda client: client.query_points(
                    name,
                    query=vectors[0],
                    using=field,
                    query_filter=meeting,
                    search_params=every,
                    limit=query.k,
                    with_payload=payload,
                )
            )
            return [answer]
        asked = [
            models.QueryRequest(
                query=vector, using=field, filter=meeting, params=every, limit=query.k, with_payload=payload
            )
            for vector in vectors
        ]
        return self._connection.ask(lambda client: client.query_batch_points(name, requests=asked))


def _able(connection: Connection) -> Capabilities:
    """What this server, of its version, can do."""
    able = Capabilities(keeps_vectors=False, snapshot=False, shared=not connection.local)
    server = None if connection.local else version_of(connection)
    return able if server is None else replace(able, second_field=server >= (1, 18), notes=server >= (1, 16))
