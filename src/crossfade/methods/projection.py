"""φ, the projection of XBT: a linear path and blocks of Linear → LayerNorm → GELU beside it, served by NumPy alone.

Equations, for a vector v of modality m::

    h_0 = v − μ_m                                                        (1)
    h_k = g(N_k(h_{k−1} A_k + c_k)),   k = 1 … depth                     (2), N LayerNorm, g GELU in its tanh form
    f(v) = h_0 W + b + h_depth B + ν_m                                   (3)
    φ(v) = n(f(v))                                                       (4), n(·) only where the old space is
    normalised

============  ==================================  ==============================
symbol        tensor                              shape
============  ==================================  ==============================
W, b          ``matrix``, ``offset``              [d_s, d_t], [d_t]
A_k, c_k      ``inner.k``, ``inner_offset.k``     [d_s or h, h], [h]
N_k           ``gain.k``, ``shift.k``             [h], [h]
B             ``outer``                           [h, d_t]
μ_m, ν_m      ``source_mean.m``, ``target_mean.m``  [d_s], [d_t]; absent where nothing is centred
============  ==================================  ==============================

The torch twin, for training, is :class:`crossfade.methods.projection_module.Projection`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from crossfade.embeddings.core import Embeddings
from crossfade.errors import FitError, FormatError, SpaceMismatch
from crossfade.methods.base import Adapter, Floats, Graph, as_queries, l2_normalize
from crossfade.methods.layers import draw_gelu, draw_layer_norm, gelu, layer_norm
from crossfade.methods.linear import draw_normalized
from crossfade.spaces import MODALITIES, Modality, Space

__all__ = ["ProjectionAdapter", "centroid"]

Means = Mapping[Modality, tuple[npt.NDArray[Any], npt.NDArray[Any]]]


def centroid(embeddings: Embeddings) -> npt.NDArray[np.float64]:
    """The mean of all vectors, [d], in one pass that holds a block at a time."""
    total = np.zeros(embeddings.dimension)
    for block in embeddings.blocks():
        total += block.matrix.sum(axis=0, dtype=np.float64)
        embeddings.rows.release(block.start, block.start + len(block.matrix))
    mean: npt.NDArray[np.float64] = total / len(embeddings)
    return mean


class ProjectionAdapter(Adapter):
    """v ↦ n((v − μ_m) W + b + block_depth(… block_1(v − μ_m)) B + ν_m); see the module's equations.

    Args:
        source: the space it maps from.
        target: the space it maps to.
        modalities: what it agrees to map.
        parameters: the tensors of the module's table, without the means.
        means: modality → (μ_m [d_s], ν_m [d_t]) for every modality; None where nothing is centred.
    """

    def __init__(
        self,
        source: Space,
        target: Space,
        *,
        modalities: tuple[Modality, ...],
        parameters: Mapping[str, npt.NDArray[Any]],
        means: Means | None = None,
    ) -> None:
        super().__init__(source, target, tuple(m for m in MODALITIES if m in modalities))
        self.depth = sum(name.startswith("inner.") for name in parameters)
        d_s, d_t = source.dimension, target.dimension
        shapes = {"matrix": (d_s, d_t), "offset": (d_t,)}
        below = d_s
        for k in range(1, self.depth + 1):
            width = len(parameters[f"inner_offset.{k}"])
            shapes[f"inner.{k}"] = (below, width)
            shapes |= {f"{name}.{k}": (width,) for name in ("inner_offset", "gain", "shift")}
            below = width
        shapes["outer"] = (below, d_t)
        self.parameters = {name: np.ascontiguousarray(parameters[name], dtype=np.float32) for name in shapes}
        wrong = {name: array.shape for name, array in self.parameters.items() if array.shape != shapes[name]}
        self.means: dict[Modality, tuple[Floats, Floats]] | None = None
        if means is not None:
            self.means = {
                m: (
                    np.ascontiguousarray(means[m][0], dtype=np.float32),
                    np.ascontiguousarray(means[m][1], dtype=np.float32),
                )
                for m in self.modalities
            }
            wrong |= {
                f"mean.{m}": (*mu.shape, *nu.shape)
                for m, (mu, nu) in self.means.items()
                if (mu.shape, nu.shape) != ((d_s,), (d_t,))
            }
        if self.depth < 1 or wrong:
            raise FormatError(
                f"A projection from {source} to {target} must have at least one block and the shapes {shapes}; found "
                f"{self.depth} blocks and {wrong}. Copy it again."
            )

    def map(self, vectors: Floats, modality: Modality, *, old: Floats | None = None) -> Floats:
        """See :meth:`Adapter.map`."""
        self.require_modality(modality)
        v, p = as_queries(vectors, self.source), self.parameters
        start: Floats = v if self.means is None else v - self.means[modality][0]  # Eq. (1)
        h = start
        for k in range(1, self.depth + 1):
            inner: Floats = h @ p[f"inner.{k}"] + p[f"inner_offset.{k}"]
            h = gelu(layer_norm(inner, p[f"gain.{k}"], p[f"shift.{k}"]))  # Eq. (2)
        mapped: Floats = start @ p["matrix"] + p["offset"] + h @ p["outer"]
        if self.means is not None:
            mapped += self.means[modality][1]  # Eq. (3)
        return l2_normalize(mapped, out=mapped) if self.target.normalized else mapped  # Eq. (4)

    def centred_on(self, *sets: Embeddings) -> ProjectionAdapter:
        """The same φ with the centroids of these sets, each for its side and its modality.

        The sets need not be paired, nor hold the same items: a few thousand stored old images and as many other images
        seen by the new model give the image centroids of both sides.

        Args:
            sets: in the source or the target space.

        Raises:
            FitError: φ was trained without centring.
            SpaceMismatch: a set lives in neither space.
        """
        if self.means is None:
            raise FitError("Only a projection trained with center=True has centroids to replace. Train it so.")
        means = dict(self.means)
        for embeddings in sets:
            self.require_modality(embeddings.modality)
            mu, nu = means[embeddings.modality]
            if embeddings.space == self.source:
                means[embeddings.modality] = (centroid(embeddings).astype(np.float32), nu)
            elif embeddings.space == self.target:
                means[embeddings.modality] = (mu, centroid(embeddings).astype(np.float32))
            else:
                raise SpaceMismatch(
                    f"Centroids are taken in {self.source} or in {self.target}; found {embeddings.space}. Encode the "
                    "sample with one of the two models."
                )
        other = ProjectionAdapter(
            self.source, self.target, modalities=self.modalities, parameters=self.parameters, means=means
        )
        other.provenance = self.provenance
        return other

    def config(self) -> dict[str, Any]:
        """See :meth:`Adapter.config`."""
        return {"modalities": list(self.modalities), "centred": self.means is not None}

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """See :meth:`Adapter.tensors`."""
        means = self.means or {}
        sources = {f"source_mean.{m}": mu for m, (mu, _) in means.items()}
        return {**self.parameters, **sources, **{f"target_mean.{m}": nu for m, (_, nu) in means.items()}}

    @classmethod
    def restore(
        cls, source: Space, target: Space, config: Mapping[str, Any], tensors: Mapping[str, npt.NDArray[Any]]
    ) -> Self:
        """See :meth:`Adapter.restore`."""
        modalities: tuple[Modality, ...] = tuple(config["modalities"])
        means: Means | None = None
        if config["centred"]:
            means = {m: (tensors[f"source_mean.{m}"], tensors[f"target_mean.{m}"]) for m in modalities}
        return cls(source, target, modalities=modalities, parameters=tensors, means=means)

    def draw(self, graph: Graph, modality: Modality) -> str:
        """See :meth:`Adapter.draw`."""
        p = self.parameters
        start = graph.vectors
        if self.means is not None:
            start = graph.apply("Sub", start, graph.constant(self.means[modality][0]))
        h = start
        for k in range(1, self.depth + 1):
            inner = graph.apply("MatMul", h, graph.constant(p[f"inner.{k}"]))
            inner = graph.apply("Add", inner, graph.constant(p[f"inner_offset.{k}"]))
            h = draw_gelu(graph, draw_layer_norm(graph, inner, p[f"gain.{k}"], p[f"shift.{k}"]))
        offset = p["offset"] if self.means is None else p["offset"] + self.means[modality][1]
        mapped = graph.apply("MatMul", start, graph.constant(p["matrix"]))
        mapped = graph.apply("Add", mapped, graph.constant(offset))
        mapped = graph.apply("Add", mapped, graph.apply("MatMul", h, graph.constant(p["outer"])))
        return draw_normalized(graph, mapped) if self.target.normalized else mapped
