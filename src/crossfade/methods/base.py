"""What every method is, and the map that every method yields.

A *method* is a frozen dataclass of hyper-parameters with one verb, ``fit``, that turns :class:`~crossfade.pairing.Pairs`
into an :class:`Adapter`. An *adapter* maps vectors of its ``source`` space into its ``target`` space, with NumPy alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from crossfade.embeddings.core import ZERO_NORM, Embeddings
from crossfade.embeddings.folder import EmbeddingsWriter
from crossfade.errors import FitError, InvalidVectors, SpaceMismatch
from crossfade.pairing import Pairs
from crossfade.spaces import Modality, Space, require_same

__all__ = ["Adapter", "Method", "Provenance", "l2_normalize", "require_pairs"]

Floats = npt.NDArray[np.float32]


def l2_normalize(vectors: Floats) -> Floats:
    """n(·): each row divided by its L2 norm, shape kept.

    Raises:
        InvalidVectors: a row is zero.
    """
    if vectors.ndim == 1:
        norm = np.sqrt(np.dot(vectors, vectors))
        if norm < ZERO_NORM:
            raise InvalidVectors(
                "A vector must not be zero where it is normalised, and this one is. Check how it was made."
            )
        return np.asarray(vectors / norm, dtype=np.float32)
    norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    if len(norms) and norms.min() < ZERO_NORM:
        raise InvalidVectors(
            f"A vector must not be zero where it is normalised; {int((norms < ZERO_NORM).sum())} rows are, the first is row "
            f"{int(np.argmin(norms))}. Re-encode those items or leave them out."
        )
    return np.asarray(vectors / norms[:, None], dtype=np.float32)


@dataclass(frozen=True, eq=False)
class Provenance:
    """Where an adapter comes from.

    Attributes:
        method: name of the method, a key of ``METHODS``.
        config: its hyper-parameters.
        seed: what the fit was seeded with.
        pairs: modality → number of pairs it was fitted on.
        fitted_on: keys of the items it was fitted on (:func:`~crossfade.embeddings.core.item_keys`), sorted uint64.
    """

    method: str
    config: Mapping[str, Any]
    seed: int
    pairs: Mapping[str, int]
    fitted_on: npt.NDArray[np.uint64]


class Adapter(ABC):
    """A map from one space to another.

    Attributes:
        source: the space it maps from, normally the new model's.
        target: the space it maps to, normally the old model's.
        modalities: the modalities that it was fitted for and agrees to map.
        provenance: how it was made; None for one that was built by hand.
    """

    provenance: Provenance | None = None

    two_encoders: ClassVar[bool] = False
    """Whether mapping a query also needs the old model's vector of that query."""

    def __init__(self, source: Space, target: Space, modalities: tuple[Modality, ...]) -> None:
        self.source = source
        self.target = target
        self.modalities = modalities

    @abstractmethod
    def map(self, vectors: Floats, modality: Modality, *, old: Floats | None = None) -> Floats:
        """Map raw vectors; this is the query path, and it trusts its caller about the space.

        Args:
            vectors: float32 [n, d_source] or [d_source], in the source space.
            modality: what they are vectors of.
            old: the old model's vectors of the same items, [n, d_target]; only two-encoder adapters look at it.

        Returns:
            float32 [n, d_target] or [d_target], of unit norm where the target space is normalised.

        Raises:
            FitError: the adapter was not fitted for this modality.
            InvalidVectors: a vector is zero where it must be normalised.
        """

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """What, beside the tensors, restores the adapter: JSON values."""

    @abstractmethod
    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """The adapter's arrays by name."""

    @classmethod
    @abstractmethod
    def restore(
        cls, source: Space, target: Space, config: Mapping[str, Any], tensors: Mapping[str, npt.NDArray[Any]]
    ) -> Self:
        """The reverse of :meth:`config` and :meth:`tensors`: maps bit for bit as before."""

    def transform(
        self,
        embeddings: Embeddings,
        *,
        old: Embeddings | None = None,
        out: str | Path | None = None,
        block: int = 16_384,
    ) -> Embeddings:
        """Map embeddings into the target space, in blocks.

        Args:
            embeddings: in the source space.
            old: the old model's embeddings of the same ids; only two-encoder adapters need it.
            out: write the result there as it is made, and memory-map it; by default it stays in memory.
            block: rows mapped at a time.

        Raises:
            SpaceMismatch: ``embeddings`` are not in the source space (or ``old`` not in the target's).
            InvalidVectors: a vector is not finite, or zero where it must be normalised.
        """
        hint = ""
        if embeddings.space == self.target:
            hint = "They live in the adapter's target space: were old and new swapped?"
        require_same(embeddings.space, self.source, what="The vectors to map", hint=hint)
        companion = self._companion(embeddings, old)
        columns = embeddings.metadata
        parts: list[Floats] = []
        writer = None if out is None else EmbeddingsWriter(Path(out), self.target, embeddings.modality)
        if writer is not None and writer.count:
            raise SpaceMismatch(f"{out} holds embeddings already. Choose another folder.")
        for piece in embeddings.blocks(block):
            part = slice(piece.start, piece.start + len(piece.matrix))
            aside = None if companion is None else companion.rows.read(part.start, part.stop)
            mapped = self.map(piece.matrix, embeddings.modality, old=aside)
            if writer is None:
                parts.append(mapped)
            else:
                writer.append(embeddings.ids[part], mapped, {name: column[part] for name, column in columns.items()})
        if writer is not None:
            return writer.finish()
        return Embeddings(embeddings.ids, np.concatenate(parts), self.target, embeddings.modality, metadata=columns)

    def _companion(self, embeddings: Embeddings, old: Embeddings | None) -> Embeddings | None:
        if not self.two_encoders:
            return None
        if old is None:
            raise FitError(
                "A two-encoder adapter needs the old model's vectors of the same queries; none were given. Pass old=…."
            )
        require_same(old.space, self.target, what="The old model's vectors of the queries")
        rows = old.locate(embeddings.ids)
        if (rows < 0).any():
            raise FitError(
                f"Every query needs its old vector; {int((rows < 0).sum())} of {len(rows)} have none. Encode them too."
            )
        return old.select(rows)

    def require_modality(self, modality: Modality) -> None:
        """Refuse a modality that the adapter was not fitted for.

        Raises:
            FitError: says which it was fitted for.
        """
        if modality not in self.modalities:
            raise FitError(
                f"This adapter was fitted for {', '.join(self.modalities)} vectors and would be wrong for {modality} ones. "
                f"Fit it on pairs that hold {modality} too, or use a method without per-modality statistics (procrustes)."
            )


