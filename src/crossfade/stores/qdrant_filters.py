"""Conditions as filters of Qdrant.

A column is a top-level key of the payload. Qdrant compares by type: text, whole numbers and booleans by a match, numbers of
either kind by a range, whose bounds are float64. A value that is a list meets a condition when one of its elements does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from crossfade.errors import ConfigError, Unsupported
from crossfade.stores.conditions import Condition, Operator
from crossfade.stores.ids import LARGEST
from crossfade.stores.records import Id

if TYPE_CHECKING:
    from qdrant_client import models

__all__ = ["named", "payload_key", "rows_meeting"]

EXACT = 2**53
"""Whole numbers up to here are float64 exactly."""

BOUNDS: Mapping[Operator, str] = {">=": "gte", "<=": "lte", ">": "gt", "<": "lt"}


def payload_key(column: str) -> str:
    """A column as a path in the payload.

    Raises:
        Unsupported: its name cannot be written as one.
    """
    if '"' in column or "\\" in column:
        raise Unsupported(f'Qdrant cannot name a key of the payload with " or \\ in it; found {column!r}. Rename it.')
    plain = column.isascii() and column.replace("_", "").replace("-", "").isalnum()
    return column if plain else f'"{column}"'


def rows_meeting(where: Sequence[Condition], *, lacking: str | None = None) -> models.Filter | None:
    """The rows that meet all conditions, and lack a vector in a field; None for all rows.

    Raises:
        ConfigError: a number is not finite, or has more than 64 bits.
        Unsupported: text is compared by its order.
    """
    from qdrant_client import models

    if not where and lacking is None:
        return None
    must: list[models.Condition] = [_condition(each) for each in where]
    without: list[models.Condition] = [] if lacking is None else [models.HasVectorCondition(has_vector=lacking)]
    return models.Filter(must=must or None, must_not=without or None)


def named(key: str, ids: Sequence[Id]) -> models.Filter:
    """The rows that have one of these ids under a key of the payload."""
    from qdrant_client import models

    match = models.MatchAny(any=list(ids))  # type: ignore[arg-type]  # all strings, or all whole numbers
    return models.Filter(must=[models.FieldCondition(key=payload_key(key), match=match)])


def _condition(condition: Condition) -> models.Condition:
    from qdrant_client import models

    key = payload_key(condition.column)
    for value in condition.values:
        _require_json(condition.column, value)
    if condition.operator in BOUNDS:
        if isinstance(condition.value, str):
            raise Unsupported(
                f"Qdrant compares numbers by bounds, not text; {condition.column!r} was compared with a string. Ask for equal "
                "values, or keep a number beside it."
            )
        bounds = {BOUNDS[condition.operator]: float(condition.value)}
        return models.FieldCondition(key=key, range=models.Range(**bounds))
    if len(condition.values) > 1 and all(isinstance(value, str) for value in condition.values):
        return models.FieldCondition(key=key, match=models.MatchAny(any=list(condition.values)))  # type: ignore[arg-type]
    equal = [_equal(key, value) for value in condition.values]
    return equal[0] if len(equal) == 1 else models.Filter(should=equal)


def _equal(key: str, value: str | int | float | bool) -> models.Condition:
    """A range of one value finds it whether it was stored as 2 or as 2.0; beyond float64 a whole number is matched."""
    from qdrant_client import models

    if isinstance(value, bool | str) or (isinstance(value, int) and abs(value) > EXACT):
        return models.FieldCondition(key=key, match=models.MatchValue(value=value))
    return models.FieldCondition(key=key, range=models.Range(gte=float(value), lte=float(value)))


def _require_json(column: str, value: str | int | float | bool) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"A number compared with {column!r} must be finite; found {value}.")
    if isinstance(value, int) and not -LARGEST - 1 <= value <= LARGEST:
        raise ConfigError(f"A whole number compared with {column!r} must have at most 64 bits; this one has more.")
