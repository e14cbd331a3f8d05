"""Exact top-10 of 5,000 queries in 1,000,000 × 512 float32 against faiss-cpu's IndexFlatIP, in one run.

``python -m benchmarks.search.run [--gallery N] [--queries Q] [--dimension D] [--repeats R] [--write]``

The two take turns. A third row is the bare matrix product of the same tiles, with nothing selected: the floor. Memory is the
highest resident size during our search, less the size before it, with the gallery and the queries already there.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

import crossfade as cf
from benchmarks.record import write
from crossfade.evaluation import search
from crossfade.evaluation.search import QUERY_TILE

K = 10
SEED = 0
BLOCK = 4096


class PeakMemory:
    """The highest resident memory of this process while the block runs, sampled every 5 ms, in bytes above the start."""

    def __enter__(self) -> PeakMemory:
        self.start = self.peak = self._resident()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def above(self) -> int:
        """Bytes above the start."""
        return self.peak - self.start

    def _sample(self) -> None:
        while not self._stop.wait(0.005):
            self.peak = max(self.peak, self._resident())

    @staticmethod
    def _resident() -> int:
        status = Path("/proc/self/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS"))


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Wall and processor seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def products(queries: npt.NDArray[np.float32], gallery: npt.NDArray[np.float32]) -> None:
    """The matrix products alone."""
    out = np.empty((min(QUERY_TILE, len(queries)), BLOCK), dtype=np.float32)
    for start in range(0, len(gallery), BLOCK):
        block = gallery[start : start + BLOCK].T
        for first in range(0, len(queries), QUERY_TILE):
            tile = queries[first : first + QUERY_TILE]
            np.matmul(tile, block, out=out[: len(tile), : block.shape[1]])


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gallery", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=5_000)
    parser.add_argument("--dimension", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    try:
        import faiss
    except ImportError:
        print("skipped: faiss-cpu is not installed")
        return 0
    generator = np.random.default_rng(SEED)
    stored = generator.standard_normal((options.gallery, options.dimension), dtype=np.float32)
    asked = generator.standard_normal((options.queries, options.dimension), dtype=np.float32)
    space = cf.Space(model="random", dimension=options.dimension, metric="dot", normalized=False)
    gallery = cf.Embeddings(np.arange(len(stored)), stored, space, "image")
    queries = cf.Embeddings(np.arange(len(asked)), asked, space, "image")

    with PeakMemory() as memory:
        ours = search(queries, gallery, k=K)
    index = faiss.IndexFlatIP(options.dimension)
    index.add(stored)
    theirs = index.search(asked, K)[1]
    work = {
        "crossfade search": lambda: search(queries, gallery, k=K),
        "faiss IndexFlatIP": lambda: index.search(asked, K),
        "matrix products alone": lambda: products(asked, stored),
    }
    runs: dict[str, list[tuple[float, float]]] = {name: [] for name in work}
    for _ in range(options.repeats):
        for name, task in work.items():
            runs[name].append(timed(task))
    flops = 2.0 * options.gallery * options.queries * options.dimension
    results: dict[str, object] = {}
    print(f"{'':24}{'wall s':>9}{'cpu s':>9}{'GFLOP/s':>9}   (medians of {options.repeats})")
    for name, seconds in runs.items():
        wall, cpu = (statistics.median(column) for column in zip(*seconds, strict=True))
        results[name] = {"wall": wall, "cpu": cpu, "runs": seconds}
        print(f"{name:24}{wall:9.2f}{cpu:9.2f}{flops / wall / 1e9:9.0f}")
    pairs = zip(runs["crossfade search"], runs["faiss IndexFlatIP"], strict=True)
    ratio = statistics.median(a[0] / b[0] for a, b in pairs)
    equal = float((ours.rows == theirs).mean())
    print(f"ratio crossfade / faiss, median of the pairs: {ratio:.3f}  (mark: at most 1)")
    print(f"memory beside the gallery: {memory.above / 1e9:.2f} GB  (mark: under 4)")
    print(f"equal rows: {equal:.6f}")
    results |= {"ratio": ratio, "memory_bytes": memory.above, "equal_rows": equal}
    if options.write:
        config = {key: value for key, value in vars(options).items() if key != "write"} | {"k": K, "seed": SEED}
        print(write(Path(__file__).parent, config, results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
