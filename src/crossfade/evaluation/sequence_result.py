"""What an evaluation of a sequence of versions found: plain values that print and save as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from crossfade.evaluation.result import Estimate
from crossfade.evaluation.ways import Way

__all__ = ["CellResult", "ChainCost", "ChainGrowth", "SequenceDirection", "SequenceEvaluation"]


@dataclass(frozen=True, slots=True)
class ChainCost:
    """A chain beside the direct map of the same two versions.

    Attributes:
        way: the versions that the chain passes, numbered from 1, the newest first.
        score: M_ij through the chain.
        drop: M_ij of the direct map − M_ij through the chain, paired over queries.
        cosine: between a query through the chain and through the direct map, mean over queries.
    """

    way: Way
    score: Estimate
    drop: Estimate
    cosine: Estimate


@dataclass(frozen=True, slots=True)
class CellResult:
    """M_ij.

    Attributes:
        newer: i, from 1.
        older: j, from 1.
        way: the versions that the queries passed, the newest first: (i, j) by a direct adapter, (i,) on the diagonal.
        score: M_ij.
        gain: M_ij − M_jj, paired over queries; None on the diagonal.
        chain: the longest way beside the direct adapter, where there are both.
    """

    newer: int
    older: int
    way: Way
    score: Estimate
    gain: Estimate | None
    chain: ChainCost | None


@dataclass(frozen=True, slots=True)
class ChainGrowth:
    """Chains of one length against direct maps, mean over the cells that have both.

    Attributes:
        steps: adapters in the chain.
        cells: how many cells were averaged.
        drop: M_ij of the direct map − M_ij through the chain.
        cosine: between a query through the chain and through the direct map.
    """

    steps: int
    cells: int
    drop: Estimate
    cosine: Estimate


@dataclass(frozen=True, slots=True)
class SequenceDirection:
    """One direction of retrieval, such as ``text→image``.

    Attributes:
        name: query modality → gallery modality.
        queries: how many queries have a right answer in any of the galleries.
        cells: M_ij row by row, j ≤ i.
        compatibility: AC, strict.
        accuracy: AM.
        growth: the cost of a chain by its number of steps; empty where no cell has both a chain and a direct adapter.
    """

    name: str
    queries: int
    cells: tuple[CellResult, ...]
    compatibility: Estimate
    accuracy: Estimate
    growth: tuple[ChainGrowth, ...]

    def matrix(self) -> npt.NDArray[np.float64]:
        """M [T, T], lower triangular; NaN above the diagonal."""
        count = max(cell.newer for cell in self.cells)
        found = np.full((count, count), np.nan)
        for cell in self.cells:
            found[cell.newer - 1, cell.older - 1] = cell.score.value
        return found


@dataclass(frozen=True, slots=True)
class SequenceEvaluation:
    """Everything that :func:`crossfade.evaluation.evaluate_sequence` found.

    Attributes:
        versions: their names, the oldest first.
        metric: what was measured, for example ``R@1``.
        directions: one result a direction.
        warnings: leakage and other doubts, in words.
        level: confidence level of every interval.
        resamples: bootstrap resamples behind every interval.
        seed: of the bootstrap.
    """

    versions: tuple[str, ...]
    metric: str
    directions: tuple[SequenceDirection, ...]
    warnings: tuple[str, ...]
    level: float
    resamples: int
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """The evaluation as JSON values."""
        return asdict(self)
