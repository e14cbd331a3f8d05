"""encode: no row lost, none doubled, whatever happens on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import checkpoints
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from crossfade.datasets.base import ImageItem, TextItem
from crossfade.embeddings import Embeddings
from crossfade.encoders import Encoder, Role, load_encoder
from crossfade.encoding import EncodeSummary, encode
from crossfade.encoding.progress import Progress
from crossfade.errors import (
    ConfigError,
    CorruptItem,
    DatasetError,
    EncoderError,
    FormatError,
    InvalidIds,
    OutOfMemory,
    SpaceMismatch,
    StorageError,
)
from crossfade.spaces import Space

RUNNER = """
import sys, time
sys.path[:0] = sys.argv[4:]
from crossfade.encoders import load_encoder
from crossfade.encoding import encode
name, out, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
if name == "counting":
    from test_encode import Counting
encoder = Counting() if name == "counting" else load_encoder(name, device="cpu")
def slowly(moment):
    print(moment.done, flush=True)
    time.sleep(0.05)
items = [(f"t{i}", f"text number {i} " * (i % 5 + 1)) for i in range(count)]
encode(items, encoder=encoder, out=out, batch_size=8, shard_rows=20, progress=slowly)
"""
COUNT = 203


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.clip(tmp_path_factory.mktemp("encode") / "tiny-clip")


@pytest.fixture(scope="session")
def encoder(folder: Path) -> Encoder:
    import torch

    torch.set_num_threads(1)  # as in the processes below: a sum's last bit depends on it
    return load_encoder(str(folder), device="cpu")


def texts(count: int) -> list[TextItem]:
    return [
        TextItem(f"t{i}", f"text number {i} " * (i % 5 + 1), {"length": i % 5, "kind": "ab"[i % 2]})
        for i in range(count)
    ]


def save_pictures(folder: Path, count: int) -> list[Path]:
    generator = np.random.default_rng(1)
    folder.mkdir()
    paths = [folder / f"{i:03d}.png" for i in range(count)]
    for path in paths:
        Image.fromarray(generator.integers(0, 256, (24, 24, 3), dtype=np.uint8), "RGB").save(path)
    return paths


def bytes_of(out: Path) -> dict[str, bytes]:
    """Everything but the clock's readings."""
    return {path.name: path.read_bytes() for path in sorted(out.iterdir()) if path.name != "encoding.json"}


class Counting(Encoder):
    """A cheap encoder that remembers its batches: a text's vector is a hash of its letters."""

    def __init__(self, *, model: str = "counting", dimension: int = 4, limit: int | None = None) -> None:
        self.space = Space(model=model, dimension=dimension, modalities=("text",), query_prefix="q: ")
        self.batches: list[int] = []
        self.limit = limit

    def encode_texts(self, texts: Sequence[str], *, role: Role = "document") -> npt.NDArray[np.float32]:
        if self.limit is not None and len(texts) > self.limit:
            raise OutOfMemory("The batch did not fit.")
        self.batches.append(len(texts))
        prefix = self.space.query_prefix if role == "query" else ""
        rows = [
            [float(sum((prefix + text).encode()) % (p + 2) + 1) for p in range(self.space.dimension)] for text in texts
        ]
        matrix = np.asarray(rows, dtype=np.float32)
        return matrix / np.linalg.norm(matrix, axis=1, keepdims=True)

    def __repr__(self) -> str:
        return "Counting()"


def test_rows_are_the_encoders_own_in_order_with_their_metadata(encoder: Encoder, tmp_path: Path) -> None:
    items = texts(50)
    made = encode(items, encoder=encoder, out=tmp_path / "out", batch_size=8, shard_rows=16)
    assert made.ids.tolist() == [item.id for item in items]
    np.testing.assert_allclose(made.matrix(), encoder.encode_texts([item.text for item in items]), atol=2e-6)
    assert made.metadata["length"].tolist() == [i % 5 for i in range(50)]
    assert made.metadata["kind"].tolist() == ["ab"[i % 2] for i in range(50)]
    assert (made.space, made.modality) == (encoder.space, "text")
    assert made.rows.on_disk
    stored = Embeddings.load(tmp_path / "out")
    np.testing.assert_array_equal(stored.matrix(), made.matrix())
    in_memory = encode(items, encoder=encoder, batch_size=8)
    np.testing.assert_array_equal(in_memory.matrix(), made.matrix())
    assert in_memory.metadata["kind"].tolist() == made.metadata["kind"].tolist()


