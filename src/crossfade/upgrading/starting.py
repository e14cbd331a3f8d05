"""The beginning of backfilling: a sample that both models know, by which merging is chosen and the order is made.

The sample's native vectors are the first that are written. With them is measured how a mixed gallery is best merged: the
sample is cut into a background and a gallery; of that a share has native vectors and the rest is compared through the
adapter, and of each query is looked where the mixture has the row that a full re-index of the same rows puts first::

    1 / the place in the mixture of the first row of new/new                      mean over queries and mixtures      (1)

Each mixture comes with its opposite, in which the other rows have native vectors: so each query's row is native in one half
of them, and which rows a share fell on says nothing. The merge ``standardised`` is taken unless another one is above it by 0.02
or more, and by three standard errors over the rows that come first, with all queries that have one of them in common: the
sample's rows are a draw, too, and three merges are compared.

The order *uncertain* backfills first what the adapter is expected to place worst. With o a stored vector, n the native one of
a sampled row, and i(o) its isolation, the negated mean cosine to the five nearest other rows of the sample, the error
e = ‖A(n) − o‖² is regressed on i and, by ridge, on o; rows are taken by falling ê (after FastFill, 2303.04766, §3.2, whose ψ is
a network trained with the map; a regression on a sample, fitted afterwards, is our choice)::

    ê(o) = a·i(o) + w·o + c                                                                                          (2)

The order *queried* takes rows by how many of the logged queries have them among their fifty best, through the adapter.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from crossfade.embeddings import Embeddings
from crossfade.errors import ConfigError
from crossfade.files import write_npy
from crossfade.methods.base import Adapter
from crossfade.spaces import Modality
from crossfade.stores import Hits, Id, Records, Store
from crossfade.upgrading.merging import MERGES, Background, Merge, comparable, merged
from crossfade.upgrading.scoring import compared, scores
from crossfade.upgrading.upgrade import BACKGROUND, Upgrade

__all__ = ["ORDERS", "Order", "Uncertainty", "choose_merge", "isolation", "order_rows", "reciprocal_places"]

Floats = npt.NDArray[np.float32]
Values = npt.NDArray[np.float64]

Order = Literal["uncertain", "queried", "random"]
ORDERS: tuple[Order, ...] = get_args(Order)

SHARES, DRAWS = (0.25, 0.5), 3
"""Of the rows that have native vectors in a mixture, and in its opposite the rest; and how often each is drawn."""

QUERIES = 1000
DEPTH = 50
"""Rows of each logged query that count as queried: what is right is often not among the first ten yet."""
RIDGE = 10.0
"""Of w in (2), times the mean variance of o."""
NEAREST = 5
SURELY, CLEARLY = 3.0, 0.02
"""Standard errors, and difference in (1), from which on another merge is taken."""

SMALLEST = 40
"""Rows with both vectors, below which nothing is measured and parts are merged by ranks."""


@dataclass(frozen=True, eq=False, slots=True)
class _Both:
    """Rows that have both vectors."""

    old: Floats
    new: Floats

    @classmethod
    def of(cls, records: Records, upgrade: Upgrade) -> _Both:
        old, new = records.vectors[upgrade.old_field], records.vectors[upgrade.new_field]
        there = old.present & new.present
        return cls(old.values[there], new.values[there])


def prepare(upgrade: Upgrade, sampled: Records, queries: Embeddings | None, *, seed: int) -> dict[str, float]:
    """Choose the merge and keep the background, in the upgrade's folder.

    Args:
        upgrade: whose sample it is.
        sampled: rows with both fields.
        queries: logged queries in the new space; without any, the sample's own rows ask.
        seed: of what is drawn.

    Returns:
        (1) for each merge; empty where the sample is too small to measure.
    """
    both = _Both.of(sampled, upgrade)
    if len(both.old) < SMALLEST:
        upgrade.state.note("merge", "ranks")
        return {}
    for side in ("old", "new"):
        write_npy(upgrade.folder / f"{BACKGROUND}-{side}.npy", getattr(both, side))
    half = len(both.old) // 2
    old, new = compared(both.old, upgrade.old), compared(both.new, upgrade.new)
    background, gallery = Background(old[:half], new[:half]), Background(old[half:], new[half:])
    asked, modality = (both.new[:half], upgrade.modality) if queries is None else (queries.matrix(), queries.modality)
    found, first = reciprocal_places(
        upgrade.adapter, _distinct(asked)[:QUERIES], modality, gallery, background, seed=seed
    )
    upgrade.state.note("merge", choose_merge(found, first))
    return {str(kind): float(values.mean()) for kind, values in found.items()}


def _distinct(vectors: Floats) -> Floats:
    """Each vector once, in the order of their first appearance: a log repeats what is popular."""
    first = np.unique(vectors, axis=0, return_index=True)[1]
    return vectors[np.sort(first)]


def choose_merge(found: Mapping[Merge, Values], first: npt.NDArray[np.int64]) -> Merge:
    """The merge with the largest (1) of those that are surely and clearly above ``standardised``; else that one.

    Args:
        found: merge → [q] values of (1) by query.
        first: [q] which row comes first in new/new.
    """

    def surely(kind: Merge) -> bool:
        above = found[kind] - found["standardised"]
        sums = np.bincount(np.unique(first, return_inverse=True)[1], weights=above - above.mean())
        if len(sums) < 2:
            return False
        error = np.sqrt(len(sums) / (len(sums) - 1) * (sums**2).sum()) / len(above)
        return bool(above.mean() > max(CLEARLY, SURELY * error))

    better = [kind for kind in MERGES if kind != "standardised" and surely(kind)]
    return max(better, key=lambda kind: float(found[kind].mean()), default="standardised")


def reciprocal_places(
    adapter: Adapter, queries: Floats, modality: Modality, gallery: Background, background: Background, *, seed: int
) -> tuple[dict[Merge, Values], npt.NDArray[np.int64]]:
    """(1) for each merge, [q] means over the mixtures; and [q] which row of the gallery comes first in new/new.

    Args:
        adapter: new → old.
        queries: float32 [q, d_new].
        modality: of the queries.
        gallery: rows with both vectors.
        background: others.
        seed: of the rows that count as backfilled.
    """
    new, old = adapter.source, adapter.target
    mapped = adapter.map(queries, modality)
    s, t = np.stack(scores(queries, gallery.new, new)), np.stack(scores(mapped, gallery.old, old))
    s_b, t_b = scores(queries, background.new, new), scores(mapped, background.old, old)
    first = np.argmax(s, axis=1)
    scored: dict[Merge, Floats] = {
        kind: np.stack([comparable(kind, t[q], native=s_b[q], mapped=t_b[q]) for q in range(len(queries))])
        for kind in MERGES
        if kind != "ranks"
    }
    found: dict[Merge, Values] = {kind: np.zeros(len(queries)) for kind in MERGES}
    for native in _mixtures(len(gallery.new), np.random.default_rng(seed)):
        weight = 1.0 / (2 * DRAWS * len(SHARES))
        for kind, each in scored.items():
            mixture = np.where(native, s, each)
            before = mixture > np.take_along_axis(mixture, first[:, None], axis=1)
            found[kind] += weight / (1 + before.sum(axis=1))
        for q in range(len(queries)):
            hits = merged("ranks", _best(s[q], native), _best(t[q], ~native), k=len(native), share=float(native.mean()))
            found["ranks"][q] += weight / (1 + hits.ids.index(int(first[q])))
    return found, first


def _mixtures(count: int, generator: np.random.Generator) -> Iterator[npt.NDArray[np.bool_]]:
    """Which rows have native vectors: each draw, and its opposite."""
    for share in SHARES:
        for _ in range(DRAWS):
            native = np.zeros(count, dtype=bool)
            native[generator.permutation(count)[: int(share * count)]] = True
            yield native
            yield ~native


def order_rows(
    order: Order | Sequence[Id],
    upgrade: Upgrade,
    store: Store,
    sampled: Records,
    queries: Embeddings | None,
    *,
    seed: int,
) -> list[Id]:
    """Every row of the collection in the order in which it is to be backfilled.

    Args:
        order: ``uncertain`` first, most ``queried`` first, ``random``; or ids, and the others after them at random.
        upgrade: whose rows they are.
        store: the collection.
        sampled: rows with both fields.
        queries: logged queries in the new space, for ``queried``.
        seed: of what is drawn.

    Raises:
        ConfigError: the order needs what is not given.
    """
    ids: list[Id] = []
    worth: list[Values] = []
    both = _Both.of(sampled, upgrade) if order == "uncertain" else None
    error = None
    if both is not None and len(both.old) >= SMALLEST:
        error = Uncertainty.fitted(upgrade.adapter, both.old, both.new, upgrade.modality)
    for rows in store.scan(fields=[upgrade.old_field] if error is not None else []):
        ids += rows.ids
        if error is not None:
            worth.append(error(rows.vectors[upgrade.old_field].values))
    places = np.random.default_rng(seed).permutation(len(ids))
    if worth:
        places = np.argsort(-np.concatenate(worth), kind="stable")
    shuffled = [ids[place] for place in places]
    if not isinstance(order, str):
        known = set(ids)
        return list(dict.fromkeys([*(id_ for id_ in order if id_ in known), *shuffled]))
    if order == "queried":
        if queries is None:
            raise ConfigError(
                "The order 'queried' needs logged queries, in the new model's vectors. Give them, or another."
            )
        return list(dict.fromkeys([*_queried(upgrade, store, queries), *shuffled]))
    return shuffled


@dataclass(frozen=True, eq=False, slots=True)
class Uncertainty:
    """ê of (2), up to c.

    Attributes:
        sample: [n, d_old] stored vectors of the sample, of unit norm.
        a: of the isolation.
        w: [d_old] of the vector.
    """

    sample: Values
    a: float
    w: Values

    @classmethod
    def fitted(cls, adapter: Adapter, old: Floats, new: Floats, modality: Modality) -> Uncertainty:
        """Fitted on a sample.

        Args:
            adapter: new → old.
            old: float32 [n, d_old].
            new: float32 [n, d_new], of the same rows.
            modality: of the rows.
        """
        o = old.astype(np.float64)
        units = _units(o)
        e = ((adapter.map(new, modality).astype(np.float64) - o) ** 2).sum(axis=1)
        features = np.column_stack([isolation(units, units, own=True), o])
        centred = features - features.mean(axis=0)
        penalty = np.full(features.shape[1], RIDGE * o.var(axis=0).mean() * len(o))
        penalty[0] = 0.0
        found = np.linalg.lstsq(  # ridge as least squares on extra rows √penalty·x = 0, which is well conditioned
            np.vstack([centred, np.diag(np.sqrt(penalty))]),
            np.concatenate([e - e.mean(), np.zeros(len(penalty))]),
            rcond=None,
        )[0]
        return cls(units, float(found[0]), found[1:])  # Eq. (2)

    def __call__(self, old: Floats) -> Values:
        """[m] for stored vectors [m, d_old]."""
        o = old.astype(np.float64)
        expected: Values = self.a * isolation(_units(o), self.sample) + o @ self.w
        return expected


def isolation(units: Values, sample: Values, *, own: bool = False) -> Values:
    """i: the negated mean cosine to the nearest rows of the sample.

    Args:
        units: [m, d] of unit norm.
        sample: [n, d] likewise.
        own: whether the rows are those of the sample: each is then no neighbour of its own.
    """
    cosines = units @ sample.T
    if own:
        np.fill_diagonal(cosines, -np.inf)
    nearest = np.partition(cosines, -NEAREST, axis=1)[:, -NEAREST:]
    isolated: Values = -nearest.mean(axis=1)
    return isolated


def _units(vectors: Values) -> Values:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    units: Values = np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)
    return units


def _queried(upgrade: Upgrade, store: Store, queries: Embeddings) -> list[Id]:
    """Rows by how often they are among the best of logged queries, through the adapter."""
    times: dict[Id, int] = {}
    for block in queries.blocks(256):
        mapped = upgrade.adapter.map(block.matrix, queries.modality)
        for hits in store.search(mapped, field=upgrade.old_field, k=DEPTH, metric=upgrade.old.metric):
            for id_ in hits.ids:
                times[id_] = times.get(id_, 0) + 1
    return sorted(times, key=lambda id_: -times[id_])


def _best(values: Floats, rows: npt.NDArray[np.bool_]) -> Hits:
    places = np.flatnonzero(rows)
    order = places[np.argsort(-values[places], kind="stable")]
    return Hits(order.tolist(), values[order].astype(np.float32))
