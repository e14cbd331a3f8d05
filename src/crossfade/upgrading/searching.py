"""Searcher: what an application asks; it finds the right field, the right map and the right merge by the upgrade's pointer."""

from __future__ import annotations

import random
import time
import warnings
from typing import TYPE_CHECKING, Self, final

import numpy as np
import numpy.typing as npt

from crossfade.embeddings import Embeddings
from crossfade.errors import ConfigError, CrossfadeError, SpaceMismatch, StoreChanged
from crossfade.methods.base import as_queries
from crossfade.spaces import Modality, Space
from crossfade.stores import Hits, Store, Where
from crossfade.stores.checks import require_k
from crossfade.upgrading.entries import Glimpse
from crossfade.upgrading.merging import Background, Merge, comparable, merged
from crossfade.upgrading.reranking import Reranker
from crossfade.upgrading.scoring import scores
from crossfade.upgrading.stages import Serving
from crossfade.upgrading.upgrade import Upgrade

if TYPE_CHECKING:
    from PIL.Image import Image

    from crossfade.encoders import Encoder

__all__ = ["Searcher"]

Floats = npt.NDArray[np.float32]

FRESH = 2.0
"""Seconds for which the share that is backfilled is taken to be what it was."""

DEEPER = 2
"""Both parts of a mixed gallery are asked for this many times k: merging may take nearly all from either."""


