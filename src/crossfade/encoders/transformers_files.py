"""Loading a model and its image processor from a transformers folder, in the one safe way."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from crossfade.encoders.checkpoint import Checkpoint
from crossfade.encoders.packages import need
from crossfade.errors import EncoderError

__all__ = ["describe_images", "load_image_processor", "load_model"]

_SAFE = {"trust_remote_code": False, "local_files_only": True}
_RESAMPLING = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")  # Pillow's numbers


def load_model(checkpoint: Checkpoint, *, may_miss: str | None = None) -> tuple[Any, bool]:
    """Load the model that the folder's config names, from safetensors.

    Args:
        checkpoint: where it is.
        may_miss: a part of the model whose weights may be absent from the file.

    Returns:
        The model, and whether that part was absent (and is now random).

    Raises:
        EncoderError: weights are absent, so that part of the model would be random.
    """
    transformers = need("transformers", extra="encoders", feature=f"Loading {checkpoint.name}")
    model, report = transformers.AutoModel.from_pretrained(
        checkpoint.folder, use_safetensors=True, output_loading_info=True, **_SAFE
    )
    missing = sorted(report["missing_keys"])
    excused = [key for key in missing if may_miss is not None and may_miss in key.split(".")]
    if len(excused) < len(missing):
        key = next(key for key in missing if key not in excused)
        raise EncoderError(
            f"A checkpoint must hold all weights of its model; {checkpoint.name} lacks "
            f"{len(missing) - len(excused)} of "
            f"{type(model).__name__}, the first is {key}, which would be random. It is damaged, or of another "
            "model than "
            "its config.json says."
        )
    return model, bool(excused)


def load_image_processor(checkpoint: Checkpoint) -> Any:
    """Load the image processor that works with Pillow and NumPy, never torchvision's: their pixels differ."""
    transformers = need("transformers", extra="encoders", feature=f"Loading {checkpoint.name}")
    return transformers.AutoImageProcessor.from_pretrained(checkpoint.folder, backend="pil", **_SAFE)


def describe_images(processor: Any) -> str:
    """What an image processor does, in words that stay the same from one version of transformers to the next."""
    steps = []
    if getattr(processor, "max_num_patches", None):
        steps.append(f"at most {processor.max_num_patches} patches of {processor.patch_size}")
    if getattr(processor, "do_resize", False):
        resample = getattr(processor, "resample", None)
        how = f" {_RESAMPLING[int(resample)]}" if resample is not None else ""
        steps.append(f"resize {_size(getattr(processor, 'size', None))}{how}".replace("  ", " "))
    if getattr(processor, "do_center_crop", False):
        crop = getattr(processor, "crop_pct", None)
        steps.append(f"centre crop {_size(getattr(processor, 'crop_size', None)) or crop}")
    if getattr(processor, "do_rescale", False):
        offset = " with offset" if getattr(processor, "rescale_offset", False) else ""
        steps.append(f"scale {processor.rescale_factor:.6g}{offset}")
    if getattr(processor, "do_normalize", False):
        steps.append(f"mean {_numbers(processor.image_mean)} deviation {_numbers(processor.image_std)}")
    if getattr(processor, "include_top", False):
        steps.append("deviation twice")
    return ", ".join(steps)


def _size(size: Any) -> str:
    """A size as transformers gives it: a number, or sides by name, of which most are None."""
    if size is None or isinstance(size, int):
        return "" if size is None else str(size)
    values = {name: value for name, value in dict(size).items() if value is not None}
    if set(values) == {"height", "width"}:
        return f"{values['height']}x{values['width']}"
    return " ".join(f"{name.replace('_', ' ')} {value}" for name, value in sorted(values.items()))


def _numbers(values: Iterable[float]) -> str:
    return "/".join(f"{value:.5g}" for value in values)
