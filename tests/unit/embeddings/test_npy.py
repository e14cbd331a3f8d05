""".npy with ids beside them."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crossfade.embeddings import Embeddings
from crossfade.errors import (
    ConfigError,
    CrossfadeError,
    FormatError,
    InvalidIds,
    InvalidVectors,
    SpaceMismatch,
    StorageError,
    UnsafeFormat,
)
from crossfade.spaces import Space

SPACE = Space(model="m", dimension=4)
VECTORS = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)
NAMES = ["a", "é", "漢字", "d d", "5", "🙂"]


def vectors_at(folder: Path) -> Path:
    np.save(folder / "v.npy", VECTORS)
    return folder / "v.npy"


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.sampled_from([np.float16, np.float32, np.float64]),
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1), unique=True, min_size=1
    ),
)
def test_a_pair_round_trips_bit_for_bit(tmp_path: Path, dtype: Any, ids: list[str]) -> None:
    vectors = np.random.default_rng(0).standard_normal((len(ids), 4)).astype(dtype)
    Embeddings(ids, vectors, SPACE, "image").to_npy(tmp_path / "pair", overwrite=True)
    read = Embeddings.from_npy(tmp_path / "pair")
    assert read.ids.tolist() == ids
    assert read.rows.stored(0, len(ids)).tobytes() == vectors.tobytes()
    assert (read.rows.dtype, read.space, read.modality, read.rows.on_disk) == (dtype, SPACE, "image", True)
    assert np.load(tmp_path / "pair" / "vectors.npy").tobytes() == vectors.tobytes()


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("ids.npy", lambda path: np.save(path, np.array(NAMES))),
        ("ids.txt", lambda path: path.write_text("\n".join(NAMES) + "\n", encoding="utf-8")),
        ("ids.txt", lambda path: path.write_bytes("\r\n".join(NAMES).encode("utf-8-sig"))),
        ("ids.json", lambda path: path.write_text(json.dumps(NAMES))),
        ("ids.parquet", lambda path: pq.write_table(pa.table({"id": NAMES, "x": range(6)}), path)),
    ],
)
def test_ids_come_from_every_format(tmp_path: Path, name: str, write: Any) -> None:
    write(tmp_path / name)
    read = Embeddings.from_npy(vectors_at(tmp_path), ids=tmp_path / name, space=SPACE, modality="text")
    assert read.ids.tolist() == NAMES
    assert np.array_equal(read.matrix(), VECTORS)


def test_whole_numbers_are_ids(tmp_path: Path) -> None:
    np.save(tmp_path / "ids.npy", np.arange(6, dtype=np.uint16) * 10)
    read = Embeddings.from_npy(vectors_at(tmp_path), ids=tmp_path / "ids.npy", space=SPACE, modality="text")
    assert read.ids.tolist() == ["0", "10", "20", "30", "40", "50"]


def test_without_ids_rows_are_numbered(tmp_path: Path) -> None:
    read = Embeddings.from_npy(vectors_at(tmp_path), space=SPACE, modality="text")
    assert read.ids.tolist() == list("012345")


@pytest.mark.parametrize("how", ["folder", "pattern", "list"])
@pytest.mark.parametrize("names", [["e_2", "e_9", "e_10"], ["e_0002", "e_0009", "e_0010"]])
def test_shards_are_taken_in_number_order(tmp_path: Path, names: list[str], how: str) -> None:
    for name, part in zip(names, np.split(VECTORS, 3), strict=True):
        np.save(tmp_path / f"{name}.npy", part)
    where: Any = {"folder": tmp_path, "pattern": str(tmp_path / "e_*.npy")}.get(how)
    where = where or [tmp_path / f"{name}.npy" for name in names]
    read = Embeddings.from_npy(where, space=SPACE, modality="text")
    assert np.array_equal(read.matrix(), VECTORS)


def test_ids_come_in_shards_too(tmp_path: Path) -> None:
    parts = []
    for number, names in enumerate((NAMES[:2], NAMES[2:])):
        parts.append(tmp_path / f"ids_{number}.json")
        parts[-1].write_text(json.dumps(names))
    read = Embeddings.from_npy(vectors_at(tmp_path), ids=parts, space=SPACE, modality="text")
    assert read.ids.tolist() == NAMES


def test_a_space_of_one_modality_names_it(tmp_path: Path) -> None:
    only = Space(model="m", dimension=4, modalities=("text",))
    assert Embeddings.from_npy(vectors_at(tmp_path), space=only).modality == "text"


@pytest.mark.parametrize(
    ("given_", "error", "says"),
    [
        ({"modality": "text"}, ConfigError, r"dimension=4"),
        ({"space": SPACE}, ConfigError, "modality='image'"),
        ({"space": Space(model="m", dimension=5), "modality": "text"}, InvalidVectors, "dimension 5; .* have 4"),
    ],
)
def test_vectors_of_an_unknown_space_are_refused(
    tmp_path: Path, given_: Any, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        Embeddings.from_npy(vectors_at(tmp_path), **given_)


def test_a_folder_of_another_space_is_refused(tmp_path: Path) -> None:
    Embeddings(NAMES, VECTORS, SPACE, "image").to_npy(tmp_path / "pair")
    with pytest.raises(SpaceMismatch):
        Embeddings.from_npy(tmp_path / "pair", space=Space(model="other", dimension=4))
    with pytest.raises(SpaceMismatch, match="asked for text"):
        Embeddings.from_npy(tmp_path / "pair", modality="text")
    (tmp_path / "pair" / "space.json").write_text('{"space": 4}')
    with pytest.raises(FormatError):
        Embeddings.from_npy(tmp_path / "pair")


@pytest.mark.parametrize(
    ("name", "content", "error", "says"),
    [
        ("ids.txt", "a\nb\nc", InvalidIds, "3 ids for 6 rows"),
        ("ids.txt", "a\nb\nc\n\ne\nf", InvalidIds, "row 3"),
        ("ids.txt", "a\nb\nc\nd\ne\na", InvalidIds, "'a'"),
        ("ids.txt", b"a\nb\n\xe9\nd\ne\nf", FormatError, r"UTF-8 and is not \(line 3\)"),
        ("ids.json", '{"a": 1}', FormatError, "list"),
        ("ids.json", '["a", "b"', FormatError, "JSON"),
        ("ids.json", '["a", null, "c", "d", "e", "f"]', InvalidIds, "row 1"),
        ("ids.csv", "a", FormatError, "ids.csv"),
        ("ids.npy", b"\x93NUMPY", FormatError, "truncated"),
        ("ids.parquet", b"PAR1 and then nothing", FormatError, "truncated"),
    ],
)
def test_ids_that_cannot_be_read(tmp_path: Path, name: str, content: Any, error: type[Exception], says: str) -> None:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(error, match=says):
        Embeddings.from_npy(vectors_at(tmp_path), ids=tmp_path / name, space=SPACE, modality="text")


class Bomb:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("what", ["ids", "vectors"])
def test_pickled_arrays_are_refused_and_not_executed(tmp_path: Path, what: str) -> None:
    bomb = np.empty(6, dtype=object)
    bomb[:] = [Bomb(tmp_path / "ran")] * 6
    np.save(tmp_path / "bomb.npy", bomb, allow_pickle=True)
    vectors = tmp_path / "bomb.npy" if what == "vectors" else vectors_at(tmp_path)
    with pytest.raises(UnsafeFormat):
        Embeddings.from_npy(vectors, ids=tmp_path / "bomb.npy", space=SPACE, modality="text")
    assert not (tmp_path / "ran").exists()


def test_vectors_that_are_none(tmp_path: Path) -> None:
    for number, wrong in enumerate((np.arange(6), np.zeros(6), np.zeros((2, 2), int))):
        np.save(tmp_path / f"{number}.npy", wrong)
        with pytest.raises(InvalidVectors, match="file of vectors"):
            Embeddings.from_npy(tmp_path / f"{number}.npy", space=SPACE, modality="text")
    for missing in (tmp_path / "none.npy", tmp_path / "x_*.npy"):
        with pytest.raises(FormatError):
            Embeddings.from_npy(missing, space=SPACE, modality="text")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FormatError, match="none is there"):
        Embeddings.from_npy(tmp_path / "empty", space=SPACE, modality="text")


def test_files_of_two_models_are_no_set(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", VECTORS)
    np.save(tmp_path / "b.npy", VECTORS[:, :3])
    with pytest.raises(InvalidVectors, match=r"a\.npy has 4 and b\.npy has 3"):
        Embeddings.from_npy(tmp_path, space=SPACE, modality="text")


def test_a_truncated_shard_is_refused(tmp_path: Path) -> None:
    for number in range(2):
        np.save(tmp_path / f"{number}.npy", VECTORS)
    whole = (tmp_path / "1.npy").read_bytes()
    (tmp_path / "1.npy").write_bytes(whole[:-1])
    with pytest.raises(CrossfadeError, match="truncated"):
        Embeddings.from_npy(tmp_path, space=SPACE, modality="text")


def test_a_pair_is_not_overwritten_unasked(tmp_path: Path) -> None:
    embeddings = Embeddings(NAMES, VECTORS, SPACE, "image")
    embeddings.to_npy(tmp_path / "pair")
    with pytest.raises(StorageError):
        embeddings.to_npy(tmp_path / "pair")
