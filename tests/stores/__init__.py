"""Makers of real collections, one a store: filled by the store's own client, then opened by Crossfade."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from stores.base import Maker
from stores.memory import MemoryMaker

__all__ = ["MAKERS", "Maker", "maker_of"]

MAKERS: Mapping[str, type[Maker]] = {
    "memory": MemoryMaker,
}


def maker_of(name: str, folder: Path) -> Maker:
    """A maker that keeps what it makes in ``folder``, where its store keeps anything in files."""
    return MAKERS[name](folder)
