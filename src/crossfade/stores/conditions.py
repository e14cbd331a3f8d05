"""Filters that every store understands: conditions on columns, all of which must hold.

::

    {"script": "LATIN"}                       equal
    {"script": ["LATIN", "GREEK"]}            one of
    {"year": {">=": 2000, "<": 2010}}         within

A row that has no value in a column meets no condition on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

from crossfade.errors import ConfigError
from crossfade.stores.records import Value

__all__ = ["Condition", "Kind", "Operator", "Where", "conditions", "holds", "kind_of"]

Operator = Literal["=", "in", ">=", "<=", ">", "<"]
RANGES: tuple[Operator, ...] = (">=", "<=", ">", "<")

Kind = Literal["string", "integer", "number", "boolean", "other"]
"""What a column holds; a whole number is a number, too."""

Scalar = str | int | float | bool
Where = Mapping[str, Scalar | Sequence[Scalar] | Mapping[str, Scalar]]
"""Column → a value, several values, or bounds."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition on one column.

    Attributes:
        column: its name.
        operator: how it is compared.
        values: what with: one value, or those of ``in``, which are of one kind.
    """

    column: str
    operator: Operator
    values: tuple[Scalar, ...]

    @property
    def value(self) -> Scalar:
        """The only value; of ``in`` the first."""
        return self.values[0]


def conditions(where: Where | None) -> tuple[Condition, ...]:
    """A filter as conditions.

    Raises:
        ConfigError: an operator does not exist, a list is empty or mixed, or a value is none that a column holds.
    """
    found: list[Condition] = []
    for column, wanted in (where or {}).items():
        if isinstance(wanted, Mapping):
            unknown = sorted(set(wanted) - set(RANGES))
            if unknown or not wanted:
                raise ConfigError(
                    f"Bounds of {column!r} must be among {', '.join(RANGES)}; found {unknown or 'none'}. An equal value is "
                    "given as it is, several as a list."
                )
            for operator, bound in wanted.items():
                if kind_of(_scalar(column, bound)) == "boolean":
                    raise ConfigError(f"Bounds of {column!r} must be numbers or strings; found {bound!r}.")
                found.append(Condition(column, cast(Operator, operator), (bound,)))
        elif isinstance(wanted, Sequence) and not isinstance(wanted, str):
            values = tuple(_scalar(column, value) for value in wanted)
            kinds = {"number" if isinstance(v, int | float) and not isinstance(v, bool) else kind_of(v) for v in values}
            if len(kinds) != 1:
                raise ConfigError(
                    f"A list for {column!r} must have values, all of one kind; found {sorted(kinds) or 'none'}."
                )
            found.append(Condition(column, "in", values))
        else:
            found.append(Condition(column, "=", (_scalar(column, wanted),)))
    return tuple(found)


def kind_of(value: Value) -> Kind:
    """What a value is."""
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        return "number"
    return "string" if isinstance(value, str) else "other"


def holds(condition: Condition, value: Value) -> bool:
    """Whether a value meets a condition."""
    if value is None:
        return False
    if condition.operator in ("=", "in"):
        return any(_comparable(value, wanted) and value == wanted for wanted in condition.values)
    bound = condition.value
    if not _comparable(value, bound):
        return False
    less, equal = value < bound, value == bound  # type: ignore[operator]
    return {">=": not less, "<=": less or equal, ">": not less and not equal, "<": less}[condition.operator]


def _comparable(value: Value, other: Value) -> bool:
    """Whether two values are of kinds that meet: numbers of either kind, or the same kind."""
    numbers = ("integer", "number")
    mine, theirs = kind_of(value), kind_of(other)
    return mine == theirs or (mine in numbers and theirs in numbers)


def _scalar(column: str, value: object) -> Scalar:
    if not isinstance(value, get_args(Scalar)) or value != value:
        raise ConfigError(f"A condition on {column!r} must be a string, a number or a boolean; found {value!r}.")
    return cast(Scalar, value)
