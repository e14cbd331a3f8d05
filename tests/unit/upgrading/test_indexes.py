"""An upgrade is not finished on a field whose searches would compare every row, where an index answered before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lancedb.index import IvfFlat
from live import OLD, Live, queries
from stores import maker_of
from stores.lancedb import LanceDBMaker
from stores.postgresql import Server

from crossfade.errors import StoreError, UpgradeRefused
from crossfade.stores import Store
from crossfade.upgrading import Pace, Searcher, Upgrade, backfill, cutover, finish, rollback, status

Indexed = Callable[[Store, str], None]


@pytest.fixture(params=["lancedb", "postgresql"])
def live_and_index(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Live, Indexed]]:
    maker = maker_of(request.param, tmp_path)
    live = Live.begin(maker, tmp_path / "upgrade", rows=60)

    def in_lancedb(store: Store, field: str) -> None:
        assert isinstance(maker, LanceDBMaker)
        table = maker.database.open_table(store.address.rpartition("#")[2])
        table.create_index(field, config=IvfFlat(distance_type="cosine", num_partitions=2))

    def in_postgresql(store: Store, field: str) -> None:
        table = store.address.partition("table=")[2].partition("&")[0]
        Server.shared().run(f"CREATE INDEX ON {table} USING hnsw ({field} vector_cosine_ops)")

    yield live, in_lancedb if request.param == "lancedb" else in_postgresql
    maker.close()


def backfilled(live: Live) -> Upgrade:
    upgrade = live.planned()
    cutover(upgrade, live.store, force="a test")
    assert backfill(upgrade, live.store, live.embed, pace=Pace(batch=20), sample=20).why == "done"
    return upgrade


def test_a_missing_index_is_told_and_holds_the_end_back(live_and_index: tuple[Live, Indexed]) -> None:
    live, index = live_and_index
    assert not live.store.indexed("old", "cosine")
    index(live.store, "old")
    assert live.store.indexed("old", "cosine")
    assert not live.store.indexed("old", "l2")
    upgrade = backfilled(live)
    assert status(upgrade, live.store)["index"] == "none on 'new' yet: its rows are compared each"
    with pytest.raises(UpgradeRefused, match=r"'old' .* has an index and 'new' has none.*--unindexed"):
        finish(upgrade, live.store)
    assert upgrade.state.now().stage == "backfilled"
    index(live.store, "new")
    assert "index" not in status(upgrade, live.store)
    finish(upgrade, live.store)
    assert upgrade.state.now().serving == "native"
    rollback(upgrade, live.store, reason="a test")
    asked = queries(list(range(5)), OLD)
    assert len(Searcher(upgrade, live.store).search_many(asked.matrix(), space=OLD, k=3)) == 5


def test_it_is_finished_without_one_where_that_is_asked_for(live_and_index: tuple[Live, Indexed]) -> None:
    live, index = live_and_index
    index(live.store, "old")
    upgrade = backfilled(live)
    finish(upgrade, live.store, unindexed=True)
    assert upgrade.state.now().serving == "native"
    with pytest.raises(StoreError, match="nothing"):
        live.store.indexed("nothing", "cosine")


def test_where_no_field_has_one_none_is_missed(live_and_index: tuple[Live, Indexed]) -> None:
    live, _ = live_and_index
    upgrade = backfilled(live)
    assert "index" not in status(upgrade, live.store)
    finish(upgrade, live.store)


def test_a_store_that_makes_its_own_does_not_say(tmp_path: Path) -> None:
    for name in ("memory", "qdrant"):
        maker = maker_of(name, tmp_path / name)
        live = Live.begin(maker, tmp_path / f"{name}-upgrade", rows=20)
        assert live.store.indexed("old", "cosine") is None
        maker.close()
