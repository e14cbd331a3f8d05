"""Crossfade's stores beside the stores' own clients: both sides do the same, in turn, and what they find is compared."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.store_speed.client import FIELD, NEW_FIELD, Client
from crossfade.embeddings import Embeddings
from crossfade.methods import Procrustes
from crossfade.pairing import pair
from crossfade.spaces import Space
from crossfade.stores import Id, Records, Store, Vectors, open_store
from crossfade.upgrading import Searcher, Upgrade, cutover, plan_upgrade

__all__ = ["Speeds", "alternating", "measure"]

Floats = npt.NDArray[np.float32]

ROUNDS, WARM, K = 5, 30, 10


@dataclass(frozen=True, slots=True)
class Speeds:
    """What was measured of one store; seconds are those of each round.

    Attributes:
        rows: of the collection.
        seconds: of each kind of work, those of the store's own client and those of Crossfade's store.
        own_ms: p50 of a search by the store's own client, of a query that was mapped before.
        hand_ms: p50 of mapping the query and that search.
        store_ms: p50 of the same search by Crossfade's store.
        searcher_ms: p50 of the same search by a searcher, which maps the query.
    """

    rows: int
    seconds: dict[str, tuple[list[float], list[float]]]
    own_ms: float
    hand_ms: float
    store_ms: float
    searcher_ms: float

    def ratio(self, work: str) -> float | None:
        """The speed of Crossfade's store by that of the own client, the best round of each; None where it cannot do that."""
        if work not in self.seconds:
            return None
        own, ours = self.seconds[work]
        return min(own) / min(ours)


def measure(client: Client, rows: int, *, dimension: int, searches: int, folder: Path) -> Speeds:
    """Scan and search one collection by both sides, then write to two that are alike, each side to its own.

    Args:
        client: of the store.
        rows: of each collection.
        dimension: of the vectors.
        searches: how many are counted.
        folder: for the upgrade.

    Raises:
        RuntimeError: the two sides found different things.
    """
    generator = np.random.default_rng(0)
    vectors = _unit(generator.standard_normal((rows, dimension), dtype=np.float32))
    client.make("searched", vectors, index=True)
    with open_store(client.address("searched")) as store:
        seconds = {"scan": _scans(client, store)}
        asked = vectors[generator.integers(rows, size=WARM + searches)]
        asked = _unit(asked + 0.5 * _unit(generator.standard_normal(asked.shape, dtype=np.float32)))
        own_ms, hand_ms, store_ms, searcher_ms = np.median(_searches(client, store, asked, folder), axis=0).tolist()
        writes, fills = store.capabilities.write, store.capabilities.second_field
    if writes:
        for name in ("written", "twin"):
            client.make(name, vectors, index=False)
        with open_store(client.address("written")) as store:
            fresh = _unit(generator.standard_normal((rows, dimension), dtype=np.float32))
            seconds["insert"] = _inserts(client, store, fresh)
            if fills:
                seconds["set_vectors"] = _fills(client, store, fresh)
    return Speeds(rows, seconds, own_ms, hand_ms, store_ms, searcher_ms)


def alternating(count: int, works: Sequence[Callable[[int], object]]) -> Floats:
    """Seconds [count, works] of each work with the numbers 0, 1, …; each time another one begins."""
    seconds = np.zeros((count, len(works)))
    for number in range(count):
        for place in range(len(works)):
            which = (number + place) % len(works) if number // len(works) % 2 else (number - place) % len(works)
            started = time.perf_counter()
            works[which](number)
            seconds[number, which] = time.perf_counter() - started
    return seconds


def _scans(client: Client, store: Store) -> tuple[list[float], list[float]]:
    found: dict[str, tuple[Sequence[Id], Floats]] = {}

    def own(_: int) -> None:
        found["own"] = client.scan("searched")

    def ours(_: int) -> None:
        ids: list[Id] = []
        matrix = np.empty((store.count(), store.shape.fields[FIELD].dimension), dtype=np.float32)
        for records in store.scan(fields=[FIELD]):
            matrix[len(ids) : len(ids) + len(records)] = records.vectors[FIELD].values
            ids += records.ids
        found["ours"] = ids, matrix

    seconds = alternating(ROUNDS, [own, ours])
    one, other = ((np.argsort(ids), np.sort(ids), matrix) for ids, matrix in found.values())
    if not (np.array_equal(one[1], other[1]) and np.array_equal(one[2][one[0]], other[2][other[0]])):
        raise RuntimeError(f"Both scans of {store.address} must find the same rows; they do not.")
    return seconds[:, 0].tolist(), seconds[:, 1].tolist()


