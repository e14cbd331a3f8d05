"""One query through a saved adapter, against a bare NumPy vector–matrix product of its shape.

``ratio`` is the time of ``adapter.map`` on one vector divided by the time of ``vector @ matrix``; the bound is 1.5.
Batches of calls are interleaved; the median batch of each side counts.

Run: ``python -m benchmarks.query_latency.run [--write]``
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.record import write
from crossfade.artifacts import from_pretrained, save_pretrained
from crossfade.embeddings import Embeddings
from crossfade.methods import LinearAdapter, Ridge
from crossfade.pairing import pair
from crossfade.spaces import Space

SOURCE, TARGET = 768, 512
BOUND = 1.5
SEED = 0


def main() -> int:
    """Measure, print, and say whether the bound holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_000, help="pairs to fit the adapter on")
    parser.add_argument("--batches", type=int, default=200)
    parser.add_argument("--calls", type=int, default=200, help="calls a batch")
    parser.add_argument("--write", action="store_true", help="append to result.json")
    options = parser.parse_args()

    generator = np.random.default_rng(SEED)
    new, old = Space(model="new", dimension=SOURCE), Space(model="old", dimension=TARGET)
    x, y = (generator.standard_normal((options.rows, d), dtype=np.float32) for d in (SOURCE, TARGET))
    x, y = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (x, y))
    ids = np.arange(options.rows)
    fitted = Ridge(penalty=1.0).fit(pair(Embeddings(ids, y, old, "text"), Embeddings(ids, x, new, "text")))
    with tempfile.TemporaryDirectory(prefix="crossfade-bench-") as temporary:
        save_pretrained(fitted, Path(temporary) / "adapter")
        adapter = from_pretrained(Path(temporary) / "adapter")
    assert isinstance(adapter, LinearAdapter)
    vector, matrix = x[0].copy(), adapter.matrix.copy()
    bare, mapped = [], []
    for _ in range(options.batches):
        start = time.perf_counter()
        for _ in range(options.calls):
            vector @ matrix
        middle = time.perf_counter()
        for _ in range(options.calls):
            adapter.map(vector, "text")
        bare.append((middle - start) / options.calls * 1e6)
        mapped.append((time.perf_counter() - middle) / options.calls * 1e6)
    ratio = median(mapped) / median(bare)
    print(f"one query, {SOURCE} → {TARGET}, ridge (offset and normalisation included)")
    print(f"bare vector @ matrix  {median(bare):6.1f} µs")
    print(f"adapter.map           {median(mapped):6.1f} µs")
    print(f"ratio                 {ratio:6.2f}     (bound: at most {BOUND})   {'ok' if ratio <= BOUND else 'MISSED'}")
    if options.write:
        config = {"source": SOURCE, "target": TARGET, "batches": options.batches, "calls": options.calls, "seed": SEED}
        write(Path(__file__).parent, config, {"bare_us": median(bare), "map_us": median(mapped), "ratio": ratio})
    return 0 if ratio <= BOUND else 1


if __name__ == "__main__":
    sys.exit(main())
