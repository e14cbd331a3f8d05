from __future__ import annotations

import numpy as np
import pytest
import worlds
from hypothesis import given, settings
from hypothesis import strategies as st

from crossfade.methods import statistics
from crossfade.methods.statistics import Moments, collect, total


def slow(x: np.ndarray, y: np.ndarray) -> Moments:
    x, y = x.astype(np.float64), y.astype(np.float64)
    return Moments(len(x), x.sum(0), y.sum(0), x.T @ y, float((y**2).sum()), x.T @ x)


def assert_same(found: Moments, expected: Moments, tolerance: float = 1e-5) -> None:
    assert found.count == expected.count
    for name in ("sum_x", "sum_y", "xy", "yy", "xx"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=tolerance, atol=tolerance * 10)


def test_one_pass_gives_the_sums_of_each_modality(two_modalities: worlds.World) -> None:
    found = collect(two_modalities.pairs(), gram=True)
    for modality, (moments,) in found.items():
        assert_same(moments, slow(two_modalities.new[modality].matrix(), two_modalities.old[modality].matrix()))


def test_many_blocks_give_the_sums_of_one(two_modalities: worlds.World, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = collect(two_modalities.pairs(), gram=True, folds=3)
    monkeypatch.setattr(statistics, "BLOCK", 64)
    for modality, folds in collect(two_modalities.pairs(), gram=True, folds=3).items():
        for found, expected in zip(folds, whole[modality], strict=True):
            assert_same(found, expected)


def test_folds_are_the_items_of_each_fold_and_add_up(two_modalities: worlds.World) -> None:
    pairs = two_modalities.pairs()
    found = collect(pairs, gram=True, folds=4, seed=7)
    whole = collect(pairs, gram=True)
    for part in pairs.parts:
        fold_of = pairs.folds(part, count=4, seed=7)
        for fold, moments in enumerate(found[part.modality]):
            mine = fold_of == fold
            assert_same(moments, slow(part.source.matrix()[mine], part.target.matrix()[mine]))
        assert_same(total(found[part.modality]), whole[part.modality][0])


def test_the_gram_matrix_is_only_made_where_it_is_asked_for(rotated: worlds.World) -> None:
    assert collect(rotated.pairs(), gram=False)["image"][0].xx is None


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 10_000))
def test_sums_add_subtract_and_move_as_the_rows_do(n: int, m: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    x, y = generator.standard_normal((n + m, 3)), generator.standard_normal((n + m, 2))
    first, second, both = slow(x[:n], y[:n]), slow(x[n:], y[n:]), slow(x, y)
    assert_same(first + second, both, 1e-9)
    assert_same(both - second, first, 1e-9)
    mu, nu = generator.standard_normal(3), generator.standard_normal(2)
    assert_same(both.about(mu, nu), slow(x - mu, y - nu), 1e-9)
    np.testing.assert_allclose(both.about(both.mean_x, both.mean_y).sum_x, 0.0, atol=1e-9)
