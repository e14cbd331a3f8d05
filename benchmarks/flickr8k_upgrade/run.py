"""A real cross-modal upgrade on Flickr8k features: every method, the whole matrix, three seeds.

``python -m benchmarks.flickr8k_upgrade.run [--seeds 0 1 2] [--write]``

Pairs are the training split's images and captions; the 1,000 test images and their 5,000 captions are judged on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

import crossfade as cf
from benchmarks.flickr8k_upgrade.heads import Flickr8k, train
from benchmarks.record import shared_data, write
from crossfade.methods.base import Method

DIRECTIONS = ("image→text", "text→image")
METRICS = ("R@1", "R@5", "R@10")


def candidates() -> Iterator[tuple[str, Method]]:
    """Every registered method that does not need equal dimensions, with its variants."""
    for name in cf.METHODS:
        if name == "identity":
            continue
        method = cf.METHODS[name]
        for options in method.variants:
            yield " ".join([name, *(f"{key}={value}" for key, value in options.items())]), method(**options)


def one_seed(data: Flickr8k, seed: int) -> dict[str, Any]:
    """Row name → direction → metric → [value, low, high]; and the verdicts."""
    old, new = train(data, which="old", seed=seed), train(data, which="new", seed=seed)
    rows = {split: (data.image_rows(split), data.caption_rows(split)) for split in ("train", "test")}
    links = data.links()
    parts = {
        (side, split): [sets.select(chosen) for sets, chosen in zip(vectors, rows[split], strict=True)]
        for side, vectors in (("old", old), ("new", new))
        for split in rows
    }
    known = {str(data.captions[row]["id"]) for row in rows["train"][1]}
    pairs = cf.pair(parts["old", "train"], parts["new", "train"], links=[link for link in links if link[0] in known])
    table: dict[str, Any] = {}
    for name, method in candidates():
        result = cf.evaluate(
            method.fit(pairs, seed=seed),
            queries=parts["new", "test"],
            gallery=parts["old", "test"],
            relevant=cf.Relevance.from_links(links),
            old_queries=parts["old", "test"],
            new_gallery=parts["new", "test"],
            seed=seed,
        )
        for direction in result.directions:
            shown = {name: "mapped/old", "old/old": "old/old", "new/new": "new/new"}
            for row, system in shown.items():
                metrics = direction.scores[system].metrics
                cell = table.setdefault(row, {}).setdefault(direction.name, {})
                cell.update({m: [metrics[m].value, metrics[m].low, metrics[m].high] for m in METRICS})
            table[name][direction.name]["verdict"] = direction.verdict.outcome
            difference = direction.verdict.difference
            table[name][direction.name]["difference"] = [difference.value, difference.low, difference.high]
            table[name][direction.name]["gain"] = direction.gain.value if direction.gain else None
    return table


def summary(seeds: dict[int, dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a direction and system: means over seeds in percent; the difference with the widest interval of all seeds."""
    first = next(iter(seeds.values()))
    order = ["old/old", *(row for row in first if row not in ("old/old", "new/new")), "new/new"]
    rows = []
    for direction in DIRECTIONS:
        for name in order:
            cells = [table[name][direction] for table in seeds.values()]
            row: dict[str, Any] = {"direction": direction, "system": name}
            row.update({metric: f"{100 * mean(cell[metric][0] for cell in cells):.1f}" for metric in METRICS})
            if "difference" in cells[0]:
                low, high = min(c["difference"][1] for c in cells), max(c["difference"][2] for c in cells)
                delta = mean(c["difference"][0] for c in cells)
                row["Δ R@1 to old/old"] = f"{100 * delta:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"
                row["verdicts"] = ", ".join(sorted({c["verdict"] for c in cells}))
            else:
                row.update({"Δ R@1 to old/old": "", "verdicts": ""})
            rows.append(row)
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    """Print the rows as a table."""
    widths = {name: max(len(name), *(len(str(row[name])) for row in rows)) for name in rows[0]}
    for row in [dict(zip(widths, widths, strict=True)), *rows]:
        print("  ".join(f"{row[name]!s:<{width}}" for name, width in widths.items()).rstrip())


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    folder = shared_data("flickr8k-features")
    if folder is None:
        print("skipped: the folder flickr8k-features is not beside the project")
        return 0
    data = Flickr8k.open(folder)
    seeds = {}
    for seed in options.seeds:
        seeds[seed] = one_seed(data, seed)
        print(f"seed {seed} done", file=sys.stderr)
    rows = summary(seeds)
    show(rows)
    if options.write:
        rounded = {str(seed): _rounded(table) for seed, table in seeds.items()}
        print(write(Path(__file__).parent, {"seeds": options.seeds}, rounded, table=rows))
    return 0


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_rounded(inner) for inner in value]
    return round(float(value), 5) if isinstance(value, float | np.floating) else value


if __name__ == "__main__":
    sys.exit(main())
