"""The options by which a user names stored vectors, and how they are opened."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crossfade.errors import ConfigError

if TYPE_CHECKING:
    from crossfade.embeddings.collection import Collection

__all__ = [
    "LinksOption",
    "NewOption",
    "NewSpaceOption",
    "OldOption",
    "OldSpaceOption",
    "OptionalNew",
    "OptionalOld",
    "open_side",
]

_OLD = typer.Option(
    "--old", help="The old model's vectors: a folder or file, or image=PATH and text=PATH (repeat the option)."
)
_NEW = typer.Option("--new", help="The new model's vectors, named in the same way.")
OldOption = Annotated[list[str], _OLD]
NewOption = Annotated[list[str], _NEW]
OptionalOld = Annotated[list[str] | None, _OLD]
OptionalNew = Annotated[list[str] | None, _NEW]
OldSpaceOption = Annotated[
    Path | None, typer.Option(help="JSON file that names the old space, where the old vectors' own files do not.")
]
NewSpaceOption = Annotated[Path | None, typer.Option(help="The same for the new vectors.")]
LinksOption = Annotated[
    Path | None,
    typer.Option(help="Which text describes which image: Parquet, CSV or JSONL with columns text and image."),
]


def open_side(
    locations: Sequence[str], space_file: Path | None, links: Path | None = None, *, metadata: Sequence[str] = ()
) -> Collection:
    """Open one side (old or new) of an upgrade.

    Raises:
        ConfigError: a location is named as of an unknown modality, or twice.
        CrossfadeError: what stands there cannot be read.
    """
    from crossfade.embeddings.collection import open_collection
    from crossfade.files import read_json
    from crossfade.spaces import Space

    space = None if space_file is None else Space.from_dict(read_json(space_file))
    named: dict[str, str] = {}
    for location in locations:
        modality, separator, path = location.partition("=")
        if separator and modality in ("image", "text"):
            key, where = modality, path
        else:
            key, where = "", location
        if key in named:
            raise ConfigError(
                f"Vectors of one side and modality may be named once; {where!r} comes after {named[key]!r}."
            )
        named[key] = where
    return open_collection(named, space=space, links=links, metadata=metadata)
