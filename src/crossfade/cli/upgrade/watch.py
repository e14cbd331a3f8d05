"""The verbs of ``crossfade upgrade`` that look, and those that stop and go on."""

from __future__ import annotations

from typing import Annotated

import typer

from crossfade.cli.output import JsonFlag, print_json, print_rows
from crossfade.cli.upgrade.options import FolderArgument

__all__ = ["history", "pause", "resume", "status_command"]


def status_command(
    folder: FolderArgument,
    offline: Annotated[bool, typer.Option("--offline", help="Do not ask the store.")] = False,
    json_: JsonFlag = False,
) -> None:
    """Say where an upgrade stands."""
    from crossfade.upgrading import Upgrade, status

    upgrade = Upgrade.open(folder)
    if offline:
        found = status(upgrade)
    else:
        with upgrade.store() as store:
            found = status(upgrade, store)
    if json_:
        print_json(found)
    else:
        queue = found.pop("queue", {})
        print_rows({**found, **{f"queue: {name}": count for name, count in queue.items()}})


def history(folder: FolderArgument, json_: JsonFlag = False) -> None:
    """List every step that was taken: when, by whom, why, and on which metrics."""
    from crossfade.upgrading import Upgrade

    steps = Upgrade.open(folder).state.history()
    if json_:
        print_json([step.to_dict() for step in steps])
        return
    for step in steps:
        reason = f": {step.reason}" if step.reason else ""
        typer.echo(f"{step.number}  {step.at}  {step.who}  {step.step}  {step.before} → {step.after}{reason}")


def pause(
    folder: FolderArgument,
    reason: Annotated[str, typer.Option(help="Why; it is recorded.")] = "paused by hand",
) -> None:
    """Let a backfill stop after its batch."""
    from crossfade.upgrading import Upgrade

    Upgrade.open(folder).state.pause(reason or "paused by hand")
    typer.echo("paused: the run stops after its batch")


def resume(folder: FolderArgument) -> None:
    """Take a pause back; crossfade upgrade backfill goes on."""
    from crossfade.upgrading import Upgrade

    Upgrade.open(folder).state.pause("")
    typer.echo("resumed: run crossfade upgrade backfill again")
