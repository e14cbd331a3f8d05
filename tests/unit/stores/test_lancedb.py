"""What is special to LanceDB: its types, its SQL, its indexes, and many processes at once."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import product
from pathlib import Path
from typing import Any
from uuid import UUID

import lancedb
import numpy as np
import pyarrow as pa
import pytest
from lancedb.index import HnswSq, IvfFlat, IvfPq

from crossfade.errors import (
    ConfigError,
    InvalidVectors,
    MissingExtra,
    StoreChanged,
    StoreError,
    Unreachable,
    Unsupported,
)
from crossfade.spaces import METRICS, Metric
from crossfade.stores import Records, Store, Vectors, open_store
from crossfade.stores.conditions import Where, conditions, holds
from crossfade.stores.lancedb import LanceDBBackend
from crossfade.stores.lancedb_connection import LanceDBConnection
from crossfade.stores.lancedb_filters import quoted
from crossfade.stores.lancedb_rows import evenly

WIDE = 16
"""Enough components for LanceDB to take a column for vectors of an embedding model, and to check them."""


def drawn(count: int, dimension: int = WIDE, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)


def column(vectors: np.ndarray, *, empty: Sequence[int] = ()) -> pa.Array:
    mask = pa.array([row in empty for row in range(len(vectors))])
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1], mask=mask)


def make(folder: Path, rows: dict[str, Any], *, name: str = "made") -> lancedb.table.Table:
    return lancedb.connect(folder, read_consistency_interval=timedelta(0)).create_table(
        name, pa.table(rows), on_bad_vectors="null"
    )


def opened(folder: Path, *, ids: str = "id", name: str = "made") -> Store:
    return open_store(f"lancedb://{folder}?id={ids}#{name}")


@pytest.fixture
def vectors() -> np.ndarray:
    return drawn(300)


@pytest.fixture
def table(tmp_path: Path, vectors: np.ndarray) -> lancedb.table.Table:
    """300 rows with a text and a second field, ``new``, that every third row lacks."""
    return make(
        tmp_path,
        {
            "id": [f"item {row}" for row in range(300)],
            "vector": column(vectors),
            "new": column(drawn(300, 12, seed=1), empty=range(0, 300, 3)),
            "text": [f"text {row}" for row in range(300)],
        },
    )


@pytest.fixture
def store(table: lancedb.table.Table, tmp_path: Path) -> Store:
    return opened(tmp_path)


# What an address may be, and what is said of what cannot be opened.


def test_opening_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(StoreChanged, match="must lie in a folder, and there is none"):
        opened(tmp_path / "absent")
    with pytest.raises(StoreChanged, match="has none of the name 'made'"):
        opened(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_address_names_a_folder_and_a_table(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must name a table behind a #"):
        open_store(f"lancedb://{tmp_path}")
    with pytest.raises(ConfigError, match="must name a path on this machine"):
        open_store("lancedb://server/folder#made")
    with pytest.raises(StoreError, match="Invalid table name"):
        opened(tmp_path, name="../made")


@pytest.mark.parametrize("start", ["lancedb:///folder", "lancedb://server/folder"])
def test_no_secret_of_an_address_is_repeated(start: str) -> None:
    with pytest.raises(ConfigError, match="api_key") as raised:
        open_store(f"{start}?api_key=hunter2#made")
    assert "hunter2" not in str(raised.value)


def test_without_lancedb_the_extra_is_named(table: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lancedb", None)
    with pytest.raises(MissingExtra, match=r"pip install 'crossfade\[stores\]'"):
        opened(tmp_path)


def test_lancedb_is_imported_only_where_it_is_asked_for() -> None:
    said = "import sys, crossfade.stores; assert 'lancedb' not in sys.modules"
    subprocess.run([sys.executable, "-c", said], check=True)


def test_a_folder_that_may_not_be_read_is_said_so(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(Unreachable, match="may not be read"):
        opened(tmp_path)

    def refuse(_: Path) -> bool:
        raise PermissionError

    monkeypatch.setattr(Path, "is_dir", refuse)
    with pytest.raises(Unreachable, match="may not be read"):
        opened(tmp_path)


def test_ids_stand_in_a_column_that_can_hold_them(tmp_path: Path, vectors: np.ndarray) -> None:
    make(tmp_path, {"number": np.arange(300) / 7, "vector": column(vectors), "name": [None, "a"] * 150})
    with pytest.raises(StoreChanged, match=r"must have the column of ids 'id'; it has \['number'"):
        opened(tmp_path)
    with pytest.raises(StoreError, match="must be strings, whole numbers or UUIDs; the column 'number'"):
        opened(tmp_path, ids="number")
    nameless = opened(tmp_path, ids="name")
    with pytest.raises(StoreError, match="150 of 300 have none"):
        list(nameless.scan())
    with pytest.raises(StoreError, match="have none"):
        nameless.search(vectors[:1], field="vector", k=5)


def test_an_id_that_stands_twice_is_said_so(tmp_path: Path, vectors: np.ndarray) -> None:
    make(tmp_path, {"id": ["a", "b", "a"], "vector": column(vectors[:3])})
    with pytest.raises(StoreError, match="1 of 3 repeat"):
        list(opened(tmp_path).scan())


# Types of Arrow.


def test_columns_are_of_the_kinds_that_all_stores_know(tmp_path: Path, vectors: np.ndarray) -> None:
    rows = {
        "id": list(range(300)),
        "vector": column(vectors),
        "bytes": column(np.zeros((300, 4), dtype=np.uint8)),
        "large": pa.array(["a"] * 300, pa.large_string()),
        "coded": pa.array(["a", "b", None] * 100).dictionary_encode(),
        "small": pa.array([1] * 300, pa.int8()),
        "half": pa.array([0.5] * 300, pa.float16()),
        "time": [datetime(2020, 1, 2)] * 300,
        "list": [["a"]] * 300,
    }
    make(tmp_path, rows)
    store = opened(tmp_path)
    shape = store.describe()
    assert shape.ids == "integer"
    assert set(shape.fields) == {"vector"}
    assert dict(shape.columns) == {
        "bytes": "other",
        "large": "string",
        "coded": "string",
        "small": "integer",
        "half": "number",
        "time": "other",
        "list": "other",
    }
    found = store.fetch([1, 2], columns=list(shape.columns))
    assert found.columns["time"] == ["2020-01-02 00:00:00"] * 2
    assert found.columns["list"] == ["['a']"] * 2
    assert found.columns["coded"] == ["b", None]
    assert found.columns["half"] == [0.5, 0.5]
    assert store.count({"coded": ["a", "b"]}) == 200
    assert store.count({"large": "a"}) == 300


@pytest.mark.parametrize("floats", [np.float16, np.float32, np.float64])
def test_fields_of_floats_of_every_width(tmp_path: Path, vectors: np.ndarray, floats: type) -> None:
    stored = vectors.astype(floats)
    make(tmp_path, {"id": list(range(300)), "vector": column(stored, empty=[7])})
    store = opened(tmp_path)
    assert store.capabilities.keeps_vectors is (floats is not np.float16)
    found = store.fetch(list(range(300)), fields=["vector"]).vectors["vector"]
    assert found.values.dtype == np.float32
    np.testing.assert_array_equal(found.present, np.arange(300) != 7)
    np.testing.assert_array_equal(found.values[found.present], stored[found.present].astype(np.float32))
    assert not found.values[7].any()
    for exact in (False, True):
        (hits,) = store.search(vectors[4], field="vector", k=1, exact=exact)
        assert hits.ids == [4]
    assert store.set_vectors("vector", [7, 8], vectors[7:9]) == 2
    np.testing.assert_array_equal(
        store.fetch([7], fields=["vector"]).vectors["vector"].values[0], vectors[7].astype(floats).astype(np.float32)
    )
    assert store.set_vectors("vector", [7], None) == 1
    large = np.full((1, WIDE), 1e30, dtype=np.float32)
    if floats is np.float16:
        with pytest.raises(InvalidVectors, match="holds halffloat numbers, to 65504"):
            store.set_vectors("vector", [8], large)
        with pytest.raises(InvalidVectors, match="holds halffloat"):
            store.upsert(Records([8], {"vector": Vectors.of(large)}))
    else:
        assert store.set_vectors("vector", [8], large) == 1


def test_rows_named_by_uuids_are_written(tmp_path: Path, vectors: np.ndarray) -> None:
    ids = [UUID(int=7 * row + 1) for row in range(300)]
    make(tmp_path, {"id": pa.array([each.bytes for each in ids], pa.uuid()), "vector": column(vectors)})
    store = opened(tmp_path)
    assert store.describe().ids == "uuid"
    fresh = str(UUID(int=5))
    store.upsert(Records([fresh, str(ids[1])], {"vector": Vectors.of(vectors[2:4])}))
    assert store.set_vectors("vector", [str(ids[2]), str(UUID(int=6))], vectors[5:7]) == 1
    asked = [str(ids[2]), fresh, str(ids[1])]
    found = store.fetch([UUID(int=6), *asked], fields=["vector"])  # type: ignore[list-item]
    assert found.ids == asked
    np.testing.assert_array_equal(found.vectors["vector"].values, vectors[[5, 2, 3]])
    assert store.count() == 301


def test_vectors_of_some_rows_alone_are_written_and_emptied(store: Store, vectors: np.ndarray) -> None:
    ids = [f"item {row}" for row in range(4)]
    present = np.array([True, False, True, False])
    store.upsert(Records(ids, {"vector": Vectors(np.where(present[:, None], vectors[4:8], 0), present)}))
    found = store.fetch(ids, fields=["vector", "new"], columns=["text"])
    np.testing.assert_array_equal(found.vectors["vector"].present, present)
    np.testing.assert_array_equal(found.vectors["vector"].values[present], vectors[4:8][present])
    assert not found.vectors["new"].present.any()
    assert found.columns["text"] == [None] * 4
    assert store.set_vectors("vector", ids, None) == 4
    assert not store.fetch(ids, fields=["vector"]).vectors["vector"].present.any()
    assert store.count() == 300


def test_what_a_column_cannot_hold_is_refused_and_not_repeated(tmp_path: Path, vectors: np.ndarray) -> None:
    schema = pa.schema(
        [
            pa.field("id", pa.int32()),
            pa.field("vector", pa.list_(pa.float32(), WIDE), nullable=False),
            pa.field("year", pa.int64()),
            pa.field("name", pa.string(), nullable=False),
        ]
    )
    make(tmp_path, {"id": [1]}, name="other")  # the folder
    lancedb.connect(tmp_path).create_table("made", schema=schema)
    store = opened(tmp_path)
    first = {"vector": Vectors.of(vectors[:1])}
    store.upsert(Records([1], first, {"name": ["a"]}))
    with pytest.raises(StoreError, match="column 'year' must be int64") as raised:
        store.upsert(Records([1], first, {"name": ["a"], "year": ["the text of a document"]}))
    assert "document" not in str(raised.value)
    assert raised.value.__cause__ is None
    with pytest.raises(StoreError, match="column 'name' must have a value in each row"):
        store.upsert(Records([1], first))
    with pytest.raises(StoreError, match="column 'vector' must have a value"):
        store.upsert(Records([2], {}, {"name": ["a"]}))
    with pytest.raises(StoreError, match="cannot be emptied"):
        store.set_vectors("vector", [1], None)
    with pytest.raises(StoreError, match="column of ids must be int32"):
        store.upsert(Records([2**40], first, {"name": ["a"]}))
    assert store.set_vectors("vector", [1], vectors[1:2]) == 1
    assert store.fetch([2**40, 1, -(2**63)]).ids == [1]
    assert store.fetch([2**40]).ids == []
    assert store.delete([2**40]) == 0
    assert store.count() == 1


# SQL.


@pytest.mark.parametrize("type_", [pa.int8(), pa.uint8(), pa.int32(), pa.uint32(), pa.int64(), pa.uint64()], ids=str)
def test_bounds_that_a_column_cannot_hold_keep_the_right_rows(tmp_path: Path, type_: pa.DataType) -> None:
    limits = np.iinfo(type_.to_pandas_dtype())
    values = [int(limits.min), 0, 5, 6, min(int(limits.max), 2**63 - 1), None]
    make(tmp_path, {"id": list("abcdef"), "vector": column(drawn(6)), "n": pa.array(values, type_)})
    store = opened(tmp_path)
    bounds = [-(10**30), -(2**63), -1, 5, 5.0, 5.5, 6, 300, 2**31, 2**63 - 1, 10**30, np.inf, -np.inf, -0.5]
    wanted: list[Where] = [{"n": {operator: bound}} for operator, bound in product((">=", ">", "<", "<="), bounds)]
    wanted += [{"n": bound} for bound in bounds]
    wanted += [{"n": bounds}, {"n": [5, 5.5]}, {"n": [10**30, 0.5]}]
    for where in wanted:
        (condition,) = conditions(where)
        assert store.count(where) == sum(holds(condition, value) for value in values), where


def test_numbers_of_every_size_meet_columns_of_floats(tmp_path: Path) -> None:
    values = [-1e300, -1.5, 0.0, 1e-5, 1.0, 2.0**60, 1e300, None]
    make(tmp_path, {"id": list("abcdefgh"), "vector": column(drawn(8)), "x": values})
    store = opened(tmp_path)
    for operator, bound in product((">=", ">", "<", "<="), [-np.inf, np.inf, 10**400, -(10**400), 1, 2**60, 1e-5, -2]):
        where: Where = {"x": {operator: bound}}
        (condition,) = conditions(where)
        assert store.count(where) == sum(holds(condition, value) for value in values), where
    assert store.count({"x": [1, 2**60, 7.5]}) == 2


def test_names_and_texts_are_quoted(tmp_path: Path) -> None:
    texts = ["it's", "' OR '1'='1", "--", "\\", "a\\'b", '"', "`id`", "a\n\t%_", "写真 🖼", "", "NULL", "TRUE"]
    name = 'Odd "name"; DROP TABLE x\'y'
    make(tmp_path, {"Id Of It": texts[:-3], "Old Vec": column(drawn(len(texts) - 3)), name: texts[:-3]})
    store = open_store(f"lancedb://{tmp_path}?id=Id%20Of%20It#made")
    for text in texts:
        expected = [text] if text in texts[:-3] else []
        assert [i for part in store.scan(where={name: text}, columns=[name]) for i in part.ids] == expected
    assert store.count({name: ["it's", "`id`"]}) == 2
    assert sorted(store.fetch(texts[:-3], columns=[name]).ids) == sorted(texts[:-3])
    assert store.set_vectors("Old Vec", texts[:-3], drawn(len(texts) - 3)) == len(texts) - 3
    store.note("key", "text")
    store.add_field("New Vec", dimension=3)
    assert store.count() == len(store.search(drawn(1), field="Old Vec", k=50, lacking="New Vec")[0])
    store.drop_field("New Vec")
    assert store.notes() == {"key": "text"}
    assert store.delete(["' OR '1'='1"]) == 1
    assert store.count() == len(texts) - 4
    for impossible in ("", "a`b"):
        with pytest.raises(Unsupported, match="cannot name the column"):
            quoted(impossible)


# Reading.


def test_a_table_of_many_small_writes_is_scanned_in_whole_batches(tmp_path: Path, vectors: np.ndarray) -> None:
    table = make(tmp_path, {"id": [0], "vector": column(vectors[:1])})
    for row in range(1, 25):
        table.add(pa.table({"id": [row], "vector": column(vectors[row : row + 1])}))
    parts = list(opened(tmp_path).scan(fields=["vector"], batch=10))
    assert [len(part) for part in parts] == [10, 10, 5]
    assert [id_ for part in parts for id_ in part.ids] == list(range(25))
    np.testing.assert_array_equal(np.concatenate([part.vectors["vector"].values for part in parts]), vectors[:25])


def test_batches_are_cut_to_one_size() -> None:
    given = [
        pa.record_batch({"n": pa.array(range(start, stop), pa.int64())})
        for start, stop in ((0, 3), (3, 3), (3, 11), (11, 12))
    ]
    assert [part["n"].to_pylist() for part in evenly(given, 5)] == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11]]
    assert list(evenly([], 5)) == []


@pytest.mark.parametrize("kind", ["string", "integer"])
def test_thousands_of_ids_are_fetched_and_deleted(tmp_path: Path, kind: str) -> None:
    count = 45_000
    ids = [f"it's {row}" for row in range(count)] if kind == "string" else list(range(-5, count - 5))
    vectors = drawn(count, 2)
    make(tmp_path, {"id": ids, "vector": column(vectors)})
    store = opened(tmp_path)
    order = np.random.default_rng(0).permutation(count)
    found = store.fetch([ids[row] for row in order], fields=["vector"])
    assert found.ids == [ids[row] for row in order]
    np.testing.assert_array_equal(found.vectors["vector"].values, vectors[order])
    assert store.delete([ids[row] for row in order[:44_000]]) == 44_000
    assert store.count() == 1000


@pytest.mark.parametrize("metric", METRICS)
def test_rows_that_cannot_be_compared_do_no_harm(tmp_path: Path, metric: Metric) -> None:
    stored = drawn(300, 4)  # so small that LanceDB does not check them
    stored[3], stored[5], stored[6] = 0, np.nan, np.inf
    make(tmp_path, {"id": list(range(300)), "old": column(stored)})
    store = opened(tmp_path)
    (hits, nothing) = store.search(np.stack([stored[0], np.zeros(4)]), field="old", k=300, metric=metric)
    sound = set(range(300)) - {3, 5, 6}
    assert sound <= set(hits.ids)
    assert 5 not in hits.ids
    assert (3 in hits.ids) is (metric != "cosine")
    assert not np.isnan(hits.scores).any()
    assert (len(nothing) == 0) is (metric == "cosine")
    assert len(store.search(stored[:1], field="old", k=10, metric=metric)[0]) == 10
    assert np.isnan(store.fetch([5], fields=["old"]).vectors["old"].values).all()


def test_many_queries_are_answered_each(store: Store, vectors: np.ndarray) -> None:
    queries = np.tile(vectors, (2, 1))
    found = store.search(queries, field="vector", k=3)
    assert [hits.ids[0] for hits in found] == [f"item {row % 300}" for row in range(600)]
    alone = store.search(queries[17], field="vector", k=3)[0]
    assert alone.ids == found[17].ids
    np.testing.assert_allclose(alone.scores, found[17].scores, atol=1e-6)


# Indexes.


@pytest.fixture(scope="module")
def clustered() -> np.ndarray:
    generator = np.random.default_rng(0)
    centres = generator.standard_normal((60, WIDE))
    spread = generator.standard_normal((4000, WIDE))
    return (centres[generator.integers(0, 60, 4000)] + 0.6 * spread).astype(np.float32)


INDEXES = {
    "flat": lambda metric: IvfFlat(distance_type=metric, num_partitions=32),
    "pq": lambda metric: IvfPq(distance_type=metric, num_partitions=32, num_sub_vectors=2),
    "hnsw": lambda metric: HnswSq(distance_type=metric, num_partitions=2),
}


def scores_of(metric: Metric, query: np.ndarray, stored: np.ndarray) -> np.ndarray:
    query, stored = query.astype(np.float64), stored.astype(np.float64)
    if metric == "l2":
        return -np.linalg.norm(stored - query, axis=1)
    product = stored @ query
    return product if metric == "dot" else product / np.linalg.norm(stored, axis=1) / np.linalg.norm(query)


@pytest.mark.parametrize(("index", "metric"), [("flat", "dot"), ("pq", "l2"), ("pq", "cosine"), ("hnsw", "cosine")])
def test_an_index_has_a_metric_and_is_passed_by_where_all_must_be_compared(
    tmp_path: Path, clustered: np.ndarray, index: str, metric: Metric
) -> None:
    count = len(clustered)
    table = make(
        tmp_path, {"id": list(range(count)), "Old Vec": column(clustered), "rare": [n % 400 for n in range(count)]}
    )
    store = opened(tmp_path)
    assert store.describe().fields["Old Vec"].metric is None
    table.create_index("Old Vec", config=INDEXES[index](metric), wait_timeout=timedelta(minutes=1))
    assert store.describe().fields["Old Vec"].metric == metric
    with pytest.raises(Unsupported, match=f"compares by {metric}"):
        store.search(clustered[:1], field="Old Vec", k=1, metric="cosine" if metric != "cosine" else "l2")

    queries = clustered[:20] + 0.1
    truth = [np.argsort(-scores_of(metric, query, clustered))[:10] for query in queries]
    for query, best, hits in zip(
        queries, truth, store.search(queries, field="Old Vec", k=10, metric=metric, exact=True), strict=True
    ):
        assert hits.ids == best.tolist()
        np.testing.assert_allclose(hits.scores, scores_of(metric, query, clustered)[best], rtol=1e-4, atol=1e-4)
    found = store.search(queries, field="Old Vec", k=10, metric=metric)
    for query, hits in zip(queries, found, strict=True):  # the true scores of what was found, not those of codes
        expected = scores_of(metric, query, clustered)[hits.ids]
        np.testing.assert_allclose(hits.scores, expected, rtol=1e-4, atol=1e-4)
    assert np.mean([len(set(hits.ids) & set(best)) / 10 for hits, best in zip(found, truth, strict=True)]) > 0.95

    (rare,) = store.search(queries[0], field="Old Vec", k=50, metric=metric, where={"rare": 7})
    assert sorted(rare.ids) == list(range(7, count, 400))  # also from partitions far away
    (everything,) = store.search(queries[0], field="Old Vec", k=2**40, metric=metric)
    assert len(everything) == count

    store.upsert(Records([-1], {"Old Vec": Vectors.of(5 * queries[:1])}, {"rare": [1]}))
    (hits,) = store.search(5 * queries[0], field="Old Vec", k=1, metric=metric)
    assert hits.ids == [-1]
    store.delete([-1])
    store.add_field("new", dimension=3)
    store.set_vectors("new", list(range(2000)), drawn(2000, 3))  # written anew, and no longer in the index
    found = store.search(queries, field="Old Vec", k=10, metric=metric)
    assert np.mean([len(set(hits.ids) & set(best)) / 10 for hits, best in zip(found, truth, strict=True)]) > 0.95
    (others,) = store.search(queries[0], field="Old Vec", k=2500, metric=metric, lacking="new")
    assert sorted(others.ids) == list(range(2000, 4000))
    store.drop_field("Old Vec")
    assert set(store.describe().fields) == {"new"}


# What others do to the table.


def test_notes_survive_whatever_is_done_to_the_table(
    store: Store, table: lancedb.table.Table, vectors: np.ndarray
) -> None:
    table.update_field_metadata({"path": "id", "metadata": {"their own": "note"}})
    store.note("first", "1")
    store.note("second", "2")
    store.add_field("third", dimension=WIDE)
    store.set_vectors("third", ["item 1"], vectors[:1])
    store.upsert(Records(["item 1", "fresh"], {"vector": Vectors.of(vectors[:2])}))
    store.delete(["item 2"])
    store.drop_field("third")
    table.optimize()
    assert store.notes() == {"first": "1", "second": "2"}
    store.note("first", None)
    assert store.notes() == {"second": "2"}
    assert table.schema.field("id").metadata[b"their own"] == b"note"


def test_a_field_or_a_column_that_another_drops_is_said_so(store: Store, table: lancedb.table.Table) -> None:
    table.drop_columns(["new", "text"])
    calls = [
        lambda: store.search(drawn(1, 12), field="new", k=1),
        lambda: store.search(drawn(1), field="vector", k=1, lacking="new"),
        lambda: store.set_vectors("new", ["item 1"], drawn(1, 12)),
        lambda: list(store.scan(fields=["new"])),
        lambda: list(store.scan(columns=["text"])),
        lambda: store.fetch(["item 1"], columns=["text"]),
        lambda: store.count({"text": "a"}),
        lambda: store.drop_field("new"),
    ]
    for call in calls:
        with pytest.raises(StoreChanged, match=r"must have the columns \['(new|text)'\]") as raised:
            call()
        assert store.address in str(raised.value)


def test_a_column_of_ids_that_another_drops_is_said_so(store: Store, table: lancedb.table.Table) -> None:
    table.drop_columns(["id"])
    for call in (store.describe, store.notes, lambda: store.fetch(["item 1"]), lambda: store.delete(["item 1"])):
        with pytest.raises(StoreChanged, match="must have the column of ids 'id'"):
            call()


def test_a_table_that_another_drops_is_said_so_and_not_made_again(store: Store, tmp_path: Path) -> None:
    lancedb.connect(tmp_path).drop_table("made")
    calls = [
        lambda: store.set_vectors("new", ["item 1"], drawn(1, 12)),
        lambda: store.upsert(Records(["a"], {"vector": Vectors.of(drawn(1))})),
        lambda: store.delete(["item 1"]),
        lambda: list(store.scan()),
        lambda: store.fetch(["item 1"]),
        lambda: store.note("key", "text"),
        store.notes,
    ]
    for call in calls:
        with pytest.raises(StoreChanged, match="must be a table of LanceDB"):
            call()
    assert not (tmp_path / "made.lance").exists()


def test_a_table_that_is_made_anew_is_read_as_it_is_now(store: Store, tmp_path: Path, vectors: np.ndarray) -> None:
    store.delete(["item 1"])
    lancedb.connect(tmp_path).drop_table("made")
    make(tmp_path, {"id": ["fresh"], "vector": column(vectors[:1])})
    assert store.count() == 1
    assert store.search(vectors[0], field="vector", k=3)[0].ids == ["fresh"]
    store.upsert(Records(["second"], {"vector": Vectors.of(vectors[1:2])}))
    assert store.count() == 2


def test_a_column_of_ids_that_becomes_another_is_said_so(store: Store, tmp_path: Path) -> None:
    lancedb.connect(tmp_path).drop_table("made")
    make(tmp_path, {"id": [0.5], "vector": column(drawn(1))})
    with pytest.raises(StoreChanged, match="holds double now"):
        store.fetch(["item 1"])


def test_a_table_that_embeds_by_itself_is_read_only(tmp_path: Path, vectors: np.ndarray) -> None:
    functions = b'[{"name": "nobody-has-it", "model": {}, "source_column": "text", "vector_column": "vector"}]'
    schema = pa.schema(
        [
            pa.field("id", pa.string()),
            pa.field("vector", pa.list_(pa.float32(), WIDE)),
            pa.field("text", pa.string()),
        ]
    )
    (tmp_path / "made.lance").mkdir()
    lancedb.connect(tmp_path).create_table(
        "made", schema=schema.with_metadata({b"embedding_functions": functions}), mode="overwrite"
    )
    store = opened(tmp_path)
    assert not store.capabilities.write
    with pytest.raises(Unsupported, match="Writing rows is asked for"):
        store.set_vectors("vector", ["a"], vectors[:1])
    assert store.count() == 0
    assert store.search(vectors[0], field="vector", k=1)[0].ids == []
    store.note("key", "text")
    assert store.notes() == {"key": "text"}


def test_other_errors_of_the_client_are_ours(store: Store) -> None:
    with pytest.raises(StoreError, match=r"could not be given a field: \w+: .*cannot contain") as raised:
        store.add_field("a.b", dimension=3)
    assert store.address in str(raised.value)
    assert ".rs:" not in str(raised.value)


def test_who_cannot_lock_does_not_insert(store: Store, tmp_path: Path) -> None:
    (tmp_path / "made.crossfade.lock").mkdir()
    with pytest.raises(StoreError, match=r"must be able to write .*made.crossfade.lock"):
        store.upsert(Records(["a"], {"vector": Vectors.of(drawn(1))}))
    assert store.count() == 300


# Many at once.


def connection(tmp_path: Path) -> LanceDBConnection:
    return LanceDBConnection(tmp_path, "made", id_column="id", address="lancedb:///folder#made")


def test_a_write_is_tried_again_where_others_got_ahead(
    table: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = [
        "lance error: Incompatible transaction: It is incompatible with concurrent transaction Update",
        "lance error: Retryable commit conflict for version 7",
        "Too many concurrent writers. Attempted 20 times",
    ]

    def write() -> str:
        if said:
            raise RuntimeError(said.pop())
        return "written"

    assert connection(tmp_path).persistently(write) == "written"

    def always() -> None:
        raise RuntimeError("Commit conflict for version 8")

    monkeypatch.setattr("crossfade.stores.lancedb_connection.PATIENCE", 0.05)
    with pytest.raises(RuntimeError, match="version 8"):
        connection(tmp_path).persistently(always)

    def wrong() -> None:
        said.append("once")
        raise RuntimeError("Type conflicts between item(Float16) and item(Float32)")

    with pytest.raises(RuntimeError, match="Type conflicts"):
        connection(tmp_path).persistently(wrong)
    assert said == ["once"]


def add_filled(table: lancedb.table.Table, field: str, ids: list[str]) -> None:
    """As another program does it."""
    table.add_columns(pa.field(field, pa.list_(pa.float32(), 3)))
    rows = pa.table({"id": ids, field: column(drawn(len(ids), 3))})
    table.merge_insert("id").when_matched_update_all().execute(rows)


def test_a_replaced_row_keeps_nothing_of_a_field_that_is_added_meanwhile(
    tmp_path: Path, vectors: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = make(tmp_path, {"id": ["a", "b"], "vector": column(vectors[:2])})
    store = opened(tmp_path)
    look = LanceDBConnection.schema
    looks: list[int] = []

    def look_and_add(self: LanceDBConnection, needed: Sequence[str] = ()) -> pa.Schema:
        schema = look(self, needed)
        looks.append(1)
        if len(looks) == 1:
            add_filled(table, "new", ["a", "b"])
        return schema

    monkeypatch.setattr(LanceDBConnection, "schema", look_and_add)
    store.upsert(Records(["a"], {"vector": Vectors.of(vectors[2:3])}))
    monkeypatch.undo()
    store.describe()
    found = store.fetch(["a", "b"], fields=["vector", "new"])
    assert found.vectors["new"].present.tolist() == [False, True]
    np.testing.assert_array_equal(found.vectors["vector"].values[0], vectors[2])


def test_a_field_that_is_added_after_a_replacement_is_left_alone(
    tmp_path: Path, vectors: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = make(tmp_path, {"id": ["a", "b"], "vector": column(vectors[:2])})
    store = opened(tmp_path)
    merge = LanceDBBackend._merge

    def merge_then_add(self: LanceDBBackend, builder: Any, rows: pa.Table) -> object:
        result = merge(self, builder, rows)
        add_filled(table, "new", ["a"])
        return result

    monkeypatch.setattr(LanceDBBackend, "_merge", merge_then_add)
    store.upsert(Records(["a"], {"vector": Vectors.of(vectors[2:3])}))
    monkeypatch.undo()
    assert store.fetch(["a"], fields=["new"]).vectors["new"].present.all()


WRITER = """
import sys
import numpy as np
from crossfade.stores import Records, Vectors, open_store

