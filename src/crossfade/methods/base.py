"""What every method is, and the map that every method yields.

A *method* is a frozen dataclass of hyper-parameters with one verb, ``fit``, that turns
:class:`~crossfade.pairing.Pairs` into an :class:`Adapter`. An *adapter* maps vectors of its ``source`` space into its
``target`` space, with NumPy alone.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, Self

import numpy as np
import numpy.typing as npt

from crossfade.embeddings.core import ZERO_NORM, Embeddings
from crossfade.errors import FitError, InvalidVectors
from crossfade.methods.bulk import MappedBlocks
from crossfade.spaces import Modality, Space, require_same

if TYPE_CHECKING:
    from crossfade.evaluation.result import Evaluation
    from crossfade.pairing import Pairs

__all__ = [
    "Adapter",
    "Graph",
    "Method",
    "Provenance",
    "as_queries",
    "l2_normalize",
    "require_pairs",
    "shared_modalities",
]

Floats = npt.NDArray[np.float32]


def l2_normalize(vectors: Floats, *, out: Floats | None = None) -> Floats:
    """n(·): each row divided by its L2 norm, shape kept.

    Args:
        vectors: float32 [n, d] or [d].
        out: where the result goes; ``vectors`` itself divides in place.

    Raises:
        InvalidVectors: a row is zero or not finite.
    """
    if vectors.size == vectors.shape[-1]:  # one vector: few calls, since each is slow where the processor was idle
        norm = math.sqrt(np.vdot(vectors, vectors))
        if not ZERO_NORM <= norm < math.inf:
            raise InvalidVectors(
                f"A vector must be finite and not zero where it is normalised; this one has norm {norm}. "
                "Check how it was made."
            )
        unit: Floats = np.divide(vectors, np.float32(norm), out=out)
        return unit
    norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    bad = np.flatnonzero(~((norms >= ZERO_NORM) & (norms < np.inf)))
    if len(bad):
        raise InvalidVectors(
            f"A vector must be finite and not zero where it is normalised; {len(bad)} rows are not, the first is row "
            f"{int(bad[0])}. Re-encode those items or leave them out."
        )
    units: Floats = np.divide(vectors, norms[:, None], out=out)
    return units


def as_queries(vectors: npt.NDArray[Any], space: Space) -> Floats:
    """Vectors of ``space`` as float32, after the checks that cost next to nothing beside a matrix product.

    Args:
        vectors: [n, d] or [d].
        space: d is its dimension.

    Raises:
        InvalidVectors: a wrong dimension, a number that is not finite, or a zero vector in a space that is normalised.
    """
    values = np.asarray(vectors, dtype=np.float32)
    if values.ndim not in (1, 2) or values.shape[-1] != space.dimension:
        raise InvalidVectors(
            f"Vectors of {space} must have shape [n, {space.dimension}] or [{space.dimension}]; found {values.shape}. "
            "Encode them with that model."
        )
    if values.size == space.dimension:
        squares = np.vdot(values, values)
        fine = squares < math.inf and (squares > 0.0 or not space.normalized)
    else:
        lengths = np.einsum("ij,ij->i", values, values)
        fine = len(lengths) == 0 or bool(lengths.max() < math.inf and (lengths.min() > 0.0 or not space.normalized))
    if not fine:
        zero = ", and not zero, since their space is normalised" if space.normalized else ""
        raise InvalidVectors(
            f"Vectors of {space} must be finite{zero}; some are not. Re-encode those items or leave them out."
        )
    return values


@dataclass(frozen=True, eq=False)
class Provenance:
    """Where an adapter comes from.

    Attributes:
        method: name of the method, a key of ``METHODS``; ``chain`` or ``linear`` for what :meth:`Adapter.then` composed,
            ``prefix`` for what a space declares.
        config: its hyper-parameters.
        seed: what the fit was seeded with.
        pairs: modality → number of pairs it was fitted on.
        fitted_on: keys of the items it was fitted on (:func:`~crossfade.embeddings.core.item_keys`), sorted uint64.
        used: what it learned from, in words, where the numbers of pairs do not say all.
    """

    method: str
    config: Mapping[str, Any]
    seed: int
    pairs: Mapping[str, int]
    fitted_on: npt.NDArray[np.uint64]
    used: str = ""


class Graph(Protocol):
    """A computation graph under construction; values go by name.

    Attributes:
        vectors: the vectors to map, [batch, d_source].
        old: the old model's vectors of the same items, [batch, d_target]; only in graphs of two-encoder adapters.
    """

    vectors: str
    old: str

    def constant(self, value: npt.NDArray[np.float32] | float) -> str:
        """Add an array or a number."""

    def apply(self, operator: str, *inputs: str, attributes: Mapping[str, Any] | None = None) -> str:
        """Add an ONNX operator of one output."""


class Adapter(ABC):
    """A map from one space to another.

    Attributes:
        source: the space it maps from, normally the new model's.
        target: the space it maps to, normally the old model's.
        modalities: the modalities that it agrees to map.
        provenance: how it was made; None for one that was built by hand.
    """

    provenance: Provenance | None = None

    two_encoders: ClassVar[bool] = False
    """Whether mapping a query also needs the old model's vector of that query."""

    forward: ClassVar[bool] = False
    """Whether it maps the old model's stored vectors into the new model's space, and not new queries into the old one."""

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

    @abstractmethod
    def draw(self, graph: Graph, modality: Modality) -> str:
        """Write the map into a computation graph (:func:`crossfade.export_onnx`).

        Returns:
            The name of the value that holds the mapped vectors.
        """

    def transform(
        self,
        embeddings: Embeddings,
        *,
        old: Embeddings | None = None,
        out: str | Path | None = None,
        dtype: Literal["float16", "float32"] | None = None,
        block: int = 4096,
    ) -> Embeddings:
        """Map embeddings into the target space, in blocks; reading, mapping and writing overlap.

        Args:
            embeddings: in the source space.
            old: the old model's embeddings of the same ids; only two-encoder adapters need it.
            out: a folder to write the result to as it is made; by default it stays in memory.
            dtype: number format of the result; by default float16 where ``embeddings`` are, and float32 elsewhere.
            block: rows mapped at a time.

        Returns:
            Embeddings in the target space with the ids, the order and the metadata of ``embeddings``; memory-mapped
            where they were written to ``out``.

        Raises:
            SpaceMismatch: ``embeddings`` are not in the source space (or ``old`` not in the target's).
            FitError: the adapter was not fitted for their modality, or needs ``old`` and did not get it.
            InvalidVectors: a vector is not finite, or zero where it must be normalised.
            StorageError: ``out`` exists, or cannot be written; nothing is left half-written.
        """
        hint = ""
        if embeddings.space == self.target:
            hint = "They live in the adapter's target space: were old and new swapped?"
        require_same(embeddings.space, self.source, what="The vectors to map", hint=hint)
        self.require_modality(embeddings.modality)
        companion = self._companion(embeddings, old)
        number = np.dtype(dtype or ("float16" if embeddings.rows.dtype == np.float16 else "float32"))
        blocks = MappedBlocks(self, embeddings, companion, dtype=number, block=block)
        return blocks.in_memory() if out is None else blocks.to_folder(Path(out))

    def then(self, following: Adapter) -> Adapter:
        """This map and then another: from this one's source to the other's target.

        ``v3_to_v2.then(v2_to_v1)`` maps v3's vectors into v1's space. See :func:`crossfade.methods.chain.compose`.

        Raises:
            SpaceMismatch: ``following`` does not map from this one's target.
            FitError: one of them needs two encoders, or there is no modality that both map.
        """
        from crossfade.methods.chain import compose

        return compose([self, following])

    def save_pretrained(
        self, path: str | Path, *, evaluation: Evaluation | None = None, overwrite: bool = False
    ) -> None:
        """Write the adapter as a folder: see :func:`crossfade.artifacts.save_pretrained`."""
        from crossfade.artifacts import save_pretrained

        save_pretrained(self, path, evaluation=evaluation, overwrite=overwrite)

    @staticmethod
    def from_pretrained(path: str | Path) -> Adapter:
        """Open what :meth:`save_pretrained` wrote: see :func:`crossfade.artifacts.from_pretrained`."""
        from crossfade.artifacts import from_pretrained

        return from_pretrained(path)

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
                f"This adapter was fitted for {', '.join(self.modalities)} vectors and would be wrong for {modality} "
                f"ones. Fit it on pairs that hold {modality} too, or use a method without statistics for each modality "
                "(procrustes)."
            )


