"""The built-in encoders on the built-in glyphs: every family of methods beside each other, three seeds.

``python -m benchmarks.glyphs_upgrade.run [--seeds 0 1 2] [--images 5000] [--work FOLDER] [--write]``

Pairs are a sample of the training images and their names; unseen typefaces and unseen characters are judged on.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

import crossfade as cf
from benchmarks.record import write
from crossfade.datasets.sampling import Sampled
from crossfade.encoders import TunedEncoder
from crossfade.encoders.towers.tuning import Tuning
from crossfade.evaluation import System
from crossfade.methods import Adapter, LinearAdapter, Method, Provenance
from crossfade.training.config import TrainingConfig
from crossfade.training.tuning import XBTTuning, tune
from crossfade.two_stage import evaluate_two_stage

JUDGED = ("unseen-faces", "unseen-characters")
DIRECTIONS = ("image→text", "text→image")
METRICS = ("R@1", "R@5", "R@10")
CANDIDATES = 100

ONE_STAGE: Mapping[str, tuple[str, Method]] = {
    "procrustes": ("Procrustes", cf.methods.Procrustes()),
    "xbt": ("XBT stage 1 (names only)", cf.methods.XBT()),
    "contrastive": ("contrastive bridge", cf.methods.Contrastive()),
    "slerp": ("SLERP (two encoders)", cf.methods.Slerp()),
}
TUNED = "XBT stages 1+2"
TWO_STAGE = f"two-stage on the bridge, N={CANDIDATES}"
ORDER = ("old/old", *(label for label, _ in ONE_STAGE.values()), TUNED, TWO_STAGE, "new/new")

STAGE_2 = XBTTuning(
    tuning=Tuning(text_targets=("q_proj", "v_proj"), rank=8),
    training=TrainingConfig(epochs=3, batch=256, learning_rate=5e-4, weight_decay=0.01, patience=3),
)


@dataclass(frozen=True)
class Sides:
    """What the old and the new model made of the same items."""

    old: cf.Collection
    new: cf.Collection


@dataclass(frozen=True)
class Bench:
    """The encoders, and where vectors and adapters are kept.

    Attributes:
        old: fills the galleries.
        new: asks.
        work: the folder.
        images: how many of the training images give pairs.
    """

    old: cf.Encoder
    new: cf.Encoder
    work: Path
    images: int

    def sample(self, seed: int) -> Sampled:
        """The items of the pairs."""
        return Sampled(cf.open_dataset("glyphs:train"), self.images, seed=seed)

    def sides(self, dataset: cf.Dataset, name: str) -> Sides:
        """Both encoders' vectors, from disk where they are there."""
        folder = self.work / "vectors" / name
        return Sides(
            cf.encode_dataset(dataset, self.old, folder / "old"), cf.encode_dataset(dataset, self.new, folder / "new")
        )

    def adapter(self, name: str, pairs: cf.Pairs, seed: int) -> Adapter:
        """Fitted once for each sample, seed and set of hyper-parameters."""
        folder = self.work / f"adapters-{self.images}" / str(seed) / name
        method = ONE_STAGE[name][1]
        if folder.exists():
            known = cf.from_pretrained(folder)
            if known.provenance is not None and dict(known.provenance.config) == method.config():
                return known
        adapter = method.fit(pairs, seed=seed)
        cf.save_pretrained(adapter, folder, overwrite=True)
        return adapter

    def tuned(self, projection: Adapter, seed: int) -> TunedEncoder:
        """XBT's second stage through ``projection``; a stopped training goes on."""
        folder = self.work / f"adapters-{self.images}" / str(seed) / "tuned"
        if folder.exists():
            known = TunedEncoder.from_pretrained(folder, base=self.new)  # type: ignore[arg-type]
            same = known.adapter.tensors().items()
            if known.summary["config"] == STAGE_2.to_dict() and all(
                np.array_equal(tensor, projection.tensors()[name]) for name, tensor in same
            ):
                return known
        dataset = self.sample(seed)
        return tune(self.new, projection, dataset, STAGE_2, seed=seed, out=folder, resume=True, overwrite=True)


def one_seed(bench: Bench, seed: int) -> dict[str, Any]:
    """Split → direction → system → its figures."""
    fitted = bench.sides(bench.sample(seed), f"train-{bench.images}-{seed}")
    pairs = cf.pair(fitted.old, fitted.new)
    names = cf.pair(fitted.old.sets["text"], fitted.new.sets["text"])
    adapters = {key: bench.adapter(key, names if key == "xbt" else pairs, seed) for key in ONE_STAGE}
    tuned = bench.tuned(adapters["xbt"], seed)
    seen = set(fitted.new.sets["text"].ids.tolist())
    table: dict[str, Any] = {}
    for split in JUDGED:
        dataset = cf.open_dataset(f"glyphs:{split}")
        sides = bench.sides(dataset, split)
        asked = Sides(unseen(sides.old, seen), unseen(sides.new, seen))
        found: dict[str, Any] = {direction: {} for direction in DIRECTIONS}
        for key, (label, _) in ONE_STAGE.items():
            one_stage(found, label, adapters[key], asked, sides, new_gallery=key == "procrustes", seed=seed)
        vectors = unseen(through(tuned, dataset, sides.new), seen)
        one_stage(found, TUNED, in_place(tuned), Sides(asked.old, vectors), sides, new_gallery=False, seed=seed)
        two_stage(found, adapters["contrastive"], asked, sides, seed=seed)
        table[split] = found
    return table


