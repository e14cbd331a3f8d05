"""Two-stage search of a live collection: candidates as the upgrade finds them, re-ranked by the new model's own vectors.

As :mod:`crossfade.two_stage` on stored embeddings, equations there. A candidate's native vector is the one that backfilling
wrote; else one that is cached; else its item is encoded now. A cached vector belongs to the content that the item had: its key
is the id and the stamp of the old vector, so that a changed item is encoded anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import numpy as np
import numpy.typing as npt

from crossfade.embeddings.core import as_ids
from crossfade.errors import ConfigError
from crossfade.spaces import require_same
from crossfade.stores import Hits, Id, Store
from crossfade.two_stage.cache import VectorCache
from crossfade.two_stage.items import Embed, embed_all
from crossfade.upgrading.scoring import compared, scores
from crossfade.upgrading.stamping import stamps_of

if TYPE_CHECKING:
    from crossfade.upgrading.upgrade import Upgrade

__all__ = ["Reranker"]

Floats = npt.NDArray[np.float32]

BATCH = 256


@final
class Reranker:
    """Re-ranks what the first stage finds.

    Args:
        embed: ids → the new model's vectors (:data:`crossfade.two_stage.Embed`).
        candidates: N, rows that are recalled for each query.
        cache: where vectors that had to be made are kept; without one they are made anew at every search.

    Raises:
        ConfigError: N is below 1.
    """

    def __init__(self, embed: Embed, *, candidates: int = 100, cache: VectorCache | None = None) -> None:
        if candidates < 1:
            raise ConfigError(f"Two stages re-rank at least 1 candidate; found {candidates}.")
        self.candidates = candidates
        self._embed, self._cache = embed, cache

    def ranked(self, upgrade: Upgrade, store: Store, queries: Floats, recalled: list[Hits], k: int) -> list[Hits]:
        """The candidates in the order of the new space; those without a vector behind them, in their own order.

        Args:
            upgrade: whose new space it is.
            store: the collection.
            queries: float32 [q, d_new].
            recalled: the candidates of each, best first.
            k: how many to return.

        Raises:
            SpaceMismatch: the cache is of another space.
        """
        if self._cache is not None:
            require_same(self._cache.space, upgrade.new, what="The cached vectors")
        ids = list(dict.fromkeys(id_ for hits in recalled for id_ in hits.ids))
        vectors = self._vectors(upgrade, store, ids)
        return [self._one(query, hits, vectors, upgrade, k) for query, hits in zip(queries, recalled, strict=True)]

    def _one(self, query: Floats, hits: Hits, vectors: dict[Id, Floats], upgrade: Upgrade, k: int) -> Hits:
        able = [id_ for id_ in hits.ids if id_ in vectors]
        found = np.empty(0, dtype=np.float32)
        if able:
            rows = compared(np.stack([vectors[id_] for id_ in able]), upgrade.new)
            (found,) = scores(query[None], rows, upgrade.new)
        order = np.argsort(-found, kind="stable")
        rest = [id_ for id_ in hits.ids if id_ not in vectors]
        values = np.concatenate([found[order], np.full(len(rest), np.nan, dtype=np.float32)])
        return Hits([*(able[place] for place in order), *rest][:k], values[:k].astype(np.float32))

    def _vectors(self, upgrade: Upgrade, store: Store, ids: list[Id]) -> dict[Id, Floats]:
        """id → its vector in the new space, of those that have one."""
        if not ids:
            return {}
        fields = [name for name in (upgrade.old_field, upgrade.new_field) if name in store.shape.fields]
        rows = store.fetch(ids, fields=fields)
        found: dict[Id, Floats] = {}
        if upgrade.new_field in fields:
            native = rows.vectors[upgrade.new_field]
            found = {rows.ids[place]: native.values[place] for place in np.flatnonzero(native.present)}
        if upgrade.old_field not in fields:
            return found
        keys = {id_: f"{stamp:016x}/{id_}" for id_, stamp in stamps_of(rows, upgrade.old_field).items()}
        missing = [id_ for id_ in rows.ids if id_ not in found]
        if self._cache is not None and missing:
            there, cached = self._cache.get([keys[id_] for id_ in missing])
            found |= {missing[place]: cached[place] for place in np.flatnonzero(there)}
            missing = [id_ for id_ in missing if id_ not in found]
        for start in range(0, len(missing), BATCH):
            part = missing[start : start + BATCH]
            made = embed_all(self._embed, as_ids([str(id_) for id_ in part]), upgrade.new)
            able = np.flatnonzero(made.fine)
            found |= {part[place]: made.vectors[place] for place in able}
            if self._cache is not None and len(able):
                self._cache.put([keys[part[place]] for place in able], made.vectors[able])
        return found