@final
class Searcher:
    """Searches a collection in whichever way its upgrade has come to.

    The pointer is read at every search: a cutover or a rollback by any process is obeyed by the next search. A query is
    compared in its own space or through the adapter, never otherwise, and in whichever stage it comes: one that was encoded
    before a cutover, or by a part of the application that is not upgraded yet, is searched as it always was.

    Args:
        upgrade: the upgrade, or its folder.
        store: the collection, where it is open already.
        old: the old model, which encodes queries before the cutover; needed for ``text`` and ``image`` only.
        new: the new model, which encodes them afterwards.
        merge: how a mixed gallery is merged; by default as was measured when backfilling began.
        shadow: before the cutover, this share of the texts and images is also searched the new way, which takes its time and
            is not served; what differs is kept for the step ``shadow``. It needs both models.
        rerank: re-rank what new queries find by the new model's own vectors, made where they are needed.

    Raises:
        SpaceMismatch: an encoder is of another space than the upgrade.
    """

    def __init__(
        self,
        upgrade: Upgrade | str,
        store: Store | None = None,
        *,
        old: Encoder | None = None,
        new: Encoder | None = None,
        merge: Merge | None = None,
        rerank: Reranker | None = None,
        shadow: float = 0.0,
    ) -> None:
        self.upgrade = upgrade if isinstance(upgrade, Upgrade) else Upgrade.open(upgrade)
        self._given = store
        self._store = store if store is not None else self.upgrade.store()
        for encoder, space, which in ((old, self.upgrade.old, "old"), (new, self.upgrade.new, "new")):
            if encoder is not None and encoder.space != space:
                raise SpaceMismatch(f"The {which} encoder must make vectors of {space}; {encoder.space} was given.")
        self._encoders = {"old": old, "new": new}
        self._merge, self._rerank = merge, rerank
        self._background: Background | None = None
        self._counted = (-FRESH, 0.0)
        if not 0.0 <= shadow <= 1.0 or (shadow and (old is None or new is None)):
            raise ConfigError(f"A shadow is a share of queries, from 0 to 1, and takes both models; found {shadow}.")
        self._shadow = shadow

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the collection, where the searcher opened it."""
        if self._given is None:
            self._store.close()

    @property
    def store(self) -> Store:
        """The collection that is searched."""
        return self._store

    @property
    def expects(self) -> Space:
        """The space that queries should be encoded in from now on: the old one before a cutover, then the new one."""
        return self.upgrade.old if self.upgrade.state.now().serving == "old" else self.upgrade.new

    def search(
        self,
        *,
        text: str | None = None,
        image: Image | None = None,
        vector: npt.NDArray[np.floating] | Embeddings | None = None,
        space: Space | None = None,
        modality: Modality | None = None,
        k: int = 10,
        where: Where | None = None,
        exact: bool = False,
    ) -> Hits:
        """The k best rows of one query.

        Args:
            text: a text, encoded by the model that the pointer asks for.
            image: an image, likewise.
            vector: in place of both, a vector [d] with its ``space``, or :class:`Embeddings` of one row.
            space: of ``vector``: the old or the new model's.
            modality: what ``vector`` is a vector of; by default what the gallery holds.
            k: how many.
            where: conditions that rows must meet.
            exact: compare every row, and ask no index.

        Raises:
            ConfigError: not exactly one query, a vector without its space, an encoder that was not given, or no k of at
                least 1.
            SpaceMismatch: the vector is of neither space.
        """
        if sum(each is not None for each in (text, image, vector)) != 1:
            raise ConfigError("A search has one query: a text, an image or a vector.")
        if isinstance(vector, Embeddings):
            if space is not None or modality is not None:
                raise ConfigError("Embeddings know their space and modality; leave the others out.")
            return self.search_many(
                vector.matrix(), space=vector.space, modality=vector.modality, k=k, where=where, exact=exact
            )[0]
        if vector is None:
            side = "old" if self.upgrade.state.now().serving == "old" else "new"
            started = time.perf_counter()
            query, space, modality = self._encoded(text, image, side)
            (hits,) = self.search_many(query, space=space, modality=modality, k=k, where=where, exact=exact)
            if side == "old" and random.random() < self._shadow:
                self._glimpse(hits, time.perf_counter() - started, text, image, k, where, exact)
            return hits
        if space is None:
            raise ConfigError(
                "A vector is searched with by its space, since two models' vectors can have the same dimension: pass "
                "space=searcher.expects, or Embeddings."
            )
        (hits,) = self.search_many(vector, space=space, modality=modality, k=k, where=where, exact=exact)
        return hits

    def search_many(
        self,
        vectors: npt.NDArray[np.floating],
        *,
        space: Space,
        modality: Modality | None = None,
        k: int = 10,
        where: Where | None = None,
        exact: bool = False,
    ) -> list[Hits]:
        """The k best rows of each of several queries [q, d] of one space; see :meth:`search`."""
        require_k(k)
        kind = modality or self.upgrade.modality
        if space != self.upgrade.old and space != self.upgrade.new:
            raise SpaceMismatch(
                f"Queries must live in {self.upgrade.old} or {self.upgrade.new}; found {space}. Encode them by "
                "searcher.expects."
            )
        queries: Floats = np.asarray(vectors, dtype=np.float32)
        queries = queries[None] if queries.ndim == 1 else queries
        serving = self.upgrade.state.now().serving
        try:
            return self._served(serving, queries, space, kind, k, where, exact)
        except StoreChanged:
            again = self.upgrade.state.now().serving  # the pointer moved between reading it and searching
            if again == serving:
                raise
            return self._served(again, queries, space, kind, k, where, exact)

    def _served(
        self, serving: Serving, queries: Floats, space: Space, kind: Modality, k: int, where: Where | None, exact: bool
    ) -> list[Hits]:
        upgrade = self.upgrade
        if space == upgrade.old:
            return self._asked(upgrade.old_field, as_queries(queries, space), upgrade.old, k, where, exact)
        if serving == "native":
            return self._asked(upgrade.new_field, as_queries(queries, space), upgrade.new, k, where, exact)
        mapped = upgrade.adapter.map(queries, kind)  # which looks at them, too
        depth = k if self._rerank is None else max(k, self._rerank.candidates)
        if serving == "mixed":
            found = self._mixed(queries, mapped, depth, where, exact)
        else:
            found = self._asked(upgrade.old_field, mapped, upgrade.old, depth, where, exact)
        return found if self._rerank is None else self._rerank.ranked(upgrade, self._store, queries, found, k)

    def _mixed(self, queries: Floats, mapped: Floats, k: int, where: Where | None, exact: bool) -> list[Hits]:
        """Rows without a native vector first, the others after: a row that is backfilled in between is in both, not in none."""
        upgrade, depth = self.upgrade, DEEPER * k
        through = self._asked(upgrade.old_field, mapped, upgrade.old, depth, where, exact, lacking=upgrade.new_field)
        native = self._asked(upgrade.new_field, queries, upgrade.new, depth, where, exact)
        kind, share = self._how()
        if kind not in ("raw", "ranks"):
            background = self._rows()
            over_new = scores(queries, background.new, upgrade.new)
            over_old = scores(mapped, background.old, upgrade.old)
            through = [
                Hits(hits.ids, comparable(kind, hits.scores, native=s, mapped=t))
                for hits, s, t in zip(through, over_new, over_old, strict=True)
            ]
        return [merged(kind, one, other, k=k, share=share) for one, other in zip(native, through, strict=True)]

    def _asked(
        self,
        field: str,
        queries: Floats,
        space: Space,
        k: int,
        where: Where | None,
        exact: bool,
        lacking: str | None = None,
    ) -> list[Hits]:
        return self._store.search(
            queries, field=field, k=k, metric=space.metric, where=where, lacking=lacking, exact=exact
        )

    def _how(self) -> tuple[Merge, float]:
        """The merge, and the share of the gallery that has native vectors, for the merge by ranks."""
        kind: Merge = self._merge or self.upgrade.state.fact("merge") or "ranks"
        if kind != "ranks":
            return kind, 0.0
        if time.monotonic() - self._counted[0] > FRESH:
            done = self.upgrade.state.counts()
            self._counted = (time.monotonic(), done.get("done", 0) / max(sum(done.values()), 1))
        return kind, min(max(self._counted[1], 1e-6), 1.0 - 1e-6)

    def _rows(self) -> Background:
        if self._background is None:
            found = self.upgrade.background()
            if found is None:
                raise ConfigError(f"{self.upgrade.folder} holds no background to compare scores by. Merge by ranks.")
            self._background = found
        return self._background

    def _glimpse(
        self,
        served: Hits,
        seconds: float,
        text: str | None,
        image: Image | None,
        k: int,
        where: Where | None,
        exact: bool,
    ) -> None:
        """Answer a query the new way as well, and keep how far that agrees; what fails here fails no search."""
        started = time.perf_counter()
        try:
            query, _, modality = self._encoded(text, image, "new")
            mapped = self.upgrade.adapter.map(query, modality)
            (hits,) = self._asked(self.upgrade.old_field, mapped, self.upgrade.old, k, where, exact)
            agreement = len(set(served.ids) & set(hits.ids)) / k
            same = served.ids[:1] == hits.ids[:1]
            self.upgrade.state.glimpse(Glimpse(k, agreement, same, seconds, time.perf_counter() - started))
        except CrossfadeError as error:
            warnings.warn(f"A query could not be shadowed: {type(error).__name__}: {error}", stacklevel=3)

    def _encoded(self, text: str | None, image: Image | None, side: str) -> tuple[Floats, Space, Modality]:
        encoder = self._encoders[side]
        if encoder is None:
            raise ConfigError(f"Queries are to be encoded by the {side} model now; give Searcher {side}=ENCODER.")
        if text is not None:
            return encoder.encode_texts([text], role="query"), encoder.space, "text"
        if image is None:
            raise ConfigError("A search has one query: a text, an image or a vector.")
        return encoder.encode_images([image]), encoder.space, "image"
