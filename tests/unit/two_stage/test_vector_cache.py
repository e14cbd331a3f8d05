"""The cache of new vectors: durable, of one space, bounded, and shared by processes that hammer it or are killed."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossfade.errors import (
    ConfigError,
    FormatError,
    InvalidIds,
    InvalidVectors,
    NewerFormat,
    SpaceMismatch,
    StorageError,
)
from crossfade.spaces import Space
from crossfade.two_stage import VectorCache

SPACE = Space(model="new", dimension=8, revision="2", normalized=False, metric="dot")


def vectors(n: int, *, seed: int = 0, dimension: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, dimension)).astype(np.float32)


def opened(path: Path | None, **options) -> VectorCache:
    return VectorCache(path, options.pop("space", SPACE), modality=options.pop("modality", "image"), **options)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("stored", [True, False])
def test_what_is_put_is_found_again_in_any_order_and_repeated(tmp_path, dtype, stored):
    matrix = vectors(1200)
    ids = [f"item {i} ü" for i in range(1200)]
    with opened(tmp_path / "deep" / "c.sqlite" if stored else None, dtype=dtype) as cache:
        cache.put(ids, matrix)
        asked = np.random.default_rng(1).permutation(1200).tolist()
        found, got = cache.get([*(ids[i] for i in asked), "unknown", ids[3], ids[3]])
        assert found.tolist() == [True] * 1200 + [False, True, True]
        np.testing.assert_array_equal(got[:1200], matrix[asked].astype(dtype).astype(np.float32))
        np.testing.assert_array_equal(got[1200:], np.stack([0 * matrix[3], *[matrix[3].astype(dtype)] * 2]))
        assert got.dtype == np.float32
        assert len(cache) == 1200
        counts = cache.counts
        assert (counts.hits, counts.misses, counts.embedded, counts.evicted) == (1202, 1, 1200, 0)


def test_what_was_put_outlives_the_handle_and_is_replaced_by_a_later_put(tmp_path):
    with opened(tmp_path / "c") as cache:
        cache.put(["a", "b"], vectors(2))
        cache.put(["b", "c"], vectors(2, seed=1))
    with opened(tmp_path / "c") as cache:
        assert len(cache) == 3
        np.testing.assert_array_equal(cache.get(["a", "b", "c"])[1], [vectors(2)[0], *vectors(2, seed=1)])
        assert cache.counts.embedded == 0


def test_ids_of_every_kind_are_kept_apart(tmp_path):
    ids = ["a", "A", "a ", "\ud800", "日本", "1", "01", "x" * 5000, "'; DROP TABLE items; --"]
    with opened(tmp_path / "c") as cache:
        cache.put(ids, vectors(len(ids)))
        found, got = cache.get(ids)
        assert found.all()
        np.testing.assert_array_equal(got, vectors(len(ids)))
        assert cache.get([1])[0].all()


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_bounded_cache_keeps_what_was_used_last(data):
    """Against the plain definition: a list of ids, the last used at the end."""
    capacity = data.draw(st.integers(2, 6))
    cost = 8 * 4 + 2 * 1 + 64
    cache = opened(None, max_bytes=capacity * cost)
    kept: list[str] = []
    truth: dict[str, np.ndarray] = {}
    for step in range(25):
        ids = data.draw(st.lists(st.sampled_from("abcdefghij"), min_size=1, max_size=5, unique=True))
        if data.draw(st.booleans()):
            matrix = vectors(len(ids), seed=step)
            cache.put(ids, matrix)
            last = ids[-capacity:]
            truth.update({name: matrix[ids.index(name)] for name in last})
            kept = ([name for name in kept if name not in last] + last)[-capacity:]
        else:
            found, got = cache.get(ids)
            assert found.tolist() == [name in kept for name in ids]
            for name, row in zip(ids, got, strict=True):
                if name in kept:
                    np.testing.assert_array_equal(row, truth[name])
            kept = [name for name in kept if name not in ids] + [name for name in ids if name in kept]
        assert len(cache) == len(kept)
        assert cache.stored_bytes == len(kept) * cost <= cache.max_bytes
    assert cache.get(kept)[0].all()


def test_the_file_of_a_full_cache_stops_growing(tmp_path):
    path, bound = tmp_path / "c", 1 << 20
    space = Space(model="new", dimension=256, normalized=False)
    with opened(path, space=space, max_bytes=bound) as cache:
        for batch in range(40):
            ids = [f"{batch}-{i}" for i in range(200)]
            cache.put(ids, vectors(200, dimension=256))
            cache.get(np.random.default_rng(batch).permutation(ids)[:50])
        assert cache.counts.evicted == 40 * 200 - len(cache)
        assert 0.9 * bound < cache.stored_bytes <= bound
    assert path.stat().st_size < 1.25 * bound


def test_a_smaller_bound_takes_effect_at_the_next_put(tmp_path):
    with opened(tmp_path / "c") as cache:
        cache.put([f"{i}" for i in range(100)], vectors(100))
    with opened(tmp_path / "c", max_bytes=1000) as cache:
        cache.put(["new"], vectors(1))
        assert len(cache) < 11
        assert cache.get(["new"])[0].all()


def test_what_was_read_last_survives_a_restart(tmp_path):
    bound = 3 * (32 + 2 + 64)
    with opened(tmp_path / "c", max_bytes=bound) as cache:
        cache.put(["a", "b", "c"], vectors(3))
        cache.get(["a"])
    with opened(tmp_path / "c", max_bytes=bound) as cache:
        cache.put(["d"], vectors(1))
        assert cache.get(["a", "b", "c", "d"])[0].tolist() == [True, False, True, True]


@pytest.mark.parametrize(
    ("other", "error", "words"),
    [
        (
            {"space": Space(model="new", dimension=8, revision="3", normalized=False, metric="dot")},
            SpaceMismatch,
            "delete",
        ),
        ({"modality": "text"}, SpaceMismatch, "holds image vectors; found text"),
        ({"dtype": "float16"}, ConfigError, "float32; asked for float16"),
    ],
)
def test_another_space_modality_or_format_is_refused(tmp_path, other, error, words):
    with opened(tmp_path / "c") as cache:
        cache.put(["a"], vectors(1))
    with pytest.raises(error, match=words):
        opened(tmp_path / "c", **other)
    with opened(tmp_path / "c") as cache:
        assert len(cache) == 1


def test_options_out_of_range_are_refused(tmp_path):
    text = Space(model="t", dimension=8, modalities=("text",))
    with pytest.raises(ConfigError, match="holds text"):
        opened(tmp_path / "c", space=text)
    with pytest.raises(ConfigError, match="float16 or float32"):
        opened(tmp_path / "c", dtype="float64")
    with pytest.raises(ConfigError, match="at least one vector"):
        opened(tmp_path / "c", max_bytes=50)


@pytest.mark.parametrize(
    ("ids", "matrix", "error"),
    [
        (["a"], np.full((1, 8), np.nan, np.float32), InvalidVectors),
        (["a"], np.full((1, 8), np.inf, np.float32), InvalidVectors),
        (["a"], np.zeros((1, 7), np.float32), InvalidVectors),
        (["a", "b"], np.zeros((1, 8), np.float32), InvalidVectors),
        (["a"], np.zeros((1, 8), np.int64), InvalidVectors),
        (["a", "a"], np.ones((2, 8), np.float32), InvalidIds),
    ],
)
def test_bad_vectors_are_refused_and_nothing_is_written(tmp_path, ids, matrix, error):
    with opened(tmp_path / "c") as cache:
        with pytest.raises(error):
            cache.put(ids, matrix)
        assert len(cache) == 0


def test_values_that_float16_cannot_hold_and_zeros_without_direction_are_refused(tmp_path):
    with opened(tmp_path / "c", dtype="float16") as cache, pytest.raises(InvalidVectors, match="finite as float16"):
        cache.put(["a"], np.full((1, 8), 1e5, np.float32))
    unit = Space(model="unit", dimension=8)
    with opened(tmp_path / "d", space=unit) as cache, pytest.raises(InvalidVectors, match="not zero"):
        cache.put(["a"], np.zeros((1, 8), np.float32))


def test_files_that_are_no_cache_are_told_apart(tmp_path):
    (tmp_path / "text").write_text("hello, this is no database at all " * 40)
    with pytest.raises(FormatError, match="no vector cache"):
        opened(tmp_path / "text")
    other = sqlite3.connect(tmp_path / "other")
    other.execute("CREATE TABLE x (y)")
    other.close()
    with pytest.raises(FormatError, match="another SQLite file"):
        opened(tmp_path / "other")
    opened(tmp_path / "newer").close()
    newer = sqlite3.connect(tmp_path / "newer")
    newer.execute("PRAGMA user_version = 99")
    newer.close()
    with pytest.raises(NewerFormat, match="version 99"):
        opened(tmp_path / "newer")


def test_a_damaged_vector_is_an_error_and_never_an_answer(tmp_path):
    with opened(tmp_path / "c") as cache:
        cache.put(["a", "b"], vectors(2))
    damaged = sqlite3.connect(tmp_path / "c")
    damaged.execute("UPDATE vectors SET vector = x'00' WHERE number = 1")
    damaged.commit()
    damaged.close()
    with opened(tmp_path / "c") as cache:
        with pytest.raises(FormatError, match="damaged"):
            cache.get(["a", "b"])
        assert cache.get(["b"])[0].all()


def test_a_folder_that_cannot_be_written_is_a_storage_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        opened(tmp_path / "file" / "c")


def test_a_closed_cache_says_so(tmp_path):
    cache = opened(tmp_path / "c")
    cache.close()
    cache.close()
    with pytest.raises(StorageError, match="closed"):
        cache.get(["a"])


def test_a_busy_file_is_told_after_the_timeout_and_nothing_is_lost(tmp_path):
    with opened(tmp_path / "c", timeout=0.1) as cache:
        cache.put(["a"], vectors(1))
        other = sqlite3.connect(tmp_path / "c", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageError, match="locked"):
            cache.put(["b"], vectors(1))
        assert cache.get(["a"])[0].all()
        other.rollback()
        other.close()
        cache.put(["b"], vectors(1))
        assert len(cache) == 2


def test_no_item_and_no_text_is_in_the_file(tmp_path):
    with opened(tmp_path / "c") as cache:
        cache.put(["a"], vectors(1))
    connection = sqlite3.connect(tmp_path / "c")
    columns = {
        (table, row[1])
        for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for row in connection.execute(f"PRAGMA table_info({table})").fetchall()
    }
    connection.close()
    assert columns == {
        ("meta", "name"), ("meta", "value"), ("items", "number"), ("items", "id"), ("items", "used"),
        ("vectors", "number"), ("vectors", "vector"), ("size", "bytes"),
    }  # fmt: skip


HAMMER = """
import sys
import numpy as np
from crossfade.spaces import Space
from crossfade.two_stage import VectorCache

