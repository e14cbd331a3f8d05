"""Checkpoints on disk, made once a session."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import checkpoints
import pytest

from crossfade.encoders import TransformersDualEncoder


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Models this small lose far more by waiting for threads than they gain."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a tiny checkpoint by the name of its function in ``checkpoints``."""
    made: dict[str, Path] = {}

    def get(kind: str) -> Path:
        if kind not in made:
            made[kind] = getattr(checkpoints, kind)(tmp_path_factory.mktemp(kind) / f"tiny-{kind}")
        return made[kind]

    return get


@pytest.fixture(scope="session")
def dual(checkpoint: Callable[[str], Path]) -> Callable[[str], TransformersDualEncoder]:
    """The tiny dual encoder by the name of its family, loaded once."""
    loaded: dict[str, TransformersDualEncoder] = {}

    def get(kind: str) -> TransformersDualEncoder:
        if kind not in loaded:
            loaded[kind] = TransformersDualEncoder(str(checkpoint(kind)), device="cpu")
        return loaded[kind]

    return get
