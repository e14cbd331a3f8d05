"""Writer: how an application writes items while its collection is upgraded, so that every search finds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self, final

import numpy as np
import numpy.typing as npt

from crossfade.errors import SpaceMismatch, StoreChanged, UpgradeRefused
from crossfade.methods.base import as_queries
from crossfade.spaces import Space
from crossfade.stores import Id, Records, Store, Value, Vectors
from crossfade.upgrading.stages import Stage
from crossfade.upgrading.stamping import stamps_of
from crossfade.upgrading.upgrade import Upgrade

__all__ = ["OLD_DROPPED", "Writer"]

NATIVE: tuple[Stage, ...] = ("backfilling", "backfilled", "finished")
"""Stages in which a native vector is written beside the mapped one."""

OLD_DROPPED = "old field dropped"
"""The fact that the old field is no more."""


@final
class Writer:
    """Writes items in either model's vectors.

    A vector of the new model is stored through the adapter in the old field, so that searches before a cutover and after a
    rollback find it, and as it is in the new field, once backfilling has begun. A vector of the old model is stored in the
    old field; backfilling makes its native one. Applications that go on writing old vectors by the store's own client need
    no writer: backfilling finds their rows, too.

    Args:
        upgrade: the upgrade, or its folder.
        store: the collection, where it is open already.
    """

    def __init__(self, upgrade: Upgrade | str, store: Store | None = None) -> None:
        self.upgrade = upgrade if isinstance(upgrade, Upgrade) else Upgrade.open(upgrade)
        self._given = store
        self._store = store if store is not None else self.upgrade.store()
        self._store.require("write")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the collection, where the writer opened it."""
        if self._given is None:
            self._store.close()

    def write(
        self,
        ids: Sequence[Id],
        vectors: npt.NDArray[np.floating],
        *,
        space: Space,
        columns: Mapping[str, Sequence[Value]] | None = None,
    ) -> None:
        """Insert items, or replace them whole.

        Args:
            ids: of n items.
            vectors: [n, d], of the gallery's modality.
            space: the old or the new model's.
            columns: n values each.

        Raises:
            SpaceMismatch: the vectors are of neither space.
            UpgradeRefused: the upgrade is finished, searches ask the new field alone, and these are old vectors.
        """
        given = as_queries(np.atleast_2d(vectors), space)
        if space not in (self.upgrade.old, self.upgrade.new):
            raise SpaceMismatch(f"Items are written in {self.upgrade.old} or {self.upgrade.new}; found {space}.")
        rows = {name: list(values) for name, values in (columns or {}).items()}
        stage = self.upgrade.state.now().stage
        try:
            self._write(stage, list(ids), given, space, rows)
        except StoreChanged:
            again = self.upgrade.state.now().stage  # the pointer moved, and a field with it
            if again == stage:
                raise
            self._write(again, list(ids), given, space, rows)

    def delete(self, ids: Sequence[Id]) -> int:
        """Delete items; how many of them were there."""
        return self._store.delete(ids)

    def _write(
        self,
        stage: Stage,
        ids: list[Id],
        given: npt.NDArray[np.float32],
        space: Space,
        columns: Mapping[str, list[Value]],
    ) -> None:
        upgrade, fields = self.upgrade, {}
        serving = upgrade.state.now().serving
        native = space == upgrade.new and stage in NATIVE and serving in ("mixed", "native")
        if space == upgrade.old:
            if serving == "native":
                raise UpgradeRefused(
                    "The upgrade is finished, and searches ask the new field alone; old vectors would not be found. Write the "
                    f"vectors of {upgrade.new}."
                )
            fields[upgrade.old_field] = Vectors.of(given)
        elif not upgrade.state.fact(OLD_DROPPED):
            fields[upgrade.old_field] = Vectors.of(upgrade.adapter.map(given, upgrade.modality))
        if native:
            fields[upgrade.new_field] = Vectors.of(given)
        records = Records(ids, fields, columns)
        self._store.upsert(records)
        if native and upgrade.old_field in fields:
            kept = self._store.capabilities.keeps_vectors
            stored = records if kept else self._store.fetch(ids, fields=[upgrade.old_field])
            upgrade.state.stamp(stamps_of(stored, upgrade.old_field))
