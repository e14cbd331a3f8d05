"""What is special to Qdrant; what it shares with all stores is in tests/contract."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from qdrant_client import QdrantClient, models

from crossfade.errors import (
    ConfigError,
    InvalidIds,
    MissingExtra,
    StoreChanged,
    StoreError,
    Unreachable,
    Unsupported,
)
from crossfade.stores import Records, Store, Vectors, open_store
from crossfade.stores.conditions import Where, conditions, holds
from crossfade.stores.qdrant_connection import PointsGone, open_server
from crossfade.stores.qdrant_filters import payload_key
from crossfade.stores.qdrant_local import OPEN, borrow
from crossfade.stores.qdrant_points import emptied, indexed, kinds_of, new_place, points_of, requests
from crossfade.stores.qdrant_rows import Rows

COSINE, DOT, EUCLID = models.Distance.COSINE, models.Distance.DOT, models.Distance.EUCLID
SECRET = "s3cr3t-of-the-server"


def params(size: int = 3, distance: models.Distance = DOT, **more: Any) -> models.VectorParams:
    return models.VectorParams(size=size, distance=distance, **more)


def point(id_: int | str, vector: object = (1.0, 0.0, 0.0), **payload: object) -> models.PointStruct:
    named = {"old": list(vector)} if isinstance(vector, tuple) else vector
    return models.PointStruct(id=id_, vector=named, payload=payload)


class Folder:
    """A folder of the local mode, filled by its own client."""

    def __init__(self, path: Path) -> None:
        self.path = path
        QdrantClient(path=str(path)).close()

    def make(self, *points: models.PointStruct, name: str = "rows", config: object = None) -> str:
        shared = borrow(self.path)
        shared.client.create_collection(name, vectors_config={"old": params()} if config is None else config)
        if points:
            shared.client.upsert(name, points=list(points), wait=True)
        shared.release()
        return f"qdrant://{self.path}/{name}"

    @contextmanager
    def client(self) -> Iterator[QdrantClient]:
        shared = borrow(self.path)
        try:
            yield shared.client
        finally:
            shared.release()


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "store")


@pytest.fixture(autouse=True)
def everything_is_closed() -> Iterator[None]:
    before = set(OPEN)
    yield
    for path in set(OPEN) - before:
        while path in OPEN:
            OPEN[path].release()


def python(code: str) -> str:
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)
    return run.stdout + run.stderr


# Addresses


@pytest.mark.parametrize(
    "text",
    [
        "qdrant://",
        "qdrant://host",
        "qdrant:///rows",
        "qdrant+https:///folder/rows",
        "qdrant://user@host/rows",
        "qdrant://host/rows#part",
        "qdrant://host/rows?id=",
        "qdrant://host/rows?ids=string",
        "qdrant://host/rows?id=sku&ids=uuid",
        "qdrant://host/rows?api_key=x",
    ],
)
def test_an_address_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"address of|qdrant|option id"):
        open_store(text)


def test_what_stands_where_a_user_would_is_not_repeated() -> None:
    with pytest.raises(ConfigError, match="names no user") as raised:
        open_store(f"qdrant://{SECRET}@host/rows")
    assert SECRET not in str(raised.value)


def test_without_the_client_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "qdrant_client", None)
    with pytest.raises(MissingExtra, match=r"crossfade\[stores\]"):
        open_store("qdrant://host/rows")


def test_stores_are_imported_without_the_client() -> None:
    assert python("import sys, crossfade.stores; print('qdrant_client' in sys.modules)").strip() == "False"
    assert python("import sys, crossfade.stores.qdrant; print('qdrant_client' in sys.modules)").strip() == "False"


# Local folders


def test_a_folder_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(StoreChanged, match="local mode"):
        open_store(f"qdrant://{tmp_path}/absent/rows")
    assert not (tmp_path / "absent").exists()


def test_a_collection_that_is_not_there_is_said_so_and_the_folder_unlocked(folder: Folder) -> None:
    with pytest.raises(StoreChanged, match=r"no 'rows'") as raised:
        open_store(f"qdrant://{folder.path}/rows")
    assert str(folder.path) in str(raised.value)
    assert folder.path.resolve() not in OPEN


def test_a_folder_that_cannot_be_read_is_said_so(folder: Folder) -> None:
    (folder.path / "meta.json").write_text("{")
    with pytest.raises(StoreError, match="cannot be read by qdrant-client"):
        open_store(f"qdrant://{folder.path}/rows")


def test_handles_of_one_process_share_a_folder_and_others_are_refused(folder: Folder) -> None:
    address = folder.make(point(1), point(2))
    first, second = open_store(address), open_store(f"{address}?ids=integer")
    assert not first.capabilities.shared
    first.delete([1])
    assert second.count() == 1
    other = f"from crossfade.stores import open_store; print(open_store({address!r}).count())"
    assert "Unreachable" in python(other)
    first.close()
    first.close()
    with pytest.raises(StoreError, match="was closed"):
        first.count()
    assert second.count() == 1
    assert "Unreachable" in python(other)
    second.close()
    assert python(other).strip() == "1"
    assert open_store(address).count() == 1


def test_what_was_written_is_there_after_opening_again(folder: Folder) -> None:
    address = folder.make(point(1), point(2)) + "?ids=integer"
    with open_store(address) as store:
        store.add_field("new", dimension=2, metric="l2")
        store.set_vectors("new", [2], np.array([[3.0, 4.0]]))
        store.upsert(Records([5], {"old": Vectors.of(np.array([[0.1, 0.2, 0.3]]))}, {"script": ["写"]}))
        store.note("key", "text")
    with open_store(address) as store:
        found = store.fetch([1, 2, 5], fields=["old", "new"], columns=["script"])
        assert found.vectors["new"].present.tolist() == [False, True, False]
        np.testing.assert_array_equal(found.vectors["new"].values[1], [3, 4])
        np.testing.assert_array_equal(found.vectors["old"].values[2], np.float32([0.1, 0.2, 0.3]))
        assert found.columns["script"] == [None, None, "写"]
        assert store.notes() == {"key": "text"}
        assert store.describe().fields["new"].metric == "l2"


def test_threads_follow_one_another(folder: Folder) -> None:
    address = folder.make() + "?ids=integer"
    wrong: list[Exception] = []

    def work(number: int) -> None:
        try:
            with open_store(address) as store:
                for row in range(number * 10, number * 10 + 10):
                    store.upsert(Records([row], {"old": Vectors.of(np.full((1, 3), row))}))
                    sum(len(part) for part in store.scan(fields=["old"], batch=3))
        except Exception as error:
            wrong.append(error)

    with open_store(address) as store:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong
        found = store.fetch(list(range(40)), fields=["old"])
        np.testing.assert_array_equal(found.vectors["old"].values[:, 0], np.arange(40))


# Fields


def test_a_vector_without_a_name_is_a_field_without_a_name(folder: Folder) -> None:
    address = folder.make(
        models.PointStruct(id=1, vector=[1, 2, 3], payload={}),
        models.PointStruct(id=2, vector=[3, 2, 1], payload={}),
        config=params(distance=EUCLID),
    )
    store = open_store(address)
    assert dict(store.describe().fields).keys() == {""}
    np.testing.assert_array_equal(store.fetch([2], fields=[""]).vectors[""].values, [[3, 2, 1]])
    (hits,) = store.search(np.array([1.0, 2.0, 3.0]), field="", k=2, metric="l2")
    assert hits.ids == [1, 2]
    np.testing.assert_allclose(hits.scores, [0, -np.sqrt(8)], rtol=1e-6)
    store.upsert(Records([2, 3], {"": Vectors(np.float32([[7, 8, 9], [0, 0, 0]]), np.array([True, False]))}))
    (page,) = store.scan(fields=[""])
    assert page.vectors[""].present.tolist() == [True, True, False]
    assert store.set_vectors("", [3, 9], np.array([[1.0, 1, 1], [2, 2, 2]])) == 1
    assert store.set_vectors("", [1], None) == 1

    store.add_field("new", dimension=2)
    assert store.set_vectors("new", [2], np.array([[1.0, 0]])) == 1
    store.upsert(Records([4], {"": Vectors.of(np.ones((1, 3))), "new": Vectors.of(np.ones((1, 2)))}))
    found = store.fetch([1, 2, 3, 4], fields=["", "new"])
    assert found.vectors[""].present.tolist() == [False, True, True, True]
    assert found.vectors["new"].present.tolist() == [False, True, False, True]
    np.testing.assert_array_equal(found.vectors[""].values[1:3], [[7, 8, 9], [1, 1, 1]])
    (hits,) = store.search(np.ones(3), field="", k=5, metric="l2", lacking="new")
    assert hits.ids == [3]


def test_whether_vectors_are_kept_depends_on_the_fields(folder: Folder) -> None:
    store = open_store(folder.make(config={"old": params(), "far": params(distance=EUCLID)}))
    assert store.capabilities.keeps_vectors
    store.add_field("new", dimension=2, metric="cosine")
    assert not store.capabilities.keeps_vectors
    store.drop_field("new")
    assert store.capabilities.keeps_vectors
    half = {"old": params(datatype=models.Datatype.FLOAT16)}
    assert not open_store(folder.make(name="half", config=half)).capabilities.keeps_vectors


def test_a_metric_that_crossfade_has_not_is_refused(folder: Folder) -> None:
    with pytest.raises(Unsupported, match="compares by Manhattan"):
        open_store(folder.make(config={"old": params(distance=models.Distance.MANHATTAN)}))
    assert folder.path.resolve() not in OPEN


def test_sparse_vectors_and_multivectors_are_not_fields(folder: Folder) -> None:
    many = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
    with folder.client() as client:
        client.create_collection(
            "rows",
            vectors_config={"old": params(), "many": params(multivector_config=many)},
            sparse_vectors_config={"words": models.SparseVectorParams()},
        )
    store = open_store(f"qdrant://{folder.path}/rows?ids=integer")
    assert set(store.describe().fields) == {"old"}
    store.upsert(Records([1], {"old": Vectors.of(np.ones((1, 3)))}))
    assert store.fetch([1], fields=["old"]).vectors["old"].present.all()


def test_a_field_that_another_handle_added_is_read(folder: Folder) -> None:
    address = folder.make(point(1))
    store, other = open_store(address), open_store(address)
    other.add_field("new", dimension=2, metric="dot")
    other.set_vectors("new", [1], np.ones((1, 2)))
    backend = store._backend
    assert backend.fetch([1], ["new"], []).vectors["new"].present.all()
    assert next(backend.scan(["new"], [], (), 5)).vectors["new"].present.all()


def test_a_field_that_another_handle_drops_or_changes_is_missed(folder: Folder) -> None:
    address = folder.make(point(1))
    store, other = open_store(address), open_store(address)
    other.add_field("new", dimension=2, metric="dot")
    store.set_vectors("new", [1], np.ones((1, 2)))
    other.drop_field("new")
    with pytest.raises(StoreChanged, match="'new' was there"):
        store.fetch([1], fields=["new"])
    for attempt in (
        lambda: store.set_vectors("new", [1], np.ones((1, 2))),
        lambda: store.set_vectors("new", [1], None),
        lambda: store.search(np.ones(2), field="new", k=1, metric="dot"),
    ):
        store._shape.fields["new"] = store._shape.fields["old"].__class__("new", 2, "dot")  # type: ignore[index]
        with pytest.raises(StoreChanged, match="gone or has another dimension") as raised:
            attempt()
        assert address in str(raised.value)
    other.add_field("new", dimension=5, metric="dot")
    other.set_vectors("new", [1], np.ones((1, 5)))
    store._backend._fields["new"] = store._shape.fields["new"]  # type: ignore[attr-defined]  # what it knew before
    with pytest.raises(StoreChanged, match="had 2 dimensions, and has 5 now"):
        store.fetch([1], fields=["new"])


# Ids


def test_ids_in_the_payload_may_stand_in_any_point(folder: Folder) -> None:
    odd = str(UUID(int=5))
    address = folder.make(point(0, sku="a", script="LATIN"), point(7, sku="b"), point(odd, sku="c")) + "?id=sku"
    store = open_store(address)
    assert store.describe().ids == "string"
    assert "sku" not in store.describe().columns
    assert store.fetch(["c", "d", "a"]).ids == ["c", "a"]
    store.upsert(Records(["a", "d"], {"old": Vectors.of(np.eye(3)[:2])}, {"script": ["GREEK", None]}))
    with folder.client() as client:
        stored = {each.id: each.payload for each in client.scroll("rows", limit=9)[0]}
    assert stored == {
        0: {"sku": "a", "script": "GREEK"},
        7: {"sku": "b"},
        odd: {"sku": "c"},
        new_place("d"): {"sku": "d"},
    }
    assert store.set_vectors("old", ["b", "e"], np.ones((2, 3))) == 1
    assert store.set_vectors("old", ["c"], None) == 1
    (hits,) = store.search(np.ones(3), field="old", k=9, metric="dot")
    assert hits.ids[0] == "b"
    assert "c" not in hits.ids
    assert store.delete(["a", "b", "e"]) == 2
    assert sorted(id_ for part in store.scan() for id_ in part.ids) == ["c", "d"]


def test_the_place_of_a_new_row_never_changes() -> None:
    assert new_place("item/1") == "4c82af5f-237b-5212-8fe3-9fd92305614c"


def test_more_ids_than_fit_into_one_look_up(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crossfade.stores.qdrant_rows.LOOKED_UP", 3)
    monkeypatch.setattr("crossfade.stores.qdrant.LOOKED_UP", 3)
    monkeypatch.setattr("crossfade.stores.qdrant.ASKED", 2)
    for name, option, ids in (("a", "", list(range(10))), ("b", "?id=sku", [f"s{number}" for number in range(10)])):
        points = (point(number, sku=f"s{number}") for number in range(10))
        store = open_store(folder.make(*points, name=name) + option)
        assert store.fetch(ids[::-1]).ids == ids[::-1]
        assert store.set_vectors("old", ids, np.eye(3)[[n % 3 for n in range(10)]]) == 10
        assert store.set_vectors("old", ids[:8], None) == 8
        assert [len(hits) for hits in store.search(np.ones((5, 3)), field="old", k=9, metric="dot")] == [2] * 5
        assert store.delete(ids[:4]) == 4
        assert store.count() == 6
        store.upsert(Records(ids[:4], {"old": Vectors.of(np.ones((4, 3)))}))


def test_whole_numbers_may_stand_in_the_payload(folder: Folder) -> None:
    store = open_store(folder.make(point(1, sku=-5), point(2, sku=9)) + "?id=sku")
    assert store.describe().ids == "integer"
    assert store.fetch([9, -5]).ids == [9, -5]
    empty = open_store(folder.make(name="empty") + "?id=sku&ids=integer")
    empty.upsert(Records([-7], {"old": Vectors.of(np.ones((1, 3)))}))
    assert empty.fetch([-7]).ids == [-7]
    assert open_store(folder.make(name="none") + "?id=sku").describe().ids == "string"


def test_an_id_in_two_points_is_refused(folder: Folder) -> None:
    store = open_store(folder.make(point(1, sku="a"), point(2, sku="a"), point(3, sku="b")) + "?id=sku")
    for attempt in (
        lambda: store.fetch(["a"]),
        lambda: list(store.scan()),
        lambda: store.set_vectors("old", ["a"], np.ones((1, 3))),
        lambda: store.upsert(Records(["a"], {"old": Vectors.of(np.ones((1, 3)))})),
        lambda: store.delete(["a"]),
    ):
        with pytest.raises(StoreError, match="'a' stands under 'sku' in several"):
            attempt()
    assert store.count() == 3
    assert store.fetch(["b"]).ids == ["b"]


def test_an_id_in_more_points_than_fit_into_one_look_up_is_refused(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crossfade.stores.qdrant_rows.LOOKED_UP", 2)
    store = open_store(folder.make(point(1, sku="b"), *(point(n, sku="a") for n in (2, 3, 4))) + "?id=sku")
    with pytest.raises(StoreError, match="'a' stands under 'sku' in several"):
        store.fetch(["b", "a"])


def test_points_without_an_id_of_the_kind_are_refused(folder: Folder) -> None:
    address = folder.make(point(1, sku="a"), point(2), point(str(UUID(int=3)), sku=4))
    with pytest.raises(StoreError, match=r"the point 2 has nothing there"):
        list(open_store(address + "?id=sku").scan(batch=2))
    with pytest.raises(StoreError, match=r"kind 'integer'.*has a value of the type str"):
        list(open_store(address).scan())
    with pytest.raises(StoreError, match=r"kind 'uuid'"):
        open_store(address + "?ids=uuid").search(np.ones(3), field="old", k=3, metric="dot")
    with pytest.raises(StoreError, match="kind 'integer'"):
        list(open_store(folder.make(point(2**63), name="large")).scan())


def test_the_kind_of_ids_of_an_empty_collection_is_stated(folder: Folder) -> None:
    address = folder.make()
    assert open_store(address).describe().ids == "uuid"
    store = open_store(address + "?ids=integer")
    assert store.describe().ids == "integer"
    with pytest.raises(InvalidIds, match="numbered from 0"):
        store.upsert(Records([3, -1], {"old": Vectors.of(np.ones((2, 3)))}))
    assert store.count() == 0
    store.upsert(Records([0], {"old": Vectors.of(np.ones((1, 3)))}))
    assert store.fetch([-1, 0]).ids == [0]
    assert store.delete([-1]) == 0
    assert store.set_vectors("old", [-1], np.ones((1, 3))) == 0


# Columns and conditions


def test_columns_are_those_of_some_points(folder: Folder) -> None:
    rows = [
        point(1, script="LATIN", year=1990, weight=1, mixed="a", tags=["x"], place={"lon": 1}, public=True),
        point(2, script=None, weight=1.5, mixed=2),
    ]
    shape = open_store(folder.make(*rows)).describe()
    assert shape.schemaless
    assert dict(shape.columns) == {
        "script": "string",
        "year": "integer",
        "weight": "number",
        "tags": "other",
        "place": "other",
        "public": "boolean",
    }
    assert kinds_of([]) == {}


def test_indexed_columns_are_known() -> None:
    kinds = {
        "a": "keyword",
        '"b c"': "integer",
        "d.e": "float",
        '"f"."g"': "float",
        "h[]": "bool",
        "i": "geo",
        "ü": "bool",
    }
    schema = {
        path: models.PayloadIndexInfo(data_type=models.PayloadSchemaType(kind), points=1)
        for path, kind in kinds.items()
    }
    assert indexed(schema) == {"a": "string", "b c": "integer", "i": "other", "ü": "boolean"}


def test_a_column_of_later_points_is_found_too(folder: Folder) -> None:
    store = open_store(
        folder.make(*(point(n) for n in range(1, 70)), point(99, late=5, gone=None), point(98, **{"a.b c": 1}))
    )
    assert store.count({"late": 5}) == 1
    assert store.count({"a.b c": {">": 0}}) == 1
    assert store.fetch([98, 99], columns=["a.b c", "late"]).columns == {"a.b c": [1, None], "late": [None, 5]}
    for absent in ("gone", "never"):
        with pytest.raises(ConfigError, match="was asked for"):
            store.count({absent: 5})
    with pytest.raises(Unsupported, match="cannot name a key"):
        store.count({'a"b': 5})
    with pytest.raises(ConfigError, match="was asked for"):
        open_store(store.address + "?id=late").count({"late": 5})


def test_a_name_is_quoted_where_it_must_be() -> None:
    assert payload_key("a_b-9") == "a_b-9"
    assert payload_key("a.b") == '"a.b"'
    assert payload_key("ü") == '"ü"'
    assert payload_key("") == '""'


def test_lists_and_objects_are_not_read(folder: Folder) -> None:
    store = open_store(folder.make(point(1, tags=["private"])))
    with pytest.raises(Unsupported, match=r"'tags' of .* has a value of the type list in the point 1") as raised:
        list(store.scan(columns=["tags"]))
    assert "private" not in str(raised.value)


VALUES = ["1", "x", 0, 1, 2, 2**53 + 1, -3, 0.0, 1.0, 1.5, 2.0, -0.5, True, False, None]
CONDITIONS: list[Where] = [
    *({"value": value} for value in VALUES if value is not None),
    {"value": ["1", "x"]},
    {"value": [1, 1.5, 7]},
    {"value": [True]},
    {"value": [True, False]},
    {"value": {">=": 1}},
    {"value": {">": 1.0, "<": 2.5}},
    {"value": {"<=": -0.5}},
]


def test_conditions_are_met_by_type_and_number(folder: Folder) -> None:
    filler = [point(number) for number in range(100, 200)]  # no column is known then, and no kind of it
    store = open_store(folder.make(*(point(200 + n, value=v) for n, v in enumerate(VALUES)), *filler))
    assert "value" not in store.describe().columns
    for where in CONDITIONS:
        met = {200 + n for n, value in enumerate(VALUES) if all(holds(each, value) for each in conditions(where))}
        assert {id_ for part in store.scan(where=where) for id_ in part.ids} == met, where


def test_conditions_that_qdrant_has_not_are_refused(folder: Folder) -> None:
    store = open_store(folder.make(point(1, script="LATIN", weight=1.5)))
    with pytest.raises(Unsupported, match="compares numbers by bounds, not text"):
        store.count({"script": {">": "A"}})
    with pytest.raises(ConfigError, match="must be finite"):
        store.count({"weight": {"<": float("inf")}})
    with pytest.raises(ConfigError, match="at most 64 bits"):
        store.count({"weight": 2**63})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**63])
def test_values_that_json_cannot_keep_are_refused(folder: Folder, value: float) -> None:
    store = open_store(folder.make(point(1, weight=1.5)))
    with pytest.raises(ConfigError, match=r"must be finite|at most 64 bits"):
        store.upsert(Records([2], {"old": Vectors.of(np.ones((1, 3)))}, {"weight": [value]}))
    with pytest.raises(ConfigError, match="cannot be a column too"):
        open_store(store.address + "?id=sku&ids=integer").upsert(
            Records([2], {"old": Vectors.of(np.ones((1, 3)))}, {"sku": [1]})
        )
    assert store.count() == 1


# Others write meanwhile


def interleave(monkeypatch: pytest.MonkeyPatch, step: Any) -> None:
    """After each look-up of places, something else happens before they are written to."""
    looked_up = Rows.places

    def places(self: Rows, ids: Any) -> Any:
        found = looked_up(self, ids)
        step()
        return found

    monkeypatch.setattr(Rows, "places", places)


@pytest.mark.parametrize("option", ["?ids=integer", "?id=sku&ids=integer"])
@pytest.mark.parametrize("vectors", [np.full((3, 3), 5.0), None], ids=["filled", "emptied"])
def test_a_row_that_is_deleted_meanwhile_stays_deleted(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, option: str, vectors: np.ndarray | None
) -> None:
    store = open_store(folder.make(*(point(n, sku=n, script="LATIN") for n in (1, 2, 3))) + option)
    with folder.client() as client:
        interleave(monkeypatch, lambda: client.delete("rows", points_selector=[2]))
        assert store.set_vectors("old", [1, 2, 3], vectors) == 2
    found = store.fetch([1, 2, 3], fields=["old"], columns=["script"])
    assert found.ids == [1, 3]
    assert found.columns["script"] == ["LATIN"] * 2
    assert found.vectors["old"].present.all() == (vectors is not None)


def test_rows_that_are_always_deleted_end_in_an_error(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(folder.make(*(point(n) for n in range(20))))
    left = iter(range(20))
    with folder.client() as client:
        interleave(monkeypatch, lambda: client.delete("rows", points_selector=[next(left)]))
        with pytest.raises(StoreError, match="deleted 8 times"):
            store.set_vectors("old", list(range(20)), np.ones((20, 3)))


def test_a_point_that_is_another_rows_by_now_is_left_alone(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(folder.make(point(1, sku="a")) + "?id=sku")
    with folder.client() as client:
        interleave(monkeypatch, lambda: client.upsert("rows", points=[point(1, (0.0, 2.0, 0.0), sku="b")]))
        store.set_vectors("old", ["a"], np.full((1, 3), 5.0))
    np.testing.assert_array_equal(store.fetch(["b"], fields=["old"]).vectors["old"].values, [[0, 2, 0]])


# What is sent


def test_requests_are_as_large_as_a_server_takes() -> None:
    assert list(requests(512, 0)) == []
    assert list(requests(2, 5)) == [range(5)]
    assert [len(part) for part in requests(2, 10_000)] == [4096, 4096, 1808]
    parts = list(requests(4096, 300))
    assert len(parts) > 2
    assert [row for part in parts for row in part] == list(range(300))
    long = [{"text": "写" * 1_500_000}] * 3 + [{"text": "short", "year": 3}] * 2
    assert list(requests(2, long)) == [range(1), range(1, 2), range(2, 5)]


def test_what_a_replaced_row_is_not_given_is_emptied_first() -> None:
    records = Records([1, 2, 3], {"old": Vectors(np.ones((3, 2), np.float32), np.array([True, False, True]))})
    operations = emptied(["old", "new"], [1, 2, 3], records, range(3))
    sent = [(each.delete_vectors.vector, each.delete_vectors.filter.must[0].has_id) for each in operations]
    assert sent == [(["old"], [2]), (["new"], [1, 2, 3])]
    assert emptied(["old"], [1, 2, 3], records, range(2, 3)) == []


def test_a_point_carries_the_vectors_that_are_there() -> None:
    some = Vectors(np.float32([[1, 2], [3, 4]]), np.array([True, False]))
    records = Records([1, 2], {"": some})
    sent = [each.vector for each in points_of([1, 2], records, [{}, {}], range(2), unnamed=True)]
    assert sent == [[1, 2], {}]
    sent = [each.vector for each in points_of([1, 2], records, [{}, {}], range(1), unnamed=False)]
    assert sent == [{"": [1, 2]}]


# What a server's refusals mean


class Answers:
    """A server that gives each path one answer: a status, and a body or the words of an error."""

    def __init__(self) -> None:
        self.by_path: dict[str, tuple[int, object]] = {}
        self.version = "1.20.0"
        self.asked: list[tuple[str, dict[str, str]]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                self.rfile.read(int(self.headers.get("content-length") or 0))
                outer.asked.append((self.path, dict(self.headers)))
                status, body = outer.of(self.path.partition("?")[0])
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                if status == 429:
                    self.send_header("Retry-After", "3")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = answer  # noqa: N815

            def log_message(self, *words: object) -> None:
                """Tests are quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = False
        threading.Thread(target=self.server.serve_forever, args=(0.01,)).start()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server.server_address[1]}"

    def of(self, path: str) -> tuple[int, object]:
        if path in self.by_path:
            return self.by_path[path]
        if path == "/":
            return 200, {"title": "qdrant", "version": self.version}
        if path.endswith("/points/scroll"):
            return 200, {"result": {"points": []}, "status": "ok", "time": 0}
        return 200, {"result": DESCRIBED, "status": "ok", "time": 0}

    def refuse(self, path: str, status: int, said: object = "Forbidden") -> None:
        self.by_path[path] = (status, said if isinstance(said, bytes) else {"status": {"error": said}, "time": 0})