def _searches(client: Client, store: Store, asked: Floats, folder: Path) -> Floats:
    """Milliseconds [searches, 4] of the own client, of the same after mapping by hand, of the store and of a searcher."""
    dimension = asked.shape[1]
    old, new = Space(model="old-model", dimension=dimension), Space(model="new-model", dimension=dimension)
    generator = np.random.default_rng(1)
    turn = np.linalg.qr(generator.standard_normal((dimension, dimension)))[0].astype(np.float32)
    known = _unit(generator.standard_normal((2 * dimension, dimension), dtype=np.float32))
    ids = np.arange(len(known))
    pairs = pair(Embeddings(ids, known, old, "image"), Embeddings(ids, known @ turn, new, "image"))
    adapter = Procrustes().fit(pairs)
    queries = asked @ turn
    store.register(FIELD, old, "image")
    plan_upgrade(store, adapter, out=folder / "upgrade", field=FIELD)
    upgrade = Upgrade.open(folder / "upgrade")
    cutover(upgrade, store, force="the benchmark measures it")
    mapped = [adapter.map(query, "image") for query in queries]
    found: list[list[Sequence[Id]]] = [[], [], [], []]
    searcher = Searcher(upgrade, store)

    def own(number: int) -> None:
        found[0].append(client.search("searched", mapped[number], K))

    def by_hand(number: int) -> None:
        found[1].append(client.search("searched", adapter.map(queries[number], "image"), K))

    def by_store(number: int) -> None:
        found[2].append(store.search(mapped[number], field=FIELD, k=K)[0].ids)

    def by_searcher(number: int) -> None:
        found[3].append(searcher.search(vector=queries[number], space=new, k=K).ids)

    seconds = alternating(len(asked), [own, by_hand, by_store, by_searcher])
    if not all(each == found[0] for each in found):
        raise RuntimeError(f"All searches of {store.address} must find the same rows; they do not.")
    milliseconds: Floats = 1e3 * seconds[WARM:]
    return milliseconds


def _inserts(client: Client, store: Store, fresh: Floats) -> tuple[list[float], list[float]]:
    """A part of new rows each round."""
    parts = np.array_split(np.arange(len(fresh)), ROUNDS)

    def own(number: int) -> None:
        client.upsert("twin", (len(fresh) + parts[number]).tolist(), fresh[parts[number]])

    def ours(number: int) -> None:
        ids = (len(fresh) + parts[number]).tolist()
        store.upsert(Records(ids, {FIELD: Vectors.of(fresh[parts[number]])}))

    seconds = alternating(ROUNDS, [own, ours])
    _require_written(client, store, (len(fresh) + parts[-1]).tolist(), FIELD, fresh[parts[-1]])
    return seconds[:, 0].tolist(), seconds[:, 1].tolist()


def _fills(client: Client, store: Store, fresh: Floats) -> tuple[list[float], list[float]]:
    """An empty field of a part of the rows each round."""
    store.add_field(NEW_FIELD, dimension=fresh.shape[1])
    client.add_field("twin", fresh.shape[1])
    parts = np.array_split(np.random.default_rng(2).permutation(len(fresh)), ROUNDS)

    def own(number: int) -> None:
        client.set_vectors("twin", parts[number].tolist(), fresh[parts[number]])

    def ours(number: int) -> None:
        store.set_vectors(NEW_FIELD, parts[number].tolist(), fresh[parts[number]])

    seconds = alternating(ROUNDS, [own, ours])
    _require_written(client, store, parts[-1].tolist(), NEW_FIELD, fresh[parts[-1]])
    return seconds[:, 0].tolist(), seconds[:, 1].tolist()


def _require_written(client: Client, store: Store, ids: list[int], field: str, vectors: Floats) -> None:
    with open_store(client.address("twin")) as twin:
        for each in (store, twin):
            found = each.fetch(ids, fields=[field])
            if found.ids != ids or not np.allclose(found.vectors[field].values, vectors, atol=1e-6):
                raise RuntimeError(f"{each.address} must hold the rows that were written to it; it does not.")


def _unit(vectors: Floats) -> Floats:
    unit: Floats = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit
