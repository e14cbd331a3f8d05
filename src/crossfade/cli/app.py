"""The command ``crossfade``: its verbs, its exit codes, and how errors are told.

Exit codes: 0 done (for ``evaluate`` and ``run``: compatible) · 2 wrong usage (for ``reproduce``: also data or checkpoints that
are not here) · 3 bad input, the reason on stderr · 10 not compatible · 11 undecided · 130 interrupted. Results go to stdout,
progress and errors to stderr.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from crossfade.cli import (
    chain,
    demo,
    doctor,
    encode,
    evaluate,
    export,
    fingerprint,
    fit,
    report,
    reproduce,
    run,
    train,
    two_stage,
    upgrade,
)
from crossfade.errors import CrossfadeError

__all__ = ["BAD_INPUT", "INTERRUPTED", "app", "main"]

BAD_INPUT = 3
INTERRUPTED = 130

app = typer.Typer(
    name="crossfade",
    help="Upgrade a retrieval system to a new embedding model without re-embedding the gallery.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)

for module in (
    demo, encode, fit, evaluate, two_stage, report, export, chain, run, fingerprint, doctor,
):  # fmt: skip
    app.command(module.NAME)(module.command)
app.add_typer(train.app)
app.add_typer(reproduce.app)
app.add_typer(upgrade.app)


def _print_version(asked: bool) -> None:
    if asked:
        from crossfade import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and leave.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Options that stand before the verb."""


def main() -> None:
    """Run the command; an expected error becomes one message on stderr and an exit code, never a traceback."""
    try:
        app(standalone_mode=True)
    except CrossfadeError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(BAD_INPUT)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
