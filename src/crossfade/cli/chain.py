"""``crossfade chain``: saved adapters, one after the other → one adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from crossfade.cli.output import JsonFlag, print_json, print_rows

NAME = "chain"


def command(
    adapters: Annotated[
        list[str], typer.Argument(help="Saved adapters (folders or hub ids), at least two, the newest first.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write the chain to.")],
    overwrite: Annotated[bool, typer.Option(help="Replace OUT if it exists.")] = False,
    json_: JsonFlag = False,
) -> None:
    """Chain adapters: v3 → v2 and v2 → v1 become v3 → v1.

    The newest comes first. Linear adapters that follow each other become one matrix where that gives the same vectors.
    """
    from crossfade.artifacts import from_pretrained, require_free, save_pretrained
    from crossfade.errors import ConfigError
    from crossfade.methods.chain import ChainAdapter, compose

    require_free(out, overwrite=overwrite)
    if len(adapters) < 2:
        raise ConfigError(
            f"A chain must have at least two adapters; found {len(adapters)}. Name them, the newest first."
        )
    chain = compose([from_pretrained(adapter) for adapter in adapters])
    save_pretrained(chain, out, overwrite=overwrite)
    steps = len(chain.adapters) if isinstance(chain, ChainAdapter) else 1
    ends = {"source": str(chain.source), "target": str(chain.target)}
    if json_:
        print_json({"out": str(out), **ends, "modalities": list(chain.modalities), "steps": steps})
    else:
        print_rows({**ends, "modalities": ", ".join(chain.modalities), "steps": steps, "written to": out})
