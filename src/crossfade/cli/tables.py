"""What ``fit``, ``evaluate``, ``run`` and ``demo`` print for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from crossfade.evaluation.result import Evaluation
    from crossfade.fitting import Fit
    from crossfade.jobs import JobResult

__all__ = ["print_evaluation", "print_fit", "print_job"]

_WIDTH = 132
"""Columns that a table takes where stdout is a file or a pipe, which has no width of its own."""


def print_fit(fitted: Fit, *, pairs: int, kept_aside: int) -> None:
    """The candidates with their held-out scores, and why the winner won."""
    console = _console()
    if fitted.candidates:
        table = Table(box=None, pad_edge=False, header_style="dim", title_justify="left")
        for name in ("method", "held-out MRR", "R@1", "difference to the chosen", ""):
            table.add_column(name)
        for candidate in fitted.candidates:
            recall = "  ".join(
                f"{direction} {100 * share:.1f}" for direction, share in (candidate.recall or {}).items()
            )
            table.add_row(
                candidate.label,
                "" if candidate.score is None else str(candidate.score),
                recall,
                "" if candidate.difference is None else str(candidate.difference),
                "← chosen" if candidate.chosen else candidate.reason,
                style="bold" if candidate.chosen else "",
            )
        console.print(table)
    aside = f"; {kept_aside} kept aside for evaluate" if kept_aside else ""
    console.print(f"{fitted.sentence} ({pairs} pairs{aside})", highlight=False)


def print_evaluation(evaluation: Evaluation) -> None:
    """The verdict, the warnings, and the matrix of each direction."""
    from crossfade.reporting.console import evaluation_table

    _console().print(evaluation_table(evaluation))


def print_job(result: JobResult) -> None:
    """The fit, every evaluation, and where everything was written."""
    console = _console()
    print_fit(result.fit, pairs=result.pairs, kept_aside=0)
    for name, evaluation in result.evaluations.items():
        console.print()
        console.rule(name, align="left", style="dim")
        print_evaluation(evaluation)
    console.print()
    for name, path in result.reports.items():
        console.print(f"report: {path}  ({name})", highlight=False, soft_wrap=True)
    console.print(f"adapter: {result.out / 'adapter'}", highlight=False, soft_wrap=True)
    console.print(f"seconds: {sum(result.seconds.values()):.0f}", highlight=False)


def _console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=_WIDTH)
