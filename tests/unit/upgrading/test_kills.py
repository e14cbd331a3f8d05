"""SIGKILL at every kind of moment of an upgrade: what is there after a resume is what an uninterrupted one leaves.

Before it is resumed, the application inserts, replaces and deletes items in the old space, and knows nothing of an upgrade.
"""

from __future__ import annotations

import json
import multiprocessing
import random
import signal
import time
from collections.abc import Iterator
from multiprocessing.context import ForkServerContext
from pathlib import Path

import killed
import numpy as np
import pytest
from live import NEW, OLD, Live, expected_rows, queries, seen, stored
from stores import MAKERS, Maker, maker_of

from crossfade.upgrading import Searcher, Upgrade, rollback

ROWS = 40
MOMENTS = (9, 110)
"""Touches at which the default run kills; the slow one does at each."""


@pytest.fixture(scope="module", params=[name for name in sorted(MAKERS) if name not in ("memory", "faiss", "milvus")])
def maker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Maker]:
    made = maker_of(request.param, tmp_path_factory.mktemp(request.param))
    yield made
    made.close()


@pytest.fixture(scope="module")
def processes() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["killed"])
    return context


def kill_and_resume(
    maker: Maker, processes: ForkServerContext, folder: Path, *, at: int = 10**9, after: float = 0
) -> bool:
    """One upgrade, killed once and taken up again after the application's writes; whether it was killed before its end.

    Args:
        maker: of the store.
        processes: in which it runs.
        folder: for its files.
        at: the touch at which it kills itself.
        after: in place of that, seconds after which it is killed from outside.
    """
    folder.mkdir()
    live = Live.begin(maker, folder / "upgrade", rows=ROWS)
    if not live.store.capabilities.second_field:
        pytest.skip("this store cannot have a second vector field")
    live.planned().close()
    address = live.store.address
    (folder / "contents.json").write_text(json.dumps(live.contents))
    live.store.close()
    maker.let_go()
    process = processes.Process(target=killed.run, args=(live.folder, address, folder / "contents.json", at))
    process.start()
    if after:
        time.sleep(after)
        process.kill()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    live.store = store = maker.again(live.store)
    upgrade = Upgrade.open(live.folder)
    if upgrade.state.now().serving != "native":
        live.write_directly("item-3", 998)
        live.write_directly("the application's", 996)
        live.delete_directly("item-5")
    killed.drive(live.folder, store, {str(id_): content for id_, content in live.contents.items()})

    found, wanted = stored(store, "old", "new"), expected_rows(live.contents, native=True)
    assert found.ids == wanted.ids  # none lost, none doubled
    for field in ("old", "new"):
        assert found.vectors[field].present.all()
        np.testing.assert_allclose(found.vectors[field].values, wanted.vectors[field].values, atol=1e-6)
    assert found.columns == {"kind": [["even", "odd"][content % 2] for content in map(live.contents.get, found.ids)]}
    assert upgrade.state.now().stage == "finished"
    steps = [each.after for each in upgrade.state.history()]
    assert [steps.count(each) for each in ("shadowed", "cut over", "finished")] == [1] * 3
    assert steps.count("backfilling") == steps.count("backfilled")  # twice, where it was killed between
    hits = Searcher(upgrade, store).search_many(queries(killed.ASKED, NEW).matrix(), space=NEW, k=5, exact=True)
    assert [h.ids for h in hits] == [
        h.ids for h in store.search(queries(killed.ASKED, NEW).matrix(), field="new", k=5, exact=True)
    ]
    rollback(upgrade, store, reason="a test")
    asked = queries(killed.ASKED, OLD).matrix()
    scores = asked @ seen([live.contents[id_] for id_ in found.ids], OLD).T
    for each, row in zip(Searcher(upgrade, store).search_many(asked, space=OLD, k=7, exact=True), scores, strict=True):
        best = np.argsort(-row)[:7]
        assert each.ids == [found.ids[place] for place in best]
        np.testing.assert_allclose(each.scores, row[best], atol=1e-5)
    store.close()
    return process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize("at", MOMENTS)
def test_an_upgrade_survives_a_kill(maker: Maker, processes: ForkServerContext, tmp_path: Path, at: int) -> None:
    assert kill_and_resume(maker, processes, tmp_path / "one", at=at)


@pytest.mark.slow
def test_an_upgrade_survives_a_kill_at_every_touch(maker: Maker, processes: ForkServerContext, tmp_path: Path) -> None:
    kills = 0
    for at in range(1, 1000):
        if not kill_and_resume(maker, processes, tmp_path / str(at), at=at):
            break
        kills += 1
    print(f"{kills} kills at touches")
    assert kills > 60


@pytest.mark.slow
def test_an_upgrade_survives_a_kill_from_outside(maker: Maker, processes: ForkServerContext, tmp_path: Path) -> None:
    generator = random.Random(0)
    moments = [generator.uniform(0.05, 1.5) for _ in range(25)]
    kills = sum(
        kill_and_resume(maker, processes, tmp_path / str(number), after=moment) for number, moment in enumerate(moments)
    )
    print(f"{kills} kills from outside")
    assert kills >= 5
