"""Crossfade's own folder: whole shards or nothing, whatever happens to the writer."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crossfade.embeddings import Embeddings, EmbeddingsWriter
from crossfade.embeddings.folder import save_folder
from crossfade.errors import FormatError, InvalidIds, InvalidVectors, NewerFormat, SpaceMismatch, StorageError
from crossfade.spaces import Space

SPACE = Space(model="m", dimension=4, revision="é")


def some(rows: int = 7, dtype: Any = np.float32, space: Space = SPACE) -> Embeddings:
    vectors = np.random.default_rng(rows).standard_normal((rows, 4)).astype(dtype)
    columns = {"label": np.arange(rows), "caption": np.array([f"Ω {i}" for i in range(rows)])}
    return Embeddings([f"id {i}" for i in range(rows)], vectors, space, "text", metadata=columns)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    dtype=st.sampled_from([np.float16, np.float32, np.float64]),
    ids=st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1), unique=True, min_size=1
    ),
    shard=st.integers(1, 5),
)
def test_it_round_trips_bit_for_bit(tmp_path: Path, dtype: Any, ids: list[str], shard: int) -> None:
    vectors = np.random.default_rng(0).standard_normal((len(ids), 4)).astype(dtype)
    saved = Embeddings(ids, vectors, SPACE, "text", metadata={"n": np.arange(len(ids))})
    save_folder(saved, tmp_path / "set", overwrite=True, shard_rows=shard)
    loaded = Embeddings.load(tmp_path / "set")
    assert loaded.ids.tolist() == ids
    assert loaded.rows.dtype == dtype
    assert loaded.rows.stored(0, len(ids)).tobytes() == vectors.tobytes()
    assert (loaded.space, loaded.modality) == (SPACE, "text")
    assert loaded.metadata["n"].tolist() == list(range(len(ids)))
    assert len(loaded.rows.shards) == -(-len(ids) // shard)
    assert loaded.rows.on_disk


def test_metadata_come_back_in_their_types(tmp_path: Path) -> None:
    some().save(tmp_path / "set")
    columns = Embeddings.load(tmp_path / "set").metadata
    assert columns["label"].dtype == np.int64
    assert columns["caption"].tolist() == [f"Ω {i}" for i in range(7)]


def test_a_selection_is_saved_as_selected(tmp_path: Path) -> None:
    part = some().select([5, 1])
    part.save(tmp_path / "set")
    assert np.array_equal(Embeddings.load(tmp_path / "set").matrix(), part.matrix())


def test_it_is_not_overwritten_unasked(tmp_path: Path) -> None:
    some(7).save(tmp_path / "set")
    with pytest.raises(StorageError):
        some(3).save(tmp_path / "set")
    assert len(Embeddings.load(tmp_path / "set")) == 7
    some(3).save(tmp_path / "set", overwrite=True)
    assert len(Embeddings.load(tmp_path / "set")) == 3


def test_vectors_that_are_not_finite_leave_the_old_folder(tmp_path: Path) -> None:
    some(7).save(tmp_path / "set")
    np.save(tmp_path / "bad.npy", np.full((3, 4), np.nan, np.float32))
    bad = Embeddings(range(3), np.load(tmp_path / "bad.npy", mmap_mode="r"), SPACE, "text")
    with pytest.raises(InvalidVectors):
        bad.save(tmp_path / "set", overwrite=True)
    assert len(Embeddings.load(tmp_path / "set")) == 7
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.npy", "set"]


def test_an_unfinished_folder_says_how_far_it_came(tmp_path: Path) -> None:
    writer = EmbeddingsWriter(tmp_path / "set", SPACE, "text")
    writer.append(some().ids, some().matrix())
    with pytest.raises(FormatError, match="unfinished: 7 rows"):
        Embeddings.load(tmp_path / "set")
    again = EmbeddingsWriter(tmp_path / "set", SPACE, "text")
    assert (again.count, again.complete) == (7, False)
    assert again.ids().tolist() == some().ids.tolist()
    assert len(again.finish()) == 7
    assert EmbeddingsWriter(tmp_path / "set", SPACE, "text").complete


@pytest.mark.parametrize(
    ("space", "modality"), [(Space(model="other", dimension=4, revision="é"), "text"), (SPACE, "image")]
)
def test_another_space_or_modality_is_not_added(tmp_path: Path, space: Space, modality: Any) -> None:
    EmbeddingsWriter(tmp_path / "set", SPACE, "text").append(some().ids, some().matrix())
    with pytest.raises(SpaceMismatch, match="cannot be added"):
        EmbeddingsWriter(tmp_path / "set", space, modality)


def test_a_shard_that_cannot_be_is_refused_before_it_is_written(tmp_path: Path) -> None:
    writer = EmbeddingsWriter(tmp_path / "set", SPACE, "text")
    good = some(2).matrix()
    with pytest.raises(InvalidIds, match="1 ids for 2 rows"):
        writer.append(np.array(["a"]), good)
    with pytest.raises(InvalidVectors, match="dimension 4; found 2"):
        writer.append(np.array(["a", "b"]), good[:, :2])
    with pytest.raises(InvalidVectors, match="finite"):
        writer.append(np.array(["a", "b"]), good * np.nan)
    assert not list((tmp_path / "set").glob("*"))
    writer.append(np.array(["a", "b"]), good, {"x": np.arange(2)})
    for columns in (None, {"y": np.arange(2)}):
        with pytest.raises(InvalidIds, match="same metadata columns"):
            writer.append(np.array(["c", "d"]), good, columns)
    assert len(writer.finish()) == 2


def test_duplicates_across_shards_are_found(tmp_path: Path) -> None:
    writer = EmbeddingsWriter(tmp_path / "set", SPACE, "text")
    for _ in range(2):
        writer.append(some(2).ids, some(2).matrix())
    with pytest.raises(InvalidIds, match="2 repeat"):
        writer.finish()


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="holds no vectors"):
        EmbeddingsWriter(tmp_path / "set", SPACE, "text").finish()


def rewrite(folder: Path, **changes: Any) -> None:
    manifest = json.loads((folder / "embeddings.json").read_text(encoding="utf-8"))
    manifest.update(changes)
    kept = {key: value for key, value in manifest.items() if value is not None}
    (folder / "embeddings.json").write_text(json.dumps(kept), encoding="utf-8")


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"format_version": 2}, NewerFormat),
        ({"format_version": 2, "space": None, "shards": None}, NewerFormat),
        ({"format_version": None}, FormatError),
        ({"format_version": "1"}, FormatError),
        ({"space": None}, FormatError),
        ({"space": 3}, FormatError),
        ({"shards": [{}]}, FormatError),
        ({"shards": [3]}, FormatError),
    ],
    ids=repr,
)
def test_a_manifest_that_this_version_cannot_follow(
    tmp_path: Path, changes: dict[str, Any], error: type[Exception]
) -> None:
    some().save(tmp_path / "set")
    rewrite(tmp_path / "set", **changes)
    with pytest.raises(error):
        Embeddings.load(tmp_path / "set")


def test_what_is_no_folder_of_embeddings(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"no embeddings\.json"):
        Embeddings.load(tmp_path)
    (tmp_path / "embeddings.json").write_text("[]")
    with pytest.raises(FormatError):
        Embeddings.load(tmp_path)


@pytest.mark.parametrize("name", ["vectors-00000.npy", "ids-00000.npy", "metadata-00000.parquet", "embeddings.json"])
@pytest.mark.parametrize("damage", ["truncated", "missing"])
def test_a_damaged_shard_is_a_format_error(tmp_path: Path, name: str, damage: str) -> None:
    some().save(tmp_path / "set")
    file = tmp_path / "set" / name
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(FormatError):
        Embeddings.load(tmp_path / "set")


def test_shards_that_differ_from_the_manifest(tmp_path: Path) -> None:
    some().save(tmp_path / "set")
    np.save(tmp_path / "set" / "vectors-00000.npy", np.zeros((6, 4), np.float32))
    with pytest.raises(FormatError, match="7 rows by its manifest; found 6 vectors"):
        Embeddings.load(tmp_path / "set")


WRITER = """
import sys
from pathlib import Path
import numpy as np
from crossfade.embeddings import EmbeddingsWriter
from crossfade.spaces import Space
writer = EmbeddingsWriter(Path(sys.argv[1]), Space(model="m", dimension=64), "text")
rows, shard = int(sys.argv[2]), int(sys.argv[3])
done = writer.ids().tolist()
assert done == [str(i) for i in range(len(done))]
for start in range(len(done), rows, shard):
    numbers = np.arange(start, min(start + shard, rows))
    writer.append(numbers.astype(str), np.repeat(numbers[:, None], 64, 1).astype(np.float32), {"n": numbers})
    print(start, flush=True)
