"""Two-stage search against the slow definition, what it embeds and how often, and what becomes of items it cannot embed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import two_modalities

import crossfade as cf
from crossfade.embeddings import Embeddings
from crossfade.errors import (
    ConfigError,
    CorruptItem,
    EncoderError,
    EvaluationError,
    InvalidVectors,
    OutOfMemory,
    SpaceMismatch,
)
from crossfade.methods import METHODS
from crossfade.methods.linear import LinearAdapter
from crossfade.spaces import Space
from crossfade.two_stage import TwoStage, VectorCache

WORLD = two_modalities(items=150)
ADAPTER = METHODS["procrustes"]().fit(WORLD.pairs(), seed=0)
QUERIES = WORLD.new["text"].select(np.arange(0, 300, 3))
OLD, NEW = WORLD.old["image"], WORLD.new["image"]


class Lookup:
    """New vectors by id, out of a prepared set; remembers every batch that it was asked for."""

    def __init__(self, vectors: Embeddings, *, corrupt: tuple[str, ...] = (), raising: bool = False) -> None:
        self.vectors, self.corrupt, self.raising = vectors, corrupt, raising
        self.batches: list[list[str]] = []

    def __call__(self, ids: np.ndarray) -> np.ndarray:
        self.batches.append(ids.tolist())
        bad = np.isin(ids, self.corrupt)
        if self.raising and bad.any():
            raise CorruptItem("an image in this batch is broken")
        found = self.vectors.rows.take(self.vectors.locate(ids)).copy()
        found[bad] = np.nan
        return found

    @property
    def asked(self) -> list[str]:
        return [name for batch in self.batches for name in batch]


def unchanged(space: Space) -> LinearAdapter:
    matrix = np.eye(space.dimension)
    return LinearAdapter(space, space, matrix=matrix, offsets={"image": np.zeros(space.dimension)})


def similarity(queries: np.ndarray, gallery: np.ndarray, metric: str) -> np.ndarray:
    q, g = queries.astype(np.float64), gallery.astype(np.float64)
    if metric == "l2":
        return -np.sqrt(((q[:, None] - g[None]) ** 2).sum(axis=2))
    if metric == "cosine":
        q, g = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (q, g))
    return q @ g.T


def slow_ranking(old_scores: np.ndarray, new_scores: np.ndarray, n: int, failed: frozenset[int] = frozenset()) -> list:
    """One query's whole ranking by the definition."""
    first = sorted(range(len(old_scores)), key=lambda row: (-old_scores[row], row))
    recalled, rest = first[:n], first[n:]
    fine = sorted((row for row in recalled if row not in failed), key=lambda row: (-new_scores[row], row))
    return fine + [row for row in recalled if row in failed] + rest


def stages() -> tuple[np.ndarray, np.ndarray]:
    mapped = ADAPTER.transform(QUERIES)
    return similarity(mapped.matrix(), OLD.matrix(), "cosine"), similarity(QUERIES.matrix(), NEW.matrix(), "cosine")


@pytest.mark.parametrize("n", [1, 7, 40, 150, 1000])
@pytest.mark.parametrize("k", [1, 10, 150])
def test_equals_the_slow_definition_for_every_n_and_k(n, k):
    old_scores, new_scores = stages()
    found = TwoStage(ADAPTER, OLD, Lookup(NEW), candidates=n).search(QUERIES, k)
    for query in range(len(QUERIES)):
        expected = slow_ranking(old_scores[query].astype(np.float32), new_scores[query].astype(np.float32), n)[:k]
        assert found.rows[query].tolist() == expected
        reranked = min(n, k)
        np.testing.assert_allclose(found.scores[query, :reranked], new_scores[query, expected[:reranked]], rtol=1e-6)
        assert np.isnan(found.scores[query, reranked:]).all()
    np.testing.assert_array_equal(found.ids, OLD.ids[found.rows])
    assert found.failed == ()


@settings(max_examples=30, deadline=None)
@given(data=st.data(), metric=st.sampled_from(["dot", "l2", "cosine"]))
def test_equals_the_slow_definition_under_every_metric_with_ties(data, metric):
    """Whole-number vectors, so that many scores are equal; the identity, so that both stages are known exactly."""
    n, d = data.draw(st.integers(2, 30)), data.draw(st.integers(1, 3))
    rng = np.random.default_rng(data.draw(st.integers(0, 10_000)))
    space = Space(model="m", dimension=d, metric=metric, normalized=False)
    sets = [rng.choice([-2, -1, 1, 2], size=(rows, d)).astype(np.float32) for rows in (6, n, n)]
    queries, old, new = sets
    identity = unchanged(space)
    candidates, k = data.draw(st.integers(1, n + 2)), data.draw(st.integers(1, n))
    made = TwoStage(
        identity,
        Embeddings(np.arange(n), old, space, "image"),
        new_gallery=Embeddings(np.arange(n), new, space, "image"),
        candidates=candidates,
    )
    found = made.search(Embeddings(np.arange(6), queries, space, "image"), k)
    old_scores, new_scores = (similarity(queries, side, metric).astype(np.float32) for side in (old, new))
    old_scores, new_scores = (np.round(scores, 5) for scores in (old_scores, new_scores))
    for query in range(6):
        assert found.rows[query].tolist() == slow_ranking(old_scores[query], new_scores[query], candidates)[:k]


