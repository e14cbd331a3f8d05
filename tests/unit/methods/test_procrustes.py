from __future__ import annotations

import numpy as np
import pytest
import worlds
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import expm
from scipy.linalg import orthogonal_procrustes as scipy_procrustes

from crossfade.errors import ConfigError, FitError
from crossfade.methods import Procrustes
from crossfade.methods.procrustes import orthogonal_map
from crossfade.pairing import pair


def test_equals_scipy_where_square() -> None:
    world = worlds.two_modalities(d_s=16, d_t=16)
    parts = world.pairs().parts
    x = np.concatenate([part.source.matrix() for part in parts]).astype(np.float64)
    y = np.concatenate([part.target.matrix() for part in parts]).astype(np.float64)
    expected, _ = scipy_procrustes(x, y)
    np.testing.assert_allclose(Procrustes().fit(world.pairs()).matrix, expected, atol=1e-5)


@pytest.mark.parametrize(("d_s", "d_t"), [(12, 12), (8, 12), (12, 8)])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_finds_the_rotation_of_the_world(d_s: int, d_t: int, dtype: type[np.floating]) -> None:
    world = worlds.rotated(d_s, d_t, dtype=dtype)
    adapter = Procrustes().fit(world.pairs())
    mapped = adapter.map(world.new["image"].matrix(), "image")
    np.testing.assert_allclose(mapped, world.old["image"].matrix(), atol=3e-3 if dtype is np.float16 else 1e-5)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 7), st.integers(2, 7), st.integers(0, 10_000), st.floats(0.01, 2.0))
def test_no_orthogonal_map_has_a_larger_inner_product(d_s: int, d_t: int, seed: int, size: float) -> None:
    generator = np.random.default_rng(seed)
    cross = generator.standard_normal((d_s, d_t))
    best = orthogonal_map(cross)
    gram = best @ best.T if d_s <= d_t else best.T @ best
    np.testing.assert_allclose(gram, np.eye(min(d_s, d_t)), atol=1e-10)
    turn_s, turn_t = (generator.standard_normal((d, d)) * size for d in (d_s, d_t))
    other = expm(turn_s - turn_s.T) @ best @ expm(turn_t - turn_t.T)
    assert np.sum(best * cross) >= np.sum(other * cross) - 1e-9


def test_centring_by_modality_closes_the_gap_between_centroids() -> None:
    """Images and captions shift by different amounts; only means for each of them put both in their place."""
    world = worlds.two_modalities(d_s=16, gap=3.0, noise=0.2)

    def error(method: Procrustes) -> float:
        adapter = method.fit(world.pairs())
        return max(
            float(np.linalg.norm(adapter.map(world.new[m].matrix(), m) - world.old[m].matrix(), axis=1).mean())
            for m in world.new
        )

    assert error(Procrustes(center="modality")) < 0.5 * error(Procrustes())


def test_centred_map_is_the_formula() -> None:
    world = worlds.two_modalities()
    adapter = Procrustes(center="modality").fit(world.pairs())
    x = {m: e.matrix().astype(np.float64) for m, e in world.new.items()}
    y = {m: e.matrix().astype(np.float64) for m, e in world.old.items()}
    cross = sum((x[m] - x[m].mean(0)).T @ (y[m] - y[m].mean(0)) for m in x)
    u, _, vt = np.linalg.svd(cross, full_matrices=False)
    for m in x:
        expected = worlds.unit((x[m] - x[m].mean(0)) @ u @ vt + y[m].mean(0))
        np.testing.assert_allclose(adapter.map(world.new[m].matrix(), m), expected, atol=1e-4)


def test_needs_a_pair_for_each_dimension(rotated: worlds.World) -> None:
    few = np.arange(11)
    pairs = pair(rotated.old["image"].select(few), rotated.new["image"].select(few))
    with pytest.raises(FitError, match=r"at least 12 pairs .* found 11"):
        Procrustes().fit(pairs)


def test_unknown_centring_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"none, modality; found 'joint'"):
        Procrustes(center="joint")
