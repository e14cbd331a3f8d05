"""Ranks and metrics against scikit-learn and the slow definitions, with many ties."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, ndcg_score

from crossfade.embeddings import Embeddings
from crossfade.errors import EvaluationError, SpaceMismatch
from crossfade.evaluation import Relevance, measure, search
from crossfade.evaluation.metrics import parse_metric
from crossfade.spaces import Space

NAMES = ["mAP", "CMC@1", "CMC@5", "R@3", "MRR", "nDCG@10", "nDCG@2"]


def embeddings(vectors, *, prefix="", ids=None, metric="dot", modality="image", metadata=None):
    space = Space(model="m", dimension=vectors.shape[1], metric=metric, normalized=False)
    names = [f"{prefix}{i}" for i in range(len(vectors))] if ids is None else ids
    return Embeddings(names, vectors, space, modality, metadata=metadata)


def labels(embeddings, values):
    return dict(zip(embeddings.ids.tolist(), np.asarray(values).tolist(), strict=True))


def first_rank(scores, right):
    order = np.argsort(-scores, kind="stable")
    return int(np.flatnonzero(right[order])[0]) + 1


def check_row(found, row, scores, right, grades):
    """One query against the slow definitions; ``scores`` and ``right`` without the query itself."""
    rank = first_rank(scores, right)
    assert found.first[row] == rank
    values = {name: found.values[name][row] for name in found.values}
    assert values["mAP"] == pytest.approx(average_precision_score(right, scores), abs=1e-12)
    assert values["CMC@1"] == (rank <= 1)
    assert values["CMC@5"] == (rank <= 5)
    assert values["R@3"] == (rank <= 3)
    assert values["MRR"] == pytest.approx(1 / rank)
    if len(scores) > 1:
        for k in (10, 2):
            assert values[f"nDCG@{k}"] == pytest.approx(ndcg_score([grades], [scores], k=k), abs=1e-12)


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 100_000), n=st.integers(1, 30), classes=st.integers(1, 4), tile=st.sampled_from([1, 50, 10_000])
)
def test_labels_equal_scikit_learn_with_many_ties(seed, n, classes, tile):
    rng = np.random.default_rng(seed)
    gallery = embeddings(rng.integers(-1, 2, size=(n, 3)).astype(np.float32))
    queries = embeddings(rng.integers(-1, 2, size=(6, 3)).astype(np.float32), prefix="q")
    asked, stored = rng.integers(0, classes, size=6), rng.integers(0, classes, size=n)
    judgements = Relevance.from_labels(labels(queries, asked), labels(gallery, stored)).judge(queries, gallery)
    rows = np.flatnonzero(judgements.answerable())
    np.testing.assert_array_equal(rows, np.flatnonzero(np.isin(asked, stored)))
    if len(rows) == 0:
        return
    found = measure(queries.select(rows), gallery, judgements.select(rows), metrics=NAMES, tile_scores=tile)
    scores = queries.matrix()[rows] @ gallery.matrix().T
    for i, row in enumerate(rows):
        right = stored == asked[row]
        check_row(found, i, scores[i], right, right.astype(float))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 100_000), n=st.integers(2, 25))
def test_grades_equal_scikit_learn_with_many_ties(seed, n):
    rng = np.random.default_rng(seed)
    gallery = embeddings(rng.integers(-1, 2, size=(n, 3)).astype(np.float32), prefix="d")
    queries = embeddings(rng.integers(-1, 2, size=(5, 3)).astype(np.float32), prefix="q")
    grades = rng.integers(0, 4, size=(5, n)).astype(float)
    grades[:, 0] = 1
    qrels = {f"q{i}": {f"d{j}": grades[i, j] for j in rng.permutation(n)} for i in range(5)}
    judgements = Relevance.from_qrels(qrels).judge(queries, gallery)
    found = measure(queries, gallery, judgements, metrics=NAMES)
    scores = queries.matrix() @ gallery.matrix().T
    for i in range(5):
        check_row(found, i, scores[i], grades[i] > 0, grades[i])


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 100_000), n=st.integers(3, 25))
def test_self_exclusion_is_by_id_in_a_shuffled_gallery(seed, n):
    rng = np.random.default_rng(seed)
    vectors = rng.integers(-2, 3, size=(n, 3)).astype(np.float32)
    classes = rng.integers(0, 2, size=n)
    ids = np.array([f"item{i}" for i in range(n)])
    order = rng.permutation(n)
    queries, gallery = embeddings(vectors, ids=ids), embeddings(vectors[order], ids=ids[order])
    judgements = Relevance.from_labels(labels(queries, classes)).judge(queries, gallery)
    rows = np.flatnonzero(judgements.answerable())
    if len(rows) == 0:
        return
    found = measure(queries.select(rows), gallery, judgements.select(rows), metrics=NAMES)
    for i, row in enumerate(rows):
        others = order != row
        right = (classes[order] == classes[row])[others]
        check_row(found, i, (vectors[order] @ vectors[row])[others], right, right.astype(float))


def test_equal_label_lists_do_not_make_top_1_perfect():
    """Evaluators that drop gallery item i for query i, or count it, go wrong where both label lists are equal."""
    rng = np.random.default_rng(0)
    classes = np.repeat(np.arange(50), 4)
    queries = embeddings(rng.standard_normal((200, 16)).astype(np.float32), prefix="q")
    gallery = embeddings(rng.standard_normal((200, 16)).astype(np.float32), prefix="g")
    judgements = Relevance.from_labels(labels(queries, classes), labels(gallery, classes)).judge(queries, gallery)
    assert (judgements.own == -1).all()
    found = measure(queries, gallery, judgements, metrics=["CMC@1", "mAP"])
    assert found.values["CMC@1"].mean() < 0.1
    scores = queries.matrix() @ gallery.matrix().T
    expected = [average_precision_score(classes == c, s) for c, s in zip(classes, scores, strict=True)]
    np.testing.assert_allclose(found.values["mAP"], expected, atol=1e-12)


def test_links_count_any_positive_in_both_directions():
    images = embeddings(np.eye(4, dtype=np.float32), ids=["a", "b", "c", "d"])
    texts = embeddings(
        np.array([[1, 0, 0, 0], [0.5, 1, 0, 0], [0, 1, 0.5, 0.7], [0, 0, 0, 1]], np.float32),
        ids=["t1", "t2", "t3", "t4"],
        modality="text",
    )
    relevance = Relevance.from_links([("t1", "a"), ("t2", "a"), ("t3", "c"), ("t4", "d"), ("t4", "b")])
    forward = relevance.judge(texts, images)
    assert measure(texts, images, forward, metrics=["R@1"]).first.tolist() == [1, 2, 3, 1]
    assert forward.groups.tolist() == [0, 0, 1, 2]
    back = relevance.judge(images, texts)
    assert measure(images, texts, back, metrics=["R@1"]).first.tolist() == [1, 4, 1, 1]
    assert relevance.judge(images, images) is None
    assert relevance.judge(texts, texts) is None


def test_ranks_agree_with_search():
    rng = np.random.default_rng(4)
    gallery = embeddings(rng.integers(-2, 3, size=(300, 4)).astype(np.float32), metric="l2")
    queries = embeddings(rng.integers(-2, 3, size=(40, 4)).astype(np.float32), metric="l2")
    found = measure(queries, gallery, Relevance.same_id().judge(queries, gallery), metrics=["R@7"])
    rows = search(queries, gallery, k=300).rows
    np.testing.assert_array_equal(found.first, np.argmax(rows == np.arange(40)[:, None], axis=1) + 1)


def test_names_of_metrics():
    assert (parse_metric("nDCG@10").kind, parse_metric("nDCG@10").k) == ("nDCG", 10)
    for wrong in ("R@0", "R", "recall@5", "mAP@10", "R@5x"):
        with pytest.raises(EvaluationError, match="R@K, CMC@K"):
            parse_metric(wrong)


def test_bad_input_is_refused():
    side = embeddings(np.eye(3, dtype=np.float32))
    judgements = Relevance.same_id().judge(side, side)
    other = Embeddings(["a"], np.ones((1, 3), np.float32), Space(model="other", dimension=3), "image")
    with pytest.raises(SpaceMismatch):
        measure(other, side, judgements, metrics=["R@1"])
    with pytest.raises(EvaluationError, match="found 3 for 2"):
        measure(side.select([0, 1]), side, judgements, metrics=["R@1"])
    nobody = Relevance.same_id().judge(side, embeddings(np.eye(3, dtype=np.float32), prefix="g"))
    with pytest.raises(EvaluationError, match="must have a positive"):
        measure(side, side, nobody, metrics=["R@1"])