def test_with_all_candidates_it_is_a_full_re_index():
    found = TwoStage(ADAPTER, OLD, new_gallery=NEW, candidates=len(OLD)).search(QUERIES, 20)
    full = cf.search(QUERIES, NEW, k=20)
    np.testing.assert_array_equal(found.rows, full.rows)
    np.testing.assert_array_equal(found.scores, full.scores)


def test_it_rises_above_what_the_old_vectors_can_tell():
    relevant = np.arange(0, 300, 3) // 2
    right = {
        n: np.mean(TwoStage(ADAPTER, OLD, new_gallery=NEW, candidates=n).search(QUERIES, 1).rows[:, 0] == relevant)
        for n in (1, 30)
    }
    assert right[30] > right[1] + 0.1


def test_each_distinct_candidate_is_embedded_once_and_only_candidates_are(tmp_path):
    lookup = Lookup(NEW)
    with VectorCache(tmp_path / "c", NEW.space, modality="image") as cache:
        two_stage = TwoStage(ADAPTER, OLD, lookup, candidates=20, cache=cache, batch=16)
        first = two_stage.search(QUERIES, 10)
        candidates = {str(name) for name in OLD.ids[cf.search(ADAPTER.transform(QUERIES), OLD, k=20).rows].ravel()}
        assert sorted(lookup.asked) == sorted(candidates)
        assert max(map(len, lookup.batches)) == 16
        assert (two_stage.counts.embedded, two_stage.counts.hits) == (len(candidates), 0)
        again = two_stage.search(QUERIES, 10)
        assert sorted(lookup.asked) == sorted(candidates)
        assert (two_stage.counts.queries, two_stage.counts.embedded) == (200, len(candidates))
        assert two_stage.counts.hits == len(candidates)
        np.testing.assert_array_equal(first.rows, again.rows)
        np.testing.assert_array_equal(first.scores, again.scores)
    later = Lookup(NEW)
    with VectorCache(tmp_path / "c", NEW.space, modality="image") as cache:
        TwoStage(ADAPTER, OLD, later, candidates=20, cache=cache).search(QUERIES, 10)
    assert later.batches == []


def test_a_prepared_gallery_counts_what_a_cache_would_have_made():
    two_stage = TwoStage(ADAPTER, OLD, new_gallery=NEW, candidates=20)
    two_stage.search(QUERIES)
    distinct = len(np.unique(cf.search(ADAPTER.transform(QUERIES), OLD, k=20).rows))
    assert (two_stage.counts.embedded, two_stage.counts.hits) == (distinct, 0)
    two_stage.search(QUERIES)
    assert (two_stage.counts.embedded, two_stage.counts.hits) == (distinct, distinct)


def test_many_passes_give_what_one_does(monkeypatch):
    whole = TwoStage(ADAPTER, OLD, Lookup(NEW), candidates=20).search(QUERIES, 30)
    monkeypatch.setattr("crossfade.two_stage.search.PASS_CANDIDATES", 60)
    monkeypatch.setattr("crossfade.two_stage.search.GATHERED", 24 * 20)
    parts = TwoStage(ADAPTER, OLD, Lookup(NEW), candidates=20, batch=3).search(QUERIES, 30)
    np.testing.assert_array_equal(whole.rows, parts.rows)
    np.testing.assert_array_equal(whole.scores, parts.scores)


@pytest.mark.parametrize("raising", [False, True])
@pytest.mark.parametrize("k", [10, 60])
def test_what_cannot_be_embedded_stands_behind_the_re_ranked_in_the_first_stages_order(raising, k):
    corrupt = tuple(f"image-{i}" for i in range(0, 150, 4))
    lookup = Lookup(NEW, corrupt=corrupt, raising=raising)
    two_stage = TwoStage(ADAPTER, OLD, lookup, candidates=30)
    found = two_stage.search(QUERIES, k)
    old_scores, new_scores = stages()
    failed = frozenset(range(0, 150, 4))
    for query in range(len(QUERIES)):
        expected = slow_ranking(old_scores[query].astype(np.float32), new_scores[query].astype(np.float32), 30, failed)[
            :k
        ]
        assert found.rows[query].tolist() == expected
        unscored = [row in failed or place >= 30 for place, row in enumerate(expected)]
        assert np.isnan(found.scores[query]).tolist() == unscored
    touched = set(np.unique(cf.search(ADAPTER.transform(QUERIES), OLD, k=30).rows).tolist())
    assert found.failed == tuple(f"image-{i}" for i in sorted(failed & touched))
    assert two_stage.failed == found.failed
    assert two_stage.counts.failed == len(found.failed)
    before = len(lookup.batches)
    two_stage.search(QUERIES.select([0]), k)
    assert not set(corrupt) & {name for batch in lookup.batches[before:] for name in batch}
    two_stage.retry_failed()
    lookup.corrupt = ()
    assert two_stage.search(QUERIES, k).failed == ()


