"""The random generators that a training draws from: seeded for its time, kept in checkpoints, given back as they were.

They are PyTorch's of the CPU and of the training's CUDA device, and NumPy's global one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

__all__ = ["continue_from", "preserved", "seeded", "states"]

PROCESS_STRIDE = 1_000_003
"""Seeds of two processes are so far apart."""


@contextmanager
def preserved(device: torch.device) -> Iterator[None]:
    """Whatever the block draws, the generators then stand where they stood before."""
    before = states(device)
    try:
        yield
    finally:
        continue_from(before, device)


@contextmanager
def seeded(seed: int, *, process: int, device: torch.device) -> Iterator[None]:
    """Seed the generators for the time of the block, and then give them back as they were."""
    import torch

    with preserved(device):
        own = (seed + PROCESS_STRIDE * process) % 2**32
        torch.default_generator.manual_seed(own)
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(own)
        np.random.seed(own)
        yield


def states(device: torch.device) -> dict[str, torch.Tensor]:
    """Where the generators stand, by name: uint8 [bytes] each."""
    import torch

    found = {"torch": torch.get_rng_state()}
    if device.type == "cuda":
        found["cuda"] = torch.cuda.get_rng_state(device)
    state: Any = np.random.get_state(legacy=True)
    numbers = np.concatenate([state[1], np.asarray([state[2], state[3]], dtype=np.uint32)])
    content = numbers.tobytes() + np.float64(state[4]).tobytes()
    found["numpy"] = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    return found


def continue_from(saved: Mapping[str, torch.Tensor], device: torch.device) -> None:
    """Put the generators where :func:`states` found them."""
    import torch

    torch.set_rng_state(saved["torch"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(saved["cuda"], device)
    content = saved["numpy"].numpy().tobytes()
    numbers = np.frombuffer(content[:-8], dtype=np.uint32)
    cached = float(np.frombuffer(content[-8:], dtype=np.float64)[0])
    np.random.set_state(("MT19937", numbers[:-2], int(numbers[-2]), int(numbers[-1]), cached))
