from __future__ import annotations

import numpy as np
import pytest
import worlds
from sklearn.linear_model import Ridge as SklearnRidge

from crossfade.errors import ConfigError
from crossfade.methods import Procrustes, Ridge
from crossfade.methods.ridge import coefficients, held_out_errors
from crossfade.methods.statistics import Moments


def moments(x: np.ndarray, y: np.ndarray) -> Moments:
    return Moments(len(x), x.sum(0), y.sum(0), x.T @ y, float((y * y).sum()), x.T @ x)


@pytest.mark.parametrize("penalty", [1e-3, 1.0, 50.0])
def test_equals_scikit_learn_for_a_given_penalty(penalty: float) -> None:
    world = worlds.affine(noise=0.5)
    x, y = world.new["image"].matrix().astype(np.float64), world.old["image"].matrix().astype(np.float64)
    reference = SklearnRidge(alpha=penalty).fit(x, y)
    adapter = Ridge(penalty=penalty).fit(world.pairs())
    np.testing.assert_allclose(adapter.matrix, reference.coef_.T, atol=2e-4)
    np.testing.assert_allclose(adapter.offsets["image"], reference.intercept_, atol=2e-3)


def test_joint_centring_is_one_regression_over_both_modalities() -> None:
    world = worlds.two_modalities()
    x, y = (
        np.concatenate([s[m].matrix() for m in ("image", "text")]).astype(np.float64) for s in (world.new, world.old)
    )
    reference = SklearnRidge(alpha=2.0).fit(x, y)
    adapter = Ridge(penalty=2.0, center="joint").fit(world.pairs())
    np.testing.assert_allclose(adapter.matrix, reference.coef_.T, atol=1e-4)
    np.testing.assert_allclose(adapter.offsets["image"], reference.intercept_, atol=1e-4)
    np.testing.assert_array_equal(adapter.offsets["image"], adapter.offsets["text"])


def test_centring_by_modality_is_one_regression_over_centred_rows() -> None:
    world = worlds.two_modalities()

    def centred(side: dict) -> np.ndarray:
        parts = [side[m].matrix().astype(np.float64) for m in ("image", "text")]
        return np.concatenate([part - part.mean(0) for part in parts])

    reference = SklearnRidge(alpha=2.0, fit_intercept=False).fit(centred(world.new), centred(world.old))
    np.testing.assert_allclose(Ridge(penalty=2.0).fit(world.pairs()).matrix, reference.coef_.T, atol=1e-4)


def test_is_exact_on_an_affine_world_and_procrustes_is_not() -> None:
    world = worlds.affine()
    new, old = world.new["image"].matrix(), world.old["image"].matrix()
    spread = np.abs(old - old.mean(0)).mean()
    ridge, procrustes = Ridge().fit(world.pairs()), Procrustes().fit(world.pairs())
    assert np.abs(ridge.map(new, "image") - old).mean() < 1e-3 * spread
    assert np.abs(procrustes.map(new, "image") - old).mean() > 0.3 * spread


def test_held_out_error_equals_that_of_the_rows() -> None:
    generator = np.random.default_rng(0)
    x, y = generator.standard_normal((60, 6)), generator.standard_normal((60, 4))
    train, test = slice(0, 40), slice(40, 60)
    penalties = np.array([0.01, 1.0, 30.0])
    fitted, judged = moments(x[train], y[train]), moments(x[test], y[test])
    slow = [((y[test] - x[test] @ coefficients(fitted, p)) ** 2).sum() for p in penalties]
    np.testing.assert_allclose(held_out_errors(fitted, judged, penalties), slow, rtol=1e-9)


def test_more_noise_asks_for_a_larger_penalty() -> None:
    """The chosen map must be shorter where there is less to learn."""
    clear, noisy = (Ridge().fit(worlds.affine(noise=noise, n=60).pairs()) for noise in (0.0, 60.0))
    assert np.linalg.norm(noisy.matrix - clear.matrix) > 0.1
    truth = worlds.affine().truth
    assert truth is not None
    assert np.linalg.norm(noisy.matrix) < np.linalg.norm(
        Ridge(penalty=1e-6).fit(worlds.affine(noise=60.0, n=60).pairs()).matrix
    )


@pytest.mark.parametrize("wrong", [{"penalty": 0.0}, {"penalty": -1.0}, {"folds": 1}, {"grid": ()}, {"center": "none"}])
def test_impossible_hyper_parameters_are_refused(wrong: dict) -> None:
    with pytest.raises(ConfigError):
        Ridge(**wrong)
