"""The statements that a store in PostgreSQL sends.

Every name goes through :class:`psycopg.sql.Identifier` and every value is a parameter ($1, $2, …, so that a percent sign in a
name means nothing). Types, functions and operators of pgvector are named with their schema, whatever the search path is.
Many rows are given as arrays, one a column: on 20,000 rows of 512 dimensions that was quicker than COPY into a temporary table,
and needs no right to make one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

from crossfade.errors import ConfigError
from crossfade.spaces import Metric
from crossfade.stores.backend import Query, VectorField
from crossfade.stores.conditions import Condition, Kind, Operator, kind_of
from crossfade.stores.postgresql_binary import integers, texts, vector, vectors
from crossfade.stores.postgresql_table import Column, Table
from crossfade.stores.records import Id, Records, Value, Vectors

__all__ = [
    "Statement",
    "add",
    "count",
    "delete",
    "drop",
    "empty",
    "fetch",
    "fill",
    "has_index",
    "lock",
    "lock_table",
    "scan",
    "search",
    "upsert",
]

Floats = npt.NDArray[np.float32]

OPERATORS: Mapping[Metric, str] = {"cosine": "<=>", "dot": "<#>", "l2": "<->"}
"""Cosine distance, negated inner product, Euclidean distance."""

OPERATOR_CLASSES: Mapping[Metric, str] = {"cosine": "cosine", "dot": "ip", "l2": "l2"}

COMPARISONS: Mapping[Operator, str] = {"=": "=", "in": "=", ">=": ">=", "<=": "<=", ">": ">", "<": "<"}

READ_AS: Mapping[Kind, str] = {
    "string": "text",
    "integer": "bigint",
    "number": "double precision",
    "boolean": "boolean",
    "other": "text",
}

HOLDS: Mapping[Kind, tuple[Kind, ...]] = {
    "string": ("string",),
    "integer": ("integer",),
    "number": ("integer", "number"),
    "boolean": ("boolean",),
    "other": ("string", "integer", "number", "boolean"),
}
"""What a column holds → the kinds of values that are written into it."""


@dataclass(frozen=True, slots=True)
class Statement:
    """What is sent to the server.

    Attributes:
        text: with $1 for the first parameter.
        parameters: their values.
    """

    text: SQL | Composed
    parameters: tuple[object, ...] = ()


class _Parameters:
    """Parameters of a statement that is being put together."""

    def __init__(self) -> None:
        self._values: list[object] = []

    def add(self, value: object, type_: Composable | str) -> Composable:
        """Take a value; what stands for it in the statement."""
        self._values.append(value)
        return SQL("${}::{}").format(SQL(str(len(self._values))), SQL(type_) if isinstance(type_, str) else type_)

    def ids(self, table: Table, ids: Sequence[Id]) -> Composable:
        """Take ids as an array."""
        if table.ids == "integer":
            return self.add(integers([int(id_) for id_ in ids]), "bigint[]")
        return self.add(texts([str(id_) for id_ in ids]), "text[]::uuid[]" if table.ids == "uuid" else "text[]")

    def statement(self, text: SQL | Composed) -> Statement:
        """The statement that has these parameters."""
        return Statement(text, tuple(self._values))


def count(table: Table, where: tuple[Condition, ...], lacking: str | None = None) -> Statement:
    """Count rows; of those that have no vector in ``lacking``."""
    given = _Parameters()
    condition = _where(table, where, given)
    if lacking is not None:
        condition = SQL("{} AND {} IS NULL").format(condition, _of(lacking))
    return given.statement(SQL("SELECT count(*) FROM {} WHERE {}").format(_name(table), condition))


def scan(table: Table, fields: Sequence[str], columns: Sequence[str], where: tuple[Condition, ...]) -> Statement:
    """Every row in the order of the ids: the id, the vectors, the columns."""
    given = _Parameters()
    text = SQL("SELECT {} FROM {} WHERE {} ORDER BY {}").format(
        _read(table, fields, columns), _name(table), _where(table, where, given), _of(table.id)
    )
    return given.statement(text)


def fetch(table: Table, ids: Sequence[Id], fields: Sequence[str], columns: Sequence[str]) -> Statement:
    """Rows, as :func:`scan` gives them, in the order of their ids here."""
    given = _Parameters()
    text = SQL(
        "SELECT {} FROM unnest({}) WITH ORDINALITY AS wanted(id, place) JOIN {} ON {} = wanted.id ORDER BY wanted.place"
    ).format(_read(table, fields, columns), given.ids(table, ids), _name(table), _of(table.id))
    return given.statement(text)


def has_index(table: Table, field: str, metric: Metric) -> Statement:
    """Whether an index gives the rows of a field in the order of a metric."""
    text = SQL(  # without joins, whose order PostgreSQL thinks about longer than a search takes
        "SELECT EXISTS (SELECT FROM pg_index i "
        "WHERE i.indrelid = to_regclass(format('%I.%I', $1::text, $2::text)) AND i.indisvalid "
        "AND (SELECT attname FROM pg_attribute WHERE attrelid = i.indrelid AND attnum = i.indkey[0]) = $3 "
        "AND (SELECT opcname FROM pg_opclass WHERE oid = i.indclass[0]) = $4)"
    )
    operators = f"{_type_name(table, field)}_{OPERATOR_CLASSES[metric]}_ops"
    return Statement(text, (table.schema, table.name, field, operators))


def search(table: Table, query: Query, one: Floats, *, index: bool) -> Statement:
    """The nearest rows of one query: id and distance.

    Args:
        table: to search.
        query: how to search.
        one: [d], one of its vectors.
        index: whether rows are ordered by the bare operator, as an index can give them. Elsewhere the cosine distance of a
            zero vector, which is NaN in pgvector, counts as 1, and of equally distant rows the smaller id comes first.
    """
    given = _Parameters()
    given.add(vector(one), _type(table, "vector"))
    tests = _where(table, query.where, given).as_string() if query.where else "true"
    text = _nearest(table, query.field, query.metric, query.k, query.lacking, tests, index)
    return given.statement(text)


@lru_cache(maxsize=64)
def _nearest(table: Table, field: str, metric: Metric, k: int, lacking: str | None, tests: str, index: bool) -> SQL:
    """The text of a search, kept: to put it together takes as long as a tenth of a quick search."""
    distance: Composable = SQL("({} OPERATOR({}.{}) $1::{}::{})").format(
        _of(field),
        Identifier(table.extension.schema),
        SQL(OPERATORS[metric]),
        _type(table, "vector"),
        _type(table, _type_name(table, field)),
    )
    if not index:
        bare = "coalesce(nullif({}, 'NaN'), 1)" if metric == "cosine" else "({} + 0)"
        distance = SQL(bare).format(distance)
    condition = SQL("{} IS NOT NULL AND {}").format(_of(field), SQL(tests))
    if lacking is not None:
        condition = SQL("{} AND {} IS NULL").format(condition, _of(lacking))
    text = SQL(
        "SELECT found.id::{}, found.distance FROM (SELECT {} AS id, {} AS distance FROM {} WHERE {} ORDER BY {} LIMIT {}) found"
    ).format(
        SQL(_id_read_as(table)),
        _of(table.id),
        distance,
        _name(table),
        condition,
        SQL("distance" if index else "distance, id"),
        Literal(k),
    )
    return SQL(text.as_string())


def upsert(table: Table, records: Records) -> Statement:
    """Insert rows, or replace them whole: every column that is not given gets its default.

    Raises:
        ConfigError: a column cannot be written, or holds other values.
    """
    given = _Parameters()
    arrays: list[Composable] = [given.ids(table, records.ids)]
    taken: list[Composable] = [SQL("given.c0")]
    for name, field in records.vectors.items():
        values = vectors(field, table.extension.vector_type)
        arrays.append(given.add(values, SQL("{}[]").format(_type(table, "vector"))))
        taken.append(SQL("given.{}::{}").format(SQL(f"c{len(taken)}"), _type(table, _type_name(table, name))))
    for name, column in records.columns.items():
        kind, type_ = table.columns[name].kind, table.columns[name].type
        arrays.append(given.add(texts(_texts(name, table.columns[name], column)), "text[]"))
        # no cast where there need be none: it would cut a text that is too long for its column
        value = SQL(f"given.c{len(taken)}")
        taken.append(value if kind == "string" else SQL("{}::{}").format(value, SQL(type_)))
    names = [table.id, *records.vectors, *records.columns]
    text = SQL("INSERT INTO {} ({}) {} SELECT {} FROM unnest({}) AS given({}) ON CONFLICT ({}) DO {}").format(
        Identifier(table.schema, table.name),
        SQL(", ").join(Identifier(name) for name in names),
        SQL("OVERRIDING SYSTEM VALUE" if table.numbered else ""),
        SQL(", ").join(taken),
        SQL(", ").join(arrays),
        SQL(", ").join(SQL(f"c{number}") for number in range(len(names))),
        Identifier(table.id),
        _replacing(table),
    )
    return given.statement(text)


def lock_table(table: Table) -> Statement:
    """Keep the table's shape as it is for the rest of the transaction; rows can be written meanwhile."""
    return Statement(SQL("LOCK TABLE {} IN ROW EXCLUSIVE MODE").format(Identifier(table.schema, table.name)))


