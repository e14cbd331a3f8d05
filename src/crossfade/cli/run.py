"""``crossfade run``: the whole job, from a YAML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from crossfade.cli.output import EXIT_CODES, JsonFlag, print_json

NAME = "run"


def command(
    job: Annotated[Path, typer.Argument(help="The YAML job file (see the docs page on jobs).")],
    json_: JsonFlag = False,
) -> None:
    """Run a whole job from a YAML file.

    Encodes, pairs, fits, evaluates and reports; what an earlier run has encoded is not encoded again.

    Exit code: 0 compatible on every evaluation, 10 not compatible on one, 11 undecided.
    """
    from crossfade.cli.tables import print_job
    from crossfade.jobs import load_job, overall, run_job

    result = run_job(load_job(job))
    if json_:
        print_json(result.to_dict())
    else:
        print_job(result)
    raise typer.Exit(EXIT_CODES[overall(result)])
