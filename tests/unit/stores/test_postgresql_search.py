"""PostgreSQL: searches with an index and without, zero vectors, filters that few rows meet."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from stores.postgresql import Server

from crossfade.spaces import METRICS, Metric
from crossfade.stores import MemoryBackend, Records, Store, VectorField, Vectors, open_store
from crossfade.stores.address import parse_address
from crossfade.stores.postgresql import connect
from crossfade.stores.postgresql_backend import PostgreSQLBackend
from crossfade.stores.postgresql_connections import Connection
from crossfade.stores.postgresql_search import prepare

COUNT, DIMENSION = 3000, 8
OPERATORS = ("vector_cosine_ops", "vector_ip_ops", "vector_l2_ops")


def rows() -> Records:
    """Three rows among them are rare, and far from the queries."""
    generator = np.random.default_rng(3)
    vectors = generator.standard_normal((COUNT, DIMENSION)).astype(np.float32)
    vectors[:3] = -100 * np.eye(DIMENSION)[:3]
    ids = [f"item {number:04d}" for number in range(COUNT)]
    return Records(ids, {"old": Vectors.of(vectors)}, {"kind": ["rare"] * 3 + ["common"] * (COUNT - 3)})


QUERIES = np.abs(np.random.default_rng(4).standard_normal((5, DIMENSION))).astype(np.float32)


@pytest.fixture(scope="module")
def server() -> Server:
    return Server.shared()


@pytest.fixture(scope="module")
def oracle() -> Store:
    store = Store(MemoryBackend([VectorField("old", DIMENSION), VectorField("new", 3)], columns={"kind": "string"}))
    store.upsert(rows())
    return store


@pytest.fixture(scope="module", params=["none", "hnsw", "ivfflat"])
def indexed(server: Server, request: pytest.FixtureRequest) -> Iterator[Store]:
    """A filled table with an index for every metric."""
    server.run(f"CREATE TABLE searched (id text PRIMARY KEY, old vector({DIMENSION}), new vector(3), kind text)")
    store = open_store(server.address("searched"))
    store.upsert(rows())
    if request.param != "none":
        for operators in OPERATORS:
            server.run(f"CREATE INDEX ON searched USING {request.param} (old {operators})")
    server.run("ANALYZE searched")
    yield store
    store.close()
    server.run("DROP TABLE searched")


@pytest.mark.parametrize("metric", METRICS)
def test_an_exact_search_gives_what_the_store_in_memory_gives(indexed: Store, oracle: Store, metric: Metric) -> None:
    found = indexed.search(QUERIES, field="old", k=20, metric=metric, exact=True)
    expected = oracle.search(QUERIES, field="old", k=20, metric=metric)
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.ids == theirs.ids
        np.testing.assert_allclose(mine.scores, theirs.scores, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("metric", METRICS)
def test_an_index_finds_most_of_the_best_rows_best_first(indexed: Store, oracle: Store, metric: Metric) -> None:
    found = indexed.search(QUERIES, field="old", k=100, metric=metric)
    expected = oracle.search(QUERIES, field="old", k=100, metric=metric)
    for mine, theirs in zip(found, expected, strict=True):
        assert len(mine) == 100
        assert (np.diff(mine.scores) <= 0).all()
        assert (
            len(set(mine.ids) & set(theirs.ids)) > 15
        )  # IVFFlat looks into one of its lists, unless told to look into more
        exact = dict(zip(theirs.ids, theirs.scores, strict=True))
        for id_, score in zip(mine.ids, mine.scores, strict=True):
            assert score == pytest.approx(exact.get(id_, score), rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("k", [3, 10])
def test_rows_that_few_meet_are_found_by_an_index_too(indexed: Store, oracle: Store, k: int) -> None:
    where = {"kind": "rare"}
    found = indexed.search(QUERIES, field="old", k=k, where=where)
    expected = oracle.search(QUERIES, field="old", k=k, where=where)
    assert [hits.ids for hits in found] == [hits.ids for hits in expected]


def test_more_rows_than_an_index_looks_at_are_found(indexed: Store) -> None:
    (hits,) = indexed.search(QUERIES[0], field="old", k=COUNT + 5)
    assert len(hits) == COUNT
    (hits,) = indexed.search(QUERIES[0], field="old", k=1500)
    assert len(set(hits.ids)) == 1500


def test_rows_that_lack_a_field_are_found_by_an_index_too(indexed: Store) -> None:
    best = indexed.search(QUERIES[0], field="old", k=2000)[0].ids
    indexed.set_vectors("new", best, np.ones((2000, 3)))
    (hits,) = indexed.search(QUERIES[0], field="old", k=50, lacking="new")
    assert len(hits) == 50
    assert not set(hits.ids) & set(best)
    indexed.set_vectors("new", best, None)


def test_the_index_is_asked_unless_the_search_is_exact(server: Server) -> None:
    server.run(f"CREATE TABLE asked (id text PRIMARY KEY, old vector({DIMENSION}), kind text)")
    with open_store(server.address("asked")) as store:
        store.upsert(rows())
        server.run("CREATE INDEX asked_old ON asked USING hnsw (old vector_cosine_ops)")
        server.run("ANALYZE asked")
        counted = "SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 'asked_old'"
        store.search(QUERIES, field="old", k=3, exact=True)
        store.search(QUERIES, field="old", k=3, metric="dot")
        store.search(np.zeros(DIMENSION), field="old", k=3)
    assert server.run(counted) == [(0,)]  # a connection that ends has told its counts
    with open_store(server.address("asked")) as store:
        store.search(QUERIES, field="old", k=3)
        store.search(QUERIES, field="old", k=3, where={"kind": ["common", "rare"]})
    assert server.run(counted) == [(2 * len(QUERIES),)]
    server.run("DROP TABLE asked")


def test_what_the_indexs_first_candidates_lack_is_found_by_looking_further(server: Server) -> None:
    server.run(f"CREATE TABLE short (id text PRIMARY KEY, old vector({DIMENSION}))")
    server.run("CREATE ROLE hasty LOGIN SUPERUSER")
    server.run("ALTER ROLE hasty SET hnsw.ef_search = 4")
    server.run("ALTER ROLE hasty SET enable_seqscan = off")
    with open_store(server.address("short", user="hasty")) as store:
        store.upsert(Records(rows().ids, {"old": rows().vectors["old"]}))
        server.run("CREATE INDEX ON short USING hnsw (old vector_cosine_ops)")
        exact = store.search(QUERIES, field="old", k=210, exact=True)
        for mine, theirs in zip(store.search(QUERIES, field="old", k=10), exact, strict=True):
            assert len(mine) == 10  # more than the role's candidates
            assert set(mine.ids) <= set(theirs.ids)
        store.delete(exact[0].ids[:200])  # which the index still holds
        (hits,) = store.search(QUERIES[0], field="old", k=10)
        assert hits.ids[0] == exact[0].ids[200]
        assert len(hits) == 10
    server.run("DROP TABLE short")
    server.run("DROP ROLE hasty")


def test_a_zero_vector_scores_zero_and_keeps_its_place(server: Server) -> None:
    server.run("CREATE TABLE zeros (id text PRIMARY KEY, old vector(2))")
    vectors = np.array([[1, 0], [0, 0], [-1, 0], [0, 2]], dtype=np.float32)
    with open_store(server.address("zeros")) as store:
        store.upsert(Records(["along", "zero", "against", "across"], {"old": Vectors.of(vectors)}))
        for exact in (False, True):
            (hits,) = store.search(np.array([2, 0]), field="old", k=4, exact=exact)
            assert hits.ids == ["along", "across", "zero", "against"]
            np.testing.assert_allclose(hits.scores, [1, 0, 0, -1], atol=1e-6)
            assert store.search(np.array([2, 0]), field="old", k=3, exact=exact)[0].ids == hits.ids[:3]
            (hits,) = store.search(np.zeros(2), field="old", k=4, exact=exact)
            assert hits.scores.tolist() == [0] * 4
            assert hits.ids == ["across", "against", "along", "zero"]
    server.run("CREATE INDEX ON zeros USING hnsw (old vector_cosine_ops)")
    server.run("CREATE ROLE driven LOGIN SUPERUSER")
    server.run("ALTER ROLE driven SET enable_seqscan = off")  # a table of four rows needs no index
    with open_store(server.address("zeros", user="driven")) as store:
        (hits,) = store.search(np.zeros(2), field="old", k=2)
        assert hits.scores.tolist() == [0] * 2
        assert store.search(np.array([2, 0]), field="old", k=3)[0].ids == ["along", "across", "against"]
        (hits,) = store.search(np.array([2, 0]), field="old", k=4)  # the index holds three, so every row is compared
        assert hits.ids == ["along", "across", "zero", "against"]
    server.run("DROP TABLE zeros")
    server.run("DROP ROLE driven")


def test_candidates_are_as_many_as_rows_asked_for_or_as_the_role_sets(server: Server) -> None:
    address = server.address("asked")
    server.run(f"CREATE TABLE asked (id text PRIMARY KEY, old vector({DIMENSION}))")
    server.run("CREATE ROLE eager LOGIN SUPERUSER")
    server.run("ALTER ROLE eager SET hnsw.ef_search = 200")
    for user, k, expected in (
        ("postgres", 3, "40"),
        ("postgres", 70, "70"),
        ("postgres", 5000, "1000"),
        ("eager", 70, "200"),
        ("eager", 300, "300"),
    ):
        parsed = parse_address(address.replace("postgres@", f"{user}@"))
        backend = connect(parsed)
        assert isinstance(backend, PostgreSQLBackend)

        def seen(connection: Connection, k: int = k, backend: PostgreSQLBackend = backend) -> list[tuple[str, ...]]:
            with connection.transaction():
                prepare(connection, backend._table, k)
                connection.execute("SELECT '[1]'::vector <-> '[1]'")  # loads pgvector, which reads what was set before
                names = ("hnsw.ef_search", "hnsw.iterative_scan", "ivfflat.iterative_scan")
                return [connection.execute("SELECT current_setting($1)", [name]).fetchone() for name in names]

        found = backend._connections.read(seen)
        assert found == [(expected,), ("strict_order",), ("relaxed_order",)]
        backend.close()
    server.run("DROP TABLE asked")
    server.run("DROP ROLE eager")
