"""ServedEncoder: vectors for the old field of a collection, by whichever model its upgrade's pointer asks for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, final

import numpy as np
import numpy.typing as npt

from crossfade.encoders import AdaptedEncoder, Encoder, Role
from crossfade.errors import EncoderError, UpgradeRefused
from crossfade.spaces import require_same
from crossfade.upgrading import Upgrade
from crossfade.upgrading.writing import OLD_DROPPED

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["ServedEncoder"]


@final
class ServedEncoder(Encoder):
    """Encodes for the field that was searched before the upgrade; for applications that search by another library's client.

    It reads the pointer at every call: before a cutover and after a rollback the old model encodes, after a cutover the new
    one, followed by the adapter. Its vectors live in the old space always, so that a client that is bound to the old field
    never compares across spaces. Native vectors, which backfilling makes, are searched by a
    :class:`~crossfade.upgrading.Searcher` alone. Once the upgrade is finished it encodes queries only, as long as the old
    field is there: documents in that field would not be found by anybody else.

    Args:
        upgrade: the upgrade, or its folder.
        new: the new model.
        old: the old model; without it, nothing can be encoded before the cutover.

    Raises:
        SpaceMismatch: an encoder is of another space than the upgrade.
    """

    def __init__(self, upgrade: Upgrade | str, *, new: Encoder, old: Encoder | None = None) -> None:
        self.upgrade = upgrade if isinstance(upgrade, Upgrade) else Upgrade.open(upgrade)
        if old is not None:
            require_same(old.space, self.upgrade.old, what="The old encoder's vectors")
        self.space = self.upgrade.old
        self._old, self._new = old, AdaptedEncoder(new, self.upgrade.adapter)

    def encode_images(self, images: Sequence[Image]) -> npt.NDArray[np.float32]:
        return self._serving("document").encode_images(images)

    def encode_texts(self, texts: Sequence[str], *, role: Role = "document") -> npt.NDArray[np.float32]:
        return self._serving(role).encode_texts(texts, role=role)

    def truncated(self, texts: Sequence[str], *, role: Role = "document") -> int | None:
        return self._serving(role).truncated(texts, role=role)

    def _serving(self, role: Role) -> Encoder:
        """The encoder that the pointer asks for now.

        Raises:
            UpgradeRefused: the old field is no more, or its documents are searched no more.
            EncoderError: the old model is asked for, and was not given.
        """
        serving = self.upgrade.state.now().serving
        dropped = self.upgrade.state.fact(OLD_DROPPED)
        if dropped or (serving == "native" and role == "document"):
            why = "was dropped" if dropped else "is not what others search any more"
            raise UpgradeRefused(
                f"The upgrade is finished, and the field {self.upgrade.old_field!r} {why}. Search and write the field "
                f"{self.upgrade.new_field!r}, with the vectors of the new encoder as they are."
            )
        if serving != "old":
            return self._new
        if self._old is None:
            raise EncoderError("The old model is to encode before the cutover; give ServedEncoder old=ENCODER.")
        return self._old

    def __repr__(self) -> str:
        return f"ServedEncoder({self.upgrade.folder.name!r} → {self.space})"