@pytest.fixture(scope="module")
def described() -> dict[str, object]:
    client = QdrantClient(":memory:")
    client.create_collection("rows", vectors_config={"old": params()})
    info = client.get_collection("rows").model_dump(mode="json")
    client.close()
    return info


DESCRIBED: dict[str, object] = {}


@pytest.fixture
def answers(described: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> Iterator[Answers]:
    DESCRIBED.update(described)
    monkeypatch.delenv("QDRANT_API_KEY", raising=False)
    made = Answers()
    yield made
    made.server.shutdown()
    made.server.server_close()


@contextmanager
def opened(answers: Answers, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """With a key, of which the client says that it is sent in clear."""
    monkeypatch.setenv("QDRANT_API_KEY", SECRET)
    with pytest.warns(UserWarning, match="insecure connection"):
        store = open_store(f"qdrant://{answers.host}/rows?ids=integer")
    with store:
        yield store


def test_a_server_that_is_not_there_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QDRANT_API_KEY", raising=False)
    with pytest.raises(Unreachable, match=r"must answer within 60 seconds, and does not \(ConnectError\)") as raised:
        open_store("qdrant://127.0.0.1:1/rows")
    assert "qdrant://127.0.0.1:1/rows" in str(raised.value)


@pytest.mark.parametrize(
    ("status", "said", "kind", "match"),
    [
        (401, "Invalid API key", Unreachable, r"refuses the credentials \(401\).*QDRANT_API_KEY"),
        (403, "Forbidden", Unreachable, r"refuses the credentials \(403\)"),
        (404, "Not found: Collection `rows` doesn't exist!", StoreChanged, "there is no 'rows'"),
        (404, "Not found: No point with id 7 found", PointsGone, "deleted while they were written"),
        (400, "Wrong input: Not existing vector name error: new", StoreChanged, "is gone or has another dimension"),
        (400, "Wrong input: Vector dimension error: expected dim: 4, got 3", StoreChanged, "another dimension"),
        (400, "Wrong input: something", StoreError, "did not do what it was asked .400: Wrong input: something"),
        (500, "Service internal error", StoreError, "500: Service internal error"),
        (503, "Busy", Unreachable, "not ready to answer"),
        (429, "Too many", StoreError, "no more requests for now"),
        (400, b"<html>a gateway</html>", StoreError, r"was asked \(400\)"),
        (200, b"<html>a gateway</html>", StoreError, "or read its answer"),
        (200, b'{"result": {"count": "many"}}', StoreError, "or read its answer"),
        (400, f"the key {SECRET} is odd", StoreError, "the key … is odd"),
        (400, f"{'x' * 190}{SECRET}{'y' * 500}", StoreError, "x…y{9}."),
    ],
)
def test_an_answer_becomes_an_error_of_ours_without_the_key(
    answers: Answers, monkeypatch: pytest.MonkeyPatch, status: int, said: object, kind: type[StoreError], match: str
) -> None:
    with opened(answers, monkeypatch) as store:
        assert answers.asked[-1][1]["api-key"] == SECRET
        answers.refuse("/collections/rows/points/count", status, said)
        with pytest.raises(StoreError, match=match) as raised:
            store.count()
        assert type(raised.value) is kind
        assert store.address in str(raised.value)
        for text in (*traceback.format_exception(raised.value), repr(store), store.address, repr(store.describe())):
            assert SECRET not in text


def test_a_refused_opening_names_no_key(answers: Answers, monkeypatch: pytest.MonkeyPatch) -> None:
    answers.refuse("/collections/rows", 401)
    monkeypatch.setenv("QDRANT_API_KEY", SECRET)
    with pytest.warns(UserWarning, match="insecure"), pytest.raises(Unreachable) as raised:
        open_store(f"qdrant://{answers.host}/rows")
    assert SECRET not in "".join(traceback.format_exception(raised.value))
    answers.refuse("/collections/rows", 404)
    with pytest.warns(UserWarning, match="insecure"), pytest.raises(StoreChanged):
        open_store(f"qdrant://{answers.host}/rows")


@pytest.mark.parametrize("wrong", [SECRET + "\n", SECRET + "ü"])
def test_a_key_that_cannot_be_sent_is_refused_and_not_shown(monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    monkeypatch.setenv("QDRANT_API_KEY", wrong)
    with pytest.raises(ConfigError, match="printable ASCII") as raised:
        open_store("qdrant://127.0.0.1:1/rows")
    assert SECRET not in "".join(traceback.format_exception(raised.value))


def test_a_write_that_is_not_applied_is_an_error(answers: Answers) -> None:
    waiting = {"result": [{"operation_id": 1, "status": "wait_timeout"}], "status": "ok", "time": 0}
    answers.by_path["/collections/rows/points/batch"] = (200, waiting)
    with (
        open_store(f"qdrant://{answers.host}/rows?ids=integer") as store,
        pytest.raises(StoreError, match="it is wait_timeout only"),
    ):
        store.upsert(Records([1], {"old": Vectors.of(np.ones((1, 3)))}))


@pytest.mark.parametrize(
    ("version", "second_field", "notes"),
    [
        ("1.20.1", True, True),
        ("1.18.0", True, True),
        ("1.17.2", False, True),
        ("1.15.0", False, False),
        ("dev", True, True),
    ],
)
def test_what_a_server_can_do_depends_on_its_version(
    answers: Answers, version: str, second_field: bool, notes: bool
) -> None:
    answers.version = version
    with open_store(f"qdrant://{answers.host}/rows") as store:
        able = store.capabilities
        assert (able.second_field, able.notes, able.shared, able.snapshot) == (second_field, notes, True, False)
    answers.refuse("/", 404)
    with open_store(f"qdrant://{answers.host}/rows") as store:
        assert store.capabilities.second_field


def test_a_server_may_stand_behind_a_path(answers: Answers) -> None:
    with open_store(f"qdrant://{answers.host}/vectors/eu/rows"):
        assert "/vectors/eu/collections/rows" in [path for path, _ in answers.asked]


def test_what_is_said_of_tls_and_ports_is_done() -> None:
    for host, https, uri in (("host", False, "http://host:6333"), ("::1", True, "https://[::1]:6333")):
        connection = open_server(host, 6333, "rows", https=https, prefix="", secret=None, address="an address")
        assert connection.ask(lambda client: client._client.rest_uri) == uri  # type: ignore[attr-defined]
        connection.close()
