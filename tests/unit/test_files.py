"""Writing all or nothing, and reading .npy without pickle."""

import errno
import fcntl
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crossfade.errors import CrossfadeError, FormatError, StorageError, UnsafeFormat
from crossfade.files import atomic_file, atomic_folder, read_json, read_npy, write_json, write_npy, write_npy_blocks


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "new" / "a.txt"
    with atomic_file(target) as temporary:
        temporary.write_text("half")
        assert not target.exists()
        temporary.write_text("whole")
    assert target.read_text() == "whole"
    assert names(target.parent) == ["a.txt"]


@pytest.mark.skipif(os.name != "posix", reason="an open file cannot be replaced elsewhere")
def test_who_reads_the_old_file_goes_on_reading_it(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with open(target) as reader:
        with atomic_file(target) as temporary:
            temporary.write_text("new")
        assert reader.read() == "old"
    assert target.read_text() == "new"


@pytest.mark.parametrize("problem", [ValueError, KeyboardInterrupt])
def test_an_interrupted_file_leaves_the_old_one(tmp_path: Path, problem: type[BaseException]) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")

    def work() -> None:
        with atomic_file(target) as temporary:
            temporary.write_text("half")
            raise problem

    with pytest.raises(problem):
        work()
    assert target.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("problem", [ValueError, KeyboardInterrupt])
def test_an_interrupted_folder_leaves_the_old_one(tmp_path: Path, problem: type[BaseException]) -> None:
    target = tmp_path / "a"
    target.mkdir()
    (target / "old").write_text("old")

    def work() -> None:
        with atomic_folder(target, overwrite=True) as temporary:
            (temporary / "new").write_text("half")
            raise problem

    with pytest.raises(problem):
        work()
    assert names(tmp_path) == ["a"]
    assert names(target) == ["old"]


def test_a_folder_is_not_overwritten_unasked(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(StorageError, match="overwritten unasked"), atomic_folder(tmp_path / "a"):
        pass


def test_a_folder_is_replaced_when_asked(tmp_path: Path) -> None:
    for content in ("one", "two"):
        with atomic_folder(tmp_path / "a", overwrite=True) as temporary:
            (temporary / content).write_text(content)
    assert names(tmp_path) == ["a"]
    assert names(tmp_path / "a") == ["two"]


def test_a_file_where_a_folder_should_be_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("I am a file")
    with pytest.raises(StorageError, match="could not be written"):
        write_json(tmp_path / "a" / "b.json", {})
    assert (tmp_path / "a").read_text() == "I am a file"


def test_an_error_inside_a_folder_names_the_folder_that_was_asked_for(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()

    def work() -> None:
        with atomic_folder(tmp_path / "b") as temporary:
            (temporary / "file").write_text("")
            write_json(temporary / "file" / "c.json", {})

    with pytest.raises(StorageError) as caught:
        work()
    assert f"{tmp_path / 'b' / 'file' / 'c.json'} could not be written" in str(caught.value)
    assert ".tmp" not in str(caught.value)


FULL_DISK = """
import signal, resource, sys
from pathlib import Path
import numpy as np
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
from crossfade.errors import StorageError
from crossfade.files import write_npy
try:
    write_npy(Path(sys.argv[1]), np.zeros(1_000_000))
except StorageError as error:
    print(error)
"""


@pytest.mark.skipif(os.name != "posix", reason="file size limits are POSIX")
def test_a_file_that_does_not_fit_leaves_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "a.npy"
    np.save(target, np.arange(3))
    ran = subprocess.run([sys.executable, "-c", FULL_DISK, target], capture_output=True, text=True, check=True)
    assert "could not be written" in ran.stdout
    assert np.array_equal(np.load(target), np.arange(3))
    assert names(tmp_path) == ["a.npy"]


def test_json_round_trips_as_utf8(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"name": "Ω é", "n": [1, 2.5, None]})
    assert read_json(tmp_path / "a.json") == {"name": "Ω é", "n": [1, 2.5, None]}
    assert "Ω" in (tmp_path / "a.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("content", [b"", b"{", b'{"a": ', b"\xff\xfe{}", b"[" * 100_000], ids=range(5))
def test_damaged_json_is_a_format_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(FormatError):
        read_json(tmp_path / "a.json")
    with pytest.raises(FormatError):
        read_json(tmp_path)


def test_npy_is_memory_mapped_read_only(tmp_path: Path) -> None:
    write_npy(tmp_path / "a.npy", np.arange(6.0).reshape(2, 3))
    array = read_npy(tmp_path / "a.npy")
    assert isinstance(array, np.memmap)
    assert not array.flags.writeable
    assert np.array_equal(array, np.arange(6.0).reshape(2, 3))
    assert not isinstance(read_npy(tmp_path / "a.npy", memory_map=False), np.memmap)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(12.0).reshape(3, 4),
        np.asfortranarray(np.arange(12.0).reshape(3, 4)),
        np.arange(24).reshape(4, 6)[::2, ::3],
        np.array(["a", "", "é🙂"]),
        np.empty(0, "<U1"),
        np.array(3.5),
        np.array([True, False]),
    ],
    ids=range(7),
)
def test_every_array_comes_back(tmp_path: Path, array: np.ndarray) -> None:
    write_npy(tmp_path / "a.npy", array)
    for read in (read_npy(tmp_path / "a.npy"), np.load(tmp_path / "a.npy")):
        assert (read.dtype, read.shape) == (array.dtype, array.shape)
        assert np.array_equal(read, array)


def test_an_empty_npy_is_read(tmp_path: Path) -> None:
    write_npy(tmp_path / "a.npy", np.empty((0, 4), np.float32))
    assert read_npy(tmp_path / "a.npy").shape == (0, 4)


class Bomb:
    """Unpickling one makes a folder: the trace of code that ran."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.trace),)


def test_a_pickled_npy_is_refused_and_not_executed(tmp_path: Path) -> None:
    bomb = np.empty(1, dtype=object)
    bomb[0] = Bomb(tmp_path / "ran")
    np.save(tmp_path / "bomb.npy", bomb, allow_pickle=True)
    for mapped in (True, False):
        with pytest.raises(UnsafeFormat, match="pickle"):
            read_npy(tmp_path / "bomb.npy", memory_map=mapped)
    (tmp_path / "bare.npy").write_bytes(pickle.dumps(Bomb(tmp_path / "ran")))
    with pytest.raises(FormatError):
        read_npy(tmp_path / "bare.npy")
    assert not (tmp_path / "ran").exists()
    np.load(tmp_path / "bomb.npy", allow_pickle=True)
    assert (tmp_path / "ran").exists(), "the bomb is a dud, and the test above proves nothing"


def test_objects_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(UnsafeFormat, match="Python objects"):
        write_npy(tmp_path / "a.npy", np.array([{}], dtype=object))
    assert names(tmp_path) == []


@pytest.mark.parametrize("keep", [0, 5, 40, 128, 1000], ids=str)
def test_a_truncated_npy_is_a_format_error(tmp_path: Path, keep: int) -> None:
    np.save(tmp_path / "a.npy", np.zeros((100, 8), np.float32))
    whole = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(whole[:keep])
    with pytest.raises(FormatError, match="truncated"):
        read_npy(tmp_path / "a.npy")


def test_what_is_missing_or_a_folder_is_a_format_error(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="missing"):
        read_npy(tmp_path / "a.npy")
    with pytest.raises(FormatError, match="cannot be read"):
        read_npy(tmp_path)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(max_size=60), st.integers(0, 127), st.booleans())
def test_no_foreign_error_comes_of_a_damaged_npy(tmp_path: Path, noise: bytes, place: int, valid: bool) -> None:
    """Random bytes over a real file's header: it is read, or refused by name."""
    path = tmp_path / "noise.npy"
    np.save(path, np.zeros((3, 4), np.float32))
    whole = path.read_bytes()
    path.write_bytes(whole[:place] + noise + whole[place + len(noise) :] if valid else noise)
    try:
        read_npy(path)
    except CrossfadeError:
        pass
    finally:
        path.unlink()


def header(text: str) -> bytes:
    body = text.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(body).to_bytes(2, "little") + body


@pytest.mark.parametrize(
    "text",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 8)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 8)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': 3}",
        "{'descr': 'nonsense', 'fortran_order': False, 'shape': (1,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (",
        "'''",
        "__import__('os').abort()",
    ],
)
def test_a_header_that_lies_is_a_format_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.npy").write_bytes(header(text) + b"\0" * 64)
    with pytest.raises(FormatError):
        read_npy(tmp_path / "a.npy")


