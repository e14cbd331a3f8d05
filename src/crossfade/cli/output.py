"""What a verb prints: JSON on stdout where it was asked for, otherwise words; and the exit code of a verdict."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from crossfade.evaluation.result import Outcome

__all__ = ["EXIT_CODES", "JsonFlag", "print_json", "print_rows", "resumable"]

JsonFlag = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]

EXIT_CODES: Mapping[Outcome, int] = {"compatible": 0, "not compatible": 10, "undecided": 11}
"""What a script can branch on after ``evaluate`` and ``run``."""


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_rows(rows: Mapping[str, object]) -> None:
    """Names and values on stdout, aligned."""
    width = max((len(name) for name in rows), default=0)
    for name, value in rows.items():
        typer.echo(f"{name:<{width}}  {value}")


@contextmanager
def resumable(folder: Path) -> Iterator[None]:
    """Say on stderr, when ctrl-C stops the block, how to go on with what is in ``folder``."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"The same command with --resume goes on; what is done is in {folder}.", file=sys.stderr)
        raise
