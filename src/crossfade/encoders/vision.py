"""Image-only backbones in the transformers format: ViT, DINOv2, ResNet, ConvNeXt, Swin and their like.

A backbone gives many vectors an image; which one stands for it is a choice, and it is part of the space:

* ``pooler``  the model's own pooled output, where its weights are in the checkpoint;
* ``cls``     the class token, for transformers that have one;
* ``mean``    the mean over all tokens or positions.

``auto`` takes the first of these that the checkpoint has. A ViT that was trained to classify comes without its pooler's
weights: taking the pooler there would give random vectors, different at each loading.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, final, get_args

import numpy as np
import numpy.typing as npt

from crossfade.encoders.base import Encoder
from crossfade.encoders.checkpoint import find_checkpoint
from crossfade.encoders.torch_runtime import TorchRuntime, forward, loading, to_unit_rows
from crossfade.encoders.transformers_files import describe_images, load_image_processor, load_model
from crossfade.encoders.vectors import no_rows
from crossfade.errors import ConfigError, EncoderError
from crossfade.spaces import Space

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Pool", "VisionEncoder"]

Pool = Literal["auto", "pooler", "cls", "mean"]


@final
class VisionEncoder(Encoder):
    """An image-only model.

    Args:
        name: a local folder or a hub id (``id@revision`` for a certain one).
        revision: a branch, a tag or a commit on the hub.
        pool: which vector stands for an image; see the module's list.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        dtype: ``float32``, ``bfloat16`` or ``float16``.

    Raises:
        EncoderError: it cannot be found or loaded, takes no images, or has not what ``pool`` names.
        UnsafeFormat: its weights are pickled.
    """

    def __init__(
        self,
        name: str,
        *,
        revision: str | None = None,
        pool: Pool = "auto",
        device: str = "auto",
        dtype: str = "float32",
    ) -> None:
        if pool not in get_args(Pool):
            raise ConfigError(f"pool must be one of {', '.join(get_args(Pool))}; found {pool!r}.")
        runtime = TorchRuntime(device, dtype)
        checkpoint = find_checkpoint(name, revision=revision)
        self._name = checkpoint.name
        with loading(name):
            model, random_pooler = load_model(checkpoint, may_miss="pooler")
            if getattr(model, "main_input_name", None) != "pixel_values" or hasattr(model, "get_text_features"):
                raise EncoderError(
                    f"An image-only backbone must take images and nothing else; {name} is a {type(model).__name__}. "
                    "Load it without the prefix 'vision:'."
                )
            self._images = load_image_processor(checkpoint)
        self._model, self._device, self._dtype = runtime.place(model)
        self._pool: Pool = pool
        self._pool = self._choose(pool, random_pooler=random_pooler)
        self.space = Space(
            model=checkpoint.name,
            revision=checkpoint.revision,
            dimension=int(self._features([_blank()]).shape[1]),
            modalities=("image",),
            preprocessing=f"image: {describe_images(self._images)}; pool {self._pool}",
            runtime=runtime.name,
        )

    def encode_images(self, images: Sequence[Image]) -> npt.NDArray[np.float32]:
        if not images:
            return no_rows(self.space.dimension)
        return to_unit_rows(self._features(images), model=self._name, rows=len(images))

    def __repr__(self) -> str:
        return f"VisionEncoder({self.space}, pool={self._pool}, {self._device})"

    def _choose(self, pool: Pool, *, random_pooler: bool) -> Pool:
        output = self._output([_blank()])
        has_pooler = getattr(output, "pooler_output", None) is not None and not random_pooler
        hidden = output.last_hidden_state
        has_cls = hidden.ndim == 3 and any(
            name.rpartition(".")[2] == "cls_token" for name, _ in self._model.named_parameters()
        )
        offered: list[Pool] = ["mean"]
        if has_cls:
            offered.insert(0, "cls")
        if has_pooler:
            offered.insert(0, "pooler")
        if pool == "auto":
            return offered[0]
        if pool not in offered:
            raise EncoderError(
                f"{self._name} can be pooled by {', '.join(offered)}; asked for {pool}. Choose one of those."
            )
        return pool

    def _output(self, images: Sequence[Image]) -> Any:
        with forward(self._name):
            inputs = self._images(images=[image.convert("RGB") for image in images], return_tensors="pt")
            return self._model(pixel_values=inputs["pixel_values"].to(device=self._device, dtype=self._dtype))

    def _features(self, images: Sequence[Image]) -> Any:
        output = self._output(images)
        if self._pool == "pooler":
            return output.pooler_output.flatten(1)  # convolutional networks keep two spatial dimensions of size one
        hidden = output.last_hidden_state
        if self._pool == "cls":
            return hidden[:, 0]
        return hidden.mean(dim=1) if hidden.ndim == 3 else hidden.flatten(2).mean(dim=2)


def _blank() -> Image:
    from PIL import Image

    return Image.new("RGB", (64, 48), "white")
