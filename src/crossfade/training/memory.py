"""Running out of memory: telling it from other errors, and measuring what would have fitted."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["is_out_of_memory", "largest_that_fits", "release"]

SIGNS = ("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory")
"""As PyTorch's allocators say it, in lower case."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a step failed because a tensor did not fit, on any device."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in SIGNS)
    )


def largest_that_fits(failed: int, attempt: Callable[[int], None]) -> int | None:
    """Halve a number of samples until they fit; None where not even one does.

    Args:
        failed: so many did not fit.
        attempt: the forward and backward pass of so many samples.
    """
    count = failed // 2
    while count:
        try:
            attempt(count)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        else:
            return count
        release()
        count //= 2
    return None


def release() -> None:
    """Give freed memory of a GPU back, so that pieces of it can become one again."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
