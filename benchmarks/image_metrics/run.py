"""CMC and mAP with the query set equal to the gallery, by explicit id: 10,000 × 128 and 50,000 × 128.

``python -m benchmarks.image_metrics.run [--only N …] [--repeats R] [--write]``

Processor seconds of the whole process, all threads; memory is the process's high-water mark. The mark for 10,000 × 128 is 3
processor seconds; the evaluators published with BT² and OCA took 53 on one thread.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import time
from pathlib import Path

import numpy as np

import crossfade as cf
from benchmarks.record import write
from crossfade.evaluation import measure

SEED = 0
DIMENSION = 128
METRICS = ("CMC@1", "CMC@5", "mAP")


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", type=int, nargs="*", default=[10_000, 50_000], help="numbers of items")
    parser.add_argument("--repeats", type=int, default=3, help="of sizes up to 10,000; larger ones run once")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    results = []
    print(f"{'items':>8}{'classes':>9}{'cpu s':>9}{'wall s':>9}{'peak GB':>9}{'mAP':>8}{'CMC@1':>8}")
    for items in options.only:
        for classes in (10, 100, 1000):
            row = run(items, classes, options.repeats if items <= 10_000 else 1)
            results.append(row)
            print(
                "{items:8}{classes:9}{cpu:9.2f}{wall:9.2f}{peak_gb:9.2f}{mAP:8.3f}{CMC@1:8.3f}".format(**row),
                flush=True,
            )
    if options.write:
        config = {"seed": SEED, "dimension": DIMENSION, "metrics": METRICS, "repeats": options.repeats}
        print(write(Path(__file__).parent, config, results))
    return 0


def run(items: int, classes: int, repeats: int) -> dict[str, float]:
    """One row of the table: class centres with noise, judged by label."""
    generator = np.random.default_rng(SEED)
    labels = np.arange(items) % classes
    centres = generator.standard_normal((classes, DIMENSION), dtype=np.float32)
    vectors = centres[labels] + 2 * generator.standard_normal((items, DIMENSION), dtype=np.float32)
    space = cf.Space(model="random", dimension=DIMENSION, normalized=False)
    side = cf.Embeddings(np.arange(items), vectors, space, "image", metadata={"label": labels})
    cpus, walls = [], []
    for _ in range(repeats):
        cpu, wall = time.process_time(), time.perf_counter()
        judgements = cf.Relevance.from_column("label").judge(side, side)
        if judgements is None:
            raise RuntimeError("labels judge every direction")
        found = measure(side, side, judgements, metrics=METRICS)
        cpus.append(time.process_time() - cpu)
        walls.append(time.perf_counter() - wall)
    return {
        "items": items,
        "classes": classes,
        "cpu": statistics.median(cpus),
        "wall": statistics.median(walls),
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        "mAP": float(found.values["mAP"].mean()),
        "CMC@1": float(found.values["CMC@1"].mean()),
    }


if __name__ == "__main__":
    sys.exit(main())
