"""PostgreSQL with pgvector: a collection is a table.

::

    postgresql://user@host:5432/database?table=photos&id=id
    postgresql:///database?table=shop.photos&socket=/var/run/postgresql

========= ========================================================================================================
ids       a column of type text, varchar, smallint, integer, bigint or uuid that is unique and NOT NULL: ``id``; without
          the option the primary key of one column, else the column named ``id``
fields    the columns of type ``vector(n)`` or ``halfvec(n)``; each search chooses the metric
columns   the others; what is no text, number or boolean is read and written as text, and not searched by
filters   WHERE; texts are ordered by their characters, whatever the collation of the column
lacking   IS NULL
scan      one transaction that sees one moment (REPEATABLE READ), read by a cursor in the order of the ids
upsert    INSERT … ON CONFLICT DO UPDATE of every column; what is not given gets the column's default, NULL as a rule
fill      UPDATE of one column of rows that are there, which are locked in the order of their ids
notes     the table ``crossfade_notes`` in the schema of the table, made with the first note
========= ========================================================================================================

A search asks an HNSW or IVFFlat index where there is one of the field and the metric, with ``hnsw.ef_search`` raised to k
and iterative scans where pgvector has them (0.8); a query of which the index gives fewer than k rows is answered by comparing
every row. An index by cosine holds no zero vectors, so that a search by it finds none; elsewhere their score is 0.

It cannot keep the vectors of a ``halfvec`` column as they were written. The password comes by libpq's own ways: PGPASSWORD or
~/.pgpass.
"""

from __future__ import annotations

import os

from crossfade.errors import ConfigError, MissingExtra
from crossfade.stores.address import Address
from crossfade.stores.backend import Backend

__all__ = ["connect"]

CONNECT_TIMEOUT = "10"
"""Seconds; another one stands in the address, or in PGCONNECT_TIMEOUT."""


def connect(address: Address) -> Backend:
    """Open a table that exists.

    Raises:
        ConfigError: the address names no table, or the table's ids are not fit for it.
        MissingExtra: psycopg is not installed.
        Unreachable: the server does not answer, or refuses the credentials.
        StoreChanged: there is no such table.
        StoreError: the database has not the extension pgvector.
    """
    schema, name = _table_of(address)
    settings = _settings(address)
    try:
        import psycopg  # noqa: F401
    except ImportError as error:
        raise MissingExtra("psycopg", extra="stores", feature="A store in PostgreSQL") from error
    from crossfade.stores.postgresql_backend import PostgreSQLBackend
    from crossfade.stores.postgresql_connections import Connections
    from crossfade.stores.postgresql_table import Place, find_extension, find_schema

    connections = Connections(settings, address.text)
    extension = connections.read(lambda connection: find_extension(connection, address.text))
    found = schema or connections.read(lambda connection: find_schema(connection, name, address.text))
    place = Place(found, name, address.options.get("id") or None, address.text)
    return PostgreSQLBackend(connections, place, extension)


def _table_of(address: Address) -> tuple[str, str]:
    """Schema, which may be empty, and name of the table."""
    address.require_options("table", "id", "socket", "sslmode", "connect_timeout")
    schema, _, name = address.options.get("table", "").rpartition(".")
    if not name or address.fragment:
        raise ConfigError(
            f"{address.text} must name a table as ?table=name or ?table=schema.name: postgresql://host/database?table=photos."
        )
    return schema, name


def _settings(address: Address) -> dict[str, str]:
    """What libpq is told; what it is not told it takes from its own environment variables."""
    socket, timeout = address.options.get("socket", ""), address.options.get("connect_timeout", "")
    if socket and address.host:
        raise ConfigError(f"{address.text} names a host and a socket; name one of them.")
    if timeout and not timeout.isdecimal():
        raise ConfigError(f"connect_timeout must be a number of seconds; found {timeout!r} in {address.text}.")
    if not timeout and not os.environ.get("PGCONNECT_TIMEOUT"):
        timeout = CONNECT_TIMEOUT
    given = {
        "host": address.host or socket,
        "port": "" if address.port is None else str(address.port),
        "user": address.user,
        "dbname": address.path.removeprefix("/"),
        "sslmode": address.options.get("sslmode", ""),
        "connect_timeout": timeout,
        "client_encoding": "utf8",
        "fallback_application_name": "crossfade",
    }
    return {name: value for name, value in given.items() if value}
