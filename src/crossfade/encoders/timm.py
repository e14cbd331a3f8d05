"""Image-only backbones of timm, with their own transforms (which need torchvision)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np
import numpy.typing as npt

from crossfade.encoders.base import Encoder
from crossfade.encoders.checkpoint import find_checkpoint
from crossfade.encoders.packages import need
from crossfade.encoders.torch_runtime import TorchRuntime, forward, to_unit_rows
from crossfade.encoders.vectors import no_rows
from crossfade.errors import EncoderError, UnsafeFormat
from crossfade.spaces import Space

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["TimmEncoder"]


@final
class TimmEncoder(Encoder):
    """A timm model without its classifier.

    Args:
        name: a model with its weights as timm lists them (``resnet50.a1_in1k``), a hub id (``timm/resnet50.a1_in1k``),
            or a local folder with ``config.json`` and ``model.safetensors``.
        revision: a branch, a tag or a commit on the hub.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        dtype: ``float32``, ``bfloat16`` or ``float16``.

    Raises:
        MissingExtra: timm or torchvision is not installed.
        EncoderError: it cannot be found or loaded.
        UnsafeFormat: its weights are pickled.
    """

    def __init__(self, name: str, *, revision: str | None = None, device: str = "auto", dtype: str = "float32") -> None:
        runtime = TorchRuntime(device, dtype)
        timm = need("timm", extra="timm", feature=f"Loading timm:{name}")
        checkpoint = find_checkpoint(_location(timm, name), revision=revision)
        if not (checkpoint.folder / "model.safetensors").exists():
            raise UnsafeFormat(
                f"timm weights are read from model.safetensors only; {name} has none. Save the model again with "
                "timm.models.save_for_hf(model, folder, safe_serialization=True)."
            )
        self._name = checkpoint.name
        try:
            model = timm.create_model(f"local-dir:{checkpoint.folder}", pretrained=True, num_classes=0)
            config = timm.data.resolve_model_data_config(model)
            self._transform = timm.data.create_transform(**config, is_training=False)
        except Exception as error:
            raise EncoderError(
                f"timm could not load {name} ({type(error).__name__}: {error}). Check the name."
            ) from error
        self._model, self._device, self._dtype = runtime.place(model)
        steps = "; ".join(
            f"{key} {config[key]}" for key in ("input_size", "interpolation", "crop_pct", "crop_mode", "mean", "std")
        )
        self.space = Space(
            model=checkpoint.name,
            revision=checkpoint.revision,
            dimension=int(model.num_features),
            modalities=("image",),
            preprocessing=f"image: {steps}; pool {_pool(model)}",
            runtime=runtime.name,
        )

    def encode_images(self, images: Sequence[Image]) -> npt.NDArray[np.float32]:
        if not images:
            return no_rows(self.space.dimension)
        torch: Any = need("torch", extra="timm", feature="Encoding")
        with forward(self._name):
            pixels = torch.stack([self._transform(image.convert("RGB")) for image in images])
            features = self._model(pixels.to(device=self._device, dtype=self._dtype))
        return to_unit_rows(features, model=self._name, rows=len(images))

    def __repr__(self) -> str:
        return f"TimmEncoder({self.space}, {self._device})"


def _location(timm: Any, name: str) -> str:
    if "/" in name or Path(name).is_dir():
        return name
    known = timm.is_model(name.partition(".")[0]) and name in timm.list_pretrained()
    listed = timm.get_pretrained_cfg(name) if known else None
    if listed is None or not listed.hf_hub_id:
        raise EncoderError(f"timm lists no weights on the hub for {name}. See timm.list_pretrained().")
    hub_id = str(listed.hf_hub_id)
    return hub_id if not hub_id.endswith("/") else hub_id + name


def _pool(model: Any) -> str:
    """A transformer names its pooling, a convolutional network holds it as a layer."""
    pool = getattr(model, "global_pool", "own")
    return str(getattr(pool, "pool_type", pool))
