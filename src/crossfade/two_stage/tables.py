"""An evaluation of two-stage retrieval as tables, in the terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from crossfade.evaluation.result import Estimate
from crossfade.reporting.formatting import count, interval, percent
from crossfade.two_stage.result import METRIC, METRICS, Recommendation, TwoStageDirection, TwoStageEvaluation

__all__ = ["print_two_stage", "two_stage_markdown", "two_stage_table"]

WIDTH = 170
"""Columns that a table takes where stdout is a file or a pipe, which has no width of its own."""

MEANINGS = {
    "old/old": "old/old (today)",
    "mapped/old": "mapped/old (one stage)",
    "new/new": "new/new (re-index)",
}


@dataclass(frozen=True, slots=True)
class _Grid:
    """A table of texts under a title, for any renderer."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def two_stage_table(evaluation: TwoStageEvaluation, recommendation: Recommendation | None = None) -> RenderableType:
    """What the command line prints: ``rich.print(two_stage_table(evaluation))``."""
    parts: list[RenderableType] = [Text(f"• {warning}", style="yellow") for warning in evaluation.warnings]
    for grid in _grids(evaluation):
        table = Table(title=grid.title, title_justify="left", box=None, pad_edge=False, header_style="dim")
        for place, name in enumerate(grid.header):
            table.add_column(name, justify="right" if place else "left", no_wrap=place == 0)
        for row in grid.rows:
            table.add_row(*map(Text, row))
        parts += [table, Text()]
    parts.append(Text((recommendation or evaluation.recommend()).sentence, style="bold"))
    return Group(*parts)


def print_two_stage(evaluation: TwoStageEvaluation, recommendation: Recommendation | None = None) -> None:
    """Print the tables on stdout, in full where it is no terminal."""
    console = Console()
    console = console if console.is_terminal else Console(width=WIDTH)
    console.print(two_stage_table(evaluation, recommendation))


def two_stage_markdown(evaluation: TwoStageEvaluation, recommendation: Recommendation | None = None) -> str:
    """The same as Markdown; the same input gives the same bytes."""
    lines = ["# Two-stage retrieval", "", (recommendation or evaluation.recommend()).sentence, ""]
    lines += [f"> {warning}\n" for warning in evaluation.warnings]
    for grid in _grids(evaluation):
        lines += [f"## {grid.title}", "", "| " + " | ".join(grid.header) + " |"]
        lines.append("|---|" + "---:|" * (len(grid.header) - 1))
        lines += ["| " + " | ".join(row) + " |" for row in grid.rows]
        lines.append("")
    return "\n".join(lines)


def _grids(evaluation: TwoStageEvaluation) -> Iterator[_Grid]:
    for direction in evaluation.directions:
        yield _quality(direction, evaluation.level)
        yield _cost(direction, evaluation.exponent)


def _quality(direction: TwoStageDirection, level: float) -> _Grid:
    title = (
        f"{direction.name}: {count(direction.queries)} queries, {count(direction.gallery)} in the gallery, percent "
        f"[{100 * level:g} %]"
    )
    header = ("", *METRICS, "recalled", f"{METRIC} of new/new", "embedded", "saved")
    rows = []
    for system in ("old/old", "mapped/old"):
        if system in direction.systems:
            rows.append((MEANINGS[system], *_metrics(direction.systems[system]), "", "", "0", "100.0"))
    for size in direction.sizes:
        told = (_cell(size.recalled), _cell(size.reached[METRIC]), count(size.embedded), percent(size.saved))
        rows.append((f"N = {size.candidates}", *_metrics(size.metrics), *told))
    full = direction.systems["new/new"]
    rows.append((MEANINGS["new/new"], *_metrics(full), "", "100.0", count(direction.gallery), "0.0"))
    return _Grid(title, header, tuple(rows))


def _cost(direction: TwoStageDirection, exponent: float) -> _Grid:
    title = (
        f"{direction.name}: percent of {count(direction.gallery)} items embedded after so many queries, uniform / Zipf"
    )
    served = list(direction.sizes[0].uniform)
    rows = [
        (
            f"N = {size.candidates}",
            *(" / ".join(percent(side[s] / direction.gallery) for side in (size.uniform, size.zipf)) for s in served),
        )
        for size in direction.sizes
    ]
    return _Grid(f"{title} (exponent {exponent:g})", ("", *map(count, served)), tuple(rows))


def _metrics(metrics: Mapping[str, Estimate]) -> tuple[str, ...]:
    return tuple(_cell(metrics[name]) for name in METRICS)


def _cell(estimate: Estimate | None) -> str:
    return "—" if estimate is None else f"{percent(estimate.value)} [{interval(estimate)}]"
