"""Chains of upgrades: v3 → v2 → v1, one adapter after the other.

Needs: adapters, each from the space that the one before it maps to; no pairs and no model. Gives: a
:class:`ChainAdapter`, or one :class:`~crossfade.methods.linear.LinearAdapter` where the product of the maps is one. Fails:
what the space in between cannot hold is lost, and the error of each map is the input of the next. How much that costs
depends on the models and not on the length alone; :func:`crossfade.evaluation.evaluate_sequence` measures it. A
two-encoder adapter cannot be a member: it asks for the old model's vector of each query, and nobody has those of the
versions in between.

Equations, with f_t the adapter from version t to version t − 1 and n(·) the division by the norm::

    z_T = v,   z_{t−1} = f_t(z_t)   for t = T … 2                                     (1)
    W = W_a W_b,   b_m = b_{a,m} W_b + b_{b,m}                                        (2), a then b, both linear
    n(n(x) W_b) = n(x W_b)                                                            (3)

(2) is exact where the space in between is not normalised. Where it is, (3) makes it exact if the second map has no
offset and its target is normalised.

============  ==================  ===================
symbol        variable            shape
============  ==================  ===================
z_t           ``vectors``         [n, d_t]
f_t           ``adapters[T−t]``   [n, d_t] → [n, d_{t−1}]
W_a, W_b      ``first.matrix``,   [d_a, d_b], [d_b, d_c]
              ``second.matrix``
b_{a,m}       ``first.offsets``   [d_b] for each modality m
============  ==================  ===================

Deviations: no paper; composition is what a sequence of backward-compatible models does by itself (BCT, 2003.11942).

Not specified by the paper (our choice): the modalities of a chain are those that all of its members map. What it was
fitted on is all that its members were fitted on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import index
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from crossfade.errors import ConfigError, FitError, FormatError
from crossfade.methods import adapter_class
from crossfade.methods.base import Adapter, Floats, Graph, Provenance
from crossfade.methods.linear import LinearAdapter
from crossfade.spaces import Modality, Space, require_same

__all__ = ["ChainAdapter", "compose"]

CHAIN = "chain"
LINEAR = "linear"
FITTED_ON = "fitted_on"

Keys = npt.NDArray[np.uint64]


class ChainAdapter(Adapter):
    """v ↦ f_2(… f_T(v)): maps the newest space to the one before it, and so on to the oldest.

    Args:
        adapters: at least two, the newest first; each maps into the space that the next one maps from. Chains among
            them are taken apart into their members.

    Raises:
        SpaceMismatch: an adapter maps into another space than the next one maps from, also of equal dimension.
        FitError: one needs two encoders, or there is no modality that all of them map.
        ConfigError: there are fewer than two.
    """

    def __init__(self, adapters: Sequence[Adapter]) -> None:
        self.adapters = _members(adapters)
        if len(self.adapters) < 2:
            raise ConfigError(f"A chain must have at least two adapters; found {len(self.adapters)}. Use it as it is.")
        super().__init__(self.adapters[0].source, self.adapters[-1].target, _shared_modalities(self.adapters))
        self.provenance = _provenance(CHAIN, adapters)

    def map(self, vectors: Floats, modality: Modality, *, old: Floats | None = None) -> Floats:
        """See :meth:`Adapter.map`."""
        self.require_modality(modality)
        for adapter in self.adapters:
            vectors = adapter.map(vectors, modality)  # Eq. (1)
        return vectors

    def config(self) -> dict[str, Any]:
        """See :meth:`Adapter.config`.

        Raises:
            ConfigError: a member does not say which method made it.
        """
        return {
            "between": [{**a.target.to_dict(), "fingerprint": a.target.fingerprint} for a in self.adapters[:-1]],
            "adapters": [_described(adapter) for adapter in self.adapters],
        }

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """See :meth:`Adapter.tensors`: those of member i, and the keys of the items it was fitted on, after ``i.``."""
        named: dict[str, npt.NDArray[Any]] = {}
        for number, adapter in enumerate(self.adapters):
            keys = {} if adapter.provenance is None else {FITTED_ON: adapter.provenance.fitted_on}
            named |= {f"{number}.{name}": tensor for name, tensor in (adapter.tensors() | keys).items()}
        return named

    @classmethod
    def restore(
        cls, source: Space, target: Space, config: Mapping[str, Any], tensors: Mapping[str, npt.NDArray[Any]]
    ) -> Self:
        """See :meth:`Adapter.restore`.

        Raises:
            FormatError: the spaces in between are damaged, or do not fit the number of members.
        """
        spaces = [source, *(_space(values) for values in config["between"]), target]
        described = config["adapters"]
        if len(described) != len(spaces) - 1:
            raise FormatError(
                f"A chain through {len(spaces)} spaces must have {len(spaces) - 1} adapters; found {len(described)}. "
                "Copy it again."
            )
        members = []
        for number, (values, ends) in enumerate(zip(described, pairwise(spaces), strict=True)):
            prefix = f"{number}."
            own = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
            members.append(_restored(values, ends, own))
        return cls(members)

    def draw(self, graph: Graph, modality: Modality) -> str:
        """See :meth:`Adapter.draw`: one graph, in which each map's output is the next one's input."""
        value = graph.vectors
        for adapter in self.adapters:
            value = adapter.draw(_Onwards(graph, value, graph.old), modality)
        return value


def compose(adapters: Sequence[Adapter]) -> Adapter:
    """The map that applies these adapters one after the other; linear ones that follow each other become one matrix.

    A product of matrices gives what the chain gives, to rounding, at the cost of one step.

    Args:
        adapters: the newest first; each maps into the space that the next one maps from.

    Returns:
        The adapter itself where there is one, a :class:`~crossfade.methods.linear.LinearAdapter` where equations (2) and
        (3) allow it, else a :class:`ChainAdapter`.

    Raises:
        SpaceMismatch: an adapter maps into another space than the next one maps from.
        FitError: one needs two encoders, or there is no modality that all of them map.
        ConfigError: there is none.
    """
    if not adapters:
        raise ConfigError("A chain must have at least two adapters, and has none. Name them, the newest first.")
    if len(adapters) == 1:
        return adapters[0]
    members = _members(adapters)
    _shared_modalities(members)
    merged: list[Adapter] = []
    for adapter in members:
        merged.append(adapter)
        while len(merged) > 1 and (product := _product(merged[-2], merged[-1])) is not None:
            merged[-2:] = [product]
    composed = merged[0] if len(merged) == 1 else ChainAdapter(merged)
    composed.provenance = _provenance(LINEAR if len(merged) == 1 else CHAIN, adapters)
    return composed


def _product(first: Adapter, second: Adapter) -> LinearAdapter | None:
    """One linear map that gives what ``first`` and then ``second`` give; None where there is none."""
    if type(first) is not LinearAdapter or type(second) is not LinearAdapter:
        return None
    shared = tuple(m for m in first.modalities if m in second.modalities)
    unmoved = not any(second.offsets[m].any() for m in shared)
    if first.target.normalized and not (unmoved and second.target.normalized):  # Eq. (3)
        return None
    inner = second.matrix.astype(np.float64)
    product = LinearAdapter(
        first.source,
        second.target,
        matrix=first.matrix.astype(np.float64) @ inner,  # Eq. (2)
        offsets={m: first.offsets[m].astype(np.float64) @ inner + second.offsets[m] for m in shared},
    )
    product.provenance = _provenance(LINEAR, (first, second))
    return product


def _members(adapters: Sequence[Adapter]) -> tuple[Adapter, ...]:
    """The adapters with every chain among them taken apart; consecutive spaces agree, and none needs two encoders."""
    members: list[Adapter] = []
    for adapter in adapters:
        members += adapter.adapters if isinstance(adapter, ChainAdapter) else (adapter,)
    for adapter in members:
        if adapter.two_encoders:
            raise FitError(
                f"A chain is made of adapters that need the new model's vector alone; the one from {adapter.source} to "
                f"{adapter.target} also needs the old model's. Fit a method with one encoder for that step."
            )
    for first, second in pairwise(members):
        require_same(
            first.target,
            second.source,
            what=f"The vectors that the adapter from {first.source} gives to the next one of the chain",
            hint="Name the adapters from the newest to the oldest, and leave none out.",
        )
    return tuple(members)


def _shared_modalities(adapters: Sequence[Adapter]) -> tuple[Modality, ...]:
    shared = tuple(m for m in adapters[0].modalities if all(m in adapter.modalities for adapter in adapters))
    if not shared:
        found = "; ".join(" and ".join(adapter.modalities) for adapter in adapters)
        raise FitError(
            f"The adapters of a chain must share a modality; they map {found}. Fit them on pairs of the same modality."
        )
    return shared


def _provenance(name: str, adapters: Sequence[Adapter]) -> Provenance | None:
    """Where a composition comes from: all that its parts were fitted on; None where a part does not say."""
    methods: list[str] = []
    hyperparameters: list[Any] = []
    seeds: list[int] = []
    pairs: dict[str, int] = {}
    keys: list[Keys] = []
    for adapter in adapters:
        made = adapter.provenance
        if made is None:
            return None
        composed = made.method in (CHAIN, LINEAR)
        methods += made.config["methods"] if composed else [made.method]
        hyperparameters += made.config["hyperparameters"] if composed else [dict(made.config)]
        seeds += made.config["seeds"] if composed else [made.seed]
        for modality, count in made.pairs.items():
            pairs[modality] = pairs.get(modality, 0) + count
        keys.append(made.fitted_on)
    config = {"methods": methods, "hyperparameters": hyperparameters, "seeds": seeds}
    return Provenance(name, config, 0, pairs, np.unique(np.concatenate(keys)))


def _described(adapter: Adapter) -> dict[str, Any]:
    """What, beside its tensors and spaces, restores a member."""
    made = adapter.provenance
    if made is None or adapter_class(made.method) is None:
        raise ConfigError(
            f"A chain is saved with the method that made each adapter; the one from {adapter.source} has none. Fit it by "
            "a method."
        )
    return {
        "method": made.method,
        "hyperparameters": dict(made.config),
        "adapter": adapter.config(),
        "provenance": {"seed": made.seed, "pairs": dict(made.pairs)},
    }


def _restored(values: Mapping[str, Any], ends: tuple[Space, Space], tensors: dict[str, npt.NDArray[Any]]) -> Adapter:
    kind = adapter_class(str(values["method"]))
    if kind is None:
        raise FormatError(
            f"A chain names the method {values['method']!r}, which this Crossfade does not have. Upgrade it."
        )
    fitted_on = np.asarray(tensors.pop(FITTED_ON), dtype=np.uint64)
    member = kind.restore(*ends, values["adapter"], tensors)
    made = values["provenance"]
    member.provenance = Provenance(
        values["method"], {**values["hyperparameters"]}, index(made["seed"]), {**made["pairs"]}, fitted_on
    )
    return member


def _space(values: Mapping[str, Any]) -> Space:
    space = Space.from_dict(values)
    if space.fingerprint != values["fingerprint"]:
        raise FormatError(
            f"A space between a chain's adapters has fingerprint {space.fingerprint}, and {values['fingerprint']} was "
            "recorded: a field was changed. Copy the folder again."
        )
    return space


@dataclass
class _Onwards:
    """A graph whose input is a value inside it, so that the next map is drawn after the one before."""

    graph: Graph
    vectors: str
    old: str

    def constant(self, value: npt.NDArray[np.float32] | float) -> str:
        return self.graph.constant(value)

    def apply(self, operator: str, *inputs: str, attributes: Mapping[str, Any] | None = None) -> str:
        return self.graph.apply(operator, *inputs, attributes=attributes)
