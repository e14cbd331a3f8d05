"""φ: the same map in NumPy, in PyTorch and by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import worlds

from crossfade.embeddings import Embeddings
from crossfade.errors import FitError, FormatError, SpaceMismatch
from crossfade.methods.projection import ProjectionAdapter, centroid
from crossfade.methods.projection_module import Projection
from crossfade.spaces import Modality

D_S, D_T, WIDTH = 9, 6, 14


def tensors(depth: int, seed: int = 0) -> dict[str, npt.NDArray[np.float64]]:
    generator = np.random.default_rng(seed)
    made = {"matrix": generator.standard_normal((D_S, D_T)), "offset": generator.standard_normal(D_T)}
    for k in range(1, depth + 1):
        made[f"inner.{k}"] = generator.standard_normal((D_S if k == 1 else WIDTH, WIDTH))
        made |= {f"{name}.{k}": generator.standard_normal(WIDTH) for name in ("inner_offset", "gain", "shift")}
    return {**made, "outer": generator.standard_normal((WIDTH, D_T))}


def projection(depth: int = 2, *, centred: bool = True, normalized: bool = True) -> ProjectionAdapter:
    generator = np.random.default_rng(5)
    modalities: tuple[Modality, ...] = ("image", "text")
    means = {m: (generator.standard_normal(D_S), generator.standard_normal(D_T)) for m in modalities}
    source, target = worlds.spaces(D_S, D_T, normalized=normalized)
    return ProjectionAdapter(
        source, target, modalities=modalities, parameters=tensors(depth), means=means if centred else None
    )


def vectors(n: int = 20, seed: int = 1) -> npt.NDArray[np.float32]:
    return worlds.unit(np.random.default_rng(seed).standard_normal((n, D_S))).astype(np.float32)


def by_hand(adapter: ProjectionAdapter, vector: npt.NDArray[Any], modality: Modality) -> npt.NDArray[np.float64]:
    """Eq. (1) to (4) for one vector, in float64, number by number where that is a loop."""
    p = {name: array.astype(np.float64) for name, array in adapter.tensors().items()}
    start = vector.astype(np.float64) - p.get(f"source_mean.{modality}", 0.0)
    h = start
    for k in range(1, adapter.depth + 1):
        x = np.asarray([sum(h[i] * p[f"inner.{k}"][i, j] for i in range(len(h))) for j in range(WIDTH)])
        x = x + p[f"inner_offset.{k}"]
        x = (x - np.mean(x)) / np.sqrt(np.var(x) + 1e-5) * p[f"gain.{k}"] + p[f"shift.{k}"]
        h = 0.5 * x * (1.0 + np.tanh(np.sqrt(2.0 / np.pi) * (x + 0.044715 * x**3)))
    mapped = p["matrix"].T @ start + p["offset"] + p["outer"].T @ h + p.get(f"target_mean.{modality}", 0.0)
    return mapped / np.linalg.norm(mapped) if adapter.target.normalized else mapped


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("modality", ["image", "text"])
def test_the_map_is_its_equations(depth: int, centred: bool, normalized: bool, modality: Modality) -> None:
    adapter = projection(depth, centred=centred, normalized=normalized)
    expected = np.stack([by_hand(adapter, v, modality) for v in vectors()])
    np.testing.assert_allclose(adapter.map(vectors(), modality), expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("normalized", [False, True])
def test_the_torch_twin_gives_the_same_and_turns_back(centred: bool, normalized: bool) -> None:
    adapter = projection(centred=centred, normalized=normalized)
    twin = Projection(adapter, dropout=0.5).eval()
    for modality in adapter.modalities:
        with torch.no_grad():
            mapped = twin(torch.from_numpy(vectors()), modality).numpy()
        np.testing.assert_allclose(mapped, adapter.map(vectors(), modality), rtol=1e-5, atol=1e-5)
    back = twin.adapter(adapter.source, adapter.target, modalities=adapter.modalities)
    assert {n: t.tobytes() for n, t in back.tensors().items()} == {n: t.tobytes() for n, t in adapter.tensors().items()}


def test_a_trained_twin_does_not_change_the_adapter_it_came_from() -> None:
    adapter = projection()
    before = adapter.map(vectors(), "text")
    twin = Projection(adapter)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(1.0)
    np.testing.assert_array_equal(adapter.map(vectors(), "text"), before)


def test_every_parameter_gets_a_gradient() -> None:
    twin = Projection(projection())
    twin(torch.from_numpy(vectors())).square()[:, 0].sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in twin.parameters())


def test_config_and_tensors_restore_it_bit_for_bit() -> None:
    for centred in (False, True):
        adapter = projection(centred=centred)
        again = ProjectionAdapter.restore(adapter.source, adapter.target, adapter.config(), adapter.tensors())
        assert again.map(vectors(), "image").tobytes() == adapter.map(vectors(), "image").tobytes()


def test_centroids_of_unpaired_samples_take_their_modality_s_place_and_no_other() -> None:
    adapter = projection()
    generator = np.random.default_rng(2)
    new_images = worlds.unit(generator.standard_normal((50, D_S)) + 1.0)
    old_images = worlds.unit(generator.standard_normal((31, D_T)) - 1.0)
    news = Embeddings([f"a{i}" for i in range(50)], new_images, adapter.source, "image")
    olds = Embeddings([f"b{i}" for i in range(31)], old_images, adapter.target, "image")
    moved = adapter.centred_on(news, olds)
    assert moved.means is not None
    np.testing.assert_allclose(moved.means["image"][0], new_images.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(moved.means["image"][1], old_images.mean(axis=0), atol=1e-6)
    np.testing.assert_array_equal(moved.map(vectors(), "text"), adapter.map(vectors(), "text"))
    expected = np.stack([by_hand(moved, v, "image") for v in vectors()])
    np.testing.assert_allclose(moved.map(vectors(), "image"), expected, atol=2e-5)
    np.testing.assert_allclose(centroid(news), new_images.mean(axis=0), atol=1e-6)


def test_centroids_in_a_third_space_or_for_a_map_without_any_are_refused() -> None:
    adapter = projection()
    stranger = Embeddings(["a"], vectors(1), replace(adapter.source, revision="3"), "image")
    with pytest.raises(SpaceMismatch, match="Centroids are taken in"):
        adapter.centred_on(stranger)
    with pytest.raises(FitError, match="center=True"):
        projection(centred=False).centred_on(stranger)


@pytest.mark.parametrize(
    ("name", "shape"), [("matrix", (D_S, D_S)), ("gain.2", (3,)), ("inner.2", (WIDTH, 3)), ("outer", (D_T, WIDTH))]
)
def test_tensors_of_other_shapes_are_refused_with_the_shapes(name: str, shape: tuple[int, ...]) -> None:
    source, target = worlds.spaces(D_S, D_T)
    with pytest.raises(FormatError, match=name.replace(".", r"\.")):
        ProjectionAdapter(source, target, modalities=("text",), parameters={**tensors(2), name: np.zeros(shape)})


def test_a_projection_without_a_block_is_refused() -> None:
    source, target = worlds.spaces(D_S, D_T)
    parameters = {"matrix": np.zeros((D_S, D_T)), "offset": np.zeros(D_T), "outer": np.zeros((D_S, D_T))}
    with pytest.raises(FormatError, match="0 blocks"):
        ProjectionAdapter(source, target, modalities=("text",), parameters=parameters)
