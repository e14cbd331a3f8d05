"""The rows of the benchmark: what is searched with what, and where each query's first right answer stands."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import numpy as np

import crossfade as cf
from benchmarks.flickr8k_upgrade.cache import code_of, digest
from benchmarks.flickr8k_upgrade.comparing import DIRECTIONS
from benchmarks.flickr8k_upgrade.tuned import tuned
from benchmarks.flickr8k_upgrade.upgrade import Upgrade
from crossfade.evaluation import CSLS, Correction, measure
from crossfade.methods.base import Adapter, Method
from crossfade.methods.slerp import Slerp, SlerpAdapter
from crossfade.two_stage import TwoStageEvaluation, evaluate_two_stage

GROUPS = ("maps", "xbt", "tuned", "bridge", "hybrid", "two-stage", "hubness")
SIZES = (20, 50, 100, 200)

OLD, NEW = "old/old", "new/new"
PROCRUSTES, CENTRED = "procrustes", "procrustes center=modality"
SLERP, ADAPTIVE = "slerp", "slerp weighting=adaptive"
XBT, XBT_FOREIGN = "xbt stage 1, the pairs' captions", "xbt stage 1, COCO captions"
TUNED, TUNED_PROJECTION = "xbt stages 1+2, LoRA in MiniLM", "xbt stages 1+2, LoRA in MiniLM and φ"
BRIDGE, BRIDGE_FOREIGN = "contrastive", "contrastive, COCO captions as queries"
HYBRIDS = {"fixed": "slerp on contrastive", "adaptive": "slerp on contrastive weighting=adaptive"}

CORRECTED = ", CSLS"
"""The end of the names of rows with a hubness correction."""

WEIGHED_ON = 0.2
"""The share of the pairs that the weights of SLERP on the bridge are chosen on: :class:`Slerp`'s own."""

Ranks = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class System:
    """One row.

    Attributes:
        name: as the tables show it.
        encoders: models that a query runs.
        ranks: direction → rank, from 1, of the first right answer of each test query.
    """

    name: str
    encoders: int
    ranks: Ranks


def systems(upgrade: Upgrade, groups: Sequence[str], *, with_tuning: bool) -> Iterator[System]:
    """Every row of these groups, old/old first and new/new last.

    Args:
        upgrade: the models.
        groups: among :data:`GROUPS`; two-stage has no ranks, see :func:`two_stage`.
        with_tuning: whether this pair and seed are among those that stage 2 of XBT is run for.
    """
    yield System(OLD, 1, ranks(upgrade, upgrade.old_test, upgrade.old_test))
    if "maps" in groups:
        for name in _maps():
            for options in cf.METHODS[name].variants:
                label = " ".join([name, *(f"{key}={value}" for key, value in options.items())])
                yield _row(upgrade, label, fitted(upgrade, label, name, **options))
    if "xbt" in groups:
        for label, adapter in _projections(upgrade):
            yield _row(upgrade, label, adapter)
    if "tuned" in groups and with_tuning and upgrade.place.minilm is not None:
        for label, trains in ((TUNED, False), (TUNED_PROJECTION, True)):
            found = tuned(upgrade, _projection(upgrade), train_projection=trains)
            yield System(label, 1, ranks(upgrade, found, upgrade.old_test))
    if "bridge" in groups:
        yield _row(upgrade, BRIDGE, bridge(upgrade))
        if (pairs := upgrade.pairs_with_queries) is not None:
            yield _row(upgrade, BRIDGE_FOREIGN, fitted(upgrade, BRIDGE_FOREIGN, "contrastive", pairs=pairs))
    if "hybrid" in groups:
        for label, adapter in hybrids(upgrade):
            yield _row(upgrade, label, adapter)
    if "hubness" in groups:
        yield from _corrected(upgrade)
    yield System(NEW, 1, ranks(upgrade, upgrade.new_test, upgrade.new_test))


def fitted(upgrade: Upgrade, label: str, name: str, *, pairs: cf.Pairs | None = None, **options: Any) -> Adapter:
    """A method fitted on the upgrade's pairs or on others, now or in an earlier run."""
    method = upgrade.place.effort.method(name, **options)
    given = upgrade.pairs if pairs is None else pairs
    key = {
        "upgrade": upgrade.key,
        "method": name,
        "config": method.config(),
        "code": code_of(*_files(method)),
        "pairs": digest([part.ids.tolist() for part in given.parts]),
        "queries": digest([queries.ids.tolist() for queries in given.queries]),
    }
    return upgrade.place.cache.adapter(f"{upgrade.name}/{label}", key, lambda: method.fit(given, seed=upgrade.seed))


def bridge(upgrade: Upgrade) -> Adapter:
    """The contrastive bridge on all pairs."""
    return fitted(upgrade, BRIDGE, "contrastive")


def hybrids(upgrade: Upgrade) -> Iterator[tuple[str, SlerpAdapter]]:
    """SLERP on the bridge: weights chosen with a bridge of four fifths of the pairs on the rest, as ``Slerp`` does with
    ``base="contrastive"``, then put on the bridge of all pairs.
    """
    split = upgrade.pairs.split(held_out=WEIGHED_ON, seed=upgrade.seed)
    partial = fitted(upgrade, f"{BRIDGE}, to weigh by", "contrastive", pairs=split.train)
    for weighting, label in HYBRIDS.items():
        chosen = Slerp(weighting=weighting).around(partial, split.held_out)  # type: ignore[arg-type]
        yield label, SlerpAdapter(inner=bridge(upgrade), weights=chosen.weights)


