"""What the training loop trains: a module, its samples, its losses and its held-out score."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

__all__ = ["Batch", "Task"]

Batch = Mapping[str, Any]
"""Tensors, which the loop moves to the device (also inside mappings, lists and tuples), or other values."""


class Task(ABC):
    """What is trained; methods derive from it, and :func:`~crossfade.training.train` does the rest.

    Attributes:
        module: its parameters with ``requires_grad`` train, and must be float32 or float64; the rest is frozen and in
            no checkpoint. Buffers (the statistics of a batch norm) are kept with the parameters that train. While
            stepping the module is in train mode: one that wants a part of it in eval mode overrides ``train``.
        size: number of training samples.
    """

    module: torch.nn.Module
    size: int

    @abstractmethod
    def load(self, numbers: npt.NDArray[np.int64]) -> Batch:
        """The samples of these numbers, as one micro-batch.

        It is called in a background thread and must depend on the numbers alone: what is drawn at random belongs into
        :meth:`losses`, whose generators a resumed run continues.

        Args:
            numbers: [n], each from 0 to ``size`` − 1.
        """

    @abstractmethod
    def losses(self, module: torch.nn.Module, batch: Batch, step: int) -> Mapping[str, torch.Tensor]:
        """The terms of the loss by name, each a scalar with its weight applied; the loop adds them up.

        A term is a mean over the samples of the micro-batch. Then the gradient is that of the mean over the whole
        batch, however it is divided into micro-batches and over processes. A contrastive term has as its negatives the
        micro-batch alone; those of other processes join by :func:`~crossfade.training.losses.gather_with_gradient`,
        those of other micro-batches cannot.

        Args:
            module: :attr:`module`, prepared (wrapped for mixed precision and several processes): call this one.
            batch: as :meth:`load` gave it, on the device.
            step: counted from 0.
        """

    @abstractmethod
    def score(self, module: torch.nn.Module) -> float | None:
        """How good the module is on held-out data, higher is better; None where there is no such data.

        It is called on the main process alone, in eval mode and without gradients; what it draws at random does not
        change the training.

        Args:
            module: :attr:`module`, prepared for mixed precision.
        """

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Groups as ``torch.optim.AdamW`` takes them: ``params`` and, where they differ, ``lr`` and ``weight_decay``.

        A group's own ``lr`` follows the same schedule. By default one group holds all that trains.
        """
        return [{"params": [parameter for parameter in self.module.parameters() if parameter.requires_grad]}]
