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
    from crossfade.methods.identity import Identity
    from crossfade.methods.linear import LinearAdapter
    from crossfade.methods.low_rank import LowRank
    from crossfade.methods.procrustes import Procrustes
    from crossfade.methods.residual_mlp import ResidualMLP
    from crossfade.methods.ridge import Ridge
    from crossfade.methods.slerp import Slerp

__all__ = [
    "METHODS",
    "Adapter",
    "Identity",
    "LinearAdapter",
    "LowRank",
    "Method",
    "Procrustes",
    "Provenance",
    "ResidualMLP",
    "Ridge",
    "Slerp",
]

_PATHS = {
    "identity": "crossfade.methods.identity:Identity",
    "procrustes": "crossfade.methods.procrustes:Procrustes",
    "ridge": "crossfade.methods.ridge:Ridge",
    "low_rank": "crossfade.methods.low_rank:LowRank",
    "residual_mlp": "crossfade.methods.residual_mlp:ResidualMLP",
    "slerp": "crossfade.methods.slerp:Slerp",
}
"""From the simplest to the most elaborate: where two do equally well, the earlier one is chosen."""


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

_LAZY = {path.split(":")[1]: path for path in (*_PATHS.values(), "crossfade.methods.linear:LinearAdapter")}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _LAZY[name].split(":")
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
