"""Upgrade: the artifact of an upgrade, a folder that holds all that its stages and its searchers need.

::

    folder/
      state.sqlite    the stage, the history, the queue of backfilling (crossfade.upgrading.state)
      adapter/        the map from the new space to the old
      plan.json       what was expected before anything was changed
      background-old.npy, background-new.npy   rows with both vectors, by which scores are made comparable; of backfilling
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, final

import numpy as np

from crossfade.artifacts import from_pretrained
from crossfade.errors import FormatError, StoreError, UpgradeRefused
from crossfade.methods.base import Adapter
from crossfade.spaces import Modality, Space
from crossfade.stores import Store, open_store
from crossfade.upgrading.merging import Background
from crossfade.upgrading.scoring import compared
from crossfade.upgrading.state import State

__all__ = ["ADAPTER", "PLAN", "Upgrade"]

ADAPTER, PLAN, BACKGROUND = "adapter", "plan.json", "background"
CLAIM = "crossfade.upgrade"
"""Key of the note by which an upgrade claims a collection."""


@final
@dataclass(frozen=True, eq=False)
class Upgrade:
    """One upgrade of one vector field of one collection.

    Attributes:
        folder: where it stands.
        state: its durable state.
        adapter: from the new space to the old.
        id: that nothing else has.
        address: of the collection.
        modality: what the field holds vectors of.
        old_field: the field that is searched now.
        new_field: where backfilling puts native vectors.
    """

    folder: Path
    state: State
    adapter: Adapter
    id: str
    address: str
    modality: Modality
    old_field: str
    new_field: str

    @classmethod
    def open(cls, folder: str | Path) -> Self:
        """Open the folder of an upgrade.

        Raises:
            FormatError: it is none, or is damaged.
        """
        path = Path(folder).absolute()
        state = State(path)
        known = {name: state.fact(name) for name in ("id", "address", "modality", "old_field", "new_field")}
        if any(value is None for value in known.values()):
            raise FormatError(
                f"{path} lacks {[name for name, value in known.items() if value is None]}. Make a new plan."
            )
        return cls(path, state, from_pretrained(path / ADAPTER), **known)

    @property
    def old(self) -> Space:
        """The space of what is stored."""
        return self.adapter.target

    @property
    def new(self) -> Space:
        """The space of the new model."""
        return self.adapter.source

    def store(self) -> Store:
        """Open the collection.

        Raises:
            StoreError: it cannot be reached, or has changed.
        """
        return open_store(self.address)

    def close(self) -> None:
        """Let go of the state's file."""
        self.state.close()

    def claim(self, store: Store) -> None:
        """Take the collection for this upgrade, so that no second one is carried out on it.

        Raises:
            UpgradeRefused: another one has it.
        """
        if not store.capabilities.notes:
            return
        holder = self.holder(store)
        if holder is None:
            mine = {"upgrade": self.id, "folder": str(self.folder.resolve()), "machine": platform.node()}
            store.note(CLAIM, json.dumps(mine, ensure_ascii=False))
            holder = self.holder(store)
        if holder is not None and holder["upgrade"] != self.id:
            raise UpgradeRefused(
                f"{store.address} is being upgraded by another upgrade, in {holder['folder']} on {holder['machine']}. Finish "
                "it, or roll it back, and then begin this one."
            )

    def release(self, store: Store) -> None:
        """Give the collection back, where this upgrade has it."""
        if store.capabilities.notes:
            holder = self.holder(store)
            if holder is not None and holder["upgrade"] == self.id:
                store.note(CLAIM, None)

    @staticmethod
    def holder(store: Store) -> Mapping[str, str] | None:
        """Which upgrade has the collection; None where none has."""
        text = store.notes().get(CLAIM)
        if text is None:
            return None
        try:
            found = json.loads(text)
            return {name: str(found[name]) for name in ("upgrade", "folder", "machine")}
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(
                f"The note {CLAIM!r} of {store.address} is damaged ({error}). Make sure that no upgrade is under way, then "
                "forget it by store.note(key, None)."
            ) from error

    def background(self) -> Background | None:
        """The rows by which scores are compared; None before backfilling."""
        paths = {side: self.folder / f"{BACKGROUND}-{side}.npy" for side in ("old", "new")}
        if not all(path.exists() for path in paths.values()):
            return None
        old, new = (np.load(path, allow_pickle=False) for path in paths.values())
        return Background(compared(old, self.old), compared(new, self.new))

    def facts(self) -> dict[str, Any]:
        """What it is, in plain values."""
        return {
            "id": self.id,
            "address": self.address,
            "old field": self.old_field,
            "new field": self.new_field,
            "modality": self.modality,
            "old space": str(self.old),
            "new space": str(self.new),
            "adapter": self.adapter.provenance.method if self.adapter.provenance else "",
        }
