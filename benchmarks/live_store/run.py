"""A live upgrade of a million rows in LanceDB: time and memory of each step, and what the searcher adds.

``python -m benchmarks.live_store.run [--rows 1000000] [--backfill 100000] [--folder FOLDER] [--write]``

Each step is a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import lru_cache, partial
from pathlib import Path
from queue import Empty
from typing import Any

import numpy as np
import pyarrow as pa

import crossfade as cf
from benchmarks.record import write
from crossfade.pairing import pair
from crossfade.stores import Store, open_store
from crossfade.upgrading import Pace, Searcher, Upgrade, backfill, cutover, plan_upgrade, rollback, shadow, status

DIMENSION, TABLE = 512, 4096
OLD = cf.Space(model="old-model", dimension=DIMENSION)
NEW = cf.Space(model="new-model", dimension=DIMENSION)
QUERIES, SEARCHES, FEW, WARM, K = 1000, 300, 30, 10, 10
SAMPLE, BATCH = 1000, 16_500
LIMITS = {"peak GB": 2.0, "flip s": 1.0, "added p50 ms": 0.3}


@lru_cache
def tables(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two tables of directions; a row is the sum of one of each, and so a function of its number."""
    generator = np.random.default_rng(seed)
    first, second = (generator.standard_normal((TABLE, DIMENSION)).astype(np.float32) for _ in range(2))
    return first, second


