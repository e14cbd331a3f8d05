"""``crossfade fit``: pairs of old and new vectors → an adapter."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crossfade.cli.options import SeedOption
from crossfade.cli.output import JsonFlag, print_json
from crossfade.cli.sides import LinksOption, NewSpaceOption, OldSpaceOption, OptionalNew, OptionalOld, open_side

if TYPE_CHECKING:
    from crossfade.pairing import Pairs, Side

NAME = "fit"


def command(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write the adapter to.")],
    old: OptionalOld = None,
    new: OptionalNew = None,
    store: Annotated[
        str | None,
        typer.Option(
            help="In place of --old and --new: a collection whose stored vectors are the old ones. Some of its items are encoded "
            "by --encoder; the old model may be gone."
        ),
    ] = None,
    field: Annotated[str, typer.Option(help="Its vector field.")] = "vector",
    encoder: Annotated[str | None, typer.Option("--encoder", "-e", help="The new model, for --store.")] = None,
    data: Annotated[
        str | None,
        typer.Option(help="The items, for --store: a data set whose ids are those of the rows, or column:NAME of it."),
    ] = None,
    sample: Annotated[int, typer.Option(help="Rows that are sampled from --store.", min=1)] = 5000,
    stratify: Annotated[
        str | None, typer.Option(help="A column of --store whose values get equal shares of the sample.")
    ] = None,
    method: Annotated[
        str, typer.Option("--method", "-m", help="auto, or a method's name (crossfade doctor lists them).")
    ] = "auto",
    options: Annotated[
        list[str] | None, typer.Option("--set", help="A hyper-parameter of the method: name=value (repeat the option).")
    ] = None,
    links: LinksOption = None,
    queries: Annotated[
        list[str] | None,
        typer.Option(
            help="The new model's vectors of queries that the old model never saw, such as logged ones: a folder or file, "
            "or image=PATH and text=PATH (repeat the option); links in the folder say what each should find. The "
            "contrastive bridge learns from them."
        ),
    ] = None,
    hold_out: Annotated[
        float, typer.Option(help="Share of the items kept aside for evaluate; 0 fits on all.", min=0.0, max=0.9)
    ] = 0.2,
    old_space: OldSpaceOption = None,
    new_space: NewSpaceOption = None,
    seed: SeedOption = 0,
    overwrite: Annotated[bool, typer.Option(help="Replace OUT if it exists.")] = False,
    json_: JsonFlag = False,
) -> None:
    """Fit an adapter from the new space to the old.

    It is fitted on the items that both models have seen: two folders of vectors, or what a live collection has stored and the new
    model makes of the same items.

    A share of the items is kept aside, so that evaluate can judge on what the adapter has never seen.
    """
    from crossfade.artifacts import require_free, save_pretrained
    from crossfade.cli.tables import print_fit
    from crossfade.fitting import fit, method_from_options
    from crossfade.pairing import pair

    require_free(out, overwrite=overwrite)
    logged = open_side(queries, new_space) if queries else ()
    if store is not None:
        if old or new or encoder is None or data is None:
            raise typer.BadParameter(
                "a collection is fitted by --encoder and --data, with neither --old nor --new", param_hint="--store"
            )
        pairs = _stored(store, field, encoder, data, sample, stratify, seed, logged)
    elif old and new:
        pairs = pair(open_side(old, old_space, links), open_side(new, new_space, links), queries=logged)
    else:
        raise typer.BadParameter("give --old and --new, or --store", param_hint="--old")
    train = pairs.split(held_out=hold_out, seed=seed).train if hold_out else pairs
    fitted = fit(train, method=method_from_options(method, options or ()), seed=seed)
    save_pretrained(fitted.adapter, out, overwrite=overwrite)
    if json_:
        print_json({"out": str(out), "pairs": len(train), "kept_aside": len(pairs) - len(train), **fitted.to_dict()})
    else:
        print_fit(fitted, pairs=len(train), kept_aside=len(pairs) - len(train))
        typer.echo(f"written to {out}")


def _stored(
    address: str,
    field: str,
    encoder: str,
    data: str,
    sample: int,
    stratify: str | None,
    seed: int,
    queries: Side,
) -> Pairs:
    from crossfade.encoders import load_encoder
    from crossfade.stores import open_store
    from crossfade.upgrading.items import embedder
    from crossfade.upgrading.sampling import pairs_from_store

    model = load_encoder(encoder)
    with open_store(address) as store:
        embed = embedder(data, store, model, store.modality(field) or "image")
        return pairs_from_store(store, field, embed, model.space, count=sample, by=stratify, seed=seed, queries=queries)
