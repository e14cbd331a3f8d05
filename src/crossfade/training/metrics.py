"""The course of a training: ``metrics.jsonl``, and TensorBoard events where ``tensorboard`` is installed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from crossfade.errors import StorageError
from crossfade.files import atomic_file

__all__ = ["MetricsLog"]

LINES = "metrics.jsonl"
EVENTS = "tensorboard"


class MetricsLog:
    """Appends a line a logged step.

    Args:
        folder: where ``metrics.jsonl`` and ``tensorboard/`` are; None writes nothing.
        step: steps done; lines of later ones, which a run wrote that was killed before its next checkpoint, go.
    """

    def __init__(self, folder: Path | None, *, step: int) -> None:
        self._path = None if folder is None else folder / LINES
        self._events: Any = None
        if folder is None or self._path is None:
            return
        if self._path.exists():
            lines = self._path.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
            with atomic_file(self._path) as temporary:
                temporary.write_text("".join(kept), encoding="utf-8")
        if find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._events = SummaryWriter(str(folder / EVENTS), purge_step=step + 1)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Add what was measured after ``step`` steps.

        Raises:
            StorageError: the file cannot be written.
        """
        if self._path is None:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **values}) + "\n")
        except OSError as error:
            raise StorageError(f"{self._path} could not be written: {error.strerror or error}.") from error
        if self._events is not None:
            for name, value in values.items():
                self._events.add_scalar(name, value, step)

    def close(self) -> None:
        """Write out what TensorBoard still holds."""
        if self._events is not None:
            self._events.close()
