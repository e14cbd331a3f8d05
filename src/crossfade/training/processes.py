"""Accelerate, set up for one training, and what its processes must agree on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from crossfade.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator

__all__ = ["accelerated", "any_process", "from_all", "from_main"]

NAMES = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}
"""Accelerate's words for the number formats of the forward pass."""

DEVICE = "ACCELERATE_TORCH_DEVICE"
"""The variable by which accelerate is told the device."""


@contextmanager
def accelerated(precision: str, device: str | None) -> Iterator[Accelerator]:
    """An accelerator for the time of the block.

    Accelerate keeps its settings for the whole process; here each training has its own, and those that the caller may
    have made are put back. The processes that ``accelerate launch`` started, and their group, stay.

    Args:
        precision: as :class:`~crossfade.training.TrainingConfig` names it.
        device: as PyTorch names it; None: the launcher's, else CUDA, MPS or the CPU, the first there is.

    Raises:
        ConfigError: there is no such device, or it cannot compute in this precision.
    """
    import torch
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, PartialState
    from accelerate.utils import GradientAccumulationPlugin

    wanted = None if device is None else _existing(device)
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        several = torch.distributed.get_world_size() > 1
    kept: tuple[dict[str, Any], dict[str, Any]] = (
        dict(AcceleratorState._shared_state),
        dict(PartialState._shared_state),
    )
    AcceleratorState._reset_state(reset_partial_state=not several)
    variable = os.environ.get(DEVICE)
    try:
        if wanted is not None and wanted.type != "cpu" and not several:
            os.environ[DEVICE] = str(wanted)
        try:
            accelerator = Accelerator(
                cpu=wanted is not None and wanted.type == "cpu",
                mixed_precision=NAMES[precision],
                gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1, sync_with_dataloader=False),
            )
        except (ValueError, NotImplementedError) as error:
            raise ConfigError(
                f"Training in {precision} on {device or 'this machine'} is not possible: {error}. Use float32, or another "
                "device."
            ) from error
        finally:
            os.environ.pop(DEVICE, None)
            if variable is not None:
                os.environ[DEVICE] = variable
        if wanted is not None and wanted.type != accelerator.device.type:
            raise ConfigError(
                f"The processes were launched for {accelerator.device.type} and the device asked for is {device}. "
                "Launch them for that device, or do not name one."
            )
        if precision == "float16" and accelerator.device.type == "cpu":
            raise ConfigError("Training in float16 needs a GPU, and the device is cpu. Use bfloat16 or float32.")
        yield accelerator
    finally:
        AcceleratorState._reset_state(reset_partial_state=not several)
        AcceleratorState._shared_state.update(kept[0])
        if not several:
            PartialState._shared_state.update(kept[1])


def any_process(accelerator: Accelerator, flags: torch.Tensor) -> torch.Tensor:
    """Which flags are up on any process.

    Args:
        accelerator: of this process.
        flags: bool [n], the same n on all processes.

    Returns:
        bool [n], the same on all processes.
    """
    if accelerator.num_processes == 1:
        return flags
    return from_all(accelerator, flags.float()).amax(dim=0) > 0


def from_all(accelerator: Accelerator, tensor: torch.Tensor) -> torch.Tensor:
    """The tensors [n] of all processes, on all of them: [processes, n]."""
    gathered: torch.Tensor = accelerator.gather(tensor.to(accelerator.device)[None])
    return gathered


def from_main(accelerator: Accelerator, value: float | None) -> float | None:
    """The main process's value, on all processes; what the others pass is not looked at."""
    import torch

    if accelerator.num_processes == 1:
        return value
    packed = torch.tensor([value is not None, value or 0.0], dtype=torch.float64, device=accelerator.device)
    torch.distributed.broadcast(packed, 0)
    return float(packed[1]) if packed[0] else None


def _existing(name: str) -> torch.device:
    import torch

    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        lines = str(error).splitlines()
        raise ConfigError(
            f"There is no device {name!r} here ({lines[0] if lines else 'no reason given'}). Use cpu, or none for the "
            "best there is."
        ) from error
    return device
