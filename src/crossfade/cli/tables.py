"""What ``fit``, ``run`` and ``demo`` print for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from crossfade.fitting import Fit
    from crossfade.jobs import JobResult

__all__ = ["print_fit", "print_job"]


def print_fit(fitted: Fit, *, pairs: int, kept_aside: int) -> None:
    """The candidates with their held-out scores, and why the winner won."""
    raise NotImplementedError


def print_job(result: JobResult) -> None:
    """The fit, every evaluation, and where the reports are."""
    from crossfade.reporting.console import print_evaluation

    print_fit(result.fit, pairs=result.pairs, kept_aside=0)
    for name, evaluation in result.evaluations.items():
        typer.echo()
        typer.secho(name, bold=True)
        print_evaluation(evaluation)
    typer.echo()
