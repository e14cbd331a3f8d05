"""Rows over several arrays read as the one matrix that they are."""

import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfade.embeddings.rows import Rows, ahead
from crossfade.errors import InvalidVectors

DTYPES = [np.float16, np.float32, np.float64]


def matrix(rows: int, dimension: int = 3, dtype: Any = np.float32, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).standard_normal((rows, dimension)).astype(dtype)


@st.composite
def sharded(draw: st.DrawFn) -> tuple[Rows, np.ndarray[Any, Any], Any]:
    """Rows over shards of any sizes, the matrix that they are, and their number format."""
    sizes = draw(st.lists(st.integers(0, 5), min_size=1, max_size=5))
    dtype = draw(st.sampled_from(DTYPES))
    shards = [matrix(size, dtype=dtype, seed=i) for i, size in enumerate(sizes)]
    whole = np.concatenate(shards)
    rows = Rows(shards)
    for _ in range(draw(st.integers(0, 2))):
        if len(whole):
            chosen = np.asarray(draw(st.lists(st.integers(0, len(whole) - 1), max_size=8)), dtype=np.int64)
            rows, whole = rows.select(chosen), whole[chosen]
    return rows, whole, dtype


@given(sharded(), st.integers(0, 30), st.integers(0, 30))
def test_a_slice_is_the_matrix_s(world: tuple[Rows, Any, Any], start: int, stop: int) -> None:
    rows, whole, dtype = world
    assert rows.shape == whole.shape
    read = rows.read(start, stop) if start <= stop else rows.read(stop, start)
    expected = whole[start:stop] if start <= stop else whole[stop:start]
    assert read.dtype == np.float32
    assert np.array_equal(read, expected.astype(np.float32))
    stored = rows.stored(0, len(rows))
    assert stored.dtype == dtype
    assert stored.tobytes() == whole.tobytes()


@given(sharded(), st.integers(1, 7), st.booleans())
def test_blocks_cover_every_row_once(world: tuple[Rows, Any, Any], size: int, prefetch: bool) -> None:
    rows, whole, _ = world
    blocks = list(rows.blocks(size, prefetch=prefetch))
    assert [block.start for block in blocks] == list(range(0, len(whole), size))
    joined = np.concatenate([np.empty((0, 3), np.float32), *(block.matrix for block in blocks)])
    assert np.array_equal(joined, whole.astype(np.float32))


@given(sharded(), st.data())
def test_take_is_the_matrix_s(world: tuple[Rows, Any, Any], data: st.DataObject) -> None:
    rows, whole, _ = world
    if len(whole):
        wanted = np.asarray(data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=9)), dtype=np.int64)
        assert np.array_equal(rows.take(wanted), whole[wanted].astype(np.float32))


@given(sharded(), st.integers(1, 7))
def test_halves_are_converted_into_the_array_that_is_given(world: tuple[Rows, Any, Any], size: int) -> None:
    rows, whole, dtype = world
    out = np.empty((size, 3), np.float32)
    for start in range(0, len(whole), size):
        read = rows.read(start, start + size, out=out)
        assert np.array_equal(read, whole[start : start + size].astype(np.float32))
        assert np.shares_memory(read, out) == (dtype == np.float16)


def test_float32_in_one_shard_is_not_copied() -> None:
    whole = matrix(10)
    assert np.shares_memory(Rows([whole]).read(2, 5), whole)


def test_shards_of_several_formats_read_as_the_widest() -> None:
    rows = Rows([matrix(2, dtype=np.float16), matrix(2, dtype=np.float64)])
    assert rows.stored(0, 4).dtype == np.float64
    assert rows.read(1, 4).dtype == np.float32


