"""Which points of Qdrant are which rows, and reading them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, final

from crossfade.stores.ids import IdKind
from crossfade.stores.qdrant_connection import Connection
from crossfade.stores.qdrant_filters import named, payload_key
from crossfade.stores.qdrant_points import Point, ids_of
from crossfade.stores.records import Id

if TYPE_CHECKING:
    from qdrant_client import models

__all__ = ["LOOKED_UP", "Rows"]

LOOKED_UP = 1000
"""Ids in one look-up."""


@final
class Rows:
    """The rows of a collection.

    Args:
        connection: to it.
        key: of the payload, under which ids stand; None where points have no other ids than their own.
        ids: what ids are; None to look at a point.

    Attributes:
        key: as given.
        ids: what ids are, so far as is known.
    """

    def __init__(self, connection: Connection, *, key: str | None, ids: IdKind | None) -> None:
        self.key = key
        self.ids: IdKind = ids or ("uuid" if key is None else "string")
        self._connection = connection
        self._stated = ids is not None

    def learn(self, sample: Sequence[Point]) -> None:
        """What ids are, by some points; where there are none, what was known stays."""
        found = [point.id if self.key is None else (point.payload or {}).get(self.key) for point in sample]
        first = next((id_ for id_ in found if id_ is not None), None)
        if first is not None and not self._stated:
            self.ids = "integer" if isinstance(first, int) else "uuid" if self.key is None else "string"

    def names(self, points: Sequence[Point]) -> list[Id]:
        """What the application calls points; see :func:`~crossfade.stores.qdrant_points.ids_of`."""
        return ids_of(points, self.ids, self.key, self._connection.address)

    def payload(self, columns: Sequence[str] = ()) -> list[str] | bool:
        """What of the payload is to be read for the ids and some columns."""
        keys = [*columns] if self.key is None else [*columns, self.key]
        return [payload_key(name) for name in keys] if keys else False

    def page(
        self,
        meeting: models.Filter | None,
        start: models.ExtendedPointId | None,
        count: int,
        *,
        payload: list[str] | bool = False,
        fields: Sequence[str] = (),
    ) -> tuple[list[models.Record], models.ExtendedPointId | None]:
        """At most ``count`` points from one on, in the order of their ids, and the one after them."""
        return self._connection.ask(
            lambda client: client.scroll(
                self._connection.collection,
                scroll_filter=meeting,
                limit=count,
                offset=start,
                with_payload=payload,
                with_vectors=_vectors(fields),
            )
        )

    def existing(
        self, ids: Sequence[Id], *, fields: Sequence[str] = (), columns: Sequence[str] = ()
    ) -> dict[Id, models.Record]:
        """The points of those rows that exist.

        Raises:
            StoreError: two points have the same id.
        """
        points: list[models.Record] = []
        for start in range(0, len(ids), LOOKED_UP):
            part, payload = ids[start : start + LOOKED_UP], self.payload(columns)
            points += self._retrieved(part, payload, fields) if self.key is None else self._found(part, payload, fields)
        return dict(zip(self.names(points), points, strict=True))

    def places(self, ids: Sequence[Id]) -> dict[Id, models.ExtendedPointId]:
        """The point ids of those rows that exist."""
        return {id_: point.id for id_, point in self.existing(ids).items()}

    def _retrieved(self, ids: Sequence[Id], payload: list[str] | bool, fields: Sequence[str]) -> list[models.Record]:
        possible: list[models.ExtendedPointId] = [id_ for id_ in ids if isinstance(id_, str) or id_ >= 0]
        return self._connection.ask(
            lambda client: client.retrieve(
                self._connection.collection, ids=possible, with_payload=payload, with_vectors=_vectors(fields)
            )
        )

    def _found(self, ids: Sequence[Id], payload: list[str] | bool, fields: Sequence[str]) -> list[models.Record]:
        meeting = named(self.key or "", ids)
        found, following = self.page(meeting, None, LOOKED_UP, payload=payload, fields=fields)
        while following is not None:
            page, following = self.page(meeting, following, LOOKED_UP, payload=payload, fields=fields)
            found += page
        return found


def _vectors(fields: Sequence[str]) -> list[str] | bool:
    """What vectors are to be read; the one without a name is given with all of them."""
    return True if "" in fields else list(fields) or False
