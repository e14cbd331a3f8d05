"""What goes into a training of both stages, and what comes out of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from crossfade.encoders import Encoder
from crossfade.spaces import Space

__all__ = ["StageResult", "TextSide", "XBTTraining"]


@dataclass(frozen=True)
class TextSide:
    """One model of the two, as far as stage 1 knows it: by its text tower, or by text vectors made before.

    Attributes:
        encoder: an encoder, or what :func:`crossfade.load_encoder` loads; it encodes the corpus unless there are vectors.
        vectors: a folder or file of text vectors.
    """

    encoder: Encoder | str | None = None
    vectors: str | Path | None = None


@dataclass(frozen=True)
class StageResult:
    """How a stage went.

    Attributes:
        folder: the artifact.
        reused: whether an earlier call had finished it.
        steps: steps done.
        best_step: how many steps led to what was kept.
        start_score: the held-out score before the first step.
        best_score: that of what was kept.
        counts: what went in: texts, pairs, what was left out.
        seconds: wall-clock seconds of this call.
    """

    folder: Path
    reused: bool
    steps: int
    best_step: int
    start_score: float | None
    best_score: float | None
    counts: Mapping[str, int | None]
    seconds: float


@dataclass(frozen=True)
class XBTTraining:
    """What :func:`train_xbt` made.

    Attributes:
        out: the folder.
        source: the new model's space.
        target: the old model's space.
        stages: ``stage-1`` and ``stage-2``, whichever were asked for.
    """

    out: Path
    source: Space
    target: Space
    stages: Mapping[str, StageResult]

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON values."""
        stages = {name: {**asdict(stage), "folder": str(stage.folder)} for name, stage in self.stages.items()}
        spaces = {name: {**s.to_dict(), "fingerprint": s.fingerprint}
                  for name, s in (("source", self.source), ("target", self.target))}  # fmt: skip
        return {"out": str(self.out), **spaces, "stages": stages}
