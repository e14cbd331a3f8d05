"""What the training loop trains for XBT's first stage: φ on batches of text vectors that stay on disk."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from crossfade.embeddings.core import Embeddings, item_keys
from crossfade.embeddings.rows import Rows
from crossfade.methods.base import Floats
from crossfade.methods.held_out import ranks, trials
from crossfade.methods.projection import ProjectionAdapter
from crossfade.methods.projection_module import Projection
from crossfade.methods.xbt import XBT, duplicates, with_noise
from crossfade.pairing import Pairs, Part
from crossfade.training import Batch, Task
from crossfade.training.losses import cosine_loss, info_nce, mse_loss

if TYPE_CHECKING:
    from crossfade.pairing import Split

__all__ = ["TextTask"]

SAMPLE = 4_096
"""Texts whose length is measured where their space is not normalised."""

SCATTERED = 512
"""Rows read before their pages are let go: the system brings some 64 kB into memory with each."""


class TextTask(Task):
    """φ, the texts it trains on, and the held-out texts that judge it.

    Args:
        method: the hyper-parameters.
        start: φ before the first step.
        split: text pairs.
        seed: of the order of the texts and of the noise.
    """

    def __init__(self, method: XBT, start: ProjectionAdapter, split: Split, *, seed: int) -> None:
        (part,) = split.train.parts
        self.module = self.projection = Projection(start, dropout=method.dropout)
        self.size = len(part)
        self._method, self._seed = method, seed
        self._new, self._old = part.source.rows, part.target.rows
        self._normalized = split.train.source.normalized
        self._order = np.argsort(item_keys(part.ids, salt=f"order/{seed}"), kind="stable")
        (self._trial,) = trials(_in_memory(split.held_out), ("text",))
        self._length = 1.0 if self._normalized else self._measured(self._order[:SAMPLE])

    def load(self, numbers: npt.NDArray[np.int64]) -> Batch:
        """See :meth:`Task.load`: ``new`` with its noise, ``old``, and ``labels`` that duplicates share."""
        rows = self._order[numbers]
        new, old = _read(self._new, rows), _read(self._old, rows)
        if self._method.noise > 0.0:
            generator = np.random.default_rng([self._seed, zlib.crc32(numbers.tobytes())])
            length = self._method.noise * self._length
            new = with_noise(
                new, noise=length, mode=self._method.noise_mode, normalized=self._normalized, generator=generator
            )
        batch = {"new": torch.from_numpy(new), "old": torch.from_numpy(old)}
        if self._method.contrastive > 0.0:
            batch["labels"] = torch.from_numpy(duplicates(old))
        return batch

    def losses(self, module: torch.nn.Module, batch: Batch, step: int) -> Mapping[str, torch.Tensor]:
        """See :meth:`Task.losses`; a term of weight 0 is not computed."""
        mapped, old, method = module(batch["new"]), batch["old"], self._method
        terms = {}
        if method.cosine > 0.0:
            terms["cosine"] = method.cosine * cosine_loss(mapped, old)  # Eq. (3)
        if method.mse > 0.0:
            terms["mse"] = method.mse * mse_loss(mapped, old)  # Eq. (4)
        if method.contrastive > 0.0:
            contrast = info_nce(mapped, old, temperature=method.temperature, positives=batch["labels"])
            terms["contrastive"] = method.contrastive * contrast  # Eq. (5)
        return terms  # Eq. (6): the loop adds them up

    def score(self, module: torch.nn.Module) -> float | None:
        """See :meth:`Task.score`: the mean reciprocal rank of the held-out texts' own old vectors."""
        device = self.projection.linear.weight.device
        mapped = module(torch.from_numpy(self._trial.source).to(device)).float().cpu().numpy()
        return float(np.mean(1.0 / ranks(self._trial, mapped)))

    def _measured(self, rows: npt.NDArray[np.int64]) -> float:
        vectors = _read(self._new, rows)
        return float(np.sqrt(np.einsum("ij,ij->i", vectors, vectors).mean()))


def _read(rows: Rows, numbers: npt.NDArray[np.int64]) -> Floats:
    """These rows as an array of their own; where they lie in memory maps, few of their pages stay in memory."""
    if not rows.on_disk:
        return rows.take(numbers)
    vectors = np.empty((len(numbers), rows.shape[1]), dtype=np.float32)
    for start in range(0, len(numbers), SCATTERED):
        vectors[start : start + SCATTERED] = rows.take(numbers[start : start + SCATTERED])
        rows.release(0, len(rows))
    return vectors


def _in_memory(pairs: Pairs) -> Pairs:
    def copied(embeddings: Embeddings) -> Embeddings:
        matrix = _read(embeddings.rows, np.arange(len(embeddings)))
        return embeddings.moved(Rows([matrix]), embeddings.space)

    parts = tuple(Part(part.modality, copied(part.source), copied(part.target)) for part in pairs.parts)
    return replace(pairs, parts=parts)
