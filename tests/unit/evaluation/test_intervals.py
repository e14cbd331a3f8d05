"""Bootstrap intervals: coverage on known distributions, groups, seeds; sample sizes."""

import numpy as np
import pytest

from crossfade.errors import EvaluationError
from crossfade.evaluation import Bootstrap, more_queries_needed


def interval(values, groups, **options):
    boot = Bootstrap(groups, **{"resamples": 400, "level": 0.95, "seed": 0, **options})
    return boot.estimate(values.mean(), boot.means(values[:, None])[:, 0])


def test_coverage_on_a_known_distribution():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(300):
        values = (rng.random(200) < 0.3).astype(float)
        found = interval(values, np.arange(200))
        hits += found.low <= 0.3 <= found.high
    assert 0.91 <= hits / 300 <= 0.98


def test_groups_widen_the_interval_to_honest_coverage():
    rng = np.random.default_rng(1)
    grouped = single = 0
    for _ in range(200):
        values = np.repeat((rng.random(60) < 0.5).astype(float), 5)
        together = interval(values, np.repeat(np.arange(60), 5))
        apart = interval(values, np.arange(300))
        grouped += together.low <= 0.5 <= together.high
        single += apart.low <= 0.5 <= apart.high
    assert grouped / 200 >= 0.9
    assert single / 200 < 0.75


def test_the_standard_error_is_the_bootstraps():
    rng = np.random.default_rng(2)
    values = rng.standard_normal((500, 2))
    boot = Bootstrap(np.arange(500), resamples=4000, level=0.95, seed=0)
    np.testing.assert_allclose(boot.means(values).std(axis=0), values.std(axis=0) / np.sqrt(500), rtol=0.05)


def test_columns_are_paired_and_the_seed_decides_all():
    values = np.random.default_rng(3).random(100)
    boot = Bootstrap(np.arange(100), resamples=200, level=0.9, seed=7)
    means = boot.means(np.stack([values, values + 1], axis=1))
    np.testing.assert_allclose(means[:, 1] - means[:, 0], 1.0)
    np.testing.assert_array_equal(means[:, :1], boot.means(values[:, None]))
    other = Bootstrap(np.arange(100), resamples=200, level=0.9, seed=8)
    assert not np.array_equal(means[:, :1], other.means(values[:, None]))


def test_ratio_has_no_interval_where_its_denominator_may_be_zero():
    rng = np.random.default_rng(4)
    boot = Bootstrap(np.arange(10), resamples=1000, level=0.95, seed=0)
    fine = boot.ratio(0.5, rng.normal(1, 0.1, 1000), rng.normal(2, 0.1, 1000))
    assert fine.low < 0.5 < fine.high
    assert boot.ratio(0.5, rng.normal(1, 0.1, 1000), rng.normal(0, 1, 1000)) is None


@pytest.mark.parametrize("repeat", [1, 5])
def test_the_sample_size_named_decides_with_the_power_asked_for(repeat):
    """Draw that many queries from a known distribution: its interval excludes zero about 80 times in 100."""
    rng = np.random.default_rng(5)
    small = np.repeat(rng.normal(0.2, 1.0, 60), repeat)
    small += 0.2 - small.mean()
    total = len(small) + more_queries_needed(small, np.repeat(np.arange(60), repeat))
    deviation = small[::repeat].std(ddof=1)
    groups = total // repeat
    means = rng.normal(0.2, deviation / np.sqrt(groups), 4000)
    assert np.mean(means > 1.96 * deviation / np.sqrt(groups)) == pytest.approx(0.8, abs=0.03)


def test_hopeless_and_certain_differences():
    assert more_queries_needed(np.zeros(50)) is None
    assert more_queries_needed(np.tile([1.0, -1.0], 50) + 1e-4) is None
    assert more_queries_needed(np.ones(3)) == 1
    assert more_queries_needed(np.ones(1)) is None


def test_bad_input_is_refused():
    with pytest.raises(EvaluationError, match="between 0 and 1"):
        Bootstrap(np.arange(5), resamples=200, level=1.0, seed=0)
    with pytest.raises(EvaluationError, match="at least 100"):
        Bootstrap(np.arange(5), resamples=10, level=0.9, seed=0)


def test_resamples_are_the_same_whether_they_are_kept_or_drawn_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    groups, values = generator.integers(0, 40, size=200), generator.standard_normal((200, 2))
    kept = Bootstrap(groups, resamples=300, level=0.95, seed=3)
    first = kept.means(values)
    assert kept._kept is not None
    np.testing.assert_array_equal(kept.means(values), first)
    monkeypatch.setattr("crossfade.evaluation.intervals.KEPT_WEIGHTS", 0)
    anew = Bootstrap(groups, resamples=300, level=0.95, seed=3)
    np.testing.assert_array_equal(anew.means(values), first)
    assert anew._kept is None
    np.testing.assert_array_equal(anew.means(values[:, :1]), first[:, :1])
