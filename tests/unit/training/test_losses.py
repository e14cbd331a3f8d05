"""Each loss against its equation, computed the slow way in float64."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from crossfade.errors import ConfigError
from crossfade.training.losses import cosine_loss, distillation_loss, gather_with_gradient, info_nce, mse_loss


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / (math.sqrt(a @ a) * math.sqrt(b @ b)))


def slow_info_nce(
    queries: np.ndarray,
    keys: np.ndarray,
    temperature: float,
    labels: list[int] | None = None,
    key_labels: list[int] | None = None,
    compare: Callable[[np.ndarray, np.ndarray], float] = cosine,
) -> float:
    losses = []
    for i, query in enumerate(queries):
        right = math.exp(compare(query, keys[i]) / temperature)
        wrong = 0.0
        for j, key in enumerate(keys):
            duplicate = labels is not None and key_labels is not None and key_labels[j] == labels[i]
            if j != i and not duplicate:
                wrong += math.exp(compare(query, key) / temperature)
        losses.append(-math.log(right / (right + wrong)))
    return float(np.mean(losses))


def test_cosine_loss_is_the_mean_of_one_minus_the_cosine() -> None:
    a, b = drawn(5, 3), drawn(5, 3, seed=1)
    expected = np.mean([1 - cosine(x, y) for x, y in zip(a.numpy(), b.numpy(), strict=True)])
    assert float(cosine_loss(a, b)) == pytest.approx(expected, abs=1e-12)
    assert float(cosine_loss(a, 3 * a)) == pytest.approx(0.0, abs=1e-12)
    assert float(cosine_loss(a, -a)) == pytest.approx(2.0, abs=1e-12)


def test_mse_loss_is_the_mean_over_coordinates() -> None:
    a, b = drawn(5, 3), drawn(5, 3, seed=1)
    expected = sum((x - y) ** 2 for x, y in zip(a.numpy().ravel(), b.numpy().ravel(), strict=True)) / 15
    assert float(mse_loss(a, b)) == pytest.approx(expected, abs=1e-12)


@given(n=st.integers(1, 6), extra=st.integers(0, 4), seed=st.integers(0, 99), temperature=st.floats(0.05, 2.0))
def test_info_nce_is_its_equation(n: int, extra: int, seed: int, temperature: float) -> None:
    queries, keys = drawn(n, 4, seed=seed), drawn(n + extra, 4, seed=seed + 1)
    expected = slow_info_nce(queries.numpy(), keys.numpy(), temperature)
    assert float(info_nce(queries, keys, temperature=temperature)) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@given(labels=st.lists(st.integers(0, 3), min_size=2, max_size=7), seed=st.integers(0, 99))
def test_info_nce_leaves_duplicates_out_of_the_negatives(labels: list[int], seed: int) -> None:
    n = len(labels)
    queries, keys = drawn(n, 4, seed=seed), drawn(n + 2, 4, seed=seed + 1)
    masked = info_nce(queries, keys[:n], temperature=0.1, positives=torch.tensor(labels))
    expected = slow_info_nce(queries.numpy(), keys.numpy()[:n], 0.1, labels, labels)
    assert float(masked) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    key_labels = [*labels, 1, 9]
    masked = info_nce(
        queries, keys, temperature=0.1, positives=torch.tensor(labels), key_labels=torch.tensor(key_labels)
    )
    expected = slow_info_nce(queries.numpy(), keys.numpy(), 0.1, labels, key_labels)
    assert float(masked) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    masked = info_nce(queries, keys, temperature=0.1, positives=torch.tensor(labels))
    expected = slow_info_nce(queries.numpy(), keys.numpy(), 0.1, labels, [*labels, -1, -2])
    assert float(masked) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_info_nce_both_ways_is_the_mean_of_either_way() -> None:
    queries, keys, labels = drawn(6, 4), drawn(8, 4, seed=1), torch.tensor([0, 0, 1, 2, 2, 2])
    both = info_nce(queries, keys, temperature=0.2, positives=labels, symmetric=True)
    there = slow_info_nce(queries.numpy(), keys.numpy(), 0.2, labels.tolist(), [*labels.tolist(), -1, -2])
    back = slow_info_nce(keys.numpy()[:6], queries.numpy(), 0.2, labels.tolist(), labels.tolist())
    assert float(both) == pytest.approx(0.5 * (there + back), rel=1e-9)


def test_info_nce_compares_by_inner_product_where_asked() -> None:
    queries, keys = drawn(5, 4), drawn(5, 4, seed=1)
    expected = slow_info_nce(queries.numpy(), keys.numpy(), 0.5, compare=lambda a, b: float(a @ b))
    assert float(info_nce(queries, keys, temperature=0.5, normalize=False)) == pytest.approx(expected, rel=1e-9)


def test_a_learned_temperature_gets_a_gradient() -> None:
    temperature = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    queries, keys = drawn(5, 4), drawn(5, 4, seed=1)
    info_nce(queries, keys, temperature=temperature).backward()
    ends = [slow_info_nce(queries.numpy(), keys.numpy(), 0.3 + sign * 1e-6) for sign in (1, -1)]
    assert float(temperature.grad) == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-5)


def test_masked_keys_get_no_gradient_and_leave_it_finite() -> None:
    queries, keys = drawn(4, 3), drawn(4, 3, seed=1).requires_grad_()
    loss = info_nce(queries, keys, temperature=0.01, positives=torch.zeros(4, dtype=torch.int64))
    loss.backward()
    assert loss.item() == 0.0
    assert keys.grad is not None
    assert torch.equal(keys.grad, torch.zeros_like(keys))


def test_distillation_is_the_divergence_of_the_students_ranking() -> None:
    student, teacher = drawn(4, 6), drawn(4, 6, seed=1)
    expected = 0.0
    for s, t in zip(student.numpy(), teacher.numpy() / 0.5, strict=True):
        p, q = np.exp(t) / np.exp(t).sum(), np.exp(s) / np.exp(s).sum()
        expected += float((p * (np.log(p) - np.log(q))).sum()) / 4
    assert float(distillation_loss(student, teacher, teacher_temperature=0.5)) == pytest.approx(expected, rel=1e-9)
    assert float(distillation_loss(teacher / 0.5, teacher, teacher_temperature=0.5)) == pytest.approx(0, abs=1e-12)


def test_the_teacher_gets_no_gradient() -> None:
    student, teacher = drawn(4, 6).requires_grad_(), drawn(4, 6, seed=1).requires_grad_()
    distillation_loss(student, teacher, teacher_temperature=0.5).backward()
    assert student.grad is not None
    assert teacher.grad is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_mixed_precision_computes_in_float32(dtype: torch.dtype) -> None:
    a, b = drawn(16, 8).to(dtype), drawn(16, 8, seed=1).to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = [
            cosine_loss(a, b),
            mse_loss(a, b),
            info_nce(a, b, temperature=0.01),
            distillation_loss(a, b, teacher_temperature=0.05),
        ]
    x, y = a.double(), b.double()
    expected = [
        cosine_loss(x, y),
        mse_loss(x, y),
        info_nce(x, y, temperature=0.01),
        distillation_loss(x, y, teacher_temperature=0.05),
    ]
    for single, double in zip(found, expected, strict=True):
        assert single.dtype == torch.float32
        assert float(single) == pytest.approx(float(double), rel=1e-5)


def test_shapes_and_temperatures_that_do_not_fit_are_refused() -> None:
    a, b = drawn(4, 3), drawn(5, 3)
    for loss in (cosine_loss, mse_loss):
        with pytest.raises(ConfigError, match=r"\(4, 3\) and \(5, 3\)"):
            loss(a, b)
    with pytest.raises(ConfigError, match="at least as many keys"):
        info_nce(b, a, temperature=0.1)
    with pytest.raises(ConfigError, match="must be positive; found 0"):
        info_nce(a, b, temperature=0.0)
    with pytest.raises(ConfigError, match="a label for each"):
        info_nce(a, b, temperature=0.1, positives=torch.zeros(5))
    with pytest.raises(ConfigError, match="teacher's temperature"):
        distillation_loss(a, a, teacher_temperature=-1.0)
    with pytest.raises(ConfigError, match="one shape"):
        distillation_loss(a, b, teacher_temperature=1.0)


def test_one_process_gathers_its_own_rows() -> None:
    rows = drawn(3, 2)
    assert gather_with_gradient(rows) is rows
