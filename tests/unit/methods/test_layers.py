"""Layers in NumPy are PyTorch's, and what is drawn is what is computed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from crossfade.methods.layers import LAYER_NORM_EPSILON, gelu, layer_norm


def test_gelu_is_torch_s_tanh_form() -> None:
    x = np.linspace(-8, 8, 1001, dtype=np.float32)
    expected = torch.nn.functional.gelu(torch.from_numpy(x), approximate="tanh").numpy()
    np.testing.assert_allclose(gelu(x), expected, atol=1e-6)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 100.0])
def test_layer_norm_is_torch_s_and_that_of_each_row_alone(scale: float) -> None:
    generator = np.random.default_rng(0)
    x = (scale * (generator.standard_normal((7, 33)) + 2.0)).astype(np.float32)
    gain, shift = (generator.standard_normal(33).astype(np.float32) for _ in range(2))
    expected = torch.nn.functional.layer_norm(
        torch.from_numpy(x), (33,), torch.from_numpy(gain), torch.from_numpy(shift), eps=LAYER_NORM_EPSILON
    )
    np.testing.assert_allclose(layer_norm(x, gain, shift), expected.numpy(), atol=2e-5)
    np.testing.assert_allclose(layer_norm(x[3], gain, shift), layer_norm(x, gain, shift)[3], atol=1e-6)


def test_layer_norm_by_hand() -> None:
    row = np.asarray([1.0, 2.0, 6.0], dtype=np.float32)
    deviation = np.sqrt(((row - 3.0) ** 2).mean() + 1e-5)
    ones, zeros = np.ones(3, dtype=np.float32), np.zeros(3, dtype=np.float32)
    np.testing.assert_allclose(layer_norm(row, ones, zeros), (row - 3.0) / deviation, rtol=1e-6)
