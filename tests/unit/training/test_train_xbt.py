"""Both stages of XBT in one folder: what a stopped or repeated call does."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import glyph_pairs
import pytest
import torch

from crossfade import Dataset, ImageItem, Link, TextItem, load_encoder
from crossfade.errors import ConfigError, FormatError, NewerFormat, SpaceMismatch, StorageError
from crossfade.methods import XBT
from crossfade.training import TrainingConfig
from crossfade.training.tuning import XBTTuning
from crossfade.training.tuning.task import TuningTask
from crossfade.training.xbt import TextSide, XBTTraining, train_xbt

METHOD = XBT(epochs=1, batch=64)
TUNING = XBTTuning(training=TrainingConfig(steps=4, batch=16, learning_rate=1e-3, evaluate_every=2))


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


class Names(Dataset):
    """The characters' names."""

    name = "names"

    def images(self) -> Iterator[ImageItem]:
        return iter(())

    def texts(self) -> Iterator[TextItem]:
        named = [(c, unicodedata.name(c, "")) for c in glyph_pairs.CHARACTERS]
        return iter([TextItem(f"{ord(c):04X}", name) for c, name in named if name])

    def links(self) -> Iterator[Link]:
        return iter(())


def train(out: Path, **options: Any) -> XBTTraining:
    sides = {"old": TextSide(glyph_pairs.demo("old")), "new": TextSide(load_encoder("demo:new", device="cpu"))}
    given = {**sides, "texts": Names(), "pairs": glyph_pairs.Few(48), "method": METHOD, "tuning": TUNING, **options}
    return train_xbt(out, device="cpu", **given)


def lora(out: Path) -> bytes:
    return (out / "stage-2" / "lora" / "adapter_model.safetensors").read_bytes()


def test_stage_2_stopped_by_ctrl_c_goes_on_to_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train(tmp_path / "whole")
    assert list(whole.stages) == ["stage-1", "stage-2"]
    untouched, taken = TuningTask.losses, []

    def stopped(self: TuningTask, module: torch.nn.Module, batch: Mapping[str, Any], step: int) -> Any:
        taken.append(step)
        if step == 2:
            raise KeyboardInterrupt
        return untouched(self, module, batch, step)

    monkeypatch.setattr(TuningTask, "losses", stopped)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "stopped")
    monkeypatch.setattr(TuningTask, "losses", untouched)
    assert taken == [0, 1, 2]
    assert (tmp_path / "stopped" / "stage-1").exists()
    assert not (tmp_path / "stopped" / "stage-2").exists()
    with pytest.raises(ConfigError, match="stage-2 that was stopped"):
        train(tmp_path / "stopped")
    with pytest.raises(ConfigError, match=r"stage-2\.tuning\.temperature was 0\.05 and is 0\.1"):
        train(tmp_path / "stopped", resume=True, tuning=replace(TUNING, temperature=0.1))
    resumed = train(tmp_path / "stopped", resume=True)
    assert lora(tmp_path / "stopped") == lora(tmp_path / "whole")
    assert resumed.stages["stage-1"].reused
    assert not resumed.stages["stage-2"].reused
    assert resumed.stages["stage-2"].best_score == whole.stages["stage-2"].best_score


def test_the_stages_may_come_one_at_a_time(tmp_path: Path) -> None:
    first = train(tmp_path, stage="1", pairs=None)
    assert list(first.stages) == ["stage-1"]
    assert first.stages["stage-1"].counts["encoded_old"] == len(list(Names().texts()))
    second = train(tmp_path, stage="2", old=TextSide(), texts=None)  # neither the old model nor the corpus is there
    assert list(second.stages) == ["stage-2"]
    assert second.to_dict()["stages"]["stage-2"]["steps"] == 4


def test_a_model_changed_after_its_texts_were_encoded_is_refused(tmp_path: Path) -> None:
    train(tmp_path, stage="1")
    with pytest.raises(SpaceMismatch):
        train(tmp_path, stage="1", old=TextSide(load_encoder("demo:new", device="cpu")))
    with pytest.raises(SpaceMismatch, match="new encoder"):
        train(tmp_path, stage="2", new=TextSide(glyph_pairs.demo("old")))


def test_other_pairs_than_stage_2_was_trained_on_are_refused(tmp_path: Path) -> None:
    train(tmp_path)
    with pytest.raises(ConfigError, match=r"stage-2\.pairs\.images was 48 and is 40"):
        train(tmp_path, pairs=glyph_pairs.Few(40), resume=True)


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"format": "another"}', encoding="utf-8")
    with pytest.raises(FormatError, match="not of a training of XBT"):
        train(tmp_path)
    (tmp_path / "run.json").write_text('{"format": "crossfade-xbt-training", "format_version": 99}', encoding="utf-8")
    with pytest.raises(NewerFormat, match="version 99"):
        train(tmp_path)
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(StorageError):
        train(tmp_path / "file")


def test_several_processes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="one process"):
        train(tmp_path)
