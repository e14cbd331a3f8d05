"""An encoder followed by an adapter is an encoder: the new model, speaking the old model's space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, final

import numpy as np
import numpy.typing as npt

from crossfade.encoders.base import Encoder, Role
from crossfade.errors import EncoderError
from crossfade.spaces import Modality, require_same

if TYPE_CHECKING:
    from PIL.Image import Image

    from crossfade.methods.base import Adapter

__all__ = ["AdaptedEncoder"]


@final
class AdaptedEncoder(Encoder):
    """Encodes with ``encoder`` and maps with ``adapter``; its vectors live in the adapter's target space.

    Args:
        encoder: its space must be the adapter's source.
        adapter: normally new → old.
        old: the old encoder, for adapters that also need the old model's vector of each query (SLERP, NLERP); its space
            must be the adapter's target.

    Raises:
        SpaceMismatch: a space is not what the adapter was fitted on.
        EncoderError: the adapter needs ``old``, or has no use for it.
    """

    def __init__(self, encoder: Encoder, adapter: Adapter, *, old: Encoder | None = None) -> None:
        hint = ""
        if encoder.space == adapter.target:
            hint = "It lives in the adapter's target space: were old and new swapped?"
        require_same(encoder.space, adapter.source, what="The encoder's vectors", hint=hint)
        if adapter.two_encoders != (old is not None):
            need = "needs the old encoder too: pass old=…" if adapter.two_encoders else "has no use for the old encoder"
            raise EncoderError(f"This adapter {need}.")
        if old is not None:
            require_same(old.space, adapter.target, what="The old encoder's vectors")
        self.space = adapter.target
        self._encoder = encoder
        self._adapter = adapter
        self._old = old

    def encode_images(self, images: Sequence[Image]) -> npt.NDArray[np.float32]:
        self._adapter.require_modality("image")
        old = None if self._old is None else self._old.encode_images(images)
        return self._map(self._encoder.encode_images(images), "image", old)

    def encode_texts(self, texts: Sequence[str], *, role: Role = "document") -> npt.NDArray[np.float32]:
        self._adapter.require_modality("text")
        old = None if self._old is None else self._old.encode_texts(texts, role=role)
        return self._map(self._encoder.encode_texts(texts, role=role), "text", old)

    def truncated(self, texts: Sequence[str], *, role: Role = "document") -> int | None:
        return self._encoder.truncated(texts, role=role)

    def __repr__(self) -> str:
        return f"AdaptedEncoder({self._encoder!r} → {self.space})"

    def _map(
        self, vectors: npt.NDArray[np.float32], modality: Modality, old: npt.NDArray[np.float32] | None
    ) -> npt.NDArray[np.float32]:
        return self._adapter.map(vectors, modality, old=old)
