"""Vectors in Parquet and Arrow files."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crossfade.embeddings import Embeddings, tables
from crossfade.embeddings.tables import read_columns, read_parquet, write_columns
from crossfade.errors import ConfigError, FormatError, InvalidIds, InvalidVectors, SpaceMismatch, StorageError
from crossfade.spaces import Space

SPACE = Space(model="mödel", dimension=4)
VECTORS = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)
NAMES = ["a", "é", "漢字", "d d", "5", "🙂"]
FORMATS = {"parquet": Embeddings.from_parquet, "arrow": Embeddings.from_arrow}
WRITE = {"parquet": Embeddings.to_parquet, "arrow": Embeddings.to_arrow}
both = pytest.mark.parametrize("kind", sorted(FORMATS))


def foreign(path: Path, columns: dict[str, Any], kind: str) -> Path:
    """A file as someone else would write it: nothing in the schema says a space."""
    table = pa.table(columns)
    pq.write_table(table, path) if kind == "parquet" else feather.write_feather(table, path, compression="uncompressed")
    return path


def fixed(vectors: Any, number: pa.DataType | None = None) -> pa.Array:
    flat = pa.array(np.asarray(vectors).reshape(-1), type=number)
    return pa.FixedSizeListArray.from_arrays(flat, np.asarray(vectors).shape[1])


def read(path: Path, kind: str, **changes: Any) -> Embeddings:
    return FORMATS[kind](path, **{"space": SPACE, "modality": "image", **changes})


@both
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    dtype=st.sampled_from([np.float16, np.float32, np.float64]),
    ids=st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1), unique=True, min_size=1
    ),
    rows=st.integers(1, 4),
)
def test_it_round_trips_bit_for_bit(tmp_path: Path, kind: str, dtype: Any, ids: list[str], rows: int) -> None:
    vectors = np.random.default_rng(0).standard_normal((len(ids), 4)).astype(dtype)
    columns = {"n": np.arange(len(ids)), "caption": np.array([f"Ω{i}" for i in ids]), "x": vectors[:, 0].astype(float)}
    written = Embeddings(ids, vectors, SPACE, "text", metadata=columns)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "ROW_GROUP", rows)
        WRITE[kind](written, tmp_path / "a", overwrite=True)
    back = FORMATS[kind](tmp_path / "a", metadata=["n", "caption", "x"])
    assert back.ids.tolist() == ids
    assert back.rows.stored(0, len(ids)).tobytes() == vectors.tobytes()
    assert (back.rows.dtype, back.space, back.modality) == (dtype, SPACE, "text")
    assert back.rows.on_disk is (kind == "arrow")
    for name, column in columns.items():
        assert back.metadata[name].dtype.kind == column.dtype.kind
        assert back.metadata[name].tolist() == column.tolist()


@both
@pytest.mark.parametrize("make", [pa.list_, pa.large_list], ids=["list", "large list"])
@pytest.mark.parametrize("number", [pa.float16(), pa.float32(), pa.float64()], ids=str)
def test_lists_of_any_kind_are_vectors(tmp_path: Path, kind: str, make: Any, number: pa.DataType) -> None:
    column = pa.array([list(row) for row in VECTORS.astype(np.float16)], type=make(number))
    path = foreign(tmp_path / "a", {"id": NAMES, "vector": column}, kind)
    assert np.array_equal(read(path, kind).matrix(), VECTORS.astype(np.float16).astype(np.float32))


@both
def test_whole_numbers_and_dictionaries_are_ids(tmp_path: Path, kind: str) -> None:
    ids = {"number": pa.array([3, 1, 4, 15, 9, 2]), "word": pa.array(NAMES).dictionary_encode()}
    path = foreign(tmp_path / "a", {**ids, "vector": fixed(VECTORS)}, kind)
    assert read(path, kind, ids="number").ids.tolist() == ["3", "1", "4", "15", "9", "2"]
    assert read(path, kind, ids="word").ids.tolist() == NAMES
    assert read(path, kind, ids=None).ids.tolist() == list("012345")


@both
def test_columns_are_named(tmp_path: Path, kind: str) -> None:
    path = foreign(tmp_path / "a", {"key": NAMES, "emb": fixed(VECTORS), "label": range(6)}, kind)
    embeddings = read(path, kind, ids="key", vectors="emb", metadata=["label"])
    assert embeddings.metadata["label"].tolist() == [0, 1, 2, 3, 4, 5]
    for wrong in ({"ids": "id"}, {"ids": "key", "vectors": "v"}, {"ids": "key", "vectors": "emb", "metadata": ["x"]}):
        with pytest.raises(FormatError, match=r"key.*emb.*label"):
            read(path, kind, **wrong)


@both
def test_several_files_are_shards_in_number_order(tmp_path: Path, kind: str) -> None:
    for number, rows in ((2, [0, 1]), (10, [4, 5]), (9, [2, 3])):
        foreign(
            tmp_path / f"part_{number}.{kind}", {"id": [NAMES[i] for i in rows], "vector": fixed(VECTORS[rows])}, kind
        )
    for where in (tmp_path, [tmp_path / f"part_{n}.{kind}" for n in (2, 9, 10)], str(tmp_path / f"part_*.{kind}")):
        embeddings = read(where, kind)  # type: ignore[arg-type]
        assert embeddings.ids.tolist() == NAMES
        assert np.array_equal(embeddings.matrix(), VECTORS)


@both
@pytest.mark.parametrize(
    ("column", "says"),
    [
        (pa.array([[1.0] * 4, [1.0] * 4, [1.0] * 3, [1.0] * 4, [1.0] * 4, []]), "row 2 has 3"),
        (pa.array([[1.0] * 4, None, *[[1.0] * 4] * 4]), "row 1"),
        (pa.array([*[[1.0] * 4] * 4, [1.0, None, 1.0, 1.0], [1.0] * 4]), "row 4"),
        (pa.array([[1] * 4] * 6), "float16, float32 or float64; found list"),
        (pa.array(["text"] * 6), "found string"),
        (pa.array([[1.0] * 5] * 6), "dimension"),
        (pa.array([[1.0] * 4, *[[float("nan")] * 4] * 2, *[[1.0] * 4] * 3]), "finite"),
    ],
    ids=["ragged", "no vector", "no number", "integers", "text", "dimension", "nan"],
)
def test_what_is_no_vector(tmp_path: Path, kind: str, column: pa.Array, says: str) -> None:
    path = foreign(tmp_path / "a", {"id": NAMES, "vector": column}, kind)
    with pytest.raises(InvalidVectors, match=says):
        read(path, kind).matrix()


@both
def test_a_fixed_list_with_a_missing_row(tmp_path: Path, kind: str) -> None:
    column = pa.array([[1.0] * 4, *[None] * 2, *[[1.0] * 4] * 3], type=pa.list_(pa.float32(), 4))
    with pytest.raises(InvalidVectors, match="row 1"):
        read(foreign(tmp_path / "a", {"id": NAMES, "vector": column}, kind), kind)


@both
@pytest.mark.parametrize(
    ("ids", "error", "says"),
    [
        (pa.array(["a", None, "c", "d", "e", "f"]), InvalidIds, "row 1"),
        (pa.array([1, 2, 3, None, 5, 6]), InvalidIds, "row 3"),
        (pa.array([1.5] * 6), InvalidIds, "double"),
        (pa.array(["a", "b", "c", "a", "b", "f"]), InvalidIds, "2 repeat"),
        (pa.array(["a", "b", "", "d", "e", "f"]), InvalidIds, "row 2"),
        (pa.array([b"\xff\xfe", *[b"x"] * 5]).view(pa.string()), FormatError, "cannot be read"),
    ],
    ids=["null", "null number", "float", "repeat", "empty", "not UTF-8"],
)
def test_what_is_no_id(tmp_path: Path, kind: str, ids: pa.Array, error: type[Exception], says: str) -> None:
    path = foreign(tmp_path / "a", {"id": ids, "vector": fixed(VECTORS)}, kind)
    with pytest.raises(error, match=says):
        read(path, kind)


@both
@pytest.mark.parametrize("keep", [0, 3, 0.5, 0.9, -1])
def test_a_truncated_file_is_a_format_error(tmp_path: Path, kind: str, keep: float) -> None:
    WRITE[kind](Embeddings(NAMES, VECTORS, SPACE, "image"), tmp_path / "a")
    whole = (tmp_path / "a").read_bytes()
    (tmp_path / "a").write_bytes(whole[: int(keep * len(whole)) if 0 < keep < 1 else int(keep)])
    with pytest.raises(FormatError):
        read(tmp_path / "a", kind)


def test_a_flipped_bit_in_parquet_is_noticed(tmp_path: Path) -> None:
    Embeddings(NAMES, VECTORS, SPACE, "image").to_parquet(tmp_path / "a")
    whole = bytearray((tmp_path / "a").read_bytes())
    whole[bytes(whole).index(VECTORS.tobytes()) + 17] ^= 4
    (tmp_path / "a").write_bytes(whole)
    with pytest.raises(FormatError, match="cannot be read"):
        read(tmp_path / "a", "parquet")


@both
def test_what_is_missing_or_something_else(tmp_path: Path, kind: str) -> None:
    with pytest.raises(FormatError, match="missing"):
        read(tmp_path / "a", kind)
    (tmp_path / "a").write_bytes(b"some text, long enough to be looked at")
    with pytest.raises(FormatError, match="cannot be read"):
        read(tmp_path / "a", kind)
    with pytest.raises(InvalidVectors, match="empty"):
        read(foreign(tmp_path / "b", {"id": NAMES[:0], "vector": fixed(VECTORS[:0])}, kind), kind)


@both
def test_the_space_is_said_or_named(tmp_path: Path, kind: str) -> None:
    WRITE[kind](Embeddings(NAMES, VECTORS, SPACE, "image"), tmp_path / "a")
    assert FORMATS[kind](tmp_path / "a", space=SPACE, modality="image").space == SPACE
    with pytest.raises(SpaceMismatch, match="model"):
        FORMATS[kind](tmp_path / "a", space=Space(model="other", dimension=4))
    with pytest.raises(SpaceMismatch, match="asked for text"):
        FORMATS[kind](tmp_path / "a", modality="text")
    path = foreign(tmp_path / "b", {"id": NAMES, "vector": fixed(VECTORS)}, kind)
    with pytest.raises(ConfigError, match="dimension=4"):
        FORMATS[kind](path)
    with pytest.raises(ConfigError, match="modality="):
        FORMATS[kind](path, space=SPACE)


@both
def test_shards_of_two_spaces_are_refused(tmp_path: Path, kind: str) -> None:
    for number, model in enumerate(("m", "other")):
        part = Embeddings([f"{number}{name}" for name in NAMES], VECTORS, Space(model=model, dimension=4), "image")
        WRITE[kind](part, tmp_path / f"{number}.{kind}")
    with pytest.raises(SpaceMismatch, match="different vectors"):
        FORMATS[kind](tmp_path)


@pytest.mark.parametrize(
    "notes", [{"crossfade.space": "no JSON"}, {"crossfade.space": "3"}, {"crossfade.modality": "audio"}]
)
def test_a_space_that_is_none_is_a_format_error(tmp_path: Path, notes: dict[str, str]) -> None:
    table = pa.table({"id": NAMES, "vector": fixed(VECTORS)}).replace_schema_metadata(notes)
    pq.write_table(table, tmp_path / "a")
    with pytest.raises(FormatError):
        read(tmp_path / "a", "parquet")


def test_arrow_is_not_copied_and_parquet_can_be_spilled(tmp_path: Path) -> None:
    embeddings = Embeddings(NAMES, VECTORS, SPACE, "image", metadata={"n": np.arange(6)})
    embeddings.to_arrow(tmp_path / "a.arrow")
    before = pa.total_allocated_bytes()
    mapped = Embeddings.from_arrow(tmp_path / "a.arrow")
    assert mapped.rows.on_disk
    assert not mapped.rows.shards[0].flags.writeable
    assert pa.total_allocated_bytes() - before < VECTORS.nbytes
    embeddings.to_parquet(tmp_path / "a.parquet")
    spilled = read_parquet(tmp_path / "a.parquet", into=tmp_path / "set", metadata=["n"])
    assert spilled.rows.on_disk
    assert np.array_equal(spilled.matrix(), VECTORS)
    assert spilled.metadata["n"].tolist() == [0, 1, 2, 3, 4, 5]
    assert Embeddings.load(tmp_path / "set").ids.tolist() == NAMES
    with pytest.raises(StorageError):
        read_parquet(tmp_path / "a.parquet", into=tmp_path / "set")


def test_spilling_what_is_not_finite_leaves_nothing(tmp_path: Path) -> None:
    path = foreign(tmp_path / "a", {"id": NAMES, "vector": fixed(VECTORS * np.nan)}, "parquet")
    with pytest.raises(InvalidVectors, match="finite"):
        read_parquet(path, space=SPACE, modality="image", into=tmp_path / "set")
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


def test_compressed_arrow_and_arrow_streams_are_read(tmp_path: Path) -> None:
    table = pa.table({"id": NAMES, "vector": fixed(VECTORS)})
    feather.write_feather(table, tmp_path / "a.feather", compression="lz4")
    compressed = read(tmp_path / "a.feather", "arrow")
    with pa.OSFile(str(tmp_path / "a.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=4)
    stream = read(tmp_path / "a.arrow", "arrow")
    assert (compressed.rows.on_disk, stream.rows.on_disk) == (False, True)
    for embeddings in (compressed, stream):
        assert embeddings.ids.tolist() == NAMES
        assert np.array_equal(embeddings.matrix(), VECTORS)


@both
def test_a_file_is_not_overwritten_unasked(tmp_path: Path, kind: str) -> None:
    WRITE[kind](Embeddings(NAMES, VECTORS, SPACE, "image"), tmp_path / "a")
    before = (tmp_path / "a").read_bytes()
    with pytest.raises(StorageError, match="overwritten unasked"):
        WRITE[kind](Embeddings(NAMES, VECTORS, SPACE, "text"), tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == before


@both
def test_a_column_cannot_be_called_twice(tmp_path: Path, kind: str) -> None:
    embeddings = Embeddings(NAMES, VECTORS, SPACE, "image", metadata={"id": NAMES})
    with pytest.raises(ConfigError, match="taken twice"):
        WRITE[kind](embeddings, tmp_path / "a")
    WRITE[kind](embeddings, tmp_path / "a", ids="key")
    assert FORMATS[kind](tmp_path / "a", ids="key", metadata=["id"]).metadata["id"].tolist() == NAMES


def test_metadata_columns_round_trip(tmp_path: Path) -> None:
    columns = {
        "word": np.array(["a", "", "Ω🙂"]),
        "number": np.array([1, -2, 3], np.int16),
        "share": np.array([0.5, np.nan, -np.inf]),
        "flag": np.array([True, False, True]),
        "object": np.array(["x", "y", "z"], object),
    }
    write_columns(tmp_path / "a.parquet", columns)
    back = read_columns(tmp_path / "a.parquet")
    assert list(back) == list(columns)
    for name in ("word", "number", "share", "flag"):
        assert back[name].dtype.kind == columns[name].dtype.kind
        assert np.array_equal(back[name], columns[name], equal_nan=name == "share")
    assert back["object"].tolist() == ["x", "y", "z"]
    assert list(read_columns(tmp_path / "a.parquet", ["flag"])) == ["flag"]
    with pytest.raises(FormatError, match="'no'"):
        read_columns(tmp_path / "a.parquet", ["no"])


def test_missing_values_read_as_documented(tmp_path: Path) -> None:
    table = pa.table(
        {"word": ["a", None], "number": [1, None], "flag": [True, None], "list": [[1], None], "none": pa.nulls(2)}
    )
    pq.write_table(table, tmp_path / "a.parquet")
    back = read_columns(tmp_path / "a.parquet")
    assert back["word"].tolist() == ["a", ""]
    assert np.array_equal(back["number"], [1, np.nan], equal_nan=True)
    assert back["flag"].tolist() == [True, None]
    assert back["list"].tolist() == ["[1]", ""]
    assert back["none"].tolist() == ["", ""]


def test_metadata_that_no_table_can_hold(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="'mixed' is not"):
        write_columns(tmp_path / "a.parquet", {"mixed": np.array([1, "a", object()], object)})
    assert not list(tmp_path.iterdir())


def test_empty_metadata_columns(tmp_path: Path) -> None:
    write_columns(tmp_path / "a.parquet", {"word": np.empty(0, "<U1"), "n": np.empty(0, int)})
    assert {name: len(column) for name, column in read_columns(tmp_path / "a.parquet").items()} == {"word": 0, "n": 0}
