"""What the contract of stores needs of each store."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from crossfade.stores import Records, Store, VectorField
from crossfade.stores.conditions import Kind
from crossfade.stores.ids import IdKind


class Maker(ABC):
    """Makes collections.

    Args:
        folder: for files.
    """

    id_kinds: ClassVar[tuple[IdKind, ...]] = ("string", "integer", "uuid")
    """What ids a collection of this store may have."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @abstractmethod
    def make(
        self,
        fields: Sequence[VectorField],
        columns: Mapping[str, Kind],
        ids: IdKind,
        records: Records,
    ) -> Store:
        """A new collection of these rows, made and filled by the store's own client, and opened by its address."""

    @abstractmethod
    def again(self, store: Store) -> Store:
        """A second handle on the same collection, opened by its address."""

    @abstractmethod
    def destroy(self, store: Store) -> None:
        """Delete the collection by the store's own client, behind the back of ``store``."""

    def let_go(self) -> None:  # noqa: B027
        """Let another process open what was made, where only one can have it open."""

    def close(self) -> None:  # noqa: B027
        """Stop what was started; few start anything."""