class Method(ABC):
    """A recipe that yields an adapter; its subclasses are frozen dataclasses of hyper-parameters.

    Attributes:
        name: its key in ``METHODS``, on the command line and in saved artifacts.
        adapter: the class of adapter that it yields.
    """

    name: ClassVar[str]
    adapter: ClassVar[type[Adapter]]

    def fit(self, pairs: Pairs, *, seed: int = 0) -> Adapter:
        """Fit on pairs; the same pairs and seed give the same adapter, whatever the order of the pairs.

        Raises:
            FitError: there are too few pairs, or the spaces' dimensions do not allow the method.
        """
        adapter = self.solve(pairs, seed=seed)
        counts = {part.modality: len(part) for part in pairs.parts}
        adapter.provenance = Provenance(self.name, self.config(), seed, counts, pairs.item_keys())
        return adapter

    @abstractmethod
    def solve(self, pairs: Pairs, *, seed: int) -> Adapter:
        """The method's mathematics; :meth:`fit` calls it and records where the adapter comes from."""

    def config(self) -> dict[str, Any]:
        """The hyper-parameters as JSON values."""
        return asdict(self)  # type: ignore[call-overload,no-any-return]


def require_pairs(pairs: Pairs, minimum: int, *, method: str, why: str) -> None:
    """Refuse to fit on too few pairs.

    Raises:
        FitError: says how many there are, how many are needed and why.
    """
    if len(pairs) < minimum:
        raise FitError(
            f"{method} needs at least {minimum} pairs ({why}); found {len(pairs)}. Encode more items with both models."
        )
