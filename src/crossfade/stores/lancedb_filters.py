"""Conditions and ids as the SQL that LanceDB filters by; names and literals are quoted.

LanceDB compares a column only with a literal that its type can hold, and takes any other for an error: for columns of
whole numbers, bounds are rounded to the whole number that says the same, and what lies outside of the type is decided
here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import pyarrow as pa

from crossfade.errors import Unsupported
from crossfade.stores.conditions import Condition, Operator, Scalar
from crossfade.stores.ids import IdKind
from crossfade.stores.records import Id

__all__ = ["NOTHING", "condition", "filtered", "lacks", "one_of", "quoted"]

NOTHING = "FALSE"
"""Met by no row."""


def quoted(name: str) -> str:
    """A column's name within SQL.

    Raises:
        Unsupported: no SQL of LanceDB can name it.
    """
    if not name or "`" in name:
        raise Unsupported(f"LanceDB cannot name the column {name!r} in a filter. Rename it: table.alter_columns.")
    return f"`{name}`"


def lacks(column: str) -> str:
    """Rows that have nothing in a column."""
    return f"{quoted(column)} IS NULL"


def filtered(where: Sequence[Condition], types: Mapping[str, pa.DataType], lacking: str | None = None) -> str | None:
    """What rows must meet; None where they need not meet anything."""
    parts = [condition(each, types[each.column]) for each in where]
    if lacking is not None:
        parts.append(lacks(lacking))
    return " AND ".join(parts) or None


def condition(each: Condition, type_: pa.DataType) -> str:
    """One condition on a column of this type."""
    name = quoted(each.column)
    if pa.types.is_integer(type_):
        return _of_whole(name, each, type_)
    literals = [_literal(value, real=pa.types.is_floating(type_)) for value in each.values]
    return f"{name} IN ({', '.join(literals)})" if each.operator == "in" else f"{name} {each.operator} {literals[0]}"


def one_of(name: str, ids: Sequence[Id], kind: IdKind, type_: pa.DataType) -> str:
    """Rows with one of these ids; an id that the column cannot hold is no row's."""
    if kind == "integer":
        smallest, largest = _bounds(type_)
        literals = [_whole(each) for each in ids if isinstance(each, int) and smallest <= each <= largest]
    elif kind == "uuid":
        literals = [f"X'{str(each).replace('-', '')}'" for each in ids]
    else:
        literals = [_text(str(each)) for each in ids]
    return f"{quoted(name)} IN ({','.join(literals)})" if literals else NOTHING


ROUNDED: Mapping[Operator, Callable[[float], int]] = {
    ">=": math.ceil,
    ">": math.floor,
    "<": math.ceil,
    "<=": math.floor,
}
"""How a bound becomes the whole number that keeps the same whole numbers."""


def _of_whole(name: str, each: Condition, type_: pa.DataType) -> str:
    """A condition on a column of whole numbers."""
    smallest, largest = _bounds(type_)
    numbers = [value for value in each.values if isinstance(value, int | float)]
    if each.operator in ("=", "in"):
        held = [int(number) for number in numbers if smallest <= number <= largest and number == int(number)]
        return f"{name} IN ({', '.join(_whole(number) for number in held)})" if held else NOTHING
    (bound,) = numbers
    if not smallest <= bound <= largest:
        keeps_all = (bound < smallest) == (each.operator in (">=", ">"))
        return f"{name} IS NOT NULL" if keeps_all else NOTHING
    return f"{name} {each.operator} {_whole(ROUNDED[each.operator](bound))}"


def _bounds(type_: pa.DataType) -> tuple[int, int]:
    """The smallest and the largest whole number of a type."""
    limits = np.iinfo(cast(type[np.integer[Any]], type_.to_pandas_dtype()))
    return int(limits.min), int(limits.max)


def _literal(value: Scalar, *, real: bool) -> str:
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, str):
        return _text(value)
    return _real(value) if real else _whole(int(value))


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _whole(value: int) -> str:
    """The smallest of 64 bits cannot be written with a sign: its digits alone are too large."""
    return str(value) if value != -(2**63) else f"CAST('{value}' AS BIGINT)"


def _real(value: float) -> str:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf if value > 0 else -math.inf
    return repr(number) if math.isfinite(number) else f"CAST('{number}' AS DOUBLE)"
