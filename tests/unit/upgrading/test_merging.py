"""Two scales in one ranking: each equation re-derived, and which one is chosen in worlds where the answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from live import NEW, OLD, fitted, queries, seen

from crossfade.stores import Hits
from crossfade.upgrading.merging import MERGES, Background, Merge, comparable, merged
from crossfade.upgrading.scoring import compared, scores
from crossfade.upgrading.starting import DRAWS, SHARES, Uncertainty, choose_merge, reciprocal_places

FLOATS = st.floats(-5, 5, allow_nan=False, width=32)


def hits(**scored: float) -> Hits:
    ordered = sorted(scored, key=lambda name: -scored[name])
    return Hits(list(ordered), np.asarray([scored[name] for name in ordered], dtype=np.float32))


@given(st.lists(st.tuples(FLOATS, FLOATS), min_size=3, max_size=12), st.lists(FLOATS, min_size=1, max_size=5))
def test_the_equations(background: list[tuple[float, float]], given_scores: list[float]) -> None:
    s, t = (np.asarray(side, dtype=np.float32) for side in zip(*background, strict=True))
    asked = np.asarray(given_scores, dtype=np.float32)
    np.testing.assert_array_equal(comparable("raw", asked, native=s, mapped=t), asked)
    if t.std() < 1e-2 or s.std() < 1e-2:
        return
    standardised = [s.mean() + s.std() * (x - t.mean()) / t.std() for x in asked.astype(np.float64)]
    np.testing.assert_allclose(
        comparable("standardised", asked, native=s, mapped=t), standardised, rtol=1e-3, atol=1e-3
    )
    slope, intercept = np.polyfit(t.astype(np.float64), s.astype(np.float64), 1)  # the least-squares guess of s from t
    np.testing.assert_allclose(
        comparable("regressed", asked, native=s, mapped=t), intercept + slope * asked, rtol=1e-2, atol=1e-2
    )


@pytest.mark.parametrize("kind", ["standardised", "regressed"])
def test_a_flat_background_changes_nothing(kind: Merge) -> None:
    asked, flat = np.asarray([0.5, 0.1], dtype=np.float32), np.ones(4, dtype=np.float32)
    np.testing.assert_array_equal(comparable(kind, asked, native=np.arange(4, dtype=np.float32), mapped=flat), asked)
    np.testing.assert_array_equal(comparable(kind, asked, native=flat[:1], mapped=flat[:1]), asked)


def test_one_ranking_by_scores() -> None:
    found = merged("raw", hits(a=0.9, b=0.2), hits(c=0.5, d=0.1), k=3, share=0.5)
    assert found.ids == ["a", "c", "b"]
    np.testing.assert_allclose(found.scores, [0.9, 0.5, 0.2])


def test_a_row_in_both_parts_counts_as_native() -> None:
    found = merged("raw", hits(a=0.3), hits(a=0.9, b=0.5), k=5, share=0.5)
    assert found.ids == ["b", "a"]


def test_one_ranking_by_places() -> None:
    native, mapped = hits(a=0.9, b=0.8, c=0.7), hits(x=0.1, y=0.05, z=0.01)
    assert merged("ranks", native, mapped, k=6, share=0.5).ids == ["a", "x", "b", "y", "c", "z"]
    # a quarter is native: its first row would stand at the second place of the whole, its second at the sixth
    assert merged("ranks", native, mapped, k=6, share=0.25).ids == ["x", "a", "y", "z", "b", "c"]
    assert merged("ranks", native, mapped, k=2, share=1.0).ids == ["a", "b"]
    assert merged("ranks", hits(), mapped, k=2, share=0.0).ids == ["x", "y"]


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
def test_scores_are_those_of_the_space(metric: str) -> None:
    from dataclasses import replace

    generator = np.random.default_rng(0)
    q, rows = (generator.standard_normal((n, OLD.dimension)).astype(np.float32) for n in (3, 5))
    space = replace(OLD, metric=metric, normalized=False)  # type: ignore[arg-type]
    found = np.stack(scores(q, compared(rows, space), space))
    for i in range(3):
        for j in range(5):
            slow = {
                "cosine": q[i] @ rows[j] / np.linalg.norm(q[i]) / np.linalg.norm(rows[j]),
                "dot": q[i] @ rows[j],
                "l2": -np.linalg.norm(q[i] - rows[j]),
            }[metric]
            assert found[i, j] == pytest.approx(slow, abs=1e-4)


def both(start: int, count: int) -> Background:
    contents = range(start, start + count)
    return Background(seen(contents, OLD), seen(contents, NEW))


def test_merges_are_measured_by_where_the_first_row_of_a_full_re_index_stands() -> None:
    asked = queries(range(30), NEW).matrix()
    gallery, background = both(0, 80), both(200, 80)
    found, first = reciprocal_places(fitted(), asked, "image", gallery, background, seed=3)
    assert set(found) == set(MERGES)
    assert first.tolist() == [int(np.argmax(gallery.new @ query)) for query in asked]
    slow: dict[str, list[float]] = {"raw": [], "standardised": []}
    generator = np.random.default_rng(3)
    mapped = fitted().map(asked, "image")
    halves = [
        np.isin(np.arange(80), generator.permutation(80)[: int(share * 80)]) for share in SHARES for _ in range(DRAWS)
    ]
    for native in [*halves, *(~half for half in halves)]:
        for q in range(30):
            s, t = gallery.new @ asked[q], gallery.old @ mapped[q]
            s_b, t_b = background.new @ asked[q], background.old @ mapped[q]
            for kind, t_there in (("raw", t), ("standardised", s_b.mean() + s_b.std() * (t - t_b.mean()) / t_b.std())):
                order = np.argsort(-np.where(native, s, t_there))
                slow[kind].append(1 / (1 + np.flatnonzero(order == np.argmax(s))[0]))
    for kind, each in slow.items():
        assert found[kind].mean() == pytest.approx(np.mean(each))  # type: ignore[index]


def test_another_merge_is_chosen_only_where_it_is_surely_better() -> None:
    noise = np.random.default_rng(0).standard_normal((4, 400)) / 10
    means = dict(zip(MERGES, noise, strict=True))
    means["standardised"] = means["standardised"] + 0.5
    level = {kind: values + 0.5 for kind, values in means.items() if kind != "standardised"}
    first = np.arange(400)
    assert choose_merge({**means, **level}, first) == "standardised"
    better = {**means, **level, "raw": noise[0] + 0.6, "ranks": noise[3] + 0.7}
    assert choose_merge(better, first) == "ranks"
    assert choose_merge(better, np.zeros(400, dtype=int)) == "standardised"  # all by one row's luck
    hardly = {**dict.fromkeys(MERGES, noise[1] + 0.5), "raw": noise[1] + 0.51}
    assert choose_merge(hardly, first) == "standardised"


def test_queries_with_one_first_row_in_common_count_as_one() -> None:
    generator = np.random.default_rng(1)
    first = np.repeat(np.arange(20), 50)
    luck = np.repeat(generator.standard_normal(20), 50)  # of a row: it says nothing of the merge
    level = {kind: np.zeros(1000) for kind in MERGES}
    lucky = {**level, "raw": luck - luck.mean() + 0.2}
    above = [luck[first == row].mean() for row in range(20)]
    error = np.std(above, ddof=1) / np.sqrt(20)
    assert 3.0 * error > 0.2
    assert choose_merge(lucky, first) == "standardised"
    assert choose_merge(lucky, np.arange(1000)) == "raw"  # as if each query had been a row of its own


def test_uncertainty_is_the_regression_of_the_error() -> None:
    sample, others = both(0, 300), both(400, 20)
    found = Uncertainty.fitted(fitted(), sample.old, sample.new, "image")
    o = sample.old.astype(np.float64)
    e = ((fitted().map(sample.new, "image") - sample.old).astype(np.float64) ** 2).sum(axis=1)
    alone = np.asarray([-np.sort(np.delete(o @ o[i], i))[-5:].mean() for i in range(300)])

    def loss(a: float, w: np.ndarray) -> float:
        residual = (e - e.mean()) - a * (alone - alone.mean()) - (o - o.mean(axis=0)) @ w
        return float((residual**2).sum() + 10.0 * o.var(axis=0).mean() * 300 * (w**2).sum())

    least = loss(found.a, found.w)
    generator = np.random.default_rng(0)
    for _ in range(30):  # no other coefficients do better
        assert loss(found.a + generator.normal(0, 1e-2), found.w + generator.normal(0, 1e-3, 12)) > least
    slow = [found.a * -np.sort(o @ x)[-5:].mean() + x @ found.w for x in others.old.astype(np.float64)]
    np.testing.assert_allclose(found(others.old), slow, rtol=1e-6)
