"""Real image files, tars and tables, written small."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from PIL import Image

Colour = tuple[int, int, int]


@pytest.fixture(scope="session")
def encoded() -> Callable[..., bytes]:
    """The bytes of a plain image: ``encoded((255, 0, 0), "PNG", size=(8, 6))``."""

    def make(colour: Colour = (200, 30, 30), kind: str = "PNG", *, size: tuple[int, int] = (8, 6)) -> bytes:
        buffer = io.BytesIO()
        Image.new("RGB", size, colour).save(buffer, kind)
        return buffer.getvalue()

    return make


@pytest.fixture(scope="session")
def pack() -> Callable[[Path, Mapping[str, bytes]], Path]:
    """Write a tar with these members, in this order."""

    def make(path: Path, members: Mapping[str, bytes]) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, "w") as archive:
            for name, data in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
        return path

    return make


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str | bytes], Path]:
    """Write a file below the test's folder."""

    def make(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return make
