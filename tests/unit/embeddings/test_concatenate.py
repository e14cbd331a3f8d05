"""Joining sets of one space: native vectors and bridged ones, in memory and on disk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import crossfade as cf
from crossfade.embeddings import Embeddings, Rows
from crossfade.errors import ConfigError, InvalidIds, SpaceMismatch
from crossfade.spaces import Space

SPACE = Space(model="m", dimension=4)


def some(ids: range, *, dtype: type = np.float32, **metadata: object) -> Embeddings:
    rows = np.random.default_rng(ids.start).standard_normal((len(ids), 4)).astype(dtype)
    return Embeddings([f"i{i}" for i in ids], rows, SPACE, "image", metadata=metadata)  # type: ignore[arg-type]


def test_rows_ids_and_shared_columns_follow_each_other() -> None:
    a = some(range(0, 3), label=["x", "y", "z"], only_here=[1, 2, 3])
    b = some(range(3, 1005), label=["long label"] * 1002)
    whole = Embeddings.concatenate([a, b])
    assert (whole.space, whole.modality, len(whole)) == (SPACE, "image", 1005)
    np.testing.assert_array_equal(whole.matrix(), np.concatenate([a.matrix(), b.matrix()]))
    assert whole.ids.tolist() == [f"i{i}" for i in range(1005)]
    assert set(whole.metadata) == {"label"}
    assert whole.metadata["label"].tolist()[2:4] == ["z", "long label"]
    np.testing.assert_array_equal(whole.locate(["i1004", "i0", "no"]), [1004, 0, -1])


def test_selections_of_memory_maps_join_without_being_read(tmp_path: Path) -> None:
    a, b = some(range(0, 50)), some(range(50, 90), dtype=np.float16)
    a.save(tmp_path / "a")
    opened = Embeddings.load(tmp_path / "a").select([4, 2, 40])
    whole = Embeddings.concatenate([opened, b.select([7, 0]), some(range(90, 95))])
    expected = np.concatenate([a.matrix()[[4, 2, 40]], b.matrix()[[7, 0]], some(range(90, 95)).matrix()])
    np.testing.assert_array_equal(whole.matrix(), expected)
    np.testing.assert_array_equal(whole.select([9, 0, 3]).matrix(), expected[[9, 0, 3]])
    assert np.concatenate([block.matrix for block in whole.blocks(3)]).tobytes() == expected.tobytes()
    assert whole.rows.on_disk
    whole.save(tmp_path / "whole")
    np.testing.assert_array_equal(Embeddings.load(tmp_path / "whole").matrix(), expected)


def test_a_shard_that_is_shared_is_told_apart() -> None:
    matrix = np.arange(20, dtype=np.float32).reshape(5, 4)
    parts = [Embeddings([f"{n}-{i}" for i in range(5)], Rows([matrix]), SPACE, "image") for n in "ab"]
    whole = Embeddings.concatenate([parts[0].select([3, 1]), parts[1].select([0])])
    np.testing.assert_array_equal(whole.matrix(), matrix[[3, 1, 0]])
    assert whole.ids.tolist() == ["a-3", "a-1", "b-0"]


def test_an_id_in_two_sets_is_refused_with_the_way_out() -> None:
    a, b = some(range(0, 5)), some(range(3, 8))
    with pytest.raises(InvalidIds, match=r"2 repeat, the first is 'i3'.*b\.select"):
        Embeddings.concatenate([a, b])
    whole = Embeddings.concatenate([a, b.select(a.locate(b.ids) < 0)])
    assert whole.ids.tolist() == [f"i{i}" for i in range(8)]


def test_other_spaces_modalities_and_kinds_are_refused() -> None:
    a = some(range(0, 3), year=[1, 2, 3])
    stranger = Embeddings(["b"], np.ones((1, 4)), replace(SPACE, revision="2"), "image")
    with pytest.raises(SpaceMismatch, match="revision"):
        Embeddings.concatenate([a, stranger])
    with pytest.raises(ConfigError, match="one modality; found image and text"):
        Embeddings.concatenate([a, Embeddings(["b"], np.ones((1, 4)), SPACE, "text")])
    with pytest.raises(ConfigError, match="'year' has int64, <U4"):
        Embeddings.concatenate([a, some(range(3, 4), year=["2024"])])
    with pytest.raises(ConfigError, match="at least one"):
        Embeddings.concatenate([])
    assert cf.Embeddings.concatenate([a]).matrix().tobytes() == a.matrix().tobytes()
