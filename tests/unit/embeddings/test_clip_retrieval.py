"""clip-retrieval's folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crossfade.embeddings import Embeddings
from crossfade.errors import ConfigError, FormatError, InvalidIds, SpaceMismatch, StorageError
from crossfade.pairing import pair
from crossfade.spaces import Space

SPACE = Space(model="ViT-B/32", dimension=4)
ROWS = np.random.default_rng(0).standard_normal((36, 4)).astype(np.float16)
TEXTS = np.random.default_rng(1).standard_normal((36, 4)).astype(np.float16)


def theirs(folder: Path, *, zeros: int = 0, without: tuple[str, ...] = (), shards: int = 12) -> Path:
    """The layout as clip-retrieval's own writer makes it: twelve shards of three rows, the numbers padded or not."""
    for name in ("img_emb", "text_emb", "metadata"):
        (folder / name).mkdir(parents=True)
    for number in range(shards):
        part, digits = slice(3 * number, 3 * number + 3), str(number).zfill(zeros)
        np.save(folder / "img_emb" / f"img_emb_{digits}.npy", ROWS[part])
        np.save(folder / "text_emb" / f"text_emb_{digits}.npy", TEXTS[part])
        columns = {
            "image_path": [f"photos/{i}.jpg" for i in range(36)][part],
            "caption": [f"caption {i}" for i in range(36)][part],
            "key": list(range(100, 136))[part],
            "similarity": [i / 10 for i in range(36)][part],
        }
        table = pa.table({name: column for name, column in columns.items() if name not in without})
        pq.write_table(table, folder / "metadata" / f"metadata_{digits}.parquet")
    return folder


@pytest.mark.parametrize("zeros", [0, 2, 5])
@pytest.mark.parametrize(("modality", "vectors"), [("image", ROWS), ("text", TEXTS)])
def test_shards_are_read_by_number(tmp_path: Path, zeros: int, modality: Any, vectors: Any) -> None:
    read = Embeddings.from_clip_retrieval(theirs(tmp_path / "a", zeros=zeros), space=SPACE, modality=modality)
    assert read.ids.tolist() == [f"photos/{i}.jpg" for i in range(36)]
    assert read.rows.stored(0, 36).tobytes() == vectors.tobytes()
    assert read.metadata["caption"].tolist() == [f"caption {i}" for i in range(36)]
    assert read.rows.on_disk


def test_ids_and_metadata_are_chosen(tmp_path: Path) -> None:
    folder = theirs(tmp_path / "a")
    read = Embeddings.from_clip_retrieval(
        folder, space=SPACE, modality="image", ids="key", metadata=["similarity", "key"]
    )
    assert read.ids.tolist() == [str(i) for i in range(100, 136)]
    assert read.metadata["similarity"].tolist() == [i / 10 for i in range(36)]
    assert read.metadata["key"].tolist() == list(range(100, 136))


def test_without_paths_rows_are_numbered(tmp_path: Path) -> None:
    read = Embeddings.from_clip_retrieval(
        theirs(tmp_path / "a", without=("image_path", "caption")), space=SPACE, modality="image"
    )
    assert read.ids.tolist() == [str(i) for i in range(36)]
    assert read.metadata == {}


def test_without_metadata_rows_are_numbered(tmp_path: Path) -> None:
    folder = theirs(tmp_path / "a")
    for file in (folder / "metadata").iterdir():
        file.unlink()
    read = Embeddings.from_clip_retrieval(folder, space=SPACE, modality="image")
    assert read.ids.tolist() == [str(i) for i in range(36)]
    with pytest.raises(FormatError, match="none is there"):
        Embeddings.from_clip_retrieval(folder, space=SPACE, modality="image", ids="key")


def test_an_image_and_its_caption_have_one_id(tmp_path: Path) -> None:
    other = Space(model="other", dimension=4)
    folder = theirs(tmp_path / "a")
    old = [Embeddings.from_clip_retrieval(folder, space=SPACE, modality=m) for m in ("image", "text")]
    new = [Embeddings.from_clip_retrieval(folder, space=other, modality=m) for m in ("image", "text")]
    split = pair(old, new, links=[(i, i) for i in old[1].ids.tolist()]).split(held_out=0.5)
    for side in (split.train, split.held_out):
        assert {part.modality: set(part.ids.tolist()) for part in side.parts}["image"] == set(
            side.parts[1].ids.tolist()
        )


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def rewrite(name: str, rows: int) -> Callable[[Path], None]:
    return lambda folder: np.save(folder / name, np.zeros((rows, 4), np.float16))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (remove("metadata/metadata_7.parquet"), r"img_emb_7.npy"),
        (rewrite("img_emb/img_emb_10.npy", 2), r"img_emb_10.npy and metadata_10.parquet .* 2 vectors and 3 rows"),
        (rewrite("img_emb/img_emb_00.npy", 3), "one number"),
        (lambda folder: (folder / "img_emb" / "img_emb_3.npy").write_bytes(b"\x93NUMPY"), "truncated"),
        (lambda folder: (folder / "metadata" / "metadata_3.parquet").write_bytes(b"PAR1"), "damaged"),
        (lambda folder: [file.unlink() for file in (folder / "img_emb").iterdir()], "none is there"),
    ],
    ids=["no metadata", "rows", "number twice", "truncated npy", "truncated parquet", "no shards"],
)
def test_a_damaged_folder_is_a_format_error(tmp_path: Path, damage: Callable[[Path], Any], says: str) -> None:
    folder = theirs(tmp_path / "a")
    damage(folder)
    with pytest.raises(FormatError, match=says):
        Embeddings.from_clip_retrieval(folder, space=SPACE, modality="image")


