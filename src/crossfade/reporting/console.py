"""An evaluation in the terminal: verdict, warnings and the matrix of each direction."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from crossfade.evaluation.result import DirectionResult, Evaluation, Outcome
from crossfade.reporting.formatting import count, interval, percent, points, points_interval
from crossfade.reporting.matrix import Cell, matrix, metric_names
from crossfade.reporting.systems import STYLES, Tone

__all__ = ["evaluation_table"]

OUTCOMES: dict[Outcome, str] = {"compatible": "bold green", "not compatible": "bold red", "undecided": "bold yellow"}
TONES: dict[Tone, str] = {"old": "bright_black", "mapped": "bold blue", "new": "magenta"}
MARKS = {"above": ("▲", "green"), "below": ("▼", "red"), "": (" ", "")}


def evaluation_table(evaluation: Evaluation) -> RenderableType:
    """What ``rich.print`` shows of an evaluation; plain text where the terminal has no colours."""
    parts: list[RenderableType] = []
    if evaluation.warnings:
        words = Text("\n".join(f"• {warning}" for warning in evaluation.warnings))
        parts.append(Panel(words, title="before you believe these numbers", border_style="bold yellow", title_align="left"))
    for direction in evaluation.directions:
        parts += [_table(direction, level=evaluation.level), _facts(direction), Text()]
    verdict = evaluation.verdict
    parts.append(
        Text.assemble((verdict.outcome.upper(), OUTCOMES[verdict.outcome]), "  ", verdict.sentence, overflow="fold")
    )
    return Group(*parts)


def _table(direction: DirectionResult, *, level: float) -> Table:
    title = Text.assemble(
        (direction.name, "bold"),
        (
            f"  {count(direction.queries)} queries, {count(direction.gallery)} in the gallery, percent [{100 * level:g} %]",
            "dim",
        ),
    )
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("query/gallery", no_wrap=True)
    for metric in metric_names(direction):
        table.add_column(f"{metric}*" if metric == direction.metric else metric, justify="right", no_wrap=True)
    for row in matrix(direction):
        table.add_row(Text(row.system, style=TONES[STYLES[row.system].tone]), *(_cell(cell) for cell in row.cells))
    return table


def _cell(cell: Cell) -> Text:
    if cell.estimate is None:
        return Text("—", style="dim")
    sign, colour = MARKS[cell.mark]
    return Text.assemble(
        (sign, colour), " ", (percent(cell.estimate.value), "bold"), (f" [{interval(cell.estimate)}]", "dim")
    )


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
