"""``crossfade upgrade``: carry an upgrade out on a live collection, with a way back at every step."""

from __future__ import annotations

import typer

from crossfade.cli.upgrade import adopt, steps, watch

__all__ = ["NAME", "app"]

NAME = "upgrade"

app = typer.Typer(
    name=NAME,
    help="Carry an upgrade out on a live vector store: plan, shadow, cutover, backfill, finish; rollback from anywhere.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
for verb, command in (
    ("register", adopt.register),
    ("check", adopt.check),
    ("plan", steps.plan),
    ("shadow", steps.shadow_command),
    ("cutover", steps.cutover_command),
    ("backfill", steps.backfill_command),
    ("finish", steps.finish_command),
    ("rollback", steps.rollback_command),
    ("status", watch.status_command),
    ("history", watch.history),
    ("pause", watch.pause),
    ("resume", watch.resume),
):
    app.command(verb)(command)
