"""A table as PostgreSQL's catalogue describes it at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from psycopg.sql import SQL, Identifier

from crossfade.errors import ConfigError, StoreChanged, StoreError
from crossfade.stores.backend import VectorField
from crossfade.stores.conditions import Kind
from crossfade.stores.ids import IdKind
from crossfade.stores.postgresql_connections import Connection

__all__ = ["Column", "Extension", "Place", "Table", "find_extension", "find_schema", "read_table"]

KINDS: Mapping[str, Kind] = {
    "text": "string",
    "varchar": "string",
    "bpchar": "string",
    "int2": "integer",
    "int4": "integer",
    "int8": "integer",
    "float4": "number",
    "float8": "number",
    "numeric": "number",
    "bool": "boolean",
}
"""Type → what it holds; "other" where it is none of these."""

ID_KINDS: Mapping[str, IdKind] = {
    "text": "string",
    "varchar": "string",
    "int2": "integer",
    "int4": "integer",
    "int8": "integer",
    "uuid": "uuid",
}

COLUMNS = """
SELECT a.attname, t.typname, t.typnamespace = $3, coalesce(base.typname, t.typname),
       format_type(a.atttypid, a.atttypmod), a.atttypmod, a.attnotnull, a.attgenerated::text <> '', a.attidentity::text,
       coalesce(bool_or(i.indisprimary), false), i.indrelid IS NOT NULL
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_type base ON base.oid = t.typbasetype
LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indisunique AND i.indimmediate AND i.indisvalid AND i.indpred IS NULL
    AND i.indexprs IS NULL AND i.indnkeyatts = 1 AND i.indkey[0] = a.attnum
WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p')
GROUP BY a.attnum, a.attname, t.typname, t.typnamespace, base.typname, a.atttypid, a.atttypmod, a.attnotnull, a.attgenerated,
         a.attidentity, i.indrelid
ORDER BY a.attnum
"""
"""Name, type, whether the type's schema is that of pgvector, the type below a domain, the type in SQL, its modifier, whether
it is NOT NULL, computed, or numbered by the server, whether it is the primary key, whether it is unique."""


@dataclass(frozen=True, slots=True)
class Extension:
    """pgvector in a database.

    Attributes:
        schema: of its types, functions and operators.
        schema_number: of that schema.
        vector_type: the number of the type ``vector``.
        version: of it.
    """

    schema: str
    schema_number: int
    vector_type: int
    version: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a table is.

    Attributes:
        schema: that it is in.
        name: without the schema.
        id: the column of ids that was asked for; None: the primary key.
        address: for errors.
    """

    schema: str
    name: str
    id: str | None
    address: str


@dataclass(frozen=True, slots=True)
class Column:
    """A column that is no vector.

    Attributes:
        kind: what it holds.
        type: in SQL.
        computed: whether it is generated from other columns.
        numbered: whether the server alone numbers it.
    """

    kind: Kind
    type: str
    computed: bool
    numbered: bool


@dataclass(frozen=True, eq=False, slots=True)
class Table:
    """A table at one moment.

    Attributes:
        schema: that it is in.
        name: without the schema.
        id: the column of ids.
        ids: what they are.
        numbered: whether the server alone numbers the ids, unless it is told not to.
        fields: the vector columns.
        halves: those of them that keep 16 bits a component.
        columns: the others, without the ids.
        extension: pgvector.
    """

    schema: str
    name: str
    id: str
    ids: IdKind
    numbered: bool
    fields: Mapping[str, VectorField]
    halves: frozenset[str]
    columns: Mapping[str, Column]
    extension: Extension


