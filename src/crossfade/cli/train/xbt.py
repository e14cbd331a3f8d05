"""``crossfade train xbt``: a projection on texts alone, then the new model through it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from crossfade.cli.options import DeviceOption, SeedOption, StageOneOption, StageTwoOption, xbt_stages
from crossfade.cli.output import JsonFlag, print_json, print_rows, resumable

if TYPE_CHECKING:
    from crossfade.training.xbt import XBTTraining

NAME = "xbt"


def command(
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder of the run: texts-old/, texts-new/, stage-1/, stage-2/.")
    ],
    old: Annotated[
        str | None, typer.Option(help="The old model's encoder: a hub id, a local folder, demo:old, or prefix:name.")
    ] = None,
    new: Annotated[str | None, typer.Option(help="The new model's encoder.")] = None,
    texts: Annotated[
        str | None, typer.Option(help="The text corpus of stage 1: a file, or kind:location (see data sets).")
    ] = None,
    old_texts: Annotated[
        Path | None, typer.Option(help="Text vectors of the old model, in place of its encoder and the corpus.")
    ] = None,
    new_texts: Annotated[Path | None, typer.Option(help="The same of the new model.")] = None,
    pairs: Annotated[str | None, typer.Option(help="Images with texts for stage 2: a data set.")] = None,
    stage: Annotated[
        Literal["1", "2", "both"] | None,
        typer.Option(help="Which stage; by default both where there are pairs, and otherwise 1."),
    ] = None,
    options: StageOneOption = None,
    tune: StageTwoOption = None,
    seed: SeedOption = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped.")] = False,
    device: DeviceOption = "auto",
    batch_size: Annotated[int, typer.Option(help="Items in one forward pass while encoding.", min=1)] = 64,
    checkpoint_every: Annotated[int, typer.Option(help="Steps between two checkpoints.", min=1)] = 500,
    json_: JsonFlag = False,
) -> None:
    """Train XBT: a projection on texts alone, then the new model through it.

    Stage 1 encodes a text corpus by both text towers and trains φ; stage 2 tunes the new model on image–text pairs, without
    the old one. A stopped run goes on with --resume; a finished stage is not trained again.
    """
    from crossfade.datasets import open_dataset
    from crossfade.training.xbt import TextSide, train_xbt

    method, tuning = xbt_stages(options, tune)
    with resumable(out):
        result = train_xbt(
            out,
            old=TextSide(old, old_texts),
            new=TextSide(new, new_texts),
            texts=None if texts is None else open_dataset(texts),
            pairs=None if pairs is None else open_dataset(pairs),
            stage=stage or ("1" if pairs is None else "both"),
            method=method,
            tuning=tuning,
            seed=seed,
            resume=resume,
            device=device,
            batch_size=batch_size,
            checkpoint_every=checkpoint_every,
            progress=True,
        )
    if json_:
        print_json(result.to_dict())
    else:
        _print(result)


def _print(result: XBTTraining) -> None:
    print_rows({"from": result.source, "to": result.target})
    for name, stage in result.stages.items():
        counts = ", ".join(f"{key.replace('_', ' ')} {value:,}" for key, value in stage.counts.items() if value)
        typer.echo(f"\n{name}{' (finished before)' if stage.reused else ''}: {counts}")
        score = "no held-out score"
        if stage.best_score is not None and stage.start_score is not None:
            score = (
                f"held-out score {stage.start_score:.4f} at the start, {stage.best_score:.4f} after {stage.best_step:,}"
            )
        typer.echo(f"{stage.steps:,} steps, {score}; {stage.seconds:.0f} s")
        typer.echo(f"written to {stage.folder}")
