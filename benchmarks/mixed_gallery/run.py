"""A gallery while it is backfilled: R@10 of the searcher at each share, for every merge and order, beside its ends.

``python -m benchmarks.mixed_gallery.run [--seeds 0 1 2] [--pairs words sentences] [--write]``
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

import crossfade as cf
from benchmarks.flickr8k_upgrade.cache import Cache, default_folder
from benchmarks.flickr8k_upgrade.heads import OLD, Flickr8k
from benchmarks.flickr8k_upgrade.systems import fitted
from benchmarks.flickr8k_upgrade.upgrade import FULL, QUICK, Upgrade, Workplace
from benchmarks.record import shared_data, write
from crossfade.evaluation import Bootstrap, Estimate
from crossfade.evaluation.backfill import backfill_area
from crossfade.stores import MemoryBackend, Records, Store, VectorField, Vectors
from crossfade.upgrading import Pace, Searcher, backfill, cutover, plan_upgrade
from crossfade.upgrading import Upgrade as Live
from crossfade.upgrading.merging import MERGES, Merge
from crossfade.upgrading.starting import ORDERS, Order

SHARES = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
K, SAMPLE, LOGS, LOG, HELD_OUT = 10, 200, 24, 2000, 0.5
RESAMPLES, LEVEL = 2000, 0.95
TRAFFIC = ("even", "Zipf")

Found = dict[str, list[np.ndarray]]
"""Curve → for each log [shares, queries], whether the right image is among the first ten."""


@dataclass(frozen=True, eq=False)
class Task:
    """Images in a gallery; one caption of each asks, another one was logged.

    Attributes:
        old: the gallery by the old model.
        new: by the new one.
        asked: captions, by the old and by the new model.
        logged: for each log other captions of the same images, by the new model, as often as its traffic has them.
        right: [q] the row of each query's image.
        traffic: for each log [q] how often a query of its traffic is this one, by Zipf's law.
        adapter: new → old.
    """

    old: cf.Embeddings
    new: cf.Embeddings
    asked: tuple[cf.Embeddings, cf.Embeddings]
    logged: list[cf.Embeddings]
    right: np.ndarray
    traffic: list[np.ndarray]
    adapter: cf.Adapter

    @classmethod
    def of(cls, upgrade: Upgrade) -> Task:
        """Of images that neither a tower nor the adapter was fitted on: the test images, and half of the pairs' images."""
        split = upgrade.pairs.split(held_out=HELD_OUT, seed=upgrade.seed)
        adapter = fitted(upgrade, "contrastive on half of the pairs", "contrastive", pairs=split.train)
        (kept,) = (part.ids for part in split.held_out.parts if part.modality == "image")
        images = np.concatenate([kept, upgrade.old_test[0].ids])
        old, new = (sets[0].select(sets[0].locate(images)) for sets in (upgrade.old, upgrade.new))
        image_of = dict(upgrade.place.data.links())
        captions = upgrade.new[1].ids
        owner = old.locate([image_of[caption] for caption in captions.tolist()])
        _, first = np.unique(owner, return_index=True)
        first = first[1:] if owner.min() < 0 else first  # those of other images
        generator = np.random.default_rng(upgrade.seed)
        others = upgrade.new[1].select(first + 1)
        logged, traffic = [], []
        for _ in range(LOGS):
            weights = 1.0 / (1.0 + generator.permutation(len(first)))
            traffic.append(weights / weights.sum())
            drawn = generator.choice(len(first), LOG, p=traffic[-1])
            times = [f"{number}: {others.ids[place]}" for number, place in enumerate(drawn)]
            logged.append(cf.Embeddings(times, others.matrix()[drawn], others.space, "text"))
        return cls(
            old,
            new,
            (upgrade.old[1].select(first), upgrade.new[1].select(first)),
            logged,
            owner[first],
            traffic,
            adapter,
        )


