"""Bulk mapping from a memory map to disk, against the machine's own matrix product.

``ratio`` is the time of the bare sgemm on the same blocks, in memory, divided by the time of reading, converting,
mapping, normalising, rounding and writing durably; the bound is 0.7. Repeats are interleaved; each side's best counts.

Run: ``python -m benchmarks.bulk_map.run [--rows N] [--write]``
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.machine import float16_file, peak_memory
from benchmarks.record import write
from crossfade.embeddings import Embeddings
from crossfade.methods import LinearAdapter
from crossfade.spaces import Space

SOURCE, TARGET, BLOCK = 768, 512, 8192
BOUND, MEMORY_BOUND_GB = 0.7, 1.0
SEED = 0


def main() -> int:
    """Measure, print, and say whether the bounds hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--dtype", choices=["float16", "float32"], default="float16", help="number format written")
    parser.add_argument("--write", action="store_true", help="append to result.json")
    options = parser.parse_args()

    generator = np.random.default_rng(SEED)
    new, old = Space(model="new", dimension=SOURCE), Space(model="old", dimension=TARGET)
    matrix = np.linalg.qr(generator.standard_normal((SOURCE, TARGET)))[0]
    adapter = LinearAdapter(new, old, matrix=matrix, offsets={"image": 0.1 * generator.standard_normal(TARGET)})
    with tempfile.TemporaryDirectory(prefix="crossfade-bench-") as temporary:
        folder = Path(temporary)
        vectors = float16_file(folder / "new.npy", options.rows, SOURCE, generator)
        embeddings = Embeddings(np.arange(options.rows), vectors, new, "image")
        block = np.asarray(vectors[:BLOCK], dtype=np.float32)
        product = np.empty((len(block), TARGET), dtype=np.float32)
        bare, bulk = [], []
        with peak_memory() as memory:
            for _ in range(options.repeats):
                start = time.perf_counter()
                for first in range(0, options.rows, BLOCK):
                    rows = min(BLOCK, options.rows - first)
                    np.matmul(block[:rows], adapter.matrix, out=product[:rows])
                bare.append(time.perf_counter() - start)
                start = time.perf_counter()
                adapter.transform(embeddings, out=folder / "mapped", dtype=options.dtype)
                bulk.append(time.perf_counter() - start)
                shutil.rmtree(folder / "mapped")
    ratio = min(bare) / min(bulk)
    gflops = 2e-9 * options.rows * SOURCE * TARGET / min(bare)
    fine = ratio >= BOUND and memory.peak_gb < MEMORY_BOUND_GB
    print(f"{options.rows} × {SOURCE} → {TARGET}, float16 file to {options.dtype} folder")
    print(f"bare sgemm   {min(bare):7.2f} s   ({gflops:.0f} GFLOP/s)   all: {', '.join(f'{t:.2f}' for t in bare)}")
    times = ", ".join(f"{t:.2f}" for t in bulk)
    print(f"transform    {min(bulk):7.2f} s   ({options.rows / min(bulk):.0f} rows/s)   all: {times}")
    print(f"ratio        {ratio:7.2f}     (bound: at least {BOUND})")
    print(f"peak memory  {memory.peak_gb:7.2f} GB  (bound: under {MEMORY_BOUND_GB})   {'ok' if fine else 'MISSED'}")
    if options.write:
        config = {"rows": options.rows, "source": SOURCE, "target": TARGET, "dtype": options.dtype, "seed": SEED}
        write(
            Path(__file__).parent,
            config,
            {"sgemm_s": bare, "transform_s": bulk, "ratio": ratio, "peak_gb": memory.peak_gb},
        )
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