def test_a_column_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"image_path.*caption"):
        Embeddings.from_clip_retrieval(theirs(tmp_path / "a"), space=SPACE, modality="image", ids="url")


def test_ids_that_repeat_are_refused(tmp_path: Path) -> None:
    folder = theirs(tmp_path / "a", shards=1)
    pq.write_table(pa.table({"image_path": ["a", "b", "a"]}), folder / "metadata" / "metadata_0.parquet")
    with pytest.raises(InvalidIds, match="'a'"):
        Embeddings.from_clip_retrieval(folder, space=SPACE, modality="image")


def test_the_modality_is_named_where_there_are_two(tmp_path: Path) -> None:
    folder = theirs(tmp_path / "a")
    with pytest.raises(ConfigError, match="Name one"):
        Embeddings.from_clip_retrieval(folder, space=SPACE)
    for file in (folder / "text_emb").iterdir():
        file.unlink()
    (folder / "text_emb").rmdir()
    assert Embeddings.from_clip_retrieval(folder, space=SPACE).modality == "image"
    with pytest.raises(FormatError, match="image vectors only"):
        Embeddings.from_clip_retrieval(folder, space=SPACE, modality="text")
    with pytest.raises(FormatError, match="img_emb or text_emb"):
        Embeddings.from_clip_retrieval(folder / "img_emb", space=SPACE)
    with pytest.raises(ConfigError, match="dimension=4"):
        Embeddings.from_clip_retrieval(folder)


def test_images_and_texts_round_trip(tmp_path: Path) -> None:
    ids = [f"é{i}" for i in range(36)]
    images = Embeddings(ids, ROWS, SPACE, "image", metadata={"label": np.arange(36)})
    order = np.random.default_rng(0).permutation(36)
    captions = np.array([f"caption {i}" for i in range(36)])
    texts = Embeddings([ids[i] for i in order], TEXTS[order], SPACE, "text", metadata={"caption": captions[order]})
    from crossfade.embeddings.clip_retrieval import write_clip_retrieval

    write_clip_retrieval(images, tmp_path / "a", texts=texts, shard_rows=3)
    assert (tmp_path / "a" / "img_emb" / "img_emb_00.npy").exists()
    for modality, vectors in (("image", ROWS), ("text", TEXTS)):
        read = Embeddings.from_clip_retrieval(tmp_path / "a", modality=modality, metadata=["label", "caption"])  # type: ignore[arg-type]
        assert read.ids.tolist() == ids
        assert read.space == SPACE
        assert read.rows.stored(0, 36).tobytes() == vectors.tobytes()
        assert read.metadata["label"].tolist() == list(range(36))
        assert read.metadata["caption"].tolist() == captions.tolist()
    with pytest.raises(SpaceMismatch):
        Embeddings.from_clip_retrieval(tmp_path / "a", modality="image", space=Space(model="x", dimension=4))
    with pytest.raises(StorageError):
        images.to_clip_retrieval(tmp_path / "a")


def test_what_cannot_be_written(tmp_path: Path) -> None:
    images = Embeddings(range(36), ROWS, SPACE, "image")
    with pytest.raises(InvalidIds, match="1 of 36 images"):
        images.to_clip_retrieval(tmp_path / "a", texts=Embeddings(range(1, 37), TEXTS, SPACE, "text"))
    with pytest.raises(SpaceMismatch):
        images.to_clip_retrieval(
            tmp_path / "a", texts=Embeddings(range(36), TEXTS, Space(model="x", dimension=4), "text")
        )
    with pytest.raises(ConfigError, match="image beside image"):
        images.to_clip_retrieval(tmp_path / "a", texts=images)
    with pytest.raises(ConfigError, match="image_path"):
        Embeddings(range(36), ROWS, SPACE, "image", metadata={"image_path": range(36)}).to_clip_retrieval(
            tmp_path / "a"
        )
    assert not list(tmp_path.iterdir())