class Method(ABC):
    """A recipe that yields an adapter; its subclasses are frozen dataclasses of hyper-parameters.

    Attributes:
        name: its key in ``METHODS``, on the command line and in saved artifacts.
        adapter: the class of adapter that it yields.
        variants: the hyper-parameters worth trying.
    """

    name: ClassVar[str]
    adapter: ClassVar[type[Adapter]]
    variants: ClassVar[tuple[Mapping[str, Any], ...]] = ({},)
    """The hyper-parameters with which ``crossfade.fit(method="auto")`` tries it, the simplest first."""

    def fit(self, pairs: Pairs, *, seed: int = 0) -> Adapter:
        """Fit on pairs; the same pairs and seed give the same adapter, whatever the order of the pairs.

        Raises:
            FitError: there are too few pairs, or the spaces' dimensions do not allow the method.
        """
        adapter = self.solve(pairs, seed=seed)
        adapter.provenance = self.provenance(pairs, seed=seed)
        return adapter

    def used(self, pairs: Pairs) -> Pairs:
        """What the fit learns from: all the pairs, and no queries, unless a method says otherwise."""
        return replace(pairs, queries=())

    def describe(self, pairs: Pairs) -> str:
        """What a fit on these pairs learns from, in words; empty where the numbers of pairs say all."""
        return ""

    def provenance(self, pairs: Pairs, *, seed: int) -> Provenance:
        """What an adapter fitted on these pairs says of where it comes from."""
        used = self.used(pairs)
        counts: dict[str, int] = {part.modality: len(part) for part in used.parts}
        return Provenance(self.name, self.config(), seed, counts, used.item_keys(), self.describe(pairs))

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


def shared_modalities(pairs: Pairs) -> tuple[Modality, ...]:
    """The modalities that both spaces hold, whether or not there are pairs of them."""
    return tuple(m for m in pairs.source.modalities if m in pairs.target.modalities)