def test_other_byte_orders_are_read() -> None:
    whole = matrix(4)
    assert np.array_equal(Rows([whole.astype(">f4")]).read(0, 4), whole)
    assert Rows([whole.astype(">f4")]).stored(0, 4).dtype.isnative


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mapped", [False, True])
def test_one_bad_number_in_one_shard_of_several_is_refused(
    tmp_path: Path, bad: float, dtype: Any, mapped: bool
) -> None:
    shards = [matrix(50, 8, dtype, seed) for seed in range(3)]
    shards[1][20, 7] = bad
    if mapped:
        for number, shard in enumerate(shards):
            np.save(tmp_path / f"{number}.npy", shard)
        shards = [np.load(tmp_path / f"{number}.npy", mmap_mode="r") for number in range(3)]
    rows = Rows(shards)
    assert rows.on_disk is mapped
    for read in (lambda: rows.read(0, 150), lambda: rows.stored(60, 80), lambda: rows.take(np.array([70, 3]))):
        with pytest.raises(InvalidVectors, match="1 rows, the first at row 70"):
            read()
    with pytest.raises(InvalidVectors):
        list(rows.blocks(16, prefetch=True))
    rows.read(0, 70)
    rows.read(71, 150)


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_bad_number_far_into_what_is_stored_is_named(dtype: Any) -> None:
    whole = np.ones((20_000, 1), dtype)
    whole[17_000] = np.nan
    with pytest.raises(InvalidVectors, match="1 rows, the first at row 17000"):
        Rows([whole]).stored(5, 20_000)


@given(
    st.lists(st.floats(width=32), min_size=1, max_size=40).map(lambda values: np.array([values], np.float32)),
)
def test_the_quick_test_of_finiteness_misses_nothing(vector: Any) -> None:
    if np.isfinite(vector).all():
        assert np.array_equal(Rows([vector]).read(0, 1), vector)
    else:
        with pytest.raises(InvalidVectors):
            Rows([vector]).read(0, 1)


def test_numbers_whose_squares_overflow_are_finite() -> None:
    huge = np.full((2, 4), 3e38, np.float32)
    assert np.array_equal(Rows([huge]).read(0, 2), huge)


def test_doubles_beyond_float32_are_refused_without_a_warning() -> None:
    beyond = np.full((1, 2), 1e300)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InvalidVectors, match="finite in float32"):
            Rows([beyond]).read(0, 1)
        assert Rows([beyond]).stored(0, 1).tobytes() == beyond.tobytes()


@pytest.mark.parametrize(
    "shards",
    [[], [np.zeros(3, np.float32)], [np.zeros((2, 3), np.int64)], [np.zeros((2, 3)), np.zeros((2, 4))]],
    ids=["none", "vector", "integers", "two dimensions"],
)
def test_what_is_no_matrix_is_refused(shards: list[Any]) -> None:
    with pytest.raises(InvalidVectors):
        Rows(shards)


def test_an_exception_ahead_comes_in_its_turn() -> None:
    def read(number: int) -> int:
        if number == 3:
            raise InvalidVectors("bad")
        return number

    items = ahead(read, range(6))
    assert [next(items) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(InvalidVectors, match="bad"):
        next(items)


def readers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("crossfade-read")]


def test_leaving_early_leaves_no_thread() -> None:
    blocks = Rows([matrix(100)]).blocks(10, prefetch=True)
    next(iter(blocks))
    assert readers()
    blocks.close()  # type: ignore[attr-defined]
    assert not readers()


def test_an_interrupted_caller_leaves_no_thread() -> None:
    def work() -> None:
        for block in Rows([matrix(100)]).blocks(10, prefetch=True):
            if block.start == 30:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert not readers()


def test_ahead_works_one_item_ahead() -> None:
    begun: list[int] = []
    second = threading.Event()

    def read(number: int) -> int:
        begun.append(number)
        if number == 1:
            second.set()
        return number

    items = ahead(read, range(4))
    assert next(items) == 0
    assert second.wait(10)
    assert max(begun) == 1
    assert list(items) == [1, 2, 3]


def test_released_pages_are_read_again(tmp_path: Path) -> None:
    whole = matrix(5000, 16)
    np.save(tmp_path / "a.npy", whole)
    rows = Rows([np.load(tmp_path / "a.npy", mmap_mode="r")])
    rows.read(0, 5000)
    rows.release(100, 4000)
    assert np.array_equal(rows.read(0, 5000), whole)


def test_changes_in_a_private_map_are_not_released(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", matrix(5000, 16))
    private = np.load(tmp_path / "a.npy", mmap_mode="c")
    private[:] = 7
    rows = Rows([private])
    rows.release(0, 5000)
    assert (rows.read(0, 5000) == 7).all()