def test_json_is_written_in_one_step(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"a": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"a": object()})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": 1}
    assert names(tmp_path) == ["a.json"]


@pytest.mark.parametrize("size", [1, 4096 - 128, 4096, 100_003, 3_000_000])
def test_writing_past_the_page_cache_gives_the_same_bytes(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    array = np.random.default_rng(size).standard_normal((size, 1)).astype(np.float32)
    write_npy(tmp_path / "usual.npy", array)
    monkeypatch.setattr("crossfade.files.DIRECT_BYTES", 0)
    write_npy(tmp_path / "direct.npy", array)
    assert (tmp_path / "direct.npy").read_bytes() == (tmp_path / "usual.npy").read_bytes()
    np.testing.assert_array_equal(read_npy(tmp_path / "direct.npy"), array)


@pytest.mark.skipif(not hasattr(os, "O_DIRECT"), reason="needs O_DIRECT")
@pytest.mark.parametrize("refused", ["open", "write"])
def test_a_file_system_without_direct_writes_gets_the_usual_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    array = np.random.default_rng(0).standard_normal((3_000_000, 1)).astype(np.float32)
    usual = {"open": os.open, "write": os.write}
    asked = []

    def refuse(first: Any, second: Any, *rest: Any) -> int:
        direct = second if refused == "open" else fcntl.fcntl(first, fcntl.F_GETFL)
        if direct & os.O_DIRECT:
            asked.append(first)
            raise OSError(errno.EINVAL, "Invalid argument")
        return int(usual[refused](first, second, *rest))

    monkeypatch.setattr("crossfade.files.DIRECT_BYTES", 0)
    monkeypatch.setattr(os, refused, refuse)
    write_npy(tmp_path / "a.npy", array)
    assert asked
    np.testing.assert_array_equal(read_npy(tmp_path / "a.npy"), array)


@pytest.mark.parametrize("direct", [False, True])
def test_blocks_make_the_file_that_the_whole_array_makes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, direct: bool
) -> None:
    monkeypatch.setattr("crossfade.files.DIRECT_BYTES", 0 if direct else 1 << 40)
    array = np.random.default_rng(0).standard_normal((70_000, 33)).astype(np.float32)
    memory = np.empty((4096, 33), dtype=np.float32)

    def blocks() -> Iterator[npt.NDArray[Any]]:
        for start in range(0, len(array), len(memory)):
            block = memory[: len(array) - start]
            block[...] = array[start : start + len(memory)]
            yield block

    write_npy(tmp_path / "whole.npy", array)
    write_npy_blocks(tmp_path / "blocks.npy", blocks(), shape=array.shape, dtype=array.dtype)
    assert (tmp_path / "blocks.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()


@pytest.mark.parametrize(
    ("blocks", "found"),
    [
        ([np.zeros((2, 3))], "24 bytes are missing"),
        ([np.zeros((2, 3)), np.zeros((2, 3))], "found one of"),
        ([np.zeros((3, 3), dtype=np.float32)], "found one of float32"),
    ],
)
def test_blocks_that_are_not_the_array_leave_no_file(
    tmp_path: Path, blocks: list[npt.NDArray[Any]], found: str
) -> None:
    with pytest.raises(ValueError, match=found):
        write_npy_blocks(tmp_path / "a.npy", blocks, shape=(3, 3), dtype=np.dtype(np.float64))
    assert not list(tmp_path.iterdir())
