"""Notes beside the tables of a schema: one table of them, made with the first note.

::

    CREATE TABLE crossfade_notes (collection text, key text, text text NOT NULL, PRIMARY KEY (collection, key))

``collection`` is the name of the table that a note belongs to.
"""

from __future__ import annotations

from psycopg import errors
from psycopg.sql import SQL, Composed, Identifier

from crossfade.stores.postgresql_connections import Connection
from crossfade.stores.postgresql_table import Place

__all__ = ["NOTES", "read_notes", "write_note"]

NOTES = "crossfade_notes"


def read_notes(connection: Connection, place: Place) -> dict[str, str]:
    """The notes of a table; none where none was ever kept."""
    try:
        rows = connection.execute(_about("SELECT key, text FROM {} WHERE collection = $1", place), [place.name])
        return dict(rows.fetchall())
    except errors.UndefinedTable:
        return {}


def write_note(connection: Connection, place: Place, key: str, text: str | None) -> None:
    """Keep a note of a table, or forget it; in a transaction."""
    try:
        with connection.transaction():
            _write(connection, place, key, text)
    except errors.UndefinedTable:
        if text is not None:
            _make(connection, place)
            _write(connection, place, key, text)


def _write(connection: Connection, place: Place, key: str, text: str | None) -> None:
    if text is None:
        connection.execute(_about("DELETE FROM {} WHERE collection = $1 AND key = $2", place), [place.name, key])
        return
    statement = (
        "INSERT INTO {} (collection, key, text) VALUES ($1, $2, $3) "
        "ON CONFLICT (collection, key) DO UPDATE SET text = EXCLUDED.text"
    )
    connection.execute(_about(statement, place), [place.name, key, text])


def _make(connection: Connection, place: Place) -> None:
    try:
        with connection.transaction():
            columns = "collection text, key text, text text NOT NULL, PRIMARY KEY (collection, key)"
            connection.execute(_about(f"CREATE TABLE {{}} ({columns})", place))
    except (errors.DuplicateTable, errors.DuplicateObject, errors.UniqueViolation):
        pass  # another process made it meanwhile


def _about(statement: str, place: Place) -> Composed:
    return SQL(statement).format(Identifier(place.schema, NOTES))