def unseen(collection: cf.Collection, seen: set[str]) -> cf.Collection:
    """Names that were not fitted on, and the images that bear them."""
    fresh = {image for text, image in collection.links if text not in seen}
    chosen = {
        "text": [name not in seen for name in collection.sets["text"].ids.tolist()],
        "image": [name in fresh for name in collection.sets["image"].ids.tolist()],
    }
    sets = {modality: vectors.select(np.asarray(chosen[modality])) for modality, vectors in collection.sets.items()}
    return replace(collection, sets=sets)


def through(tuned: TunedEncoder, dataset: cf.Dataset, new: cf.Collection) -> cf.Collection:
    """The tuned encoder's vectors: texts anew; images, whose tower is untouched, from the new encoder's through φ."""
    texts = cf.encode(dataset.texts(), encoder=tuned)
    return replace(new, sets={"image": tuned.adapter.transform(new.sets["image"]), "text": texts})


def in_place(tuned: TunedEncoder) -> Adapter:
    """The identity of the old space, for vectors that already live there."""
    adapter = LinearAdapter(
        tuned.space,
        tuned.space,
        matrix=np.eye(tuned.space.dimension),
        offsets={"image": np.zeros(tuned.space.dimension), "text": np.zeros(tuned.space.dimension)},
    )
    adapter.provenance = Provenance("xbt, both stages", {}, 0, {}, tuned.fitted_on)
    return adapter


def one_stage(
    found: dict[str, Any], label: str, adapter: Adapter, asked: Sides, sides: Sides, *, new_gallery: bool, seed: int
) -> None:
    """Add an adapter's row to each direction; with ``new_gallery`` the rows old/old and new/new too."""
    result = cf.evaluate(
        adapter,
        queries=list(asked.new.sets.values()),
        gallery=list(sides.old.sets.values()),
        relevant=cf.Relevance.from_links(sides.old.links),
        old_queries=list(asked.old.sets.values()),
        new_gallery=list(sides.new.sets.values()) if new_gallery else None,
        seed=seed,
    )
    for direction in result.directions:
        rows: dict[str, System] = {label: "mapped/old"}
        rows |= {"old/old": "old/old", "new/new": "new/new"} if new_gallery else {}
        for row, system in rows.items():
            metrics = direction.scores[system].metrics
            found[direction.name][row] = {m: [metrics[m].value, metrics[m].low, metrics[m].high] for m in METRICS}
        lead = direction.verdict.difference
        assert lead is not None
        found[direction.name][label] |= {
            "difference": [lead.value, lead.low, lead.high],
            "verdict": direction.verdict.outcome,
        }


def two_stage(found: dict[str, Any], adapter: Adapter, asked: Sides, sides: Sides, *, seed: int) -> None:
    """Add the row of two-stage retrieval to each direction."""
    result = evaluate_two_stage(
        adapter,
        queries=list(asked.new.sets.values()),
        gallery=list(sides.old.sets.values()),
        new_gallery=list(sides.new.sets.values()),
        relevant=cf.Relevance.from_links(sides.old.links),
        sizes=(CANDIDATES,),
        seed=seed,
    )
    for direction in result.directions:
        (size,) = direction.sizes
        metrics = {m: [size.metrics[m].value, size.metrics[m].low, size.metrics[m].high] for m in METRICS}
        reached = size.reached["R@10"]
        share = None if reached is None else [reached.value, reached.low, reached.high]
        found[direction.name][TWO_STAGE] = metrics | {"share of new/new R@10": share, "not embedded": size.saved}


def summary(seeds: Mapping[int, dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each split, direction and system: means in percent, the difference with the widest interval of all seeds."""
    rows = []
    for split in JUDGED:
        for direction in DIRECTIONS:
            for name in ORDER:
                cells = [table[split][direction][name] for table in seeds.values()]
                row: dict[str, Any] = {"queries": split, "direction": direction, "system": name}
                row |= {metric: f"{100 * mean(cell[metric][0] for cell in cells):.1f}" for metric in METRICS}
                row |= {"Δ R@1 to old/old": "", "verdicts": ""}
                if "difference" in cells[0]:
                    value = mean(cell["difference"][0] for cell in cells)
                    low = min(cell["difference"][1] for cell in cells)
                    high = max(cell["difference"][2] for cell in cells)
                    row["Δ R@1 to old/old"] = f"{100 * value:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"
                    row["verdicts"] = ", ".join(sorted({cell["verdict"] for cell in cells}))
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
    parser.add_argument("--images", type=int, default=5000, help="training images that give pairs")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "crossfade-glyphs-upgrade")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    bench = Bench(cf.load_encoder("demo:old"), cf.load_encoder("demo:new"), options.work, options.images)
    seeds = {}
    for seed in options.seeds:
        seeds[seed] = one_seed(bench, seed)
        print(f"seed {seed} done", file=sys.stderr)
    rows = summary(seeds)
    show(rows)
    if options.write:
        config = {
            "seeds": options.seeds,
            "images": options.images,
            "methods": {key: method.config() for key, (_, method) in ONE_STAGE.items()},
            "stage 2": STAGE_2.to_dict(),
        }
        rounded = {str(seed): _rounded(table) for seed, table in seeds.items()}
        print(write(Path(__file__).parent, config, rounded, table=rows))
    return 0


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_rounded(inner) for inner in value]
    return round(float(value), 5) if isinstance(value, float | np.floating) else value


if __name__ == "__main__":
    sys.exit(main())
