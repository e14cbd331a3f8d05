"""Metadata columns: every item of a data set has the same ones, and each holds text or holds numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from crossfade.datasets.base import Value

__all__ = ["note", "typed"]


def note(texts: dict[str, bool], values: Mapping[str, Any]) -> None:
    """Add the columns of one row to ``texts``: name → whether it holds text.

    A column with a single string in it holds text. Lists, objects and bytes are no metadata.
    """
    for name, value in values.items():
        if isinstance(value, str):
            texts[name] = True
        elif isinstance(value, int | float):
            texts.setdefault(name, False)


def typed(values: Mapping[str, Any], texts: Mapping[str, bool]) -> dict[str, Value]:
    """One row's value in each column of ``texts``: where it has none of that type, an empty text or NaN."""
    return {name: _text(values.get(name)) if text else _number(values.get(name)) for name, text in texts.items()}


def _text(value: object) -> str:
    return "" if value is None or isinstance(value, list | dict | bytes) else str(value)


def _number(value: object) -> int | float:
    return value if isinstance(value, int | float) else math.nan
