"""The tables and bars of the benchmark, from what every upgrade and seed measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any, NamedTuple

import numpy as np

from benchmarks.compatible_training.rows import METRICS, OLD_MODEL, Row, System
from benchmarks.compatible_training.settings import BCT, BT2, CHOSEN, INDEPENDENT, OCA, POST_HOC
from crossfade.evaluation import Bootstrap, Estimate, SequenceEvaluation
from crossfade.evaluation.verdicts import decide

__all__ = [
    "Results",
    "Sequences",
    "Upgrade",
    "bars",
    "comparisons",
    "difference",
    "quality",
    "sequences",
    "show",
    "swept",
    "verdict",
]

JUDGED = (BT2, OCA, *dict.fromkeys(name for rows in CHOSEN.values() for name in rows))
"""The rows that bars are about."""

RESAMPLES, LEVEL = 2000, 0.95
DECIDES = "mAP"
SELF_BOUND = -0.01
"""What the new model may lose against the independent one, in mAP."""


class Upgrade(NamedTuple):
    """What was upgraded to what: part of the run, data set, epochs."""

    part: str
    data: str
    epochs: int

    def __str__(self) -> str:
        return f"{self.part}, {self.data}, {self.epochs} epochs"


Seeds = Mapping[int, Mapping[str, Row]]
"""Seed → row → what was measured."""

Results = Mapping[Upgrade, Seeds]

Sequences = Mapping[tuple[str, int], SequenceEvaluation]
"""(Row, seed) → the matrix."""

Line = dict[str, Any]


def quality(seeds: Seeds) -> list[Line]:
    """A line for each row of an upgrade: means over the seeds that have it, percent."""
    lines = []
    own = [found[INDEPENDENT].dimension for found in seeds.values() if INDEPENDENT in found]
    for name in _names(seeds):
        rows = [found[name] for found in seeds.values() if name in found]
        line: Line = {"row": name}
        for system, title in _titles(name).items():
            for metric in METRICS:
                having = [float(r.systems[system][metric].mean()) for r in rows if system in r.systems]
                if having:
                    line[f"{title} {metric}"] = f"{100 * mean(having):.1f}"
        if name != OLD_MODEL:
            line["extra dimensions"] = rows[0].dimension - own[0] if own else ""
            line["trainings"] = rows[0].trainings
        line["CPU-s"] = f"{mean(row.seconds for row in rows):,.0f}"
        line["seeds"] = len(rows)
        lines.append(line)
    return lines


def comparisons(seeds: Seeds) -> list[Line]:
    """Paired differences: of each row's new/old to old/old, to BCT's, and of its new/new to the independent model's."""
    lines = []
    for name in _names(seeds):
        if name == OLD_MODEL:
            continue
        pairs: list[tuple[str, System, str, System]] = [("cross − old/old", "new/old", OLD_MODEL, "new/new")]
        if name in JUDGED:
            pairs.append((f"cross − {BCT} cross", "new/old", BCT, "new/old"))
        if name not in (INDEPENDENT, *POST_HOC):
            pairs.append(("self − independent self", "new/new", INDEPENDENT, "new/new"))
        for title, system, other, others in pairs:
            for metric in (DECIDES, "CMC@1"):
                line: Line = {"row": name, "difference": title, "metric": metric}
                each = {
                    seed: _between({seed: found}, name, system, other, others, metric) for seed, found in seeds.items()
                }
                line |= {f"seed {seed}": _points(one) for seed, one in each.items() if one is not None}
                whole = _between(seeds, name, system, other, others, metric)
                if whole is None:
                    continue
                line["all seeds"] = _points(whole)
                if other == OLD_MODEL and metric == DECIDES:
                    line["verdicts"] = ", ".join(sorted({verdict(found, name) for found in _having(seeds, name)}))
                lines.append(line)
    return lines


def swept(results: Results) -> list[Line]:
    """How the verdict moves with the length of the trainings and with weights: a line an upgrade and row."""
    lines = []
    for upgrade, seeds in results.items():
        for name in _names(seeds):
            found = _between(seeds, name, "new/old", OLD_MODEL, "new/new", DECIDES)
            lost = _between(seeds, name, "new/new", INDEPENDENT, "new/new", DECIDES)
            if name in (OLD_MODEL, INDEPENDENT) or found is None:
                continue
            lines.append(
                {
                    "data": upgrade.data,
                    "epochs": upgrade.epochs,
                    "row": name,
                    "cross − old/old, mAP": _points(found),
                    "self − independent self, mAP": "" if lost is None else _points(lost),
                    "verdicts": ", ".join(sorted({verdict(rows, name) for rows in _having(seeds, name)})),
                }
            )
    return lines