def two_stage(upgrade: Upgrade) -> Iterator[tuple[str, TwoStageEvaluation]]:
    """Two-stage retrieval on Procrustes and on the bridge, at every number of candidates."""
    for name, adapter in ((PROCRUSTES, fitted(upgrade, PROCRUSTES, "procrustes")), (BRIDGE, bridge(upgrade))):
        yield (
            name,
            evaluate_two_stage(
                adapter,
                queries=upgrade.new_test,
                gallery=upgrade.old_test,
                new_gallery=upgrade.new_test,
                relevant=upgrade.relevant,
                sizes=SIZES,
                old_queries=upgrade.old_test,
                seed=upgrade.seed,
            ),
        )


def verdicts(upgrade: Upgrade, groups: Sequence[str]) -> dict[str, dict[str, Any]]:
    """System → direction → the verdict of :func:`crossfade.evaluate` and its paired difference in R@1."""
    judged = list(_projections(upgrade)) if "xbt" in groups else []
    judged += [(BRIDGE, bridge(upgrade))] if "bridge" in groups else []
    found: dict[str, dict[str, Any]] = {}
    for name, adapter in judged:
        result = cf.evaluate(
            adapter,
            queries=upgrade.new_test,
            gallery=upgrade.old_test,
            relevant=upgrade.relevant,
            old_queries=upgrade.old_test,
            metric="R@1",
            seed=upgrade.seed,
        )
        for warning in result.warnings:
            print(f"{upgrade.name}, {name}: {warning}", file=sys.stderr)
        found[name] = {d.name: _verdict(d.verdict) for d in result.directions}
    return found


def ranks(
    upgrade: Upgrade,
    queries: Sequence[cf.Embeddings],
    gallery: Sequence[cf.Embeddings],
    corrections: Mapping[str, Correction] | None = None,
) -> dict[str, np.ndarray]:
    """Direction → rank, from 1, of the first right answer of each query, images first and then texts."""
    found = {}
    for direction, asked, stored in zip(DIRECTIONS, queries, reversed(gallery), strict=True):
        judgements = upgrade.relevant.judge(asked, stored)
        assert judgements is not None
        correction = (corrections or {}).get(direction)
        found[direction] = measure(asked, stored, judgements, metrics=("R@1",), correction=correction).first
    return found


def _row(upgrade: Upgrade, label: str, adapter: Adapter) -> System:
    return System(label, 1 + adapter.two_encoders, ranks(upgrade, upgrade.mapped(adapter), upgrade.old_test))


def _maps() -> list[str]:
    return [name for name in cf.METHODS if name not in ("identity", "xbt", "contrastive")]


def _projection(upgrade: Upgrade) -> Adapter:
    return fitted(upgrade, XBT, "xbt")


def _projections(upgrade: Upgrade) -> Iterator[tuple[str, Adapter]]:
    yield XBT, _projection(upgrade)
    if upgrade.foreign is not None:
        yield XBT_FOREIGN, fitted(upgrade, XBT_FOREIGN, "xbt", pairs=upgrade.foreign)


def _corrected(upgrade: Upgrade) -> Iterator[System]:
    """CSLS by a bank of the pairs' captions and images, for old/old and new/new as for the maps."""
    old = [part.target for part in upgrade.pairs.parts]
    new = [part.source for part in upgrade.pairs.parts]
    plans = [(OLD, upgrade.old_test, old, upgrade.old_test)]
    for name, adapter in ((PROCRUSTES, fitted(upgrade, PROCRUSTES, "procrustes")), (BRIDGE, bridge(upgrade))):
        plans.append((name, upgrade.mapped(adapter), [adapter.transform(part) for part in new], upgrade.old_test))
    plans.append((NEW, upgrade.new_test, new, upgrade.new_test))
    for name, queries, bank, gallery in plans:
        corrections = {
            direction: CSLS().correction(stored, logged)
            for direction, logged, stored in zip(DIRECTIONS, bank, reversed(gallery), strict=True)
        }
        yield System(name + CORRECTED, 1, ranks(upgrade, queries, gallery, corrections))


def _verdict(verdict: Any) -> dict[str, Any]:
    difference = verdict.difference
    return {"outcome": verdict.outcome, "difference": [difference.value, difference.low, difference.high]}


def _files(method: Method) -> list[ModuleType]:
    """The modules that hold a method: its own, its training task's, and those of the package that they are built from."""
    names = {type(method).__module__}
    if isinstance(method, Slerp):
        names.add(cf.METHODS[method.base].__module__)
    names |= {task for name in names if find_spec(task := f"{name}_task")}
    found: dict[str, ModuleType] = {}
    while names:
        found |= {name: import_module(name) for name in names}
        used = {getattr(value, "__module__", None) for name in names for value in vars(found[name]).values()}
        names = {name for name in used if isinstance(name, str) and name.startswith("crossfade.methods.")} - {*found}
    return [found[name] for name in sorted(found)]
