"""Embeddings: what they refuse, and that a part of them is what it was in the whole."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfade.embeddings import Embeddings
from crossfade.errors import ConfigError, InvalidIds, InvalidVectors
from crossfade.spaces import Space

SPACE = Space(model="m", dimension=3)
VECTORS = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)


def five(**changes: Any) -> Embeddings:
    given_ = {"ids": list("abcde"), "vectors": VECTORS, "space": SPACE, "modality": "image", **changes}
    return Embeddings(
        given_["ids"], given_["vectors"], given_["space"], given_["modality"], metadata=given_.get("metadata")
    )


def test_it_holds_what_it_was_given() -> None:
    embeddings = five(metadata={"label": [1, 2, 3, 4, 5]})
    assert len(embeddings) == 5
    assert embeddings.dimension == 3
    assert embeddings.ids.tolist() == list("abcde")
    assert np.array_equal(embeddings.matrix(), VECTORS)
    assert embeddings.metadata["label"].tolist() == [1, 2, 3, 4, 5]
    assert "5 × 3 image" in repr(embeddings)


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"modality": "audio"}, ConfigError, "audio"),
        ({"space": Space(model="m", dimension=3, modalities=("text",))}, ConfigError, "text only"),
        ({"space": Space(model="m", dimension=4)}, InvalidVectors, "dimension 4; found 3"),
        ({"ids": list("abcd")}, InvalidIds, "4 ids for 5 rows"),
        ({"ids": list("abcba")}, InvalidIds, "2 repeat, the first is 'a'"),
        ({"ids": [], "vectors": np.empty((0, 3), np.float32)}, InvalidVectors, "empty"),
        ({"vectors": VECTORS[0]}, InvalidVectors, "matrix"),
        ({"vectors": [[1.0, 2.0], [3.0]]}, InvalidVectors, "several lengths"),
        ({"vectors": VECTORS.astype(int)}, InvalidVectors, "int64"),
        ({"vectors": np.where(VECTORS[3, 1] == VECTORS, np.nan, VECTORS)}, InvalidVectors, "row 3"),
        ({"metadata": {"label": [1, 2]}}, InvalidIds, "'label' has 2 for 5"),
    ],
)
def test_what_is_refused(changes: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        five(**changes)


def test_a_memory_map_is_checked_as_it_is_read(tmp_path: Path) -> None:
    bad = VECTORS.copy()
    bad[4, 0] = np.inf
    np.save(tmp_path / "a.npy", bad)
    embeddings = five(vectors=np.load(tmp_path / "a.npy", mmap_mode="r"))
    embeddings.rows.read(0, 4)
    with pytest.raises(InvalidVectors, match="row 4"):
        embeddings.matrix()


def test_zero_vectors_are_refused_where_a_direction_is_needed() -> None:
    five().require_nonzero()
    zero = VECTORS.copy()
    zero[[1, 3]] = 0
    with pytest.raises(InvalidVectors, match=r"2 are, the first is .*'b'"):
        five(vectors=zero).require_nonzero()
    tiny = VECTORS.copy()
    tiny[2] = 1e-20
    with pytest.raises(InvalidVectors, match=r"1 are"):
        five(vectors=tiny).require_nonzero()


@given(st.lists(st.integers(0, 4), unique=True, min_size=1), st.data())
def test_a_selection_is_what_it_was_in_the_whole(rows: list[int], data: st.DataObject) -> None:
    whole = five(metadata={"label": np.arange(5)})
    part = whole.select(rows)
    again = data.draw(st.lists(st.integers(0, len(rows) - 1), unique=True, min_size=1))
    for chosen, names in ((part, rows), (part.select(again), [rows[i] for i in again])):
        assert chosen.ids.tolist() == ["abcde"[i] for i in names]
        assert np.array_equal(chosen.matrix(), VECTORS[names])
        assert chosen.metadata["label"].tolist() == names
        assert chosen.space == SPACE
        assert chosen.locate(["abcde"[i] for i in names]).tolist() == list(range(len(names)))


def test_a_mask_selects() -> None:
    assert five().select(np.array([True, False, False, True, False])).ids.tolist() == ["a", "d"]


@pytest.mark.parametrize(
    ("rows", "error"),
    [
        ([], InvalidVectors),
        (np.zeros(5, bool), InvalidVectors),
        (np.ones(4, bool), InvalidVectors),
        ([5], InvalidVectors),
        ([-1], InvalidVectors),
        ([0.5], InvalidVectors),
        ([[0, 1]], InvalidVectors),
        ([1, 1], InvalidIds),
    ],
    ids=repr,
)
def test_selections_that_cannot_be(rows: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        five().select(rows)


def test_locate() -> None:
    assert five().locate(["c", "x", "a", "c"]).tolist() == [2, -1, 0, 2]
    assert five().locate([]).tolist() == []
    assert five(ids=range(5)).locate([4, "2", 9]).tolist() == [4, 2, -1]
