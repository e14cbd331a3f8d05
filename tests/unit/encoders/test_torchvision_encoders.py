"""open_clip and timm, where torchvision can be imported (there is no CPU build of it to go with every CPU build of torch)."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import checkpoints
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from crossfade.encoders import OpenClipEncoder, TimmEncoder, load_encoder
from crossfade.errors import EncoderError, UnsafeFormat


def importable(package: str) -> bool:
    try:
        importlib.import_module("torchvision")
        importlib.import_module(package)
    except (ImportError, RuntimeError):
        return False
    return True


@pytest.mark.skipif(not importable("open_clip"), reason="open_clip or torchvision cannot be imported here")
def test_open_clip_vectors_are_its_own(tmp_path: Path) -> None:
    import open_clip

    vision = {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8, "head_width": 32}
    text = {"context_length": 24, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2}
    torch.manual_seed(0)
    model = open_clip.CLIP(32, open_clip.CLIPVisionCfg(**vision), open_clip.CLIPTextCfg(**text)).eval()
    save_file(model.state_dict(), tmp_path / "open_clip_model.safetensors")
    images = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"}
    settings = {"model_cfg": {"embed_dim": 32, "vision_cfg": vision, "text_cfg": text}, "preprocess_cfg": images}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(settings))
    transform = open_clip.image_transform(32, is_train=False, **images)
    with torch.no_grad():
        seen = [model.encode_image(transform(picture)[None], normalize=True) for picture in checkpoints.pictures()]
        said = [model.encode_text(open_clip.tokenize([t], 24), normalize=True) for t in checkpoints.SENTENCES]
    encoder = load_encoder(str(tmp_path), device="cpu")
    assert isinstance(encoder, OpenClipEncoder)
    assert encoder.space == load_encoder(f"open_clip:{tmp_path}", device="cpu").space
    np.testing.assert_allclose(encoder.encode_images(checkpoints.pictures()), torch.cat(seen).numpy(), atol=2e-6)
    np.testing.assert_allclose(encoder.encode_texts(checkpoints.SENTENCES), torch.cat(said).numpy(), atol=2e-6)
    with pytest.raises(EncoderError, match=r"Tags of ViT-B-32: openai"):
        load_encoder("open_clip:ViT-B-32/nonsense")


@pytest.mark.skipif(not importable("timm"), reason="timm or torchvision cannot be imported here")
def test_timm_vectors_are_its_own(tmp_path: Path) -> None:
    import timm

    torch.manual_seed(0)
    model = timm.create_model("resnet18", pretrained=False).eval()
    timm.models.save_for_hf(model, str(tmp_path), safe_serialization=True)
    encoder = load_encoder(str(tmp_path), device="cpu")
    assert isinstance(encoder, TimmEncoder)
    model.reset_classifier(0)
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    with torch.no_grad():
        rows = torch.cat([model(transform(picture)[None]) for picture in checkpoints.pictures()])
    expected = (rows / rows.norm(dim=1, keepdim=True)).numpy()
    np.testing.assert_allclose(encoder.encode_images(checkpoints.pictures()), expected, atol=2e-6)
    assert encoder.space.preprocessing.endswith("pool avg")
    with pytest.raises(EncoderError, match="lists no weights"):
        load_encoder("timm:resnet18.nonsense")
    (tmp_path / "model.safetensors").rename(tmp_path / "other.safetensors")
    with pytest.raises(UnsafeFormat, match=r"model\.safetensors only"):
        load_encoder(f"timm:{tmp_path}")