def test_plain_texts_paths_and_pictures(encoder: Encoder, tmp_path: Path) -> None:
    paths = save_pictures(tmp_path / "pictures", 3)
    assert encode(["a", "b"], encoder=encoder).ids.tolist() == ["0", "1"]
    assert encode([("x", "a"), (7, "b")], encoder=encoder).ids.tolist() == ["x", "7"]
    by_path = encode(paths, encoder=encoder)
    assert by_path.ids.tolist() == [path.as_posix() for path in paths]
    assert by_path.modality == "image"
    pictures = []
    for path in paths:
        with Image.open(path) as picture:
            pictures.append((path.name, picture.copy()))
    np.testing.assert_array_equal(encode(pictures, encoder=encoder).matrix(), by_path.matrix())
    assert encode((text for text in ["a", "b"]), encoder=encoder).matrix().shape == (2, 16)


def test_batches_are_whole_and_shards_are_multiples_of_them(tmp_path: Path) -> None:
    counting = Counting()
    encode(texts(50), encoder=counting, out=tmp_path, batch_size=8, shard_rows=20)
    assert counting.batches == [8] * 6 + [2]
    manifest = json.loads((tmp_path / "embeddings.json").read_text())
    assert [shard["rows"] for shard in manifest["shards"]] == [16, 16, 16, 2]


def run(encoder: str, out: Path) -> subprocess.Popen[str]:
    here = Path(__file__).parent
    arguments = [sys.executable, "-c", RUNNER, encoder, str(out), str(COUNT), str(here), str(here.parents[1])]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(process: subprocess.Popen[str], rows: int) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= rows:
            return
    raise AssertionError("the process ended before it was to be stopped")


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, errors = process.communicate(timeout=60)
    return process.returncode, errors


def test_a_killed_run_goes_on_to_the_same_bytes(folder: Path, encoder: Encoder, tmp_path: Path) -> None:
    items = [(f"t{i}", f"text number {i} " * (i % 5 + 1)) for i in range(COUNT)]
    encode(items, encoder=encoder, out=tmp_path / "whole", batch_size=8, shard_rows=20)
    out = tmp_path / "killed"
    process = run(str(folder), out)
    wait_for(process, 60)
    os.kill(process.pid, signal.SIGKILL)
    assert finish(process)[0] == -signal.SIGKILL
    with pytest.raises(FormatError, match="unfinished"):
        Embeddings.load(out)
    (out / ".vectors-00099.npy.1.tmp").write_bytes(b"half a shard")
    summary: list[EncodeSummary] = []
    encode(items, encoder=encoder, out=out, batch_size=8, shard_rows=20, on_finish=summary.append)
    assert 0 < summary[0].encoded < COUNT == summary[0].rows
    assert bytes_of(out) == bytes_of(tmp_path / "whole")


def test_ctrl_c_keeps_finished_batches_and_says_how_to_go_on(tmp_path: Path) -> None:
    process = run("counting", tmp_path / "out")
    wait_for(process, 60)
    os.kill(process.pid, signal.SIGINT)
    code, errors = finish(process)
    assert code != 0
    assert "KeyboardInterrupt: Stopped:" in errors
    assert "Run the same encode again to go on" in errors
    manifest = json.loads((tmp_path / "out" / "embeddings.json").read_text())
    rows = sum(shard["rows"] for shard in manifest["shards"])
    assert 60 <= rows < COUNT
    assert rows % 8 == 0
    assert f"{rows} rows" in errors
    items = [(f"t{i}", f"text number {i} " * (i % 5 + 1)) for i in range(COUNT)]
    made = encode(items, encoder=Counting(), out=tmp_path / "out", batch_size=8, shard_rows=20)
    assert made.ids.tolist() == [name for name, _ in items]
    np.testing.assert_array_equal(made.matrix(), encode(items, encoder=Counting(), batch_size=8).matrix())