role, address = sys.argv[1:3]
store = open_store(address)
print("ready", flush=True)
sys.stdin.readline()
for turn in range(12):
    if role == "fill":  # of rows 0 to 199, of which others change columns and delete some
        ids = [f"item {row}" for row in range(turn % 4 * 50, turn % 4 * 50 + 50)]
        store.set_vectors("new", ids, np.full((50, 12), turn + 1, dtype=np.float32))
    elif role == "empty":
        store.set_vectors("new", [f"item {row}" for row in range(200, 250)], None)
    elif role == "delete":
        assert store.delete([f"item {row}" for row in range(100 + 4 * turn, 104 + 4 * turn)]) == 4
    elif role == "note":
        store.note(f"{sys.argv[3]} {turn}", str(turn))
    elif role == "insert":  # the same new rows by two processes
        ids = [f"fresh {row}" for row in range(5 * turn, 5 * turn + 5)]
        store.upsert(Records(ids, {"vector": Vectors.of(np.full((5, 16), turn, dtype=np.float32))}))
    elif role == "replace":
        ids = [f"item {row}" for row in range(250, 300)]
        vectors = np.full((50, 16), turn, dtype=np.float32)
        store.upsert(Records(ids, {"vector": Vectors.of(vectors)}, {"text": [f"turn {turn}"] * 50}))
    elif role == "field":
        store.add_field(f"field {turn}", dimension=3)
        store.drop_field(f"field {turn}")
