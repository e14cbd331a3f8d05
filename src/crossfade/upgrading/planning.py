"""The plan: what an upgrade will do, cost and bring, before anything is changed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from crossfade.artifacts import save_pretrained
from crossfade.embeddings.ids import as_ids
from crossfade.errors import ConfigError, UpgradeRefused
from crossfade.evaluation.result import Evaluation
from crossfade.files import atomic_folder, write_json
from crossfade.methods.base import Adapter
from crossfade.spaces import Modality, require_same
from crossfade.stores import Id, Store
from crossfade.two_stage.items import Embed, embed_all
from crossfade.upgrading.state import State
from crossfade.upgrading.upgrade import ADAPTER, PLAN, Upgrade

__all__ = ["CHANGES", "Expected", "Plan", "expected_quality", "plan_upgrade"]

FLOAT_BYTES = 4
TIMED = 64
"""Rows that are encoded to tell how long all will take."""

CHANGES: Mapping[str, str] = {
    "plan": "nothing",
    "shadow": "a note beside the collection, that this upgrade has it; searches are answered as before",
    "cutover": "the pointer in the state: new queries through the adapter; no vector is written",
    "backfill": "one more vector field, filled row by row; the old field stays as it is",
    "finish": "the pointer: new queries in the new field alone; the old field is dropped only where that is asked for",
    "rollback": "the pointer: searches as before the upgrade; the new field is dropped only where that is asked for",
}
"""Step → what it changes of the collection."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What held-out queries say of one direction.

    Attributes:
        direction: such as ``text→image``.
        metric: that decides.
        before: under old/old; None where it was not measured. Value, low and high.
        after: under mapped/old.
        full: under new/new.
        outcome: compatible, not compatible or undecided.
    """

    direction: str
    metric: str
    before: tuple[float, float, float] | None
    after: tuple[float, float, float] | None
    full: tuple[float, float, float] | None
    outcome: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What an upgrade will do.

    Attributes:
        rows: of the collection.
        encoded_before_cutover: items that must be encoded before searches are better: none.
        encoded_by_backfill: items that backfilling all rows encodes.
        seconds: that this takes, by a timed sample; None where nothing was timed.
        money: that it costs; None where no price was given.
        bytes: of vectors that it adds.
        quality: what held-out queries say, a line a direction; empty where nothing was evaluated.
        allowed: whether this lets the cutover pass.
        backfill: whether the store can hold a second vector field.
        changes: step → what it changes.
    """

    rows: int
    encoded_before_cutover: int
    encoded_by_backfill: int
    seconds: float | None
    money: float | None
    bytes: int
    quality: tuple[Expected, ...]
    allowed: bool
    backfill: bool
    changes: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def plan_upgrade(
    store: Store,
    adapter: Adapter,
    *,
    out: str | Path,
    field: str,
    new_field: str | None = None,
    evaluation: Evaluation | None = None,
    embed: Embed | None = None,
    price: float | None = None,
) -> Plan:
    """Plan an upgrade; nothing of the collection is changed.

    Args:
        store: the collection; its field must be registered.
        adapter: from the new model's space to the field's.
        out: a new folder, which the later steps and the searchers are given.
        field: the vector field that is searched now.
        new_field: where backfilling will put native vectors; by default named after the new space.
        evaluation: of the adapter on held-out queries; the cutover is refused where it does not say ``compatible``.
        embed: ids → the new model's vectors; a few rows are encoded to tell how long backfilling takes.
        price: money an item, by the provider's price list.

    Raises:
        SpaceMismatch: the adapter does not lead to the field's space.
        ConfigError: the field was not registered, or the adapter cannot serve alone.
        StorageError: ``out`` exists.
    """
    space, modality = store.space(field), store.modality(field)
    if space is None or modality is None:
        raise ConfigError(
            f"Nothing says which space the field {field!r} of {store.address} holds. Register it: crossfade upgrade register."
        )
    require_same(adapter.target, space, what="What the adapter maps to", hint="Fit an adapter to the field's space.")
    if adapter.two_encoders or adapter.forward:
        kind = (
            "needs the old model beside the new one for each query" if adapter.two_encoders else "maps stored vectors"
        )
        raise ConfigError(
            f"An upgrade is served by an adapter of new queries alone; this one {kind}. Fit another (contrastive, ridge, "
            "procrustes), or serve it yourself."
        )
    adapter.require_modality(modality)
    if evaluation is not None and (evaluation.source, evaluation.target) != (
        adapter.source.to_dict(),
        adapter.target.to_dict(),
    ):
        raise ConfigError(
            "The evaluation is of an adapter between other spaces. Evaluate this one: crossfade evaluate."
        )
    name = new_field or f"crossfade_{adapter.source.fingerprint}"
    shape = store.describe()
    if name in shape.fields or name in shape.columns:
        raise ConfigError(f"{store.address} has a field or column {name!r} already. Name another for the new vectors.")
    rows = store.count()
    quality = () if evaluation is None else expected_quality(evaluation, modality)
    plan = Plan(
        rows=rows,
        encoded_before_cutover=0,
        encoded_by_backfill=rows,
        seconds=None if embed is None else _timed(store, embed, adapter, rows),
        money=None if price is None else price * rows,
        bytes=rows * adapter.source.dimension * FLOAT_BYTES,
        quality=quality,
        allowed=bool(quality) and all(each.outcome == "compatible" for each in quality),
        backfill=store.capabilities.second_field and store.capabilities.write,
        changes=CHANGES,
    )
    facts = {
        "id": uuid4().hex,
        "address": store.address,
        "modality": modality,
        "old_field": field,
        "new_field": name,
        "evaluation": None if evaluation is None else evaluation.to_dict(),
    }
    with atomic_folder(Path(out)) as temporary:
        save_pretrained(adapter, temporary / ADAPTER, evaluation=evaluation)
        write_json(temporary / PLAN, plan.to_dict())
        State.create(temporary, facts, metrics={"allowed": plan.allowed, "rows": rows}).close()
    return plan


