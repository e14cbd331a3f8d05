"""Bad days of an upgrade that are not the store's: models that fail, clocks that jump, odd ids, odd questions, no rows at all."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import cycle
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest
from bad_days import ASKED, PACE, ROWS, SAMPLE, assert_native, bytes_of, cut_over, failing
from live import NEW, NEW_DIMENSION, OLD, OLD_DIMENSION, Live, queries, seen
from stores import Maker, maker_of

from crossfade import Embeddings
from crossfade.encoders import OpenAIEncoder, Retries
from crossfade.errors import ConfigError, EncoderError, EndpointError, UpgradeRefused
from crossfade.methods import METHODS
from crossfade.pairing import pair
from crossfade.stores import Id, Records, VectorField, Vectors
from crossfade.stores.ids import IdKind
from crossfade.two_stage import ItemEmbedder
from crossfade.upgrading import (
    Pace,
    Searcher,
    Upgrade,
    Writer,
    backfill,
    cutover,
    finish,
    plan_upgrade,
    rollback,
    shadow,
    status,
)
from crossfade.upgrading import state as state_module

SECRET = "sk-do-not-tell-anyone"


@pytest.fixture(scope="module", params=["lancedb", "postgresql", "qdrant"])
def maker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Maker]:
    made = maker_of(request.param, tmp_path_factory.mktemp(request.param))
    yield made
    made.close()


@pytest.fixture
def live(tmp_path: Path) -> Live:
    return Live.begin(maker_of("lancedb", tmp_path / "store"), tmp_path / "upgrade", rows=ROWS)


@pytest.fixture
def upgrade(live: Live) -> Upgrade:
    return cut_over(live)


def test_what_a_model_said_when_it_failed_stands_in_the_status(live: Live, upgrade: Upgrade) -> None:
    def down(ids: np.ndarray) -> np.ndarray:
        raise EndpointError("the endpoint kept failing (status 503). Try again later.")

    with pytest.raises(EndpointError):
        backfill(upgrade, live.store, failing(live, down), sample=SAMPLE, pace=PACE)
    assert status(upgrade)["paused"] == "EndpointError: the endpoint kept failing (status 503). Try again later."
    assert status(upgrade)["queue"] == {"waiting": 20, "done": 40}
    assert backfill(upgrade, live.store, live.embed, pace=PACE).why == "done"
    assert status(upgrade)["paused"] == ""
    assert live.embedded == ROWS
    assert_native(live)


def test_what_others_raise_pauses_the_run_and_is_not_repeated(live: Live, upgrade: Upgrade) -> None:
    def down(ids: np.ndarray) -> np.ndarray:
        raise ConnectionError(f"https://me:{SECRET}@models.example refused")

    with pytest.raises(ConnectionError):
        backfill(upgrade, live.store, failing(live, down), sample=SAMPLE, pace=PACE)
    assert status(upgrade)["paused"] == "ConnectionError: see the error of the run that stopped"
    assert SECRET.encode() not in bytes_of(live.folder)
    assert backfill(upgrade, live.store, live.embed, pace=PACE).why == "done"
    assert_native(live)


@pytest.mark.parametrize("shape", [(0, 5), (-3, NEW_DIMENSION)], ids=["another dimension", "too few rows"])
def test_vectors_of_another_shape_are_not_written(live: Live, upgrade: Upgrade, shape: tuple[int, int]) -> None:
    def wrong(ids: np.ndarray) -> np.ndarray:
        return np.ones((len(ids) + shape[0], shape[1]), dtype=np.float32)

    with pytest.raises(EncoderError, match=r"must have shape \(10, 16\).*Give one row an id"):
        backfill(upgrade, live.store, failing(live, wrong), sample=SAMPLE, pace=PACE)
    assert "must have shape" in status(upgrade)["paused"]
    assert live.store.count(lacking="new") == ROWS - 40
    assert backfill(upgrade, live.store, live.embed, pace=PACE).why == "done"
    assert_native(live)


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_rows_without_a_usable_vector_are_asked_for_again_by_the_next_backfill(
    live: Live, upgrade: Upgrade, value: float
) -> None:
    def useless(ids: np.ndarray) -> np.ndarray:
        return np.full((len(ids), NEW_DIMENSION), value, dtype=np.float32)

    done = backfill(upgrade, live.store, failing(live, useless), sample=SAMPLE, pace=PACE)
    assert (done.why, done.failed) == ("done", 20)
    with pytest.raises(UpgradeRefused, match=r"20 rows have no native vector.*Backfill again"):
        finish(upgrade, live.store)
    (hits,) = Searcher(upgrade, live.store).search_many(queries([3], NEW).matrix(), space=NEW, k=ROWS)
    assert len(hits) == ROWS  # the others are found through the adapter
    again = backfill(upgrade, live.store, live.embed, pace=PACE)
    assert (again.why, again.encoded, again.failed) == ("done", 20, 0)
    finish(upgrade, live.store)
    assert_native(live)


def test_items_of_another_collection_are_noticed_before_searches_change(live: Live, upgrade: Upgrade) -> None:
    def unknown(ids: np.ndarray) -> np.ndarray:
        return np.full((len(ids), NEW_DIMENSION), np.nan, dtype=np.float32)

    for _ in range(2):
        with pytest.raises(EncoderError, match=r"None of the first 20 items could be encoded\. Do the ids"):
            backfill(upgrade, live.store, unknown, sample=SAMPLE, pace=PACE)
        assert (upgrade.state.now().stage, upgrade.state.now().serving) == ("cut over", "mapped")
    assert backfill(upgrade, live.store, live.embed, sample=SAMPLE, pace=PACE).why == "done"
    assert_native(live)


class Endpoint(ThreadingHTTPServer):
    """An embeddings endpoint that sees a content in digits as the new model does; it refuses by ``plan``, one entry a request."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.plan: list[int] = []
        self.refused = 0


