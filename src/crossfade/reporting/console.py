"""An evaluation in the terminal: verdict, warnings and the matrix of each direction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from crossfade.evaluation.result import DirectionResult, Evaluation, Outcome
from crossfade.reporting.formatting import count, interval, percent, points, points_interval
from crossfade.reporting.headline import headline
from crossfade.reporting.hubness import hubness_rows, hubness_words
from crossfade.reporting.matrix import Cell, matrix, metric_names
from crossfade.reporting.rivals import RivalRow, rival_rows
from crossfade.reporting.systems import STYLES, Tone

__all__ = ["EvaluationTable", "evaluation_table"]

OUTCOMES: dict[Outcome, str] = {"compatible": "bold green", "not compatible": "bold red", "undecided": "bold yellow"}
TONES: dict[Tone, str] = {"old": "bright_black", "mapped": "bold blue", "new": "magenta"}
MARKS = {"above": ("▲", "green"), "below": ("▼", "red"), "": (" ", "")}


INTERVAL_ROOM = 20
"""Columns that a metric takes with its interval beside it; in a narrower terminal the interval goes below."""


@dataclass(frozen=True, slots=True)
class EvaluationTable:
    """An evaluation that ``rich.print`` shows; plain text where the terminal has no colours."""

    evaluation: Evaluation

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The parts, as wide as the terminal allows."""
        columns = max((len(metric_names(d)) for d in self.evaluation.directions), default=0)
        yield _parts(self.evaluation, below=options.max_width < 16 + INTERVAL_ROOM * columns)


def evaluation_table(evaluation: Evaluation) -> EvaluationTable:
    """What the command line prints of an evaluation: ``rich.print(evaluation_table(evaluation))``."""
    return EvaluationTable(evaluation)


def _parts(evaluation: Evaluation, *, below: bool) -> Group:
    parts: list[RenderableType] = []
    if evaluation.warnings:
        words = Text("\n".join(f"• {warning}" for warning in evaluation.warnings))
        parts.append(
            Panel(words, title="before you believe these numbers", border_style="bold yellow", title_align="left")
        )
    for direction in evaluation.directions:
        parts += [_table(direction, level=evaluation.level, below=below), _facts(direction), Text()]
        if rivals := rival_rows(direction, evaluation.method):
            parts += [_rivals(direction, rivals), Text()]
        if direction.hubness is not None:
            said = (f"{direction.name}, shown apart  ", "bold"), (hubness_words(direction.hubness), "dim")
            parts += [Text.assemble(*said), _hubness(direction), Text()]
    verdict = evaluation.verdict
    parts.append(
        Text.assemble((verdict.outcome.upper(), OUTCOMES[verdict.outcome]), "  ", headline(evaluation), overflow="fold")
    )
    parts += [Text(note, style="dim") for note in evaluation.notes]
    return Group(*parts)


def _table(direction: DirectionResult, *, level: float, below: bool) -> Table:
    sizes = f"{count(direction.queries)} queries, {count(direction.gallery)} in the gallery"
    title = Text.assemble((direction.name, "bold"), (f"  {sizes}, percent [{100 * level:g} %]", "dim"))
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("query/gallery", no_wrap=True)
    for metric in metric_names(direction):
        table.add_column(f"{metric}*" if metric == direction.metric else metric, justify="right", no_wrap=True)
    for row in matrix(direction):
        table.add_row(
            Text(row.system, style=TONES[STYLES[row.system].tone]), *(_cell(cell, below=below) for cell in row.cells)
        )
    return table


def _rivals(direction: DirectionResult, rows: Sequence[RivalRow]) -> Table:
    title = Text.assemble((f"{direction.name}, methods beside each other", "bold"))
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("method", no_wrap=True)
    for metric in metric_names(direction):
        table.add_column(f"{metric}*" if metric == direction.metric else metric, justify="right", no_wrap=True)
    table.add_column(f"{direction.metric} − old/old, points", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for row in rows:
        values = (Text("—", style="dim") if e is None else Text(percent(e.value)) for e in row.estimates)
        sign, colour = MARKS[row.mark]
        lead = Text("—", style="dim")
        if row.lead is not None:
            bounds = (f" [{points_interval(row.lead)}]", "dim")
            lead = Text.assemble((sign, colour), " ", points(row.lead.value), bounds)
        name = Text(row.method, style=TONES["mapped"] if row.upgrade else "")
        table.add_row(name, *values, lead, Text(row.notes, style=OUTCOMES[row.outcome]))
    return table


def _hubness(direction: DirectionResult) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("query/gallery", no_wrap=True)
    for metric in metric_names(direction):
        table.add_column(metric, justify="right", no_wrap=True)
    table.add_column(f"changes {direction.metric}", justify="right")
    for row in hubness_rows(direction):
        sign, colour = MARKS[row.mark]
        change = Text.assemble(
            (sign, colour), " ", points(row.change.value), (f" [{points_interval(row.change)}]", "dim")
        )
        values = (Text("—", style="dim") if e is None else Text(percent(e.value)) for e in row.estimates)
        table.add_row(Text(row.system, style=TONES[STYLES[row.system].tone]), *values, change)
    return table


def _cell(cell: Cell, *, below: bool) -> Text:
    if cell.estimate is None:
        return Text("—", style="dim")
    sign, colour = MARKS[cell.mark]
    bounds = f"{chr(10) if below else ' '}[{interval(cell.estimate)}]"
    return Text.assemble((sign, colour), " ", (percent(cell.estimate.value), "bold"), (bounds, "dim"))


def _facts(direction: DirectionResult) -> Text:
    verdict = direction.verdict
    facts = Text.assemble((verdict.outcome, OUTCOMES[verdict.outcome]))
    if verdict.difference is not None:
        value, bounds = points(verdict.difference.value), points_interval(verdict.difference)
        facts.append(f" · {verdict.metric} {value} points [{bounds}]")
    if direction.gain is not None:
        facts.append(f" · {percent(direction.gain.value)} % of the gap closed")
    if direction.flips is not None:
        broken, mended = percent(direction.flips.negative.value), percent(direction.flips.positive.value)
        facts.append(f" · {broken} % of queries broken, {mended} % mended")
    if verdict.more_queries is not None:
        facts.append(f" · about {count(verdict.more_queries)} more queries would decide")
    return facts
