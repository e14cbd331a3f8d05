"""Hyper-parameters of stage 2 by name alone."""

from __future__ import annotations

from dataclasses import fields

import pytest

from crossfade.encoders.towers.tuning import Tuning
from crossfade.errors import ConfigError
from crossfade.training import TrainingConfig
from crossfade.training.tuning import XBTTuning
from crossfade.training.tuning.options import tuning_from_options


def test_nothing_said_is_the_default() -> None:
    assert tuning_from_options({}) == XBTTuning()


def test_a_name_is_of_one_kind_only() -> None:
    names = [field.name for kind in (XBTTuning, Tuning, TrainingConfig) for field in fields(kind)]
    assert len(names) == len(set(names))


def test_every_kind_of_name_finds_its_place() -> None:
    found = tuning_from_options(
        {"rank": 4, "train_projection": True, "epochs": 2, "text_targets": "q_proj, k_proj", "betas": [0.5, 0.6]}
    )
    assert (found.tuning.rank, found.train_projection, found.training.epochs) == (4, True, 2)
    assert found.tuning.text_targets == ("q_proj", "k_proj")
    assert found.training.betas == (0.5, 0.6)
    assert found.training.batch == XBTTuning().training.batch


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"ranks": 4}, "hyper-parameters"),
        ({"training": {}}, "hyper-parameters"),
        ({"rank": 0}, "rank and alpha"),
        ({"epochs": "many"}, "cannot be"),
        ({"text_targets": ""}, "Something must train"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        tuning_from_options(options)
