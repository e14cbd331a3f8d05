"""A real cross-modal upgrade on Flickr8k features: every map, XBT, the contrastive bridge, SLERP and two-stage retrieval.

``python -m benchmarks.flickr8k_upgrade.run [--seeds 0 1 2] [--pairs words sentences] [--only GROUP …] [--write]``

The protocol stands in README.md. What is trained is kept in ``--cache``: a run that was killed goes on, and the same run
again only measures.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.flickr8k_upgrade.cache import Cache, default_folder
from benchmarks.flickr8k_upgrade.heads import OLD, Flickr8k
from benchmarks.flickr8k_upgrade.systems import GROUPS, systems, two_stage, verdicts
from benchmarks.flickr8k_upgrade.tables import Measured, Results, bars, comparisons, quality, show
from benchmarks.flickr8k_upgrade.upgrade import FULL, QUICK, Upgrade, Workplace
from benchmarks.record import shared_data, write


def measured(upgrade: Upgrade, groups: list[str], *, with_tuning: bool) -> Measured:
    """Everything that these groups ask of one upgrade."""
    rows = {}
    for system in systems(upgrade, groups, with_tuning=with_tuning):
        rows[system.name] = system
        recalls = ", ".join(f"{name} {100 * (found <= 1).mean():.1f}" for name, found in system.ranks.items())
        print(f"{upgrade.name}: {system.name}: R@1 {recalls}", file=sys.stderr, flush=True)
    images, texts = upgrade.old_test
    image_of = dict(upgrade.place.data.links())
    owners = images.locate([image_of[text] for text in texts.ids.tolist()])
    stages = dict(two_stage(upgrade)) if "two-stage" in groups else {}
    return Measured(rows, owners, stages, verdicts(upgrade, groups))


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--pairs", nargs="+", choices=OLD, default=list(OLD), help="which old models")
    parser.add_argument("--only", nargs="+", choices=GROUPS, default=list(GROUPS), help="which rows")
    parser.add_argument("--tuning-seeds", type=int, nargs="*", default=[0], help="seeds of XBT's second stage")
    parser.add_argument("--tuning-pairs", nargs="*", choices=OLD, default=["words"], help="its old models")
    parser.add_argument("--cache", type=Path, default=default_folder(), help="a folder outside the repository")
    parser.add_argument("--quick", action="store_true", help="hardly train: only to see that everything runs")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    if options.write and (options.quick or set(options.only) != set(GROUPS)):
        parser.error("--write records whole runs; leave out --quick and --only")
    folder, foreign = shared_data("flickr8k-features"), shared_data("coco-captions")
    if folder is None:
        print("skipped: the folder flickr8k-features is not beside the project")
        return 0
    effort = QUICK if options.quick else FULL
    corpus = None if foreign is None else foreign / "captions.txt"
    place = Workplace(Flickr8k.open(folder), corpus, Cache(options.cache), effort)
    results: dict[str, dict[int, Measured]] = {}
    for which in options.pairs:
        for seed in options.seeds:
            tuning = which in options.tuning_pairs and seed in options.tuning_seeds
            upgrade = Upgrade(place, which, seed)
            results.setdefault(which, {})[seed] = measured(upgrade, options.only, with_tuning=tuning)
    tables = {
        "Quality": quality(results),
        "With a hubness correction": quality(results, corrected=True),
        "Comparisons": comparisons(results),
        "Bars": bars(results),
    }
    tables = {title: rows for title, rows in tables.items() if rows}
    for title, rows in tables.items():
        print(f"\n{title}")
        show(rows)
    if options.write:
        names = ("seeds", "pairs", "tuning_seeds", "tuning_pairs")
        config = {name: getattr(options, name) for name in names}
        print(write(Path(__file__).parent, config, values(results), table=tables))
    return 0


def values(results: Results) -> dict[str, Any]:
    """Old model → seed → recalls, verdicts and the cost of two-stage, rounded."""
    return {
        which: {
            str(seed): {
                "recalls": _rounded({name: m.recalls(name) for name in m.rows} | m.two_stages()),
                "verdicts": _rounded(m.verdicts),
                "two-stage": _rounded({name: _cost(result) for name, result in m.two_stage.items()}),
            }
            for seed, m in seeds.items()
        }
        for which, seeds in results.items()
    }


def _cost(result: Any) -> dict[str, Any]:
    return {
        f"{direction.name} N = {size.candidates}": {
            "recalled": asdict(size.recalled),
            "saved": size.saved,
            "uniform": dict(size.uniform),
            "zipf": dict(size.zipf),
        }
        for direction in result.directions
        for size in direction.sizes
    }


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _rounded(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(inner) for inner in value]
    return round(value, 5) if isinstance(value, float) else value


if __name__ == "__main__":
    sys.exit(main())