def lock(table: Table, ids: Sequence[Id], *, to_delete: bool = False) -> Statement:
    """Lock rows in the order of their ids, so that writers of the same rows wait for one another and not in a circle.

    A row that others insert while this one waits can still close a circle; the write is then done again.
    """
    given = _Parameters()
    text = SQL("SELECT count(*) FROM (SELECT FROM {} WHERE {} = ANY ({}) ORDER BY {} FOR {}) AS locked").format(
        _name(table),
        _of(table.id),
        given.ids(table, ids),
        _of(table.id),
        SQL("UPDATE" if to_delete else "NO KEY UPDATE"),
    )
    return given.statement(text)


def fill(table: Table, field: str, ids: Sequence[Id], values: Floats) -> Statement:
    """Fill one field of rows that exist."""
    given = _Parameters()
    text = SQL("UPDATE {} SET {} = given.v::{} FROM unnest({}, {}) AS given(id, v) WHERE {} = given.id").format(
        _name(table),
        Identifier(field),
        _type(table, _type_name(table, field)),
        given.ids(table, ids),
        given.add(vectors(Vectors.of(values), table.extension.vector_type), SQL("{}[]").format(_type(table, "vector"))),
        _of(table.id),
    )
    return given.statement(text)


def empty(table: Table, field: str, ids: Sequence[Id]) -> Statement:
    """Empty one field of rows."""
    given = _Parameters()
    text = SQL("UPDATE {} SET {} = NULL WHERE {} = ANY ({})").format(
        _name(table), Identifier(field), _of(table.id), given.ids(table, ids)
    )
    return given.statement(text)


