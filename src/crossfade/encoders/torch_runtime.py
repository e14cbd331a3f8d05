"""What the encoders that run on PyTorch share: device, number format, and errors turned into Crossfade's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from crossfade.encoders.packages import need
from crossfade.encoders.vectors import unit_rows
from crossfade.errors import ConfigError, CrossfadeError, EncoderError, MissingExtra, OutOfMemory

__all__ = ["DTYPES", "TorchRuntime", "forward", "loading", "to_unit_rows"]

DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class TorchRuntime:
    """Where and in which number format a model runs.

    Attributes:
        device: ``auto`` (CUDA, else MPS, else the CPU), or a device as PyTorch names it: ``cpu``, ``cuda:1``, ``mps``.
        dtype: one of :data:`DTYPES`.
    """

    device: str = "auto"
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ConfigError(f"dtype must be one of {', '.join(DTYPES)}; found {self.dtype!r}.")

    @property
    def name(self) -> str:
        """As a space records it."""
        return f"{self.dtype}/torch"

    def place(self, model: Any) -> tuple[Any, Any, Any]:
        """Put a model into its device and format, ready for inference: (model, device, dtype).

        Raises:
            EncoderError: there is no such device here, or its memory does not hold the model.
        """
        torch = need("torch", extra="encoders", feature="Encoding")
        dtype = getattr(torch, self.dtype)
        try:
            device = torch.device(self._device(torch))
            return model.to(device=device, dtype=dtype).eval(), device, dtype
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            raise EncoderError(
                f"The model could not be put on the device {self.device!r} ({_first_line(error)}). Use --device "
                "auto or cpu."
            ) from error

    def _device(self, torch: Any) -> str:
        if self.device != "auto":
            return self.device
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"


@contextmanager
def forward(model: str) -> Iterator[None]:
    """Run a forward pass without gradients.

    Raises:
        OutOfMemory: the batch did not fit.
        EncoderError: anything else went wrong.
    """
    torch = need("torch", extra="encoders", feature="Encoding")
    try:
        with torch.inference_mode():
            yield
    except CrossfadeError:
        raise
    except MemoryError as error:
        raise _out_of_memory(model) from error
    except Exception as error:
        text = str(error).lower()
        if isinstance(error, torch.OutOfMemoryError) or "out of memory" in text or "can't allocate memory" in text:
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            raise _out_of_memory(model) from error
        raise EncoderError(f"{model} failed while encoding ({type(error).__name__}: {_first_line(error)}).") from error


@contextmanager
def loading(model: str) -> Iterator[None]:
    """Load a model without progress bars, and turn what its libraries raise into our own.

    Raises:
        EncoderError: it could not be loaded.
    """
    transformers = need("transformers", extra="encoders", feature=f"Loading {model}")
    log = transformers.utils.logging
    verbosity, bar = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    except CrossfadeError:
        raise
    except ImportError as error:
        for package in ("sentencepiece", "protobuf"):
            if package in str(error).lower():
                raise MissingExtra(package, extra="encoders", feature=f"The tokenizer of {model}") from error
        raise EncoderError(
            f"{model} needs a package that is not installed: {_first_line(error)}. Install it."
        ) from error
    except Exception as error:
        raise EncoderError(
            f"{model} could not be loaded ({type(error).__name__}: {_first_line(error)}). It may be damaged or "
            "incomplete, "
            "or need code of its own, which Crossfade does not run: download it again or choose another model."
        ) from error
    finally:
        log.set_verbosity(verbosity)
        if bar:
            log.enable_progress_bar()


def to_unit_rows(tensor: Any, *, model: str, rows: int) -> npt.NDArray[np.float32]:
    """A tensor [rows, d] on any device as float32 rows of unit norm."""
    return unit_rows(tensor.float().cpu().numpy(), model=model, rows=rows)


def _out_of_memory(model: str) -> OutOfMemory:
    return OutOfMemory(f"The batch did not fit into memory beside {model}. Use a smaller batch size.")


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else "no reason given"
