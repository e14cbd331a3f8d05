"""Fitting Procrustes and ridge on pairs in memory maps, against the two matrix products that their statistics need.

``ratio`` is the time of the whole fit divided by the time of XᵀX and XᵀY by sgemm on the same blocks, in memory; the
bound is 1.3. Procrustes needs XᵀY alone, and is also shown against that product alone. Repeats are interleaved; each
side's best counts.

Run: ``python -m benchmarks.closed_form_fit.run [--rows N] [--write]``
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.linalg.blas import sgemm

from benchmarks.machine import float16_file, peak_memory
from benchmarks.record import write
from crossfade.embeddings import Embeddings
from crossfade.methods import Procrustes, Ridge
from crossfade.pairing import pair
from crossfade.spaces import Space

SOURCE, TARGET, BLOCK = 768, 512, 8192
BOUND, MEMORY_BOUND_GB = 1.3, 1.0
SEED = 0


def main() -> int:
    """Measure, print, and say whether the bounds hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--write", action="store_true", help="append to result.json")
    options = parser.parse_args()

    generator = np.random.default_rng(SEED)
    new, old = Space(model="new", dimension=SOURCE), Space(model="old", dimension=TARGET)
    with tempfile.TemporaryDirectory(prefix="crossfade-bench-") as temporary:
        x = float16_file(Path(temporary) / "new.npy", options.rows, SOURCE, generator)
        y = float16_file(Path(temporary) / "old.npy", options.rows, TARGET, generator)
        ids = np.arange(options.rows)
        pairs = pair(Embeddings(ids, y, old, "image"), Embeddings(ids, x, new, "image"))
        block_x = np.asfortranarray(np.asarray(x[:BLOCK], dtype=np.float32).T)
        block_y = np.asfortranarray(np.asarray(y[:BLOCK], dtype=np.float32).T)

        def products(*others: np.ndarray) -> None:
            for first in range(0, options.rows, BLOCK):
                rows = min(BLOCK, options.rows - first)
                for other in others:
                    sgemm(1.0, block_x[:, :rows], other[:, :rows], trans_b=True)

        runs: dict[str, Callable[[], object]] = {
            "XᵀX and XᵀY": lambda: products(block_x, block_y),
            "XᵀY": lambda: products(block_y),
            "procrustes": lambda: Procrustes().fit(pairs),
            "ridge": lambda: Ridge().fit(pairs),
        }
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        with peak_memory() as memory:
            for _ in range(options.repeats):
                for name, run in runs.items():
                    start = time.perf_counter()
                    run()
                    seconds[name].append(time.perf_counter() - start)
    best = {name: min(times) for name, times in seconds.items()}
    both = best["XᵀX and XᵀY"]
    ratios = {name: best[name] / both for name in ("procrustes", "ridge")}
    fine = max(ratios.values()) <= BOUND and memory.peak_gb < MEMORY_BOUND_GB
    print(f"{options.rows} pairs, {SOURCE} → {TARGET}, float16 files")
    for name, times in seconds.items():
        print(f"{name:<12} {best[name]:7.2f} s   all: {', '.join(f'{t:.2f}' for t in times)}")
    for name, ratio in ratios.items():
        print(f"{name:<12} {ratio:7.2f} × both products (bound: at most {BOUND})")
    print(f"{'procrustes':<12} {best['procrustes'] / best['XᵀY']:7.2f} × XᵀY alone")
    print(f"peak memory  {memory.peak_gb:7.2f} GB  (bound: under {MEMORY_BOUND_GB})   {'ok' if fine else 'MISSED'}")
    if options.write:
        config = {"rows": options.rows, "source": SOURCE, "target": TARGET, "dtype": "float16", "seed": SEED}
        write(Path(__file__).parent, config, {"seconds": seconds, "ratios": ratios, "peak_gb": memory.peak_gb})
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