writer.finish()
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_writer_that_is_killed_again_and_again_loses_and_doubles_nothing(tmp_path: Path) -> None:
    rows, shard, kills = 6000, 150, 0
    command = [sys.executable, "-c", WRITER, tmp_path / "set", str(rows), str(shard)]
    delays = np.random.default_rng(0).uniform(0.0, 0.02, 6)
    for delay in delays:
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            for _ in range(3):
                process.stdout.readline()
            time.sleep(delay)
            process.send_signal(signal.SIGKILL)
            kills += process.wait() == -signal.SIGKILL
        if (tmp_path / "set" / "embeddings.json").exists():
            with pytest.raises(FormatError, match="unfinished"):
                Embeddings.load(tmp_path / "set")
    assert kills == len(delays)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    loaded = Embeddings.load(tmp_path / "set")
    assert loaded.ids.tolist() == [str(i) for i in range(rows)]
    assert np.array_equal(loaded.matrix()[:, 5], np.arange(rows))
    assert loaded.metadata["n"].tolist() == list(range(rows))
    assert not [path.name for path in (tmp_path / "set").iterdir() if path.name.endswith(".tmp")]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of one megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if not hasattr(os, "geteuid") or os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("a small file system can only be mounted by root")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("how", ["save", "to_parquet", "to_arrow", "to_npy", "to_clip_retrieval"])
