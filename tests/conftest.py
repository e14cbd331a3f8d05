"""Fixtures that every test may use."""

from __future__ import annotations

import pytest
import worlds


@pytest.fixture(scope="session")
def rotated() -> worlds.World:
    return worlds.rotated()


@pytest.fixture(scope="session")
def two_modalities() -> worlds.World:
    return worlds.two_modalities()
