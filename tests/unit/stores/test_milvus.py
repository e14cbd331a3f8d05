"""What is special to Milvus: its addresses, its errors, its expressions, and what Milvus Lite cannot do."""

from __future__ import annotations

import logging
import math
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stores.milvus import MilvusMaker

from crossfade.errors import (
    ConfigError,
    InvalidVectors,
    MissingExtra,
    StoreChanged,
    StoreError,
    Unreachable,
    Unsupported,
)
from crossfade.spaces import METRICS
from crossfade.stores import Records, Store, VectorField, Vectors, open_store
from crossfade.stores.backend import Query
from crossfade.stores.conditions import Condition, Kind, holds
from crossfade.stores.milvus import _messages
from crossfade.stores.milvus_filters import expression, literal

pytest.importorskip("pymilvus")
pytest.importorskip("milvus_lite")

OLD = VectorField("old", 4, "cosine")
TOKEN = "root:correct-horse"


@pytest.fixture(scope="module")
def maker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MilvusMaker]:
    made = MilvusMaker(tmp_path_factory.mktemp("milvus"))
    yield made
    made.close()


def rows(count: int = 6, *, seed: int = 0) -> Records:
    vectors = np.random.default_rng(seed).standard_normal((count, 4)).astype(np.float32)
    return Records([f"item {n}" for n in range(count)], {"old": Vectors.of(vectors)}, {"script": ["LATIN"] * count})


def make(maker: MilvusMaker, name: str, *extra: tuple[Any, ...], index: str = "FLAT", **options: Any) -> str:
    """A collection of one's own schema; its address. ``extra`` are fields: name, type, and what else is said of them."""
    from pymilvus import DataType

    client = maker.client()
    schema = client.create_schema(enable_dynamic_field=options.get("dynamic", False))
    kind = DataType.INT64 if options.get("auto_id") else DataType.VARCHAR
    schema.add_field("id", kind, is_primary=True, auto_id=options.get("auto_id", False), max_length=100)
    schema.add_field("old", DataType.FLOAT_VECTOR, dim=4, nullable=options.get("nullable", False))
    for field, type_, said in extra:
        schema.add_field(field, DataType[type_], **said)
    indexes = client.prepare_index_params()
    indexes.add_index("old", index_type=index, metric_type="COSINE")
    client.create_collection(name, schema=schema, index_params=indexes)
    return f"milvus://{maker.file}#{name}"


@pytest.mark.parametrize(
    "address",
    [
        "milvus://host:19530",
        "milvus://host:19530/a/b",
        "milvus://root@host:19530/photos",
        "milvus://host:19530/photos#other",
        "milvus:///srv/vectors.db",
        "milvus:///srv/vectors.lite#photos",
        "milvus+https:///srv/vectors.db#photos",
        "milvus://host/photos?token=correct-horse",
    ],
)
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(ConfigError) as raised:
        open_store(address)
    assert "correct-horse" not in str(raised.value)
    assert "root" not in str(raised.value)


def test_a_file_or_collection_that_is_not_there_is_not_made(tmp_path: Path, maker: MilvusMaker) -> None:
    with pytest.raises(StoreChanged, match="there is none"):
        open_store(f"milvus://{tmp_path}/absent.db#photos")
    assert not list(tmp_path.iterdir())
    maker.client()
    with pytest.raises(StoreChanged, match="must name a collection that exists"):
        open_store(f"milvus://{maker.file}#absent")


def test_a_server_that_is_not_there_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILVUS_TOKEN", TOKEN)
    with pytest.raises(Unreachable, match="must answer"):
        open_store("milvus://127.0.0.1:1/photos")