def test_a_finished_folder_is_opened_without_the_model(tmp_path: Path) -> None:
    encode(texts(20), encoder=Counting(), out=tmp_path)
    before, record = bytes_of(tmp_path), (tmp_path / "encoding.json").read_bytes()
    again = Counting()
    assert len(encode(texts(20), encoder=again, out=tmp_path)) == 20
    assert again.batches == []
    assert bytes_of(tmp_path) == before
    assert (tmp_path / "encoding.json").read_bytes() == record
    with pytest.raises(StorageError, match="holds 20 rows already"):
        encode(texts(20), encoder=Counting(), out=tmp_path, resume=False)


class Failing(Counting):
    """Fails at the third batch."""

    def encode_texts(self, texts: Sequence[str], *, role: Role = "document") -> npt.NDArray[np.float32]:
        if len(self.batches) == 2:
            raise EncoderError("The endpoint is gone.")
        return super().encode_texts(texts, role=role)


def unfinished(out: Path) -> None:
    """Sixteen rows of thirty."""
    with pytest.raises(EncoderError, match="gone"):
        encode(texts(30), encoder=Failing(), out=out, batch_size=8, shard_rows=1000)


def test_a_failing_model_keeps_what_was_paid_for(tmp_path: Path) -> None:
    unfinished(tmp_path)
    rest = Counting()
    made = encode(texts(30), encoder=rest, out=tmp_path, batch_size=8)
    assert rest.batches == [8, 6]
    np.testing.assert_array_equal(made.matrix(), encode(texts(30), encoder=Counting(), batch_size=8).matrix())


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([*texts(30)[:5], TextItem("other", "x"), *texts(30)[5:]], "its row 5 is 't5', and now 'other' comes there"),
        (texts(30)[:10], "it has 16 rows, and only 10 of them come now; the first that does not is 't10'"),
        (texts(30)[1:], "its row 0 is 't0', and now 't1' comes there"),
    ],
)
def test_other_items_cannot_continue_a_folder(items: list[TextItem], message: str, tmp_path: Path) -> None:
    unfinished(tmp_path)
    before = bytes_of(tmp_path)
    with pytest.raises(FormatError, match=message):
        encode(items, encoder=Counting(), out=tmp_path, batch_size=8)
    assert bytes_of(tmp_path) == before


def test_a_finished_folder_takes_no_more(tmp_path: Path) -> None:
    encode(texts(20), encoder=Counting(), out=tmp_path)
    with pytest.raises(FormatError, match="finished with 20 rows, and now 't20' comes after them"):
        encode(texts(21), encoder=Counting(), out=tmp_path)


def test_another_space_or_role_cannot_continue_a_folder(encoder: Encoder, tmp_path: Path) -> None:
    unfinished(tmp_path / "a")
    before = bytes_of(tmp_path / "a")
    with pytest.raises(SpaceMismatch, match="cannot be added to it"):
        encode(texts(30), encoder=Counting(model="another"), out=tmp_path / "a")
    with pytest.raises(SpaceMismatch, match="encoded as documents"):
        encode(texts(30), encoder=Counting(), out=tmp_path / "a", role="query")
    assert bytes_of(tmp_path / "a") == before
    encode(save_pictures(tmp_path / "pictures", 2), encoder=encoder, out=tmp_path / "b")
    with pytest.raises(SpaceMismatch, match="holds image vectors"):
        encode(texts(2), encoder=encoder, out=tmp_path / "b")


def test_the_role_decides_the_prefix() -> None:
    asked, stored = (encode(["a"], encoder=Counting(), role=role).matrix() for role in ("query", "document"))
    np.testing.assert_array_equal(asked, Counting().encode_texts(["a"], role="query"))
    assert not np.array_equal(asked, stored)


