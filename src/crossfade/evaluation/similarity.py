"""How queries are scored against a gallery, block by block: one definition for search and for ranks.

Within a block every metric is a matrix product. Euclidean distance is ranked by ⟨q, g⟩ − ‖g‖²/2, which orders the gallery for
one query as −‖q − g‖ does. A :class:`Correction` adds a number of its own to each gallery item's scores.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from crossfade.embeddings import Embeddings
from crossfade.embeddings.core import ZERO_NORM, Ids
from crossfade.errors import ConfigError, EvaluationError, InvalidVectors
from crossfade.spaces import METRICS, Metric

__all__ = ["Correction", "Floats", "GalleryBlock", "PreparedGallery", "prepared_queries", "require_metric"]

Floats = npt.NDArray[np.float32]

CACHE_BYTES = 1 << 30
"""A prepared gallery up to this size is kept between passes; a larger one is read again for each."""


@dataclass(frozen=True, slots=True)
class Correction:
    """What is added to the scores of each gallery item before they are ranked; under l2 to those of −½‖q − g‖².

    Attributes:
        offsets: [n] float32, finite.
        active: [n] bool: only queries whose best item is an active one before the correction are corrected; None: all.
    """

    offsets: Floats
    active: npt.NDArray[np.bool_] | None = None

    def apply(self, scores: Floats) -> None:
        """Correct the scores [n] of one query against the whole gallery, where they stand."""
        if self.active is None or self.active[int(np.argmax(scores))]:
            scores += self.offsets

    def require(self, gallery: int) -> None:
        """Refuse a correction of another gallery.

        Raises:
            EvaluationError: it has not one finite number for each of ``gallery`` items.
        """
        shapes = {self.offsets.shape, (gallery,) if self.active is None else self.active.shape}
        if shapes != {(gallery,)} or not np.isfinite(self.offsets).all():
            raise EvaluationError(
                f"A correction must have one finite number for each of the gallery's {gallery} items; found shapes "
                f"{sorted(shapes)}. Make it from this gallery."
            )


@dataclass(frozen=True, slots=True)
class GalleryBlock:
    """Gallery rows ``start`` to ``start + len(matrix)``, ready to be multiplied.

    Attributes:
        start: the first row's number.
        matrix: [rows, d], of unit norm under cosine.
        offsets: [rows], what is added to every product: −‖g‖²/2 under l2, and a correction; None where nothing is.
    """

    start: int
    matrix: Floats
    offsets: Floats | None

    def score(self, queries: Floats, out: Floats) -> None:
        """Write the scores of prepared ``queries`` [q, d] against this block to ``out`` [q, rows]."""
        np.matmul(queries, self.matrix.T, out=out)
        if self.offsets is not None:
            np.add(out, self.offsets, out=out)


class PreparedGallery:
    """A gallery as blocks that are ready to be scored, over and over.

    Args:
        gallery: the vectors; float16 and memory maps are converted as they are read.
        metric: ``cosine``, ``dot`` or ``l2``.
        block: gallery rows in a block.
        offsets: what is added to every score of each gallery item, [n].
    """

    def __init__(self, gallery: Embeddings, metric: Metric, *, block: int, offsets: Floats | None = None) -> None:
        self.gallery = gallery
        self.offsets = offsets
        self.metric = metric
        self.block = block
        size = len(gallery) * gallery.dimension * 4
        self._cache: list[GalleryBlock] | None = list(self._read()) if size <= CACHE_BYTES else None

    def __iter__(self) -> Iterator[GalleryBlock]:
        return iter(self._cache) if self._cache is not None else self._read()

    def _read(self) -> Iterator[GalleryBlock]:
        for piece in self.gallery.blocks(self.block):
            offsets = None if self.offsets is None else self.offsets[piece.start : piece.start + len(piece.matrix)]
            if self.metric == "l2":
                half_squares = np.einsum("ij,ij->i", piece.matrix, piece.matrix) / np.float32(2)
                offsets = -half_squares if offsets is None else offsets - half_squares
            yield GalleryBlock(
                piece.start, _prepared(piece.matrix, self.gallery.ids, piece.start, self.metric), offsets
            )


def prepared_queries(queries: Embeddings, metric: Metric, *, start: int, stop: int) -> Floats:
    """Query rows ``start`` to ``stop``, of unit norm under cosine: float32 [stop − start, d].

    Raises:
        InvalidVectors: a row is not finite, or is zero under cosine.
    """
    return _prepared(queries.rows.read(start, stop), queries.ids, start, metric)


def require_metric(metric: str) -> None:
    """Refuse an unknown metric.

    Raises:
        ConfigError: names the known ones.
    """
    if metric not in METRICS:
        raise ConfigError(f"A metric of comparison must be one of {', '.join(METRICS)}; found {metric!r}.")


def _prepared(matrix: Floats, ids: Ids, start: int, metric: Metric) -> Floats:
    if metric != "cosine":
        return matrix
    norms = np.sqrt(np.einsum("ij,ij->i", matrix, matrix))
    zero = np.flatnonzero(norms < ZERO_NORM)
    if len(zero):
        raise InvalidVectors(
            f"A vector must not be zero where cosine compares it; {len(zero)} are, the first is {str(ids[start + zero[0]])!r}. "
            "Re-encode those items or leave them out."
        )
    return np.asarray(matrix / norms[:, None], dtype=np.float32)
