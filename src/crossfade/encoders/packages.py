"""Optional packages, imported when an encoder needs them."""

from __future__ import annotations

import importlib
from typing import Any

from crossfade.errors import EncoderError, MissingExtra

__all__ = ["need"]


def need(package: str, *, extra: str, feature: str) -> Any:
    """Import an optional package.

    Args:
        package: its import name.
        extra: the extra of Crossfade that brings it.
        feature: what the user asked for.

    Raises:
        MissingExtra: it, or a package that it needs in turn, is not installed.
        EncoderError: it is installed and cannot be imported, for example two packages built for different versions.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        missing = (error.name or package).partition(".")[0]
        raise MissingExtra(missing, extra=extra, feature=feature) from error
    except (ImportError, RuntimeError, OSError, AttributeError) as error:
        raise _broken(package, extra, feature, error) from error


def _broken(package: str, extra: str, feature: str, error: Exception) -> EncoderError:
    return EncoderError(
        f"{feature} needs the package '{package}', which is installed but cannot be imported ({error}). "
        f"Install versions that go together: pip install --upgrade 'crossfade[{extra}]'"
    )
