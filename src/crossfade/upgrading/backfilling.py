"""Backfilling: native vectors for the rows of a gallery, in batches, while it is searched and written.

A batch is killed at any moment without harm::

    read      the rows' old vectors; rows that are gone are settled as gone
    encode    the items by the new model
    mark      the rows as being written, with the stamps of the old vectors that were read, in one step
    write     the native vectors into rows that exist: none is made, nothing else of them is touched
    read      the old vectors again: where one has changed meanwhile, the item has, too; its native vector is taken back, and
              the row is queued again
    settle    the rows as done

A row that was marked and not settled is done again from its beginning. When the queue is empty the collection is swept: rows
that came meanwhile, and rows whose stamp is not that of their old vector, are queued, until a sweep finds none.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from crossfade.embeddings.ids import as_ids
from crossfade.encoding.interrupts import first_interrupt
from crossfade.encoding.progress import Meter, ProgressOption
from crossfade.errors import ConfigError, CrossfadeError, StorageError
from crossfade.stores import Id, Records, Store
from crossfade.two_stage.items import Embed, embed_all
from crossfade.upgrading.stamping import stamps_of
from crossfade.upgrading.state import Outcome

if TYPE_CHECKING:
    from crossfade.upgrading.upgrade import Upgrade

__all__ = ["Backfilled", "Pace", "Worker"]

BATCH = 256
ROUNDS = 20
"""Sweeps in one run: an application that writes faster than rows are encoded is not waited for without end."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast, and how far.

    Attributes:
        batch: rows at a time.
        rate: rows a second, at most; None: as fast as the model.
        limit: rows that are encoded in this run, at most; None: all.
    """

    batch: int = BATCH
    rate: float | None = None
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise ConfigError(f"A batch must have at least 1 row; found {self.batch}.")
        if self.rate is not None and self.rate <= 0:
            raise ConfigError(f"A rate must be positive, in rows a second; found {self.rate}.")
        if self.limit is not None and self.limit < 0:
            raise ConfigError(f"A limit must be at least 0 rows; found {self.limit}.")


@dataclass(frozen=True, slots=True)
class Backfilled:
    """What a run did.

    Attributes:
        encoded: rows whose item was encoded.
        waiting: rows that still wait.
        failed: rows of which no vector can be made, in all runs.
        why: why it stopped: ``done``, ``limit``, ``paused``, ``interrupted`` or ``overtaken``.
    """

    encoded: int
    waiting: int
    failed: int
    why: str


@final
class Worker:
    """Fills the new field.

    Args:
        upgrade: whose queue it works off.
        store: the collection.
        embed: ids → the new model's vectors (:data:`crossfade.two_stage.Embed`).
        pace: how fast.
    """

    def __init__(self, upgrade: Upgrade, store: Store, embed: Embed, pace: Pace) -> None:
        self.upgrade, self._store, self._embed, self._pace = upgrade, store, embed, pace
        self._encoded = 0

    def queue(self, *, progress: ProgressOption = False) -> Backfilled:
        """Work off the queue, until it is empty, the limit is reached, or somebody pauses it.

        Raises:
            EncoderError: the model failed; the run is paused, and what it did is kept.
            StoreError: the store did; likewise.
        """
        state = self.upgrade.state
        counts = state.counts()
        total = sum(counts.values())
        before = total - self._waiting()
        with Meter("backfilling", progress, total=total) as meter, first_interrupt(meter) as interrupted:
            started, first = time.monotonic(), self._encoded
            while True:
                why = self._stop(interrupted.is_set())
                ids = [] if why else state.next(self._next_batch())
                if why or not ids:
                    counts = state.counts()
                    return Backfilled(self._encoded, self._waiting(), counts.get("failed", 0), why or "done")
                with self._pausing():
                    self.batch(ids)
                meter.update(before + self._encoded - first, worked=self._encoded - first, skipped=0)
                self._wait(started, self._encoded - first, interrupted.wait)

    def batch(self, ids: list[Id]) -> None:
        """One batch, as the module says."""
        state, store, new = self.upgrade.state, self._store, self.upgrade.new_field
        old = self.upgrade.old_field
        rows = store.fetch(ids, fields=[old, new])
        stamps = stamps_of(rows, old)
        outcomes: dict[Id, Outcome] = {id_: "gone" for id_ in ids if id_ not in stamps}
        native = dict(zip(rows.ids, rows.vectors[new].present.tolist(), strict=True))
        known, marked = state.stamps(rows.ids), state.outcomes(rows.ids)
        fine = [i for i in rows.ids if native[i] and known.get(i) == stamps[i] and marked.get(i) != "writing"]
        outcomes |= dict.fromkeys(fine, "done")
        todo = [id_ for id_ in rows.ids if id_ not in outcomes]
        if todo:
            found = embed_all(self._embed, as_ids([str(id_) for id_ in todo]), self.upgrade.new)
            self._encoded += len(todo)
            made = [id_ for id_, able in zip(todo, found.fine.tolist(), strict=True) if able]
            failed = [id_ for id_, able in zip(todo, found.fine.tolist(), strict=True) if not able]
            state.mark({id_: stamps[id_] for id_ in todo})
            store.set_vectors(new, made, found.vectors[found.fine])
            store.set_vectors(new, [id_ for id_ in failed if native[id_]], None)
            after = stamps_of(store.fetch(made, fields=[old]), old)
            changed = [id_ for id_ in made if id_ in after and after[id_] != stamps[id_]]
            store.set_vectors(new, changed, None)
            outcomes |= dict.fromkeys(failed, "failed")
            outcomes |= {id_: "done" if id_ in after else "gone" for id_ in made}
            outcomes |= dict.fromkeys(changed, "")
        state.settle(outcomes)

    def sweep(self) -> int:
        """Queue the rows that have no native vector of their present content; how many there are."""
        found, fields = 0, [self.upgrade.old_field, self.upgrade.new_field]
        with self._pausing():
            for rows in self._store.scan(fields=fields, batch=4 * self._pace.batch):
                stale = self._stale(rows)
                self.upgrade.state.enqueue(stale, anew=True)
                found += len(stale)
        return found

    def _stale(self, rows: Records) -> list[Id]:
        """Rows whose native vector is missing or not of their present content; what cannot be encoded is not asked for again."""
        state, old, new = self.upgrade.state, self.upgrade.old_field, self.upgrade.new_field
        stamps, known, marked = stamps_of(rows, old), state.stamps(rows.ids), state.outcomes(rows.ids)
        there = dict(zip(rows.ids, rows.vectors[new].present.tolist(), strict=True))
        return [
            id_ for id_ in rows.ids if known.get(id_) != stamps[id_] or not (there[id_] or marked.get(id_) == "failed")
        ]

    def _stop(self, interrupted: bool) -> str:
        if interrupted:
            return "interrupted"
        if self._pace.limit is not None and self._encoded >= self._pace.limit:
            return "limit"
        return "paused" if self.upgrade.state.now().paused else ""

    def _next_batch(self) -> int:
        left = self._pace.batch if self._pace.limit is None else self._pace.limit - self._encoded
        return min(self._pace.batch, left)

    def _waiting(self) -> int:
        counts = self.upgrade.state.counts()
        return counts.get("", 0) + counts.get("writing", 0)

    def _wait(self, started: float, done: int, wait: Callable[[float], bool]) -> None:
        if self._pace.rate is not None:
            wait(max(0.0, done / self._pace.rate - (time.monotonic() - started)))

    @contextmanager
    def _pausing(self) -> Iterator[None]:
        """Note in the state why a run failed: another process that looks at it knows.

        Our own errors hold no secrets and are noted whole; what others raise is named alone.
        """
        try:
            yield
        except Exception as error:  # whoever makes the vectors raises what they like
            said = error if isinstance(error, CrossfadeError) else "see the error of the run that stopped"
            with suppress(StorageError):  # where the disk is full, the first error says so
                if self.upgrade.state.now().stage == "backfilling":
                    self.upgrade.state.pause(f"{type(error).__name__}: {said}")
            raise
