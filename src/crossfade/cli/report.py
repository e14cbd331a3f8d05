"""``crossfade report``: draw a saved evaluation again, as HTML, Markdown and JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from crossfade.cli.output import JsonFlag, print_json

NAME = "report"


def command(
    evaluation: Annotated[Path, typer.Argument(help="A report.json, as written by evaluate, run or demo.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for report.html, report.md and report.json.")],
    title: Annotated[str | None, typer.Option(help="Headline of the report.")] = None,
    json_: JsonFlag = False,
) -> None:
    """Draw a saved evaluation again.

    Writes one offline HTML file, Markdown and JSON.

    The pictures that need vectors and images are drawn by evaluate --data DATA --out OUT.
    """
    from crossfade.reporting import read_report, write_report

    written = write_report(read_report(evaluation), out, title=title)
    if json_:
        print_json({"report": str(written)})
    else:
        typer.echo(f"report: {written}")