def row(i):
    return np.random.default_rng(i).standard_normal(8).astype(np.float32)

path, worker, bound = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]) or None
space = Space(model="new", dimension=8, revision="2", normalized=False, metric="dot")
generator = np.random.default_rng(worker)
with VectorCache(path, space, modality="image", max_bytes=bound) as cache:
    for step in range(60):
        numbers = np.unique(generator.integers(0, 600, 20))
        found, got = cache.get(numbers)
        for i, there, vector in zip(numbers, found, got):
            assert not there or (vector == row(i)).all(), i
        missing = numbers[~found]
        if len(missing):
            cache.put(missing, np.stack([row(i) for i in missing]))
        own = np.asarray([1000 * (worker + 1) + step])
        cache.put(own, row(int(own[0]))[None])
"""


@pytest.mark.parametrize("bound", [0, 40_000])
def test_processes_that_hammer_one_cache_lose_no_row_and_read_no_wrong_vector(tmp_path, bound):
    path = tmp_path / "c"
    running = [
        subprocess.Popen([sys.executable, "-c", HAMMER, str(path), str(worker), str(bound)], stderr=subprocess.PIPE)
        for worker in range(4)
    ]
    for process in running:
        _, told = process.communicate(timeout=60)
        assert process.returncode == 0, told.decode()
    with opened(path, max_bytes=bound or None) as cache:
        own = [1000 * (worker + 1) + step for worker in range(4) for step in range(60)]
        found, got = cache.get(own)
        if bound:
            assert cache.stored_bytes <= bound
        else:
            assert found.all()
        for number, there, vector in zip(own, found, got, strict=True):
            if there:
                np.testing.assert_array_equal(
                    vector, np.random.default_rng(number).standard_normal(8).astype(np.float32)
                )
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    items, stored = (
        {row[0] for row in connection.execute(f"SELECT number FROM {table}").fetchall()}
        for table in ("items", "vectors")
    )
    assert items == stored
    sizes = connection.execute("SELECT SUM(32 + 2 * LENGTH(id) + 64), (SELECT bytes FROM size) FROM items").fetchone()
    assert sizes[0] == sizes[1]
    connection.close()
    assert not list(tmp_path.glob(".*.tmp"))


ENDLESS = """
import sys
import numpy as np
from crossfade.spaces import Space
from crossfade.two_stage import VectorCache

