"""The verbs of ``crossfade upgrade`` that take a step."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from crossfade.cli.options import DeviceOption, SeedOption
from crossfade.cli.output import JsonFlag, print_json, print_rows
from crossfade.cli.upgrade.options import FieldOption, FolderArgument, ItemsOption, StoreOption

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crossfade.embeddings import Embeddings
    from crossfade.evaluation.result import Evaluation
    from crossfade.upgrading.starting import Order

__all__ = ["backfill_command", "cutover_command", "finish_command", "plan", "rollback_command", "shadow_command"]

ReasonOption = Annotated[str, typer.Option(help="Why; it is recorded.")]


def plan(
    adapter: Annotated[str, typer.Argument(help="A saved adapter: a folder or a hub id.")],
    store: StoreOption,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the upgrade to write.")],
    field: FieldOption = "vector",
    new_field: Annotated[
        str | None, typer.Option(help="Name of the field that backfilling adds; by default after the new space.")
    ] = None,
    evaluation: Annotated[
        Path | None,
        typer.Option(
            help="report.json of crossfade evaluate; by default what was measured when the adapter was saved."
        ),
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option("--encoder", "-e", help="The new model: a few rows are encoded, to tell how long all take."),
    ] = None,
    data: Annotated[
        str | None, typer.Option("--data", help="The items for it: a data set, or column:NAME of the collection.")
    ] = None,
    price: Annotated[float | None, typer.Option(help="Money an item, by the provider's price list.", min=0.0)] = None,
    device: DeviceOption = "auto",
    json_: JsonFlag = False,
) -> None:
    """Plan an upgrade: rows, time, money, storage, the expected quality, and what each step changes.

    Nothing of the collection is changed. The folder holds all that the later steps and the searchers need.
    """
    from crossfade.artifacts import from_pretrained
    from crossfade.errors import ConfigError
    from crossfade.stores import open_store
    from crossfade.upgrading import plan_upgrade

    if (encoder is None) != (data is None):
        raise ConfigError("A pace is measured by a model on items: give both --encoder and --data, or neither.")
    with open_store(store) as collection:
        embed = None
        if encoder is not None and data is not None:
            from crossfade.encoders import load_encoder
            from crossfade.upgrading.items import embedder

            embed = embedder(
                data, collection, load_encoder(encoder, device=device), collection.modality(field) or "image"
            )
        made = plan_upgrade(
            collection,
            from_pretrained(adapter),
            out=out,
            field=field,
            new_field=new_field,
            evaluation=_evaluation(adapter, evaluation),
            embed=embed,
            price=price,
        )
    if json_:
        print_json(made.to_dict())
        return
    seconds, money = made.seconds, made.money
    print_rows(
        {
            "rows": f"{made.rows:,}",
            "items encoded before the cutover": made.encoded_before_cutover,
            "items encoded by backfilling": f"{made.encoded_by_backfill:,}" if made.backfill else "the store cannot",
            "time of that": "not measured (--encoder, --data)" if seconds is None else f"{seconds:,.0f} s",
            "money": "no price given (--price)" if money is None else f"{money:,.2f}",
            "storage added": f"{made.bytes / 1e6:,.1f} MB",
        }
    )
    for each in made.quality:
        typer.echo(
            f"{each.direction}, {each.metric}: now {_shown(each.before)}, upgraded {_shown(each.after)}, full re-index "
            f"{_shown(each.full)}: {each.outcome}"
        )
    if not made.quality:
        typer.echo("quality: nothing was evaluated, so that the cutover will be refused (--evaluation)")
    typer.echo("what each step changes:")
    print_rows({f"  {step}": change for step, change in made.changes.items()})
    typer.echo(f"written to {out}")


def shadow_command(
    folder: FolderArgument,
    old: Annotated[Path | None, typer.Option(help="Logged queries by the old model: a folder of vectors.")] = None,
    new: Annotated[Path | None, typer.Option(help="The same queries by the new model.")] = None,
    k: Annotated[int, typer.Option("-k", help="Rows for each query.", min=1)] = 10,
    right: Annotated[
        Path | None,
        typer.Option(help="Which row answers which query: Parquet, CSV or JSONL with columns text and image."),
    ] = None,
    seed: SeedOption = 0,
    json_: JsonFlag = False,
) -> None:
    """Answer logged queries both ways and record what differs; nothing is served differently.

    Without logged queries it records what live ones showed so far: see Searcher(shadow=…) on the page of live upgrades.
    """
    from crossfade.embeddings import Embeddings
    from crossfade.upgrading import Upgrade, shadow

    upgrade = Upgrade.open(folder)
    olds, news = (None if path is None else Embeddings.load(path) for path in (old, new))
    with upgrade.store() as store:
        found = shadow(
            upgrade, store, old=olds, new=news, k=k, right=None if olds is None else _right(right, olds), seed=seed
        )
    if json_:
        print_json(found.to_dict())
        return
    rows: dict[str, object] = {
        "queries": found.queries,
        f"agreement@{k}": found.agreement,
        "same first row": found.same_first,
        "latency p50/p95, the old way": f"{found.old.p50} / {found.old.p95} ms",
        "latency p50/p95, mapped": f"{found.mapped.p50} / {found.mapped.p95} ms",
    }
    if found.judged:
        rows |= {
            f"R@{k} before": found.before,
            f"R@{k} after": found.after,
            "change": found.change,
            "negative / positive flips": f"{found.negative_flips:.1%} / {found.positive_flips:.1%}",
        }
    print_rows(rows)


def cutover_command(
    folder: FolderArgument,
    force: Annotated[
        str | None, typer.Option(help="Do it although nothing shows that it helps; the reason is recorded.")
    ] = None,
    json_: JsonFlag = False,
) -> None:
    """Let searches go through the adapter from now on.

    Refused unless held-out queries show that searches become better, and logged ones were shadowed.
    """
    from crossfade.upgrading import Upgrade, cutover

    upgrade = Upgrade.open(folder)
    with upgrade.store() as store:
        cutover(upgrade, store, force=force)
    _say(upgrade.state.now().stage, upgrade.state.now().serving, json_)


def backfill_command(
    folder: FolderArgument,
    encoder: Annotated[str, typer.Option("--encoder", "-e", help="The new model.")],
    data: ItemsOption,
    order: Annotated[
        Literal["uncertain", "queried", "random"] | None,
        typer.Option(help="Which rows first; looked at when it begins. By default queried where --queries are given."),
    ] = None,
    ids: Annotated[
        Path | None, typer.Option(help="In place of --order: a file of ids, one a line, which come first.")
    ] = None,
    queries: Annotated[
        Path | None, typer.Option(help="Logged queries by the new model, for the merge and for the order queried.")
    ] = None,
    batch: Annotated[int, typer.Option(help="Rows at a time.", min=1)] = 256,
    rate: Annotated[float | None, typer.Option(help="Rows a second, at most.")] = None,
    limit: Annotated[int | None, typer.Option(help="Rows that are encoded in this run, at most: the budget.")] = None,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    json_: JsonFlag = False,
) -> None:
    """Give rows native vectors, most urgent first; go on with what was begun.

    The gallery is mixed meanwhile, and every search of it is right. Run it again after ctrl-C, a kill, a pause or a limit.
    """
    from crossfade.embeddings import Embeddings
    from crossfade.encoders import load_encoder
    from crossfade.errors import SpaceMismatch
    from crossfade.upgrading import Pace, Upgrade, backfill
    from crossfade.upgrading.items import embedder, native_ids

    upgrade = Upgrade.open(folder)
    model = load_encoder(encoder, device=device)
    if model.space != upgrade.new:
        raise SpaceMismatch(f"Backfilling writes vectors of {upgrade.new}; {model.space} was given. Name that model.")
    with upgrade.store() as store:
        wanted: Order | Sequence[str | int] | None = order
        if ids is not None:
            from crossfade.embeddings.core import as_ids

            wanted = native_ids(as_ids(ids.read_text(encoding="utf-8").split("\n")[:-1]), store)
        done = backfill(
            upgrade,
            store,
            embedder(data, store, model, upgrade.modality),
            order=wanted,
            queries=None if queries is None else Embeddings.load(queries),
            pace=Pace(batch=batch, rate=rate, limit=limit),
            seed=seed,
            progress=True,
        )
    told = {"encoded": done.encoded, "waiting": done.waiting, "failed": done.failed, "stopped": done.why}
    print_json({**told, "stage": upgrade.state.now().stage}) if json_ else print_rows(told)


def finish_command(
    folder: FolderArgument,
    drop_old: Annotated[
        bool, typer.Option("--drop-old", help="Drop the old field with its vectors; there is no rollback afterwards.")
    ] = False,
    keep_mixed: Annotated[
        bool, typer.Option("--keep-mixed", help="Also where rows have no native vector; searches stay mixed.")
    ] = False,
    unindexed: Annotated[
        bool, typer.Option("--unindexed", help="Also where the old field has an index and the new one has none.")
    ] = False,
    json_: JsonFlag = False,
) -> None:
    """End the upgrade: searches ask the new field alone, or the adapter for good where nothing was backfilled."""
    from crossfade.upgrading import Upgrade, finish

    upgrade = Upgrade.open(folder)
    with upgrade.store() as store:
        finish(upgrade, store, drop_old=drop_old, keep_mixed=keep_mixed, unindexed=unindexed)
    _say(upgrade.state.now().stage, upgrade.state.now().serving, json_)


def rollback_command(
    folder: FolderArgument,
    reason: ReasonOption,
    drop_new: Annotated[bool, typer.Option("--drop-new", help="Drop the new field with its vectors.")] = False,
    json_: JsonFlag = False,
) -> None:
    """Let searches be as before the upgrade, at once; what was written meanwhile stays.

    The pointer is moved first: also where the store does not answer.
    """
    from crossfade.errors import StoreError
    from crossfade.upgrading import Upgrade, rollback

    upgrade = Upgrade.open(folder)
    rollback(upgrade, reason=reason)
    try:
        with upgrade.store() as store:
            rollback(upgrade, store, reason=reason, drop_new=drop_new)
    except StoreError as error:
        typer.echo(f"searches are rolled back; the collection still holds the upgrade's note: {error}", err=True)
    _say(upgrade.state.now().stage, upgrade.state.now().serving, json_)


def _evaluation(adapter: str, path: Path | None) -> Evaluation | None:
    from crossfade.evaluation.result import Evaluation
    from crossfade.files import read_json

    if path is not None:
        return Evaluation.from_dict(read_json(path))
    saved = read_json(Path(adapter) / "config.json").get("metrics") if Path(adapter).is_dir() else None
    return None if saved is None else Evaluation.from_dict(saved)


def _right(path: Path | None, queries: Embeddings) -> dict[str, list[str]] | None:
    if path is None:
        return None
    from crossfade.embeddings.collection import read_links

    found: dict[str, list[str]] = {}
    for text, image in read_links(path):
        query, row = (text, image) if queries.modality == "text" else (image, text)
        found.setdefault(query, []).append(row)
    return found


def _shown(estimate: tuple[float, float, float] | None) -> str:
    return "not measured" if estimate is None else f"{estimate[0]:.3f} [{estimate[1]:.3f}, {estimate[2]:.3f}]"


def _say(stage: str, serving: str, json_: bool) -> None:
    if json_:
        print_json({"stage": stage, "searches": serving})
    else:
        typer.echo(f"the upgrade is {stage}; searches are {serving}")
