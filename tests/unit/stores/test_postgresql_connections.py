"""PostgreSQL: credentials, rights, lost connections, and writers that meet."""

from __future__ import annotations

import gc
import os
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from psycopg import sql
from stores.postgresql import Server

from crossfade.errors import StoreError, Unreachable
from crossfade.stores import Records, Store, Vectors, open_store

PASSWORD = "hunter2-correct-horse"


@pytest.fixture(scope="module")
def server() -> Server:
    return Server.shared()


@pytest.fixture
def filled(server: Server) -> Iterator[Store]:
    server.run("DROP TABLE IF EXISTS met, crossfade_notes")
    server.run("CREATE TABLE met (id text PRIMARY KEY, old vector(3), new vector(3), script text, seen int DEFAULT 0)")
    store = open_store(server.address("met"))
    store.upsert(Records(ids(), {"old": Vectors.of(vectors(40))}, {"script": ["LATIN"] * 40, "seen": [0] * 40}))
    yield store
    store.close()
    server.run("DROP TABLE IF EXISTS met, crossfade_notes")


@pytest.fixture
def role(server: Server) -> Iterator[str]:
    server.run(sql.SQL("CREATE ROLE guest LOGIN PASSWORD {} IN ROLE guarded").format(sql.Literal(PASSWORD)))
    yield "guest"
    server.run("DROP OWNED BY guest")
    server.run("DROP ROLE guest")


def ids(count: int = 40) -> list[str]:
    return [f"item {number:02d}" for number in range(count)]


def vectors(count: int) -> np.ndarray:
    return np.arange(1, 3 * count + 1, dtype=np.float32).reshape(count, 3)


def backends(server: Server) -> int:
    """Connections of Crossfade that the server has."""
    return int(server.run("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'crossfade'")[0][0])


def eventually(holds: Callable[[], bool]) -> bool:
    """Whether it holds within ten seconds."""
    until = time.monotonic() + 10
    while not holds() and time.monotonic() < until:
        time.sleep(0.01)
    return holds()


def waiting(server: Server) -> bool:
    """Whether a connection of Crossfade waits for a lock."""
    state = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'crossfade' AND wait_event_type = 'Lock'"
    return bool(server.run(state))


