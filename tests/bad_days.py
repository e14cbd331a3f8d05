"""Upgrades on which a bad day falls: how far they have come, what happens midway, and what must be there in the end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from live import NEW, OLD, Live, expected_rows, queries, stored

from crossfade.stores import Store
from crossfade.upgrading import Pace, Upgrade, cutover, shadow

ASKED = list(range(12))
PACE, SAMPLE, ROWS = Pace(batch=10), 20, 60
MIDWAY = 40
"""Items that are encoded when something happens."""

Embed = Callable[[np.ndarray], np.ndarray]


def cut_over(live: Live) -> Upgrade:
    """Planned, shadowed and cut over."""
    upgrade = live.planned()
    shadow(upgrade, live.store, old=queries(ASKED, OLD), new=queries(ASKED, NEW))
    cutover(upgrade, live.store)
    return upgrade


def midway(live: Live, happens: Callable[[], object]) -> Embed:
    """The new model; something happens once, while it is asked for a batch."""

    def embed(ids: np.ndarray) -> np.ndarray:
        if live.embedded == MIDWAY:
            happens()
        return live.embed(ids)

    return embed


def failing(live: Live, fail: Embed) -> Embed:
    """The new model, and from midway on what it is replaced by."""
    return lambda ids: fail(ids) if live.embedded >= MIDWAY else live.embed(ids)


def assert_native(live: Live, store: Store | None = None) -> None:
    """No row is lost, none doubled, and each has both models' vectors of its content."""
    found, wanted = stored(store or live.store, "old", "new"), expected_rows(live.contents, native=True)
    assert found.ids == wanted.ids
    for field in ("old", "new"):
        assert found.vectors[field].present.all()
        np.testing.assert_allclose(found.vectors[field].values, wanted.vectors[field].values, atol=1e-6)


def bytes_of(folder: Path) -> bytes:
    """Of all files in a folder."""
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
