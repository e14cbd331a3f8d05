"""Pairs from what is stored: old vectors are read, their items are encoded by the new model; the old one may be gone."""

from __future__ import annotations

import numpy as np

from crossfade.embeddings import Embeddings
from crossfade.embeddings.core import as_ids
from crossfade.errors import ConfigError, EncoderError
from crossfade.pairing import Pairs, Side, pair
from crossfade.spaces import Space
from crossfade.stores import Id, Store
from crossfade.two_stage.items import Embed, embed_all

__all__ = ["pairs_from_store", "sample_ids"]

BATCH = 256


def sample_ids(store: Store, count: int, *, by: str | None = None, seed: int = 0) -> list[Id]:
    """Ids of rows drawn at random.

    Args:
        store: the collection.
        count: how many, at most.
        by: a column: its values get equal shares, as far as there are rows; a row without a value is of a value of its own.
        seed: of the draw; it depends on the order in which the store gives its rows.

    Raises:
        ConfigError: the count is below 1, or the collection is empty.
    """
    if count < 1:
        raise ConfigError(f"A sample has at least 1 row; found {count}.")
    strata: dict[object, list[Id]] = {}
    for rows in store.scan(columns=[by] if by else []):
        values = rows.columns[by] if by else [None] * len(rows)
        for id_, value in zip(rows.ids, values, strict=True):
            strata.setdefault(value, []).append(id_)
    if not strata:
        raise ConfigError(f"{store.address} has no rows to sample.")
    generator = np.random.default_rng(seed)
    drawn = [[ids[place] for place in generator.permutation(len(ids))] for ids in strata.values()]
    rounds = max(len(ids) for ids in drawn)
    turn = (ids[number] for number in range(rounds) for ids in drawn if number < len(ids))  # one of each value in turn
    return [id_ for _, id_ in zip(range(count), turn, strict=False)]


def pairs_from_store(
    store: Store,
    field: str,
    embed: Embed,
    space: Space,
    *,
    count: int,
    by: str | None = None,
    seed: int = 0,
    queries: Side = (),
) -> Pairs:
    """Pairs of stored old vectors and the new model's.

    Args:
        store: the collection; the field must be registered.
        field: that is searched now.
        embed: ids → the new model's vectors.
        space: of these.
        count: rows that are sampled.
        by: a column whose values get equal shares.
        seed: of the sample.
        queries: logged ones by the new model; see :func:`crossfade.pair`.

    Raises:
        EncoderError: no item could be encoded.
    """
    rows = store.fetch(sample_ids(store, count, by=by, seed=seed), fields=[field])
    old = store.embeddings(rows, field)
    ids, parts, fine = old.ids, [], []
    for start in range(0, len(ids), BATCH):
        made = embed_all(embed, as_ids(ids[start : start + BATCH]), space)
        parts.append(made.vectors)
        fine.append(made.fine)
    able = np.flatnonzero(np.concatenate(fine))
    if not len(able):
        raise EncoderError(
            f"None of {len(ids)} sampled items could be encoded. Do the ids of the items match those of {store.address}?"
        )
    new = Embeddings(ids[able], np.concatenate(parts)[able], space, old.modality)
    return pair(old.select(able), new, queries=queries)
