"""Small tasks for the training loop, with known answers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from crossfade.training import Batch, Task
from crossfade.training.losses import gather_with_gradient, info_nce, mse_loss


class Regression(Task):
    """A small network learns y = x·A from a few hundred rows.

    Args:
        size: rows to train on.
        dropout: share of the hidden units that is dropped.
        held_out: rows to score on, by minus their squared error; 0: no score.
        seed: of the data and the start.
        interrupt_at: losses are interrupted, as by ctrl-C, at this step.
        spoiled: rows whose target is not a number.
    """

    def __init__(
        self,
        *,
        size: int = 96,
        dropout: float = 0.0,
        held_out: int = 32,
        seed: int = 0,
        interrupt_at: int | None = None,
        spoiled: tuple[int, ...] = (),
    ) -> None:
        generator = np.random.default_rng(seed)
        x = generator.standard_normal((size + held_out, 4)).astype(np.float32)
        y = x @ generator.standard_normal((4, 3)).astype(np.float32)
        y[list(spoiled)] = np.nan
        self.x, self.y, self.size, self.held_out = torch.from_numpy(x), torch.from_numpy(y), size, held_out
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.module = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 3))
        self.interrupt_at = interrupt_at
        self.steps: list[int] = []
        self.loaded: list[list[int]] = []

    def load(self, numbers: np.ndarray) -> Batch:
        self.loaded.append(numbers.tolist())
        rows = torch.from_numpy(numbers)
        return {"x": self.x[rows], "y": self.y[rows], "note": "not a tensor"}

    def losses(self, module: nn.Module, batch: Batch, step: int) -> Mapping[str, torch.Tensor]:
        mapped = module(batch["x"])
        if step == self.interrupt_at:
            raise KeyboardInterrupt
        self.steps.append(step)
        return {"mse": mse_loss(mapped, batch["y"]), "size": 0.01 * mapped.float().square().mean()}

    def score(self, module: nn.Module) -> float | None:
        if not self.held_out:
            return None
        assert not module.training
        assert not torch.is_grad_enabled()
        torch.rand(3)  # must not change the training
        return -float((module(self.x[self.size :]).float() - self.y[self.size :]).square().mean())


class Contrastive(Regression):
    """Each row should find its target among those of all processes."""

    def losses(self, module: nn.Module, batch: Batch, step: int) -> Mapping[str, torch.Tensor]:
        queries, keys = gather_with_gradient(module(batch["x"])), gather_with_gradient(batch["y"])
        return {"nce": info_nce(queries, keys, temperature=0.5, symmetric=True)}


def parameters(task: Task) -> dict[str, np.ndarray]:
    return {name: tensor.detach().cpu().numpy().copy() for name, tensor in task.module.state_dict().items()}


def same(first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray]) -> bool:
    """Bit for bit."""
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)
