"""The life of an upgrade: its stages, what may follow what, and how each is searched.

::

    planned ──▶ shadowed ──▶ cut over ──▶ backfilling ──▶ backfilled ──▶ finished
                    ▲            │             │               │             │
                    │            ├─────────────┼───────────────┼── finished  │
                    │            ▼             ▼               ▼             ▼
                    └─────── rolled back ◀─────┴───────────────┴─────────────┘ (until the old field is dropped)

A stage changes nothing but a pointer: which of these a search is made in.

===========  ====================================================================================================
``old``      old queries in the old field: before the cutover, and after a rollback
``mapped``   new queries through the adapter in the old field
``mixed``    the same in rows without a native vector, new queries as they are in the others, merged
``native``   new queries as they are in the new field
===========  ====================================================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

from crossfade.errors import UpgradeRefused

__all__ = ["SERVING", "STAGES", "Serving", "Stage", "require_step"]

Stage = Literal["planned", "shadowed", "cut over", "backfilling", "backfilled", "finished", "rolled back"]
STAGES: tuple[Stage, ...] = get_args(Stage)

Serving = Literal["old", "mapped", "mixed", "native"]

SERVING: Mapping[Stage, Serving] = {
    "planned": "old",
    "shadowed": "old",
    "cut over": "mapped",
    "backfilling": "mixed",
    "backfilled": "mixed",
    "finished": "native",
    "rolled back": "old",
}
"""How a stage is searched; an upgrade that is finished without backfilling stays ``mapped``."""

NEXT: Mapping[Stage, tuple[Stage, ...]] = {
    "planned": ("shadowed", "cut over"),
    "shadowed": ("shadowed", "cut over"),
    "cut over": ("backfilling", "finished", "rolled back"),
    "backfilling": ("backfilling", "backfilled", "rolled back"),
    "backfilled": ("backfilling", "finished", "rolled back"),
    "finished": ("rolled back",),
    "rolled back": ("shadowed", "cut over"),
}


def require_step(stage: Stage, to: Stage) -> None:
    """Refuse a step that does not follow.

    Raises:
        UpgradeRefused: says what does.
    """
    if to not in NEXT[stage]:
        raise UpgradeRefused(
            f"An upgrade that is {stage} can become {', or '.join(NEXT[stage])}; {to} was asked for. See crossfade upgrade "
            "status."
        )
