"""SLERP and NLERP: query with both models at once (2609.39836; code ``miccunifi/SLERP_backward_compatibility``).

Needs: both models at query time, and what Procrustes needs to fit. Gives: a :class:`SlerpAdapter`, whose queries lie
on the arc between the old model's vector and the new model's, rotated. Fails: where the old model can no longer be
called, and at twice the encoding cost of a query; report it apart from methods that need one encoder.

Equations, with u the old and v the new model's vector of one query, both of unit length::

    R = argmax tr(Rᵀ Xᵀ Y), R orthogonal                         (1), see procrustes
    w = n(v R),   cos θ = ⟨u, w⟩                                  (2)
    q = [sin((1 − a) θ) u + sin(a θ) w] / sin θ                   (3), SLERP
    q = n((1 − a) u + a w)                                        (4), NLERP

============  ============  ===========
symbol        variable      shape
============  ============  ===========
u             ``u``         [n, d_t]
v, w          ``v, w``      [n, d_s], [n, d_t]
R             ``rotation``  [d_s, d_t]
a             ``weights``   () for each modality of queries
============  ============  ===========

Deviations: where sin θ < 10⁻⁶ the arc has no unique direction or no length, and (4) is used. q is normalised again,
which (3) leaves to rounding.

Not specified by the paper (our choice): a is the value of a grid with the best mean reciprocal rank on held-out
pairs, one for each modality of queries. Without links between texts and images a query's right answer would be its
own old vector, which a = 0 finds by definition; nothing can be chosen then, and a is ½, which the paper reports to
give nearly all of the gain.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt

from crossfade.errors import ConfigError, FitError, FormatError
from crossfade.methods.base import (
    Adapter,
    Floats,
    Graph,
    Method,
    as_queries,
    l2_normalize,
    require_pairs,
    shared_modalities,
)
from crossfade.methods.held_out import ranks, reseeded, trials
from crossfade.methods.linear import draw_normalized
from crossfade.methods.procrustes import orthogonal_map
from crossfade.methods.statistics import collect, total
from crossfade.spaces import MODALITIES, Modality, Space

if TYPE_CHECKING:
    from crossfade.pairing import Pairs

__all__ = ["Slerp", "SlerpAdapter", "nlerp", "slerp"]

Interpolation = Literal["slerp", "nlerp"]
SMALL_SINE = 1e-6
MIDPOINT = 0.5


def nlerp(u: Floats, w: Floats, a: float) -> Floats:
    """The normalised straight line between unit vectors [n, d]."""
    return l2_normalize(np.float32(1.0 - a) * u + np.float32(a) * w)  # Eq. (4)


def slerp(u: Floats, w: Floats, a: float) -> Floats:
    """The arc between unit vectors [n, d]."""
    cosine = np.clip(np.einsum("ij,ij->i", u, w), -1.0, 1.0)[:, None]
    theta = np.arccos(cosine)
    sine = np.sin(theta)
    safe = np.where(sine < SMALL_SINE, np.float32(1.0), sine)
    first = np.where(sine < SMALL_SINE, np.float32(1.0 - a), np.sin(np.float32(1.0 - a) * theta) / safe)
    second = np.where(sine < SMALL_SINE, np.float32(a), np.sin(np.float32(a) * theta) / safe)
    q: Floats = (first * u + second * w).astype(np.float32, copy=False)  # Eq. (3)
    return l2_normalize(q)


class SlerpAdapter(Adapter):
    """(u, v) ↦ the point at ``weights[modality]`` on the way from u to n(v R).

    Args:
        source: the new model's space.
        target: the old model's space.
        rotation: R, [d_s, d_t].
        weights: modality of the query → a in [0, 1].
        interpolation: ``slerp`` or ``nlerp``.
    """

    two_encoders: ClassVar[bool] = True

    def __init__(
        self,
        source: Space,
        target: Space,
        *,
        rotation: npt.NDArray[Any],
        weights: Mapping[Modality, float],
        interpolation: Interpolation,
    ) -> None:
        super().__init__(source, target, tuple(m for m in MODALITIES if m in weights))
        self.rotation = np.ascontiguousarray(rotation, dtype=np.float32)
        self.weights = {m: float(weights[m]) for m in self.modalities}
        self.interpolation: Interpolation = interpolation
        if self.rotation.shape != (source.dimension, target.dimension):
            raise FormatError(
                f"A SLERP adapter from {source} to {target} must have a matrix of shape "
                f"{(source.dimension, target.dimension)}; found {self.rotation.shape}. Copy it again."
            )

    def map(self, vectors: Floats, modality: Modality, *, old: Floats | None = None) -> Floats:
        """See :meth:`Adapter.map`; ``old`` must be given, and the result has unit norm."""
        self.require_modality(modality)
        if old is None:
            raise FitError(
                "A SLERP adapter needs the old model's vectors of the same queries; none were given. Pass old=…."
            )
        v = as_queries(vectors, self.source)
        u = l2_normalize(np.atleast_2d(as_queries(old, self.target)))
        w = l2_normalize(np.atleast_2d(v) @ self.rotation)  # Eq. (2)
        if u.shape != w.shape:
            raise FitError(f"There must be one old vector a query; found {len(u)} for {len(w)}. Encode them with both.")
        between = slerp if self.interpolation == "slerp" else nlerp
        q = between(u, w, self.weights[modality])
        return q[0] if v.ndim == 1 else q

    def config(self) -> dict[str, Any]:
        """See :meth:`Adapter.config`."""
        return {"weights": self.weights, "interpolation": self.interpolation}

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """See :meth:`Adapter.tensors`."""
        return {"rotation": self.rotation}

    @classmethod
    def restore(
        cls, source: Space, target: Space, config: Mapping[str, Any], tensors: Mapping[str, npt.NDArray[Any]]
    ) -> Self:
        """See :meth:`Adapter.restore`."""
        return cls(
            source,
            target,
            rotation=tensors["rotation"],
            weights=config["weights"],
            interpolation=config["interpolation"],
        )

    def draw(self, graph: Graph, modality: Modality) -> str:
        """See :meth:`Adapter.draw`."""
        a = self.weights[modality]
        u = draw_normalized(graph, graph.old)
        w = draw_normalized(graph, graph.apply("MatMul", graph.vectors, graph.constant(self.rotation)))
        near, far = graph.constant(1.0 - a), graph.constant(a)
        if self.interpolation == "slerp":
            ones = graph.constant(np.ones((self.target.dimension, 1), dtype=np.float32))
            product = graph.apply("MatMul", graph.apply("Mul", u, w), ones)
            limits = graph.constant(-1.0), graph.constant(1.0)
            theta = graph.apply("Acos", graph.apply("Clip", product, *limits))
            sine = graph.apply("Sin", theta)
            tiny = graph.apply("Less", sine, graph.constant(SMALL_SINE))
            safe = graph.apply("Where", tiny, graph.constant(1.0), sine)
            near, far = (
                graph.apply(
                    "Where", tiny, c, graph.apply("Div", graph.apply("Sin", graph.apply("Mul", c, theta)), safe)
                )
                for c in (near, far)
            )
        return draw_normalized(graph, graph.apply("Add", graph.apply("Mul", near, u), graph.apply("Mul", far, w)))


@dataclass(frozen=True)
class Slerp(Method):
    """Interpolation between the old model's query and the new one's.

    Attributes:
        interpolation: ``slerp`` (2609.39836) or ``nlerp``.
        weight: a for every modality of queries; None chooses it on held-out pairs.
        grid: the weights to choose from (our choice).
        held_out: the share of pairs to choose on (our choice).
    """

    interpolation: Interpolation = "slerp"
    weight: float | None = None
    grid: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    held_out: float = 0.2

    name: ClassVar[str] = "slerp"
    adapter: ClassVar[type[Adapter]] = SlerpAdapter

    def __post_init__(self) -> None:
        if self.interpolation not in ("slerp", "nlerp"):
            raise ConfigError(f"interpolation must be slerp or nlerp; found {self.interpolation!r}.")
        for a in (*self.grid, *(() if self.weight is None else (self.weight,))):
            if not 0.0 <= a <= 1.0:
                raise ConfigError(f"A weight must lie between 0 (the old query) and 1 (the new one); found {a}.")
        if not self.grid:
            raise ConfigError("The grid of weights must not be empty. Leave it out, or name a weight.")

    def solve(self, pairs: Pairs, *, seed: int) -> SlerpAdapter:
        """Fit R on all pairs, after choosing the weights on some that were held out of it; ``seed`` divides them.

        Raises:
            FitError: fewer pairs than min(d_s, d_t), or an old space that is not compared by angle.
        """
        if not pairs.target.normalized and pairs.target.metric != "cosine":
            raise FitError(
                f"SLERP interpolates directions, and {pairs.target} is neither normalised nor compared by "
                "cosine. Use another method."
            )
        smaller = min(pairs.source.dimension, pairs.target.dimension)
        require_pairs(pairs, smaller, method="SLERP", why="one for each dimension of the smaller space")
        default = MIDPOINT if self.weight is None else self.weight
        weights: dict[Modality, float] = dict.fromkeys(shared_modalities(pairs), default)
        if self.weight is None and pairs.links and len(pairs.modalities) == 2 and len(pairs) >= 2 * smaller:
            weights |= self._chosen(pairs, seed)
        return SlerpAdapter(
            pairs.source, pairs.target, rotation=_rotation(pairs), weights=weights, interpolation=self.interpolation
        )

    def _chosen(self, pairs: Pairs, seed: int) -> dict[Modality, float]:
        split = pairs.split(held_out=self.held_out, seed=reseeded(seed, "slerp"))
        rotation = _rotation(split.train)
        chosen: dict[Modality, float] = {}
        for trial in trials(split.held_out, split.held_out.modalities):
            if not trial.cross_modal:
                continue
            scores = []
            for a in self.grid:
                candidate = SlerpAdapter(
                    pairs.source,
                    pairs.target,
                    rotation=rotation,
                    weights={trial.query: a},
                    interpolation=self.interpolation,
                )
                found = ranks(trial, candidate.map(trial.source, trial.query, old=trial.target))
                scores.append((float(np.mean(1.0 / found)), -abs(a - MIDPOINT), a))
            chosen[trial.query] = max(scores)[2]
        return chosen


def _rotation(pairs: Pairs) -> npt.NDArray[np.float64]:
    sums = [moments for folds in collect(pairs, gram=False).values() for moments in folds]
    return orthogonal_map(total(sums).xy)  # Eq. (1)
