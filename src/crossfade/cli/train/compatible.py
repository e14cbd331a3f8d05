"""``crossfade train independent``, ``bct``, ``bt2``, ``oca`` …: a new image model on labelled images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from crossfade.cli.options import DeviceOption, SeedOption
from crossfade.cli.output import JsonFlag, print_json, print_rows, resumable

if TYPE_CHECKING:
    from crossfade.compatible.run import CompatibleTraining, Model

__all__ = ["command_of"]

DESCRIPTIONS = {
    "independent": "a model that is compatible with no other: a first one, or the price of a full re-index",
    "bct": "BCT: the first components must be classified by the old model's class means or classifier",
    "lce": "LCE: class centres aligned with the old ones, and no farther from them than the old vectors",
    "ract": "RACT (hot refresh): new vectors find old ones without regressions while the gallery is refreshed",
    "oca": "OCA: extra dimensions and an orthogonal layer, in one training",
    "bt2": "BT²: the new representation kept whole, turned by orthogonal matrices, with a few extra dimensions",
}


def command_of(method: str) -> Callable[..., None]:
    """The verb of one method."""

    def command(
        data: Annotated[str, typer.Option(help="Labelled images: a folder, or kind:location (see data sets).")],
        out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the run: model/ and adapter/ among others.")],
        old: Annotated[
            str | None, typer.Option(help="The old model: a folder of an earlier training, a hub id, or prefix:name.")
        ] = None,
        old_vectors: Annotated[
            Path | None, typer.Option(help="Its vectors of every training image, in place of the old model.")
        ] = None,
        independent: Annotated[
            str | None, typer.Option(help="The independent new model (bt2); by default it is trained first.")
        ] = None,
        backbone: Annotated[
            str,
            typer.Option(help="resnet8 … resnet110, resnet18/34/50, vit_tiny, vgg11 …, timm:NAME, transformers:NAME."),
        ] = "resnet18",
        backbone_options: Annotated[
            list[str] | None, typer.Option("--backbone-set", help="An option of it: name=value (repeat the option).")
        ] = None,
        dimension: Annotated[
            int | None, typer.Option(help="Of the new representation; by default the backbone's own.", min=1)
        ] = None,
        size: Annotated[int, typer.Option(help="Pixels a side that the network takes.", min=1)] = 32,
        stored: Annotated[
            int | None, typer.Option(help="Pixels a side at which images are kept; by default the same.", min=1)
        ] = None,
        augmentation: Annotated[
            Literal["cifar", "imagenet", "glyphs", "off"], typer.Option(help="Crops and mirror images.")
        ] = "cifar",
        classes: Annotated[
            float, typer.Option(help="Share of the classes to train on, the first ones in order.")
        ] = 1.0,
        images: Annotated[float, typer.Option(help="Share of each class's images to train on.")] = 1.0,
        held_out: Annotated[
            float, typer.Option(help="Share of each class's images that is only scored, to follow the training.")
        ] = 0.0,
        options: Annotated[
            list[str] | None,
            typer.Option("--set", help="A hyper-parameter of the method: name=value (repeat the option)."),
        ] = None,
        course: Annotated[
            list[str] | None,
            typer.Option("--training", help="One of the course: epochs=30, batch=128, learning_rate=1e-3 …"),
        ] = None,
        name: Annotated[
            str | None, typer.Option(help="Of the new space's model; by default method and backbone.")
        ] = None,
        pixels: Annotated[
            Path | None, typer.Option(help="Where decoded images are kept, to share them; by default in OUT.")
        ] = None,
        seed: SeedOption = 0,
        device: DeviceOption = "auto",
        resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped.")] = False,
        batch_size: Annotated[int, typer.Option(help="Images in one forward pass of the old model.", min=1)] = 64,
        json_: JsonFlag = False,
    ) -> None:
        from crossfade.backbones import ImageFormat
        from crossfade.compatible.config import CompatibleConfig, course_from_options, method_from_options
        from crossfade.compatible.network import NetworkConfig
        from crossfade.compatible.run import train_compatible
        from crossfade.datasets import open_dataset
        from crossfade.fitting import parse_option

        network = NetworkConfig(
            backbone,
            dict(parse_option(option) for option in backbone_options or ()),
            dimension,
            None if ":" in backbone else ImageFormat(size=size),
        )
        config = CompatibleConfig(
            network,
            course_from_options(dict(parse_option(option) for option in course or ())),
            augmentation,
            stored,
            classes,
            images,
            held_out,
        )
        with resumable(out):
            result = train_compatible(
                out,
                method=method_from_options(method, dict(parse_option(option) for option in options or ())),
                data=open_dataset(data),
                old=_old(old, old_vectors),
                independent=independent,
                config=config,
                name=name,
                seed=seed,
                device=device,
                batch_size=batch_size,
                progress=True,
                resume=resume,
                pixels=pixels,
            )
        if json_:
            print_json(result.to_dict())
        else:
            _print(result)

    command.__doc__ = f"""Train {DESCRIPTIONS[method]}.

    The old model is asked once for each image; the new one is trained on the labels. OUT/model is an encoder that every
    verb takes, OUT/adapter maps its vectors into the old space. A stopped run goes on with --resume.
    """
    return command


def _old(encoder: str | None, vectors: Path | None) -> Model | None:
    from crossfade.embeddings.collection import open_collection
    from crossfade.errors import ConfigError

    if vectors is None:
        return encoder
    if encoder is not None:
        raise ConfigError("The old model is named by --old and by --old-vectors; name it by one of the two.")
    return open_collection({"image": str(vectors)}).sets["image"]


def _print(result: CompatibleTraining) -> None:
    rows: dict[str, Any] = {"model": result.encoder.space}
    if result.adapter is not None:
        rows["searches"] = result.adapter.target
    print_rows(rows)
    score = "" if result.score is None else f", held-out score {result.score:.4f}"
    typer.echo(
        f"\n{result.images:,} images in {result.classes:,} classes, {result.corrupt:,} unreadable; {result.steps:,} steps"
        f"{score}; {result.samples_per_second:,.0f} images/s, {result.seconds:.0f} s in all"
    )
    typer.echo(f"written to {result.folder}")
