"""open_clip checkpoints, with open_clip's own transforms and tokenizers (which need torchvision).

A name is either a repository in open_clip's format (``hf-hub:laion/CLIP-ViT-B-32-laion2B-s34B-b79K``, or a local folder
with ``open_clip_config.json``) or an architecture and a tag of open_clip's list (``ViT-B-32/laion2b_s34b_b79k``,
``ViT-B-32/openai``). Either way only a safetensors file is read: OpenAI's original archives hold compiled code, and
open_clip lists the same weights as safetensors.

OpenAI's weights, and some others, were trained with the activation QuickGELU. The tag says so and the architecture's
name may not; with the wrong activation the vectors are quietly worse. Here the tag decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np
import numpy.typing as npt

from crossfade.encoders.base import Encoder, Role
from crossfade.encoders.checkpoint import Checkpoint, find_checkpoint
from crossfade.encoders.packages import need
from crossfade.encoders.torch_runtime import TorchRuntime, forward, to_unit_rows
from crossfade.encoders.vectors import no_rows
from crossfade.errors import CrossfadeError, EncoderError, UnsafeFormat
from crossfade.spaces import Space

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["OpenClipEncoder"]

_IMAGE_SETTINGS = ("mean", "std", "interpolation", "resize_mode")


@dataclass(frozen=True)
class _Source:
    """What open_clip is to load: an architecture with a weights file, or a folder that names both."""

    architecture: str
    weights: str | None
    checkpoint: Checkpoint
    quick_gelu: bool
    images: dict[str, Any] | None


@final
class OpenClipEncoder(Encoder):
    """An open_clip model.

    Args:
        name: ``hf-hub:owner/repository``, a local folder, or ``architecture/tag``.
        revision: a branch, a tag or a commit on the hub.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        dtype: ``float32``, ``bfloat16`` or ``float16``.

    Raises:
        MissingExtra: open_clip or torchvision is not installed.
        EncoderError: it cannot be found or loaded.
        UnsafeFormat: its weights are pickled.
    """

    def __init__(self, name: str, *, revision: str | None = None, device: str = "auto", dtype: str = "float32") -> None:
        runtime = TorchRuntime(device, dtype)
        self._open_clip = need("open_clip", extra="open-clip", feature=f"Loading open_clip:{name}")
        source = _find(self._open_clip, name, revision)
        try:
            model = self._open_clip.create_model(
                source.architecture,
                pretrained=source.weights,
                force_quick_gelu=source.quick_gelu,
                force_preprocess_cfg=source.images,
                require_pretrained=True,
                weights_only=True,
                pretrained_text=False,
            )
            settings = self._open_clip.get_model_preprocess_cfg(model)
            self._transform = self._open_clip.image_transform(
                settings["size"],
                is_train=False,
                mean=settings["mean"],
                std=settings["std"],
                interpolation=settings["interpolation"],
                resize_mode=settings["resize_mode"],
            )
            self._tokenizer = self._open_clip.get_tokenizer(source.architecture)
        except CrossfadeError:
            raise
        except Exception as error:
            raise EncoderError(
                f"open_clip could not load {name} ({type(error).__name__}: {error}). Check the name."
            ) from error
        self._name = f"open_clip:{source.checkpoint.name if source.weights is None else name}"
        self._model, self._device, self._dtype = runtime.place(model)
        described = "; ".join(f"{key} {_words(settings[key])}" for key in ("size", *_IMAGE_SETTINGS))
        self.space = Space(
            model=self._name,
            revision=source.checkpoint.revision,
            dimension=int(self._text_features(["a"]).shape[1]),
            preprocessing=f"image: {described}; text: {getattr(self._tokenizer, 'context_length', 'own')} tokens"
            + ("; QuickGELU" if source.quick_gelu else ""),
            runtime=runtime.name,
        )

    def encode_images(self, images: Sequence[Image]) -> npt.NDArray[np.float32]:
        if not images:
            return no_rows(self.space.dimension)
        torch: Any = need("torch", extra="open-clip", feature="Encoding")
        with forward(self._name):
            pixels = torch.stack([self._transform(image.convert("RGB")) for image in images])
            features = self._model.encode_image(pixels.to(device=self._device, dtype=self._dtype))
        return to_unit_rows(features, model=self._name, rows=len(images))

    def encode_texts(self, texts: Sequence[str], *, role: Role = "document") -> npt.NDArray[np.float32]:
        if not texts:
            return no_rows(self.space.dimension)
        return to_unit_rows(self._text_features(texts), model=self._name, rows=len(texts))

    def _text_features(self, texts: Sequence[str]) -> Any:
        with forward(self._name):
            return self._model.encode_text(self._tokenizer(list(texts)).to(self._device))

    def __repr__(self) -> str:
        return f"OpenClipEncoder({self.space}, {self._device})"


def _find(open_clip: Any, name: str, revision: str | None) -> _Source:
    if name.startswith("hf-hub:") or Path(name).is_dir():
        checkpoint = find_checkpoint(name.removeprefix("hf-hub:"), revision=revision)
        return _Source(f"local-dir:{checkpoint.folder}", None, checkpoint, quick_gelu=False, images=None)
    architecture, _, tag = name.rpartition("/")
    listed = open_clip.get_pretrained_cfg(architecture, tag) if architecture else None
    if not listed or not listed.get("hf_hub"):
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(architecture)) if architecture else ""
        raise EncoderError(
            f"open_clip lists no weights on the hub for {name!r}; give architecture/tag or hf-hub:owner/repository. "
            f"Tags of {architecture or 'an architecture'}: {tags or 'none'}."
        )
    owner, repository, *file = listed["hf_hub"].split("/")
    checkpoint = find_checkpoint(f"{owner}/{repository}", revision=revision)
    named = Path(file[0]).stem if file and file[0] else "open_clip_model"
    weights = checkpoint.folder / f"{named}.safetensors"
    if not weights.exists():
        raise UnsafeFormat(f"Weights are read from safetensors only; {name} has no {weights.name}. Choose another tag.")
    images = {key: listed[key] for key in _IMAGE_SETTINGS if listed.get(key) is not None}
    return _Source(architecture, str(weights), checkpoint, bool(listed.get("quick_gelu")), images)


def _words(value: object) -> str:
    """A setting in the same words whether it came as a list, a tuple or one value."""
    return "/".join(f"{number:.5g}" for number in value) if isinstance(value, list | tuple) else str(value)
