"""Conditions as Milvus' boolean expressions.

Values stand in the expression as literals, since Milvus Lite knows no templates. A row without a value meets no
comparison, in Milvus too. A column outside the schema is a key of ``$meta``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from crossfade.stores.conditions import Condition, Kind, Operator
from crossfade.stores.ids import LARGEST
from crossfade.stores.records import Id, Value

__all__ = ["dynamic", "expression", "literal", "one_of"]

HUGE = 1.7976931348623157e308
"""The largest number that a column can hold; Milvus has no literal for infinity."""

ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"})


def expression(where: Sequence[Condition], columns: Mapping[str, Kind]) -> str | None:
    """All conditions as one expression; empty where there are none, None where no row can meet them.

    Args:
        where: the conditions.
        columns: name → what it holds, of those in the schema.
    """
    parts = [_condition(each, columns.get(each.column)) for each in where]
    met = [part for part in parts if part is not None]
    return " and ".join(met) if len(met) == len(parts) else None


def one_of(name: str, ids: Sequence[Id]) -> str:
    """That the primary key is one of these."""
    return f"{name} in [{', '.join(literal(id_) for id_ in ids)}]"


def literal(value: Value) -> str:
    """A value as it stands in an expression."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return f'"{value.translate(ESCAPES)}"' if isinstance(value, str) else repr(value)


def dynamic(name: str) -> str:
    """A column outside the schema."""
    return f"$meta[{literal(name)}]"


def _condition(condition: Condition, kind: Kind | None) -> str | None:
    name = condition.column if kind else dynamic(condition.column)
    operator: Operator = "=" if condition.operator == "in" else condition.operator
    wanted = [found for value in condition.values if (found := _comparison(operator, value, kind)) is not None]
    if not wanted:
        return None
    if condition.operator == "in" and kind not in (None, "boolean"):
        return f"{name} in [{', '.join(value for _, value in wanted)}]"
    tests = [f"{name} {'==' if found == '=' else found} {value}" for found, value in wanted]
    return tests[0] if len(tests) == 1 else f"({' or '.join(tests)})"


def _comparison(operator: Operator, value: Value, kind: Kind | None) -> tuple[Operator, str] | None:
    """An operator and a literal that compare as the condition does; None where no value can meet it."""
    if isinstance(value, str | bool) or value is None:
        return operator, literal(value)
    if kind == "integer":
        return _whole(operator, value)
    if kind == "number" or isinstance(value, float) or abs(value) > LARGEST:
        return _real(operator, value)
    return operator, literal(value)


def _whole(operator: Operator, value: float) -> tuple[Operator, str] | None:
    """A number compared with whole numbers of 64 bits: Milvus takes no other literal beside them."""
    if value > LARGEST or value < -LARGEST - 1:
        always = "<" in operator if value > 0 else ">" in operator
        return (("<=", literal(LARGEST)) if value > 0 else (">=", literal(-LARGEST - 1))) if always else None
    if value == math.floor(value):
        return operator, literal(int(value))
    if operator == "=":
        return None
    return (">=", literal(math.ceil(value))) if ">" in operator else ("<=", literal(math.floor(value)))


def _real(operator: Operator, value: float) -> tuple[Operator, str] | None:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf if value > 0 else -math.inf
    if math.isfinite(number):
        return operator, literal(number)
    always = "<" in operator if number > 0 else ">" in operator
    return (("<=", literal(HUGE)) if number > 0 else (">=", literal(-HUGE))) if always else None