def test_items_that_a_prepared_gallery_lacks_count_as_failed():
    part = NEW.select(np.arange(100))
    found = TwoStage(ADAPTER, OLD, new_gallery=part, candidates=150).search(QUERIES, 150)
    assert found.failed == tuple(f"image-{i}" for i in range(100, 150))
    assert (found.rows[:, :100] < 100).all()


def test_where_memory_runs_out_the_batch_is_halved():
    lookup = Lookup(NEW)

    def small(ids):
        if len(ids) > 5:
            raise OutOfMemory("a batch of this size does not fit")
        return lookup(ids)

    found = TwoStage(ADAPTER, OLD, small, candidates=20).search(QUERIES)
    np.testing.assert_array_equal(found.rows, TwoStage(ADAPTER, OLD, Lookup(NEW), candidates=20).search(QUERIES).rows)
    assert max(map(len, lookup.batches)) <= 5
    with pytest.raises(OutOfMemory):
        TwoStage(ADAPTER, OLD, lambda ids: (_ for _ in ()).throw(OutOfMemory("full"))).search(QUERIES)


def test_what_was_embedded_before_a_failure_is_kept(tmp_path):
    lookup = Lookup(NEW)

    def failing(ids):
        if len(lookup.batches) == 3:
            raise EncoderError("the model is gone")
        return lookup(ids)

    with VectorCache(tmp_path / "c", NEW.space, modality="image") as cache:
        with pytest.raises(EncoderError, match="gone"):
            TwoStage(ADAPTER, OLD, failing, candidates=50, cache=cache, batch=10).search(QUERIES)
        assert len(cache) == 30
        assert cache.get(lookup.asked)[0].all()


def test_a_two_encoder_adapter_works_where_the_old_vectors_of_the_queries_are_passed():
    hybrid = METHODS["slerp"]().fit(WORLD.pairs(), seed=0)
    old = WORLD.old["text"]
    found = TwoStage(hybrid, OLD, new_gallery=NEW, candidates=20).search(QUERIES, 20, old=old)
    recalled = cf.search(hybrid.transform(QUERIES, old=old), OLD, k=20).rows
    np.testing.assert_array_equal(np.sort(found.rows, axis=1), np.sort(recalled, axis=1))
    with pytest.raises(cf.CrossfadeError, match="old"):
        TwoStage(hybrid, OLD, new_gallery=NEW).search(QUERIES)


def test_spaces_and_modalities_must_fit():
    other = Space(model="third", dimension=NEW.dimension)
    with pytest.raises(SpaceMismatch):
        TwoStage(ADAPTER, NEW, Lookup(NEW))
    with pytest.raises(SpaceMismatch, match="cache"):
        TwoStage(ADAPTER, OLD, Lookup(NEW), cache=VectorCache(None, other, modality="image"))
    with pytest.raises(SpaceMismatch, match="must be image"):
        TwoStage(ADAPTER, OLD, Lookup(NEW), cache=VectorCache(None, NEW.space, modality="text"))
    with pytest.raises(SpaceMismatch):
        TwoStage(ADAPTER, OLD, new_gallery=OLD)
    with pytest.raises(SpaceMismatch):
        TwoStage(ADAPTER, OLD, new_gallery=WORLD.new["text"])
    with pytest.raises(SpaceMismatch):
        TwoStage(ADAPTER, OLD, new_gallery=NEW).search(WORLD.old["text"])


def test_options_out_of_range_are_refused():
    for options in ({}, {"embed": Lookup(NEW), "new_gallery": NEW}):
        with pytest.raises(ConfigError, match="one place"):
            TwoStage(ADAPTER, OLD, **options)
    with pytest.raises(ConfigError, match="nothing to keep"):
        TwoStage(ADAPTER, OLD, new_gallery=NEW, cache=VectorCache(None, NEW.space, modality="image"))
    for options in ({"candidates": 0}, {"batch": 0}):
        with pytest.raises(ConfigError, match="at least 1"):
            TwoStage(ADAPTER, OLD, Lookup(NEW), **options)
    for k in (0, 151):
        with pytest.raises(EvaluationError, match="between 1 and"):
            TwoStage(ADAPTER, OLD, new_gallery=NEW).search(QUERIES, k)


def test_vectors_of_a_wrong_shape_and_queries_without_direction_are_refused():
    with pytest.raises(EncoderError, match="shape"):
        TwoStage(ADAPTER, OLD, lambda ids: np.ones((len(ids), 3))).search(QUERIES)
    raw = Space(model="raw", dimension=12, normalized=False)
    gallery = Embeddings(["a", "b"], np.eye(2, 12, dtype=np.float32), raw, "image")
    zero = Embeddings(["q"], np.zeros((1, 12), np.float32), raw, "image")
    with pytest.raises(InvalidVectors):
        TwoStage(unchanged(raw), gallery, new_gallery=gallery).search(zero, 1)
