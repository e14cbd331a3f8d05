"""``crossfade reproduce bt2-cifar100``, ``bt2-imagenet``, ``oca-cifar100``, ``oca-imagenet``: image models by labels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import typer

from crossfade.cli.options import DeviceOption
from crossfade.cli.output import JsonFlag, print_json, resumable
from crossfade.cli.reproduce.wants import leave_for_want

__all__ = ["DESCRIPTIONS", "command_of"]

DESCRIPTIONS = {
    "bt2-cifar100": "BT² on CIFAR-100: from 50 of its classes to all 100",
    "bt2-imagenet": "BT² on ImageNet: from 500 of its classes to all 1,000",
    "oca-cifar100": "OCA on CIFAR-100: from 50 of its classes to all 100",
    "oca-imagenet": "OCA on ImageNet: from 500 of its classes to all 1,000",
}
"""Recipe → what it is."""


def command_of(recipe: str) -> Callable[..., None]:
    """The verb of one recipe."""

    def command(
        data: Annotated[
            Path, typer.Option(help="Folder with cifar-100-binary.tar.gz or imagenet/; what is not there is listed.")
        ] = Path("data"),
        out: Annotated[
            Path | None, typer.Option("--out", "-o", help="Folder of models and reports; by default reproduce-RECIPE.")
        ] = None,
        scale: Annotated[
            Literal["full", "small"],
            typer.Option(
                help="small: a ResNet-18 at 32 pixels, few epochs, on a part of the images, or on printed characters where "
                "there are none."
            ),
        ] = "full",
        seeds: Annotated[
            list[int] | None, typer.Option("--seed", help="Of all trainings; each repeats all of them (repeat it).")
        ] = None,
        epochs: Annotated[int | None, typer.Option(help="Another number of epochs.", min=1)] = None,
        classes: Annotated[
            int | None, typer.Option(help="Only the first so many classes; the old model knows half of them.", min=2)
        ] = None,
        width: Annotated[int | None, typer.Option(help="Channels of the network's first stage.", min=1)] = None,
        precision: Annotated[
            Literal["float32", "bfloat16", "float16"] | None,
            typer.Option(help="Number format of the forward pass in training; by default float32."),
        ] = None,
        device: DeviceOption = "auto",
        batch_size: Annotated[int, typer.Option(help="Images in one forward pass of an encoder.", min=1)] = 64,
        resume: Annotated[
            bool, typer.Option("--resume", help="Go on with a run that was stopped, or add seeds to it.")
        ] = False,
        json_: JsonFlag = False,
    ) -> None:
        from crossfade.reproduction.compatible.recipes import Changes, recipe_of
        from crossfade.reproduction.compatible.run import missing_images, reproduce_compatible
        from crossfade.reproduction.compatible.tables import print_compatible_reproduction

        place, changes = out or Path(f"reproduce-{recipe}"), Changes(epochs, classes, width, precision)
        lacks = missing_images(recipe_of(recipe, scale=scale, data=data, device=device, changes=changes), data, place)
        if lacks:
            leave_for_want(lacks)
        with resumable(place):
            result = reproduce_compatible(
                recipe,
                data=data,
                out=place,
                scale=scale,
                changes=changes,
                seeds=tuple(seeds or (0,)),
                device=device,
                batch_size=batch_size,
                resume=resume,
                progress=True,
            )
        if json_:
            print_json(result.to_dict())
        else:
            print_compatible_reproduction(result)
            for seed in result.seeds:
                typer.echo(f"reports: {place / f'seed-{seed}' / 'reports'}/*/report.html")

    command.__doc__ = f"""Reproduce {DESCRIPTIONS[recipe]}.

    Trains the old model, an independent new one, BCT and the method itself, and prints cross and self results beside the
    published rows. Lists everything that is missing before any work (exit code 2), and tells what it will cost before it
    trains. A stopped run goes on with --resume.
    """
    return command
