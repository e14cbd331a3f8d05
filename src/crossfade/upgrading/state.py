"""What is known of an upgrade, in an SQLite file beside it: durable at every moment, and shared by all its processes.

::

    facts         what the plan fixed, and settings of later stages: JSON by key
    pointer       one row: the stage, and how a search is served; a cutover and a rollback are one write to it
    transitions   every step: when, who, why, and the metrics it was allowed on; in the order of their numbers, since clocks jump
    queue         rows to be backfilled, in their order, and what became of each
    glimpses      live queries that were answered both ways: how far the answers agree, and how long they took; no query is kept
    stamps        which old vector the native vector of a row belongs to: a row changed since then is stale

The file lies on a disk of the machines that search; SQLite's locks do not work on every network file system.
"""

from __future__ import annotations

import getpass
import json
import platform
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Self, final

from crossfade.errors import FormatError, NewerFormat, StorageError, UpgradeRefused
from crossfade.stores import Id
from crossfade.upgrading.entries import Glimpse, Moment, Transition
from crossfade.upgrading.migrations import MIGRATIONS
from crossfade.upgrading.stages import SERVING, Serving, Stage, require_step

__all__ = ["FILE", "Outcome", "State"]

FILE = "state.sqlite"
WAIT = 30.0
"""Seconds that a write waits for another process's."""

CHUNK = 500
"""Ids in one statement: SQLite allows a limited number of variables."""

Outcome = Literal["", "writing", "done", "gone", "failed"]
"""What became of a queued row: nothing yet; its vector is being written, and is not to be trusted if that was cut off; it has
its vector; it was deleted meanwhile; no vector can be made of it."""


