"""What the speed benchmarks share: files of random vectors, and the peak of this process's resident memory."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

__all__ = ["Memory", "float16_file", "peak_memory"]

BLOCK = 8192


@dataclass
class Memory:
    """The largest resident set seen so far, file pages included, in GB of 10⁹ bytes."""

    peak_gb: float = 0.0


@contextmanager
def peak_memory(interval: float = 0.02) -> Iterator[Memory]:
    """Watch this process's resident memory while the block runs (Linux)."""
    memory, stop = Memory(), threading.Event()

    def watch() -> None:
        while True:
            status = Path("/proc/self/status").read_text()
            kilobytes = int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])
            memory.peak_gb = max(memory.peak_gb, kilobytes * 1024 / 1e9)
            if stop.wait(interval):
                return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield memory
    finally:
        stop.set()
        thread.join()


def float16_file(path: Path, rows: int, dimension: int, generator: np.random.Generator) -> np.ndarray:
    """Write unit vectors as float16 and open them memory-mapped: [rows, dimension].

    One block of random vectors is repeated, its rows rolled on: what they hold does not matter to the clock.
    """
    block = generator.standard_normal((BLOCK, dimension), dtype=np.float32)
    block = (block / np.linalg.norm(block, axis=1, keepdims=True)).astype(np.float16)
    with open(path, "wb") as file:
        header = {"descr": "<f2", "fortran_order": False, "shape": (rows, dimension)}
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, rows, BLOCK):
            np.roll(block, start // BLOCK, axis=0)[: rows - start].tofile(file)
    mapped: np.ndarray = np.load(path, mmap_mode="r")
    return mapped
