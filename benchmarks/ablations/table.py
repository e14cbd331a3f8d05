"""The tables of the ablations, from the record alone: means over seeds and old models, and paired differences."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from statistics import mean

import numpy as np

from benchmarks.ablations.experiments import COMPARED, Hits, Line, Record
from benchmarks.flickr8k_upgrade.comparing import LEVEL, RESAMPLES
from crossfade.evaluation import Bootstrap, Estimate

PAGE = Path(__file__).resolve().parents[2] / "docs" / "ablations.md"
README = Path(__file__).parent / "README.md"

REFERENCE = "reference"
OLD = "old/old"
DIRECTIONS = ("image→text", "text→image")

Run = tuple[str, int]
"""Old model and seed."""

Row = dict[str, str]


@dataclass(frozen=True)
class Sweep:
    """The experiments of a suite around the same defaults, by the same code.

    Attributes:
        suite: its name.
        settings: setting → run → line, the newest where there are several; the defaults first.
        items: digest → ids of held-out images.
    """

    suite: str
    settings: Mapping[str, Mapping[Run, Line]]
    items: Mapping[str, Sequence[str]]

    @classmethod
    def newest(cls, record: Record, suite: str) -> Sweep | None:
        """That of the last experiment of the suite; None where there is none."""
        lines = [line for line in record.experiments if line["suite"] == suite]
        if not lines:
            return None
        settings: dict[str, dict[Run, Line]] = {}
        for line in lines:
            if line["defaults"] == lines[-1]["defaults"]:
                settings.setdefault(line["setting"], {})[line["pair"], line["seed"]] = line
        return cls(suite, settings, record.items)

    def recall(self, setting: str, metric: str, *, direction: str | None = None, pair: str | None = None) -> float:
        """The mean of R@K over runs, and over directions unless one is named."""
        lines = [line for (which, _), line in self.settings[setting].items() if pair in (None, which)]
        chosen = DIRECTIONS if direction is None else (direction,)
        return mean(line["recalls"][d][metric] for line in lines for d in chosen)

    def difference(
        self,
        setting: str,
        base: Mapping[Run, Line],
        metric: str,
        *,
        of: Callable[[Hits], np.ndarray] = lambda hits: hits.both,
        pair: str | None = None,
    ) -> Estimate | None:
        """``setting`` minus ``base`` over the runs of both, with its interval; None where there are none.

        With v the shares of hits of image i in run r, both directions averaged unless ``of`` takes another::

            mean over r and i of v_ir − v°_ir

        Images are resampled, each with all the runs that it was held out in.
        """
        values, images = [], []
        for run, line in self.settings[setting].items():
            if run in base and base[run]["items"] == line["items"] and pair in (None, run[0]):
                mine, theirs = (Hits.read(x["hits"][metric], captions=x["captions"]) for x in (line, base[run]))
                values.append(of(mine) - of(theirs))
                images += list(self.items[line["items"]])
        if not values:
            return None
        one = np.concatenate(values)
        bootstrap = _bootstrap(tuple(images))
        return bootstrap.estimate(float(one.mean()), bootstrap.means(one[:, None])[:, 0])


@lru_cache(maxsize=4)
def _bootstrap(images: tuple[str, ...]) -> Bootstrap:
    """Resamples of images, drawn once for all differences over the same ones."""
    groups = np.unique(np.asarray(images), return_inverse=True)[1]
    return Bootstrap(groups, resamples=RESAMPLES, level=LEVEL, seed=0)


def ablation(sweep: Sweep, *, base: str = "default") -> list[Row]:
    """A row for each setting: means in percent, and the differences to the defaults in points."""
    defaults = sweep.settings.get(base, {})
    config = next((line["config"] for line in defaults.values() if "config" in line), {})
    rows: list[Row] = []
    shown = None
    for setting, runs in sweep.settings.items():
        line = next(iter(runs.values()))
        if setting == base:
            rows.append(_row(sweep, setting, "**defaults**", "", None))
            continue
        if line["factor"] != shown:
            shown = line["factor"]
            if shown in config and base in sweep.settings:
                rows.append(_row(sweep, base, shown, f"**{config[shown]}** (default)", None))
        rows.append(_row(sweep, setting, shown, line["value"], defaults))
    return rows


def directions(record: Record, suites: Iterable[str]) -> list[Row]:
    """Each old model and direction apart: the systems between which the ablations stand, and the defaults of the suites that
    ask the same queries.
    """
    found = Sweep.newest(record, REFERENCE)
    if found is None:
        return []
    base = found.settings[OLD]
    sweeps = [(found, name, name) for name in found.settings if name != "new/new"]
    for suite in suites:
        sweep = Sweep.newest(record, suite)
        if sweep is not None and _captions(sweep.settings.get("default", {})) == _captions(base):
            sweeps.append((sweep, "default", f"{suite}, defaults"))
    sweeps.append((found, "new/new", "new/new"))
    rows = []
    for pair in dict.fromkeys(which for which, _ in base):
        for sweep, setting, name in sweeps:
            if not any(which == pair for which, _ in sweep.settings[setting]):
                continue
            runs = sum(which == pair for which, _ in sweep.settings[setting])
            row = {"old model": pair, "system": name, "runs": str(runs)}
            sides = zip(DIRECTIONS, (lambda hits: hits.image, lambda hits: hits.text), strict=True)
            for direction, of in sides:
                for k in COMPARED:
                    metric = f"R@{k}"
                    value = sweep.recall(setting, metric, direction=direction, pair=pair)
                    row[f"{direction} {metric}"] = f"{100 * value:.1f}"
                    lead = None if name == OLD else sweep.difference(setting, base, metric, of=of, pair=pair)
                    row[f"{direction} Δ {metric}"] = _points(lead)
            rows.append(row)
    return rows


def tables(record: Record) -> dict[str, list[Row]]:
    """Title → rows, of everything recorded."""
    suites = [s for s in dict.fromkeys(line["suite"] for line in record.experiments) if s != REFERENCE]
    found = {"Between which systems": directions(record, suites)}
    for suite in suites:
        sweep = Sweep.newest(record, suite)
        assert sweep is not None
        found[suite] = ablation(sweep)
    return {title: rows for title, rows in found.items() if rows}


def show(record: Record) -> None:
    """Print the tables."""
    for title, rows in tables(record).items():
        print("\n".join(["", f"## {title}", "", *markdown(rows)]))


def page(record: Record) -> str:
    """docs/ablations.md: what README.md says, and the tables."""
    lines = ["# Ablations", "", README.read_text(encoding="utf-8").partition("\n")[2].strip(), ""]
    for title, rows in tables(record).items():
        lines += [f"## {title}", "", *_told(record, title), *markdown(rows), ""]
    return "\n".join(lines).rstrip() + "\n"


def markdown(rows: Sequence[Row]) -> list[str]:
    """Rows as a Markdown table."""
    names = list(rows[0])
    head = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    return head + ["| " + " | ".join(row.get(name, "") for name in names) + " |" for row in rows]


def _told(record: Record, suite: str) -> Iterator[str]:
    """Where the figures of a suite come from."""
    sweep = Sweep.newest(record, suite)
    if sweep is None:
        return
    lines = [line for runs in sweep.settings.values() for line in runs.values()]
    pairs, seeds = (sorted({str(line[name]) for line in lines}) for name in ("pair", "seed"))
    dates = sorted({line["date"] for line in lines})
    when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    total = sum(line["seconds"] for line in lines)
    yield (
        f"*Old models {', '.join(pairs)}; seeds {', '.join(seeds)}; {len(lines)} experiments, {total / 60:.0f} minutes, "
        f"{when}, {lines[-1]['processor']}, {lines[-1]['cores']} cores.*"
    )
    yield ""


def _captions(runs: Mapping[Run, Line]) -> set[int]:
    return {line["captions"] for line in runs.values()}


def _row(sweep: Sweep, setting: str, factor: str, value: str, defaults: Mapping[Run, Line] | None) -> Row:
    row = {"factor": factor, "value": value, "runs": str(len(sweep.settings[setting]))}
    for k in COMPARED:
        row[f"mean R@{k}"] = f"{100 * sweep.recall(setting, f'R@{k}'):.2f}"
        lead = None if defaults is None else sweep.difference(setting, defaults, f"R@{k}")
        row[f"Δ R@{k}"] = _points(lead)
    return row


def _points(estimate: Estimate | None) -> str:
    if estimate is None:
        return ""
    return f"{100 * estimate.value:+.2f} [{100 * estimate.low:+.2f}, {100 * estimate.high:+.2f}]"