def bars(seeds: Seeds) -> list[Line]:
    """What the main upgrades must show, what one shows, and whether that is enough."""
    lines: list[Line] = []

    def add(bar: str, shown: str, *, met: bool) -> None:
        lines.append({"bar": bar, "measured": shown, "met": "met" if met else "missed"})

    for name in JUDGED:
        rows = _having(seeds, name)
        whole = _between(seeds, name, "new/old", OLD_MODEL, "new/new", DECIDES)
        if whole is not None:
            told = {verdict(found, name) for found in rows}
            bar = f"{name} is compatible with every seed, its interval above zero"
            add(bar, f"{', '.join(sorted(told))}; {_points(whole)}", met=told == {"compatible"} and whole.low > 0.0)
        above = _between(seeds, name, "new/old", BCT, "new/old", DECIDES)
        if above is not None:
            add(f"{name} cross − {BCT} cross: above zero with its interval", _points(above), met=above.low > 0.0)
        lost = _between(seeds, name, "new/new", INDEPENDENT, "new/new", DECIDES)
        if lost is not None:
            bar = f"{name} self − independent self: at least {100 * SELF_BOUND:.0f} point of mAP"
            add(bar, _points(lost), met=lost.value >= SELF_BOUND)
    return lines


def sequences(found: Sequences) -> list[Line]:
    """A line for each version of each sequence: its mAP on every gallery up to its own; AC and AM on the last."""
    lines = []
    for (row, seed), result in found.items():
        (direction,) = result.directions
        matrix = direction.matrix()
        for newer, name in enumerate(result.versions):
            line: Line = {"sequence by": row, "seed": seed, "queries": name}
            for older, stored in enumerate(result.versions):
                line[f"on {stored}"] = "" if older > newer else f"{100 * matrix[newer, older]:.1f}"
            if newer == len(result.versions) - 1:
                line |= {"AC": _percent(direction.compatibility), "AM": _percent(direction.accuracy)}
            lines.append(line)
    return lines


def difference(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> Estimate:
    """mean(first) − mean(second), paired over queries, with its interval.

    Args:
        first: values of one system by query, one array a seed: each query is averaged over seeds, then resampled.
        second: of another system, the same seeds and queries.
    """
    each = np.mean(first, axis=0) - np.mean(second, axis=0)
    bootstrap = _bootstrap(len(each))
    return bootstrap.estimate(float(each.mean()), bootstrap.means(each[:, None])[:, 0])


def verdict(rows: Mapping[str, Row], name: str) -> str:
    """Crossfade's verdict on one row of one seed: is new/old above old/old?"""
    old, mapped = rows[OLD_MODEL].systems["new/new"][DECIDES], rows[name].systems["new/old"][DECIDES]
    found = decide("image→image", DECIDES, old, mapped, np.arange(len(old)), _bootstrap(len(old)))
    return found.outcome


def show(lines: Sequence[Line]) -> None:
    """Print lines as a table."""
    names = list(dict.fromkeys(name for line in lines for name in line))
    printed = [dict(zip(names, names, strict=True)), *lines]
    widths = {name: max(len(str(line.get(name, ""))) for line in printed) for name in names}
    for line in printed:
        print("  ".join(f"{line.get(name, '')!s:<{width}}" for name, width in widths.items()).rstrip())


def _between(seeds: Seeds, name: str, system: System, other: str, others: System, metric: str) -> Estimate | None:
    """``name`` minus ``other`` over the seeds that have both; None where none has."""
    both = [
        (found[name].systems[system][metric], found[other].systems[others][metric])
        for found in seeds.values()
        if name in found and other in found and system in found[name].systems and others in found[other].systems
    ]
    return difference([one for one, _ in both], [two for _, two in both]) if both else None


def _having(seeds: Seeds, name: str) -> list[Mapping[str, Row]]:
    return [found for found in seeds.values() if name in found and "new/old" in found[name].systems]


def _names(seeds: Seeds) -> list[str]:
    return list(dict.fromkeys(name for found in seeds.values() for name in found))


def _titles(name: str) -> dict[System, str]:
    if name == OLD_MODEL:
        return {"new/new": "self"}
    return {"new/new": "self", "new/old": "cross", "old/new": "old/new", "text/new": "text/new"}


def _bootstrap(queries: int) -> Bootstrap:
    return Bootstrap(np.arange(queries), resamples=RESAMPLES, level=LEVEL, seed=0)


def _points(estimate: Estimate) -> str:
    return f"{100 * estimate.value:+.2f} [{100 * estimate.low:+.2f}, {100 * estimate.high:+.2f}]"


def _percent(estimate: Estimate) -> str:
    return f"{100 * estimate.value:.1f} [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"
