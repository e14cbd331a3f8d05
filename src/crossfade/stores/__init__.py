"""Vector stores: one small protocol over those that people run, and one in memory that all are compared with."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

from crossfade.errors import ConfigError
from crossfade.stores.address import Address, parse_address
from crossfade.stores.backend import Backend, Capabilities, Description, VectorField
from crossfade.stores.conditions import Where
from crossfade.stores.memory import MemoryBackend
from crossfade.stores.records import Hits, Id, Records, Value, Vectors
from crossfade.stores.store import Store

__all__ = [
    "STORES",
    "Address",
    "Backend",
    "Capabilities",
    "Description",
    "Hits",
    "Id",
    "MemoryBackend",
    "Records",
    "Store",
    "Value",
    "VectorField",
    "Vectors",
    "Where",
    "open_store",
]

STORES: Mapping[str, str] = {
    "lancedb": "crossfade.stores.lancedb",
    "qdrant": "crossfade.stores.qdrant",
    "qdrant+https": "crossfade.stores.qdrant",
    "postgresql": "crossfade.stores.postgresql",
    "milvus": "crossfade.stores.milvus",
    "milvus+https": "crossfade.stores.milvus",
    "faiss": "crossfade.stores.faiss",
}
"""Scheme of an address → the module whose function ``connect`` opens it; imported when it is asked for."""


def open_store(address: str) -> Store:
    """Open a collection that exists.

    Args:
        address: see :mod:`crossfade.stores.address`.

    Raises:
        ConfigError: the address cannot be read, or names a store that there is none for.
        MissingExtra: the store's client is not installed.
        Unreachable: the store does not answer, or refuses the credentials.
        StoreChanged: there is no such collection.
    """
    parsed = parse_address(address)
    module = STORES.get(parsed.scheme)
    if module is None:
        raise ConfigError(f"A store is one of {', '.join(STORES)}; found {parsed.scheme!r}.")
    backend = import_module(module).connect(parsed)
    try:
        return Store(backend)
    except BaseException:
        backend.close()
        raise
