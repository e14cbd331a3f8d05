"""Two stages on a live collection: what is recalled is ranked as a full re-index would, and nothing is encoded twice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from live import NEW, OLD, Live, queries, seen
from stores import maker_of

from crossfade import VectorCache
from crossfade.errors import ConfigError, SpaceMismatch
from crossfade.upgrading import Pace, Reranker, Searcher, Upgrade, backfill, cutover

ASKED = list(range(15))


@pytest.fixture
def live(tmp_path: Path) -> Live:
    return Live.begin(maker_of("memory", tmp_path), tmp_path / "upgrade")


@pytest.fixture
def upgrade(live: Live) -> Upgrade:
    upgrade = live.planned()
    cutover(upgrade, live.store, force="a test")
    return upgrade


def full(live: Live, k: int) -> list[list[str]]:
    ids = sorted(live.contents, key=str)
    scores = queries(ASKED, NEW).matrix() @ seen([live.contents[i] for i in ids], NEW).T
    return [[str(ids[place]) for place in np.argsort(-row)[:k]] for row in scores]


def found(searcher: Searcher, k: int = 5) -> list[list[object]]:
    hits = searcher.search_many(queries(ASKED, NEW).matrix(), space=NEW, k=k)
    return [list(each.ids) for each in hits]


def test_with_every_row_a_candidate_it_is_a_full_re_index(live: Live, upgrade: Upgrade) -> None:
    assert found(Searcher(upgrade, live.store, rerank=Reranker(live.embed, candidates=120))) == full(live, 5)


def test_candidates_are_those_of_the_first_stage(live: Live, upgrade: Upgrade) -> None:
    recalled = found(Searcher(upgrade, live.store), k=10)
    for ids, first, best in zip(
        found(Searcher(upgrade, live.store, rerank=Reranker(live.embed, candidates=10)), k=10),
        recalled,
        full(live, 120),
        strict=True,
    ):
        assert sorted(map(str, ids)) == sorted(map(str, first))
        assert [best.index(str(id_)) for id_ in ids] == sorted(best.index(str(id_)) for id_ in ids)


def test_nothing_is_encoded_twice_and_a_changed_item_is_encoded_anew(
    live: Live, upgrade: Upgrade, tmp_path: Path
) -> None:
    with VectorCache(tmp_path / "cache.sqlite", NEW, modality="image") as cache:
        searcher = Searcher(upgrade, live.store, rerank=Reranker(live.embed, candidates=120, cache=cache))
        assert found(searcher) == full(live, 5)
        assert live.embedded == 120
        assert found(searcher) == full(live, 5)
        assert live.embedded == 120
        live.write_directly("item-3", 999)
        assert found(searcher) == full(live, 5)
        assert live.embedded == 121


def test_backfilled_rows_are_not_encoded(live: Live, upgrade: Upgrade) -> None:
    backfill(upgrade, live.store, live.embed, sample=40, pace=Pace(batch=10, limit=90))
    before = live.embedded
    assert found(Searcher(upgrade, live.store, rerank=Reranker(live.embed, candidates=120))) == full(live, 5)
    assert live.embedded == before + 30


def test_rows_without_a_vector_come_last_in_their_own_order(live: Live, upgrade: Upgrade) -> None:
    live.unreadable = {f"item-{n}" for n in range(0, 120, 2)}
    (hits,) = Searcher(upgrade, live.store, rerank=Reranker(live.embed, candidates=120)).search_many(
        queries([4], NEW).matrix(), space=NEW, k=120
    )
    assert not set(map(str, hits.ids[:60])) & live.unreadable
    assert np.isnan(hits.scores[60:]).all()
    (plain,) = Searcher(upgrade, live.store).search_many(queries([4], NEW).matrix(), space=NEW, k=120)
    assert hits.ids[60:] == [id_ for id_ in plain.ids if id_ in live.unreadable]


def test_old_queries_are_never_re_ranked(live: Live, upgrade: Upgrade) -> None:
    searcher = Searcher(upgrade, live.store, rerank=Reranker(live.embed, candidates=120))
    hits = searcher.search_many(queries(ASKED, OLD).matrix(), space=OLD, k=5)
    assert live.embedded == 0
    plain = live.store.search(queries(ASKED, OLD).matrix(), field="old", k=5)
    assert [h.ids for h in hits] == [h.ids for h in plain]


def test_bad_options_are_refused(live: Live, upgrade: Upgrade) -> None:
    with pytest.raises(ConfigError, match="at least 1 candidate"):
        Reranker(live.embed, candidates=0)
    with (
        VectorCache(None, OLD, modality="image") as cache,
        pytest.raises(SpaceMismatch, match="The cached vectors"),
    ):
        found(Searcher(upgrade, live.store, rerank=Reranker(live.embed, cache=cache)))


@pytest.mark.parametrize("k", [0, -1, True, 2.0])
def test_no_stage_finds_fewer_than_one(live: Live, upgrade: Upgrade, k: int) -> None:
    for searcher in (
        Searcher(upgrade, live.store),
        Searcher(upgrade, live.store, rerank=Reranker(live.embed, candidates=10)),
    ):
        with pytest.raises(ConfigError, match="k must be a whole number of at least 1"):
            found(searcher, k=k)
