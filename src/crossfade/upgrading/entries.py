"""What the state of an upgrade holds, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from crossfade.upgrading.stages import Serving, Stage

__all__ = ["Glimpse", "Moment", "Transition"]


@dataclass(frozen=True, slots=True)
class Moment:
    """Where the pointer stands.

    Attributes:
        stage: of the upgrade.
        serving: how a search is made.
        paused: why backfilling waits; empty where it does not.
    """

    stage: Stage
    serving: Serving
    paused: str = ""


@dataclass(frozen=True, slots=True)
class Transition:
    """One recorded step.

    Attributes:
        number: from 1, in the order in which they happened.
        at: in UTC, by the machine's clock.
        who: the user and the machine.
        step: the verb.
        before: the stage before.
        after: the stage after.
        reason: in the user's words.
        metrics: what the step was allowed on, or found.
    """

    number: int
    at: str
    who: str
    step: str
    before: Stage
    after: Stage
    reason: str
    metrics: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Glimpse:
    """One live query that was answered both ways.

    Attributes:
        k: rows that were asked for.
        agreement: |both| / k.
        same_first: whether the first row stays.
        old_seconds: of encoding and searching the old way.
        mapped_seconds: of encoding and searching through the adapter.
    """

    k: int
    agreement: float
    same_first: bool
    old_seconds: float
    mapped_seconds: float
