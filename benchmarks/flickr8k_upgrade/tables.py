"""The tables of the benchmark: quality, comparisons and the bars, from what every pair and seed measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

import numpy as np

from benchmarks.flickr8k_upgrade import systems as s
from benchmarks.flickr8k_upgrade.comparing import DIRECTIONS, closed, difference, per_image
from crossfade.evaluation import Estimate
from crossfade.two_stage import TwoStageEvaluation

DEPTHS = (1, 5, 10)
RIVALS = (s.OLD, s.PROCRUSTES, s.CENTRED, s.SLERP, s.ADAPTIVE, s.XBT, s.XBT_FOREIGN, s.TUNED, s.TUNED_PROJECTION)
"""What the contrastive bridge is compared with."""

SHARE_CLOSED = 0.5
SHARE_REACHED = 0.98
CANDIDATES = 100

Row = dict[str, Any]


@dataclass(frozen=True)
class Measured:
    """One pair of models with one seed.

    Attributes:
        rows: system → what it is.
        owners: the image of each test caption, by row.
        two_stage: map → its evaluation.
        verdicts: system → direction → outcome and difference.
    """

    rows: Mapping[str, s.System]
    owners: np.ndarray
    two_stage: Mapping[str, TwoStageEvaluation]
    verdicts: Mapping[str, Mapping[str, Any]]

    def recalls(self, name: str) -> dict[str, dict[str, float]]:
        """Direction → R@K → value, of one system."""
        ranks = self.rows[name].ranks
        return {d: {f"R@{k}": float((ranks[d] <= k).mean()) for k in DEPTHS} for d in DIRECTIONS}

    def two_stages(self) -> dict[str, dict[str, dict[str, float]]]:
        """Name of a row → direction → R@K → value, for each map and number of candidates."""
        found: dict[str, dict[str, dict[str, float]]] = {}
        for name, result in self.two_stage.items():
            for direction in result.directions:
                for size in direction.sizes:
                    row = found.setdefault(f"two-stage on {name}, N = {size.candidates}", {})
                    row[direction.name] = {f"R@{k}": size.metrics[f"R@{k}"].value for k in DEPTHS}
        return found

    def per_image(self, name: str, depth: int, directions: Sequence[str] = DIRECTIONS) -> np.ndarray:
        """See :func:`benchmarks.flickr8k_upgrade.comparing.per_image`."""
        return per_image(self.rows[name].ranks, self.owners, depth=depth, directions=directions)


Results = Mapping[str, Mapping[int, Measured]]
"""Old model → seed → what was measured."""


def quality(results: Results, *, corrected: bool = False) -> list[Row]:
    """A row for each pair and system: means over the seeds, percent.

    Args:
        results: of all pairs and seeds.
        corrected: the rows with a hubness correction, and only those.
    """
    rows = []
    for which, seeds in results.items():
        recalls = {seed: {name: m.recalls(name) for name in m.rows} | m.two_stages() for seed, m in seeds.items()}
        names = dict.fromkeys(name for found in recalls.values() for name in found)
        ordered = [*(name for name in names if name != s.NEW), s.NEW]
        ordered = [name for name in ordered if name.endswith(s.CORRECTED) == corrected]
        for name in ordered:
            cells = [found[name] for found in recalls.values() if name in found]
            row: Row = {"pair": f"{which} → new", "system": name, "encoders": _encoders(seeds, name)}
            row["seeds"] = len(cells)
            for direction in DIRECTIONS:
                for k in DEPTHS:
                    row[f"{direction} R@{k}"] = _percent(mean(c[direction][f"R@{k}"] for c in cells))
            for k in (1, 10):
                row[f"mean R@{k}"] = _percent(mean(_both(c, f"R@{k}") for c in cells))
            same = [found for found in recalls.values() if name in found]
            full = mean(_both(found[s.NEW], "R@10") for found in same)
            row["of new/new's R@10"] = _percent(mean(_both(c, "R@10") for c in cells) / full)
            rows.append(row)
    return rows


def comparisons(results: Results) -> list[Row]:
    """Paired differences of the bridge and its rivals, what it closes of the gap, verdicts, and two-stage."""
    numbers = sorted({seed for seeds in results.values() for seed in seeds})
    rows: list[Row] = []
    for which, seeds in results.items():
        head = {"pair": f"{which} → new"}
        for rival in RIVALS:
            for depth in (1, 10):
                found = bridge_minus(seeds, rival, depth)
                if found is not None:
                    rows.append({**head, "comparison": f"{s.BRIDGE} − {rival}", "metric": f"mean R@{depth}"})
                    rows[-1] |= _spread(
                        numbers, seeds, lambda part, r=rival, k=depth: bridge_minus(part, r, k), _points
                    )
        for name in _present(seeds, (s.XBT, s.BRIDGE, s.BRIDGE_FOREIGN, *s.HYBRIDS.values())):
            rows.append({**head, "comparison": f"gap closed by {name}", "metric": "mean R@10"})
            rows[-1] |= _spread(numbers, seeds, lambda part, n=name: gap_closed(part, n), _share)
        for base in dict.fromkeys(base for m in seeds.values() for base in m.two_stage):
            for size in s.SIZES:
                rows.append(
                    {**head, "comparison": f"two-stage on {base}, N = {size}, of new/new", "metric": "mean R@10"}
                )
                rows[-1] |= {
                    f"seed {n}": _share(seeds[n].two_stage[base].mean_reached[size]) for n in numbers if n in seeds
                }
                rows[-1]["all seeds"] = _share(reached(seeds, base, size))
        for name in dict.fromkeys(name for m in seeds.values() for name in m.verdicts):
            for direction in DIRECTIONS:
                rows.append({**head, "comparison": f"verdict on {name}", "metric": f"R@1 {direction}"})
                rows[-1] |= {f"seed {n}": _told(seeds[n].verdicts[name][direction]) for n in numbers if n in seeds}
                rows[-1]["all seeds"] = (
                    f"{_outcomes(seeds, name, direction)}; {_points(over_old(seeds, name, direction))}"
                )
    return rows


def bars(results: Results) -> list[Row]:
    """What the benchmark must show, what it shows, and whether that is enough."""
    rows: list[Row] = []

    def add(which: str, bar: str, shown: str, met: bool) -> None:
        rows.append({"pair": f"{which} → new", "bar": bar, "measured": shown, "met": "met" if met else "missed"})

    for which, seeds in results.items():
        for rival in RIVALS[1:]:
            found = bridge_minus(seeds, rival, 1)
            if found is not None:
                bar = f"{s.BRIDGE} − {rival}, mean R@1: above 0 with its interval"
                add(which, bar, _points(found), found.low > 0.0)
        if _present(seeds, (s.BRIDGE,)):
            share = gap_closed(seeds, s.BRIDGE)
            bar = f"{s.BRIDGE} closes {SHARE_CLOSED:.0%} of the gap in mean R@10"
            add(which, bar, _share(share), share is not None and share.value >= SHARE_CLOSED)
        if all(s.XBT in m.verdicts for m in seeds.values()):
            for direction in DIRECTIONS:
                rise = over_old(seeds, s.XBT, direction)
                bar = f"{s.XBT} − old/old, R@1 {direction}: above 0 with its interval"
                add(which, bar, f"{_points(rise)}; verdicts: {_outcomes(seeds, s.XBT, direction)}", rise.low > 0.0)
        if all(s.BRIDGE in m.two_stage for m in seeds.values()):
            share = reached(seeds, s.BRIDGE, CANDIDATES)
            bar = f"two-stage on {s.BRIDGE}, N = {CANDIDATES}, has {SHARE_REACHED:.0%} of new/new's mean R@10"
            add(which, bar, _share(share), share is not None and share.value >= SHARE_REACHED)
    return rows


def bridge_minus(seeds: Mapping[int, Measured], rival: str, depth: int) -> Estimate | None:
    """The bridge minus ``rival`` in mean R@depth, over the seeds that have both; None where none has."""
    both = [m for m in seeds.values() if {s.BRIDGE, rival} <= set(m.rows)]
    if not both:
        return None
    return difference(*([m.per_image(name, depth) for m in both] for name in (s.BRIDGE, rival)))


def over_old(seeds: Mapping[int, Measured], name: str, direction: str) -> Estimate:
    """``name`` minus old/old in R@1 of one direction, over all seeds."""
    return difference(*([m.per_image(row, 1, (direction,)) for m in seeds.values()] for row in (name, s.OLD)))


def gap_closed(seeds: Mapping[int, Measured], name: str) -> Estimate | None:
    """(``name`` − old/old) / (new/new − old/old) in mean R@10, over the seeds that have it."""
    having = [m for m in seeds.values() if name in m.rows]
    return closed(*([m.per_image(row, 10) for m in having] for row in (name, s.OLD, s.NEW))) if having else None


def reached(seeds: Mapping[int, Measured], base: str, size: int) -> Estimate | None:
    """Two-stage's mean R@10 as a share of new/new's: the mean over seeds with the widest interval of all."""
    found = [m.two_stage[base].mean_reached[size] for m in seeds.values()]
    known = [estimate for estimate in found if estimate is not None]
    if len(known) < len(found):
        return None
    return Estimate(mean(e.value for e in known), min(e.low for e in known), max(e.high for e in known))


def show(rows: Sequence[Row]) -> None:
    """Print rows as a table."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [dict(zip(names, names, strict=True)), *rows]
    widths = {name: max(len(str(line.get(name, ""))) for line in lines) for name in names}
    for line in lines:
        print("  ".join(f"{line.get(name, '')!s:<{width}}" for name, width in widths.items()).rstrip())


