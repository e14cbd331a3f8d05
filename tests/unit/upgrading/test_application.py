"""A whole upgrade while two processes write and two read: nothing acknowledged is lost, nothing deleted comes back."""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import application
import numpy as np
import pytest
from live import NEW, OLD, OLD_DIMENSION, fitted, judged, queries, seen
from stores import Maker, maker_of

from crossfade.stores import Id, Records, Store, VectorField, Vectors
from crossfade.upgrading import Pace, Searcher, Upgrade, backfill, cutover, finish, plan_upgrade, rollback, shadow

ROWS, ASKED, WAIT = 60, list(range(12)), 0.6
"""Seconds that every stage is left to the application."""


@pytest.fixture(scope="module", params=["lancedb", "postgresql"])
def maker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Maker]:
    made = maker_of(request.param, tmp_path_factory.mktemp(request.param))
    yield made
    made.close()


def rows_of(store: Store, *fields: str) -> Records:
    return store.fetch(
        sorted((id_ for part in store.scan() for id_ in part.ids), key=str), fields=list(fields), columns=["content"]
    )


def test_an_application_goes_on_through_an_upgrade(maker: Maker, tmp_path: Path) -> None:
    contents: dict[Id, int] = {f"item-{n}": n for n in range(ROWS)}
    records = Records(list(contents), {"old": Vectors.of(seen(range(ROWS), OLD))}, {"content": list(range(ROWS))})
    store = maker.make([VectorField("old", OLD_DIMENSION, "cosine")], application.COLUMNS, "string", records)  # type: ignore[arg-type]
    store.register("old", OLD, "image")
    folder = tmp_path / "upgrade"
    plan_upgrade(store, fitted(), out=folder, field="old", new_field="new", evaluation=judged())
    upgrade = Upgrade.open(folder)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["application"])
    stop, stop_unaware = context.Event(), context.Event()
    logs = {name: tmp_path / f"{name}.log" for name in ("aware", "unaware", "reader-1", "reader-2")}
    common = {"folder": folder, "address": store.address}
    processes = [
        context.Process(
            target=partial(application.write, **common, name="aware", log=logs["aware"], stop=stop, aware=True)
        ),
        context.Process(
            target=partial(
                application.write, **common, name="unaware", log=logs["unaware"], stop=stop_unaware, aware=False
            )
        ),
        *(
            context.Process(target=partial(application.read, **common, name=name, log=logs[name], stop=stop))
            for name in ("reader-1", "reader-2")
        ),
    ]
    for process in processes:
        process.start()
    embed = partial(application.embedded, store)
    try:
        while not all(log.exists() and log.stat().st_size for log in (logs["aware"], logs["unaware"])):
            time.sleep(0.05)
        time.sleep(WAIT)
        shadow(upgrade, store, old=queries(ASKED, OLD), new=queries(ASKED, NEW))
        cutover(upgrade, store)
        time.sleep(WAIT)
        for _ in range(4):
            backfill(upgrade, store, embed, pace=Pace(batch=8, limit=20), sample=16)
            time.sleep(WAIT / 4)
        stop_unaware.set()
        processes[1].join()
        while backfill(upgrade, store, embed).why != "done":
            pass
        finish(upgrade, store)
        time.sleep(WAIT)
        rollback(upgrade, store, reason="a test")
        time.sleep(WAIT)
    finally:
        stop.set()
        stop_unaware.set()
        for process in processes:
            process.join()
    assert [process.exitcode for process in processes] == [0] * 4

    wanted = application.replayed([logs["aware"], logs["unaware"]], contents)
    found = rows_of(store, "old")
    assert found.ids == sorted(wanted, key=str)
    assert found.columns["content"] == [wanted[id_] for id_ in found.ids]
    assert found.vectors["old"].present.all()
    mapped = upgrade.adapter.map(seen(found.columns["content"], NEW), "image")  # type: ignore[arg-type]
    by_old = seen(found.columns["content"], OLD)  # type: ignore[arg-type]
    apart = [np.abs(found.vectors["old"].values - each).max(axis=1) for each in (by_old, mapped)]
    assert np.minimum(*apart).max() < 1e-5  # each row is what one of the models makes of its content
    assert (apart[1] < 1e-5).any()

    for name in ("reader-1", "reader-2"):
        counts = json.loads(logs[name].read_text())
        print(store.address.partition(":")[0], name, counts)
        assert counts["across"] == 0
        assert counts["empty"] == 0
        assert min(counts["old"], counts["mapped"], counts["native"]) > 0
    last = Searcher(upgrade, store).search_many(queries(ASKED, OLD).matrix(), space=OLD, k=3)
    assert all(len(hits) == 3 for hits in last)