def expected_quality(evaluation: Evaluation, modality: Modality) -> tuple[Expected, ...]:
    """What an evaluation says of the directions into a gallery of this modality."""

    def told(score: Any, metric: str) -> tuple[float, float, float] | None:
        if score is None:
            return None
        estimate = score.metrics[metric]
        return estimate.value, estimate.low, estimate.high

    return tuple(
        Expected(
            each.name,
            each.metric,
            told(each.scores.get("old/old"), each.metric),
            told(each.scores.get("mapped/old"), each.metric),
            told(each.scores.get("new/new"), each.metric),
            each.verdict.outcome,
        )
        for each in evaluation.directions
        if each.name.rpartition("→")[2] == modality
    )


def require_allowed(upgrade: Upgrade) -> tuple[Expected, ...]:
    """What lets an upgrade be cut over: the verdict on held-out queries.

    Raises:
        UpgradeRefused: there is none, or it does not say that the upgrade helps.
    """
    said = upgrade.state.fact("evaluation")
    quality = () if said is None else expected_quality(Evaluation.from_dict(said), upgrade.modality)
    short = [each for each in quality if each.outcome != "compatible"]
    if not quality or short:
        found = "; ".join(f"{each.direction} is {each.outcome}" for each in short) or "nothing was evaluated"
        raise UpgradeRefused(
            f"Searches are cut over where held-out queries show that they become better; {found}. Evaluate on more queries, fit "
            "a better adapter, or force it with a reason."
        )
    return quality


def _timed(store: Store, embed: Embed, adapter: Adapter, rows: int) -> float:
    """Seconds for all rows, by a few."""
    ids: list[Id] = []
    for part in store.scan(batch=TIMED):
        ids = part.ids
        break
    if not ids:
        return 0.0
    names = as_ids([str(id_) for id_ in ids])
    embed_all(embed, names[:1], adapter.source)  # what loads at the first call is no part of the pace
    started = time.perf_counter()
    embed_all(embed, names, adapter.source)
    return float(np.round((time.perf_counter() - started) / len(ids) * rows, 3))