def delete(table: Table, ids: Sequence[Id]) -> Statement:
    """Delete rows."""
    given = _Parameters()
    text = SQL("DELETE FROM {} WHERE {} = ANY ({})").format(_name(table), _of(table.id), given.ids(table, ids))
    return given.statement(text)


def add(table: Table, field: VectorField) -> Statement:
    """Add a vector column."""
    text = SQL("ALTER TABLE {} ADD COLUMN {} {}({})").format(
        Identifier(table.schema, table.name), Identifier(field.name), _type(table, "vector"), Literal(field.dimension)
    )
    return Statement(text)


def drop(table: Table, field: str) -> Statement:
    """Drop a vector column."""
    return Statement(
        SQL("ALTER TABLE {} DROP COLUMN {}").format(Identifier(table.schema, table.name), Identifier(field))
    )


def _name(table: Table) -> Composed:
    return SQL("{} AS t").format(Identifier(table.schema, table.name))


def _of(column: str) -> Composed:
    return SQL("t.{}").format(Identifier(column))


def _type(table: Table, name: str) -> Identifier:
    return Identifier(table.extension.schema, name)


def _type_name(table: Table, field: str) -> str:
    return "halfvec" if field in table.halves else "vector"


def _id_read_as(table: Table) -> str:
    return "bigint" if table.ids == "integer" else "text"


