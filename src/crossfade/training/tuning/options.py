"""Stage 2's hyper-parameters by name alone: whether a name is the tuning's, the losses' or the loop's follows from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from crossfade.encoders.towers.tuning import Tuning
from crossfade.errors import ConfigError
from crossfade.training.config import TrainingConfig
from crossfade.training.tuning.config import XBTTuning

__all__ = ["tuning_from_options"]

NESTED = ("tuning", "training")


def tuning_from_options(options: Mapping[str, Any]) -> XBTTuning:
    """Stage 2's configuration, the defaults where nothing is said.

    Args:
        options: name → value, for the fields of :class:`XBTTuning`, of :class:`Tuning` and of
            :class:`~crossfade.training.TrainingConfig` alike: ``{"rank": 4, "train_projection": True, "epochs": 2}``. A list of
            names may also be one text with commas.

    Raises:
        ConfigError: a name is unknown, or a value is impossible.
    """
    known = {kind: {field.name for field in fields(kind)} for kind in (XBTTuning, Tuning, TrainingConfig)}
    known[XBTTuning] -= set(NESTED)
    unknown = sorted(set(options) - set().union(*known.values()))
    if unknown:
        raise ConfigError(f"Stage 2 has the hyper-parameters {sorted(set().union(*known.values()))}; found {unknown}.")
    default = XBTTuning()
    try:
        tuning = replace(default.tuning, **_of(options, known[Tuning]))
        training = replace(default.training, **_of(options, known[TrainingConfig]))
        return replace(default, tuning=tuning, training=training, **_of(options, known[XBTTuning]))
    except TypeError as error:
        raise ConfigError(f"The hyper-parameters of stage 2 cannot be {dict(options)}: {error}.") from error


def _of(options: Mapping[str, Any], names: set[str]) -> dict[str, Any]:
    return {name: _value(name, value) for name, value in options.items() if name in names}


def _value(name: str, value: Any) -> Any:
    if name.endswith("_targets") and isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return tuple(value) if isinstance(value, list) else value
