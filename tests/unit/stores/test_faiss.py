"""What is special to FAISS: its kinds of index, its files of ids, its metric, and files that change under it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crossfade.errors import (
    ConfigError,
    FormatError,
    InvalidIds,
    MissingExtra,
    NewerFormat,
    StorageError,
    StoreChanged,
    StoreError,
    UnsafeFormat,
    Unsupported,
)
from crossfade.stores import Id, Store, open_store
from crossfade.stores.backend import Query
from crossfade.stores.faiss_ids import RowIds

faiss = pytest.importorskip("faiss")

COUNT, DIMENSION = 600, 16
VECTORS = np.random.default_rng(0).standard_normal((COUNT, DIMENSION)).astype(np.float32)
UNITS = VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)
NAMES = [f"item {number}" for number in range(COUNT)]

LOSSLESS = [
    "Flat",
    "HNSW8",
    "IVF4,Flat",
    "NSG8",
    "Flat,RFlat",
    "IVF4,PQ4x4,RFlat",
    "IDMap,Flat",
    "IDMap2,HNSW8",
    "IDMap,IVF4,Flat",
]
LOSSY = ["IVF4,PQ4x4", "SQ8", "SQfp16", "PQ4x4", "IVF4,SQ8", "PCA8,Flat", "OPQ4,IVF4,PQ4x4", "HNSW8,SQ8", "HNSW8,PQ4x4"]
UNREADABLE = ["IVF4,PQ4x4fs", "LSH", "PQ4x4fs", "RaBitQ"]


def built(spec: str, vectors: np.ndarray = VECTORS, metric: int = 1, labels: list[int] | None = None) -> Any:
    index = faiss.index_factory(vectors.shape[1], spec, metric)
    index.train(VECTORS[:, : vectors.shape[1]])
    if labels is None and spec.startswith("IDMap"):
        labels = list(range(len(vectors)))
    index.add(vectors) if labels is None else index.add_with_ids(vectors, np.asarray(labels, dtype=np.int64))
    return index


def written(folder: Path, index: Any, names: list[str] | None = None) -> Path:
    path = folder / "x.index"
    faiss.write_index(index, str(path))
    if names is not None:
        (folder / "x.ids.txt").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    return path


def opened(folder: Path, index: Any, names: list[str] | None = None, options: str = "") -> Store:
    return open_store(f"faiss://{written(folder, index, names)}{options}")


def scanned(store: Store, batch: int = 77) -> tuple[list[Id], np.ndarray]:
    parts = list(store.scan(fields=["vector"], batch=batch))
    return [id_ for part in parts for id_ in part.ids], np.concatenate(
        [part.vectors["vector"].values for part in parts]
    )


# Kinds of index


@pytest.mark.parametrize("spec", LOSSLESS)
def test_vectors_come_back_as_they_were_added(tmp_path: Path, spec: str) -> None:
    store = opened(tmp_path, built(spec), NAMES)
    assert store.capabilities.keeps_vectors
    ids, vectors = scanned(store)
    assert ids == NAMES
    np.testing.assert_array_equal(vectors, VECTORS)
    found = store.fetch(["item 7", "nobody", "item 3"], fields=["vector"])
    assert found.ids == ["item 7", "item 3"]
    np.testing.assert_array_equal(found.vectors["vector"].values, VECTORS[[7, 3]])


@pytest.mark.parametrize("spec", LOSSY)
def test_quantised_vectors_come_back_about_and_it_is_declared(tmp_path: Path, spec: str) -> None:
    store = opened(tmp_path, built(spec), NAMES)
    assert not store.capabilities.keeps_vectors
    ids, vectors = scanned(store)
    assert ids == NAMES
    assert np.corrcoef(vectors.ravel(), VECTORS.ravel())[0, 1] > 0.5
    np.testing.assert_array_equal(store.fetch(["item 9"], fields=["vector"]).vectors["vector"].values[0], vectors[9])
    query = VECTORS[:3]
    for hits, asked in zip(store.search(query, field="vector", k=5, metric="l2", exact=True), query, strict=True):
        distances = np.linalg.norm(vectors - asked, axis=1)
        assert hits.ids == [NAMES[row] for row in np.argsort(distances)[:5]]
        np.testing.assert_allclose(-hits.scores, np.sort(distances)[:5], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("spec", UNREADABLE)
def test_what_gives_no_vectors_back_is_searched_only(tmp_path: Path, spec: str) -> None:
    store = opened(tmp_path, built(spec), NAMES)
    assert [id_ for part in store.scan(batch=100) for id_ in part.ids] == NAMES
    assert len(store.search(VECTORS[:2], field="vector", k=5, metric="l2")[1]) == 5
    for call in (
        lambda: next(store.scan(fields=["vector"])),
        lambda: store.fetch(["item 1"], fields=["vector"]),
        lambda: store.search(VECTORS[:2], field="vector", k=5, metric="l2", exact=True),
    ):
        with pytest.raises(Unsupported, match="gives no vectors back"):
            call()


@pytest.mark.parametrize("spec", ["Flat", "HNSW8", "IVF4,Flat"])
def test_an_exact_search_compares_every_row(tmp_path: Path, spec: str) -> None:
    store = opened(tmp_path, built(spec), NAMES)
    queries = np.random.default_rng(1).standard_normal((30, DIMENSION)).astype(np.float32)
    for query, hits in zip(queries, store.search(queries, field="vector", k=9, metric="l2", exact=True), strict=True):
        distances = np.linalg.norm(VECTORS.astype(np.float64) - query, axis=1)
        assert hits.ids == [NAMES[row] for row in np.argsort(distances)[:9]]
        np.testing.assert_allclose(-hits.scores, np.sort(distances)[:9], rtol=1e-4)


def test_an_inverted_file_with_numbers_of_its_own(tmp_path: Path) -> None:
    numbers = [7 * number - 2100 for number in range(COUNT)]
    index = built("IVF4,Flat", labels=numbers)
    index.remove_ids(np.asarray([numbers[5]], dtype=np.int64))
    store = opened(tmp_path, index)
    kept = [number for number in numbers if number != numbers[5]]
    ids, vectors = scanned(store)
    assert ids == kept
    np.testing.assert_array_equal(vectors, np.delete(VECTORS, 5, axis=0))
    assert store.fetch([numbers[9], numbers[5], numbers[2]]).ids == [numbers[9], numbers[2]]
    (hits,) = store.search(VECTORS[0], field="vector", k=1, metric="l2")
    assert hits.ids == [numbers[0]]


def test_removed_rows_of_an_inverted_file_leave_their_ids_behind(tmp_path: Path) -> None:
    index = built("IVF4,Flat")
    index.remove_ids(np.asarray([3, COUNT - 1], dtype=np.int64))
    store = opened(tmp_path, index, NAMES)
    assert store.count() == COUNT - 2
    assert store.fetch(["item 3", "item 4"], fields=["vector"]).ids == ["item 4"]
    ids, vectors = scanned(store)
    assert ids == [name for number, name in enumerate(NAMES) if number not in (3, COUNT - 1)]
    np.testing.assert_array_equal(vectors[3], VECTORS[4])


def test_fewer_rows_than_asked_for(tmp_path: Path) -> None:
    index = built("IVF4,Flat")  # asks one of four lists
    store = opened(tmp_path, index, NAMES)
    (hits,) = store.search(VECTORS[0], field="vector", k=COUNT * 3, metric="l2")
    assert 0 < len(hits) < COUNT
    assert len(set(hits.ids)) == len(hits)


@pytest.mark.parametrize(("labels", "match"), [([1, 1, 2], "1 repeat"), ([-1, 0, 1], "none of them -1")])
def test_numbers_that_are_none_are_refused(tmp_path: Path, labels: list[int], match: str) -> None:
    with pytest.raises(InvalidIds, match=match):
        opened(tmp_path, built("IDMap,Flat", VECTORS[:3], labels=labels))


# Metrics


@pytest.mark.parametrize(
    ("vectors", "options", "metric", "keeps"),
    [(UNITS, "", "cosine", False), (VECTORS, "", "dot", True), (UNITS, "?metric=dot", "dot", True)],
)
def test_lengths_say_by_what_an_index_of_inner_products_compares(
    tmp_path: Path, vectors: np.ndarray, options: str, metric: Any, keeps: bool
) -> None:
    store = opened(tmp_path, built("Flat", vectors, 0), NAMES, options)
    assert store.describe().fields["vector"].metric == metric
    assert store.capabilities.keeps_vectors is keeps
    (hits,) = store.search(5 * VECTORS[0], field="vector", k=1, metric=metric)
    products = vectors @ (UNITS[0] if metric == "cosine" else 5 * VECTORS[0])
    assert hits.ids == [NAMES[int(products.argmax())]]
    np.testing.assert_allclose(hits.scores, [products.max()], rtol=1e-5)


@pytest.mark.parametrize("spec", ["Flat", "HNSW8", "IVF4,Flat", "IDMap,Flat"])
@pytest.mark.parametrize(("metric", "number"), [("cosine", 0), ("dot", 0), ("l2", 1)])
def test_scores_are_those_of_the_metric(tmp_path: Path, spec: str, metric: Any, number: int) -> None:
    vectors = UNITS if metric == "cosine" else VECTORS
    store = opened(tmp_path, built(spec, vectors, number), NAMES)
    query = 3 * VECTORS[1] + 0.1
    (hits,) = store.search(query, field="vector", k=5, metric=metric)
    rows = [NAMES.index(id_) for id_ in hits.ids]
    exact = {"cosine": UNITS @ query / np.linalg.norm(query), "dot": VECTORS @ query}
    exact["l2"] = -np.linalg.norm(VECTORS - query, axis=1)
    np.testing.assert_allclose(hits.scores, exact[metric][rows], rtol=1e-4)
    assert (np.diff(hits.scores) <= 0).all()


def test_a_quantised_index_of_unit_rows_compares_by_cosine(tmp_path: Path) -> None:
    store = opened(tmp_path, built("SQ8", UNITS, 0), NAMES)
    assert store.describe().fields["vector"].metric == "cosine"


@pytest.mark.parametrize(
    ("index", "options", "match"),
    [
        (("Flat", VECTORS, 0), "?metric=cosine", "must be of length 1"),
        (("Flat", VECTORS, 0), "?metric=l2", "must compare by the inner product"),
        (("Flat", VECTORS, 1), "?metric=dot", "must compare by the inner product"),
        (("Flat", VECTORS, 2), "", "FAISS' metric 2"),
        (("PQ4x4fs", UNITS, 0), "", "must say by what it compares"),
        (("Flat", VECTORS, 1), "?nonsense=1", "found nonsense"),
        (("Flat", VECTORS, 1), "?id=key", "names the column of a .parquet"),
        (("Flat", VECTORS, 1), "?ids=x.json", "must stand|Ids stand in a file of"),
        (("Flat", VECTORS, 1), "#name", "without a user and a name"),
    ],
)
def test_an_address_that_contradicts_the_index_is_refused(
    tmp_path: Path, index: tuple[str, np.ndarray, int], options: str, match: str
) -> None:
    (tmp_path / "x.json").write_text("[]")
    with pytest.raises(ConfigError, match=match):
        opened(tmp_path, built(*index), NAMES, options)


def test_what_cannot_be_read_is_said_to_be_cosine(tmp_path: Path) -> None:
    store = opened(tmp_path, built("PQ4x4fs", UNITS, 0), NAMES, "?metric=cosine&field=photo")
    assert store.describe().fields["photo"].metric == "cosine"


# Ids


def test_numbers_are_ids_where_nothing_else_is_said(tmp_path: Path) -> None:
    store = opened(tmp_path, built("Flat"))
    assert store.describe().ids == "integer"
    assert scanned(store)[0] == list(range(COUNT))
    assert store.fetch([4, 10_000, -1, 0]).ids == [4, 0]


@pytest.mark.parametrize("suffix", [".txt", ".npy", ".parquet"])
@pytest.mark.parametrize("kind", ["string", "integer"])
def test_ids_beside_an_index(tmp_path: Path, suffix: str, kind: str) -> None:
    if (suffix, kind) == (".txt", "integer"):
        pytest.skip("text is strings")
    names: list[Any] = ["ü 写\u2028x", "b\tc", "0"] if kind == "string" else [2**63 - 1, -5, 0]
    path = tmp_path / f"x.ids{suffix}"
    if suffix == ".txt":
        path.write_text("\n".join(names), encoding="utf-8")  # without an end of the last line
    elif suffix == ".npy":
        np.save(path, np.asarray(names))
    else:
        pq.write_table(pa.table({"id": names}), path)
    store = opened(tmp_path, built("Flat", VECTORS[:3]))
    assert store.describe().ids == kind
    assert scanned(store)[0] == names
    assert store.fetch([names[2], names[0]]).ids == [names[2], names[0]]


def test_ids_elsewhere_are_named(tmp_path: Path) -> None:
    (tmp_path / "names").mkdir()
    pq.write_table(pa.table({"n": [1, 2], "key": ["a", "b"]}), tmp_path / "names/all.parquet")
    (tmp_path / "x.ids.txt").write_text("none of these\n")
    index = built("Flat", VECTORS[:2])
    assert scanned(opened(tmp_path, index, None, "?ids=names/all.parquet&id=key"))[0] == ["a", "b"]
    assert scanned(opened(tmp_path, index, None, f"?ids={tmp_path}/names/all.parquet&id=n"))[0] == [1, 2]
    with pytest.raises(ConfigError, match="has the columns n, key"):
        opened(tmp_path, index, None, "?ids=names/all.parquet")


def test_lines_may_end_as_on_windows(tmp_path: Path) -> None:
    (tmp_path / "x.ids.txt").write_bytes(b"\xef\xbb\xbfa\r\nb\r\n")
    assert scanned(opened(tmp_path, built("Flat", VECTORS[:2])))[0] == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "content", "error", "match"),
    [
        ("x.ids.txt", b"a\n", InvalidIds, "found 1 ids for 2 rows"),
        ("x.ids.txt", b"a\nb\nc\n", InvalidIds, "found 3 ids for 2 rows"),
        ("x.ids.txt", b"a\na\n", InvalidIds, "1 repeat"),
        ("x.ids.txt", b"a\n\n", InvalidIds, "line 2 is empty"),
        ("x.ids.txt", b"a\nb\0\n", InvalidIds, "without null characters"),
        ("x.ids.txt", b"a\n\xff\n", FormatError, "UTF-8"),
        ("x.ids.npy", b"no array", FormatError, "must be a .npy file"),
        ("x.ids.npy", np.asarray([1.5, 2]), FormatError, "strings or whole numbers"),
        ("x.ids.npy", np.asarray([2**64 - 1, 2], dtype=np.uint64), InvalidIds, "64 bits"),
        ("x.ids.npy", np.asarray([{}, {}]), UnsafeFormat, "pickle"),
        ("x.ids.parquet", b"no parquet", FormatError, "Parquet"),
        ("x.ids.parquet", pa.table({"id": ["a", None]}), InvalidIds, "1 have none"),
        ("x.ids.parquet", pa.table({"id": [1.5, 2.0]}), FormatError, "found double"),
    ],
)
def test_ids_that_are_wrong_are_said_so(
    tmp_path: Path, name: str, content: Any, error: type[Exception], match: str
) -> None:
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    elif isinstance(content, np.ndarray):
        np.save(tmp_path / name, content)
    else:
        pq.write_table(content, tmp_path / name)
    with pytest.raises(error, match=match):
        opened(tmp_path, built("Flat", VECTORS[:2]))


def test_ids_of_an_index_with_numbers_of_its_own_are_as_many_as_its_numbers(tmp_path: Path) -> None:
    store = opened(tmp_path, built("IDMap,Flat", VECTORS[:3], labels=[2, 0, 1]), ["a", "b", "c"])
    assert scanned(store)[0] == ["c", "a", "b"]
    np.testing.assert_array_equal(store.fetch(["a"], fields=["vector"]).vectors["vector"].values[0], VECTORS[1])
    with pytest.raises(InvalidIds, match="numbered up to 100"):
        opened(tmp_path, built("IDMap,Flat", VECTORS[:3], labels=[0, 1, 100]), ["a", "b", "c"])
    with pytest.raises(InvalidIds, match="one id for each row"):
        opened(tmp_path, built("IDMap,Flat", VECTORS[:3], labels=[0, 1, -7]), ["a", "b", "c"])


def test_two_files_of_ids_are_one_too_many(tmp_path: Path) -> None:
    np.save(tmp_path / "x.ids.npy", np.arange(2))
    with pytest.raises(ConfigError, match=r"x\.ids\.txt, x\.ids\.npy"):
        opened(tmp_path, built("Flat", VECTORS[:2]), ["a", "b"])


def test_rows_of_ids() -> None:
    ids = RowIds(np.asarray([30, 10, 20]), None, address="faiss:///x")
    assert ids.rows([20, 10, 5, 40, 30]).tolist() == [2, 1, 0]
    assert ids.at(np.asarray([1, 2])) == [10, 20]
    assert ids.rows([]).tolist() == []


# Files that change


@pytest.mark.parametrize("content", [b"", b"no index" * 100, None, "binary"])
def test_a_file_that_is_no_index_is_said_so(tmp_path: Path, content: Any) -> None:
    path = written(tmp_path, built("IVF4,Flat"))
    if content == "binary":
        faiss.write_index_binary(faiss.IndexBinaryFlat(64), str(path))
    else:
        path.write_bytes(path.read_bytes()[:2000] if content is None else content)
    with pytest.raises(StoreError, match="must be an index of FAISS") as raised:
        open_store(f"faiss://{path}")
    assert str(path) in str(raised.value)


def test_what_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(StoreChanged, match="there is none"):
        open_store(f"faiss://{tmp_path}/x.index")
    with pytest.raises(StoreChanged, match="gone"):
        opened(tmp_path, built("Flat"), None, "?ids=absent.txt")
    with pytest.raises(StoreError, match="cannot be read"):
        open_store(f"faiss://{written(tmp_path, built('Flat'))}/below")
    with pytest.raises(ConfigError, match="path on this machine"):
        open_store("faiss://host/x.index")


def everything_asked(store: Store) -> list[Any]:
    return [
        store.describe,
        store.count,
        lambda: next(store.scan(fields=["vector"])),
        lambda: store.fetch(["item 1"], fields=["vector"]),
        lambda: store.search(VECTORS[:1], field="vector", k=1, metric="l2"),
        store.notes,
        lambda: store.note("key", "text"),
    ]


@pytest.mark.parametrize("how", ["renamed over", "written to", "gone", "ids written", "ids gone"])
def test_files_that_are_others_are_noticed_at_every_call(tmp_path: Path, how: str) -> None:
    store = opened(tmp_path, built("Flat"), NAMES)
    path, ids = tmp_path / "x.index", tmp_path / "x.ids.txt"
    if how == "renamed over":
        faiss.write_index(built("Flat", VECTORS[::-1].copy()), str(tmp_path / "new"))
        os.replace(tmp_path / "new", path)
    elif how == "written to":
        os.utime(path, ns=(0, 0))  # not truly: to cut short what is mapped may end the process
    elif how == "gone":
        path.unlink()
    elif how == "ids written":
        ids.write_text("a\n" * COUNT)
    else:
        ids.unlink()
    for call in everything_asked(store):
        with pytest.raises(StoreChanged) as raised:
            call()
        assert store.address in str(raised.value)


def test_a_scan_that_has_begun_ends_on_the_old_file(tmp_path: Path) -> None:
    store = opened(tmp_path, built("Flat"), NAMES)
    scan = store.scan(fields=["vector"], batch=100)
    parts = [next(scan)]
    faiss.write_index(built("Flat", VECTORS[::-1].copy()), str(tmp_path / "new"))
    os.replace(tmp_path / "new", tmp_path / "x.index")
    parts += list(scan)
    np.testing.assert_array_equal(np.concatenate([part.vectors["vector"].values for part in parts]), VECTORS)
    assert [id_ for part in parts for id_ in part.ids] == NAMES


def test_a_scan_of_a_file_that_is_written_to_ends_with_an_error(tmp_path: Path) -> None:
    store = opened(tmp_path, built("Flat"), NAMES)
    scan = store.scan(fields=["vector"], batch=100)
    next(scan)
    os.utime(tmp_path / "x.index", ns=(0, 0))
    with pytest.raises(StoreChanged, match="was written to"):
        next(scan)


def test_a_closed_store_lets_go_of_the_file(tmp_path: Path) -> None:
    store = opened(tmp_path, built("Flat"), NAMES)
    descriptor = store._backend._index._descriptor  # type: ignore[attr-defined]
    os.fstat(descriptor)
    store.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


# Notes


def test_notes_stand_beside_the_index(tmp_path: Path) -> None:
    store = opened(tmp_path, built("Flat"), NAMES)
    assert store.notes() == {}
    store.note("crossfade.test", "Ünï\n")
    said = json.loads((tmp_path / "x.index.crossfade.json").read_text(encoding="utf-8"))
    assert said == {"format_version": 1, "notes": {"crossfade.test": "Ünï\n"}}


@pytest.mark.parametrize("said", ["[]", '{"notes": {}}', '{"format_version": 1, "notes": {"a": 1}}', "{", '"a"'])
def test_damaged_notes_are_said_so(tmp_path: Path, said: str) -> None:
    store = opened(tmp_path, built("Flat"), NAMES)
    (tmp_path / "x.index.crossfade.json").write_text(said)
    with pytest.raises(FormatError):
        store.notes()


def test_notes_of_a_later_crossfade_are_not_guessed_at(tmp_path: Path) -> None:
    store = opened(tmp_path, built("Flat"), NAMES)
    (tmp_path / "x.index.crossfade.json").write_text('{"format_version": 2, "notes": {}}')
    with pytest.raises(NewerFormat, match="is of version 2"):
        store.notes()


def test_a_folder_that_cannot_be_written_keeps_no_new_notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = opened(tmp_path, built("Flat"), NAMES).address
    monkeypatch.setattr(os, "access", lambda *_: False)
    store = open_store(address)
    assert not store.capabilities.notes
    assert store.notes() == {}
    (tmp_path / "x.index.crossfade.json").write_text('{"format_version": 1, "notes": {"a": "b"}}')
    assert open_store(address).notes() == {"a": "b"}


def test_notes_that_cannot_be_written_are_said_so(tmp_path: Path) -> None:
    store = opened(tmp_path, built("Flat"), NAMES)
    (tmp_path / ".x.index.crossfade.json.lock").mkdir()
    with pytest.raises(StorageError, match="could not be written"):
        store.note("a", "b")


def keep_notes(address: str, number: int) -> None:
    store = open_store(address)
    for part in range(10):
        store.note(f"{number} {part}", "text")


def test_notes_of_several_processes_are_all_kept(tmp_path: Path) -> None:
    store = opened(tmp_path, built("Flat"), NAMES)
    context = get_context("spawn")
    processes = [context.Process(target=keep_notes, args=(store.address, number)) for number in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert len(store.notes()) == 30


# What it never does


def test_it_writes_nothing(tmp_path: Path) -> None:
    store = opened(tmp_path, built("Flat"), NAMES)
    backend: Any = store._backend
    for call in (
        lambda: backend.upsert(None),
        lambda: backend.set_vectors("vector", [], None),
        lambda: backend.delete([]),
        lambda: backend.add_field(None),
        lambda: backend.drop_field("vector"),
    ):
        with pytest.raises(Unsupported, match="read and searched only"):
            call()
    assert backend.has_column("a") is False
    assert backend.search(Query(np.empty((0, DIMENSION), dtype=np.float32), "vector", 1, "l2")) == []


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingExtra, match=r"'faiss'.*crossfade\[faiss\]"):
        open_store(f"faiss://{tmp_path}/x.index")


def test_faiss_is_imported_when_an_index_is_opened() -> None:
    script = "import sys, crossfade.stores.faiss; assert 'faiss' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)
