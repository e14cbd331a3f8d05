"""The steps of an upgrade, each of which can be killed at any moment and be taken again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from crossfade.embeddings import Embeddings
from crossfade.encoding.folder import exclusive
from crossfade.encoding.progress import ProgressOption
from crossfade.errors import ConfigError, EncoderError, StoreChanged, StoreError, UpgradeRefused
from crossfade.spaces import require_same
from crossfade.stores import Id, Store
from crossfade.two_stage.items import Embed
from crossfade.upgrading.backfilling import ROUNDS, Backfilled, Pace, Worker
from crossfade.upgrading.planning import require_allowed
from crossfade.upgrading.shadowing import Shadow, shadow_glimpses, shadow_queries
from crossfade.upgrading.stages import Stage, require_step
from crossfade.upgrading.starting import Order, order_rows, prepare
from crossfade.upgrading.upgrade import Upgrade
from crossfade.upgrading.writing import OLD_DROPPED

__all__ = ["backfill", "cutover", "finish", "rollback", "shadow", "status"]

SAMPLE = 1000
"""Rows that are encoded first, to choose the merge and the order by."""

AS_FAST_AS_IT_GOES = Pace()

INTENDED, PREPARED = "new field intended", "prepared"
"""Facts by which a beginning that was killed goes on."""


def shadow(
    upgrade: Upgrade,
    store: Store,
    *,
    old: Embeddings | None = None,
    new: Embeddings | None = None,
    k: int = 10,
    right: Mapping[str, Sequence[str]] | None = None,
    seed: int = 0,
) -> Shadow:
    """Answer logged queries both ways, record what differs, and take the collection for this upgrade.

    Without logged queries it records what live ones showed, which a searcher answered both ways.

    Args:
        upgrade: planned, shadowed or rolled back.
        store: its collection.
        old: logged queries by the old model.
        new: the same by the new one.
        k: rows for each.
        right: query → the ids of right rows, where they are known.
        seed: of the intervals.

    Raises:
        UpgradeRefused: it is cut over already, or another upgrade has the collection.
        ConfigError: queries by one model alone.
    """
    if (old is None) != (new is None):
        raise ConfigError("A shadow compares the same queries by both models; those of one alone were given.")
    require_step(upgrade.state.now().stage, "shadowed")
    require_unchanged(upgrade, store)
    upgrade.claim(store)
    if old is None or new is None:
        found = shadow_glimpses(upgrade, seed=seed)
    else:
        found = shadow_queries(upgrade, store, old=old, new=new, k=k, right=right, seed=seed)
    upgrade.state.move("shadowed", step="shadow", metrics=found.to_dict())
    return found


def cutover(upgrade: Upgrade, store: Store, *, force: str | None = None) -> None:
    """Let searches go through the adapter from now on; nothing is written to the collection but the claim.

    Args:
        upgrade: shadowed, or forced.
        store: its collection.
        force: the reason to do it although nothing shows that it helps, or without a shadow; it is recorded.

    Raises:
        UpgradeRefused: held-out queries do not show that searches become better, or it was not shadowed.
    """
    if force is not None and not force.strip():
        raise ConfigError("A cutover is forced with a reason, which is recorded; found an empty one.")
    stage = upgrade.state.now().stage
    require_step(stage, "cut over")
    require_unchanged(upgrade, store)
    allowed: dict[str, Any] = {"forced": force is not None}
    if force is None:
        allowed["quality"] = [asdict(each) for each in require_allowed(upgrade)]
        if stage == "planned":
            raise UpgradeRefused(
                "A cutover follows a shadow, which shows on logged queries what will differ; there was none. Take it, or force "
                "the cutover with a reason."
            )
    upgrade.claim(store)
    probe = upgrade.adapter.map(np.ones((1, upgrade.new.dimension), dtype=np.float32), upgrade.modality)
    store.search(probe, field=upgrade.old_field, k=1, metric=upgrade.old.metric)  # it can be asked that way at all
    upgrade.state.move("cut over", step="cutover", reason=force or "", metrics=allowed)


def backfill(
    upgrade: Upgrade,
    store: Store,
    embed: Embed,
    *,
    order: Order | Sequence[Id] | None = None,
    queries: Embeddings | None = None,
    pace: Pace = AS_FAST_AS_IT_GOES,
    sample: int = SAMPLE,
    seed: int = 0,
    progress: ProgressOption = False,
) -> Backfilled:
    """Give rows native vectors, beginning or going on; the gallery is mixed meanwhile, and searched as such.

    Args:
        upgrade: cut over, or backfilling.
        store: its collection.
        embed: ids → the new model's vectors.
        order: of the rows: ``uncertain`` first, most ``queried`` first, ``random``, or ids, and the others after them;
            looked at when it begins. By default ``queried`` where there are queries, else ``uncertain``.
        queries: logged queries in the new space: by them the merge is chosen, and the order ``queried`` made.
        pace: how fast, and how far in this run.
        sample: rows that are encoded first, to choose the merge and the order by.
        seed: of what is drawn.
        progress: shown on stderr, or what is called with each.

    Returns:
        What this run did; ``why`` is ``done`` where every row has its native vector, and ``overtaken`` where the application
        goes on writing old vectors faster than sweeps find none.

    Raises:
        UpgradeRefused: it is not cut over.
        ConfigError: another process is at work on it.
        StoreChanged: the collection is no longer the one that was planned for.
        EncoderError: the model failed, or no item of the sample could be encoded.
        Unsupported: the store cannot hold a second vector field.
    """
    store.require("write", "second_field", "notes")
    with exclusive(upgrade.folder):
        require_unchanged(upgrade, store)
        upgrade.claim(store)
        worker = Worker(upgrade, store, embed, pace)
        chosen = order or ("uncertain" if queries is None else "queried")
        stage = upgrade.state.now().stage
        if stage != "backfilling":
            require_step(stage, "backfilling")
        if stage == "cut over":
            begun = _begin(upgrade, store, worker, chosen, queries, sample, seed, progress)
            if begun is not None:
                return begun
        elif stage == "backfilled":
            upgrade.state.enqueue(upgrade.state.settled("failed"), anew=True)
            upgrade.state.move("backfilling", step="backfill")
        elif upgrade.state.now().paused:
            upgrade.state.pause("")
        done = worker.queue(progress=progress)
        for _ in range(ROUNDS):
            if done.why != "done":
                return done
            if worker.sweep() == 0:
                upgrade.state.move("backfilled", step="backfill", metrics={"rows": upgrade.state.counts()})
                return done
            done = worker.queue(progress=progress)
        return replace(done, why="overtaken")


def finish(
    upgrade: Upgrade,
    store: Store,
    *,
    drop_old: bool = False,
    keep_mixed: bool = False,
    unindexed: bool = False,
) -> None:
    """End an upgrade: searches ask the new field alone, or the adapter for good where nothing was backfilled.

    Args:
        upgrade: backfilled, or cut over; or finished, to drop the old field later.
        store: its collection.
        drop_old: drop the old field with its vectors; there is no rollback afterwards.
        keep_mixed: also where rows have no native vector; searches then stay mixed.
        unindexed: also where the old field has an index and the new one has none.

    Raises:
        UpgradeRefused: rows have no native vector, which searches would not find any more; or there is no index on the new
            field, so that each search would compare every row.
        StoreChanged: the collection is no longer the one that was upgraded.
    """
    moment = upgrade.state.now()
    if moment.stage != "finished":
        require_step(moment.stage, "finished")
    require_unchanged(upgrade, store)
    if drop_old and (keep_mixed or "cut over" in (moment.stage, _finished_from(upgrade))):
        raise ConfigError(
            "The old field is what searches ask where not every row has a native vector; it is not dropped."
        )
    if moment.stage == "cut over":
        upgrade.state.move("finished", step="finish", serving="mapped")
    elif moment.stage == "backfilled":
        without = store.count(lacking=upgrade.new_field)
        if without and not keep_mixed:
            raise UpgradeRefused(
                f"{without} rows have no native vector, and searches of the new field would not find them. Backfill again, "
                "delete them, or finish with searches that stay mixed (--keep-mixed)."
            )
        if not unindexed and _indexes(upgrade, store) == (True, False):
            raise UpgradeRefused(
                f"The field {upgrade.old_field!r} of {store.address} has an index and {upgrade.new_field!r} has none, so that "
                "every search would compare each row. Make one as for the other field, and finish then; or finish without "
                "(--unindexed)."
            )
        upgrade.state.move(
            "finished", step="finish", metrics={"without": without}, serving="mixed" if without else "native"
        )
    if drop_old:
        store.require("second_field")
        if upgrade.state.now().serving != "native":
            raise ConfigError("The old field is still asked, since rows have no native vector; it is not dropped.")
        upgrade.state.note(OLD_DROPPED, True)
        if upgrade.old_field in store.describe().fields:
            store.drop_field(upgrade.old_field)
    upgrade.release(store)


def rollback(upgrade: Upgrade, store: Store | None = None, *, reason: str, drop_new: bool = False) -> None:
    """Let searches be as before the upgrade, by one write to the pointer; what was written meanwhile stays.

    Args:
        upgrade: cut over or later.
        store: its collection, to give it back; None where it cannot be reached: searches are rolled back all the same.
        reason: recorded.
        drop_new: drop the new field with its vectors.

    Raises:
        UpgradeRefused: there is nothing to roll back, or the old field is dropped.
        StoreError: the collection cannot be reached; searches are rolled back all the same.
    """
    if not reason.strip():
        raise ConfigError("A rollback has a reason, which is recorded; found an empty one.")
    if upgrade.state.fact(OLD_DROPPED):
        raise UpgradeRefused(
            "The old field was dropped when the upgrade was finished; nothing can be rolled back to it."
        )
    if upgrade.state.now().stage != "rolled back":
        upgrade.state.move("rolled back", step="rollback", reason=reason)
    if store is None:
        return
    try:
        if drop_new and upgrade.new_field in store.describe().fields:
            store.drop_field(upgrade.new_field)
        upgrade.release(store)
    except StoreError as error:
        error.add_note("Searches are rolled back all the same; run the rollback again when the collection is there.")
        raise


def status(upgrade: Upgrade, store: Store | None = None) -> dict[str, Any]:
    """Where an upgrade stands, as JSON values; with the collection also how many rows have no native vector."""
    moment = upgrade.state.now()
    found = {**upgrade.facts(), "stage": moment.stage, "searches": moment.serving, "paused": moment.paused}
    counts = upgrade.state.counts()
    if counts:
        found["queue"] = {name or "waiting": count for name, count in counts.items()}
        found["merge"] = upgrade.state.fact("merge")
    if store is not None:
        found["rows"] = store.count()
        if upgrade.new_field in store.describe().fields:
            found["without native vector"] = store.count(lacking=upgrade.new_field)
            if _indexes(upgrade, store) == (True, False):
                found["index"] = f"none on {upgrade.new_field!r} yet: its rows are compared each"
    return found


def _indexes(upgrade: Upgrade, store: Store) -> tuple[bool | None, bool | None]:
    """Whether the old field and the new one have an index."""
    if upgrade.state.fact(OLD_DROPPED):
        return None, None
    old, new = (upgrade.old_field, upgrade.old.metric), (upgrade.new_field, upgrade.new.metric)
    return store.indexed(*old), store.indexed(*new)


def require_unchanged(upgrade: Upgrade, store: Store) -> None:
    """Refuse a collection that is no longer the one that was planned for.

    Raises:
        StoreChanged: a field that is searched is gone, has another dimension, or is no longer registered.
        SpaceMismatch: it is registered with another space.
    """
    fields = store.describe().fields
    searched = {} if upgrade.state.fact(OLD_DROPPED) else {upgrade.old_field: upgrade.old}
    if upgrade.state.now().serving in ("mixed", "native"):
        searched[upgrade.new_field] = upgrade.new
    for field, space in searched.items():
        if field not in fields or fields[field].dimension != space.dimension:
            found = f"one of {fields[field].dimension} dimensions" if field in fields else "no such field"
            way = "" if field == upgrade.old_field else ", or roll back with --drop-new, cut over and backfill again"
            raise StoreChanged(
                f"{store.address} had a field {field!r} of {space.dimension} dimensions when the upgrade came here; now there "
                f"is {found}. Find out who changed it, and bring it back{way}; nothing was done."
            )
        known = store.space(field)
        if known is None and not store.capabilities.notes:
            continue
        if known is None:
            raise StoreChanged(
                f"{store.address} had a note that its field {field!r} holds vectors of {space}; now there is none, as in a "
                "collection that was made anew under the same name. If it does hold them, register it: crossfade upgrade "
                "register. Nothing was done."
            )
        require_same(
            known, space, what=f"The vectors of {field!r}", hint="The field was registered anew: make a new plan."
        )


def _begin(
    upgrade: Upgrade,
    store: Store,
    worker: Worker,
    order: Order | Sequence[Id],
    queries: Embeddings | None,
    sample: int,
    seed: int,
    progress: ProgressOption,
) -> Backfilled | None:
    """Add the field, encode the sample, choose the merge, make the queue, and only then let searches look at the new field.

    Returns:
        None where backfilling is under way; else what stopped it before that.
    """
    state, new = upgrade.state, upgrade.new_field
    if queries is not None:
        require_same(queries.space, upgrade.new, what="The logged queries")
    if new not in store.describe().fields:
        state.note(INTENDED, True)
        store.add_field(new, dimension=upgrade.new.dimension, metric=upgrade.new.metric)
    elif not state.fact(INTENDED):
        raise ConfigError(f"{store.address} has a field {new!r} that this upgrade did not add. Plan with another name.")
    store.register(new, upgrade.new, upgrade.modality)
    if state.fact(PREPARED) is None:
        if not state.counts():
            ids = [id_ for rows in store.scan() for id_ in rows.ids]
            drawn = np.random.default_rng(seed).permutation(len(ids))[:sample]
            state.enqueue([ids[place] for place in drawn])
        done = worker.queue(progress=progress)
        if done.why != "done":
            return done
        if done.failed and not state.settled("done"):
            state.enqueue(state.settled("failed"), anew=True)
            raise EncoderError(
                f"None of the first {done.failed} items could be encoded. Do the ids of the items match those of "
                f"{store.address}? Searches are as they were; give the right items, and run it again."
            )
        sampled = store.fetch(state.settled("done"), fields=[upgrade.old_field, new])
        measured = prepare(upgrade, sampled, queries, seed=seed)
        state.enqueue(order_rows(order, upgrade, store, sampled, queries, seed=seed))
        state.note(PREPARED, measured)
    state.move("backfilling", step="backfill", metrics={"measured": state.fact(PREPARED), "merge": state.fact("merge")})
    return None


def _finished_from(upgrade: Upgrade) -> Stage | None:
    """The stage from which an upgrade was finished."""
    steps = [each for each in upgrade.state.history() if each.after == "finished" and each.before != "finished"]
    return steps[-1].before if steps else None
