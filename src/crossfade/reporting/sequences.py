"""The evaluation of a sequence of versions, in the terminal and as Markdown: the matrix, AC and AM, and what chains cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from crossfade.evaluation import CellResult, Estimate, SequenceDirection, SequenceEvaluation
from crossfade.reporting.formatting import count, interval, percent, points, points_interval

__all__ = ["sequence_markdown", "sequence_table"]

SPECIAL = ("\\", "|", "`", "*", "[", "]", "<")
"""Signs by which a version's name could act as Markdown."""


@dataclass(frozen=True, slots=True)
class _Rows:
    """A table in words."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def sequence_table(evaluation: SequenceEvaluation) -> RenderableType:
    """What ``rich.print`` shows of it."""
    parts: list[RenderableType] = []
    if evaluation.warnings:
        words = Text("\n".join(f"• {warning}" for warning in evaluation.warnings))
        title = "before you believe these numbers"
        parts.append(Panel(words, title=title, border_style="bold yellow", title_align="left"))
    for direction in evaluation.directions:
        for rows in _tables(evaluation, direction):
            table = Table(
                title=Text(rows.title, "bold"), title_justify="left", box=None, pad_edge=False, header_style="dim"
            )
            for column, name in enumerate(rows.header):
                table.add_column(Text(name), justify="right" if column else "left", no_wrap=True)
            for row in rows.rows:
                table.add_row(*map(Text, row))
            parts += [table, Text()]
        parts += [Text(_summary(direction)), Text()]
    parts.append(Text(_legend(evaluation), style="dim"))
    return Group(*parts)


def sequence_markdown(evaluation: SequenceEvaluation) -> str:
    """The same tables in GitHub Flavored Markdown."""
    lines = [f"> **Warning:** {_plain(warning)}\n" for warning in evaluation.warnings]
    for direction in evaluation.directions:
        for rows in _tables(evaluation, direction):
            lines += [f"**{_plain(rows.title)}**", "", _line(rows.header)]
            lines += [_line(["---", *["---:"] * (len(rows.header) - 1)], plain=False), *map(_line, rows.rows), ""]
        lines += [_summary(direction), ""]
    return "\n".join([*lines, _legend(evaluation)]) + "\n"


def _tables(evaluation: SequenceEvaluation, direction: SequenceDirection) -> Iterator[_Rows]:
    names = evaluation.versions
    by_row = [[cell for cell in direction.cells if cell.newer == row] for row in range(1, len(names) + 1)]
    title = f"{direction.name}, {evaluation.metric}, {count(direction.queries)} queries"
    header = ("query / gallery", *names)
    matrix = [
        (name, *map(_score, cells), *[""] * (len(names) - len(cells)))
        for name, cells in zip(names, by_row, strict=True)
    ]
    yield _Rows(title, header, tuple(matrix))
    chained = [cell for cell in direction.cells if cell.chain is not None]
    if not chained:
        return
    costs = [
        (
            " → ".join(names[version - 1] for version in cell.chain.way),
            _estimate(cell.chain.score),
            _estimate(cell.score),
            _difference(cell.chain.drop),
            _cosine(cell.chain.cosine),
        )
        for cell in chained
        if cell.chain is not None
    ]
    header = ("chain", "chained", "direct", "drop, points", "cosine to direct")
    yield _Rows(f"{direction.name}, chains beside direct adapters", header, tuple(costs))
    growth = [(str(g.steps), str(g.cells), _difference(g.drop), _cosine(g.cosine)) for g in direction.growth]
    header = ("adapters in the chain", "pairs of versions", "drop, points", "cosine to direct")
    yield _Rows(f"{direction.name}, the cost of a chain by its length", header, tuple(growth))


def _score(cell: CellResult) -> str:
    mark = ""
    if cell.gain is not None:
        mark = " ▲" if cell.gain.low > 0 else " ▼" if cell.gain.high < 0 else ""
    return _estimate(cell.score) + mark


def _summary(direction: SequenceDirection) -> str:
    ac, am = direction.compatibility, direction.accuracy
    return f"{direction.name}: AC {ac.value:.2f} ({ac.low:.2f}–{ac.high:.2f}), AM {_estimate(am)} %"


def _legend(evaluation: SequenceEvaluation) -> str:
    return (
        f"Percent, with {100 * evaluation.level:g} % intervals. ▲ surely above, ▼ surely below what the gallery's own version "
        "answers (the diagonal)."
    )


def _estimate(estimate: Estimate) -> str:
    return f"{percent(estimate.value)} ({interval(estimate)})"


def _difference(estimate: Estimate) -> str:
    return f"{points(estimate.value)} ({points_interval(estimate)})"


def _cosine(estimate: Estimate) -> str:
    return f"{estimate.value:.3f} ({estimate.low:.3f}–{estimate.high:.3f})"


def _line(cells: Sequence[str], *, plain: bool = True) -> str:
    return "| " + " | ".join(map(_plain, cells) if plain else cells) + " |"


def _plain(words: str) -> str:
    """On one line, with what Markdown would act on made harmless."""
    line = " ".join(words.split())
    for sign in SPECIAL:
        line = line.replace(sign, "\\" + sign)
    return line
