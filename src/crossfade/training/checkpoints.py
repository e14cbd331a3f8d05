"""Checkpoints of a training: whole folders, of which the last two stay.

::

    folder/checkpoints/step-N/
      state.json               format, format_version, step, scores, settings, gradient scaler
      parameters.safetensors   what trains, and the module's buffers
      optimizer.safetensors    AdamW's moments, as parameter/moment
      best.safetensors         as parameters, those of the best score; missing where these are they
      generators.safetensors   name of a generator → its state on each process, uint8 [processes, bytes]
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossfade.errors import ConfigError, FormatError, NewerFormat
from crossfade.files import atomic_folder, read_json, write_json

if TYPE_CHECKING:
    import torch

__all__ = ["Checkpoint", "newest", "path_of", "read", "require_same_settings", "step_of", "write"]

FORMAT = "crossfade-training"
FORMAT_VERSION = 1
KEPT = 2
STATE = "state.json"
FOLDER = "checkpoints"

Tensors = Mapping[str, "torch.Tensor"]


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A moment between two steps.

    Attributes:
        step: steps done.
        scores: (steps done, score), in order.
        samples_per_second: of the run that wrote it.
        settings: what must not change between runs, as JSON values.
        scaler: state of the gradient scaler of float16; empty elsewhere.
        parameters: what trains, and the module's buffers.
        optimizer: AdamW's moments, as parameter/moment.
        best: as ``parameters``, those of the best score; None where that is ``parameters`` or nothing was scored.
        generators: name → uint8 [processes, bytes].
    """

    step: int
    scores: tuple[tuple[int, float], ...]
    samples_per_second: float
    settings: Mapping[str, Any]
    scaler: Mapping[str, float]
    parameters: Tensors
    optimizer: Tensors
    best: Tensors | None
    generators: Tensors


def write(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write ``folder/checkpoints/step-N``, all or nothing, and remove all but the newest two.

    Raises:
        StorageError: it could not be written; the ones before it stand.
    """
    from safetensors.torch import save_file

    parts = {
        "parameters": checkpoint.parameters,
        "optimizer": checkpoint.optimizer,
        "generators": checkpoint.generators,
        **({} if checkpoint.best is None else {"best": checkpoint.best}),
    }
    path = path_of(folder, checkpoint.step)
    with atomic_folder(path, overwrite=True) as temporary:
        for name, tensors in parts.items():
            plain = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
            save_file(plain, temporary / f"{name}.safetensors")
        state = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "step": checkpoint.step,
            "scores": [list(score) for score in checkpoint.scores],
            "samples_per_second": checkpoint.samples_per_second,
            "settings": dict(checkpoint.settings),
            "scaler": dict(checkpoint.scaler),
        }
        write_json(temporary / STATE, state)
    for old in _all(folder)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return path


def path_of(folder: Path, step: int) -> Path:
    """Where the checkpoint after so many steps is."""
    return folder / FOLDER / f"step-{step}"


def step_of(path: Path) -> int:
    """The reverse of :func:`path_of`."""
    return int(path.name.removeprefix("step-"))


def newest(folder: Path) -> Path | None:
    """The checkpoint of the most steps, if there is one."""
    return next(reversed(_all(folder)), None)


def read(path: Path) -> Checkpoint:
    """Read what :func:`write` wrote.

    Raises:
        FormatError: it is damaged, or no checkpoint.
        NewerFormat: a later Crossfade wrote it.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    state = read_json(path / STATE)
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise FormatError(f"{path} is not a checkpoint of a training. Name another folder.")
    if state.get("format_version", 0) > FORMAT_VERSION:
        raise NewerFormat(f"{path} has format version {state['format_version']}, and this Crossfade reads "
                          f"{FORMAT_VERSION}. Upgrade it.")  # fmt: skip
    names = ["parameters", "optimizer", "generators"]
    names += ["best"] if (path / "best.safetensors").exists() else []
    try:
        parts = {name: load_file(path / f"{name}.safetensors") for name in names}
        return Checkpoint(
            step=int(state["step"]),
            scores=tuple((int(step), float(score)) for step, score in state["scores"]),
            samples_per_second=float(state["samples_per_second"]),
            settings=state["settings"],
            scaler=state["scaler"],
            parameters=parts["parameters"],
            optimizer=parts["optimizer"],
            best=parts.get("best"),
            generators=parts["generators"],
        )
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise FormatError(
            f"{path} is damaged ({error}). Remove it: the training then goes on from the checkpoint before it."
        ) from error


def require_same_settings(path: Path, saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to go on with other settings than those the training began with.

    Raises:
        ConfigError: names each difference.
    """
    differences = _differences(saved, json.loads(json.dumps(now)))
    if differences:
        raise ConfigError(
            f"A training goes on with the settings it began with, and these differ from {path}: "
            f"{'; '.join(differences)}. Restore them, or train into another folder."
        )


def _differences(saved: Any, now: Any, name: str = "") -> list[str]:
    if isinstance(saved, Mapping) and isinstance(now, Mapping):
        found = []
        for key in sorted({*saved, *now}):
            label = f"{name}.{key}" if name else str(key)
            found += _differences(saved.get(key), now.get(key), label)
        return found
    return [] if saved == now else [f"{name} was {saved} and is {now}"]


def _all(folder: Path) -> list[Path]:
    paths = [path for path in (folder / FOLDER).glob("step-*") if path.name.removeprefix("step-").isdigit()]
    return sorted(paths, key=step_of)