"""

APPLICATION = """
import sys, lancedb

table = lancedb.connect(sys.argv[2]).open_table("made")
print("ready", flush=True)
sys.stdin.readline()
for turn in range(12):  # LanceDB alone gives up where others keep getting ahead
    while True:
        try:
            table.update(where="row < 250", values={"text": f"turn {turn}"})
            break
        except (RuntimeError, ValueError) as error:
            assert "concurrent" in str(error) or "conflict" in str(error), error
"""


def test_many_processes_that_write_at_once_lose_nothing(table: lancedb.table.Table, tmp_path: Path) -> None:
    table.add_columns(pa.field("row", pa.int64()))
    ids = [f"item {row}" for row in range(300)]
    table.merge_insert("id").when_matched_update_all().execute(pa.table({"id": ids, "row": list(range(300))}))
    store = opened(tmp_path)
    roles = [
        ["fill"], ["empty"], ["delete"], ["note", "a"], ["note", "b"], ["insert"], ["insert"], ["replace"], ["field"],
    ]  # fmt: skip
    commands = [[sys.executable, "-c", WRITER, role, store.address, *rest] for role, *rest in roles]
    commands.append([sys.executable, "-c", APPLICATION, "update", str(tmp_path)])
    started = [subprocess.Popen(each, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for each in commands]
    try:
        for process in started:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in started:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        assert [process.wait(timeout=300) for process in started] == [0] * len(started)
    finally:
        for process in started:
            process.kill()
            process.communicate()

    shape = store.describe()
    assert set(shape.fields) == {"vector", "new"}
    assert store.notes() == {f"{name} {turn}": str(turn) for name in "ab" for turn in range(12)}
    found = {
        id_: (part, row)
        for part in store.scan(fields=["vector", "new"], columns=["text"])
        for row, id_ in enumerate(part.ids)
    }
    gone = set(range(100, 148))
    expected = {f"item {row}" for row in range(300) if row not in gone} | {f"fresh {row}" for row in range(60)}
    assert set(found) == expected
    assert store.count() == len(expected)  # none twice
    for row in set(range(300)) - gone:
        part, place = found[f"item {row}"]
        filled = part.vectors["new"]
        assert part.columns["text"][place] == "turn 11", row
        if row < 200:
            assert (filled.values[place] == 9 + row // 50).all(), row
        else:
            assert not filled.present[place], row
        if row >= 250:
            assert (part.vectors["vector"].values[place] == 11).all(), row
    for row in range(60):
        part, place = found[f"fresh {row}"]
        assert (part.vectors["vector"].values[place] == row // 5).all(), row
