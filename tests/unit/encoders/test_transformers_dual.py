"""Dual encoders give what transformers gives, whatever else is in the batch."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import checkpoints
import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.numpy import load_file, save_file

from crossfade.encoders import TransformersDualEncoder, load_encoder
from crossfade.errors import ConfigError, EncoderError, UnsafeFormat

KINDS = sorted(checkpoints.DUAL)
Get = Callable[[str], Path]
Dual = Callable[[str], TransformersDualEncoder]


def by_hand(folder: Path, kind: str) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Image and text vectors, one item at a time, from the model's own classes and the towers' own outputs."""
    import transformers

    model = transformers.AutoModel.from_pretrained(folder).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    fixed = {"padding": "max_length", "max_length": 20} if kind.startswith("siglip") else {"max_length": 24}
    images, texts = [], []
    with torch.no_grad():
        for picture in checkpoints.pictures():
            pooled = model.vision_model(**processor(images=picture, return_tensors="pt")).pooler_output
            images.append(model.visual_projection(pooled) if hasattr(model, "visual_projection") else pooled)
        for sentence in checkpoints.SENTENCES:
            output = model.text_model(**tokenizer(sentence, return_tensors="pt", truncation=True, **fixed))
            if kind == "clip":
                pooled = model.text_projection(output.pooler_output)
            elif kind.startswith("siglip"):
                pooled = output.pooler_output
            else:
                pooled = model.text_projection(output.last_hidden_state[:, 0])
            texts.append(pooled)
    stacked = torch.cat(images), torch.cat(texts)
    return tuple((rows / rows.norm(dim=1, keepdim=True)).numpy() for rows in stacked)  # type: ignore[return-value]


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_are_the_models_own(kind: str, checkpoint: Get, dual: Dual) -> None:
    encoder = dual(kind)
    images, texts = by_hand(checkpoint(kind), kind)
    np.testing.assert_allclose(encoder.encode_images(checkpoints.pictures()), images, atol=2e-6)
    np.testing.assert_allclose(encoder.encode_texts(checkpoints.SENTENCES), texts, atol=2e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_vector_depends_on_its_item_alone(kind: str, dual: Dual) -> None:
    encoder = dual(kind)
    together = encoder.encode_texts(checkpoints.SENTENCES)
    alone = np.concatenate([encoder.encode_texts([text]) for text in checkpoints.SENTENCES])
    np.testing.assert_allclose(together, alone, atol=2e-6)
    pictures = checkpoints.pictures()
    seen = np.concatenate([encoder.encode_images([picture]) for picture in pictures])
    np.testing.assert_allclose(encoder.encode_images(pictures), seen, atol=2e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_are_unit_deterministic_and_not_all_alike(kind: str, checkpoint: Get, dual: Dual) -> None:
    encoder = dual(kind)
    again = TransformersDualEncoder(str(checkpoint(kind)), device="cpu")
    assert encoder.space == again.space
    for encode, items in (("encode_images", checkpoints.pictures()), ("encode_texts", checkpoints.SENTENCES)):
        vectors = getattr(encoder, encode)(items)
        assert vectors.dtype == np.float32
        assert vectors.shape == (len(items), encoder.space.dimension)
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
        np.testing.assert_array_equal(vectors, getattr(again, encode)(items))
        assert np.ptp(vectors, axis=0).max() > 1e-4


def test_the_space_says_what_was_done(dual: Dual) -> None:
    space = dual("clip").space
    assert (space.model, space.dimension, space.normalized) == ("tiny-clip", 16, True)
    assert space.modalities == ("image", "text")
    assert space.runtime == "float32/torch"
    assert len(space.revision) == 12
    assert int(space.revision, 16) >= 0
    for part in ("resize shortest edge 32 bicubic", "centre crop 32x32", "0.48145", "24 tokens", "padding longest"):
        assert part in space.preprocessing
    assert "20 tokens, padding max_length" in dual("siglip").space.preprocessing
    assert "at most 16 patches of 8" in dual("siglip2").space.preprocessing


def test_other_weights_are_another_space(checkpoint: Get, tmp_path: Path) -> None:
    other = checkpoints.clip(tmp_path / "tiny-clip", seed=1)
    ours, theirs = (
        load_encoder(str(checkpoint("clip")), device="cpu").space,
        load_encoder(str(other), device="cpu").space,
    )
    assert set(ours.differences(theirs)) == {"revision"}


def test_positions_reserved_for_padding_are_not_used(dual: Dual) -> None:
    space = dual("altclip").space
    assert "24 tokens" in space.preprocessing  # 26 positions, of which XLM-R keeps two


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_near_and_is_another_space(dtype: str, checkpoint: Get) -> None:
    full = load_encoder(str(checkpoint("clip")), device="cpu")
    half = load_encoder(str(checkpoint("clip")), device="cpu", dtype=dtype)
    assert set(full.space.differences(half.space)) == {"runtime"}
    vectors = half.encode_texts(checkpoints.SENTENCES)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert (vectors * full.encode_texts(checkpoints.SENTENCES)).sum(axis=1).min() > 0.99


def test_options_that_do_not_exist(checkpoint: Get) -> None:
    with pytest.raises(ConfigError, match="dtype must be one of float32, bfloat16, float16; found 'int8'"):
        load_encoder(str(checkpoint("clip")), dtype="int8")
    with pytest.raises(EncoderError, match="could not be put on the device 'tpu0'"):
        load_encoder(str(checkpoint("clip")), device="tpu0")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_device_that_is_not_here(checkpoint: Get) -> None:
    with pytest.raises(EncoderError, match="could not be put on the device 'cuda'"):
        load_encoder(str(checkpoint("clip")), device="cuda")


def test_pickled_weights_are_refused(checkpoint: Get, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(checkpoint("clip"), tmp_path / "pickled"))
    torch.save({"a": torch.zeros(1)}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(UnsafeFormat, match=r"pytorch_model\.bin only.*save_pretrained"):
        load_encoder(str(folder))


def test_incomplete_weights_are_refused(checkpoint: Get, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(checkpoint("clip"), tmp_path / "incomplete"))
    tensors = load_file(folder / "model.safetensors")
    del tensors["text_projection.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(EncoderError, match=r"lacks 1 of CLIPModel, the first is text_projection\.weight"):
        load_encoder(str(folder))


def test_truncated_weights_are_refused(checkpoint: Get, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(checkpoint("clip"), tmp_path / "truncated"))
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(EncoderError, match="could not be loaded"):
        load_encoder(str(folder))


def test_code_that_comes_with_a_model_is_not_run(checkpoint: Get, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(checkpoint("clip"), tmp_path / "foreign"))
    ran = tmp_path / "ran"
    (folder / "mine.py").write_text(f"open({str(ran)!r}, 'w')\n")
    config = json.loads((folder / "config.json").read_text())
    config.update(model_type="mine", auto_map={"AutoConfig": "mine.Config", "AutoModel": "mine.Model"})
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(EncoderError, match="does not run"):
        load_encoder(str(folder))
    assert not ran.exists()


def test_a_vision_model_is_no_dual_encoder(checkpoint: Get) -> None:
    with pytest.raises(EncoderError, match="ViTModel and has not both"):
        load_encoder(f"dual:{checkpoint('vit')}")


def test_an_empty_batch(dual: Dual) -> None:
    encoder = dual("clip")
    assert encoder.encode_texts([]).shape == encoder.encode_images([]).shape == (0, 16)
    assert "tiny-clip" in repr(encoder)