def test_a_password_is_taken_from_the_environment_and_stands_nowhere(
    server: Server, filled: Store, role: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    address = server.address("met", user=role)
    server.run("GRANT SELECT ON met TO guest")
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    with open_store(address) as store:
        assert store.count() == 40
        shown = [repr(store), store.address, repr(vars(store._backend)), repr(vars(store._backend._connections))]  # type: ignore[attr-defined]
    monkeypatch.setenv("PGPASSWORD", PASSWORD + "-wrong")
    with pytest.raises(Unreachable, match="password authentication failed") as raised:
        open_store(address)
    monkeypatch.delenv("PGPASSWORD")
    monkeypatch.setenv("PGPASSFILE", "/dev/null")
    with pytest.raises(Unreachable, match="no password supplied") as other:
        open_store(address)
    shown += [*traceback.format_exception(raised.value), *traceback.format_exception(other.value), caplog.text]
    assert PASSWORD not in "".join(shown)
    assert address in str(raised.value)


def test_a_role_that_may_not_do_a_thing_is_told_what_it_needs(
    server: Server, filled: Store, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    with open_store(server.address("met", user=role)) as store:
        with pytest.raises(StoreError, match=r"permission denied for table met .* needs SELECT"):
            store.count()
        server.run("GRANT SELECT ON met TO guest")
        assert store.count() == 40
        assert store.notes() == {}
        for act, needs in (
            (lambda: store.upsert(Records(["a"], {"old": Vectors.of(vectors(1))})), "INSERT, UPDATE and SELECT"),
            (lambda: store.delete(ids()), "DELETE, UPDATE and SELECT"),
            (lambda: store.set_vectors("new", ids(), vectors(40)), "UPDATE and SELECT"),
            (lambda: store.add_field("newer", dimension=3), "to own the table"),
            (lambda: store.drop_field("new"), "to own the table"),
            (lambda: store.note("k", "t"), "CREATE in the schema"),
        ):
            with pytest.raises(StoreError, match=f"The role needs {needs}"):
                act()
        assert store.count() == 40
        server.run("GRANT INSERT, UPDATE ON met TO guest")
        assert store.set_vectors("new", ids(), vectors(40)) == 40
        server.run("ALTER ROLE guest SET default_transaction_read_only = on")
    with open_store(server.address("met", user=role)) as store:
        with pytest.raises(StoreError, match="takes no writes"):
            store.set_vectors("new", ids(), None)
        assert next(store.scan(fields=["new"])).vectors["new"].present.all()


def test_a_role_of_any_isolation_writes(
    server: Server, filled: Store, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    server.run("GRANT ALL ON met TO guest")
    server.run("ALTER ROLE guest SET default_transaction_isolation = 'serializable'")
    with open_store(server.address("met", user=role)) as store:
        assert store.set_vectors("new", ids(), vectors(40)) == 40
        with server.connect() as other, ThreadPoolExecutor(1) as pool:
            other.execute("BEGIN")
            other.execute("UPDATE met SET seen = 7")
            filling = pool.submit(store.set_vectors, "new", ids(), None)
            assert eventually(lambda: waiting(server))
            other.execute("COMMIT")
            assert filling.result() == 40


def test_a_query_that_takes_too_long_is_said_so(
    server: Server, filled: Store, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    server.run("GRANT ALL ON met TO guest")
    server.run("ALTER ROLE guest SET statement_timeout = '100ms'")
    with open_store(server.address("met", user=role)) as store, server.connect() as other, other.transaction():
        other.execute("LOCK TABLE met")
        with pytest.raises(StoreError, match=r"statement timeout .* Raise the role's statement_timeout"):
            store.count()


def test_connections_that_the_server_closed_are_replaced(server: Server, filled: Store) -> None:
    end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'crossfade'"
    with ThreadPoolExecutor(4) as pool:  # several are kept
        list(pool.map(lambda _: filled.count(), range(40)))
    for act in (
        filled.count,
        filled.describe,
        lambda: filled.set_vectors("new", ids(), vectors(40)),
        lambda: filled.upsert(Records(["item 00"], {"old": Vectors.of(vectors(1))})),
        lambda: filled.delete(["item 39"]),
        lambda: filled.search(vectors(2), field="old", k=3),
    ):
        assert server.run(end)
        assert eventually(lambda: not backends(server))
        act()
    assert filled.count() == 39
    scan = filled.scan(fields=["old"], batch=5)
    next(scan)
    server.run(end)
    with pytest.raises(Unreachable, match="does not answer"):
        list(scan)


def test_a_connection_lost_in_the_middle_of_a_write_leaves_nothing_or_all(server: Server, filled: Store) -> None:
    with server.connect() as other, ThreadPoolExecutor(1) as pool:
        other.execute("BEGIN")
        other.execute("UPDATE met SET seen = 1 WHERE id = 'item 20'")
        deleting = pool.submit(filled.delete, ids())
        assert eventually(lambda: waiting(server))
        server.run("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = 'crossfade'")
        assert eventually(lambda: waiting(server))  # it does it again on a new connection
        other.execute("COMMIT")
        assert deleting.result() == 40
    assert filled.count() == 0


def test_handles_that_are_dropped_let_go_of_their_connections(server: Server, filled: Store) -> None:
    filled.close()
    assert eventually(lambda: not backends(server))
    with pytest.raises(StoreError, match="was closed"):
        filled.count()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store = open_store(server.address("met"))
        scan = store.scan(batch=3)
        next(scan)
        assert backends(server) == 2
        scan.close()
        assert eventually(lambda: backends(server) == 1)
        scan = store.scan(batch=3)
        next(scan)
        del scan, store
        gc.collect()
        assert eventually(lambda: not backends(server))


def test_a_fork_leaves_the_connections_of_its_parent_alone(
    server: Server, filled: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    connections = filled._backend._connections  # type: ignore[attr-defined]
    parents = list(connections._idle)
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert filled.count() == 40
    assert connections._idle
    assert not set(connections._idle) & set(parents)
    assert not any(each.closed for each in parents)
    filled.close()
    assert not any(each.closed for each in parents)
    for each in parents:
        each.close()


def test_many_threads_use_few_connections(server: Server, filled: Store) -> None:
    def work(number: int) -> int:
        filled.set_vectors("new", [f"item {number % 40:02d}"], vectors(1))
        return len(filled.search(vectors(3), field="old", k=5)[2]) + filled.count()

    with ThreadPoolExecutor(24) as pool:
        assert set(pool.map(work, range(200))) == {45}
    assert backends(server) <= 8


@pytest.mark.parametrize("deleting", [False, True])
def test_writers_in_any_order_never_stop_one_another(server: Server, filled: Store, deleting: bool) -> None:
    """Without deletions nobody waits in a circle; with them somebody may, and does it again."""
    deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = 'postgres'"
    before = server.run(deadlocks)
    filled.upsert(Records([f"item {row:02d}" for row in range(60)], {"old": Vectors.of(vectors(60))}))
    others = [open_store(server.address("met")) for _ in range(3)]
    generator = np.random.default_rng(0)
    orders = [generator.permutation(60) for _ in range(60)]

    def work(number: int) -> None:
        store, order = others[number % 3], orders[number]
        names = [f"item {row:02d}" for row in order]
        if number % 4 == 0:
            store.upsert(Records(names, {"old": Vectors.of(vectors(60)[order])}))
        elif number % 4 == 1 and deleting:
            store.delete(names[:5])
        else:
            store.set_vectors("new", names, vectors(60)[order])

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(60)))
    for part in others[0].scan(fields=["old", "new"]):
        rows = [int(str(id_)[-2:]) for id_ in part.ids]
        old, new = part.vectors["old"], part.vectors["new"]
        np.testing.assert_array_equal(old.values, vectors(60)[rows])
        np.testing.assert_array_equal(new.values[new.present], vectors(60)[rows][new.present])
    for each in (filled, *others):
        each.close()  # a connection that ends has told its counts
    assert eventually(lambda: not backends(server))
    assert deleting or server.run(deadlocks) == before


def test_what_is_written_meanwhile_is_neither_lost_nor_brought_back(server: Server, filled: Store) -> None:
    with server.connect() as other, ThreadPoolExecutor(1) as pool:
        other.execute("BEGIN")
        other.execute("UPDATE met SET script = 'GREEK', seen = 5 WHERE id < 'item 20'")
        other.execute("DELETE FROM met WHERE id = 'item 00'")
        filling = pool.submit(filled.set_vectors, "new", ids(), vectors(40))
        assert eventually(lambda: waiting(server))
        other.execute("COMMIT")
        assert filling.result() == 39
    found = filled.fetch(ids(), fields=["new", "old"], columns=["script", "seen"])
    assert found.ids == ids()[1:]
    assert found.columns == {"script": ["GREEK"] * 19 + ["LATIN"] * 20, "seen": [5] * 19 + [0] * 20}
    np.testing.assert_array_equal(found.vectors["new"].values, vectors(40)[1:])


def test_other_columns_keep_every_change_of_another_process(server: Server, filled: Store) -> None:
    done = threading.Event()

    def count_up() -> int:
        times = 0
        with server.connect() as connection:
            while not done.is_set():
                connection.execute("UPDATE met SET seen = seen + 1 WHERE id = %s", [ids()[times % 40]])
                times += 1
        return times

    with ThreadPoolExecutor(1) as pool:
        counting = pool.submit(count_up)
        for _ in range(50):
            assert filled.set_vectors("new", ids(), vectors(40)) == 40
            assert filled.set_vectors("new", ids(), None) == 40
        done.set()
        times = counting.result()
    assert server.run("SELECT sum(seen) FROM met") == [(times,)]


def test_a_circle_of_waiting_is_broken_and_the_write_done_again(server: Server, filled: Store) -> None:
    server.run("ALTER SYSTEM SET deadlock_timeout = '100ms'")
    server.run("SELECT pg_reload_conf()")
    with server.connect() as other, ThreadPoolExecutor(1) as pool:
        other.execute("SET deadlock_timeout = '1min'")
        other.execute("BEGIN")
        other.execute("UPDATE met SET seen = 1 WHERE id = 'item 30'")
        filling = pool.submit(filled.set_vectors, "new", ids(), vectors(40))
        assert eventually(lambda: waiting(server))
        # it holds item 10 and waits for item 30; now the other one waits for item 10
        other.execute("UPDATE met SET seen = 1 WHERE id = 'item 10'")
        other.execute("COMMIT")
        assert filling.result() == 40
    assert filled.fetch(["item 10", "item 30"], columns=["seen"]).columns == {"seen": [1, 1]}
    server.run("ALTER SYSTEM RESET deadlock_timeout")
    server.run("SELECT pg_reload_conf()")


def test_a_table_in_use_is_not_waited_for_without_end(
    server: Server, filled: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crossfade.stores.postgresql_backend.LOCK_TIMEOUT", "200ms")
    scan = filled.scan(batch=5)
    next(scan)
    for act in (lambda: filled.add_field("newer", dimension=3), lambda: filled.drop_field("new")):
        with pytest.raises(StoreError, match="is in use, and waiting for it was given up"):
            act()
    scan.close()
    filled.add_field("newer", dimension=3)
    assert "newer" in filled.describe().fields


def test_what_depends_on_a_field_keeps_it(server: Server, filled: Store) -> None:
    server.run("CREATE VIEW shown AS SELECT new FROM met")
    with pytest.raises(StoreError, match="other objects depend on it"):
        filled.drop_field("new")
    server.run("DROP VIEW shown")
    with pytest.raises(StoreError, match="cannot exceed 16000"):
        filled.add_field("huge", dimension=20000)


def test_first_notes_of_several_processes_are_all_kept(server: Server, filled: Store) -> None:
    others = [open_store(server.address("met")) for _ in range(4)]
    barrier = threading.Barrier(4)

    def work(number: int) -> None:
        barrier.wait()
        others[number].note(f"key {number}", "text")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert sorted(filled.notes()) == [f"key {number}" for number in range(4)]
    for other in others:
        other.close()


def test_a_scan_goes_on_while_its_table_is_written(filled: Store) -> None:
    seen = []
    for part in filled.scan(fields=["old"], batch=7):
        seen += part.ids
        filled.delete(ids()[::2])
        filled.upsert(Records(["zzz"], {"old": Vectors.of(vectors(1))}))
    assert seen == ids()
    assert filled.count() == 21
