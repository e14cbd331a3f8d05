"""Exact search against the slow definition, with many ties, at any block size."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossfade.embeddings import Embeddings
from crossfade.errors import ConfigError, EvaluationError, InvalidVectors, SpaceMismatch
from crossfade.evaluation import search
from crossfade.spaces import Space


def space(dimension, metric="dot", model="m"):
    return Space(model=model, dimension=dimension, metric=metric, normalized=False)


def embeddings(vectors, *, prefix="", metric="dot", ids=None, model="m"):
    names = [f"{prefix}{i}" for i in range(len(vectors))] if ids is None else ids
    return Embeddings(names, vectors, space(vectors.shape[1], metric, model), "image")


def slow_scores(queries, gallery, metric):
    q, g = queries.astype(np.float64), gallery.astype(np.float64)
    if metric == "l2":
        return -np.sqrt(((q[:, None] - g[None]) ** 2).sum(axis=2))
    if metric == "cosine":
        q, g = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (q, g))
    return q @ g.T


def slow_rows(scores, k):
    """Best first; of equal scores the lower row first."""
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]


@settings(max_examples=60, deadline=None)
@given(data=st.data(), metric=st.sampled_from(["dot", "l2"]))
def test_equals_a_stable_sort_with_many_ties(data, metric):
    n, d = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 4))
    rng = np.random.default_rng(data.draw(st.integers(0, 10_000)))
    gallery = rng.integers(-1, 2, size=(n, d)).astype(np.float32)
    queries = rng.integers(-1, 2, size=(5, d)).astype(np.float32)
    k = data.draw(st.integers(1, n))
    found = search(
        embeddings(queries, prefix="q", metric=metric),
        embeddings(gallery, metric=metric),
        k=k,
        block=data.draw(st.integers(1, n + 3)),
    )
    scores = slow_scores(queries, gallery, metric)
    np.testing.assert_array_equal(found.rows, slow_rows(scores, k))
    np.testing.assert_allclose(found.scores, np.take_along_axis(scores, found.rows, axis=1), rtol=1e-6)
    assert found.scores.dtype == np.float32
    assert found.rows.dtype == np.int64


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_every_block_size_gives_the_same(metric, dtype):
    rng = np.random.default_rng(3)
    gallery, queries = rng.standard_normal((700, 24)).astype(dtype), rng.standard_normal((60, 24)).astype(dtype)
    asked, stored = embeddings(queries, prefix="q", metric=metric), embeddings(gallery, metric=metric)
    whole = search(asked, stored, k=10, block=1000)
    np.testing.assert_array_equal(whole.rows, slow_rows(slow_scores(queries, gallery, metric), 10))
    for block in (1, 7, 64, 699):
        part = search(asked, stored, k=10, block=block)
        np.testing.assert_array_equal(part.rows, whole.rows)
        np.testing.assert_array_equal(part.scores, whole.scores)


def test_copies_of_a_vector_come_in_row_order_whatever_their_place_in_a_block():
    rng = np.random.default_rng(5)
    vector = rng.standard_normal(37).astype(np.float32)
    gallery = rng.standard_normal((100, 37)).astype(np.float32)
    copies = [2, 31, 32, 63, 97, 99]
    gallery[copies] = vector
    for block in (7, 33, 100):
        found = search(
            embeddings(vector[None], prefix="q", metric="cosine"),
            embeddings(gallery, metric="cosine"),
            k=6,
            block=block,
        )
        assert found.rows[0].tolist() == copies


def test_equals_faiss():
    faiss = pytest.importorskip("faiss")
    rng = np.random.default_rng(0)
    gallery, queries = (rng.standard_normal((n, 32)).astype(np.float32) for n in (5000, 300))
    index = faiss.IndexFlatIP(32)
    index.add(gallery)
    scores, rows = index.search(queries, 10)
    found = search(embeddings(queries, prefix="q"), embeddings(gallery), k=10, block=512)
    np.testing.assert_array_equal(found.rows, rows)
    np.testing.assert_allclose(found.scores, scores, rtol=1e-5)


def test_a_memory_map_gives_what_the_array_gives(tmp_path):
    rng = np.random.default_rng(1)
    gallery = embeddings(rng.standard_normal((500, 16)).astype(np.float16), metric="cosine")
    gallery.save(tmp_path / "gallery")
    mapped = Embeddings.load(tmp_path / "gallery")
    queries = embeddings(rng.standard_normal((9, 16)).astype(np.float32), prefix="q", metric="cosine")
    a, b = (search(queries, side, k=5, block=128) for side in (gallery, mapped))
    np.testing.assert_array_equal(a.rows, b.rows)
    np.testing.assert_array_equal(a.scores, b.scores)


def test_the_querys_own_item_is_left_out_by_id_wherever_it_stands():
    rng = np.random.default_rng(2)
    vectors = rng.standard_normal((50, 8)).astype(np.float32)
    ids = np.array([f"i{i}" for i in range(50)])
    order = rng.permutation(50)
    queries, gallery = (
        embeddings(vectors, ids=ids, metric="l2"),
        embeddings(vectors[order], ids=ids[order], metric="l2"),
    )
    found = search(queries, gallery, k=50, exclude_same_id=True)
    assert (found.rows[:, -1] == -1).all()
    assert np.isneginf(found.scores[:, -1]).all()
    names = gallery.ids[found.rows[:, :-1]]
    assert not (names == ids[:, None]).any()
    scores = slow_scores(vectors, vectors[order], "l2")
    scores[np.arange(50), gallery.locate(ids)] = -np.inf
    np.testing.assert_array_equal(found.rows[:, :10], slow_rows(scores, 10))


def test_bad_input_is_refused():
    vectors = np.ones((4, 3), dtype=np.float32)
    zero = vectors.copy()
    zero[2] = 0
    fine = embeddings(vectors, metric="cosine")
    with pytest.raises(InvalidVectors, match="first is '2'"):
        search(fine, embeddings(zero, metric="cosine"), k=1)
    with pytest.raises(InvalidVectors, match="zero"):
        search(embeddings(zero, metric="cosine"), fine, k=1)
    with pytest.raises(SpaceMismatch, match="model"):
        search(embeddings(vectors, metric="cosine", model="other"), fine, k=1)
    for k in (0, 5):
        with pytest.raises(EvaluationError, match="between 1 and the gallery's 4"):
            search(fine, fine, k=k)
    with pytest.raises(ConfigError, match="cosine, dot, l2"):
        search(fine, fine, k=1, metric="hamming")