def measured(task: Task, seed: int) -> tuple[Found, list[Merge]]:
    """Every curve of one upgrade, and the merges that were chosen by its own measurements.

    Only the order *queried* has a course of its own by each log; the others have that by the first.
    """
    found: Found = {}
    chosen: list[Merge] = []
    ids = task.old.ids.tolist()
    courses = [(order, log) for order in ORDERS for log in range(LOGS if order == "queried" else 1)]
    with tempfile.TemporaryDirectory() as folder:
        for order, log in courses:
            place = Path(folder) / f"{order}-{log}"
            store = Store(MemoryBackend([VectorField("old", task.old.dimension)]))
            store.upsert(Records(list(ids), {"old": Vectors.of(task.old.matrix())}))
            store.register("old", task.old.space, "image")
            plan_upgrade(store, task.adapter, out=place, field="old", new_field="new")
            live = Live.open(place)
            cutover(live, store, force="the benchmark measures it")
            for name, values in _course(task, live, store, order, log, seed).items():
                found.setdefault(name, []).append(values)
            chosen.append(live.state.fact("merge"))
            live.close()
    gallery = task.new.matrix()
    found["full re-index"] = [np.stack([_hits(_best(task.asked[1].matrix(), gallery), task)] * len(SHARES))]
    found["old model"] = [np.stack([_hits(_best(task.asked[0].matrix(), task.old.matrix()), task)] * len(SHARES))]
    return {name: each * (LOGS // len(each)) for name, each in found.items()}, chosen


def _course(task: Task, live: Live, store: Store, order: Order, log: int, seed: int) -> dict[str, np.ndarray]:
    """Backfill share by share; at each ask by the chosen merge, and at random order by every one."""
    merges: tuple[Merge | None, ...] = (None, *MERGES) if order == "random" else (None,)
    curves: dict[str, list[np.ndarray]] = {}
    n, done = len(task.old), 0
    for share in SHARES:
        wanted = round(share * n)
        while done < wanted:
            run = backfill(
                live,
                store,
                lambda ids: task.new.select(task.new.locate(ids)).matrix(),
                order=order,
                queries=task.logged[log],
                sample=SAMPLE,
                pace=Pace(batch=200, limit=wanted - done),
                seed=seed,
            )
            done += run.encoded
        for merge in merges:
            searcher = Searcher(live, store, merge=merge)
            hits = searcher.search_many(task.asked[1].matrix(), space=task.new.space, modality="text", k=K)
            name = f"order {order}" if merge is None else f"merge {merge}"
            rows = [task.old.locate(hit.ids) for hit in hits]
            curves.setdefault(name, []).append(np.asarray([r in row for r, row in zip(task.right, rows, strict=True)]))
    return {name: np.stack(values).astype(float) for name, values in curves.items()}


def _best(queries: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    best: np.ndarray = np.argpartition(-(queries @ gallery.T), K, axis=1)[:, :K]
    return best


def _hits(rows: np.ndarray, task: Task) -> np.ndarray:
    return (rows == task.right[:, None]).any(axis=1).astype(float)


def table(results: Mapping[str, Mapping[int, tuple[Task, Found, list[Merge]]]], traffic: str) -> list[dict[str, Any]]:
    """R@10 at each share, the area below, and what an order is above the random one."""
    lines = []
    for pair, seeds in results.items():
        for name in next(iter(seeds.values()))[1]:
            values, images = _pooled(seeds, name, traffic)
            line: dict[str, Any] = {"old model": pair, "curve": name}
            line |= {f"{share:.0%}": f"{100 * v:.1f}" for share, v in zip(SHARES, values.mean(axis=1), strict=True)}
            line["area"] = f"{100 * backfill_area(SHARES, values.mean(axis=1)):.1f}"
            if name.startswith("order") and name != "order random":
                other, _ = _pooled(seeds, "order random", traffic)
                line["above random"] = _points(_paired(backfill_area(SHARES, values - other), images))
            lines.append(line)
    return lines


def steps(results: Mapping[str, Mapping[int, tuple[Task, Found, list[Merge]]]]) -> list[dict[str, Any]]:
    """Is the curve of the chosen merge monotone? The difference from each share to the next, paired over queries."""
    lines = []
    for pair, seeds in results.items():
        for name in ("order random", "merge raw"):
            values, images = _pooled(seeds, name, "even")
            line: dict[str, Any] = {"old model": pair, "curve": name}
            for number, (before, after) in enumerate(pairwise(SHARES)):
                line[f"{before:.0%} → {after:.0%}"] = _points(_paired(values[number + 1] - values[number], images))
            line["chosen"] = ", ".join(sorted({merge for _, _, merges in seeds.values() for merge in merges}))
            lines.append(line)
    return lines


def _pooled(
    seeds: Mapping[int, tuple[Task, Found, list[Merge]]], name: str, traffic: str
) -> tuple[np.ndarray, np.ndarray]:
    """The queries of all seeds and logs: [shares, q] values, and the number of each query's image."""
    values, images = [], []
    for task, found, _ in seeds.values():
        for each, weights in zip(found[name], task.traffic, strict=True):
            values.append(
                each if traffic == "even" else each * weights * each.shape[1]
            )  # their mean is that of the traffic
            images.append(task.old.ids[task.right])
    return np.concatenate(values, axis=1), np.unique(np.concatenate(images), return_inverse=True)[1]


def _paired(values: np.ndarray, images: np.ndarray) -> Estimate:
    bootstrap = Bootstrap(images, resamples=RESAMPLES, level=LEVEL, seed=0)
    return bootstrap.estimate(float(values.mean()), bootstrap.means(values[:, None])[:, 0])


def _points(estimate: Estimate) -> str:
    return f"{100 * estimate.value:+.2f} [{100 * estimate.low:+.2f}, {100 * estimate.high:+.2f}]"


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--pairs", nargs="+", choices=OLD, default=list(OLD), help="which old models")
    parser.add_argument(
        "--cache", type=Path, default=default_folder(), help="where flickr8k_upgrade keeps what it trained"
    )
    parser.add_argument("--quick", action="store_true", help="hardly train: only to see that everything runs")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    folder = shared_data("flickr8k-features")
    if folder is None:
        print("skipped: the folder flickr8k-features is not beside the project")
        return 0
    if options.write and options.quick:
        parser.error("--write records whole runs; leave out --quick")
    place = Workplace(Flickr8k.open(folder), None, Cache(options.cache), QUICK if options.quick else FULL)
    results: dict[str, dict[int, tuple[Task, Found, list[Merge]]]] = {}
    for pair in options.pairs:
        for seed in options.seeds:
            task = Task.of(Upgrade(place, pair, seed))
            results.setdefault(pair, {})[seed] = (task, *measured(task, seed))
            print(
                f"{pair}, seed {seed}: {len(task.old)} images, merges {results[pair][seed][2]}",
                file=sys.stderr,
                flush=True,
            )
    found = {f"R@{K}, {traffic} traffic": table(results, traffic) for traffic in TRAFFIC}
    found["from share to share"] = steps(results)
    for title, lines in found.items():
        print(f"\n{title}")
        names = list(dict.fromkeys(name for line in lines for name in line))
        widths = {name: max(len(name), *(len(str(line.get(name, ""))) for line in lines)) for name in names}
        for line in [dict(zip(names, names, strict=True)), *lines]:
            print("  ".join(f"{line.get(name, '')!s:<{width}}" for name, width in widths.items()).rstrip())
    if options.write:
        plain = {
            pair: {
                str(seed): {
                    "merges": merges,
                    "images": len(task.old),
                    **{
                        name: [round(mean(row), 5) for row in np.mean(values, axis=0).tolist()]
                        for name, values in curves.items()
                    },
                }
                for seed, (task, curves, merges) in seeds.items()
            }
            for pair, seeds in results.items()
        }
        print(write(Path(__file__).parent, {"seeds": options.seeds, "pairs": options.pairs}, plain, table=found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
