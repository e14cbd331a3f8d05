"""What stands at a place is recognised, and what is ambiguous is said to be."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crossfade.embeddings import Embeddings
from crossfade.embeddings.locations import FORMATS, format_of, open_embeddings
from crossfade.errors import ConfigError, FormatError, SpaceMismatch
from crossfade.spaces import Space

SPACE = Space(model="m", dimension=4)
OTHER = Space(model="other", dimension=4)
EMBEDDINGS = Embeddings(["a", "b", "ü"], np.eye(3, 4, dtype=np.float16), SPACE, "image")

WRITERS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "own folder": ("crossfade", lambda path: EMBEDDINGS.save(path)),
    "clip-retrieval": ("clip-retrieval", lambda path: EMBEDDINGS.to_clip_retrieval(path)),
    "npy folder": ("npy", lambda path: EMBEDDINGS.to_npy(path)),
    "a.parquet": ("parquet", lambda path: EMBEDDINGS.to_parquet(path)),
    "a.arrow": ("arrow", lambda path: EMBEDDINGS.to_arrow(path)),
    "a.feather": ("arrow", lambda path: EMBEDDINGS.to_arrow(path)),
    "parquet without a suffix": ("parquet", lambda path: EMBEDDINGS.to_parquet(path)),
    "arrow without a suffix": ("arrow", lambda path: EMBEDDINGS.to_arrow(path)),
    "parquet folder": ("parquet", lambda path: EMBEDDINGS.to_parquet(path / "0.parquet")),
    "arrow folder": ("arrow", lambda path: EMBEDDINGS.to_arrow(path / "0.arrow")),
}


def test_every_format_is_tried() -> None:
    assert {kind for kind, _ in WRITERS.values()} == set(FORMATS)


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_every_format_is_recognised(tmp_path: Path, name: str) -> None:
    kind, write = WRITERS[name]
    write(tmp_path / name)
    assert format_of(tmp_path / name) == kind
    for options in ({}, {"space": SPACE, "modality": "image"}):
        opened = open_embeddings(str(tmp_path / name), **options)  # type: ignore[arg-type]
        assert opened.ids.tolist() == ["a", "b", "ü"]
        assert np.array_equal(opened.matrix(), np.eye(3, 4))
        assert (opened.space, opened.modality) == (SPACE, "image")


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_another_space_of_the_same_dimension_is_refused(tmp_path: Path, name: str) -> None:
    WRITERS[name][1](tmp_path / name)
    with pytest.raises(SpaceMismatch, match="other"):
        open_embeddings(tmp_path / name, space=OTHER)


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_another_modality_is_refused(tmp_path: Path, name: str) -> None:
    WRITERS[name][1](tmp_path / name)
    with pytest.raises((SpaceMismatch, FormatError), match="text"):
        open_embeddings(tmp_path / name, modality="text")


def test_a_bare_npy_needs_its_space(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.eye(3, 4))
    (tmp_path / "ids.txt").write_text("x\ny\nz\n")
    opened = open_embeddings(tmp_path / "v.npy", space=SPACE, modality="text", ids=str(tmp_path / "ids.txt"))
    assert opened.ids.tolist() == ["x", "y", "z"]
    with pytest.raises(ConfigError):
        open_embeddings(tmp_path / "v.npy")


def test_columns_are_named(tmp_path: Path) -> None:
    EMBEDDINGS.to_parquet(tmp_path / "a.parquet", ids="key", vectors="emb")
    assert len(open_embeddings(tmp_path / "a.parquet", ids="key", vectors="emb")) == 3
    with pytest.raises(FormatError, match="key"):
        open_embeddings(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    ("name", "options"),
    [("own folder", {"ids": "id"}), ("own folder", {"vectors": "v"}), ("npy folder", {"vectors": "v"})],
)
def test_options_that_do_not_concern_the_format(tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    WRITERS[name][1](tmp_path / name)
    with pytest.raises(ConfigError):
        open_embeddings(tmp_path / name, **options)


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({}, "holds no embeddings"),
        ({"notes.md": b""}, "holds no embeddings"),
        ({"a.npy": b"", "b.parquet": b""}, r"npy, parquet"),
        ({"a.arrow": b"", "img_emb/img_emb_0.npy": b""}, r"arrow, clip-retrieval"),
    ],
)
def test_folders_that_are_nothing_or_several_things(tmp_path: Path, files: dict[str, bytes], says: str) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    with pytest.raises(FormatError, match=says):
        open_embeddings(tmp_path)


def test_files_that_are_nothing(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="missing"):
        open_embeddings(tmp_path / "none")
    (tmp_path / "a.bin").write_bytes(b"what is this")
    with pytest.raises(FormatError, match=r"none of \.npy, Parquet and Arrow"):
        open_embeddings(tmp_path / "a.bin")
