from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import worlds
from hypothesis import given, settings
from hypothesis import strategies as st

from crossfade.embeddings import Embeddings
from crossfade.errors import ConfigError, FitError
from crossfade.methods import Procrustes, Slerp
from crossfade.methods.slerp import nlerp, slerp
from crossfade.pairing import pair


def slow_slerp(u: list[float], w: list[float], a: float) -> list[float]:
    theta = math.acos(max(-1.0, min(1.0, sum(x * y for x, y in zip(u, w, strict=True)))))
    near, far = math.sin((1 - a) * theta) / math.sin(theta), math.sin(a * theta) / math.sin(theta)
    return [near * x + far * y for x, y in zip(u, w, strict=True)]


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 8), st.integers(0, 10_000), st.floats(0.0, 1.0))
def test_is_the_formula_and_stays_on_the_sphere(d: int, seed: int, a: float) -> None:
    u, w = worlds.unit(np.random.default_rng(seed).standard_normal((2, d)))
    if not 1e-3 < math.acos(np.clip(u @ w, -1, 1)) < math.pi - 0.05:
        return
    found = slerp(np.float32([u]), np.float32([w]), a)[0]
    np.testing.assert_allclose(found, slow_slerp(u.tolist(), w.tolist(), a), atol=2e-4)
    assert np.linalg.norm(found) == pytest.approx(1.0, abs=1e-5)


def test_angles_are_divided_evenly_by_slerp_and_not_by_nlerp() -> None:
    u, w = np.float32([[1.0, 0.0]]), np.float32([[math.cos(2.4), math.sin(2.4)]])
    angle = [math.atan2(float(f(u, w, 0.25)[0, 1]), float(f(u, w, 0.25)[0, 0])) for f in (slerp, nlerp)]
    assert angle[0] == pytest.approx(0.6, abs=1e-5)
    assert abs(angle[1] - 0.6) > 0.05


@pytest.mark.parametrize("interpolation", ["slerp", "nlerp"])
def test_endpoints_are_the_old_query_and_procrustes(two_modalities: worlds.World, interpolation: str) -> None:
    new, old = two_modalities.new["text"].matrix(), two_modalities.old["text"].matrix()
    ends = [Slerp(interpolation=interpolation, weight=a).fit(two_modalities.pairs()) for a in (0.0, 1.0)]
    np.testing.assert_allclose(ends[0].map(new, "text", old=old), old, atol=1e-5)
    expected = Procrustes().fit(two_modalities.pairs()).map(new, "text")
    np.testing.assert_allclose(ends[1].map(new, "text", old=old), expected, atol=1e-5)


def test_equal_vectors_have_every_point_between_them() -> None:
    u = np.float32([[0.6, 0.8]])
    np.testing.assert_allclose(slerp(u, u, 0.3), u, atol=1e-6)


def test_weight_goes_to_the_model_that_finds_the_images() -> None:
    """Old text vectors that are noise get no weight; old ones that are as good as the new get some."""
    world = worlds.two_modalities(d_s=16, items=300, gap=0.0, noise=0.6)
    noise = worlds.unit(np.random.default_rng(5).standard_normal((len(world.old["text"]), 16)))
    old_text = Embeddings(world.old["text"].ids, noise.astype(np.float32), world.target, "text")
    broken = replace(world, old={**world.old, "text": old_text})
    good, bad = Slerp().fit(world.pairs()), Slerp().fit(broken.pairs())
    assert 0.1 <= good.weights["text"] <= 0.9
    assert bad.weights["text"] >= 0.8


def test_without_links_the_midpoint_is_taken(rotated: worlds.World) -> None:
    assert Slerp().fit(rotated.pairs()).weights == {"image": 0.5, "text": 0.5}


def test_old_vectors_are_needed_for_every_query(two_modalities: worlds.World) -> None:
    adapter = Slerp(weight=0.5).fit(two_modalities.pairs())
    text = two_modalities.new["text"]
    with pytest.raises(FitError, match="old="):
        adapter.map(text.matrix(), "text")
    with pytest.raises(FitError, match="none were given"):
        adapter.transform(text)
    with pytest.raises(FitError, match=r"799 of 800"):
        adapter.transform(text, old=two_modalities.old["text"].select([0]))
    with pytest.raises(FitError, match="one old vector a query"):
        adapter.map(text.matrix()[:3], "text", old=two_modalities.old["text"].matrix()[:2])


def test_a_space_compared_by_inner_product_is_refused() -> None:
    world = worlds.affine()
    target = replace(world.target, metric="dot")
    old = Embeddings(world.old["image"].ids, world.old["image"].matrix(), target, "image")
    with pytest.raises(FitError, match="directions"):
        Slerp().fit(pair(old, world.new["image"]))


@pytest.mark.parametrize("wrong", [{"weight": 1.5}, {"grid": ()}, {"grid": (0.5, -0.1)}, {"interpolation": "linear"}])
def test_impossible_hyper_parameters_are_refused(wrong: dict) -> None:
    with pytest.raises(ConfigError):
        Slerp(**wrong)
