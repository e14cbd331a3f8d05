"""The methods, each in one file, and ``METHODS``, the only registry: a name and where its class is.

Nothing is imported until it is asked for: ``crossfade.methods.Procrustes`` and ``METHODS["procrustes"]`` load one file.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from crossfade.errors import ConfigError
from crossfade.methods.base import Adapter, Method, Provenance

if TYPE_CHECKING:
    from crossfade.methods.chain import ChainAdapter
    from crossfade.methods.contrastive import Contrastive
    from crossfade.methods.identity import Identity
    from crossfade.methods.linear import LinearAdapter
    from crossfade.methods.low_rank import LowRank
    from crossfade.methods.procrustes import Procrustes
    from crossfade.methods.residual_mlp import ResidualMLP
    from crossfade.methods.ridge import Ridge
    from crossfade.methods.slerp import Slerp
    from crossfade.methods.xbt import XBT

__all__ = [
    "METHODS",
    "XBT",
    "Adapter",
    "ChainAdapter",
    "Contrastive",
    "Identity",
    "LinearAdapter",
    "LowRank",
    "Method",
    "Procrustes",
    "Provenance",
    "ResidualMLP",
    "Ridge",
    "Slerp",
    "adapter_class",
]

_PATHS = {
    "identity": "crossfade.methods.identity:Identity",
    "procrustes": "crossfade.methods.procrustes:Procrustes",
    "ridge": "crossfade.methods.ridge:Ridge",
    "low_rank": "crossfade.methods.low_rank:LowRank",
    "residual_mlp": "crossfade.methods.residual_mlp:ResidualMLP",
    "xbt": "crossfade.methods.xbt:XBT",
    "contrastive": "crossfade.methods.contrastive:Contrastive",
    "slerp": "crossfade.methods.slerp:Slerp",
}
"""From the simplest to the most elaborate: where two do equally well, the earlier one is chosen."""

_COMPOSED = {
    "chain": "crossfade.methods.chain:ChainAdapter",
    "linear": "crossfade.methods.linear:LinearAdapter",
}
"""Adapters that :meth:`Adapter.then` composes of others: saved like those of a method, but there is nothing to fit."""


class _Methods(Mapping[str, type[Method]]):
    """Name → class, imported when it is looked up."""

    def __getitem__(self, name: str) -> type[Method]:
        if name not in _PATHS:
            raise ConfigError(f"A method must be one of {', '.join(_PATHS)}; found {name!r}.")
        module, attribute = _PATHS[name].split(":")
        found: type[Method] = getattr(importlib.import_module(module), attribute)
        return found

    def __contains__(self, name: object) -> bool:
        return name in _PATHS

    def __iter__(self) -> Iterator[str]:
        return iter(_PATHS)

    def __len__(self) -> int:
        return len(_PATHS)


METHODS: Mapping[str, type[Method]] = _Methods()

_LAZY = {path.split(":")[1]: path for path in (*_PATHS.values(), *_COMPOSED.values())}


def adapter_class(name: str) -> type[Adapter] | None:
    """The class of the adapters whose provenance names ``name``: a method, ``chain`` or ``linear``; None for others."""
    if name in METHODS:
        return METHODS[name].adapter
    if name not in _COMPOSED:
        return None
    module, attribute = _COMPOSED[name].split(":")
    found: type[Adapter] = getattr(importlib.import_module(module), attribute)
    return found


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _LAZY[name].split(":")
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
