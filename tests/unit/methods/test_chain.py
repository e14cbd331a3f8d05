"""Chains of adapters: composition, the product of linear maps, and the folder that a chain is saved in."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import sequences
import worlds
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from crossfade.artifacts import from_pretrained
from crossfade.errors import ConfigError, FitError, FormatError, InvalidVectors, SpaceMismatch
from crossfade.exporting import export_onnx
from crossfade.methods import (
    METHODS,
    Adapter,
    ChainAdapter,
    Identity,
    LinearAdapter,
    Method,
    Procrustes,
    ResidualMLP,
    Ridge,
    Slerp,
    adapter_class,
)
from crossfade.methods.chain import compose
from crossfade.pairing import pair
from crossfade.spaces import Space


@pytest.fixture(scope="module")
def world() -> sequences.Versions:
    return sequences.versions((12, 16, 20, 24), (0.8, 0.5, 0.3, 0.1))


def fitted(world: sequences.Versions, *methods: Method) -> list[Adapter]:
    """Consecutive adapters, the newest first: ``methods`` fit v4 → v3, v3 → v2, …"""
    newest = len(world.sets) - 1
    return [method.fit(world.pairs(newest - i, newest - i - 1), seed=i) for i, method in enumerate(methods)]


@pytest.fixture(scope="module")
def mixed(world: sequences.Versions) -> list[Adapter]:
    """v4 → v3 → v2 → v1 by three methods, of which nothing can be multiplied out."""
    return fitted(world, Ridge(penalty=1.0), ResidualMLP(epochs=2, hidden=8), Ridge(penalty=0.1))


def slow(adapters: list[Adapter], vectors: np.ndarray, modality: str) -> np.ndarray:
    """Linear maps one after the other in float64, from their matrices alone."""
    rows = vectors.astype(np.float64)
    for adapter in adapters:
        assert isinstance(adapter, LinearAdapter)
        rows = rows @ adapter.matrix.astype(np.float64) + adapter.offsets[modality].astype(np.float64)
        if adapter.target.normalized:
            rows = worlds.unit(rows)
    return rows


def test_a_chain_maps_step_by_step(world: sequences.Versions, mixed: list[Adapter]) -> None:
    chain = ChainAdapter(mixed)
    assert (chain.source, chain.target) == (mixed[0].source, mixed[-1].target)
    for modality, queries in world.sets[3].items():
        vectors = expected = queries.matrix()
        for adapter in mixed:
            expected = adapter.map(expected, modality)
        assert chain.map(vectors, modality).tobytes() == expected.tobytes()
        np.testing.assert_allclose(chain.map(vectors[5], modality), expected[5], atol=1e-6)
        mapped = chain.transform(queries, block=64)
        assert mapped.space == world.sets[0][modality].space
        np.testing.assert_array_equal(mapped.ids, queries.ids)


def test_chains_of_ridges_equal_the_slow_composition(world: sequences.Versions) -> None:
    steps = fitted(world, Ridge(penalty=1.0), Ridge(penalty=1.0), Ridge(penalty=1.0))
    chain = steps[0].then(steps[1]).then(steps[2])
    assert isinstance(chain, ChainAdapter)
    assert chain.adapters == tuple(steps)
    for modality, queries in world.sets[3].items():
        vectors = queries.matrix()
        np.testing.assert_allclose(chain.map(vectors, modality), slow(steps, vectors, modality), atol=2e-6)


def test_linear_maps_through_spaces_without_a_norm_become_one_matrix() -> None:
    world = sequences.versions((10, 12, 14), (0.5, 0.3, 0.1), normalized=False)
    steps = fitted(world, Ridge(penalty=1.0), Ridge(penalty=1.0))
    product = steps[0].then(steps[1])
    assert type(product) is LinearAdapter
    assert product.provenance is not None
    assert product.provenance.method == "linear"
    for modality, queries in world.sets[2].items():
        vectors = queries.matrix()
        expected = slow(steps, vectors, modality)
        np.testing.assert_allclose(product.map(vectors, modality), expected, atol=1e-5)
        np.testing.assert_allclose(ChainAdapter(steps).map(vectors, modality), expected, atol=1e-5)


def test_a_norm_in_between_cancels_where_the_next_map_has_no_offset(world: sequences.Versions) -> None:
    steps = fitted(world, Ridge(penalty=1.0), Procrustes(), Procrustes())
    product = compose(steps)
    assert type(product) is LinearAdapter
    vectors = world.sets[3]["text"].matrix()
    np.testing.assert_allclose(product.map(vectors, "text"), slow(steps, vectors, "text"), atol=1e-6)


def test_a_norm_in_between_stays_where_the_next_map_has_an_offset(world: sequences.Versions) -> None:
    steps = fitted(world, Procrustes(), Ridge(penalty=1.0), Procrustes())
    chain = compose(steps)
    assert isinstance(chain, ChainAdapter)
    assert len(chain.adapters) == 2
    assert chain.adapters[0] is steps[0]
    vectors = world.sets[3]["text"].matrix()
    np.testing.assert_allclose(chain.map(vectors, "text"), slow(steps, vectors, "text"), atol=1e-6)


def test_a_norm_in_between_stays_where_the_target_has_none() -> None:
    unit, free = Space(model="a", dimension=4), Space(model="c", dimension=4, normalized=False)
    middle = Space(model="b", dimension=4)
    zeros = {"image": np.zeros(4)}
    first = LinearAdapter(unit, middle, matrix=3 * np.eye(4), offsets=zeros)
    second = LinearAdapter(middle, free, matrix=2 * np.eye(4), offsets=zeros)
    chain = first.then(second)
    assert isinstance(chain, ChainAdapter)
    np.testing.assert_allclose(chain.map(np.eye(4, dtype=np.float32), "image"), 2 * np.eye(4))


def test_merging_goes_back_when_a_product_loses_its_norm() -> None:
    """b → c → d has no offset and ends in a norm only once it is multiplied out; a → b can then join it."""
    spaces = [Space(model=name, dimension=4, normalized=name != "c") for name in "abcd"]
    generator = np.random.default_rng(0)
    zeros = {"image": np.zeros(4)}
    steps: list[Adapter] = [
        LinearAdapter(s, t, matrix=generator.standard_normal((4, 4)), offsets=zeros) for s, t in pairwise(spaces)
    ]
    vectors = generator.standard_normal((9, 4)).astype(np.float32)
    product = compose(steps)
    assert type(product) is LinearAdapter
    np.testing.assert_allclose(product.map(vectors, "image"), slow(steps, vectors, "image"), atol=1e-5)


@given(
    normed=st.lists(st.booleans(), min_size=2, max_size=5),
    moved=st.lists(st.booleans(), min_size=4, max_size=4),
    seed=st.integers(0, 99),
)
def test_composition_is_what_the_steps_give_whatever_is_merged(
    normed: list[bool], moved: list[bool], seed: int
) -> None:
    generator = np.random.default_rng(seed)
    spaces = [Space(model=f"m{i}", dimension=3 + i % 2, normalized=unit) for i, unit in enumerate(normed)]
    steps: list[Adapter] = []
    for i, (s, t) in enumerate(pairwise(spaces)):
        offset = generator.standard_normal(t.dimension) * moved[i]
        matrix = np.eye(s.dimension, t.dimension) + 0.3 * generator.standard_normal((s.dimension, t.dimension))
        steps.append(LinearAdapter(s, t, matrix=matrix, offsets={"text": offset}))
    vectors = generator.standard_normal((20, spaces[0].dimension)).astype(np.float32)
    expected = slow(steps, vectors, "text")
    composed = compose(steps)
    assert composed.target == spaces[-1]
    np.testing.assert_allclose(composed.map(vectors, "text"), expected, rtol=1e-3, atol=1e-3)


def test_chains_of_chains_are_taken_apart(mixed: list[Adapter]) -> None:
    nested = ChainAdapter([mixed[0], ChainAdapter(mixed[1:])])
    assert nested.adapters == tuple(mixed)
    left, right = mixed[0].then(mixed[1]).then(mixed[2]), mixed[0].then(mixed[1].then(mixed[2]))
    assert isinstance(left, ChainAdapter)
    assert isinstance(right, ChainAdapter)
    assert left.adapters == right.adapters == tuple(mixed)
    assert compose([mixed[0]]) is mixed[0]


def test_a_gap_or_a_wrong_order_is_refused_also_where_dimensions_agree(mixed: list[Adapter]) -> None:
    with pytest.raises(SpaceMismatch, match="newest to the oldest"):
        ChainAdapter([mixed[0], mixed[2]])
    with pytest.raises(SpaceMismatch, match="newest to the oldest"):
        mixed[1].then(mixed[0])
    same = replace(mixed[1].source, revision="another checkpoint")
    stranger = LinearAdapter(same, mixed[2].target, matrix=np.eye(20, 12), offsets={"image": np.zeros(12)})
    with pytest.raises(SpaceMismatch, match="another checkpoint"):
        mixed[0].then(stranger)


def test_two_encoder_members_are_refused(world: sequences.Versions) -> None:
    slerp, ridge = Slerp(weight=0.5).fit(world.pairs(2, 1)), Ridge(penalty=1.0).fit(world.pairs(1, 0))
    with pytest.raises(FitError, match="also needs the old model's"):
        slerp.then(ridge)
    with pytest.raises(FitError, match="one encoder"):
        Ridge(penalty=1.0).fit(world.pairs(3, 2)).then(slerp)


def test_a_chain_needs_two_adapters_and_a_shared_modality(world: sequences.Versions) -> None:
    images = Ridge(penalty=1.0).fit(pair(world.sets[1]["image"], world.sets[2]["image"]))
    texts = Ridge(penalty=1.0).fit(pair(world.sets[0]["text"], world.sets[1]["text"]))
    both = Ridge(penalty=1.0).fit(world.pairs(1, 0))
    assert images.then(both).modalities == ("image",)
    with pytest.raises(FitError, match="fitted for image"):
        images.then(both).map(world.sets[2]["text"].matrix(), "text")
    with pytest.raises(FitError, match="they map image; text"):
        images.then(texts)
    with pytest.raises(ConfigError, match="at least two adapters; found 1"):
        ChainAdapter([images])
    with pytest.raises(ConfigError, match="has none"):
        compose([])


def test_vectors_without_a_direction_are_refused_at_the_entrance(mixed: list[Adapter]) -> None:
    chain = ChainAdapter(mixed)
    for bad in (np.nan, 0.0):
        with pytest.raises(InvalidVectors, match="finite"):
            chain.map(np.full((2, chain.source.dimension), bad, dtype=np.float32), "image")


def test_provenance_is_the_union_of_the_members(world: sequences.Versions) -> None:
    first = Ridge(penalty=1.0).fit(world.pairs(3, 2, slice(0, 100)), seed=4)
    second = Procrustes().fit(world.pairs(2, 1, slice(50, 200)), seed=5)
    third = Ridge(penalty=0.1).fit(world.pairs(1, 0, slice(150, 300)), seed=6)
    made = first.then(second).then(third).provenance
    assert made is not None
    assert made.method == "chain"
    assert made.config["methods"] == ["ridge", "procrustes", "ridge"]
    assert made.config["seeds"] == [4, 5, 6]
    assert made.config["hyperparameters"][2]["penalty"] == 0.1
    assert made.pairs == {"image": 400, "text": 800}
    expected = {int(key) for adapter in (first, second, third) for key in adapter.provenance.fitted_on}  # type: ignore[union-attr]
    assert made.fitted_on.dtype == np.uint64
    assert made.fitted_on.tolist() == sorted(expected)


def test_a_hand_built_member_leaves_no_provenance_and_cannot_be_saved(
    world: sequences.Versions, mixed: list[Adapter], tmp_path: Path
) -> None:
    v4, v5 = mixed[0].source, Space(model="model", revision="v5", dimension=24)
    hand_built = LinearAdapter(v5, v4, matrix=np.eye(24), offsets={"image": np.ones(24)})
    chain = ChainAdapter([hand_built, mixed[0]])
    assert chain.provenance is None
    with pytest.raises(ConfigError, match="method"):
        chain.save_pretrained(tmp_path / "chain")
    with pytest.raises(ConfigError, match="has none"):
        chain.config()
    assert list(tmp_path.iterdir()) == []


def test_save_and_load_maps_bit_for_bit_and_can_be_chained_on(
    world: sequences.Versions, mixed: list[Adapter], tmp_path: Path
) -> None:
    chain = ChainAdapter(mixed[:2])
    chain.save_pretrained(tmp_path / "chain")
    loaded = from_pretrained(tmp_path / "chain")
    assert isinstance(loaded, ChainAdapter)
    assert [type(a) for a in loaded.adapters] == [type(a) for a in mixed[:2]]
    assert (loaded.source, loaded.target, loaded.modalities) == (chain.source, chain.target, chain.modalities)
    for modality, queries in world.sets[3].items():
        vectors = queries.matrix()
        assert loaded.map(vectors, modality).tobytes() == chain.map(vectors, modality).tobytes()
        assert loaded.map(vectors[0], modality).tobytes() == chain.map(vectors[0], modality).tobytes()
    for member, original in zip(loaded.adapters, mixed, strict=False):
        assert member.provenance is not None
        assert original.provenance is not None
        assert (member.provenance.method, member.provenance.seed) == (
            original.provenance.method,
            original.provenance.seed,
        )
        np.testing.assert_array_equal(member.provenance.fitted_on, original.provenance.fitted_on)
    longer = loaded.then(mixed[2])
    longer.save_pretrained(tmp_path / "longer")
    vectors = world.sets[3]["image"].matrix()
    again = from_pretrained(tmp_path / "longer")
    assert again.map(vectors, "image").tobytes() == ChainAdapter(mixed).map(vectors, "image").tobytes()
    assert again.provenance is not None
    assert again.provenance.config["methods"] == ["ridge", "residual_mlp", "ridge"]


def test_a_product_of_linear_maps_is_saved_and_loaded(world: sequences.Versions, tmp_path: Path) -> None:
    product = compose(fitted(world, Procrustes(), Procrustes(), Procrustes()))
    product.save_pretrained(tmp_path / "product")
    loaded = from_pretrained(tmp_path / "product")
    assert type(loaded) is LinearAdapter
    assert loaded.provenance is not None
    assert loaded.provenance.config["methods"] == ["procrustes"] * 3
    vectors = world.sets[3]["text"].matrix()
    assert loaded.map(vectors, "text").tobytes() == product.map(vectors, "text").tobytes()
    assert loaded.target == world.sets[0]["text"].space


def a_space_was_changed(config: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:
    config["adapter"]["between"][0]["revision"] = "forged"


def a_member_is_missing(config: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:
    config["adapter"]["adapters"].pop()


def a_tensor_is_missing(config: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:
    tensors.pop("1.matrix")


def a_tensor_is_not_finite(config: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:
    tensors["0.matrix"] = np.full_like(tensors["0.matrix"], np.nan)


def the_keys_are_missing(config: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:
    tensors.pop("0.fitted_on")


def a_method_is_unknown(config: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:
    config["adapter"]["adapters"][0]["method"] = "telepathy"


def a_seed_is_garbled(config: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:
    config["adapter"]["adapters"][0]["provenance"]["seed"] = "seven"


def the_list_is_gone(config: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:
    del config["adapter"]["adapters"]


@pytest.mark.parametrize(
    "damage",
    [
        a_space_was_changed,
        a_member_is_missing,
        a_tensor_is_missing,
        a_tensor_is_not_finite,
        the_keys_are_missing,
        a_method_is_unknown,
        a_seed_is_garbled,
        the_list_is_gone,
    ],
    ids=lambda damage: damage.__name__,
)
def test_a_damaged_chain_is_refused(mixed: list[Adapter], tmp_path: Path, damage: Any) -> None:
    folder = tmp_path / "chain"
    ChainAdapter(mixed).save_pretrained(folder)
    config, tensors = json.loads((folder / "config.json").read_text()), load_file(folder / "model.safetensors")
    damage(config, tensors)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(FormatError):
        from_pretrained(folder)


def test_the_graph_of_a_chain_gives_its_output(world: sequences.Versions, mixed: list[Adapter], tmp_path: Path) -> None:
    chain = ChainAdapter(mixed)
    for modality, queries in world.sets[3].items():
        assert export_onnx(chain, tmp_path / "chain.onnx", modality=modality) <= 1e-5
        session = onnxruntime.InferenceSession(tmp_path / "chain.onnx", providers=["CPUExecutionProvider"])
        (mapped,) = session.run(["mapped"], {"vectors": queries.matrix()[:7]})
        np.testing.assert_allclose(mapped, chain.map(queries.matrix()[:7], modality), atol=2e-5)


def test_chains_are_restored_by_name_and_are_no_method_to_fit() -> None:
    assert adapter_class("chain") is ChainAdapter
    assert adapter_class("linear") is LinearAdapter
    assert adapter_class("ridge") is LinearAdapter
    assert adapter_class("telepathy") is None
    assert not {"chain", "linear"} & set(METHODS)


def test_identity_adds_nothing_to_a_chain(world: sequences.Versions) -> None:
    procrustes = Procrustes().fit(world.pairs(1, 0))
    v2 = world.sets[1]["image"]
    clone = type(v2)(v2.ids, v2.matrix(), replace(v2.space, runtime="another engine"), "image")
    same = Identity().fit(pair(v2, clone))
    np.testing.assert_allclose(
        same.then(procrustes).map(v2.matrix(), "image"), procrustes.map(v2.matrix(), "image"), atol=1e-6
    )


def test_the_query_path_of_a_saved_chain_needs_no_torch(mixed: list[Adapter], tmp_path: Path) -> None:
    ChainAdapter(mixed).save_pretrained(tmp_path / "chain")
    code = (
        "import sys, numpy as np, crossfade as cf\n"
        "a = cf.from_pretrained('chain')\n"
        "a.map(np.ones((2, a.source.dimension), np.float32), 'text')\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
