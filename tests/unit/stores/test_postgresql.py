"""PostgreSQL: addresses, and how tables as people make them become collections."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from stores.postgresql import Server

from crossfade.errors import ConfigError, InvalidIds, MissingExtra, StoreChanged, StoreError, Unreachable
from crossfade.stores import Records, Store, VectorField, Vectors, open_store

VECTORS = np.array([[1, 2, 3], [-1, 0.5, 2], [0.1, -3, 1]], dtype=np.float32)


@pytest.fixture(scope="module")
def server() -> Server:
    return Server.shared()


@pytest.fixture
def opened(server: Server) -> Iterator[Callable[..., Store]]:
    """Makes a table ``items`` by statements in a schema of its own, and opens it."""
    server.run("DROP SCHEMA IF EXISTS fresh CASCADE")
    server.run("CREATE SCHEMA fresh")
    stores = []

    def make(*statements: str, table: str = "fresh.items", more: str = "") -> Store:
        for statement in statements:
            server.run(statement)
        stores.append(open_store(server.address(table, more=more)))
        return stores[-1]

    yield make
    for store in stores:
        store.close()
    server.run("DROP SCHEMA IF EXISTS fresh CASCADE")


def records(ids: list[Any], vectors: np.ndarray | None = None, **columns: list[Any]) -> Records:
    fields = {} if vectors is None else {"old": Vectors.of(vectors)}
    return Records(ids, fields, columns)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("postgresql://host/shop", r"must name a table as \?table=name"),
        ("postgresql://host/shop?table=schema.", r"must name a table"),
        ("postgresql://host/shop?table=photos#photos", r"must name a table"),
        ("postgresql://host/shop?table=photos&socket=/run", "names a host and a socket"),
        ("postgresql://host/shop?table=photos&connect_timeout=soon", "connect_timeout must be a number"),
        ("postgresql://host/shop?table=photos&password=hunter2", "found password"),
        ("postgresql://me:hunter2@host/shop?table=photos", "must hold no password"),
    ],
)
def test_an_address_that_cannot_be_meant_is_refused(address: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as raised:
        open_store(address)
    assert "hunter2" not in str(raised.value)


def test_without_psycopg_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(MissingExtra, match=r"pip install 'crossfade\[stores\]'"):
        open_store("postgresql://host/shop?table=photos")


def test_psycopg_is_imported_for_this_store_alone() -> None:
    code = "import sys, crossfade.stores, crossfade.stores.postgresql; assert 'psycopg' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_server_or_database_that_is_not_there_is_unreachable(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unreachable, match="must be a PostgreSQL server that lets this role in"):
        open_store("postgresql://postgres@127.0.0.1:9/postgres?table=items&connect_timeout=3")
    with pytest.raises(Unreachable, match="must be a PostgreSQL server"):
        open_store(server.address("items", more="&sslmode=nonsense"))
    monkeypatch.setenv("PGCONNECT_TIMEOUT", "2")
    with pytest.raises(Unreachable, match=r'database "nowhere" does not exist'):
        open_store(server.address("items", database="nowhere"))


def test_a_table_that_is_not_there_is_said_so(server: Server, opened: Callable[..., Store]) -> None:
    for table in ("nobody", "fresh.nobody", "nowhere.nobody", 'no"body'):
        with pytest.raises(StoreChanged, match=r"which is not there|is none"):
            opened(table=table)
    with pytest.raises(StoreChanged, match="is none"):  # a view has no unique ids
        opened("CREATE VIEW fresh.items AS SELECT 1 AS id")


def test_the_ids_are_the_primary_key_or_a_unique_column(opened: Callable[..., Store]) -> None:
    store = opened(
        "CREATE TABLE fresh.items (number int PRIMARY KEY, name varchar(20) NOT NULL UNIQUE, odd text UNIQUE, "
        "twice text NOT NULL, at date UNIQUE NOT NULL, late text NOT NULL UNIQUE DEFERRABLE, old vector(3))",
        "INSERT INTO fresh.items VALUES (7, 'seven', 'o', 't', now(), 'l', '[1,2,3]')",
    )
    assert store.describe().ids == "integer"
    assert store.fetch([7, 2**40]).ids == [7]
    assert "number" not in store.describe().columns
    by_name = opened(more="&id=name")
    assert by_name.describe().ids == "string"
    assert by_name.fetch(["seven", "x" * 50], columns=["number"]).columns == {"number": [7]}
    for column, said in {"odd": "never missing", "twice": "unique", "late": "holds at once", "at": "is date"}.items():
        with pytest.raises(ConfigError, match=said):
            opened(more=f"&id={column}")
    with pytest.raises(StoreChanged, match="'nobody', which is not there; there are number, name"):
        opened(more="&id=nobody")


def test_a_primary_key_of_two_columns_or_a_partial_index_names_no_row(opened: Callable[..., Store]) -> None:
    with pytest.raises(ConfigError, match="must be unique"):
        opened(
            "CREATE TABLE fresh.items (id text NOT NULL, part int, old vector(3), PRIMARY KEY (id, part))",
            "CREATE UNIQUE INDEX ON fresh.items (id) WHERE part = 1",
        )


def test_a_table_in_parts_is_a_collection(opened: Callable[..., Store]) -> None:
    store = opened(
        "CREATE TABLE fresh.items (id bigint PRIMARY KEY, old vector(3)) PARTITION BY RANGE (id)",
        "CREATE TABLE fresh.low PARTITION OF fresh.items FOR VALUES FROM (0) TO (10)",
        "CREATE TABLE fresh.high PARTITION OF fresh.items FOR VALUES FROM (10) TO (20)",
    )
    store.upsert(records([12, 3, 8], VECTORS))
    assert [part.ids for part in store.scan(batch=2)] == [[3, 8], [12]]
    assert store.search(VECTORS[0], field="old", k=1)[0].ids == [12]
    with pytest.raises(StoreError, match="no partition"):
        store.upsert(records([30], VECTORS[:1]))


def test_ids_that_the_server_numbers_are_kept_as_given(opened: Callable[..., Store]) -> None:
    store = opened(
        "CREATE TABLE fresh.items (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, old vector(3), "
        "place bigint DEFAULT 5 NOT NULL)"
    )
    store.upsert(records([41, 5], VECTORS[:2]))
    store.upsert(records([41], VECTORS[2:]))
    found = store.fetch([5, 41], fields=["old"], columns=["place"])
    assert found.ids == [5, 41]
    np.testing.assert_array_equal(found.vectors["old"].values, VECTORS[[1, 2]])
    with pytest.raises(StoreError, match=r"a value was refused|out of range"):
        store.upsert(records([2**40], VECTORS[:1]))
    assert store.count() == 2


def test_odd_names_are_names_and_nothing_else(server: Server, opened: Callable[..., Store]) -> None:
    server.run(
        'CREATE TABLE fresh."It\'s 100% ""x"" $1 {}" ("The %s id" text PRIMARY KEY, "f%b {0}" vector(3), "distance" int)'
    )
    store = opened(table="fresh.It%27s+100%25+%22x%22+%241+{}")
    assert set(store.describe().fields) == {"f%b {0}"}
    store.upsert(Records(["a", "b"], {"f%b {0}": Vectors.of(VECTORS[:2])}, {"distance": [1, 2]}))
    store.add_field('new "%s"; --', dimension=2)
    assert store.set_vectors('new "%s"; --', ["a"], np.ones((1, 2))) == 1
    (hits,) = store.search(VECTORS[1], field="f%b {0}", k=5, where={"distance": {">": 1}}, lacking='new "%s"; --')
    assert hits.ids == ["b"]
    store.drop_field('new "%s"; --')
    store.note("k%s", "100% 'x'")
    assert store.notes() == {"k%s": "100% 'x'"}
    with pytest.raises(ConfigError, match="at most 63 bytes"):
        store.add_field("ü" * 40, dimension=2)


def test_a_table_without_a_schema_is_found_by_the_search_path(server: Server, opened: Callable[..., Store]) -> None:
    opened('CREATE TABLE fresh."Items" (id text PRIMARY KEY, old vector(3))', table="fresh.Items")
    server.run("CREATE ROLE pathfinder LOGIN SUPERUSER")
    server.run("ALTER ROLE pathfinder SET search_path = fresh, public")
    with open_store(server.address("Items", user="pathfinder")) as store:
        assert store.count() == 0
    server.run("DROP ROLE pathfinder")


def test_values_of_every_type_come_back_as_they_were_written(opened: Callable[..., Store]) -> None:
    store = opened(
        "CREATE DOMAIN fresh.year AS smallint CHECK (value > 0)",
        "CREATE TYPE fresh.mood AS ENUM ('fine', 'so {}')",
        "CREATE TABLE fresh.items (id text PRIMARY KEY, old vector(3), short varchar(3), fixed char(4), small smallint, "
        "big bigint, year fresh.year, single real, exact numeric, yes boolean, doc jsonb, at timestamptz, "
        "who uuid, mood fresh.mood, tags text[])",
    )
    kinds = dict(store.describe().columns)
    assert {kinds[name] for name in ("short", "fixed")} == {"string"}
    assert {kinds[name] for name in ("small", "big", "year")} == {"integer"}
    assert {kinds[name] for name in ("single", "exact")} == {"number"}
    assert kinds["yes"] == "boolean"
    assert {kinds[name] for name in ("doc", "at", "who", "mood", "tags")} == {"other"}
    given = {
        "short": ["aé写", None], "fixed": ["abcd", "x"], "small": [-32768, 7], "big": [2**62 + 1, None],
        "year": [1999, 3], "single": [float(np.float32(0.1)), 2.5], "exact": [1 / 3, 10**17], "yes": [True, False],
        "doc": ['{"a": 1}', None], "at": ["2001-02-03 04:05:06+00", None],
        "who": ["11111111-2222-3333-4444-555555555555", None], "mood": ["so {}", "fine"], "tags": ['{a,"b c"}', "{}"],
    }  # fmt: skip
    store.upsert(records(["a", "b"], VECTORS[:2], **given))
    found = store.fetch(["a", "b"], columns=list(given)).columns
    assert {**found, "at": None, "exact": None} == {**given, "at": None, "exact": None}
    assert found["exact"] == [1 / 3, 1e17]
    assert str(found["at"][0]).startswith("2001-02-03")
    assert store.count({"exact": [1 / 3, 2.5]}) == 1
    assert store.count({"single": float(np.float32(0.1))}) == 1
    assert store.count({"big": 2**62 + 1}) == 1
    assert store.count({"big": 2.0**62}) == 0
    assert store.count({"small": {">": 6.5}}) == 1
    assert store.count({"small": [7, 0.5]}) == 1
    assert store.count({"small": {"<": float("inf")}}) == 2
    assert store.count({"small": {"<": 2**80}}) == 2
    assert store.count({"single": {"<": 10**400}}) == 2
    assert store.count({"fixed": "x"}) == 1
    assert store.count({"year": {">=": 3, "<": 1999}}) == 1


def test_texts_are_ordered_by_their_characters(server: Server, opened: Callable[..., Store]) -> None:
    words = ["a", "B", "é", "Z", "z", "写"]
    linguistic = server.run("SELECT collname FROM pg_collation WHERE collname IN ('en-x-icu', 'en_US.utf8') LIMIT 1")
    collation = linguistic[0][0] if linguistic else "default"  # a server may be built without any
    store = opened(f'CREATE TABLE fresh.items (id text PRIMARY KEY, old vector(3), word text COLLATE "{collation}")')
    store.upsert(records(words, None, word=words))
    for bound in words:
        found = {id_ for part in store.scan(where={"word": {"<": bound}}) for id_ in part.ids}
        assert found == {word for word in words if word < bound}


def test_what_is_not_given_of_a_row_gets_its_default(opened: Callable[..., Store]) -> None:
    store = opened(
        "CREATE TABLE fresh.items (id text PRIMARY KEY, old vector(3), script text, state text NOT NULL DEFAULT 'new', "
        "place int GENERATED ALWAYS AS IDENTITY, twice int GENERATED ALWAYS AS (length(state) * 2) STORED)"
    )
    store.upsert(records(["a"], VECTORS[:1], script=["LATIN"], state=["seen"]))
    assert store.fetch(["a"], columns=["twice"]).columns == {"twice": [8]}
    store.upsert(records(["a"]))
    found = store.fetch(["a"], fields=["old"], columns=["script", "state", "twice"])
    assert found.columns == {"script": [None], "state": ["new"], "twice": [6]}
    assert not found.vectors["old"].present.any()
    with pytest.raises(ConfigError, match="'twice' is computed by the server"):
        store.upsert(records(["a"], twice=[4]))


def test_a_table_of_ids_alone_takes_rows_and_a_field(opened: Callable[..., Store]) -> None:
    store = opened("CREATE TABLE fresh.items (id text PRIMARY KEY)")
    store.upsert(records(["a", "b"]))
    store.upsert(records(["a"]))
    store.add_field("old", dimension=3)
    assert store.set_vectors("old", ["b", "a"], VECTORS[:2]) == 2
    assert store.search(VECTORS[0], field="old", k=1)[0].ids == ["b"]


@pytest.mark.parametrize(
    ("column", "value"), [("script", 5), ("year", "1990"), ("year", 1.5), ("year", True), ("weight", "x"), ("yes", 1)]
)
def test_a_value_of_another_kind_is_refused(opened: Callable[..., Store], column: str, value: object) -> None:
    store = opened(
        "CREATE TABLE fresh.items (id text PRIMARY KEY, old vector(3), script text, year int, weight float8, yes bool)"
    )
    with pytest.raises(ConfigError, match=f"The column '{column}' holds"):
        store.upsert(records(["a", "b"], VECTORS[:2], **{column: [None, value]}))
    assert store.count() == 0


SECRET = "the patient's name"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"short": [SECRET]}, "too long"),
        ({"doc": [SECRET]}, "a value was refused"),
        ({"small": [123456]}, "a value was refused"),
        ({"must": [None], "short": ["s"]}, "null value in column"),
        ({"short": ["no"]}, "violates check constraint"),
        ({"short": ["a\0"]}, "valid Unicode without null characters"),
        ({"short": ["\udc80"]}, "valid Unicode without null characters"),
    ],
)
def test_a_value_that_is_refused_stands_in_no_error(
    opened: Callable[..., Store], given: dict[str, list[Any]], said: str
) -> None:
    store = opened(
        "CREATE TABLE fresh.items (id text PRIMARY KEY, old vector(3), must text NOT NULL DEFAULT '', "
        "short varchar(5) CHECK (short <> 'no'), small smallint, doc jsonb)"
    )
    store.upsert(records(["a"], VECTORS[:1]))
    with pytest.raises(StoreError, match=said) as raised:
        store.upsert(records(["a", "b"], VECTORS[1:], **{name: values * 2 for name, values in given.items()}))
    shown = str(raised.value)
    assert store.address in shown
    assert raised.value.__suppress_context__
    for private in (SECRET, "123456", "[-1,0.5", "-0.5"):
        assert private not in shown
    np.testing.assert_array_equal(store.fetch(["a"], fields=["old"]).vectors["old"].values, VECTORS[:1])
    assert store.count() == 1


def test_what_a_trigger_says_of_a_value_is_not_passed_on(opened: Callable[..., Store]) -> None:
    store = opened(
        "CREATE TABLE fresh.items (id text PRIMARY KEY, script text)",
        "CREATE FUNCTION fresh.refuse() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'no: %', NEW.script; END $$",
        "CREATE TRIGGER refuse BEFORE INSERT ON fresh.items FOR EACH ROW EXECUTE FUNCTION fresh.refuse()",
    )
    with pytest.raises(StoreError, match=r"a value was refused \(RaiseException\)") as raised:
        store.upsert(records(["a"], script=[SECRET]))
    assert SECRET not in str(raised.value)


def test_rows_with_and_without_a_vector_are_written_together(opened: Callable[..., Store]) -> None:
    store = opened("CREATE TABLE fresh.items (id text PRIMARY KEY, old vector(3), small halfvec(3), script text)")
    mixed = Vectors(VECTORS * [[1], [0], [1]], np.array([True, False, True]))
    store.upsert(Records(["b", "a", "c"], {"old": mixed, "small": mixed}, {"script": [None, "x", "y"]}))
    found = next(store.scan(fields=["old", "small"], columns=["script"]))
    assert found.ids == ["a", "b", "c"]
    assert found.columns == {"script": ["x", None, "y"]}
    for vectors in found.vectors.values():
        assert vectors.present.tolist() == [False, True, True]
    np.testing.assert_array_equal(found.vectors["old"].values, [[0, 0, 0], VECTORS[0], VECTORS[2]])


def test_no_rows_at_all_are_fine(opened: Callable[..., Store]) -> None:
    backend = opened("CREATE TABLE fresh.items (id bigint PRIMARY KEY, old vector(3))")._backend
    assert len(backend.fetch([], ["old"], [])) == 0
    assert backend.set_vectors("old", [], np.empty((0, 3), dtype=np.float32)) == 0
    assert backend.set_vectors("old", [], None) == 0
    assert backend.delete([]) == 0


def test_text_that_no_column_holds_is_refused_in_a_filter(opened: Callable[..., Store]) -> None:
    store = opened("CREATE TABLE fresh.items (id text PRIMARY KEY, old vector(3), script text)")
    for text in ("a\0", "\udc80"):
        with pytest.raises(StoreError, match="valid Unicode"):
            store.count({"script": text})
        with pytest.raises(StoreError, match="valid Unicode"):
            next(store.scan(where={"script": text}))
    with pytest.raises(InvalidIds):
        store.fetch(["a\0"])


def test_vectors_of_16_bits_are_read_as_32_and_declared(opened: Callable[..., Store]) -> None:
    store = opened("CREATE TABLE fresh.items (id text PRIMARY KEY, old vector(3), small halfvec(3))")
    assert not store.capabilities.keeps_vectors
    assert store.describe().fields["small"] == VectorField("small", 3, None)
    given = np.array([[0.1, 1, -2], [3, 4, 5]], dtype=np.float32)
    store.upsert(Records(["a", "b"], {"small": Vectors.of(given), "old": Vectors.of(given)}))
    found = store.fetch(["a", "b"], fields=["small", "old"])
    np.testing.assert_array_equal(found.vectors["small"].values, given.astype(np.float16).astype(np.float32))
    np.testing.assert_array_equal(found.vectors["old"].values, given)
    assert store.set_vectors("small", ["b"], given[:1]) == 1
    for exact in (False, True):
        (hits,) = store.search(given[1], field="small", k=2, metric="dot", exact=exact)
        np.testing.assert_allclose(hits.scores, [given[1] @ given[0]] * 2, rtol=1e-2)
    with pytest.raises(StoreError, match="a value was refused"):
        store.set_vectors("small", ["b"], np.full((1, 3), 1e20))


def test_a_dimension_that_is_not_declared_is_that_of_a_row(opened: Callable[..., Store]) -> None:
    with pytest.raises(StoreError, match=r"dimension of the column 'old' .* must be known"):
        opened("CREATE TABLE fresh.items (id text PRIMARY KEY, old vector)")
    store = opened("INSERT INTO fresh.items VALUES ('a', '[1,2,3]'), ('b', NULL)")
    assert store.describe().fields["old"].dimension == 3
    store.upsert(records(["b"], VECTORS[:1]))
    assert set(store.search(VECTORS[0], field="old", k=2)[0].ids) == {"a", "b"}
    both = opened("ALTER TABLE fresh.items ADD COLUMN other vector")
    assert dict(both.describe().columns) == {"other": "other"}
    both = opened("INSERT INTO fresh.items VALUES ('c', '[1,2]')")
    with pytest.raises(StoreChanged, match=r"has vectors of \[2\] dimensions, not 3"):
        list(both.scan(fields=["old"]))
    with pytest.raises(StoreChanged, match="different vector dimensions"):
        both.search(VECTORS[0], field="old", k=2)


def test_pgvector_may_live_in_a_schema_outside_the_search_path(server: Server) -> None:
    server.run("CREATE DATABASE elsewhere")
    with server.connect("elsewhere") as connection:
        connection.execute('CREATE SCHEMA "Ext s"')
        connection.execute("CREATE TABLE items (id text PRIMARY KEY)")
        with pytest.raises(StoreError, match="CREATE EXTENSION vector"):
            open_store(server.address("items", database="elsewhere"))
        connection.execute('CREATE EXTENSION vector SCHEMA "Ext s"')
        connection.execute('ALTER TABLE items ADD COLUMN old "Ext s".vector(3), ADD COLUMN half "Ext s".halfvec(3)')
        connection.execute('CREATE INDEX ON items USING hnsw (old "Ext s".vector_cosine_ops)')
    with open_store(server.address("items", database="elsewhere")) as store:
        store.upsert(Records(["a", "b"], {"old": Vectors.of(VECTORS[:2]), "half": Vectors.of(VECTORS[:2])}))
        store.add_field("new", dimension=3)
        assert store.set_vectors("new", ["a"], VECTORS[2:]) == 1
        for field in ("old", "half"):
            for exact in (False, True):
                assert store.search(VECTORS[1], field=field, k=1, exact=exact)[0].ids == ["b"]
        np.testing.assert_array_equal(next(store.scan(fields=["new"])).vectors["new"].values[0], VECTORS[2])
    server.run("DROP DATABASE elsewhere")


def test_what_others_change_of_the_table_is_said_so(server: Server, opened: Callable[..., Store]) -> None:
    store = opened(
        "CREATE TABLE fresh.items (id text PRIMARY KEY, old vector(3), new vector(2), script text, year int)"
    )
    store.upsert(records(["a"], VECTORS[:1], script=["x"]))
    server.run("ALTER TABLE fresh.items DROP COLUMN script")
    with pytest.raises(StoreChanged, match="script"):
        store.count({"script": "x"})
    with pytest.raises(StoreChanged, match="script"):
        store.upsert(records(["a"], script=["x"]))
    server.run("ALTER TABLE fresh.items ALTER COLUMN new TYPE vector(4)")
    with pytest.raises(StoreChanged, match="expected 4 dimensions, not 2"):
        store.set_vectors("new", ["a"], np.ones((1, 2)))
    server.run("ALTER TABLE fresh.items DROP COLUMN old")
    with pytest.raises(StoreChanged) as raised:
        store.search(VECTORS[0], field="old", k=1)
    assert store.address in str(raised.value)
    with pytest.raises(StoreChanged):
        store.fetch(["a"], fields=["old"])
    with pytest.raises(StoreChanged):
        next(store.scan(fields=["old"]))
    server.run("ALTER TABLE fresh.items RENAME COLUMN id TO name")
    for act in (store.describe, lambda: store.delete(["a"]), lambda: store.upsert(records(["a"]))):
        with pytest.raises(StoreChanged):
            act()
    server.run("DROP SCHEMA fresh CASCADE")
    for act in (store.describe, store.count, lambda: store.delete(["a"]), lambda: store.fetch(["a"])):
        with pytest.raises(StoreChanged):
            act()
    with pytest.raises(StoreChanged):
        store.upsert(records(["a"]))


def test_notes_of_two_tables_do_not_meet(opened: Callable[..., Store], server: Server) -> None:
    one = opened("CREATE TABLE fresh.items (id text PRIMARY KEY, old vector(3))")
    two = opened('CREATE TABLE fresh."OTHER" (id text PRIMARY KEY, old vector(3))', table="fresh.OTHER")
    assert one.notes() == {}
    one.note("k", None)
    assert not server.run("SELECT to_regclass('fresh.crossfade_notes')")[0][0]
    one.note("k", "first")
    two.note("k", "second")
    assert (one.notes(), two.notes()) == ({"k": "first"}, {"k": "second"})
    one.note("k", None)
    assert (one.notes(), two.notes()) == ({}, {"k": "second"})
