"""Fixtures that every test may use."""

from __future__ import annotations

import pytest
import worlds
from hypothesis import settings

settings.register_profile("crossfade", deadline=None)  # how long one example takes depends on who else is computing
settings.load_profile("crossfade")


@pytest.fixture(scope="session")
def rotated() -> worlds.World:
    return worlds.rotated()


@pytest.fixture(scope="session")
def two_modalities() -> worlds.World:
    return worlds.two_modalities()
