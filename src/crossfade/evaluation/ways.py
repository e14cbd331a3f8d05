"""Which adapters lead from one version of a model to an earlier one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from crossfade.errors import EvaluationError, SpaceMismatch
from crossfade.evaluation.systems import AdapterLike
from crossfade.spaces import Modality, Space

__all__ = ["Way", "Ways"]

Way = tuple[int, ...]
"""The versions that a query's vector passes, numbered from 1, the newest first; (i,) stays where it is."""


class Ways:
    """The adapters between versions of a model.

    Args:
        spaces: of the versions, the oldest first.
        adapters: each from a version to an earlier one.

    Attributes:
        adapters: (newer, older) → adapter, versions numbered from 1.

    Raises:
        SpaceMismatch: an adapter maps from or to a space of no version.
        EvaluationError: there are fewer than two versions, two of one space, two adapters between the same versions, one
            that needs two encoders or leads to a newer version, or no way from a version to an earlier one.
    """

    def __init__(self, spaces: Sequence[Space], adapters: Sequence[AdapterLike]) -> None:
        if len(spaces) < 2:
            raise EvaluationError(f"A sequence must have at least two versions; found {len(spaces)}.")
        number = {space: place for place, space in enumerate(spaces, start=1)}
        if len(number) < len(spaces):
            raise EvaluationError(
                "Every version must have a space of its own, and two of them share one. Leave one out."
            )
        self.count = len(spaces)
        self.adapters: dict[Way, AdapterLike] = {}
        for adapter in adapters:
            for end, space in (("from", adapter.source), ("to", adapter.target)):
                if space not in number:
                    raise SpaceMismatch(
                        f"Every adapter must map between two of the versions; one maps {end} {space}, which is none of "
                        f"{', '.join(map(str, spaces))}. Leave it out, or add that version."
                    )
            ends = (number[adapter.source], number[adapter.target])
            if adapter.two_encoders:
                raise EvaluationError(
                    f"The adapter from version {ends[0]} to {ends[1]} needs two encoders, and the matrix compares models "
                    "that answer alone. Judge it by evaluate()."
                )
            if ends[0] < ends[1]:
                raise EvaluationError(
                    f"Adapters must lead to earlier versions; one leads from version {ends[0]} to {ends[1]}. Name the "
                    "versions from the oldest to the newest."
                )
            if ends in self.adapters:
                raise EvaluationError(
                    f"Two versions may have one adapter between them; there are two from version {ends[0]} to {ends[1]}. "
                    "Compare them in two calls."
                )
            self.adapters[ends] = adapter
        missing = self._missing(None)
        if missing:
            newer, older = missing[0]
            raise EvaluationError(
                f"Adapters must lead from every version to every earlier one; none lead from version {newer} to {older}. "
                f"Fit one from version {newer} to {newer - 1}."
            )

    def shortest(self, newer: int, older: int, modality: Modality | None) -> Way:
        """The way of fewest adapters that map ``modality``; of equally short ones the one through newer versions."""
        return self._ways(older, modality, min)[newer]

    def longest(self, newer: int, older: int, modality: Modality | None) -> Way:
        """The way of most adapters that map ``modality``; of equally long ones the one through newer versions."""
        return self._ways(older, modality, max)[newer]

    def not_mapping(self, modality: Modality) -> list[str]:
        """Pairs of versions, in words, between which no adapters for this modality lead."""
        return [f"version {older} from {newer}" for newer, older in self._missing(modality)]

    def fitted_on(self) -> npt.NDArray[np.uint64]:
        """Keys of the items that any of the adapters was fitted on."""
        known = [a.provenance.fitted_on for a in self.adapters.values() if a.provenance is not None]
        return np.unique(np.concatenate([np.empty(0, dtype=np.uint64), *known]))

    def _missing(self, modality: Modality | None) -> list[tuple[int, int]]:
        reached = {older: self._ways(older, modality, min) for older in range(1, self.count)}
        return [(i, j) for i in range(2, self.count + 1) for j in range(1, i) if i not in reached[j]]

    def _ways(self, older: int, modality: Modality | None, choose: Callable[..., Way]) -> dict[int, Way]:
        """The chosen way to ``older`` from each version that has one."""
        found: dict[int, Way] = {older: (older,)}
        for newer in range(older + 1, self.count + 1):
            steps = [k for k in range(newer - 1, older - 1, -1) if k in found and self._leads(newer, k, modality)]
            if steps:
                found[newer] = choose(((newer, *found[k]) for k in steps), key=len)
        return found

    def _leads(self, newer: int, older: int, modality: Modality | None) -> bool:
        adapter = self.adapters.get((newer, older))
        return adapter is not None and (modality is None or modality in adapter.modalities)