@pytest.fixture
def refusing() -> Iterator[int]:
    """A server that refuses every call and repeats what it was sent."""
    import grpc

    class Refusing(grpc.GenericRpcHandler):  # type: ignore[misc]
        def service(self, details: Any) -> Any:
            sent = dict(details.invocation_metadata)

            def refuse(request: bytes, context: Any) -> bytes:
                context.abort(grpc.StatusCode.UNAUTHENTICATED, f"no such user in {sent} with {TOKEN}")
                return b""

            return grpc.unary_unary_rpc_method_handler(refuse)

    server = grpc.server(futures.ThreadPoolExecutor(2), handlers=[Refusing()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield port
    server.stop(0).wait()


def test_refused_credentials_are_said_and_not_repeated(
    refusing: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MILVUS_TOKEN", TOKEN)
    with caplog.at_level(logging.DEBUG, logger="crossfade"), pytest.raises(Unreachable, match="MILVUS_TOKEN") as raised:
        open_store(f"milvus://127.0.0.1:{refusing}/photos")
    shown = [str(raised.value), repr(raised.value), *(r.getMessage() for r in caplog.records if r.name == "crossfade")]
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__
    assert not any("correct-horse" in text for text in shown)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """Milvus Lite behind a port, as any client of Milvus sees it: address without a collection."""
    from milvus_lite.adapter.grpc.server import start_server_in_thread

    running, database, port = start_server_in_thread(str(tmp_path / "served"))
    yield f"127.0.0.1:{port}"
    running.stop(0).wait()
    database.close()


def served(server: str, *, database: str = "") -> Store:
    from pymilvus import MilvusClient

    client = MilvusClient(f"http://{server}", db_name=database)
    client.create_collection("photos", dimension=4, id_type="string", max_length=100, vector_field_name="old")
    return open_store(f"milvus://{server}/photos" + (f"?db={database}" if database else ""))


def test_a_server_is_used_like_a_file(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILVUS_TOKEN", TOKEN)
    store, content = served(server), rows()
    assert store.address == f"milvus://{server}/photos"
    store.upsert(content)
    assert store.count() == 6
    assert (
        store.fetch(content.ids, fields=["old"]).vectors["old"].values.tolist()
        == content.vectors["old"].values.tolist()
    )
    backend: Any = store._backend
    assert TOKEN not in f"{store!r} {store.address} {vars(store)} {vars(backend)} {backend._client!r}"
    store.close()


def test_an_error_that_names_the_token_is_not_repeated(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILVUS_TOKEN", "photos:lowercase")
    store = served(server)
    with pytest.raises(StoreError) as raised:
        store._backend._client.query("lowercase ===", ["id"])  # type: ignore[attr-defined]
    assert "lowercase" not in str(raised.value)


def test_databases_of_one_server_are_apart(server: str) -> None:
    from pymilvus import MilvusClient

    MilvusClient(f"http://{server}").create_database("shop")
    one, other = served(server), served(server, database="shop")
    one.upsert(rows(3))
    assert (one.count(), other.count()) == (3, 0)
    with pytest.raises(StoreError, match="db=nowhere"):
        open_store(f"milvus://{server}/photos?db=nowhere")


def test_a_server_that_stops_is_unreachable(tmp_path: Path) -> None:
    from milvus_lite.adapter.grpc.server import start_server_in_thread

    running, database, port = start_server_in_thread(str(tmp_path / "served"))
    store = served(f"127.0.0.1:{port}")
    running.stop(0).wait()
    database.close()
    with pytest.raises(Unreachable):
        store.count()


def test_a_file_that_another_process_has_is_unreachable(maker: MilvusMaker) -> None:
    store = maker.make([OLD], {"script": "string"}, "string", rows())
    script = f"""
from crossfade.errors import Unreachable
from crossfade.stores import open_store
try:
    open_store({store.address!r})
except Unreachable as error:
    assert "closed in every other process" in str(error)
    print("refused")
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout == "refused\n"
    assert not store.capabilities.shared


def test_handles_of_one_process_share_the_file(maker: MilvusMaker) -> None:
    store = maker.make([OLD], {"script": "string"}, "string", rows())
    other = maker.again(store)
    other.delete(["item 0"])
    other.close()
    assert store.count() == 5


def test_rows_and_notes_outlive_the_process(tmp_path: Path) -> None:
    maker = MilvusMaker(tmp_path)
    store = maker.make([OLD], {"script": "string"}, "string", rows())
    store.note("crossfade.test", '{"a": 1}')
    store.upsert(rows(2, seed=1))
    maker.close()
    reopened = MilvusMaker(tmp_path)
    try:
        again = reopened.again(store)
        assert again.count() == 6
        assert again.notes() == {"crossfade.test": '{"a": 1}'}
        assert again.search(rows(2, seed=1).vectors["old"].values[1], field="old", k=1)[0].ids == ["item 1"]
    finally:
        from milvus_lite.server_manager import server_manager_instance

        server_manager_instance.release_server(str(reopened.file))


def test_properties_of_others_are_no_notes_and_are_kept(maker: MilvusMaker) -> None:
    store = maker.make([OLD], {}, "string", Records([], {"old": Vectors.of(np.empty((0, 4)))}))
    name = store.address.partition("#")[2]
    maker.client().alter_collection_properties(name, {"timezone": "UTC"})
    store.note("timezone", "a note")
    assert store.notes() == {"timezone": "a note"}
    assert maker.client().describe_collection(name)["properties"]["timezone"] == "UTC"


def test_two_writers_of_a_file_lose_nothing(maker: MilvusMaker) -> None:
    store = maker.make([OLD], {}, "string", Records([], {"old": Vectors.of(np.empty((0, 4)))}))
    handles = [maker.again(store) for _ in range(4)]

    def write(number: int) -> None:
        for part in range(10):
            ids = [f"{number} {part} {row}" for row in range(5)]
            handles[number].upsert(Records(ids, {"old": Vectors.of(np.ones((5, 4)))}))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.count() == 200
    assert sum(len(part) for part in store.scan(batch=33)) == 200


# What collections cannot do


def test_ids_that_milvus_makes_are_not_written(maker: MilvusMaker) -> None:
    address = make(maker, "generated", auto_id=True)
    made = maker.client().insert("generated", [{"old": [1.0, 0, 0, 0]}, {"old": [0.0, 1, 0, 0]}])["ids"]
    store = open_store(address)
    assert store.describe().ids == "integer"
    assert store.fetch(list(made)).ids == list(made)
    with pytest.raises(Unsupported, match="Writing rows"):
        store.upsert(Records([1], {"old": Vectors.of(np.ones((1, 4)))}))


def test_partitions_by_name_are_not_written_and_those_by_key_are(maker: MilvusMaker) -> None:
    address = make(maker, "named")
    maker.client().create_partition("named", "winter")
    assert not open_store(address).capabilities.write
    address = make(maker, "keyed", ("season", "VARCHAR", {"max_length": 20, "is_partition_key": True}))
    store = open_store(address)
    store.upsert(Records(["a", "b"], {"old": Vectors.of(np.eye(4)[:2])}, {"season": ["winter", "summer"]}))
    assert store.fetch(["b", "a"], columns=["season"]).columns["season"] == ["summer", "winter"]
    assert store.delete(["a", "b"]) == 2


def test_vectors_that_may_be_missing_are_refused_of_milvus_lite(maker: MilvusMaker) -> None:
    with pytest.raises(Unsupported, match="gives zeros where they are"):
        open_store(make(maker, "nullable", nullable=True))


def test_a_collection_without_vectors_of_32_bits_is_refused(maker: MilvusMaker) -> None:
    from pymilvus import DataType

    client = maker.client()
    schema = client.create_schema()
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("words", DataType.SPARSE_FLOAT_VECTOR)
    client.create_collection("sparse", schema=schema)
    with pytest.raises(StoreError, match="a field of FLOAT_VECTOR"):
        open_store(f"milvus://{maker.file}#sparse")


def test_a_field_without_an_index_takes_every_metric(maker: MilvusMaker) -> None:
    from pymilvus import DataType

    client = maker.client()
    schema = client.create_schema()
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("old", DataType.FLOAT_VECTOR, dim=2)
    client.create_collection("bare", schema=schema)
    client.insert("bare", [{"id": 1, "old": [3.0, 4.0]}])
    store = open_store(f"milvus://{maker.file}#bare")
    assert store.describe().fields["old"].metric is None
    query = np.array([0.0, 1.0])
    scores = [store.search(query, field="old", k=1, metric=metric)[0].scores[0] for metric in METRICS]
    np.testing.assert_allclose(scores, [0.8, 4, -math.sqrt(18)], rtol=1e-6)


def test_a_second_field_is_refused(maker: MilvusMaker) -> None:
    store = maker.make([OLD], {}, "string", rows().select([]))
    backend: Any = store._backend
    for call in (
        lambda: backend.set_vectors("old", ["a"], None),
        lambda: backend.add_field(OLD),
        lambda: backend.drop_field("old"),
    ):
        with pytest.raises(Unsupported, match="cannot have a vector field added"):
            call()


# Rows


def test_keys_outside_the_schema_are_columns(maker: MilvusMaker) -> None:
    store = open_store(make(maker, "dynamic", dynamic=True))
    assert store.describe().schemaless
    content = rows(4)
    columns: dict[str, list[Any]] = {'a "key"': ["x", None, 'it\'s "y"', "z"], "year": [1, 2, None, 4]}
    store.upsert(Records(content.ids, content.vectors, columns))
    found = store.fetch(content.ids, columns=list(columns))
    assert dict(found.columns) == columns
    assert store.count({'a "key"': 'it\'s "y"'}) == 1
    assert store.count({'a "key"': ["x", "z"], "year": {">": 1}}) == 1
    assert store.count({"year": {">=": 1.5, "<": 10**30}}) == 2
    assert store.count({"year": {">": 10**400}}) == 0
    with pytest.raises(ConfigError, match="'nonsense' was asked for"):
        store.count({"nonsense": 1})


def test_a_replaced_row_loses_keys_outside_the_schema(maker: MilvusMaker) -> None:
    store = open_store(make(maker, "replaced", dynamic=True))
    vectors = {"old": Vectors.of(np.ones((1, 4)))}
    store.upsert(Records(["a"], vectors, {"year": [1], "tag": ["x"]}))
    store.upsert(Records(["a"], vectors, {"tag": ["y"]}))
    assert store.fetch(["a"], columns=["tag"]).columns["tag"] == ["y"]
    with pytest.raises(ConfigError, match="'year' was asked for"):
        store.fetch(["a"], columns=["year"])


def test_json_and_arrays_are_text(maker: MilvusMaker) -> None:
    extra = [
        ("more", "JSON", {"nullable": True}),
        ("sizes", "ARRAY", {"nullable": True, "max_capacity": 4, "element_type": 5}),
    ]
    store = open_store(make(maker, "nested", *extra))
    assert dict(store.describe().columns) == {"more": "other", "sizes": "other"}
    columns = {"more": ['{"ü": [1, true]}', None], "sizes": ["[1, 2]", None]}
    store.upsert(Records(["a", "b"], {"old": Vectors.of(np.ones((2, 4)))}, columns))
    assert dict(store.fetch(["a", "b"], columns=["more", "sizes"]).columns) == columns
    with pytest.raises(ConfigError, match="takes arrays as JSON text"):
        store.upsert(Records(["a"], {"old": Vectors.of(np.ones((1, 4)))}, {"sizes": ["seven"]}))


def test_defaults_fill_what_is_not_given(maker: MilvusMaker) -> None:
    store = open_store(make(maker, "defaults", ("year", "INT32", {"default_value": 1999})))
    store.upsert(Records(["a"], {"old": Vectors.of(np.ones((1, 4)))}, {"year": [2001]}))
    store.upsert(Records(["a"], {"old": Vectors.of(np.ones((1, 4)))}))
    assert store.fetch(["a"], columns=["year"]).columns["year"] == [1999]


def test_what_milvus_refuses_is_said_without_the_text(maker: MilvusMaker) -> None:
    store = open_store(
        make(maker, "short", ("title", "VARCHAR", {"max_length": 5}), ("year", "INT8", {"nullable": True}))
    )
    for title, year in (("a secret title", None), ("t", 4000), (None, 1)):
        with pytest.raises(StoreError, match="did not write rows") as raised:
            store.upsert(Records(["a"], {"old": Vectors.of(np.ones((1, 4)))}, {"title": [title], "year": [year]}))
        assert "secret" not in str(raised.value)
        assert "4000" not in str(raised.value)
    with pytest.raises(InvalidVectors, match="must have a vector in the field 'old'"):
        store.upsert(Records(["a"], {}, {"title": ["t"]}))
    assert store.count() == 0


def test_a_collection_that_is_not_loaded_is_said_so(maker: MilvusMaker) -> None:
    store = maker.make([OLD], {"script": "string"}, "string", rows())
    maker.client().release_collection(store.address.partition("#")[2])
    with pytest.raises(StoreError, match="must be loaded"):
        store.fetch(["item 0"])
    assert len(maker.again(store).fetch(["item 0"])) == 1  # opening loads a file
    assert len(store.fetch(["item 0"])) == 1


def test_a_collection_of_another_shape_in_its_place_is_noticed(maker: MilvusMaker) -> None:
    address = make(maker, "reborn", ("year", "INT64", {"nullable": True}))
    store = open_store(address)
    store.upsert(Records(["a"], {"old": Vectors.of(np.ones((1, 4)))}))
    maker.client().drop_collection("reborn")
    make(maker, "reborn")
    with pytest.raises(StoreChanged, match="another shape"):
        store.count({"year": 1})


def test_a_field_of_another_dimension_is_noticed(maker: MilvusMaker) -> None:
    from pymilvus import MilvusClient

    store = open_store(make(maker, "wider"))
    client: MilvusClient = maker.client()
    client.drop_collection("wider")
    client.create_collection("wider", dimension=7, id_type="string", max_length=10, vector_field_name="old")
    client.insert("wider", [{"id": "a", "old": [0.0] * 7}])
    with pytest.raises(StoreChanged, match="had 4 dimensions"):
        next(store.scan(fields=["old"]))


@pytest.mark.parametrize("index", ["FLAT", "HNSW"])
def test_an_exact_search_is_exact(maker: MilvusMaker, index: str) -> None:
    store = open_store(make(maker, f"exact_{index}", index=index))
    content = rows(300)
    store.upsert(Records(content.ids, content.vectors))
    stored = content.vectors["old"].values.astype(np.float64)
    query = np.array([1.0, -2, 0.5, 0])
    expected = stored @ query / np.linalg.norm(stored, axis=1) / np.linalg.norm(query)
    (hits,) = store.search(query, field="old", k=20, exact=True)
    assert hits.ids == [content.ids[row] for row in np.argsort(-expected)[:20]]
    np.testing.assert_allclose(hits.scores, np.sort(expected)[::-1][:20], rtol=1e-5)
    (many,) = store.search(query, field="old", k=20_000)  # more than a server gives
    assert many.ids[:20] == hits.ids
    assert len(many) == 300


def test_many_rows_go_in_many_messages() -> None:
    vectors = Vectors.of(np.zeros((10, 2)))
    texts: list[Any] = ["x" * (1 << 20)] * 10
    assert list(_messages(Records(list(range(10)), {"old": vectors}, {"text": texts}))) == [
        (0, 3),
        (3, 6),
        (6, 9),
        (9, 10),
    ]
    assert list(_messages(Records(list(range(10)), {"old": vectors}))) == [(0, 10)]
    assert list(_messages(Records([]))) == []


# Expressions


@pytest.mark.parametrize(
    ("condition", "kind", "expected"),
    [
        (Condition("a", "=", ('q"\\\n',)), "string", 'a == "q\\"\\\\\\n"'),
        (Condition("a", "in", (1, 2.5, 3.0)), "integer", "a in [1, 3]"),
        (Condition("a", "in", (1, 2.5)), "number", "a in [1.0, 2.5]"),
        (Condition("a", "in", (True, False)), "boolean", "(a == true or a == false)"),
        (Condition("a", "=", (2.5,)), "integer", None),
        (Condition("a", ">", (2.5,)), "integer", "a >= 3"),
        (Condition("a", "<=", (-2.5,)), "integer", "a <= -3"),
        (Condition("a", "<", (math.inf,)), "integer", f"a <= {2**63 - 1}"),
        (Condition("a", ">=", (2**70,)), "integer", None),
        (Condition("a", ">", (-math.inf,)), "number", "a >= -1.7976931348623157e+308"),
        (Condition("a", "=", (10**400,)), "number", None),
        (Condition("x y", "=", (1,)), None, '$meta["x y"] == 1'),
    ],
    ids=str,
)
def test_a_condition_is_an_expression(condition: Condition, kind: Kind | None, expected: str | None) -> None:
    assert expression([condition], {} if kind is None else {condition.column: kind}) == expected


def test_several_conditions_must_all_hold() -> None:
    both = [Condition("a", "=", (1,)), Condition("b", "in", ("x", "y"))]
    assert expression(both, {"a": "integer", "b": "string"}) == 'a == 1 and b in ["x", "y"]'
    assert expression([], {}) == ""
    assert expression([Condition("a", "=", (0.5,)), both[1]], {"a": "integer", "b": "string"}) is None


INTEGERS = [None, -7, -1, 0, 1, 2, 2**40, 2**63 - 1, -(2**63)]
NUMBERS = [None, -2.5, 0.0, 1e-9, 1.0, 3.25, 1e300]
TEXTS = [None, "", "a", 'q"', "it's", "b\\", "line\nline\r\t", "Ünï 写 🖼", "%_*", "true"]
BOUNDS = st.one_of(st.sampled_from([n for n in INTEGERS + NUMBERS if n is not None]), st.floats(allow_nan=False))


@pytest.fixture(scope="module")
def filtered(maker: MilvusMaker) -> Store:
    """One row for each value; ids are numbers of rows."""
    count = len(TEXTS)
    columns: dict[str, list[Any]] = {
        "whole": [*INTEGERS, None],
        "real": [*NUMBERS, None, None, None],
        "text": list(TEXTS),
        "truth": [True, False, None] * 3 + [True],
    }
    kinds: dict[str, Kind] = {"whole": "integer", "real": "number", "text": "string", "truth": "boolean"}
    content = Records(list(range(count)), {"old": Vectors.of(np.ones((count, 4)))}, columns)
    return maker.make([OLD], kinds, "integer", content)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    condition=st.one_of(
        st.builds(
            lambda name, operator, value: Condition(name, operator, (value,)),
            st.sampled_from(["whole", "real"]),
            st.sampled_from(["=", ">", ">=", "<", "<="]),
            BOUNDS,
        ),
        st.builds(
            lambda name, values: Condition(name, "in", tuple(values)),
            st.sampled_from(["whole", "real"]),
            st.lists(BOUNDS, min_size=1, max_size=4),
        ),
        st.builds(
            lambda operator, value: Condition("text", operator, (value,)),
            st.sampled_from(["=", ">", ">=", "<", "<="]),
            st.sampled_from([text for text in TEXTS if text is not None]),
        ),
        st.builds(lambda value: Condition("truth", "=", (value,)), st.booleans()),
    )
)
def test_milvus_finds_what_meets_a_condition(filtered: Store, condition: Condition) -> None:
    stored = filtered.fetch(list(range(len(TEXTS))), columns=[condition.column]).columns[condition.column]
    expected = [row for row, value in enumerate(stored) if holds(condition, value)]
    found = [id_ for part in filtered._backend.scan([], [], (condition,), 100) for id_ in part.ids]
    assert found == expected
    (hits,) = filtered._backend.search(Query(np.ones((1, 4), dtype=np.float32), "old", 50, "cosine", (condition,)))
    assert sorted(hits.ids) == expected


def test_a_literal_of_every_id_finds_it(maker: MilvusMaker) -> None:
    ids = ['"', "\\", "'", "\n", "\r\t", "] or true", "{x}", "\x01\x7f", "$meta", " ", "é", "e\u0301"]
    content = Records(ids, {"old": Vectors.of(np.eye(4)[[0] * len(ids)])})
    store = maker.make([OLD], {}, "string", content)
    assert store.fetch(ids).ids == ids
    assert sorted(id_ for part in store.scan(batch=1) for id_ in part.ids) == sorted(ids)
    assert store.delete(ids[:5]) == 5
    assert store.count() == len(ids) - 5
    assert literal('a"\\') == '"a\\"\\\\"'


def test_numbers_of_64_bits_are_ids(maker: MilvusMaker) -> None:
    ids = [-(2**63), -1, 0, 2**63 - 1]
    store = maker.make([OLD], {}, "integer", Records(ids, {"old": Vectors.of(np.eye(4))}))
    assert store.fetch(ids).ids == ids
    assert [id_ for part in store.scan(batch=1) for id_ in part.ids] == ids


# What is not installed


@pytest.mark.parametrize("package", ["pymilvus", "milvus-lite"])
def test_a_missing_package_is_named(package: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, package.replace("-", "_"), None)
    (tmp_path / "a.db").mkdir()
    with pytest.raises(MissingExtra, match=rf"'{package}'.*crossfade\[milvus\]"):
        open_store(f"milvus://{tmp_path}/a.db#photos")


def test_the_client_is_imported_when_a_collection_is_opened() -> None:
    script = "import sys, crossfade.stores.milvus; assert not {'pymilvus', 'grpc', 'milvus_lite'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)
