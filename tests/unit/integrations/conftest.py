"""What the retrievers' tests have in common; tests/passages.py makes it."""

from __future__ import annotations

from pathlib import Path

import pytest
from live import NEW, OLD
from passages import Digits, filled, planned

from crossfade.stores import Store
from crossfade.upgrading import Searcher, Upgrade


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return filled(tmp_path)


@pytest.fixture
def upgrade(store: Store, tmp_path: Path) -> Upgrade:
    return planned(store, tmp_path)


@pytest.fixture
def searcher(store: Store, upgrade: Upgrade) -> Searcher:
    return Searcher(upgrade, store, old=Digits(OLD), new=Digits(NEW))