def find_extension(connection: Connection, address: str) -> Extension:
    """pgvector in the database of a connection.

    Raises:
        StoreError: it is not there.
    """
    found = connection.execute(
        "SELECT n.nspname, n.oid, t.oid, e.extversion FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace "
        "JOIN pg_type t ON t.typnamespace = n.oid AND t.typname = 'vector' WHERE e.extname = 'vector'"
    ).fetchone()
    if found is None:
        raise StoreError(
            f"The database of {address} must have the extension pgvector, and has not. Install pgvector on the server, and run "
            "in that database: CREATE EXTENSION vector."
        )
    schema, schema_number, vector_type, version = found
    return Extension(schema, schema_number, vector_type, tuple(int(n) for n in version.split(".")[:3] if n.isdigit()))


def find_schema(connection: Connection, name: str, address: str) -> str:
    """The schema of the table that a name without one means on a connection.

    Raises:
        StoreChanged: there is none of this name.
    """
    found = connection.execute(
        "SELECT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass($1)",
        ['"' + name.replace('"', '""') + '"'],
    ).fetchone()
    if found is None:
        raise StoreChanged(
            f"{address} names the table {name!r}, which is not there or not in the search path. Name one that is, as "
            "?table=schema.name."
        )
    return str(found[0])


def read_table(connection: Connection, place: Place, extension: Extension) -> Table:
    """A table as it is now.

    Raises:
        StoreChanged: it is not there, or has no column for ids.
        ConfigError: its ids are not unique, may be missing, or are of a type that ids never are.
        StoreError: its only vector column has no dimension.
    """
    rows = connection.execute(COLUMNS, [place.schema, place.name, extension.schema_number]).fetchall()
    if not rows:
        raise StoreChanged(
            f"{place.address} must name a table; {place.schema}.{place.name} is none (any more). Name one that is there."
        )
    id_ = place.id or next((row[0] for row in rows if row[9]), "id")
    own = next((row for row in rows if row[0] == id_), None)
    if own is None:
        raise StoreChanged(
            f"{place.address} takes ids from the column {id_!r}, which is not there; there are "
            f"{', '.join(row[0] for row in rows)}. Name one of them as &id=…."
        )
    if own[1] not in ID_KINDS:
        raise ConfigError(
            f"Ids in PostgreSQL are of type text, varchar, smallint, integer, bigint or uuid; the column {id_!r} of "
            f"{place.address} is {own[4]}. Name another one as &id=…."
        )
    if not own[10] or not own[6]:
        raise ConfigError(
            f"Ids must be unique and never missing; the column {id_!r} of {place.address} has no UNIQUE constraint or index "
            "of its own that holds at once, or is not NOT NULL. Make it the primary key, or name another one as &id=…."
        )
    fields: dict[str, VectorField] = {}
    halves, columns, unknown = set(), {}, []
    for name, type_, of_pgvector, base, in_sql, modifier, _, computed, identity, _, _ in rows:
        if of_pgvector and type_ in ("vector", "halfvec"):
            dimension = modifier if modifier > 0 else _dimension(connection, place, extension, name)
            if dimension is not None:
                fields[name] = VectorField(name, dimension)
                halves |= {name} if type_ == "halfvec" else set()
                continue
            unknown.append(name)
        if name != id_:
            columns[name] = Column(KINDS.get(base, "other"), in_sql, computed, identity == "a")
    if unknown and not fields:
        raise StoreError(
            f"The dimension of the column {unknown[0]!r} of {place.address} must be known; it is declared without one, and no "
            "row has a vector. Declare it: ALTER TABLE … ALTER COLUMN … TYPE vector(…)."
        )
    return Table(
        place.schema, place.name, id_, ID_KINDS[own[1]], own[8] == "a", fields, frozenset(halves), columns, extension
    )


def _dimension(connection: Connection, place: Place, extension: Extension, name: str) -> int | None:
    """That of any vector in a column; None where there is none."""
    column = Identifier(name)
    found = connection.execute(
        SQL("SELECT {}({}) FROM {} WHERE {} IS NOT NULL LIMIT 1").format(
            Identifier(extension.schema, "vector_dims"), column, Identifier(place.schema, place.name), column
        )
    ).fetchone()
    return None if found is None else int(found[0])
