"""Every store can be cut over and rolled back; what cannot be backfilled says so before anything begins."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from live import NEW, OLD, Live, queries
from stores import MAKERS, maker_of

from crossfade.errors import Unsupported
from crossfade.upgrading import Pace, Searcher, backfill, cutover, finish, rollback, shadow

ASKED = list(range(12))


@pytest.mark.parametrize("name", sorted(MAKERS))
def test_an_upgrade_and_the_way_back(name: str, tmp_path: Path) -> None:
    maker = maker_of(name, tmp_path)
    try:
        live = Live.begin(maker, tmp_path / "upgrade", rows=60)
        upgrade, store = live.planned(), live.store
        old, new = queries(ASKED, OLD), queries(ASKED, NEW)
        before = store.search(old.matrix(), field="old", k=5, exact=True)
        shadow(upgrade, store, old=old, new=new)
        cutover(upgrade, store)
        searcher = Searcher(upgrade, store)
        mapped = store.search(upgrade.adapter.transform(new).matrix(), field="old", k=5, exact=True)
        found = searcher.search_many(new.matrix(), space=NEW, k=5, exact=True)
        assert [hits.ids for hits in found] == [hits.ids for hits in mapped]
        if store.capabilities.second_field and store.capabilities.write:
            assert backfill(upgrade, store, live.embed, pace=Pace(batch=20), sample=20).why == "done"
        else:
            with pytest.raises(Unsupported, match=r"Writing rows|A second vector field"):
                backfill(upgrade, store, live.embed)
            assert upgrade.state.now().stage == "cut over"
        finish(upgrade, store)
        rollback(upgrade, store, reason="a test")
        after = searcher.search_many(old.matrix(), space=OLD, k=5, exact=True)
        assert [hits.ids for hits in after] == [hits.ids for hits in before]
        for one, other in zip(before, after, strict=True):
            np.testing.assert_allclose(one.scores, other.scores, atol=1e-6)
        store.close()
    finally:
        maker.close()