def _read(table: Table, fields: Sequence[str], columns: Sequence[str]) -> Composed:
    """What is read of a row, each value in the one type of its kind."""
    parts: list[Composable] = [SQL("{}::{}").format(_of(table.id), SQL(_id_read_as(table)))]
    for name in fields:
        parts.append(SQL("{}({}::{})").format(_type(table, "vector_send"), _of(name), _type(table, "vector")))
    for name in columns:
        parts.append(SQL("{}::{}").format(_of(name), SQL(READ_AS[table.columns[name].kind])))
    return SQL(", ").join(parts)


def _where(table: Table, where: tuple[Condition, ...], given: _Parameters) -> Composed:
    """Conditions; texts are compared in the order of their characters, whatever the collation is."""
    parts: list[Composable] = [SQL("true")]
    for condition in where:
        kind, column = table.columns[condition.column].kind, _of(condition.column)
        several = condition.operator == "in"
        if kind in ("string", "boolean"):
            value: object = list(condition.values) if several else condition.value
            wanted = given.add(value, f"{READ_AS[kind]}[]" if several else READ_AS[kind])
        else:
            wanted = _numbers(kind, condition, given)
        if kind == "string" and condition.operator not in ("=", "in"):
            column = SQL('{}::text COLLATE "C"').format(column)
        test = "{} {} ANY ({})" if several else "{} {} {}"
        parts.append(SQL(test).format(column, SQL(COMPARISONS[condition.operator]), wanted))
    return SQL(" AND ").join(parts)


def _numbers(kind: Kind, condition: Condition, given: _Parameters) -> Composable:
    """Numbers to compare with; a whole number is compared exactly, and by an index on its column where there is one."""
    exact = [Decimal(value) for value in condition.values]
    found: Sequence[object] = exact
    if kind == "number":
        type_, found = "double precision", [float(value) for value in exact]
    elif all(value.is_finite() and abs(value) < 2**63 and value == int(value) for value in exact):
        type_, found = "bigint", [int(value) for value in exact]
    else:
        type_ = "numeric"
    several = condition.operator == "in"
    return given.add(list(found) if several else found[0], f"{type_}[]" if several else type_)


def _texts(name: str, column: Column, values: Sequence[Value]) -> list[str | None]:
    """Values of a column as PostgreSQL reads them."""
    if column.computed:
        raise ConfigError(f"The column {name!r} is computed by the server and cannot be written. Leave it out.")
    other = {kind_of(value) for value in values if value is not None} - set(HOLDS[column.kind])
    if other:
        raise ConfigError(
            f"The column {name!r} holds {column.kind} values; also {', '.join(sorted(other))} values were given. Give values of "
            "that kind."
        )
    return [None if value is None else str(value) for value in values]


def _replacing(table: Table) -> Composable:
    """What becomes of a row that was there: all of it is as in the row that would have been inserted."""
    columns = [name for name, column in table.columns.items() if not column.computed]
    names = [*table.fields, *columns]
    if not names:
        return SQL("NOTHING")
    assigned: list[Composable] = []
    for name in names:
        numbered = name in table.columns and table.columns[name].numbered
        new = SQL("DEFAULT") if numbered else SQL("EXCLUDED.{}").format(Identifier(name))
        assigned.append(SQL("{} = {}").format(Identifier(name), new))
    return SQL("UPDATE SET {}").format(SQL(", ").join(assigned))