def test_a_full_disk_leaves_the_old_vectors_and_nothing_else(small_disk: Path, how: str) -> None:
    target = small_disk / ("set.parquet" if how == "to_parquet" else "set.arrow" if how == "to_arrow" else "set")
    getattr(some(20), how)(target)
    before = {path: path.read_bytes() for path in small_disk.rglob("*") if path.is_file()}
    large = Embeddings(range(100_000), np.random.default_rng(0).standard_normal((100_000, 4)), SPACE, "text")
    with pytest.raises(StorageError, match=r"could not be written.*[Nn]o space"):
        getattr(large, how)(target, overwrite=True)
    assert {path: path.read_bytes() for path in small_disk.rglob("*") if path.is_file()} == before
    assert [path.name for path in small_disk.iterdir()] == [target.name]


def test_a_full_disk_keeps_the_shards_before(small_disk: Path) -> None:
    writer = EmbeddingsWriter(small_disk / "set", SPACE, "text")
    writer.append(some(20).ids, some(20).matrix())
    with pytest.raises(StorageError):
        writer.append(np.arange(100_000).astype(str), np.zeros((100_000, 4)))
    again = EmbeddingsWriter(small_disk / "set", SPACE, "text")
    again.append(np.array(["one more"]), np.ones((1, 4)))
    assert again.finish().ids.tolist() == [*some(20).ids.tolist(), "one more"]
    assert len(list((small_disk / "set").iterdir())) == 5
