"""How error grows with the length of a chain: four versions on Flickr8k features, direct, chained and bridged adapters.

``python -m benchmarks.chain_length.run [--seeds 0 1 2] [--metric R@1] [--write]``
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

import crossfade as cf
from benchmarks.chain_length.versions import VERSIONS, train_version
from benchmarks.flickr8k_upgrade.heads import Flickr8k
from benchmarks.record import shared_data, write
from crossfade.evaluation import ModelVersion, SequenceEvaluation, evaluate_sequence
from crossfade.methods.base import Adapter, Method

Steps = dict[tuple[int, int], Adapter]

METHODS = ("procrustes", "ridge")
KINDS = ("direct", "chained", "bridged")
LAST = len(VERSIONS)


def consecutive(method: Method, train: list[list[cf.Embeddings]], seed: int) -> Steps:
    """(newer, older) → adapter of neighbouring versions, numbered from 1."""
    return {(i, i - 1): method.fit(cf.pair(train[i - 2], train[i - 1]), seed=seed) for i in range(2, LAST + 1)}


def adapters(kind: str, steps: Steps, method: Method, train: list[list[cf.Embeddings]], seed: int) -> Steps:
    """The consecutive adapters, and those of one kind over several versions (for chains there are none to add)."""
    found = dict(steps)
    if kind == "chained":
        return found
    for older in range(1, LAST - 1):
        for newer in range(older + 2, LAST + 1):
            before = found[newer - 1, older]
            old = train[older - 1] if kind == "direct" else [before.transform(part) for part in train[newer - 2]]
            found[newer, older] = method.fit(cf.pair(old, train[newer - 1]), seed=seed)
    return found


def one_seed(data: Flickr8k, seed: int, metric: str) -> dict[str, Any]:
    """Method → kind → the evaluation."""
    started = time.perf_counter()
    versions = [train_version(data, number, seed=seed) for number in range(1, LAST + 1)]
    print(f"seed {seed}: trained in {time.perf_counter() - started:.0f} s", file=sys.stderr)
    rows = {split: (data.image_rows(split), data.caption_rows(split)) for split in ("train", "test")}
    parts = {
        split: [[sets.select(chosen) for sets, chosen in zip(v, rows[split], strict=True)] for v in versions]
        for split in rows
    }
    shown = [ModelVersion(queries=part, gallery=part) for part in parts["test"]]
    relevant = cf.Relevance.from_links(data.links())
    found: dict[str, Any] = {}
    for name in METHODS:
        method = cf.METHODS[name]()
        steps = consecutive(method, parts["train"], seed)
        for kind in KINDS:
            fitted = list(adapters(kind, steps, method, parts["train"], seed).values())
            evaluated = evaluate_sequence(shown, fitted, relevant=relevant, metric=metric, seed=seed)
            found.setdefault(name, {})[kind] = evaluated
    return found


def summary(seeds: dict[int, dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a method, direction and pair of versions, then AC and AM, then the mean by the number of steps."""
    rows = []
    for name in METHODS:
        evaluations = {kind: [seeds[seed][name][kind] for seed in seeds] for kind in KINDS}
        for number, direction in enumerate(evaluations["direct"][0].directions):
            rows += _rows(name, direction.name, {k: [e.directions[number] for e in v] for k, v in evaluations.items()})
    return rows


def _rows(method: str, name: str, found: dict[str, list[Any]]) -> list[dict[str, Any]]:
    head = {"method": method, "direction": name}
    matrices = {kind: np.mean([d.matrix() for d in directions], axis=0) for kind, directions in found.items()}
    rows: list[dict[str, Any]] = []
    for older in range(1, LAST + 1):
        for newer in range(older + 1, LAST + 1):
            values = {kind: f"{100 * matrices[kind][newer - 1, older - 1]:.1f}" for kind in KINDS}
            chains = [_chain(d, newer, older) for d in found["direct"]]
            costs = {"drop": "", "cosine": ""} if chains[0] is None else _costs(chains)
            pair = f"v{newer} → v{older}"
            own = f"{100 * matrices['direct'][older - 1, older - 1]:.1f}"
            rows.append({**head, "map": pair, "steps": newer - older, "own": own, **values, **costs})
    empty = {"steps": "", "own": "", "drop": "", "cosine": ""}
    for what, field, scale in (("AC", "compatibility", 1), ("AM", "accuracy", 100)):
        values = {kind: f"{scale * mean(getattr(d, field).value for d in found[kind]):.2f}" for kind in KINDS}
        rows.append({**head, "map": what, **empty, **values})
    for place, growth in enumerate(found["direct"][0].growth):
        blank = dict.fromkeys(("own", *KINDS), "")
        costs = _costs([d.growth[place] for d in found["direct"]])
        rows.append({**head, "map": f"mean of {growth.cells}", "steps": growth.steps, **blank, **costs})
    return rows


def _chain(direction: Any, newer: int, older: int) -> Any:
    return next(cell.chain for cell in direction.cells if (cell.newer, cell.older) == (newer, older))


def _costs(measured: list[Any]) -> dict[str, str]:
    drops = [one.drop for one in measured]
    low, high = min(drop.low for drop in drops), max(drop.high for drop in drops)
    drop = f"{100 * mean(d.value for d in drops):+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"
    return {"drop": drop, "cosine": f"{mean(one.cosine.value for one in measured):.3f}"}


def show(rows: list[dict[str, Any]]) -> None:
    """Print the rows as a table."""
    widths = {name: max(len(name), *(len(str(row[name])) for row in rows)) for name in rows[0]}
    for row in [dict(zip(widths, widths, strict=True)), *rows]:
        print("  ".join(f"{row[name]!s:<{width}}" for name, width in widths.items()).rstrip())


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--metric", default="R@1")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    folder = shared_data("flickr8k-features")
    if folder is None:
        print("skipped: the folder flickr8k-features is not beside the project")
        return 0
    data = Flickr8k.open(folder)
    seeds = {seed: one_seed(data, seed, options.metric) for seed in options.seeds}
    rows = summary(seeds)
    show(rows)
    if options.write:
        config = {"seeds": options.seeds, "metric": options.metric}
        print(write(Path(__file__).parent, config, {str(s): _values(found) for s, found in seeds.items()}, table=rows))
    return 0


def _values(value: Any) -> Any:
    if isinstance(value, SequenceEvaluation):
        return _values(value.to_dict())
    if isinstance(value, dict):
        return {key: _values(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_values(inner) for inner in value]
    return round(float(value), 5) if isinstance(value, float | np.floating) else value


if __name__ == "__main__":
    sys.exit(main())
