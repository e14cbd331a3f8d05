"""The adapter of every closed form: one matrix, and an offset for each modality."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from crossfade.errors import FormatError
from crossfade.methods.base import Adapter, Floats, Graph, as_queries, l2_normalize
from crossfade.spaces import MODALITIES, Modality, Space

__all__ = ["LinearAdapter"]


class LinearAdapter(Adapter):
    """v ↦ n(v W + b_m): one matrix W, and an offset b_m for modality m; n(·) only where the target is normalised.

    A map that centres, (v − μ_m) W + ν_m, has b_m = ν_m − μ_m W.

    Args:
        source: the space it maps from, of dimension d_s.
        target: the space it maps to, of dimension d_t.
        matrix: W, [d_s, d_t].
        offsets: modality → b_m [d_t]; a modality that is not among them is refused. A map without offsets names its
            modalities with zeros.
    """

    def __init__(
        self, source: Space, target: Space, *, matrix: npt.NDArray[Any], offsets: Mapping[Modality, npt.NDArray[Any]]
    ) -> None:
        super().__init__(source, target, tuple(m for m in MODALITIES if m in offsets))
        self.matrix = np.ascontiguousarray(matrix, dtype=np.float32)
        self.offsets = {m: np.ascontiguousarray(offsets[m], dtype=np.float32) for m in self.modalities}
        shape = (source.dimension, target.dimension)
        if self.matrix.shape != shape or any(b.shape != shape[1:] for b in self.offsets.values()):
            raise FormatError(
                f"A linear adapter from {source} to {target} must have a matrix of shape {shape} and offsets of shape "
                f"{shape[1:]}; found {self.matrix.shape} and {[b.shape for b in self.offsets.values()]}. Copy it again."
            )
        self._moved = {m: bool(b.any()) for m, b in self.offsets.items()}

    @classmethod
    def centred(
        cls,
        source: Space,
        target: Space,
        *,
        matrix: npt.NDArray[np.float64],
        means: Mapping[Modality, tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]],
    ) -> Self:
        """The adapter v ↦ n((v − μ_m) W + ν_m).

        Args:
            source: the space it maps from.
            target: the space it maps to.
            matrix: W, [d_s, d_t].
            means: modality → (μ_m [d_s], ν_m [d_t]).
        """
        return cls(source, target, matrix=matrix, offsets={m: nu - mu @ matrix for m, (mu, nu) in means.items()})

    def map(self, vectors: Floats, modality: Modality, *, old: Floats | None = None) -> Floats:
        self.require_modality(modality)
        mapped: Floats = as_queries(vectors, self.source) @ self.matrix
        if self._moved[modality]:
            mapped += self.offsets[modality]
        return l2_normalize(mapped, out=mapped) if self.target.normalized else mapped

    def config(self) -> dict[str, Any]:
        return {"modalities": list(self.modalities)}

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        return {"matrix": self.matrix, **{f"offset.{m}": b for m, b in self.offsets.items()}}

    @classmethod
    def restore(
        cls, source: Space, target: Space, config: Mapping[str, Any], tensors: Mapping[str, npt.NDArray[Any]]
    ) -> Self:
        offsets: dict[Modality, npt.NDArray[Any]] = {m: tensors[f"offset.{m}"] for m in config["modalities"]}
        return cls(source, target, matrix=tensors["matrix"], offsets=offsets)

    def draw(self, graph: Graph, modality: Modality) -> str:
        mapped = graph.apply("MatMul", graph.vectors, graph.constant(self.matrix))
        mapped = graph.apply("Add", mapped, graph.constant(self.offsets[modality]))
        return draw_normalized(graph, mapped) if self.target.normalized else mapped


def draw_normalized(graph: Graph, value: str) -> str:
    """n(·) in a graph."""
    return graph.apply("LpNormalization", value, attributes={"axis": 1, "p": 2})
