"""What an encoder is: items in, vectors of one space out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from crossfade.errors import EncoderError
from crossfade.spaces import Modality, Space

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Encoder", "Role"]

Role = Literal["query", "document"]


class Encoder(ABC):
    """Turns images, texts or both into vectors of one :class:`~crossfade.spaces.Space`.

    Attributes:
        space: where its vectors live; ``space.modalities`` says what it can encode.
    """

    space: Space

    def encode_images(self, images: Sequence[Image]) -> npt.NDArray[np.float32]:
        """Encode a batch of RGB images.

        Returns:
            float32 [len(images), space.dimension], of unit norm where the space is normalised.

        Raises:
            EncoderError: this encoder has no image tower.
        """
        raise EncoderError(self._refusal("image"))

    def encode_texts(self, texts: Sequence[str], *, role: Role = "document") -> npt.NDArray[np.float32]:
        """Encode a batch of texts.

        Args:
            texts: without any prefix; the space's query or document prefix is added here, by ``role``.
            role: ``query`` for what is searched with, ``document`` for what is stored.

        Returns:
            float32 [len(texts), space.dimension], of unit norm where the space is normalised.

        Raises:
            EncoderError: this encoder has no text tower.
        """
        raise EncoderError(self._refusal("text"))

    def truncated(self, texts: Sequence[str], *, role: Role = "document") -> int | None:
        """How many of these texts are longer than the text tower takes, and lose their ends when they are encoded.

        Args:
            texts: as for :meth:`encode_texts`.
            role: as for :meth:`encode_texts`.

        Returns:
            None where the encoder does not know: an endpoint, for one, cuts or refuses by itself.
        """
        return None

    def _refusal(self, modality: Modality) -> str:
        return (
            f"{self.space.model} encodes {', '.join(self.space.modalities)} only; asked for {modality}. Choose an "
            "encoder that does."
        )

    @abstractmethod
    def __repr__(self) -> str: ...
