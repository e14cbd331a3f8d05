"""Makers of real collections, one a store: filled by the store's own client, then opened by Crossfade."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

from stores.base import Maker

__all__ = ["MAKERS", "Maker", "maker_of"]

MAKERS: Mapping[str, str] = {
    "faiss": "FaissMaker",
    "lancedb": "LanceDBMaker",
    "memory": "MemoryMaker",
    "milvus": "MilvusMaker",
    "postgresql": "PostgreSQLMaker",
    "qdrant": "QdrantMaker",
}
"""Store → the class in the module of its name here."""


def maker_of(name: str, folder: Path) -> Maker:
    """A maker that keeps what it makes in ``folder``, where its store keeps anything in files."""
    kind: type[Maker] = getattr(import_module(f"stores.{name}"), MAKERS[name])
    return kind(folder)
