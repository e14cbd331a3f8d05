"""An upgrade in a process of its own, which kills itself at a chosen moment: the n-th time that it touches state or store."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from live import NEW, OLD, queries, seen

from crossfade.stores import Store, open_store
from crossfade.upgrading import Pace, Upgrade, backfill, cutover, finish, shadow

ASKED = list(range(12))
PACE = Pace(batch=8)
SAMPLE = 16

TOUCHES = ("notes", "note", "add_field", "set_vectors", "fetch", "scan", "describe", "count", "search")
"""Calls of a backend before and after which a process may die; of the state it is every transaction."""


def drive(folder: Path, store: Store, contents: dict[str, int]) -> None:
    """Take an upgrade from wherever it is to its end, as a user who runs the same commands again."""
    upgrade = Upgrade.open(folder)
    if upgrade.state.now().stage == "planned":
        shadow(upgrade, store, old=queries(ASKED, OLD), new=queries(ASKED, NEW))
    if upgrade.state.now().stage == "shadowed":
        cutover(upgrade, store)
    if upgrade.state.now().stage in ("cut over", "backfilling", "backfilled"):
        assert backfill(upgrade, store, lambda ids: embedded(ids, contents), pace=PACE, sample=SAMPLE).why == "done"
    finish(upgrade, store)
    upgrade.close()


def embedded(ids: np.ndarray, contents: dict[str, int]) -> np.ndarray:
    return seen([contents[str(id_)] for id_ in ids], NEW)


def run(folder: Path, address: str, contents: Path, kill_at: int) -> None:
    """Drive an upgrade, and be killed at the ``kill_at``-th touch."""
    left = [kill_at]

    def touch() -> None:
        left[0] -= 1
        if left[0] <= 0:
            os.kill(os.getpid(), signal.SIGKILL)

    store = open_store(address)
    for name in TOUCHES:
        _wrap(store._backend, name, touch)
    from crossfade.upgrading import state

    _touch_transactions(state.State, touch)
    drive(folder, store, json.loads(contents.read_text()))


def _wrap(backend: Any, name: str, touch: Callable[[], None]) -> None:
    whole = getattr(backend, name)

    def wrapped(*given: Any) -> Any:
        touch()
        found = whole(*given)
        touch()
        return found

    setattr(backend, name, wrapped)


def _touch_transactions(kind: Any, touch: Callable[[], None]) -> None:
    """Before, inside and after each."""
    from contextlib import contextmanager

    whole = kind._writing

    @contextmanager
    def wrapped(self: Any) -> Any:
        touch()
        with whole(self) as connection:
            yield connection
            touch()
        touch()

    kind._writing = wrapped