def _spread(
    numbers: Sequence[int],
    seeds: Mapping[int, Measured],
    measure: Callable[[Mapping[int, Measured]], Estimate | None],
    write: Callable[[Estimate | None], str],
) -> Row:
    each = {f"seed {n}": write(measure({n: seeds[n]})) if n in seeds else "" for n in numbers}
    return {**each, "all seeds": write(measure(seeds))}


def _present(seeds: Mapping[int, Measured], names: Sequence[str]) -> list[str]:
    return [name for name in names if any(name in m.rows for m in seeds.values())]


def _outcomes(seeds: Mapping[int, Measured], name: str, direction: str) -> str:
    """How many seeds came to which verdict."""
    counted = Counter(m.verdicts[name][direction]["outcome"] for m in seeds.values())
    return ", ".join(f"{outcome} {times}×" for outcome, times in sorted(counted.items()))


def _encoders(seeds: Mapping[int, Measured], name: str) -> int:
    return next((m.rows[name].encoders for m in seeds.values() if name in m.rows), 1)


def _both(recalls: Mapping[str, Mapping[str, float]], metric: str) -> float:
    return mean(recalls[direction][metric] for direction in DIRECTIONS)


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _points(estimate: Estimate | None) -> str:
    if estimate is None:
        return ""
    return f"{100 * estimate.value:+.2f} [{100 * estimate.low:+.2f}, {100 * estimate.high:+.2f}]"


def _share(estimate: Estimate | None) -> str:
    if estimate is None:
        return ""
    return f"{100 * estimate.value:.1f} % [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def _told(verdict: Mapping[str, Any]) -> str:
    value, low, high = verdict["difference"]
    return f"{verdict['outcome']}, {_points(Estimate(value, low, high))}"
