from __future__ import annotations

import numpy as np
import pytest
import worlds
from scipy.optimize import minimize

from crossfade.errors import ConfigError
from crossfade.methods import LowRank, Ridge
from crossfade.methods.low_rank import reduced_rank_map
from crossfade.methods.statistics import Moments


def test_no_map_of_that_rank_has_a_smaller_penalised_error() -> None:
    """Against descent on the two factors, from several starts: the form in which the paper trains it."""
    generator = np.random.default_rng(0)
    x, y = generator.standard_normal((50, 5)), generator.standard_normal((50, 4))
    y += x @ generator.standard_normal((5, 4))
    penalty, rank = 0.7, 2

    def loss(matrix: np.ndarray) -> float:
        return float(((x @ matrix - y) ** 2).sum() + penalty * (matrix**2).sum())

    def of_factors(values: np.ndarray) -> float:
        return loss(values[:10].reshape(5, rank) @ values[10:].reshape(rank, 4))

    moments = Moments(50, x.sum(0), y.sum(0), x.T @ y, float((y * y).sum()), x.T @ x)
    matrix = reduced_rank_map(moments, rank=rank, penalty=penalty)
    assert np.linalg.matrix_rank(matrix, tol=1e-8) == rank
    found = min(minimize(of_factors, generator.standard_normal(18)).fun for _ in range(5))
    assert loss(matrix) == pytest.approx(found, rel=1e-6)


def test_full_rank_is_ridge() -> None:
    world = worlds.affine(noise=0.5)
    x = world.new["image"].matrix().astype(np.float64)
    penalty = 1e-3 * ((x - x.mean(0)) ** 2).sum() / x.shape[1]
    full, ridge = LowRank(rank=99).fit(world.pairs()), Ridge(penalty=penalty).fit(world.pairs())
    np.testing.assert_allclose(full.matrix, ridge.matrix, atol=1e-5)


def test_saved_matrix_has_the_rank() -> None:
    assert np.linalg.matrix_rank(LowRank(rank=3).fit(worlds.affine().pairs()).matrix, tol=1e-4) == 3


@pytest.mark.parametrize("wrong", [{"rank": 0}, {"relative_penalty": 0.0}, {"center": "none"}])
def test_impossible_hyper_parameters_are_refused(wrong: dict) -> None:
    with pytest.raises(ConfigError):
        LowRank(**wrong)
