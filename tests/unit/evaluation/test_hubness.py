"""Hubness correction against the formulas written out item by item, and inside an evaluation."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from upgrades import make_upgrade

import crossfade as cf
from crossfade.embeddings import Embeddings, Rows
from crossfade.errors import ConfigError, EvaluationError, SpaceMismatch
from crossfade.evaluation import (
    CSLS,
    Correction,
    Evaluation,
    QueryBank,
    QueryBankNormalisation,
    Relevance,
    csls_offsets,
    evaluate,
    measure,
    querybank_normalisation,
    search,
)
from crossfade.methods import Procrustes, Slerp
from crossfade.reporting import to_html, to_markdown
from crossfade.reporting.console import evaluation_table
from crossfade.spaces import Space

METRICS = ("cosine", "dot", "l2")


def embeddings(vectors: Any, *, prefix: str = "", metric: str = "dot", modality: str = "image") -> Embeddings:
    space = Space(model="m", dimension=vectors.shape[1], metric=metric, normalized=False)
    return Embeddings([f"{prefix}{i}" for i in range(len(vectors))], vectors.astype(np.float32), space, modality)


def slow_similarity(q: list[float], g: list[float], metric: str) -> float:
    product = sum(x * y for x, y in zip(q, g, strict=True))
    if metric == "l2":
        return -0.5 * sum((x - y) ** 2 for x, y in zip(q, g, strict=True))
    if metric == "cosine":
        return product / math.sqrt(sum(x * x for x in q)) / math.sqrt(sum(y * y for y in g))
    return product


def slow_table(queries: Embeddings, gallery: Embeddings) -> np.ndarray:
    metric = gallery.space.metric
    rows, columns = (e.matrix().astype(float).tolist() for e in (queries, gallery))
    return np.asarray([[slow_similarity(q, g, metric) for g in columns] for q in rows])


def sets(seed: int, metric: str, *, d: int = 4) -> tuple[Embeddings, Embeddings, Embeddings]:
    """Queries, gallery and bank."""
    generator = np.random.default_rng(seed)
    sizes = generator.integers(1, 40, size=3)
    return tuple(  # type: ignore[return-value]
        embeddings(generator.standard_normal((size, d)) + 0.3, prefix=prefix, metric=metric)
        for size, prefix in zip(sizes, ("q", "g", "b"), strict=True)
    )


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000), metric=st.sampled_from(METRICS), k=st.integers(1, 50), dose=st.sampled_from([1.0, 2.5])
)
def test_csls_offsets_are_the_formula(seed: int, metric: str, k: int, dose: float) -> None:
    _, gallery, bank = sets(seed, metric)
    table = slow_table(bank, gallery)
    expected = [-0.5 * dose * float(np.mean(sorted(column, reverse=True)[:k])) for column in table.T]
    np.testing.assert_allclose(csls_offsets(gallery, bank, neighbours=k, dose=dose), expected, atol=2e-5)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    metric=st.sampled_from(METRICS),
    beta=st.sampled_from([0.5, 20.0]),
    activated=st.integers(1, 3),
)
def test_querybank_normalisation_ranks_as_the_published_quotient(
    seed: int, metric: str, beta: float, activated: int
) -> None:
    """exp(β s) / Σ_b exp(β s_b) for queries whose first answer is activated, s for the others."""
    queries, gallery, bank = sets(seed, metric)
    of_bank, plain = slow_table(bank, gallery), slow_table(queries, gallery)
    active = set(np.argsort(-of_bank, axis=1, kind="stable")[:, :activated].ravel().tolist())
    found = querybank_normalisation(gallery, bank, inverse_temperature=beta, activated=activated)
    assert found.active is not None
    assert set(np.flatnonzero(found.active).tolist()) == active
    shift = max(of_bank.max(), plain.max())
    sums = np.exp(beta * (of_bank - shift)).sum(axis=0)
    answers = search(queries, gallery, k=len(gallery), correction=found)
    for row, scores in enumerate(plain):
        quotient = beta * (scores - shift) - np.log(sums)
        expected = quotient / beta if int(scores.argmax()) in active else scores
        np.testing.assert_allclose(answers.scores[row], np.sort(expected)[::-1], atol=2e-4)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    metric=st.sampled_from(METRICS),
    dynamic=st.booleans(),
    block=st.sampled_from([3, 4096]),
    tile=st.sampled_from([7, 10_000]),
)
def test_search_and_ranks_add_the_correction_to_every_score(
    seed: int, metric: str, dynamic: bool, block: int, tile: int
) -> None:
    queries, gallery, _ = sets(seed, metric)
    generator = np.random.default_rng(seed + 1)
    offsets = generator.standard_normal(len(gallery)).astype(np.float32)
    active = generator.random(len(gallery)) < 0.5 if dynamic else None
    table = slow_table(queries, gallery)
    for scores in table:
        if active is None or active[scores.argmax()]:
            scores += offsets
    order = np.argsort(-table, axis=1, kind="stable")
    k = int(generator.integers(1, len(gallery) + 1))
    correction = Correction(offsets, active)
    answers = search(queries, gallery, k=k, correction=correction, block=block)
    np.testing.assert_array_equal(answers.rows, order[:, :k])
    right = generator.integers(0, len(gallery), size=len(queries))
    judgements = Relevance.from_qrels(
        {str(q): {str(gallery.ids[r]): 1.0} for q, r in zip(queries.ids, right, strict=True)}
    ).judge(queries, gallery)
    assert judgements is not None
    found = measure(queries, gallery, judgements, metrics=["R@1", "mAP"], correction=correction, tile_scores=tile)
    expected = [int(np.flatnonzero(order[row] == right[row])[0]) + 1 for row in range(len(queries))]
    np.testing.assert_array_equal(found.first, expected)
    np.testing.assert_allclose(found.values["mAP"], 1.0 / np.asarray(expected))


def test_a_zero_correction_changes_nothing() -> None:
    queries, gallery, _ = sets(5, "cosine")
    nothing = Correction(np.zeros(len(gallery), dtype=np.float32))
    plain, corrected = (search(queries, gallery, k=3, correction=c) for c in (None, nothing))
    np.testing.assert_array_equal(plain.rows, corrected.rows)
    np.testing.assert_array_equal(plain.scores, corrected.scores)


def test_a_query_s_own_item_is_left_out_before_its_best_answer_is_asked_for() -> None:
    """Its own vector is always its best answer, and active; what counts is the best of the others, which is not."""
    gallery = embeddings(np.asarray([[1.0, 0.0], [0.9, 0.1], [0.8, 0.3]]))
    correction = Correction(np.float32([0.0, -5.0, 0.0]), np.asarray([True, False, False]))
    answers = search(gallery.select([0]), gallery, k=2, exclude_same_id=True, correction=correction)
    assert answers.rows.tolist() == [[1, 2]]
    judgements = Relevance.from_labels({"0": "a"}, {"0": "a", "1": "b", "2": "a"}).judge(gallery.select([0]), gallery)
    assert judgements is not None
    assert measure(gallery.select([0]), gallery, judgements, metrics=["MRR"], correction=correction).first.tolist() == [
        2
    ]


def test_a_gallery_on_disk_gives_the_same_correction(tmp_path: Path) -> None:
    _, gallery, bank = sets(8, "cosine")
    np.save(tmp_path / "g.npy", gallery.matrix())
    on_disk = Embeddings(gallery.ids, Rows([np.load(tmp_path / "g.npy", mmap_mode="r")]), gallery.space, "image")
    np.testing.assert_array_equal(csls_offsets(on_disk, bank), csls_offsets(gallery, bank))
    for field in ("offsets", "active"):
        first, second = (getattr(querybank_normalisation(g, bank), field) for g in (on_disk, gallery))
        np.testing.assert_array_equal(first, second)


def test_a_hub_is_moved_back() -> None:
    """One gallery item is near to everything and right for nothing; without a correction it answers most queries."""
    generator = np.random.default_rng(0)
    meaning = generator.standard_normal((60, 8))
    meaning[:, 0] = 0.0
    pull = np.eye(8)[:1] * 3.0
    gallery = embeddings(np.concatenate([meaning, pull]), prefix="g", metric="cosine")
    queries = embeddings(meaning + pull, prefix="q", metric="cosine")
    bank = embeddings(generator.standard_normal((200, 8)) * ([0.0] + [1.0] * 7) + pull, prefix="b", metric="cosine")
    judgements = Relevance.from_qrels({f"q{i}": {f"g{i}": 1.0} for i in range(60)}).judge(queries, gallery)
    assert judgements is not None

    def first(correction: Correction | None) -> float:
        return float(measure(queries, gallery, judgements, metrics=["R@1"], correction=correction).values["R@1"].mean())

    plain = first(None)
    assert plain < 0.5
    for method in (CSLS(), QueryBankNormalisation()):
        assert first(method.correction(gallery, bank)) > plain + 0.1


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda g, b: csls_offsets(g, b, neighbours=0), "1 or more neighbours; found 0"),
        (lambda g, b: csls_offsets(g, b, dose=-1.0), r"found -1\.0"),
        (lambda g, b: csls_offsets(g, b, dose=math.nan), "found nan"),
        (lambda g, b: querybank_normalisation(g, b, inverse_temperature=0.0), "above 0"),
        (lambda g, b: querybank_normalisation(g, b, activated=0), "1 or more answers"),
    ],
)
def test_options_out_of_range_are_refused(call: Any, words: str) -> None:
    _, gallery, bank = sets(1, "dot")
    with pytest.raises(ConfigError, match=words):
        call(gallery, bank)


def test_a_bank_of_another_space_and_a_correction_of_another_gallery_are_refused() -> None:
    queries, gallery, _ = sets(2, "dot")
    _, _, stranger = sets(2, "cosine")
    for call in (csls_offsets, querybank_normalisation):
        with pytest.raises(SpaceMismatch):
            call(gallery, stranger)
    for wrong in (
        Correction(np.zeros(len(gallery) + 1, dtype=np.float32)),
        Correction(np.full(len(gallery), np.nan, dtype=np.float32)),
        Correction(np.zeros(len(gallery), dtype=np.float32), np.ones(len(gallery) + 2, dtype=bool)),
    ):
        with pytest.raises(EvaluationError, match="Make it from this gallery"):
            search(queries, gallery, k=1, correction=wrong)


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A cross-modal upgrade: the arguments of evaluate, without and with a bank."""
    upgrade = make_upgrade(tmp_path_factory.mktemp("upgrade"), images=160)
    old, new = upgrade.old, upgrade.new
    half = {m: np.arange(len(s)) < len(s) // 2 for m, s in old.sets.items()}
    train, rest = (
        {
            name: [s.select(half[m] if keep else ~half[m]) for m, s in side.sets.items()]
            for name, side in (("old", old), ("new", new))
        }
        for keep in (True, False)
    )
    known = {str(i) for s in train["new"] for i in s.ids}
    pairs = cf.pair(train["old"], train["new"], links=[link for link in old.links if link[0] in known])
    return {
        "pairs": pairs,
        "bank": (train["new"], train["old"]),
        "sets": {
            "queries": rest["new"],
            "gallery": rest["old"],
            "old_queries": rest["old"],
            "new_gallery": rest["new"],
            "relevant": Relevance.from_links(old.links),
            "resamples": 200,
        },
    }


@pytest.mark.parametrize("correction", [CSLS(neighbours=5), QueryBankNormalisation()], ids=lambda c: c.name)
def test_every_system_is_granted_its_own_bank(judged: dict[str, Any], correction: Any) -> None:
    adapter = Procrustes().fit(judged["pairs"])
    new_bank, old_bank = judged["bank"]
    plain = evaluate(adapter, **judged["sets"])
    found = evaluate(adapter, **judged["sets"], bank=QueryBank(new_bank, old_bank, correction))
    assert replace(found, directions=tuple(replace(d, hubness=None) for d in found.directions)) == plain
    direction = next(d for d in found.directions if d.name == "text→image")
    hubness = direction.hubness
    assert hubness is not None
    assert hubness.bank == 160
    assert hubness.correction["name"] == correction.name
    assert set(hubness.scores) == set(hubness.changes) == set(direction.scores)
    queries, gallery = ({s.modality: s for s in judged["sets"][name]} for name in ("queries", "new_gallery"))
    olds, stored = ({s.modality: s for s in judged["sets"][name]} for name in ("old_queries", "gallery"))
    news, before = ({s.modality: s for s in bank} for bank in (new_bank, old_bank))
    judgements = judged["sets"]["relevant"].judge(queries["text"], stored["image"])
    by_hand = {
        "old/old": (olds["text"], stored["image"], before["text"]),
        "mapped/old": (adapter.transform(queries["text"]), stored["image"], adapter.transform(news["text"])),
        "new/new": (queries["text"], gallery["image"], news["text"]),
        "mapped/mapped": (
            adapter.transform(queries["text"]), adapter.transform(gallery["image"]), adapter.transform(news["text"])
        ),
    }  # fmt: skip
    for system, (asking, searched, bank) in by_hand.items():
        offsets = correction.correction(searched, bank)
        values = measure(asking, searched, judgements, metrics=["R@1"], correction=offsets).values["R@1"]
        assert hubness.scores[system].metrics["R@1"].value == pytest.approx(values.mean())
        before_it = direction.scores[system].metrics["R@1"].value
        assert hubness.changes[system].value == pytest.approx(values.mean() - before_it)
        assert hubness.changes[system].low <= hubness.changes[system].value <= hubness.changes[system].high


def test_two_encoders_map_the_bank_by_its_old_vectors(judged: dict[str, Any]) -> None:
    adapter = Slerp(weight=0.5).fit(judged["pairs"])
    found = evaluate(adapter, **judged["sets"], bank=QueryBank(*judged["bank"]))
    for direction in found.directions:
        assert direction.hubness is not None
        assert set(direction.hubness.scores) == set(direction.scores)


def test_results_with_hubness_come_back_from_json_and_old_ones_still_do(judged: dict[str, Any]) -> None:
    adapter = Procrustes().fit(judged["pairs"])
    found = evaluate(adapter, **judged["sets"], bank=QueryBank(*judged["bank"]))
    assert Evaluation.from_dict(found.to_dict()) == found
    older = evaluate(adapter, **judged["sets"]).to_dict()
    for direction in older["directions"]:
        assert direction.pop("hubness") is None
    assert all(d.hubness is None for d in Evaluation.from_dict(older).directions)


def test_a_bank_must_be_other_queries_with_both_models_vectors(judged: dict[str, Any]) -> None:
    adapter, arguments = Procrustes().fit(judged["pairs"]), judged["sets"]
    new_bank, old_bank = judged["bank"]
    with pytest.raises(EvaluationError, match=r"80 of its 80 image ones are judged, the first is 'i80'"):
        evaluate(adapter, **arguments, bank=QueryBank(arguments["queries"], arguments["old_queries"]))
    with pytest.raises(EvaluationError, match="granted to old/old too"):
        evaluate(adapter, **arguments, bank=QueryBank(new_bank))
    with pytest.raises(EvaluationError, match="the bank's old"):
        evaluate(adapter, **arguments, bank=QueryBank(new_bank, [s.select(range(5)) for s in old_bank]))
    with pytest.raises(SpaceMismatch, match="The bank's queries"):
        evaluate(adapter, **arguments, bank=QueryBank(old_bank, new_bank))
    texts = [s for s in arguments["queries"] if s.modality == "text"]
    images = [s for s in new_bank if s.modality == "image"]
    with pytest.raises(EvaluationError, match="a judged modality"):
        evaluate(adapter, **{**arguments, "queries": texts, "old_queries": None}, bank=QueryBank(images))


def test_a_bank_without_old_vectors_serves_where_old_old_is_not_measured(judged: dict[str, Any]) -> None:
    texts = [s for s in judged["bank"][0] if s.modality == "text"]
    arguments = {**judged["sets"], "old_queries": None}
    found = evaluate(Procrustes().fit(judged["pairs"]), **arguments, bank=QueryBank(texts))
    by_name = {d.name: d.hubness for d in found.directions}
    assert by_name["image→text"] is None
    assert by_name["text→image"] is not None
    assert set(by_name["text→image"].scores) == {"mapped/old", "mapped/mapped", "new/new"}


def test_reports_show_the_correction_apart_and_only_where_there_is_one(judged: dict[str, Any]) -> None:
    adapter = Procrustes().fit(judged["pairs"])
    plain = evaluate(adapter, **judged["sets"])
    found = evaluate(adapter, **judged["sets"], bank=QueryBank(*judged["bank"], CSLS(neighbours=7)))

    def printed(evaluation: Evaluation) -> str:
        console = Console(width=160, record=True, file=io.StringIO())
        console.print(evaluation_table(evaluation))
        return console.export_text()

    for draw in (to_html, to_markdown, printed):
        assert "neighbours 7" not in draw(plain)
        assert "CSLS (neighbours 7, dose 1.0) by a bank of 160 queries" in draw(found)
    assert 'id="hubness"' in to_html(found)
    assert 'href="#hubness"' in to_html(found)
    assert "hubness" not in to_html(plain)
    assert to_markdown(found).count("### With a hubness correction") == 2
