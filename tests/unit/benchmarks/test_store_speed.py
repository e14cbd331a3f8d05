"""The benchmark of stores: both sides do the same work, and find the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from benchmarks.store_speed.client import FIELD, Client
from benchmarks.store_speed.measuring import Speeds, alternating, measure
from benchmarks.store_speed.run import client_of, line, missed

from crossfade.stores import open_store

WORK = {"FAISS": {"scan"}, "LanceDB": {"scan", "insert", "set_vectors"}}
"""Store → what is measured of it beside searches; the quick ones."""


@pytest.fixture(params=WORK)
def client(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Client]:
    with closing(client_of(request.param)(tmp_path)) as made:
        yield made


def speeds(**seconds: tuple[list[float], list[float]]) -> Speeds:
    return Speeds(100, dict(seconds), own_ms=1.0, hand_ms=1.05, store_ms=1.1, searcher_ms=1.4)


def test_both_sides_do_all_that_the_store_can(client: Client, tmp_path: Path) -> None:
    found = measure(client, 60, dimension=8, searches=4, folder=tmp_path)
    assert set(found.seconds) == WORK[type(client).__name__.replace("Faiss", "FAISS")]
    assert all(len(own) == len(ours) == 5 and min(own + ours) > 0.0 for own, ours in found.seconds.values())
    assert min(found.own_ms, found.hand_ms, found.store_ms, found.searcher_ms) > 0.0


def test_a_client_that_finds_others_is_refused(client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    search = type(client).search
    monkeypatch.setattr(type(client), "search", lambda *asked: search(*asked)[::-1])
    with pytest.raises(RuntimeError, match="must find the same rows"):
        measure(client, 60, dimension=8, searches=1, folder=tmp_path)


def test_a_client_reads_what_it_made(client: Client) -> None:
    vectors = np.eye(6, 8, dtype=np.float32)
    client.make("made", vectors, index=False)
    ids, matrix = client.scan("made")
    np.testing.assert_array_equal(matrix[np.argsort(ids)], vectors)
    with open_store(client.address("made")) as store:
        assert store.count() == 6
        np.testing.assert_array_equal(store.fetch([2], fields=[FIELD]).vectors[FIELD].values, vectors[2:3])


def test_each_work_begins_in_turn() -> None:
    order: list[tuple[int, int]] = []
    works = [lambda number, which=which: order.append((number, which)) for which in range(3)]
    seconds = alternating(6, works)
    rounds = [[which for number, which in order if number == each] for each in range(6)]
    assert seconds.shape == (6, 3)
    assert sorted(map(tuple, rounds)) == [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]


def test_a_ratio_is_of_the_best_rounds() -> None:
    found = speeds(scan=([2.0, 1.0, 3.0], [4.0, 2.0, 9.0]), insert=([1.0], [1.0]))
    assert found.ratio("scan") == 0.5
    assert found.ratio("set_vectors") is None


def test_a_line_says_what_misses_its_bound() -> None:
    shown = line("LanceDB", speeds(scan=([1.0], [2.0]), insert=([1.0], [1.2])))
    assert (shown["own scan rows/s"], shown["scan ratio"], shown["set_vectors ratio"]) == (100, 0.5, None)
    assert (shown["store adds ms"], shown["searcher adds ms"]) == (0.1, 0.4)
    assert missed(shown) == ["scan ratio", "searcher adds ms"]
