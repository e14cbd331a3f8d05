"""``crossfade fingerprint``: which space is this?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from crossfade.cli.output import JsonFlag, print_json, print_rows
from crossfade.spaces import Space

NAME = "fingerprint"


def command(
    what: Annotated[str, typer.Argument(help="A folder of vectors, a saved adapter, or an encoder's name.")],
    other: Annotated[str | None, typer.Argument(help="A second one, to compare with.")] = None,
    json_: JsonFlag = False,
) -> None:
    """Print or compare spaces.

    Of stored vectors, of an adapter (its source), or of an encoder; of two, says in what they differ.

    Exit code with two: 0 the same space, 10 different spaces.
    """
    first = _space(what)
    if other is None:
        if json_:
            print_json({**first.to_dict(), "fingerprint": first.fingerprint})
        else:
            print_rows(
                {"fingerprint": first.fingerprint, **{name: value or "—" for name, value in first.to_dict().items()}}
            )
        return
    second = _space(other)
    differences = first.differences(second)
    if json_:
        print_json({"fingerprints": [first.fingerprint, second.fingerprint], "differences": differences})
    else:
        print_rows({what: first.fingerprint, other: second.fingerprint})
        print_rows(
            {name: f"{a!r} / {b!r}" for name, (a, b) in differences.items()} or {"same space": "every field agrees"}
        )
    raise typer.Exit(10 if differences else 0)


def _space(what: str) -> Space:
    from crossfade.artifacts import read_spaces
    from crossfade.embeddings.collection import open_collection
    from crossfade.encoders import load_encoder

    path = Path(what)
    if (path / "config.json").exists() and (spaces := read_spaces(path)) is not None:
        return spaces[0]
    if any((path / part).exists() for part in ("embeddings.json", "image/embeddings.json", "text/embeddings.json")):
        return open_collection({"": what}).space
    return load_encoder(what, device="cpu").space
