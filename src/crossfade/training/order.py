"""Which samples a step takes, and which of them a process and a micro-batch take."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from crossfade.errors import ConfigError, TrainingError

__all__ = ["Order"]

Numbers = npt.NDArray[np.int64]


@dataclass(eq=False)
class Order:
    """A permutation of the samples for each epoch, which depends on the seed and the epoch's number alone.

    An incomplete last batch of an epoch is dropped. A set smaller than one batch is one batch, less what the processes
    cannot share evenly.

    Args:
        size: number of samples.
        batch: samples a step.
        seed: of the permutations.
        processes: each takes an equal, contiguous slice of a batch.
        accumulation: micro-batches that such a slice is divided into.

    Raises:
        TrainingError: fewer samples than processes.
        ConfigError: a batch that the processes cannot share evenly, or too small for its micro-batches.
    """

    size: int
    batch: int
    seed: int
    processes: int = 1
    accumulation: int = 1
    _epoch: int = field(default=-1, init=False)
    _permutation: Numbers = field(default_factory=lambda: np.empty(0, dtype=np.int64), init=False)

    def __post_init__(self) -> None:
        if self.size < self.processes:
            raise TrainingError(
                f"Training needs a sample for each process; found {self.size} samples and {self.processes} processes."
            )
        if self.batch % self.processes:
            raise ConfigError(
                f"batch counts the samples of all processes, which take equal slices; found {self.batch} samples for "
                f"{self.processes} processes. Use a multiple of {self.processes}."
            )
        if self.size < self.batch:
            self.batch = self.size - self.size % self.processes
        self.accumulation = min(self.accumulation, self.batch // self.processes)

    @property
    def steps_an_epoch(self) -> int:
        """Whole batches in one pass."""
        return self.size // self.batch

    def numbers(self, step: int) -> Numbers:
        """The samples of the whole batch of this step, over all processes."""
        epoch, index = divmod(step, self.steps_an_epoch)
        if epoch != self._epoch:
            self._permutation = np.random.default_rng([self.seed, epoch]).permutation(self.size)
            self._epoch = epoch
        return self._permutation[index * self.batch : (index + 1) * self.batch]

    def micro_batches(self, step: int, process: int) -> list[Numbers]:
        """The samples of a process in this step, in ``accumulation`` parts whose sizes differ by one at most."""
        each = self.batch // self.processes
        mine = self.numbers(step)[process * each : (process + 1) * each]
        return np.array_split(mine, self.accumulation)
