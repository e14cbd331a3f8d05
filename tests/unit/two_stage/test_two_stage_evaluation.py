"""Quality and cost by the number of candidates, against rankings written out in full and traffic that is played."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import two_modalities

import crossfade as cf
from crossfade.embeddings import Embeddings
from crossfade.errors import EvaluationError, SpaceMismatch
from crossfade.evaluation import Relevance, evaluate
from crossfade.evaluation.hubness import csls_offsets
from crossfade.evaluation.result import Estimate
from crossfade.evaluation.similarity import Correction
from crossfade.methods import METHODS
from crossfade.two_stage import Traffic, TwoStage, evaluate_two_stage
from crossfade.two_stage.evaluation import first_ranks
from crossfade.two_stage.tables import print_two_stage, two_stage_markdown
from crossfade.two_stage.traffic import expected_embedded, popularity, touch_chances

WORLD = two_modalities(items=120, noise=0.5)
ADAPTER = METHODS["procrustes"]().fit(WORLD.pairs(), seed=0)
LINKS = Relevance.from_links(WORLD.links)
SIDES = {
    "queries": list(WORLD.new.values()),
    "gallery": list(WORLD.old.values()),
    "new_gallery": list(WORLD.new.values()),
    "relevant": LINKS,
}
SIZES = (1, 5, 20, 120, 500)


@pytest.fixture(scope="module")
def result():
    return evaluate_two_stage(ADAPTER, **SIDES, sizes=SIZES, old_queries=list(WORLD.old.values()), resamples=200)


@pytest.mark.parametrize("asked", ["image", "text"])
def test_metrics_are_those_of_the_rankings_that_two_stage_search_returns(result, asked):
    stored = {"image": "text", "text": "image"}[asked]
    gallery, queries = WORLD.old[stored], WORLD.new[asked]
    direction = next(d for d in result.directions if d.name == f"{asked}→{stored}")
    right = {}
    for text, image in WORLD.links:
        right.setdefault(text, set()).add(image)
        right.setdefault(image, set()).add(text)
    for size in direction.sizes:
        served = TwoStage(ADAPTER, gallery, new_gallery=WORLD.new[stored], candidates=size.candidates)
        found = served.search(queries, len(gallery))
        first = np.asarray([
            1 + next(place for place, name in enumerate(row) if name in right[query])
            for query, row in zip(queries.ids.tolist(), found.ids.tolist(), strict=True)
        ])  # fmt: skip
        for k in (1, 5, 10):
            assert size.metrics[f"R@{k}"].value == pytest.approx(np.mean(first <= k))
        assert size.metrics["MRR"].value == pytest.approx(np.mean(1 / first))
        assert size.embedded == served.counts.embedded
        assert size.saved == pytest.approx(1 - size.embedded / len(gallery))
        recalled = [bool(set(row[: size.candidates]) & right[q]) for q, row in zip(
            queries.ids.tolist(), gallery.ids[cf.search(ADAPTER.transform(queries), gallery, k=len(gallery)).rows].tolist(),
            strict=True,
        )]  # fmt: skip
        assert size.recalled.value == pytest.approx(np.mean(recalled))


def test_one_candidate_is_one_stage_and_all_candidates_are_a_full_re_index(result):
    plain = evaluate(
        ADAPTER,
        queries=SIDES["queries"],
        gallery=SIDES["gallery"],
        new_gallery=SIDES["new_gallery"],
        old_queries=list(WORLD.old.values()),
        relevant=LINKS,
        resamples=200,
    )
    for direction, other in zip(result.directions, plain.directions, strict=True):
        for system in ("old/old", "mapped/old", "new/new"):
            for metric, estimate in other.scores[system].metrics.items():
                assert direction.systems[system][metric] == estimate
        assert direction.sizes[0].metrics == direction.systems["mapped/old"]
        last = direction.sizes[-1]
        assert last.candidates == 500
        assert last.metrics == direction.systems["new/new"]
        assert last.reached["R@10"] == Estimate(1.0, 1.0, 1.0)
        assert last.saved == 0.0
        assert direction.sizes[2].metrics["R@1"].value > direction.systems["mapped/old"]["R@1"].value


def test_an_estimate_lies_within_its_interval_and_the_mean_over_directions_between_them(result):
    for place, (number, mean) in enumerate(result.mean_reached.items()):
        parts = [direction.sizes[place].reached["R@10"] for direction in result.directions]
        assert parts[0] is not None
        assert number == SIZES[place]
        assert min(p.value for p in parts) <= mean.value <= max(p.value for p in parts)
        assert all(p.low <= p.value <= p.high for p in [*parts, mean])


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_first_ranks_are_those_of_the_sorted_list(data):
    n, total = data.draw(st.integers(1, 6)), 9
    rng = np.random.default_rng(data.draw(st.integers(0, 10_000)))
    order = rng.permutation(total)
    candidates = order[:n]
    scores = rng.integers(0, 3, n).astype(np.float32)
    right = set(rng.choice(total, data.draw(st.integers(1, 4)), replace=False).tolist())
    ranking = sorted(range(n), key=lambda i: (-scores[i], candidates[i]))
    whole = [int(candidates[i]) for i in ranking] + order[n:].tolist()
    expected = 1 + next(place for place, row in enumerate(whole) if row in right)
    stage_one = 1 + next(place for place, row in enumerate(order.tolist()) if row in right)
    flags = np.asarray([[row in right for row in candidates.tolist()]])
    assert first_ranks(candidates[None], scores[None], flags, np.asarray([stage_one])).tolist() == [expected]


def test_labels_leave_the_query_itself_out():
    rng = np.random.default_rng(0)
    labels = {f"image-{i}": str(i % 6) for i in range(120)}
    part = {side: [sets["image"]] for side, sets in (("queries", WORLD.new), ("gallery", WORLD.old))}
    found = evaluate_two_stage(
        ADAPTER,
        **part,
        new_gallery=WORLD.new["image"],
        relevant=Relevance.from_labels(labels),
        sizes=(8, 200),
        resamples=100,
    )
    (direction,) = found.directions
    assert direction.sizes[-1].metrics == direction.systems["new/new"]
    new, mapped = WORLD.new["image"].matrix(), ADAPTER.transform(WORLD.new["image"]).matrix()
    old = WORLD.old["image"].matrix()
    hits = []
    for query in rng.permutation(120):
        recalled = [row for row in np.argsort(-(old @ mapped[query])) if row != query][:8]
        best = max(recalled, key=lambda row: new[row] @ new[query])
        hits.append(labels[f"image-{best}"] == labels[f"image-{query}"])
    assert direction.sizes[0].metrics["R@1"].value == pytest.approx(np.mean(hits))


@pytest.mark.parametrize("exponent", [0.0, 1.0, 1.7])
def test_the_expected_cost_is_what_played_traffic_costs(exponent):
    rng = np.random.default_rng(0)
    candidates = np.stack([rng.choice(60, 4, replace=False) for _ in range(40)])
    chances = popularity(40, exponent=exponent, seed=3)
    touched = touch_chances(candidates, chances, gallery=60)
    for served in (1, 10, 60):
        played = [len(np.unique(candidates[rng.choice(40, served, p=chances)])) for _ in range(1500)]
        error = np.std(played) / np.sqrt(len(played))
        assert abs(np.mean(played) - expected_embedded(touched, served)) < 5 * error + 1e-9
    assert expected_embedded(touched, 1) == pytest.approx(4)


def test_popularity_falls_as_a_power_of_the_rank_and_is_seeded():
    chances = popularity(50, exponent=1.3, seed=1)
    np.testing.assert_allclose(np.sort(chances)[::-1], (np.arange(1, 51) ** -1.3) / (np.arange(1, 51) ** -1.3).sum())
    np.testing.assert_array_equal(chances, popularity(50, exponent=1.3, seed=1))
    assert (chances != popularity(50, exponent=1.3, seed=2)).any()
    np.testing.assert_allclose(popularity(7, exponent=0.0, seed=0), 1 / 7)


def test_an_item_that_every_query_touches_is_embedded_for_certain():
    candidates = np.asarray([[0, 1], [0, 2], [0, -1]])
    touched = touch_chances(candidates, popularity(3, exponent=0.0, seed=0), gallery=5)
    np.testing.assert_allclose(touched, [1.0, 1 / 3, 1 / 3, 0, 0])
    assert expected_embedded(touched, 1_000_000) == pytest.approx(3)


def test_cost_grows_with_traffic_and_candidates_and_never_beyond_what_the_queries_can_touch(result):
    for direction in result.directions:
        for side in ("uniform", "zipf"):
            curves = [list(getattr(size, side).values()) for size in direction.sizes]
            assert all(a <= b + 1e-9 for curve in curves for a, b in pairwise(curve))
            assert all(a <= b + 1e-9 for one, two in pairwise(curves) for a, b in zip(one, two, strict=True))
        for size in direction.sizes:
            assert size.uniform[100_000] == pytest.approx(size.embedded, rel=1e-3)
            assert all(size.zipf[s] <= size.uniform[s] + 1e-9 for s in size.zipf)


def test_the_recommended_size_is_the_smallest_that_reaches_the_share_in_every_direction(result):
    for metric in ("R@1", "R@10", "MRR"):
        for share in (0.3, 0.9, 1.0):
            for certain in (False, True):
                recommendation = result.recommend(metric=metric, share=share, certain=certain)
                enough = [
                    sizes[0].candidates
                    for sizes in zip(*(d.sizes for d in result.directions), strict=True)
                    if all((s.reached[metric].low if certain else s.reached[metric].value) >= share for s in sizes)
                ]
                assert recommendation.candidates == min(enough)
                assert f"N = {min(enough)}:" in recommendation.sentence
    assert result.recommend(certain=True, share=0.98).candidates >= result.recommend(share=0.98).candidates


def test_where_no_size_is_enough_the_recommendation_says_so(result):
    short = replace(result, directions=tuple(replace(d, sizes=d.sizes[:1]) for d in result.directions))
    recommendation = short.recommend(share=1.0)
    assert recommendation.candidates is None
    assert "No measured N" in recommendation.sentence
    for options in ({"metric": "mAP"}, {"share": 0.0}, {"share": 1.1}):
        with pytest.raises(EvaluationError):
            result.recommend(**options)


def test_the_same_seed_gives_the_same_and_the_result_is_json(result):
    again = evaluate_two_stage(ADAPTER, **SIDES, sizes=SIZES, old_queries=list(WORLD.old.values()), resamples=200)
    assert json.dumps(again.to_dict()) == json.dumps(result.to_dict())
    assert two_stage_markdown(again) == two_stage_markdown(result)
    other = evaluate_two_stage(ADAPTER, **SIDES, sizes=(20,), seed=1, resamples=200)
    assert other.directions[0].sizes[0].zipf != result.directions[0].sizes[2].zipf
    assert other.directions[0].sizes[0].uniform == result.directions[0].sizes[2].uniform


def test_tables_show_every_row(result, capsys):
    print_two_stage(result)
    shown = capsys.readouterr().out
    for words in ("old/old (today)", "mapped/old (one stage)", "N = 20", "new/new (re-index)", "Take N = "):
        assert words in shown
        assert words in two_stage_markdown(result)


def test_leaks_and_queries_without_an_answer_are_told(result):
    assert any("Leakage" in warning for warning in result.warnings)
    few = Relevance.from_links(WORLD.links[:100])
    found = evaluate_two_stage(ADAPTER, **{**SIDES, "relevant": few}, sizes=(5,), resamples=100)
    assert any("no right answer" in warning for warning in found.warnings)
    assert [d.queries for d in found.directions] == [50, 100]


def test_two_encoder_adapters_need_the_old_queries():
    hybrid = METHODS["slerp"]().fit(WORLD.pairs(), seed=0)
    with pytest.raises(EvaluationError, match="two-encoder"):
        evaluate_two_stage(hybrid, **SIDES, sizes=(5,), resamples=100)
    found = evaluate_two_stage(hybrid, **SIDES, sizes=(5,), old_queries=list(WORLD.old.values()), resamples=100)
    assert len(found.directions) == 2


def test_bad_input_is_refused():
    with pytest.raises(EvaluationError, match="1 or more"):
        evaluate_two_stage(ADAPTER, **SIDES, sizes=())
    with pytest.raises(EvaluationError, match="1 or more"):
        evaluate_two_stage(ADAPTER, **SIDES, sizes=(0, 5))
    with pytest.raises(SpaceMismatch, match="swapped"):
        evaluate_two_stage(ADAPTER, **{**SIDES, "new_gallery": SIDES["gallery"]})
    half = [e.select(np.arange(50)) for e in WORLD.new.values()]
    with pytest.raises(EvaluationError, match="new_gallery"):
        evaluate_two_stage(ADAPTER, **{**SIDES, "new_gallery": half})
    strangers = Relevance.from_links([("nobody", "nothing")])
    with pytest.raises(EvaluationError, match="No query can be evaluated"):
        evaluate_two_stage(ADAPTER, **{**SIDES, "relevant": strangers})
    for options in ({"exponent": 0.0}, {"served": ()}, {"served": (10, 5)}, {"served": (0,)}):
        with pytest.raises(EvaluationError):
            Traffic(**options)


def test_a_gallery_without_new_vectors_is_left_out_and_told():
    found = evaluate_two_stage(ADAPTER, **{**SIDES, "new_gallery": WORLD.new["image"]}, sizes=(5,), resamples=100)
    assert [d.name for d in found.directions] == ["text→image"]
    assert any("not at hand" in warning for warning in found.warnings)


def test_vectors_on_disk_give_what_vectors_in_memory_do(tmp_path):
    stored = {}
    for side, sets in (("old", WORLD.old), ("new", WORLD.new)):
        for modality, embeddings in sets.items():
            embeddings.save(tmp_path / side / modality)
            stored[side, modality] = Embeddings.load(tmp_path / side / modality)
    sides = {name: [stored[side, m] for m in WORLD.old] for name, side in (
        ("queries", "new"), ("gallery", "old"), ("new_gallery", "new"))}  # fmt: skip
    options = {"relevant": LINKS, "sizes": (10,), "resamples": 100}
    one, two = (evaluate_two_stage(ADAPTER, **given, **options) for given in (sides, {k: SIDES[k] for k in sides}))
    assert one.to_dict() == two.to_dict()


def test_a_corrected_first_stage_is_that_of_two_stage_search_and_leaves_one_stage_plain(result):
    gallery, queries = WORLD.old["text"], WORLD.new["image"]
    bank = ADAPTER.transform(WORLD.new["text"])
    bank = Embeddings([f"logged-{i}" for i in range(60)], bank.matrix()[:60], bank.space, "image")
    correction = Correction(csls_offsets(gallery, bank, dose=2.0))
    found = evaluate_two_stage(ADAPTER, **SIDES, sizes=(5,), resamples=200, corrections={"image→text": correction})
    corrected, plain = found.directions
    assert corrected.systems["mapped/old"] == result.directions[0].systems["mapped/old"]
    assert plain.sizes[0].metrics == result.directions[1].sizes[1].metrics
    served = TwoStage(ADAPTER, gallery, new_gallery=WORLD.new["text"], candidates=5, correction=correction)
    answers = served.search(queries, len(gallery)).ids.tolist()
    right = {(image, text) for text, image in WORLD.links}
    ranks = [
        1 + next(p for p, name in enumerate(row) if (q, name) in right)
        for q, row in zip(queries.ids, answers, strict=True)
    ]
    assert corrected.sizes[0].metrics["MRR"].value == pytest.approx(np.mean(1 / np.asarray(ranks)))
    assert corrected.sizes[0].metrics["MRR"] != result.directions[0].sizes[1].metrics["MRR"]
    with pytest.raises(EvaluationError):
        TwoStage(ADAPTER, WORLD.old["image"], new_gallery=WORLD.new["image"], correction=correction)
