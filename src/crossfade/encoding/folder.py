"""Where ``encode`` puts what it makes: a folder that survives a kill at any moment, or memory.

::

    out/
      embeddings.json, vectors-….npy, ids-….npy, metadata-….parquet   (see crossfade.embeddings.folder)
      corrupt.jsonl     one line an item that could not be read: {"id": …, "reason": …}
      encoding.json     the options of the run, and when it is finished how it went

An item is listed in corrupt.jsonl before the shard that goes past it is written. So the rows in the folder are, in
order, the items that were offered, without those that are listed; then come rows that were listed once and could be
read later.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, final

import numpy as np
import numpy.typing as npt

from crossfade.embeddings import Embeddings, EmbeddingsWriter
from crossfade.encoders.base import Role
from crossfade.errors import ConfigError, FormatError, SpaceMismatch, StorageError
from crossfade.files import read_json, write_json
from crossfade.spaces import Modality, Space

__all__ = ["CORRUPT", "EncodeSummary", "EncodingFolder", "InMemory", "Sink", "exclusive"]

CORRUPT = "corrupt.jsonl"
RUN = "encoding.json"
_FORMAT_VERSION = 1


@dataclass(frozen=True)
class EncodeSummary:
    """How a run of ``encode`` went.

    Attributes:
        rows: vectors in the result, those of earlier runs included.
        encoded: vectors made in this run.
        corrupt: id → reason, of every item that has no vector because it could not be read.
        seconds: from the first item to the last.
        per_second: vectors a second in this run.
        truncated: texts of this run that are longer than the model takes, and lost their ends as it cuts them; None
            where the encoder does not know.
        repeated: texts of this run that say what an earlier one of it said, each under an id of its own.
    """

    rows: int
    encoded: int
    corrupt: Mapping[str, str]
    seconds: float
    per_second: float
    truncated: int | None = 0
    repeated: int = 0


class Sink(Protocol):
    """Where rows go; ``written`` are the ids that are there already, ``corrupt`` the items listed already."""

    written: list[str]
    corrupt: dict[str, str]
    complete: bool

    def append(self, ids: list[str], vectors: npt.NDArray[np.float32], columns: Mapping[str, npt.NDArray[Any]]) -> None:
        """Keep rows; they are durable when this returns."""

    def report(self, item: str, reason: str) -> None:
        """List an item as corrupt, durably."""

    def finish(self, summary: EncodeSummary) -> Embeddings:
        """Close, and open what was made."""


@final
class InMemory:
    """Keeps everything in memory, for sets known to be small."""

    def __init__(self, space: Space, modality: Modality) -> None:
        self.written: list[str] = []
        self.corrupt: dict[str, str] = {}
        self.complete = False
        self._space = space
        self._modality: Modality = modality
        self._parts: list[tuple[npt.NDArray[np.float32], Mapping[str, npt.NDArray[Any]]]] = []

    def append(self, ids: list[str], vectors: npt.NDArray[np.float32], columns: Mapping[str, npt.NDArray[Any]]) -> None:
        self.written += ids
        self._parts.append((vectors, columns))

    def report(self, item: str, reason: str) -> None:
        self.corrupt[item] = reason

    def finish(self, summary: EncodeSummary) -> Embeddings:
        vectors = np.concatenate([part for part, _ in self._parts])
        columns = {name: np.concatenate([columns[name] for _, columns in self._parts]) for name in self._parts[0][1]}
        return Embeddings(self.written, vectors, self._space, self._modality, metadata=columns)


@final
class EncodingFolder:
    """Writes to a folder, and goes on where an earlier run stopped.

    Args:
        path: the folder; made with the first thing that is written to it.
        space: where the vectors live.
        modality: what is encoded.
        role: which prefix the texts get; rows of both roles in one folder would be a silent mixture.
        resume: whether a folder that holds rows is continued; otherwise it is refused.

    Raises:
        SpaceMismatch: the folder holds another modality, another space or another role.
        StorageError: it holds rows, and ``resume`` is false.
        FormatError: a file in it is damaged.
    """

    def __init__(self, path: Path, space: Space, modality: Modality, *, role: Role, resume: bool) -> None:
        self.path = path
        self._role = role
        self._writer = EmbeddingsWriter(path, space, modality)
        self._require_role(modality)
        self.written: list[str] = self._writer.ids().tolist()
        self.corrupt = _read_corrupt(path / CORRUPT)
        self.complete = self._writer.complete
        if (self.written or self.corrupt) and not resume:
            raise StorageError(
                f"{path} holds {len(self.written)} rows already, and nothing is overwritten unasked. "
                "Choose another folder, or go on with resume=True."
            )

    def begin(self, batch_size: int) -> None:
        """Say on disk what is going to be written, and clear away what a killed run left half-written.

        Raises:
            StorageError: nothing can be written there.
        """
        for left in self.path.glob(".*.tmp"):
            left.unlink(missing_ok=True)
        if not self.complete:
            self._record({"state": "unfinished", "batch_size": batch_size})

    def append(self, ids: list[str], vectors: npt.NDArray[np.float32], columns: Mapping[str, npt.NDArray[Any]]) -> None:
        self._writer.append(np.asarray(ids, dtype=np.str_), vectors, columns)
        self.written += ids

    def report(self, item: str, reason: str) -> None:
        self.corrupt[item] = reason
        line = json.dumps({"id": item, "reason": reason}, ensure_ascii=True) + "\n"
        try:
            with open(self.path / CORRUPT, "ab") as file:
                file.write(line.encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise StorageError(
                f"{self.path / CORRUPT} could not be written: {error.strerror or error}. The rows written so far "
                "stand; free some "
                "space and run the same encode again."
            ) from error

    def finish(self, summary: EncodeSummary) -> Embeddings:
        if self.complete and not summary.encoded:
            return Embeddings.load(self.path)
        embeddings = self._writer.finish()
        self._record({"state": "complete", "summary": {**asdict(summary), "corrupt": len(summary.corrupt)}})
        return embeddings

    def _record(self, values: dict[str, Any]) -> None:
        write_json(
            self.path / RUN,
            {"format": "crossfade-encoding", "format_version": _FORMAT_VERSION, "role": self._role, **values},
        )

    def _require_role(self, modality: Modality) -> None:
        if modality == "image" or not (self.path / RUN).exists():
            return
        role = read_json(self.path / RUN).get("role")
        if role != self._role:
            raise SpaceMismatch(
                f"{self.path} holds texts encoded as {role}s, and texts encoded as {self._role} are not comparable "
                "in kind. "
                "Choose another folder, or the same role."
            )


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Keep other processes from writing to the folder; the lock vanishes with the process, however it ends.

    Raises:
        ConfigError: another process is writing there.
        StorageError: the folder cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        file = open(path / ".lock", "wb")  # noqa: SIM115
    except OSError as error:
        raise StorageError(f"{path} could not be made: {error.strerror or error}. Choose another place.") from error
    with file:
        if sys.platform != "win32":
            import fcntl

            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise ConfigError(
                    f"Only one process may write to {path}, and another is. Wait for it, or choose another folder."
                ) from error
        yield


def _read_corrupt(path: Path) -> dict[str, str]:
    """The listed items. A last line without its end was being written when the machine stopped: it is cut off."""
    if not path.exists():
        return {}
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        os.truncate(path, len(whole))
    try:
        lines = [json.loads(line) for line in whole.splitlines()]
        return {str(line["id"]): str(line["reason"]) for line in lines}
    except (ValueError, KeyError, TypeError) as error:
        raise FormatError(
            f"{path} must have an id and a reason on each line, and has not ({error}). Remove the folder and encode "
            "again."
        ) from error