@final
class State:
    """The state of one upgrade.

    Threads have a connection each, and processes an object each.

    Args:
        folder: of the upgrade.

    Raises:
        FormatError: there is no such file, or it is none of ours.
        NewerFormat: a later Crossfade wrote it.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        if not self.path.is_file():
            raise FormatError(
                f"{folder} is no upgrade: it has no {FILE}. Check the folder's name, or make a plan first."
            )
        self._local = threading.local()
        self._opened: list[sqlite3.Connection] = []
        self._migrate()

    @classmethod
    def create(cls, folder: Path, facts: Mapping[str, Any], *, metrics: Mapping[str, Any]) -> Self:
        """A new state in the stage ``planned``.

        Args:
            folder: that holds no state yet.
            facts: what never changes, as JSON values.
            metrics: what the plan expects.
        """
        path = folder / FILE
        if path.exists():
            raise StorageError(f"{path} exists already, and nothing is overwritten unasked. Choose another folder.")
        folder.mkdir(parents=True, exist_ok=True)
        path.touch()
        state = cls(folder)
        with state._writing() as connection:
            for key, value in facts.items():
                connection.execute("INSERT INTO facts VALUES (?, ?)", (key, json.dumps(value, ensure_ascii=False)))
            connection.execute("INSERT INTO pointer (one, stage, serving) VALUES (1, 'planned', 'old')")
            state._record(connection, "plan", "planned", "planned", "", metrics)
        return state

    def close(self) -> None:
        """Close every thread's connection."""
        for connection in self._opened:
            connection.close()
        self._opened.clear()
        self._local = threading.local()

    def fact(self, key: str) -> Any:
        """What is noted under a key; None where nothing is."""
        with self._reading() as connection:
            row = connection.execute("SELECT value FROM facts WHERE key = ?", (key,)).fetchone()
        return None if row is None else json.loads(row[0])

    def note(self, key: str, value: Any) -> None:
        """Note a JSON value under a key."""
        with self._writing() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO facts VALUES (?, ?)", (key, json.dumps(value, ensure_ascii=False))
            )

    def now(self) -> Moment:
        """Where the pointer stands at this moment, whoever moved it; a few microseconds where nobody did."""
        connection = self._connection()
        try:
            version = connection.execute("PRAGMA data_version").fetchone()[0]
            known: tuple[int, int, Moment] | None = getattr(self._local, "moment", None)
            if known is not None and known[:2] == (version, connection.total_changes):
                return known[2]
            row = connection.execute("SELECT stage, serving, paused FROM pointer").fetchone()
        except sqlite3.Error as error:
            raise _translated(error, self.path) from error
        moment = Moment(row[0], row[1], row[2])
        self._local.moment = (version, connection.total_changes, moment)
        return moment

    def move(
        self,
        to: Stage,
        *,
        step: str,
        reason: str = "",
        metrics: Mapping[str, Any] | None = None,
        serving: Serving | None = None,
    ) -> Moment:
        """Move the pointer, and record the step, in one write.

        Args:
            to: the stage.
            step: the verb.
            reason: in the user's words.
            metrics: what it is allowed on, or found.
            serving: how a search is made from now on; by default as the stage is.

        Raises:
            UpgradeRefused: the stage does not follow the present one.
        """
        with self._writing() as connection:
            (stage,) = connection.execute("SELECT stage FROM pointer").fetchone()
            require_step(stage, to)
            served = serving or SERVING[to]
            connection.execute("UPDATE pointer SET stage = ?, serving = ?, paused = ''", (to, served))
            self._record(connection, step, stage, to, reason, metrics or {})
        return Moment(to, served)

    def pause(self, why: str) -> None:
        """Let backfilling stop after its batch; an empty reason lets it go on."""
        with self._writing() as connection:
            (stage,) = connection.execute("SELECT stage FROM pointer").fetchone()
            if stage != "backfilling":
                raise UpgradeRefused(
                    f"Backfilling is paused and resumed while it is under way; the upgrade is {stage}."
                )
            connection.execute("UPDATE pointer SET paused = ?", (why,))
            self._record(connection, "pause" if why else "resume", stage, stage, why, {})

    def history(self) -> list[Transition]:
        """Every step, in order."""
        with self._reading() as connection:
            rows = connection.execute("SELECT * FROM transitions ORDER BY number").fetchall()
        return [
            Transition(number, at, who, step, before, after, reason, json.loads(metrics))
            for number, at, who, step, before, after, reason, metrics in rows
        ]

    def enqueue(self, ids: Sequence[Id], *, anew: bool = False) -> None:
        """Put rows at the end of the queue, in this order; those that are queued stay where they are.

        Args:
            ids: of the rows.
            anew: also those that were dealt with before.
        """
        with self._writing() as connection:
            (last,) = connection.execute("SELECT coalesce(max(place), 0) FROM queue").fetchone()
            connection.executemany(
                "INSERT INTO queue (id, place) VALUES (?, ?) ON CONFLICT (id) DO "
                + (
                    "UPDATE SET place = excluded.place, outcome = '' WHERE outcome NOT IN ('', 'writing')"
                    if anew
                    else "NOTHING"
                ),
                ((id_, last + number) for number, id_ in enumerate(ids, start=1)),
            )

    def next(self, count: int) -> list[Id]:
        """The first rows of the queue that are not dealt with; those first whose writing was cut off."""
        asked = "SELECT id FROM queue WHERE outcome = ? ORDER BY place LIMIT ?"
        with self._reading() as connection:
            cut_off = connection.execute(asked, ("writing", count)).fetchall()
            found = cut_off or connection.execute(asked, ("", count)).fetchall()
        return [row[0] for row in found]

    def outcomes(self, ids: Sequence[Id]) -> dict[Id, Outcome]:
        """What became of those rows that are queued."""
        return self._by_id("SELECT id, outcome FROM queue", ids)

    def settle(self, outcomes: Mapping[Id, Outcome]) -> None:
        """Say what became of queued rows."""
        with self._writing() as connection:
            connection.executemany("UPDATE queue SET outcome = ? WHERE id = ?", ((o, i) for i, o in outcomes.items()))

    def settled(self, outcome: Outcome) -> list[Id]:
        """The queued rows with this outcome, in their order."""
        with self._reading() as connection:
            found = connection.execute("SELECT id FROM queue WHERE outcome = ? ORDER BY place", (outcome,)).fetchall()
        return [row[0] for row in found]

    def counts(self) -> dict[Outcome, int]:
        """How many queued rows have which outcome; ``""`` are those that wait."""
        with self._reading() as connection:
            return dict(connection.execute("SELECT outcome, count(*) FROM queue GROUP BY outcome").fetchall())

    def stamp(self, stamps: Mapping[Id, int]) -> None:
        """Note which old vector the native vector of each row belongs to."""
        with self._writing() as connection:
            connection.executemany("INSERT OR REPLACE INTO stamps VALUES (?, ?)", stamps.items())

    def mark(self, stamps: Mapping[Id, int]) -> None:
        """Say that the native vectors of queued rows are being written, and which old vectors they belong to."""
        with self._writing() as connection:
            connection.executemany("INSERT OR REPLACE INTO stamps VALUES (?, ?)", stamps.items())
            connection.executemany("UPDATE queue SET outcome = 'writing' WHERE id = ?", ((id_,) for id_ in stamps))

    def stamps(self, ids: Sequence[Id]) -> dict[Id, int]:
        """The stamps of those rows that have one."""
        return self._by_id("SELECT id, stamp FROM stamps", ids)

    def _by_id(self, selected: str, ids: Sequence[Id]) -> dict[Id, Any]:
        found: dict[Id, Any] = {}
        with self._reading() as connection:
            for start in range(0, len(ids), CHUNK):
                part = ids[start : start + CHUNK]
                marks = ",".join("?" * len(part))
                found.update(connection.execute(f"{selected} WHERE id IN ({marks})", part).fetchall())
        return found

    def glimpse(self, glimpse: Glimpse) -> None:
        """Keep what one live query showed that was answered both ways."""
        with self._writing() as connection:
            connection.execute("INSERT INTO glimpses VALUES (?, ?, ?, ?, ?)", astuple(glimpse))

    def glimpses(self) -> list[Glimpse]:
        """What live queries showed."""
        with self._reading() as connection:
            rows = connection.execute("SELECT * FROM glimpses").fetchall()
        return [Glimpse(k, agreement, bool(same), old, mapped) for k, agreement, same, old, mapped in rows]

    def _record(
        self,
        connection: sqlite3.Connection,
        step: str,
        before: str,
        after: str,
        reason: str,
        metrics: Mapping[str, Any],
    ) -> None:
        at = datetime.now(UTC).isoformat(timespec="seconds")
        values = (at, _who(), step, before, after, reason, json.dumps(metrics, ensure_ascii=False))
        connection.execute(
            "INSERT INTO transitions (at, who, step, stage_before, stage_after, reason, metrics) VALUES (?,?,?,?,?,?,?)",
            values,
        )

    def _migrate(self) -> None:
        with self._writing() as connection:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if version == 0 and tables:
                raise FormatError(f"{self.path} is an SQLite file of another program. Name the folder of an upgrade.")
            if version > len(MIGRATIONS):
                raise NewerFormat(
                    f"{self.path} has version {version}; this Crossfade reads up to {len(MIGRATIONS)}. Upgrade crossfade."
                )
            for migration in MIGRATIONS[version:]:
                for statement in migration.split(";"):
                    connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            try:
                connection = sqlite3.connect(self.path, timeout=WAIT, isolation_level=None, check_same_thread=False)
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = FULL")
            except sqlite3.Error as error:
                raise _translated(error, self.path) from error
            self._local.connection = connection
            self._opened.append(connection)
        return connection

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        try:
            yield self._connection()
        except sqlite3.Error as error:
            raise _translated(error, self.path) from error

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction: all of the block, or nothing of it."""
        connection = self._connection()
        try:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:  # a full disk has ended it already
                    connection.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise _translated(error, self.path) from error


def _translated(error: sqlite3.Error, path: Path) -> StorageError | FormatError:
    if isinstance(error, sqlite3.OperationalError):
        return StorageError(
            f"{path} could not be read or written: {error}. Nothing was changed; see to disk and permissions, and try again."
        )
    return FormatError(f"{path} is damaged or no state of an upgrade ({error}). Copy it back from a backup.")


def _who() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError, ImportError):
        user = "unknown"
    return f"{user}@{platform.node()}"
