"""``crossfade upgrade register`` and ``check``: say which model a collection's vectors are of, and see whether it is so."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from crossfade.cli.options import DeviceOption, SeedOption
from crossfade.cli.output import JsonFlag, print_json, print_rows
from crossfade.cli.upgrade.options import EncoderOption, FieldOption, ItemsOption, StoreOption

if TYPE_CHECKING:
    from crossfade.spaces import Space

__all__ = ["check", "register"]


def register(
    store: StoreOption,
    space: Annotated[
        Path | None,
        typer.Option(help="JSON file that names the space, or a folder of vectors whose space it is."),
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option("--encoder", "-e", help="In place of --space: the model; it is loaded to know its space."),
    ] = None,
    field: FieldOption = "vector",
    modality: Annotated[Literal["image", "text"], typer.Option(help="What the vectors are of.")] = "image",
    json_: JsonFlag = False,
) -> None:
    """Register which space a vector field of a collection holds.

    Only a note is kept beside the collection; no row is touched. See check for whether it is true.
    """
    from crossfade.errors import ConfigError
    from crossfade.stores import open_store

    if (space is None) == (encoder is None):
        raise ConfigError("A field is registered by --space or by --encoder; give one of them.")
    named = _space(space, encoder)
    with open_store(store) as collection:
        collection.register(field, named, modality)
        told = {"store": collection.address, "field": field, "modality": modality, "space": str(named)}
    print_json(told) if json_ else print_rows(told)


def check(
    store: StoreOption,
    encoder: EncoderOption,
    data: ItemsOption,
    field: FieldOption = "vector",
    modality: Annotated[Literal["image", "text"], typer.Option(help="What the vectors are of.")] = "image",
    sample: Annotated[int, typer.Option(help="Rows that are encoded again.", min=2)] = 200,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    json_: JsonFlag = False,
) -> None:
    """Check that an encoder really made the vectors of a collection.

    Encodes some of its items again, compares, and says how they differ. Exit code 10 where they are not the same.
    """
    from crossfade.encoders import load_encoder
    from crossfade.stores import open_store
    from crossfade.upgrading.adoption import check_encoder
    from crossfade.upgrading.items import embedder

    model = load_encoder(encoder, device=device)
    with open_store(store) as collection:
        embed = embedder(data, collection, model, modality)
        found = check_encoder(collection, field, embed, model.space, sample=sample, seed=seed)
    if json_:
        print_json(found.to_dict())
    else:
        typer.echo(found.sentence)
        rows = {
            "rows compared": found.rows,
            "unreadable": found.unreadable,
            "cosine 5/50/95 %": " ".join(map(str, found.cosine)),
            "the same": f"{found.same:.0%}",
            "norms 5/50/95 %": " ".join(map(str, found.norms)),
        }
        print_rows(rows)
        for note in found.notes:
            typer.echo(note)
    if found.finding != "same":
        raise typer.Exit(10)


def _space(path: Path | None, encoder: str | None) -> Space:
    from crossfade.embeddings import Embeddings
    from crossfade.encoders import load_encoder
    from crossfade.files import read_json
    from crossfade.spaces import Space

    if path is None:
        return load_encoder(str(encoder)).space
    return Embeddings.load(path).space if path.is_dir() else Space.from_dict(read_json(path))