space = Space(model="new", dimension=8, revision="2", normalized=False, metric="dot")
cache = VectorCache(sys.argv[1], space, modality="image")
for step in range(1_000_000):
    cache.put([f"{step}-{i}" for i in range(50)], np.full((50, 8), step, np.float32))
    print(step, flush=True)
"""


def test_a_killed_process_loses_at_most_its_open_batch(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", ENDLESS, str(tmp_path / "c")], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for _ in range(20):
        finished = int(process.stdout.readline())
    time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    finished = max([finished, *map(int, process.stdout.read().split("\n")[:-1])])
    process.wait()
    process.stdout.close()
    with opened(tmp_path / "c") as cache:
        assert len(cache) % 50 == 0
        assert len(cache) in (50 * (finished + 1), 50 * (finished + 2))
        for step in range(finished + 1):
            found, got = cache.get([f"{step}-{i}" for i in range(50)])
            assert found.all()
            assert (got == step).all()


def test_threads_share_one_handle(tmp_path):
    problems: list[object] = []
    with opened(tmp_path / "c", max_bytes=20_000) as cache:

        def work(worker: int) -> None:
            for step in range(30):
                ids = [f"{(worker * 7 + step + i) % 50}" for i in range(10)]
                rows = np.repeat(np.asarray([[float(name)] for name in ids], dtype=np.float32), 8, axis=1)
                cache.put(ids, rows)
                found, got = cache.get(ids)
                if not (got[found] == rows[found]).all():
                    problems.append(ids)

        threads = [threading.Thread(target=work, args=(worker,)) for worker in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not problems
        assert len(cache) == 50


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_forked_child_opens_a_connection_of_its_own(tmp_path):
    code = (
        "import os, sys, numpy as np\n"
        "from crossfade.spaces import Space\nfrom crossfade.two_stage import VectorCache\n"
        "space = Space(model='new', dimension=8, revision='2', normalized=False, metric='dot')\n"
        "cache = VectorCache(sys.argv[1], space, modality='image', max_bytes=100_000)\n"
        "cache.put(['parent'], np.ones((1, 8), np.float32)); cache.get(['parent'])\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    cache.put(['child'], np.ones((1, 8), np.float32))\n"
        "    os._exit(0 if cache.get(['parent', 'child'])[0].all() else 1)\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
        "assert cache.get(['parent', 'child'])[0].all()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "c")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