class Handler(BaseHTTPRequestHandler):
    server: Endpoint

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["input"]
        code = self.server.plan.pop(0) if self.server.plan else 200
        rows = seen([int(text) if text.isdigit() else 0 for text in asked], NEW)
        coded = [{"index": n, "embedding": base64.b64encode(row.tobytes()).decode()} for n, row in enumerate(rows)]
        body = json.dumps({"data": coded} if code == 200 else {"error": {"message": "slow down"}}).encode()
        self.server.refused += code != 200
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        if code == 429:
            self.send_header("Retry-After", "0.02")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    server = Endpoint()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_endpoint_that_limits_the_rate_is_waited_for_and_then_pauses_the_run(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    patience = Retries(attempts=3, first_wait=0.01, longest_wait=0.05, timeout=5.0)
    encoder = OpenAIEncoder("new", base_url=f"http://127.0.0.1:{endpoint.server_port}/v1", retries=patience)
    known = range(500_000, 500_200)
    old, new = (Embeddings(list(known), seen(known, of), as_, "text") for of, as_ in ((OLD, OLD), (NEW, encoder.space)))
    contents: dict[Id, int] = {f"item-{n}": n for n in range(ROWS)}
    maker = maker_of("lancedb", tmp_path / "store")
    records = Records(list(contents), {"old": Vectors.of(seen(range(ROWS), OLD))}, {"kind": ["even"] * ROWS})
    store = maker.make([VectorField("old", OLD_DIMENSION, "cosine")], {"kind": "string"}, "string", records)
    store.register("old", OLD, "text")
    folder = tmp_path / "upgrade"
    plan_upgrade(store, METHODS["ridge"]().fit(pair(old, new)), out=folder, field="old", new_field="new")
    upgrade = Upgrade.open(folder)
    cutover(upgrade, store, force="a test")
    embed = ItemEmbedder(encoder, {str(id_): str(n) for id_, n in contents.items()}, modality="text")

    endpoint.plan = [429, 429, 200, 200, 200, 429, 200, 429, 429, 429]  # the last three exhaust the patience
    with pytest.raises(EndpointError, match=r"kept failing, 3 times \(status 429"):
        backfill(upgrade, store, embed, sample=SAMPLE, pace=PACE)
    assert endpoint.refused == 6
    said = status(upgrade)["paused"]
    assert "status 429" in said
    assert "Try again later" in said
    assert status(upgrade)["queue"] == {"waiting": 20, "done": 40}
    assert SECRET.encode() not in bytes_of(folder)
    assert backfill(upgrade, store, embed, pace=PACE).why == "done"
    assert_native(Live(store, contents, folder))


def test_clocks_that_jump_change_neither_order_nor_pace(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.time
    jumps = cycle([0.0, -7200.0, 86400.0, -3600.0])
    monkeypatch.setattr(time, "time", lambda: real() + next(jumps))

    class Jumping(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return datetime.now(UTC) + timedelta(seconds=next(jumps))

    monkeypatch.setattr(state_module, "datetime", Jumping)
    upgrade = live.planned()
    found = shadow(upgrade, live.store, old=queries(ASKED, OLD), new=queries(ASKED, NEW))
    assert 0 < found.old.p50 <= found.old.p95
    assert 0 < found.mapped.p50 <= found.mapped.p95
    cutover(upgrade, live.store)
    started = time.monotonic()
    assert backfill(upgrade, live.store, live.embed, sample=SAMPLE, pace=Pace(batch=10, rate=150)).why == "done"
    assert ROWS / 150 <= time.monotonic() - started < 20
    finish(upgrade, live.store)
    rollback(upgrade, live.store, reason="a test")
    history = upgrade.state.history()
    assert [each.step for each in history] == [
        "plan",
        "shadow",
        "cutover",
        "backfill",
        "backfill",
        "finish",
        "rollback",
    ]
    assert [each.number for each in history] == list(range(1, 8))
    assert [each.at for each in history] != sorted(each.at for each in history)  # the clock did jump


ODD: dict[IdKind, list[Id]] = {
    "integer": [0, 7, 70, 2**31, 2**53 + 1, 2**63 - 1],
    "uuid": [str(UUID(int=number)) for number in (0, 1, 2**64, 2**128 - 1)],
    "string": [
        *("7", "007", "7.0", "1e3", "-0", "None", "nan", " ", " a ", "a\nb", "x" * 500),
        *("é", "e\u0301", "ﬁ", "fi", "Ω≈ç", "🤷🏽‍♀️", "'; DROP TABLE", '"', "`", "%_", "\\"),
    ],
}


@pytest.mark.parametrize("kind", ["integer", "uuid", "string"])
def test_odd_ids_and_rows_without_an_old_vector_go_through_an_upgrade(
    maker: Maker, tmp_path: Path, kind: IdKind
) -> None:
    ids: list[Id] = [*ODD[kind], *(str(UUID(int=n)) if kind == "uuid" else 1000 + n for n in range(100, 140))]
    ids = [str(id_) for id_ in ids] if kind != "integer" else ids
    there = np.asarray([n % 6 != 0 for n in range(len(ids))])
    old = Vectors(np.where(there[:, None], seen(range(len(ids)), OLD), np.float32(0)), there)
    records = Records(ids, {"old": old}, {"kind": ["even"] * len(ids)})
    store = maker.make([VectorField("old", OLD_DIMENSION, "cosine")], {"kind": "string"}, kind, records)
    store.register("old", OLD, "image")
    live = Live(store, {str(id_): n for n, id_ in enumerate(ids)}, tmp_path / "upgrade")
    upgrade = cut_over(live)
    done = backfill(upgrade, store, live.embed, order=ids[::-1], sample=SAMPLE, pace=Pace(batch=7, limit=30))
    assert (done.why, done.encoded) == ("limit", 30)
    asked = queries(ASKED, NEW).matrix()
    native = store.fetch(ids, fields=["new"]).vectors["new"].present
    (hits, *_) = Searcher(upgrade, store).search_many(asked, space=NEW, k=200)
    assert sorted(hits.ids, key=str) == sorted(
        (i for i, n, o in zip(ids, native, there, strict=True) if n or o), key=str
    )
    assert backfill(upgrade, store, live.embed, pace=Pace(batch=7)).why == "done"
    assert live.embedded == len(ids)
    finish(upgrade, store)
    rows = store.fetch(ids, fields=["old", "new"])
    assert rows.ids == ids
    assert rows.vectors["new"].present.all()
    np.testing.assert_array_equal(rows.vectors["old"].present, there)
    np.testing.assert_allclose(rows.vectors["new"].values, seen(range(len(ids)), NEW), atol=1e-6)
    (hits, *_) = Searcher(upgrade, store).search_many(asked, space=NEW, k=200)
    assert sorted(hits.ids, key=str) == sorted(ids, key=str)


def test_questions_that_cannot_be_answered_are_refused_in_every_stage(live: Live) -> None:
    upgrade = live.planned()
    searcher = Searcher(upgrade, live.store)

    def refused() -> str:
        for space in (OLD, NEW):
            vectors = queries(ASKED, space).matrix()
            with pytest.raises(ConfigError, match="k must be a whole number of at least 1; found 0"):
                searcher.search_many(vectors, space=space, k=0)
            with pytest.raises(ConfigError, match=r"has the columns \['kind'\]; 'absent' was asked for. Name one"):
                searcher.search_many(vectors, space=space, where={"absent": "even"})
            with pytest.raises(ConfigError, match="holds string values; 3 was compared"):
                searcher.search_many(vectors, space=space, where={"kind": 3})
        return upgrade.state.now().serving

    with pytest.raises(ConfigError, match="k must be a whole number"):
        shadow(upgrade, live.store, old=queries(ASKED, OLD), new=queries(ASKED, NEW), k=0)
    served = [refused()]
    shadow(upgrade, live.store, old=queries(ASKED, OLD), new=queries(ASKED, NEW))
    cutover(upgrade, live.store)
    served.append(refused())
    backfill(upgrade, live.store, live.embed, sample=SAMPLE, pace=Pace(batch=10, limit=40))
    served.append(refused())
    backfill(upgrade, live.store, live.embed)
    finish(upgrade, live.store)
    assert [*served, refused()] == ["old", "mapped", "mixed", "native"]


def test_an_empty_collection_goes_through_and_its_first_rows_are_found(maker: Maker, tmp_path: Path) -> None:
    live = Live.begin(maker, tmp_path / "upgrade", rows=0)
    upgrade, store = cut_over(live), live.store
    done = backfill(upgrade, store, live.embed, sample=SAMPLE)
    assert (done.why, done.encoded, done.waiting, done.failed) == ("done", 0, 0, 0)
    searcher = Searcher(upgrade, store)
    assert searcher.search(vector=queries([1], NEW), k=3).ids == []  # mixed
    live.write_directly("first", 1)
    assert searcher.search(vector=queries([1], NEW), k=3).ids == ["first"]
    with pytest.raises(UpgradeRefused, match="1 rows have no native vector"):
        finish(upgrade, store)
    assert backfill(upgrade, store, live.embed).encoded == 1
    finish(upgrade, store)
    Writer(upgrade, store).write(["second"], seen([2], NEW), space=NEW, columns={"kind": ["even"]})
    assert searcher.search(vector=queries([2], NEW), k=1).ids == ["second"]
    rollback(upgrade, store, reason="a test")
    assert searcher.search(vector=queries([1], OLD), k=1).ids == ["first"]
