"""Bad days of the store: it vanishes, it is changed by others, it lets nobody in, or lets nobody write."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import lancedb
import pyarrow as pa
import pytest
from bad_days import ASKED, PACE, ROWS, SAMPLE, assert_native, bytes_of, cut_over, midway
from command import run
from live import NEW, OLD, Live, fitted, queries
from psycopg import sql
from stores import Maker, maker_of
from stores.postgresql import PostgreSQLMaker, Server

from crossfade.artifacts import save_pretrained
from crossfade.errors import StoreChanged, StoreError, Unreachable
from crossfade.stores import Store, open_store
from crossfade.upgrading import Pace, Searcher, backfill, cutover, finish, rollback, shadow

PASSWORD, CHANGED = "hunter2-correct-horse", "battery-staple-9"


@pytest.fixture(scope="module")
def lance(tmp_path_factory: pytest.TempPathFactory) -> Maker:
    return maker_of("lancedb", tmp_path_factory.mktemp("lancedb"))


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Maker]:
    made = PostgreSQLMaker(tmp_path_factory.mktemp("postgresql"))
    yield made
    made.close()


@pytest.fixture(scope="module", params=["lancedb", "postgresql", "qdrant"])
def maker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Maker]:
    made = maker_of(request.param, tmp_path_factory.mktemp(request.param))
    yield made
    made.close()


@pytest.fixture
def server() -> Server:
    return Server.shared()


@pytest.fixture
def guest(server: Server) -> Iterator[str]:
    """A role that gives a password."""
    server.run(sql.SQL("CREATE ROLE guest LOGIN PASSWORD {} IN ROLE guarded").format(sql.Literal(PASSWORD)))
    yield "guest"
    server.run("REASSIGN OWNED BY guest TO postgres")
    server.run("DROP OWNED BY guest")
    server.run("DROP ROLE guest")


def table_of(store: Store) -> str:
    return re.split("table=|#", store.address)[1].partition("&")[0]


@pytest.mark.parametrize("what", ["the database", "the table", "a table of PostgreSQL"])
def test_a_collection_that_vanishes_midway_and_comes_back(
    lance: Maker, postgres: Maker, server: Server, tmp_path: Path, what: str
) -> None:
    live = Live.begin(postgres if what.endswith("SQL") else lance, tmp_path / "upgrade", rows=ROWS)
    upgrade, table = cut_over(live), table_of(live.store)
    place = lance.folder if what == "the database" else lance.folder / f"{table}.lance"

    def move(*, back: bool) -> None:
        if what.endswith("SQL"):
            server.run(f"ALTER TABLE away RENAME TO {table}" if back else f"ALTER TABLE {table} RENAME TO away")
        elif back:
            (tmp_path / "away").rename(place)
        else:
            place.rename(tmp_path / "away")

    with pytest.raises(StoreChanged, match=re.escape(live.store.address)):
        backfill(upgrade, live.store, midway(live, lambda: move(back=False)), sample=SAMPLE, pace=PACE)
    moment = upgrade.state.now()
    assert (moment.stage, moment.serving) == ("backfilling", "mixed")
    assert moment.paused.startswith(f"StoreChanged: {live.store.address}")
    for again in (lambda: backfill(upgrade, live.store, live.embed, pace=PACE), upgrade.store):
        with pytest.raises(StoreChanged):
            again()
    assert upgrade.state.now() == moment
    move(back=True)
    with upgrade.store() as store:
        assert backfill(upgrade, store, live.embed, pace=PACE).why == "done"
        finish(upgrade, store)
        assert_native(live, store)


def test_the_command_line_names_what_is_gone_and_rolls_back_without_it(
    lance: Maker, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    live = Live.begin(lance, tmp_path / "upgrade", rows=ROWS)
    upgrade, folder = cut_over(live), tmp_path / "upgrade"
    with pytest.raises(StoreChanged):
        backfill(upgrade, live.store, midway(live, lambda: lance.destroy(live.store)), sample=SAMPLE, pace=PACE)
    assert "find out who dropped it" in run(capsys, monkeypatch, "upgrade", "status", folder, code=3).err
    shown = run(capsys, monkeypatch, "upgrade", "status", folder, "--offline").out
    assert "StoreChanged" in shown
    assert "find out who dropped it" in shown
    done = run(capsys, monkeypatch, "upgrade", "rollback", folder, "--reason", "the table is gone")
    assert "searches are rolled back" in done.err
    assert upgrade.state.now().serving == "old"


def test_a_collection_that_is_made_anew_under_the_same_name_is_not_taken_for_the_old_one(
    lance: Maker, tmp_path: Path
) -> None:
    live = Live.begin(lance, tmp_path / "upgrade", rows=ROWS)
    upgrade, table = cut_over(live), table_of(live.store)
    backfill(upgrade, live.store, live.embed, sample=SAMPLE, pace=Pace(batch=10, limit=40))
    database = lancedb.connect(lance.folder)
    rows = database.open_table(table).to_arrow()
    database.drop_table(table)
    plain = pa.schema([pa.field(column.name, column.type) for column in rows.schema])
    database.create_table(table, pa.Table.from_arrays(rows.columns, schema=plain), on_bad_vectors="null")
    with upgrade.store() as store:
        with pytest.raises(StoreChanged, match=r"made anew under the same name.*crossfade upgrade register"):
            backfill(upgrade, store, live.embed)
        assert live.embedded == 40
        store.register("old", OLD, "image")  # it was restored from a backup without its notes
        store.register("new", NEW, "image")
        assert backfill(upgrade, store, live.embed).why == "done"
        assert_native(live, store)


def test_a_new_field_that_others_drop_midway_is_made_again_by_way_of_a_rollback(maker: Maker, tmp_path: Path) -> None:
    live = Live.begin(maker, tmp_path / "upgrade", rows=ROWS)
    upgrade, asked = cut_over(live), queries(ASKED, OLD).matrix()
    before = live.store.search(asked, field="old", k=5, exact=True)
    other = maker.again(live.store)
    with pytest.raises(StoreChanged):
        backfill(upgrade, live.store, midway(live, lambda: other.drop_field("new")), sample=SAMPLE, pace=PACE)
    other.close()
    for _ in range(2):
        with pytest.raises(StoreChanged, match=r"'new' of 16 dimensions.*no such field.*roll back with --drop-new"):
            backfill(upgrade, live.store, live.embed, pace=PACE)
    rollback(upgrade, live.store, reason="somebody dropped the field", drop_new=True)
    after = Searcher(upgrade, live.store).search_many(asked, space=OLD, k=5, exact=True)
    assert [hits.ids for hits in after] == [hits.ids for hits in before]
    cutover(upgrade, live.store)
    assert backfill(upgrade, live.store, live.embed, pace=PACE).why == "done"
    finish(upgrade, live.store)
    assert_native(live)


def test_a_finish_looks_at_the_new_field_first(postgres: Maker, server: Server, tmp_path: Path) -> None:
    live = Live.begin(postgres, tmp_path / "upgrade", rows=ROWS)
    upgrade, table = cut_over(live), table_of(live.store)
    backfill(upgrade, live.store, live.embed, sample=SAMPLE)
    server.run(f"ALTER TABLE {table} DROP COLUMN new, ADD COLUMN new vector(5) DEFAULT '[1,2,3,4,5]'")
    for options in ({}, {"drop_old": True}, {"keep_mixed": True}):
        with pytest.raises(StoreChanged, match="now there is one of 5 dimensions"):
            finish(upgrade, live.store, **options)
    assert upgrade.state.now().stage == "backfilled"
    rollback(upgrade, live.store, reason="the field is another", drop_new=True)
    cutover(upgrade, live.store)
    assert backfill(upgrade, live.store, live.embed).why == "done"
    finish(upgrade, live.store)
    assert_native(live)


@pytest.mark.parametrize(
    ("change", "back"),
    [
        ("RENAME COLUMN old TO gone", "RENAME COLUMN gone TO old"),
        ("RENAME COLUMN new TO gone", "RENAME COLUMN gone TO new"),
        ("ALTER COLUMN new TYPE vector(5) USING NULL", "ALTER COLUMN new TYPE vector(16) USING NULL"),
    ],
)
def test_a_column_that_others_change_midway_and_change_back(
    postgres: Maker, server: Server, tmp_path: Path, change: str, back: str
) -> None:
    live = Live.begin(postgres, tmp_path / "upgrade", rows=ROWS)
    upgrade, table, column = cut_over(live), table_of(live.store), change.split()[2]
    alter = midway(live, lambda: server.run(f"ALTER TABLE {table} {change}"))
    with pytest.raises(StoreChanged):
        backfill(upgrade, live.store, alter, sample=SAMPLE, pace=PACE)
    assert "StoreChanged" in upgrade.state.now().paused
    with pytest.raises(StoreChanged, match=f"had a field '{column}' of .*Find out who changed it, and bring it back"):
        backfill(upgrade, live.store, live.embed, pace=PACE)
    server.run(f"ALTER TABLE {table} {back}")
    assert backfill(upgrade, live.store, live.embed, pace=PACE).why == "done"
    finish(upgrade, live.store)
    assert_native(live)


def test_connections_that_are_cut_midway_are_made_again(postgres: Maker, server: Server, tmp_path: Path) -> None:
    live = Live.begin(postgres, tmp_path / "upgrade", rows=ROWS)
    upgrade = cut_over(live)
    cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'crossfade'"
    assert backfill(upgrade, live.store, midway(live, lambda: server.run(cut)), sample=SAMPLE, pace=PACE).why == "done"
    assert live.embedded == ROWS
    assert_native(live)


@pytest.mark.slow
def test_a_server_that_stops_midway_and_is_started_again(tmp_path: Path) -> None:
    server = Server()
    try:
        maker = PostgreSQLMaker(tmp_path)
        maker._server = server
        live = Live.begin(maker, tmp_path / "upgrade", rows=ROWS)
        upgrade = cut_over(live)
        stop = midway(live, server._server.stop)
        with pytest.raises(Unreachable, match="Start it"):
            backfill(upgrade, live.store, stop, sample=SAMPLE, pace=PACE)
        assert "Unreachable" in upgrade.state.now().paused
        server._server.start()
        assert backfill(upgrade, live.store, live.embed, pace=PACE).why == "done"
        assert_native(live)
        maker.close()
    finally:
        server.stop()


def test_a_password_that_is_changed_midway_stands_nowhere(
    postgres: Maker,
    server: Server,
    guest: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    live = Live.begin(postgres, tmp_path / "upgrade", rows=ROWS)
    table = table_of(live.store)
    server.run(f"ALTER TABLE {table} OWNER TO guest")
    server.run("GRANT ALL ON crossfade_notes TO guest")
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    live.store = open_store(server.address(table, user=guest))
    upgrade = cut_over(live)

    def change() -> None:
        server.run(sql.SQL("ALTER ROLE guest PASSWORD {}").format(sql.Literal(CHANGED)))
        server.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'guest'")

    with pytest.raises(Unreachable, match=r"password authentication failed.*PGPASSWORD"):
        backfill(upgrade, live.store, midway(live, change), sample=SAMPLE, pace=PACE)
    assert "password authentication failed" in upgrade.state.now().paused
    said = run(capsys, monkeypatch, "upgrade", "status", live.folder, code=3)
    shown = run(capsys, monkeypatch, "upgrade", "status", live.folder, "--offline")
    history = run(capsys, monkeypatch, "upgrade", "history", live.folder)
    assert "Unreachable" in shown.out
    monkeypatch.setenv("PGPASSWORD", CHANGED)
    assert backfill(upgrade, live.store, live.embed, pace=PACE).why == "done"
    finish(upgrade, live.store)
    assert_native(live)
    live.store.close()
    everything = "".join(text for done in (said, shown, history) for text in (done.out, done.err)).encode()
    for secret in (PASSWORD, CHANGED):
        assert secret.encode() not in everything + bytes_of(live.folder)


def test_a_plan_without_a_way_in_leaves_nothing_and_repeats_no_secret(
    tmp_path: Path, server: Server, guest: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", PASSWORD + "-wrong")
    save_pretrained(fitted(), tmp_path / "adapter")
    for address, word in {
        f"postgresql://me:{PASSWORD}@shop.example/postgres?table=photos": "must hold no password",
        server.address("photos", user=guest): "password authentication failed",
        "postgresql://me@127.0.0.1:9/postgres?table=photos&connect_timeout=3": "Start it, or mend the address",
    }.items():
        given = ("--store", address, "--field", "old", "--out", tmp_path / "upgrade")
        said = run(capsys, monkeypatch, "upgrade", "plan", tmp_path / "adapter", *given, code=3)
        assert word in said.err
        assert PASSWORD not in said.out + said.err
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


def test_a_role_that_may_only_read_can_plan_and_changes_nothing(
    postgres: Maker, server: Server, guest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    owned = Live.begin(postgres, tmp_path / "upgrade", rows=ROWS)
    table = table_of(owned.store)
    server.run(f"GRANT SELECT ON {table}, crossfade_notes TO guest")
    before = owned.store.notes()
    with open_store(server.address(table, user=guest)) as reading:
        live = Live(reading, owned.contents, owned.folder)
        upgrade = live.planned()
        with pytest.raises(StoreError, match=r"permission denied.*The role needs"):
            shadow(upgrade, reading, old=queries(ASKED, OLD), new=queries(ASKED, NEW))
        assert upgrade.state.now().stage == "planned"
        assert owned.store.notes() == before
        shadow(upgrade, owned.store, old=queries(ASKED, OLD), new=queries(ASKED, NEW))
        cutover(upgrade, owned.store)
        with pytest.raises(StoreError, match="must be owner of table"):
            backfill(upgrade, reading, live.embed, sample=SAMPLE)
        assert (upgrade.state.now().stage, live.embedded) == ("cut over", 0)
        assert set(owned.store.describe().fields) == {"old"}
        assert backfill(upgrade, owned.store, owned.embed, sample=SAMPLE).why == "done"
    assert_native(owned)
