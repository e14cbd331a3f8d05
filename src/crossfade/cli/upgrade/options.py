"""The options that the verbs of ``crossfade upgrade`` share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["EncoderOption", "FieldOption", "FolderArgument", "ItemsOption", "StoreOption"]

StoreOption = Annotated[
    str,
    typer.Option(
        "--store",
        help="The collection: lancedb:///folder#table, qdrant://host:6333/name, postgresql://user@host/db?table=name, …",
    ),
]
FieldOption = Annotated[str, typer.Option(help="The vector field.")]
EncoderOption = Annotated[
    str, typer.Option("--encoder", "-e", help="A hub id, a local folder, demo:old, demo:new, or prefix:name.")
]
ItemsOption = Annotated[
    str,
    typer.Option(
        "--data", help="The items: a data set whose ids are those of the rows, or column:NAME of the collection."
    ),
]
FolderArgument = Annotated[Path, typer.Argument(help="The folder of the upgrade, which plan wrote.")]
