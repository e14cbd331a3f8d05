"""Image-only backbones: which vector stands for an image, and that it is no random one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import checkpoints
import numpy as np
import pytest
import torch
from transformers import AutoImageProcessor, AutoModel

from crossfade.encoders import VisionEncoder, load_encoder
from crossfade.errors import ConfigError, EncoderError

Get = Callable[[str], Path]


def by_hand(folder: Path, pool: str) -> np.ndarray:
    model = AutoModel.from_pretrained(folder).eval()
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    rows = []
    for picture in checkpoints.pictures():
        with torch.no_grad():
            output = model(**processor(images=picture, return_tensors="pt"))
        hidden = output.last_hidden_state[0]
        if pool == "pooler":
            row = output.pooler_output.reshape(-1)
        elif pool == "cls":
            row = hidden[0]
        else:
            row = hidden.mean(dim=0) if hidden.ndim == 2 else hidden.mean(dim=(1, 2))
        rows.append((row / row.norm()).numpy())
    return np.stack(rows)


@pytest.mark.parametrize(
    ("kind", "pool", "chosen"),
    [
        ("vit", "auto", "pooler"),
        ("vit", "cls", "cls"),
        ("vit", "mean", "mean"),
        ("dinov2", "auto", "pooler"),
        ("resnet", "auto", "pooler"),
        ("resnet", "mean", "mean"),
    ],
)
def test_vectors_are_the_models_own(kind: str, pool: str, chosen: str, checkpoint: Get) -> None:
    encoder = VisionEncoder(str(checkpoint(kind)), pool=pool, device="cpu")  # type: ignore[arg-type]
    vectors = encoder.encode_images(checkpoints.pictures())
    np.testing.assert_allclose(vectors, by_hand(checkpoint(kind), chosen), atol=3e-6)
    assert encoder.space.preprocessing.endswith(f"pool {chosen}")
    assert encoder.space.modalities == ("image",)
    with pytest.raises(EncoderError, match="encodes image only; asked for text"):
        encoder.encode_texts(["a"])


def test_a_pooler_without_weights_is_not_used(checkpoint: Get, tmp_path: Path) -> None:
    folder = checkpoints.vit(tmp_path / "classifier", classifier=True)
    encoder, again = (load_encoder(str(folder), device="cpu") for _ in range(2))
    assert encoder.space.preprocessing.endswith("pool cls")
    vectors = encoder.encode_images(checkpoints.pictures())
    np.testing.assert_array_equal(vectors, again.encode_images(checkpoints.pictures()))
    np.testing.assert_allclose(vectors, by_hand(folder, "cls"), atol=3e-6)
    with pytest.raises(EncoderError, match="can be pooled by cls, mean; asked for pooler"):
        VisionEncoder(str(folder), pool="pooler", device="cpu")


def test_what_is_no_backbone(checkpoint: Get) -> None:
    with pytest.raises(EncoderError, match="is a CLIPModel"):
        load_encoder(f"vision:{checkpoint('clip')}", device="cpu")
    with pytest.raises(ConfigError, match="pool must be one of"):
        VisionEncoder(str(checkpoint("vit")), pool="max")  # type: ignore[arg-type]


def test_the_files_say_that_it_is_a_backbone(checkpoint: Get) -> None:
    for kind in ("vit", "dinov2", "resnet"):
        assert isinstance(load_encoder(str(checkpoint(kind)), device="cpu"), VisionEncoder)
