"""What Milvus says of a collection, as Crossfade needs it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from crossfade.errors import StoreError, Unsupported
from crossfade.spaces import Metric
from crossfade.stores.backend import Description, VectorField
from crossfade.stores.conditions import Kind
from crossfade.stores.ids import IdKind

__all__ = ["METRICS", "Shape", "shape_of"]

METRICS: Mapping[Metric, str] = {"cosine": "COSINE", "dot": "IP", "l2": "L2"}

IDS: Mapping[str, IdKind] = {"VARCHAR": "string", "INT64": "integer"}

KINDS: Mapping[str, Kind] = {
    "BOOL": "boolean",
    "INT8": "integer",
    "INT16": "integer",
    "INT32": "integer",
    "INT64": "integer",
    "FLOAT": "number",
    "DOUBLE": "number",
    "VARCHAR": "string",
    "TEXT": "string",
    "JSON": "other",
    "ARRAY": "other",
    "GEOMETRY": "other",
    "TIMESTAMPTZ": "other",
}
"""Milvus' name of a type → what a column of it holds."""

EXACT_INDEXES = ("FLAT", "BRUTE_FORCE")
"""Indexes that compare every row."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The shape of a collection.

    Attributes:
        primary: name of the primary key.
        ids: what it holds.
        fields: the vector fields of 32-bit numbers; their metric is that of their index.
        columns: name → what it holds.
        nullable: vector fields of which a row may have none.
        exact: vector fields whose search compares every row.
        arrays: columns that hold arrays.
        schemaless: whether rows may have other columns.
        generated: whether Milvus makes the ids itself.
        partitioned: whether a key sends rows to their partitions.
    """

    primary: str
    ids: IdKind
    fields: Mapping[str, VectorField]
    columns: Mapping[str, Kind]
    nullable: frozenset[str]
    exact: frozenset[str]
    arrays: frozenset[str]
    schemaless: bool
    generated: bool
    partitioned: bool

    def description(self) -> Description:
        """The part of it that all stores have."""
        return Description(self.ids, self.fields, self.columns, self.schemaless)


def shape_of(said: Mapping[str, Any], indexes: Iterable[Mapping[str, Any]], *, address: str, lite: bool) -> Shape:
    """Read the answers of ``describe_collection`` and ``describe_index``.

    Args:
        said: of the collection.
        indexes: of each of its indexes.
        address: for messages.
        lite: whether Milvus Lite answered.

    Raises:
        StoreError: the primary key is of no kind that Crossfade knows, or there is no vector field that it can read.
        Unsupported: a vector field may be empty, and Milvus Lite does not say where.
    """
    listed = [field for field in said["fields"] if not field.get("is_dynamic") and not field["name"].startswith("$")]
    types = {field["name"]: str(getattr(field["type"], "name", field["type"])) for field in listed}
    (primary,) = [field for field in listed if field.get("is_primary")]
    kind = IDS.get(types[primary["name"]])
    dense = [field for field in listed if types[field["name"]] == "FLOAT_VECTOR"]
    if kind is None or not dense:
        raise StoreError(
            f"{address} must have a primary key of VARCHAR or INT64 and a field of FLOAT_VECTOR; found {types}. Other "
            "vectors are not read."
        )
    nullable = frozenset(field["name"] for field in dense if field.get("nullable"))
    if nullable and lite:
        raise Unsupported(
            f"Vectors of {sorted(nullable)} of {address} may be missing, and Milvus Lite gives zeros where they are. "
            "Use a Milvus server, or fields that are not nullable."
        )
    known = {index["field_name"]: index for index in indexes}
    metrics = {milvus: metric for metric, milvus in METRICS.items()}
    fields = {}
    for field in dense:
        name = field["name"]
        metric = metrics.get(str(known[name].get("metric_type")).upper()) if name in known else None
        fields[name] = VectorField(name, int(field["params"]["dim"]), metric)
    exact = {name for name in fields if name in known and known[name].get("index_type") in EXACT_INDEXES}
    return Shape(
        primary["name"],
        kind,
        fields,
        {name: KINDS[type_] for name, type_ in types.items() if type_ in KINDS and name != primary["name"]},
        nullable,
        frozenset(exact | (set(fields) - set(known))),
        frozenset(name for name, type_ in types.items() if type_ == "ARRAY"),
        bool(said.get("enable_dynamic_field")),
        bool(said.get("auto_id") or primary.get("auto_id")),
        any(field.get("is_partition_key") for field in listed),
    )
