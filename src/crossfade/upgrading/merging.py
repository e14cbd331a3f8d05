"""One ranking of a mixed gallery: rows that are compared by their native vectors, and rows through the adapter.

With q a new query, A the adapter, n_i the native vector of a row and o_i its stored old one, rows have scores of two kinds::

    s_i = s_new(q, n_i)   in rows that are backfilled            t_i = s_old(A(q), o_i)   in the others

They are numbers on two scales, and what is merged must be made comparable. With B a background: some rows that have both
vectors; μ_s, σ_s, μ_t, σ_t the means and deviations of s and t over B for this query, ρ their correlation over B::

    raw            t_i                                            as it is: the naive mixture
    standardised   μ_s + σ_s (t_i − μ_t) / σ_t                                                  (1)
    regressed      μ_s + ρ σ_s (t_i − μ_t) / σ_t                  the best linear guess of s_i  (2)
    ranks          a row at place r of a part that is the share p of the gallery would stand at place r / p of the
                   whole, if what is backfilled had nothing to do with what is relevant          (3)

None of the papers merges two scales: FastFill and FCT compare all rows in the new space. This is our choice, and which of
the four is taken is measured (:func:`crossfade.upgrading.starting.choose_merge`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from crossfade.stores import Hits
from crossfade.stores.records import Id

__all__ = ["MERGES", "Background", "Merge", "comparable", "merged"]

Floats = npt.NDArray[np.float32]

Merge = Literal["raw", "standardised", "regressed", "ranks"]
MERGES: tuple[Merge, ...] = get_args(Merge)

FLAT = 1e-12
"""A deviation below this is none: scores over the background are all alike."""


@dataclass(frozen=True, eq=False, slots=True)
class Background:
    """Rows that have both vectors; by them two scales are compared.

    Attributes:
        old: float32 [b, d_old], their old vectors, as the old space compares them (of unit norm under cosine).
        new: float32 [b, d_new], their native ones.
    """

    old: Floats
    new: Floats


def comparable(kind: Merge, t: Floats, *, native: Floats, mapped: Floats) -> Floats:
    """Scores through the adapter on the scale of native ones; (1), (2).

    Args:
        kind: not ``ranks``.
        t: [m] scores through the adapter.
        native: [b] s over the background.
        mapped: [b] t over the background.
    """
    if kind == "raw":
        return t
    spread = float(mapped.std())
    if len(mapped) < 2 or spread < FLAT:
        return t
    scale = float(native.std()) / spread  # Eq. (1)
    if kind == "regressed":
        both = float(native.std()) * spread
        scale *= (
            float(((native - native.mean()) * (mapped - mapped.mean())).mean()) / both if both > FLAT else 0.0
        )  # Eq. (2)
    found: Floats = (float(native.mean()) + scale * (t - float(mapped.mean()))).astype(np.float32)
    return found


def merged(kind: Merge, native: Hits, mapped: Hits, *, k: int, share: float) -> Hits:
    """One ranking of both parts; a row that is in both counts as native.

    Args:
        kind: ``ranks``, or another where the scores of ``mapped`` are comparable already.
        native: best first, rows by their native vectors.
        mapped: best first, the others.
        k: how many to return.
        share: p, the share of the gallery that has native vectors.
    """
    known = set(native.ids)
    rest = [place for place, id_ in enumerate(mapped.ids) if id_ not in known]
    ids: list[Id] = [*native.ids, *(mapped.ids[place] for place in rest)]
    scores = np.concatenate([native.scores, mapped.scores[rest]])
    keys: npt.NDArray[Any] = -scores
    if kind == "ranks":
        keys = np.concatenate([_places(len(native), share), _places(len(rest), 1.0 - share)])  # Eq. (3)
    order = np.argsort(keys, kind="stable")[:k]
    return Hits([ids[place] for place in order], scores[order])


def _places(count: int, share: float) -> npt.NDArray[np.float64]:
    """Places in the whole of rows 1 … ``count`` of a part."""
    places: npt.NDArray[np.float64] = (np.arange(count, dtype=np.float64) + 0.5) / max(share, FLAT)
    return places
