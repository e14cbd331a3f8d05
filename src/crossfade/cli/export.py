"""``crossfade export``: an adapter for other runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from crossfade.cli.output import JsonFlag, print_json

NAME = "export"


def command(
    adapter: Annotated[str, typer.Argument(help="A saved adapter: a folder or a hub id.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The .onnx file to write.")],
    modality: Annotated[Literal["image", "text"], typer.Option(help="Which modality's map to export.")] = "text",
    json_: JsonFlag = False,
) -> None:
    """Export an adapter as ONNX.

    The exported graph is run, and refused where it does not give the original's output.
    """
    from crossfade.artifacts import from_pretrained
    from crossfade.exporting import export_onnx

    difference = export_onnx(from_pretrained(adapter), out, modality=modality)
    if json_:
        print_json({"out": str(out), "modality": modality, "largest_difference": difference})
    else:
        typer.echo(f"{out}: {modality} vectors, largest difference to the original {difference:.1e}")
