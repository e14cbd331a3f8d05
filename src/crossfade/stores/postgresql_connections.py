"""Connections to a PostgreSQL server: a few that are kept, and what its errors mean.

Several threads may work at once, each on a connection of its own; more than :data:`MOST` of them wait for one another. A
kept connection that the server closed meanwhile is replaced once. Nothing of a user's data stands in an error: PostgreSQL
repeats values in an error's detail and in the messages of :data:`REPEATING`, and neither is passed on.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar, final

import psycopg
from psycopg import errors, pq
from psycopg.abc import Buffer
from psycopg.adapt import Dumper
from psycopg.conninfo import make_conninfo

from crossfade.errors import StoreChanged, StoreError, Unreachable
from crossfade.stores.postgresql_binary import Binary

__all__ = ["Connection", "Connections"]

Connection = psycopg.Connection[tuple[Any, ...]]
Result = TypeVar("Result")

MOST = 8
"""Connections that work at once for one handle, besides one for each scan."""

TRIES = 6
"""How often a write is tried that another one got in the way of."""

REPEATING = ("22003", "22007", "22008", "22021", "22P02", "22P05", "P0001")
"""States whose messages repeat a value, or may, since a trigger of the table wrote them."""

GONE = ("42P01", "42703", "3F000", "42704", "42883", "42804")
"""No such table, column, schema or type; no such operator, or a type that does not fit: a column of another type."""


@final
class Connections:
    """Connections of one handle.

    Args:
        settings: of libpq, without a password: that one comes by libpq's own ways.
        address: for errors.

    Raises:
        Unreachable: the server does not answer, or refuses the credentials.
    """

    def __init__(self, settings: Mapping[str, str], address: str) -> None:
        self._target = make_conninfo("", **settings)
        self._address = address
        self._room = threading.BoundedSemaphore(MOST)
        self._idle: list[Connection] = []
        self._inherited: list[Connection] = []
        self._process = os.getpid()
        self._release = weakref.finalize(self, _close_all, self._idle, self._process)
        self._keep(self._open())

    def read(self, work: Callable[[Connection], Result]) -> Result:
        """Let ``work`` read by a connection; done once more on a new one where the server has closed it."""
        return self._run(work, writes=False, needs="SELECT on it")

    def write(self, work: Callable[[Connection], Result], *, needs: str) -> Result:
        """Let ``work`` write in one transaction; done again where another transaction got in its way.

        Args:
            work: what to do; it may be done several times.
            needs: the rights that it needs, for an error.
        """
        return self._run(work, writes=True, needs=needs)

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """A connection of its own, in a transaction that sees one moment and may be idle as long as it wants."""
        connection = self._open()
        try:
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            connection.read_only = True
            with connection.transaction():
                connection.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
                yield connection
        except (psycopg.Error, UnicodeError) as error:
            raise translated(error, self._address, needs="SELECT on it") from None
        finally:
            connection.close()

    def close(self) -> None:
        """Close those that are idle, and the others when their work is done."""
        self._release()

    def _run(self, work: Callable[[Connection], Result], *, writes: bool, needs: str) -> Result:
        with self._room:
            replaced = False
            for tried in range(1, TRIES + 1):
                connection, kept = self._take()
                committing = False
                try:
                    if not writes:
                        return work(connection)
                    with connection.transaction():
                        result = work(connection)
                        committing = True
                    return result
                except (errors.SerializationFailure, errors.DeadlockDetected) as error:
                    if tried == TRIES:
                        raise StoreError(
                            f"{self._address}: other transactions got in the way {TRIES} times ({_state(error)}). Do it "
                            "again when less is written."
                        ) from None
                except psycopg.Error as error:
                    if connection.closed and committing:
                        raise Unreachable(
                            f"{self._address} closed the connection while a write was committed, and whether it was kept "
                            "is not known. Do it again: done twice it gives the same rows."
                        ) from None
                    if not connection.closed or not kept or replaced:
                        raise translated(error, self._address, needs=needs) from None
                    replaced = True
                    self._drop_idle()
                except UnicodeError as error:
                    raise translated(error, self._address, needs=needs) from None
                finally:
                    self._keep(connection)
            raise Unreachable(f"{self._address} closed every connection. Find out why in the server's log.")

    def _open(self) -> Connection:
        if not self._release.alive:
            raise StoreError(f"The store {self._address} was closed. Open it again.")
        try:
            connection = psycopg.connect(
                self._target, autocommit=True, prepare_threshold=None, cursor_factory=psycopg.RawCursor
            )
        except psycopg.Error as error:
            raise Unreachable(
                f"{self._address} must be a PostgreSQL server that lets this role in; found: {_line(str(error))}. Start it, "
                "or mend the address; the password comes from PGPASSWORD or ~/.pgpass."
            ) from None
        connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        connection.server_cursor_factory = psycopg.RawServerCursor
        connection.adapters.register_dumper(Binary, _BinaryDumper)
        return connection

    def _take(self) -> tuple[Connection, bool]:
        """A connection, and whether it was kept from earlier work."""
        if os.getpid() != self._process:  # in a fork the kept ones belong to the parent
            self._inherited, self._idle, self._process = self._idle, [], os.getpid()
            self._release.detach()
            self._release = weakref.finalize(self, _close_all, self._idle, self._process)
        try:
            return self._idle.pop(), True
        except IndexError:
            return self._open(), False

    def _keep(self, connection: Connection) -> None:
        ready = not connection.closed and connection.info.transaction_status == pq.TransactionStatus.IDLE
        if ready and self._release.alive:
            self._idle.append(connection)
        else:
            connection.close()

    def _drop_idle(self) -> None:
        while self._idle:
            self._idle.pop().close()


class _BinaryDumper(Dumper):
    format = pq.Format.BINARY

    def dump(self, obj: Binary) -> Buffer:
        return obj.data


def translated(error: psycopg.Error | UnicodeError, address: str, *, needs: str) -> StoreError:
    """An error of the client as one of ours.

    Args:
        error: it; its detail, which may hold values, is left out.
        address: of the collection.
        needs: the rights that were needed.
    """
    if isinstance(error, UnicodeError) or (isinstance(error, psycopg.DataError) and error.sqlstate in (None, "22021")):
        return StoreError(f"{address}: a text must be valid Unicode without null characters; one is not. Mend it.")
    state, said = error.sqlstate or "", _state(error)
    if state in GONE or (state == "22000" and "dimensions" in said):
        return StoreChanged(f"{address} is not as it was: {said}. Find out who changed it, and open it again.")
    if state == "42501":
        return StoreError(f"{address}: {said}. The role needs {needs}; the table's owner can give that.")
    if state == "25006":
        return StoreError(f"{address} takes no writes: {said}. Name the primary server, not a read-only one.")
    if state == "55P03":
        return StoreError(f"{address} is in use, and waiting for it was given up: {said}. Do it again later.")
    if state == "57014":
        return StoreError(f"{address}: {said}. Raise the role's statement_timeout, or ask for less.")
    if state[:2] in ("08", "28") or state in ("53300", "57P01", "57P02", "57P03", "25P03"):
        return Unreachable(f"{address} does not answer: {said}. Do it again when it is up.")
    if not state and isinstance(error, psycopg.OperationalError):
        return Unreachable(f"{address} does not answer: {_line(str(error))}. Do it again when it is up.")
    return StoreError(f"{address} refused: {said}. Its log says more.")


def _state(error: psycopg.Error) -> str:
    """What the server said, without values."""
    name = type(error).__name__
    if error.sqlstate is None:
        return name
    where = f" in the column {error.diag.column_name!r}" if error.diag.column_name else ""
    if error.sqlstate in REPEATING:
        return f"a value was refused ({name}){where}"
    return f"{_line(error.diag.message_primary or name)} ({name})"


def _line(text: str) -> str:
    return " ".join(text.split()).rstrip(".")


def _close_all(connections: list[Connection], process: int) -> None:
    while connections and os.getpid() == process:
        connections.pop().close()
