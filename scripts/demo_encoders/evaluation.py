"""Recall of the saved encoders on the two held-out splits, loaded the way a user loads them.

Text to image, a caption is a hit at k if any image of its character is among the k images nearest to it, of all images
of the split. Image to text, an image is a hit at k if its caption is among the k captions nearest to it, of all
captions of the split.
"""

from __future__ import annotations

import platform
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from PIL import features
from torch import Tensor
from torch.nn import functional
from transformers import AutoModel, AutoProcessor

from crossfade.datasets.base import ImageItem
from crossfade.datasets.glyphs import Glyphs, Split

__all__ = ["SPLITS", "Recalls", "measure"]

SPLITS: tuple[Split, ...] = ("unseen-faces", "unseen-characters")
_KS = (1, 5, 10)
_BATCH = 256


@dataclass(frozen=True)
class Recalls:
    """Recalls in percent, by k, of one encoder on one split."""

    images: int
    captions: int
    text_to_image: dict[str, float]
    image_to_text: dict[str, float]


def measure(models: Path, encoders: Sequence[str], *, split_seed: int) -> dict[str, Any]:
    """Measure the encoders ``glyphs-<name>`` in a folder; a JSON-ready record with what it was measured on."""
    started = time.monotonic()
    recalls: dict[str, dict[str, Any]] = {}
    for encoder in encoders:
        recalls[encoder] = {}
        for split in SPLITS:
            recalls[encoder][split] = asdict(_recalls(models / f"glyphs-{encoder}", split, split_seed=split_seed))
            print(encoder, split, recalls[encoder][split], flush=True)
    return {
        "recalls": recalls,
        "seconds": round(time.monotonic() - started, 1),
        "split_seed": split_seed,
        "git_sha": _git_sha(),
        "versions": {name: version(name) for name in ("torch", "transformers", "tokenizers", "pillow", "matplotlib")}
        | {"python": platform.python_version(), "freetype": str(features.version("freetype2"))},
        "hardware": {"machine": platform.machine(), "threads": torch.get_num_threads(), "accelerator": None},
    }


@torch.inference_mode()
def _recalls(folder: Path, split: Split, *, split_seed: int) -> Recalls:
    model = AutoModel.from_pretrained(folder).eval()
    processor = AutoProcessor.from_pretrained(folder)
    glyphs = Glyphs(split, seed=split_seed)
    row = {text.id: i for i, text in enumerate(glyphs.texts())}
    own = torch.tensor([row[link.text] for link in glyphs.links()])  # in the order of the images
    images, names = list(glyphs.images()), [text.text for text in glyphs.texts()]
    image = torch.cat([_image_vectors(model, processor, images[i : i + _BATCH]) for i in range(0, len(images), _BATCH)])
    text = torch.cat([_text_vectors(model, processor, names[i : i + _BATCH]) for i in range(0, len(names), _BATCH)])
    similarity = text @ image.T
    right = own == torch.arange(len(text)).unsqueeze(1)
    return Recalls(
        images=len(image),
        captions=len(text),
        text_to_image={str(k): _recall(similarity, right, k=k) for k in _KS},
        image_to_text={str(k): _recall(similarity.T, right.T, k=k) for k in _KS},
    )


def _image_vectors(model: Any, processor: Any, items: Sequence[ImageItem]) -> Tensor:
    inputs = processor(images=[item.load() for item in items], return_tensors="pt")
    return functional.normalize(model.get_image_features(**inputs).pooler_output, dim=-1)


def _text_vectors(model: Any, processor: Any, names: list[str]) -> Tensor:
    inputs = processor(text=names, padding=True, truncation=True, return_tensors="pt")
    return functional.normalize(model.get_text_features(**inputs).pooler_output, dim=-1)


def _recall(similarity: Tensor, right: Tensor, *, k: int) -> float:
    """Percent of the queries [q] with a right one among the k most similar of [q, gallery]."""
    nearest = similarity.topk(k, dim=1).indices
    return round(100 * right.gather(1, nearest).any(1).float().mean().item(), 2)


def _git_sha() -> str | None:
    """Of the working tree this file stands in, or None where it is not a commit."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--verify", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
