"""Ids as stores have them: strings, whole numbers or UUIDs, one kind in one collection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal
from uuid import UUID

from crossfade.errors import InvalidIds
from crossfade.stores.records import Id

__all__ = ["LARGEST", "IdKind", "require_ids"]

IdKind = Literal["string", "integer", "uuid"]

LARGEST = 2**63 - 1
"""Of whole numbers; the smallest is one below its negative."""


def require_ids(ids: Sequence[object], kind: IdKind) -> list[Id]:
    """Ids in the form in which they are stored: UUIDs as strings in their canonical form.

    Raises:
        InvalidIds: one is not of this kind, or is a string that no store takes: empty, or with a null character.
    """
    return [_id(each, kind) for each in ids]


def _id(found: object, kind: IdKind) -> Id:
    if kind == "uuid":
        try:
            return str(found if isinstance(found, UUID) else UUID(str(found)))
        except ValueError as error:
            raise InvalidIds(f"Ids of this collection are UUIDs; found {found!r}.") from error
    if kind == "integer":
        if isinstance(found, bool) or not isinstance(found, int) or not -LARGEST - 1 <= found <= LARGEST:
            raise InvalidIds(f"Ids of this collection are whole numbers of 64 bits; found {found!r}.")
        return found
    if not isinstance(found, str) or not found or "\0" in found:
        raise InvalidIds(f"Ids of this collection are strings, not empty and without null characters; found {found!r}.")
    try:
        found.encode()
    except UnicodeEncodeError as error:
        raise InvalidIds(f"Ids must be valid Unicode; found {found!r}.") from error
    return found