def damaged(tmp_path: Path) -> list[Path]:
    """Twelve pictures: the third truncated, the sixth no picture, the seventh empty, the last missing."""
    paths = save_pictures(tmp_path / "pictures", 12)
    data = paths[2].read_bytes()
    paths[2].write_bytes(data[: len(data) // 2])
    paths[5].write_text("this is no picture")
    paths[6].write_bytes(b"")
    paths[11].unlink()
    return paths


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_corrupt_images_are_listed_and_the_rest_goes_on(batch_size: int, encoder: Encoder, tmp_path: Path) -> None:
    paths = damaged(tmp_path)
    summary: list[EncodeSummary] = []
    out = tmp_path / "out"
    made = encode(paths, encoder=encoder, out=out, batch_size=batch_size, on_finish=summary.append)
    good = [path for i, path in enumerate(paths) if i not in (2, 5, 6, 11)]
    assert made.ids.tolist() == [path.as_posix() for path in good]
    np.testing.assert_allclose(made.matrix(), encode(good, encoder=encoder).matrix(), atol=2e-6)
    bad = [paths[i].as_posix() for i in (2, 5, 6, 11)]
    assert list(summary[0].corrupt) == bad
    lines = [json.loads(line) for line in (out / "corrupt.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == bad
    assert all(line["reason"] for line in lines)
    record = json.loads((out / "encoding.json").read_text())
    assert (record["state"], record["summary"]["rows"], record["summary"]["corrupt"]) == ("complete", 8, 4)


def test_mended_images_are_retried_only_when_asked(encoder: Encoder, tmp_path: Path) -> None:
    paths = damaged(tmp_path)
    out = tmp_path / "out"
    encode(paths, encoder=encoder, out=out, batch_size=4)
    Image.new("RGB", (24, 24), "red").save(paths[5])
    assert len(encode(paths, encoder=encoder, out=out, batch_size=4)) == 8
    summary: list[EncodeSummary] = []
    made = encode(paths, encoder=encoder, out=out, batch_size=4, retry_corrupt=True, on_finish=summary.append)
    assert len(made) == 9
    assert made.ids[-1] == paths[5].as_posix()
    assert len(summary[0].corrupt) == 3
    assert len((out / "corrupt.jsonl").read_text().splitlines()) == 4
    assert len(encode(paths, encoder=encoder, out=out, batch_size=4, retry_corrupt=True)) == 9


def test_a_corrupt_image_can_stop_the_run(encoder: Encoder, tmp_path: Path) -> None:
    paths = damaged(tmp_path)
    with pytest.raises(CorruptItem, match=r"002\.png"):
        encode(paths, encoder=encoder, out=tmp_path / "out", batch_size=2, on_corrupt="raise")
    assert len(encode(paths, encoder=encoder, out=tmp_path / "out", batch_size=2)) == 8


def test_a_line_cut_off_in_the_list_of_corrupt_items_is_forgotten(encoder: Encoder, tmp_path: Path) -> None:
    paths = damaged(tmp_path)
    out = tmp_path / "out"
    with pytest.raises(CorruptItem):
        encode(paths, encoder=encoder, out=out, batch_size=2, on_corrupt="raise")
    (out / "corrupt.jsonl").write_bytes(b'{"id": "half')
    encode(paths, encoder=encoder, out=out, batch_size=2)
    assert len([json.loads(line) for line in (out / "corrupt.jsonl").read_text().splitlines()]) == 4
    (out / "corrupt.jsonl").write_bytes(b"no json\n")
    with pytest.raises(FormatError, match="an id and a reason"):
        encode(paths, encoder=encoder, out=out, batch_size=2)


def test_all_items_corrupt(encoder: Encoder, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="all 2 are corrupt"):
        encode([tmp_path / "a.png", tmp_path / "b.png"], encoder=encoder, out=tmp_path / "out")


def test_texts_that_are_no_text() -> None:
    summary: list[EncodeSummary] = []
    made = encode(
        [("a", "fine"), ("b", "\ud800"), TextItem("c", 3)],  # type: ignore[arg-type]
        encoder=Counting(),
        on_finish=summary.append,
    )
    assert made.ids.tolist() == ["a"]
    assert set(summary[0].corrupt) == {"b", "c"}


def test_nothing_to_encode_leaves_nothing_behind(tmp_path: Path) -> None:
    for nothing in ([], iter([])):
        with pytest.raises(DatasetError, match="at least one item"):
            encode(nothing, encoder=Counting(), out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_repeated_ids(tmp_path: Path) -> None:
    items = [*texts(9), TextItem("t3", "again")]
    with pytest.raises(InvalidIds, match="'t3' comes twice"):
        encode(items, encoder=Counting(), out=tmp_path / "a")
    assert not (tmp_path / "a").exists()
    with pytest.raises(InvalidIds, match="'t3' comes twice"):
        encode(iter(items), encoder=Counting(), out=tmp_path / "b", batch_size=4)


def test_wrong_kinds_of_items(encoder: Encoder, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"item 1 .* is ImageItem after TextItem"):
        encode(["a", tmp_path / "b.png"], encoder=encoder)
    with pytest.raises(DatasetError, match="item 0 is float"):
        encode([1.5], encoder=encoder)
    with pytest.raises(ConfigError, match="Put it in a list"):
        encode("a text", encoder=encoder)
    with pytest.raises(EncoderError, match="encodes text only; the items are images"):
        encode([tmp_path / "b.png"], encoder=Counting())
    with pytest.raises(DatasetError, match="must not be empty"):
        encode([("", "a")], encoder=encoder)
    with pytest.raises(ConfigError, match="at least 1"):
        encode(["a"], encoder=encoder, batch_size=0)


def test_metadata_that_does_not_fit_together() -> None:
    missing = encode([TextItem("a", "x", {"n": 1, "s": "u"}), TextItem("b", "y")], encoder=Counting())
    assert np.isnan(missing.metadata["n"][1])
    assert missing.metadata["s"].tolist() == ["u", ""]
    with pytest.raises(DatasetError, match="'b' has 'n' too"):
        encode([TextItem("a", "x"), TextItem("b", "y", {"n": 1})], encoder=Counting())
    with pytest.raises(DatasetError, match="'n' holds numbers"):
        encode([TextItem("a", "x", {"n": 1}), TextItem("b", "y", {"n": "one"})], encoder=Counting())


def test_memory_that_runs_out_halves_the_batch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    narrow = Counting(limit=3)
    made = encode(texts(20), encoder=narrow, out=tmp_path, batch_size=8, progress=True)
    assert max(narrow.batches) == 2
    assert sum(narrow.batches) == 20
    np.testing.assert_array_equal(made.matrix(), encode(texts(20), encoder=Counting()).matrix())
    errors = capsys.readouterr().err
    assert "Memory ran out with 8 items at once; going on with 4." in errors
    assert "going on with 2." in errors
    with pytest.raises(OutOfMemory):
        encode(texts(2), encoder=Counting(limit=0))


def test_a_model_that_gives_nonsense(tmp_path: Path) -> None:
    class Broken(Counting):
        def encode_texts(self, texts: Sequence[str], *, role: Role = "document") -> npt.NDArray[np.float32]:
            return np.full((len(texts), 4), np.nan, dtype=np.float32)

    with pytest.raises(EncoderError, match="begins with 't0'"):
        encode(texts(3), encoder=Broken(), out=tmp_path / "out")
    assert not (tmp_path / "out" / "embeddings.json").exists()


def test_a_full_disk_keeps_what_was_written(tmp_path: Path) -> None:
    code = (
        "import resource, sys\n"
        "import numpy as np\n"
        "from crossfade.encoders import Encoder\n"
        "from crossfade.encoding import encode\n"
        "from crossfade.spaces import Space\n"
        "class Wide(Encoder):\n"
        "    space = Space(model='wide', dimension=64, modalities=('text',))\n"
        "    def encode_texts(self, texts, *, role='document'):\n"
        "        rows = len(texts)\n"
        "        return np.full((rows, 64), 0.125, dtype=np.float32)\n"
        "    def __repr__(self): return 'Wide()'\n"
        "class Full(Wide):\n"
        "    count = 0\n"
        "    def encode_texts(self, texts, *, role='document'):\n"
        "        self.count += 1\n"
        "        if self.count == 3: resource.setrlimit(resource.RLIMIT_FSIZE, (4000, resource.RLIM_INFINITY))\n"
        "        return super().encode_texts(texts)\n"
        "items = [(str(i), 'x') for i in range(100)]\n"
        "try:\n"
        "    encode(items, encoder=Full(), out=sys.argv[1], batch_size=20, shard_rows=20)\n"
        "except Exception as error:\n"
        "    print(type(error).__name__, error)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))\n"
        "import pathlib\n"
        "print(sorted(p.name for p in pathlib.Path(sys.argv[1]).iterdir()))\n"
        "print(len(encode(items, encoder=Wide(), out=sys.argv[1], batch_size=20, shard_rows=20)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "out")], capture_output=True, text=True, check=True
    )
    first, files, rows = done.stdout.splitlines()
    assert first.startswith("StorageError")
    assert "vectors-00002.npy" in first
    assert "vectors-00001.npy" in files
    assert "vectors-00002.npy" not in files
    assert ".tmp" not in files
    assert rows == "100"


def test_one_process_at_a_time(tmp_path: Path) -> None:
    def during(moment: Progress) -> None:
        with pytest.raises(ConfigError, match="Only one process may write"):
            encode(texts(8), encoder=Counting(), out=tmp_path)

    assert len(encode(texts(8), encoder=Counting(), out=tmp_path, progress=during)) == 8


def test_progress_says_how_far_it_is() -> None:
    moments: list[Progress] = []
    encode(texts(20), encoder=Counting(), batch_size=8, progress=moments.append)
    assert [moment.done for moment in moments] == [8, 16, 20]
    assert {moment.total for moment in moments} == {20}
    assert moments[-1].remaining == 0
    moments.clear()
    encode(iter(texts(20)), encoder=Counting(), batch_size=8, progress=moments.append)
    assert {moment.total for moment in moments} == {None}
    assert moments[0].remaining is None


def test_silence_unless_asked(capsys: pytest.CaptureFixture[str], encoder: Encoder, tmp_path: Path) -> None:
    encode(damaged(tmp_path), encoder=encoder)
    assert capsys.readouterr() == ("", "")
    encode(list((tmp_path / "pictures").iterdir()), encoder=encoder, progress=True)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "3 items could not be read" in captured.err


def test_images_are_decoded_while_the_model_computes(encoder: Encoder, tmp_path: Path) -> None:
    loads: list[int] = []
    computed: list[int] = []

    def load() -> Image.Image:
        loads.append(1)
        return Image.new("RGB", (8, 8))

    def items() -> Iterator[ImageItem]:
        for i in range(24):
            yield ImageItem(str(i), load)

    encode(items(), encoder=encoder, batch_size=4, progress=lambda moment: computed.append(len(loads)))
    assert computed[0] > 4  # more than the first batch was loaded before the first batch was done


def test_texts_that_are_too_long_or_repeated_are_counted_and_said(
    encoder: Encoder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The tiny tower takes 24 tokens; the vector is that of the text as the tower cuts it."""
    long = "a black chess knight " * 20
    texts = ["a dog", long, "a dog", long + "and more", "ß" * 300, "a cat", "a dog"]
    summary: list[EncodeSummary] = []
    made = encode(
        texts, encoder=encoder, out=tmp_path / "out", batch_size=2, progress=True, on_finish=summary.append
    ).matrix()
    assert (summary[0].truncated, summary[0].repeated) == (3, 2)
    assert "3 of 7 texts are longer than" in capsys.readouterr().err
    np.testing.assert_allclose(made[1], made[3], atol=1e-6)
    recorded = json.loads((tmp_path / "out" / "encoding.json").read_text())["summary"]
    assert (recorded["truncated"], recorded["repeated"]) == (3, 2)


def test_an_encoder_that_knows_no_limit_counts_nothing_as_cut() -> None:
    summary: list[EncodeSummary] = []
    encode(["one", "two"], encoder=Counting(), on_finish=summary.append)
    assert summary[0].truncated is None