def vectors(numbers: np.ndarray, space: cf.Space) -> np.ndarray:
    """float32 [n, d] of unit norm: the new model's, or the old one's, which is turned and disturbed."""
    first, second = tables(0)
    found = first[numbers % TABLE] + second[numbers // TABLE % TABLE]
    if space == OLD:
        blur, other = tables(1)
        found = found[:, ::-1] + 0.4 * blur[numbers % TABLE] + 0.4 * other[numbers // TABLE % TABLE]
    unit: np.ndarray = found / np.linalg.norm(found, axis=1, keepdims=True)
    return unit


def embeddings(numbers: np.ndarray, space: cf.Space) -> cf.Embeddings:
    """Vectors with their ids."""
    return cf.Embeddings([str(n) for n in numbers], vectors(numbers, space), space, "image")


def embed(ids: np.ndarray) -> np.ndarray:
    """The new model: rows are looked up by their number."""
    return vectors(ids.astype(np.int64), NEW)


def fill(folder: Path, rows: int) -> dict[str, Any]:
    """The collection, by LanceDB's own client."""
    import lancedb

    kind = pa.list_(pa.float32(), DIMENSION)

    def batches() -> Iterator[pa.RecordBatch]:
        for start in range(0, rows, 50_000):
            numbers = np.arange(start, min(start + 50_000, rows))
            flat = pa.array(vectors(numbers, OLD).ravel())
            yield pa.record_batch(
                [pa.array(numbers.astype(str)), pa.FixedSizeListArray.from_arrays(flat, DIMENSION)],
                names=["id", "vector"],
            )

    schema = pa.schema([pa.field("id", pa.string()), pa.field("vector", kind)])
    lancedb.connect(folder / "db").create_table("rows", pa.RecordBatchReader.from_batches(schema, batches()))
    return {}


def indexed(field: str, folder: Path, rows: int) -> dict[str, Any]:
    """What an owner of a table of this size does: indexes, as LanceDB makes them by default, and compaction."""
    import lancedb
    from lancedb.index import BTree, IvfPq

    table = lancedb.connect(folder / "db").open_table("rows")
    table.optimize()
    filled = rows if field == "vector" else table.count_rows(f"{field}__filled IS TRUE")
    table.create_index(field, config=IvfPq(distance_type="cosine", num_partitions=max(1, filled // 4096)))
    if field == "vector":
        table.create_index("id", config=BTree(), wait_timeout=timedelta(minutes=5))
    return {}


def opened(folder: Path) -> Store:
    """The collection."""
    return open_store(f"lancedb:{folder / 'db'}#rows")


def plan(folder: Path, rows: int) -> dict[str, Any]:
    """Fit on stored vectors and plan."""
    store = opened(folder)
    store.register("vector", OLD, "image")
    numbers = np.random.default_rng(1).permutation(rows)[:5000]
    adapter = cf.methods.Procrustes().fit(pair(embeddings(numbers, OLD), embeddings(numbers, NEW)))
    started = time.perf_counter()
    made = plan_upgrade(store, adapter, out=folder / "upgrade", field="vector", new_field="new", embed=embed)
    return {"s": time.perf_counter() - started, "rows": made.rows}


def shadowed(folder: Path, rows: int) -> dict[str, Any]:
    """A thousand queries both ways."""
    numbers = np.random.default_rng(2).permutation(rows)[:QUERIES]
    found = shadow(
        Upgrade.open(folder / "upgrade"), opened(folder), old=embeddings(numbers, OLD), new=embeddings(numbers, NEW)
    )
    return {"old p50 ms": found.old.p50, "mapped p50 ms": found.mapped.p50, "agreement@10": found.agreement.value}


def flip(step: Callable[[Upgrade, Store], None], folder: Path, rows: int) -> dict[str, Any]:
    """A cutover or a rollback, and the first search after it."""
    upgrade, store = Upgrade.open(folder / "upgrade"), opened(folder)
    started = time.perf_counter()
    step(upgrade, store)
    return {"flip s": time.perf_counter() - started, "stage": upgrade.state.now().stage}


def backfilled(count: int, folder: Path, rows: int) -> dict[str, Any]:
    """Some rows, the most uncertain first, in few large batches; LanceDB's index of the ids is brought up to date after each."""
    import lancedb

    upgrade, store = Upgrade.open(folder / "upgrade"), opened(folder)
    table = lancedb.connect(folder / "db").open_table("rows")
    started, encoded = time.perf_counter(), 0
    while encoded < count:
        limit = min(BATCH if encoded else SAMPLE, count - encoded)
        done = backfill(upgrade, store, embed, pace=Pace(batch=BATCH, limit=limit), sample=SAMPLE, progress=True)
        encoded += done.encoded
        table.checkout_latest()
        table.optimize()
    return {"rows/s": encoded / (time.perf_counter() - started), "rows": encoded, "waiting": done.waiting}


def searches(count: int, folder: Path, rows: int) -> dict[str, Any]:
    """The searcher beside the same searches of the same vectors by LanceDB's own client, one query at a time, in turn."""
    import lancedb

    upgrade, store = Upgrade.open(folder / "upgrade"), opened(folder)
    table = lancedb.connect(folder / "db").open_table("rows")
    searcher, mixed = Searcher(upgrade, store), upgrade.state.now().serving == "mixed"
    numbers = np.random.default_rng(3).permutation(rows)[: count + WARM]
    asked = vectors(numbers, NEW)
    mapped = upgrade.adapter.map(asked, "image")

    def own(vector: np.ndarray, field: str, k: int, where: str | None) -> None:
        search = table.search(vector, vector_column_name=field).distance_type("cosine").limit(k)
        search = search.select(["id", "_distance"]).refine_factor(10).minimum_nprobes(20).maximum_nprobes(0)
        (search if where is None else search.where(where, prefilter=True)).to_arrow()

    def the_same(query: np.ndarray, through: np.ndarray) -> None:
        if not mixed:
            own(through, "vector", K, None)
            return
        own(through, "vector", 2 * K, "new__filled IS NULL")
        own(query, "new", 2 * K, None)

    def timed(work: Callable[[], object]) -> float:
        started = time.perf_counter()
        work()
        return 1e3 * (time.perf_counter() - started)

    milliseconds = np.zeros((count + WARM, 2))
    for number, (query, through) in enumerate(zip(asked, mapped, strict=True)):
        works = [partial(searcher.search, vector=query, space=NEW, k=K), partial(the_same, query, through)]
        for which in (0, 1) if number % 2 else (1, 0):  # the second finds what the first has read
            milliseconds[number, which] = timed(works[which])
    ours, theirs = milliseconds[WARM:].T
    return {
        "searcher p50 ms": float(np.median(ours)),
        "client p50 ms": float(np.median(theirs)),
        "added p50 ms": float(np.median(ours) - np.median(theirs)),
    }


def state(folder: Path, rows: int) -> dict[str, Any]:
    """What the upgrade's folder takes."""
    found = status(Upgrade.open(folder / "upgrade"))
    size = sum(path.stat().st_size for path in (folder / "upgrade").rglob("*") if path.is_file())
    return {"folder MB": size / 1e6, "stage": found["stage"]}


def _apart(work: Callable[[Path, int], dict[str, Any]], folder: Path, rows: int, queue: Any) -> None:
    started = time.perf_counter()
    found = work(folder, rows)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    queue.put({"wall s": time.perf_counter() - started, "peak GB": peak, **found})


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--backfill", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, help="for the collection; by default a temporary one")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    os.environ.setdefault("LANCE_LOG", "error")
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    context = multiprocessing.get_context("spawn")
    lines: list[dict[str, Any]] = []
    work: dict[str, Callable[[Path, int], dict[str, Any]]] = {
        "fill": fill,
        "index": partial(indexed, "vector"),
        "plan": plan,
        "shadow, 1,000 queries": shadowed,
        "cutover": partial(flip, partial(cutover, force="the benchmark measures it")),
        "searches, through the adapter": partial(searches, SEARCHES),
        f"backfill, {options.backfill:,} rows": partial(backfilled, options.backfill),
        "searches, mixed": partial(searches, FEW),
        "compaction, and an index on the new field": partial(indexed, "new"),
        "searches, mixed and indexed": partial(searches, SEARCHES),
        "rollback": partial(flip, partial(rollback, reason="the benchmark measures it")),
        "state": state,
    }
    try:
        for name, step in work.items():
            queue = context.Queue()
            process = context.Process(target=_apart, args=(step, folder, options.rows, queue))
            process.start()
            found = None
            while found is None:
                try:
                    found = queue.get(timeout=1.0)
                except Empty:
                    if process.exitcode is not None:
                        raise RuntimeError(f"{name} failed; its error stands above") from None
            process.join()
            lines.append({"step": name, **{key: _shown(value) for key, value in found.items()}})
            print(json.dumps(lines[-1]), flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if options.write:
        config = {"rows": options.rows, "backfill": options.backfill, "dimension": DIMENSION, "limits": LIMITS}
        print(write(Path(__file__).parent, config, lines, table=lines))
    return 0


def _shown(value: Any) -> Any:
    return round(value, 4 if value < 1 else 2) if isinstance(value, float) else value


if __name__ == "__main__":
    sys.exit(main())
