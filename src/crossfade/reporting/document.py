"""The report as JSON, and reading it back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from crossfade.errors import FormatError, NewerFormat
from crossfade.evaluation.result import Evaluation
from crossfade.files import read_json
from crossfade.reporting.html import crossfade_version, default_title
from crossfade.reporting.material import Material
from crossfade.reporting.spacetable import fingerprint

__all__ = ["FORMAT_VERSION", "read_report", "to_json"]

FORMAT_VERSION = 1


def to_json(evaluation: Evaluation, *, material: Material | None = None, title: str | None = None) -> dict[str, Any]:
    """JSON values: the evaluation in full, names and fingerprints, and the recall curves; no texts and no images."""
    drawn = material or Material()
    return {
        "format_version": FORMAT_VERSION,
        "crossfade": crossfade_version(),
        "title": title or default_title(evaluation),
        "data": dict(drawn.data),
        "fingerprints": {"old": fingerprint(evaluation.target), "new": fingerprint(evaluation.source)},
        "evaluation": evaluation.to_dict(),
        "curves": {
            name: {
                curve.system: {"cutoffs": list(curve.cutoffs), "recall": list(curve.recall)} for curve in found.curves
            }
            for name, found in drawn.directions.items()
        },
    }


def read_report(path: str | Path) -> Evaluation:
    """The evaluation in a ``report.json``, or in a file that holds nothing but an evaluation.

    Raises:
        FormatError: the file is missing, damaged or something else.
        NewerFormat: a later Crossfade wrote it.
    """
    values = read_json(Path(path))
    if not isinstance(values, dict):
        raise FormatError(f"{path} must hold a report or an evaluation; found a JSON {type(values).__name__}.")
    version = values.get("format_version", FORMAT_VERSION)
    if not isinstance(version, int):
        raise FormatError(f"{path} must have a whole number as format_version; found {version!r}.")
    if version > FORMAT_VERSION:
        raise NewerFormat(
            f"{path} has the report format {version}, and this Crossfade reads up to "
            f"{FORMAT_VERSION}. Upgrade crossfade."
        )
    try:
        return Evaluation.from_dict(values.get("evaluation", values))
    except AttributeError as error:  # a list or a number where an object should stand
        raise FormatError(f"{path} must hold an evaluation, and is built otherwise ({error}).") from error
