"""Training that is stopped and resumed: the same trajectory, bit for bit, and refusals that say why."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from trainings import Regression, parameters, same

from crossfade.errors import ConfigError, FormatError, NewerFormat, StorageError
from crossfade.training import TrainingConfig, TrainingResult, checkpoints, generators, train

CONFIG = TrainingConfig(
    epochs=4, batch=16, learning_rate=0.02, weight_decay=0.1, evaluate_every=5, checkpoint_every=4, accumulation=2
)
CPU = torch.device("cpu")


class Noisy(Regression):
    """Dropout, a batch norm, and noise from both libraries' generators."""

    def __init__(self, **options: Any) -> None:
        super().__init__(dropout=0.5, **options)
        self.module.insert(1, nn.BatchNorm1d(8))

    def losses(self, module: nn.Module, batch: Any, step: int) -> Any:
        noise = torch.randn_like(batch["x"]) * float(np.random.normal(0.1))
        return super().losses(module, {**batch, "x": batch["x"] + noise}, step)


def comparable(result: TrainingResult) -> dict[str, Any]:
    return {name: value for name, value in vars(result).items() if name != "samples_per_second"}


def whole_run(config: TrainingConfig = CONFIG) -> tuple[dict[str, np.ndarray], TrainingResult]:
    """What an uninterrupted run comes to, one without a folder."""
    return parameters_after(Noisy(), TrainingConfig(**{**vars(config), "checkpoint_every": None}))


def parameters_after(task: Regression, config: TrainingConfig, **options: Any) -> tuple[Any, TrainingResult]:
    result = train(task, config, device="cpu", seed=3, **options)
    return parameters(task), result


@pytest.mark.parametrize("step", [0, 3, 4, 5, 9, 23])
@pytest.mark.parametrize("keep_best", [True, False])
def test_a_stopped_run_goes_on_to_the_same_parameters(tmp_path: Path, step: int, keep_best: bool) -> None:
    config = TrainingConfig(**{**vars(CONFIG), "keep_best": keep_best})
    expected, result = whole_run(config)
    with pytest.raises(KeyboardInterrupt, match=f"after step {step} of 24.* resume"):
        parameters_after(Noisy(interrupt_at=step), config, folder=tmp_path)
    assert checkpoints.newest(tmp_path) == tmp_path / "checkpoints" / f"step-{step}"
    found, resumed = parameters_after(Noisy(), config, folder=tmp_path, resume=True)
    assert same(found, expected)
    assert comparable(resumed) == comparable(result)


def test_a_killed_run_goes_on_from_its_last_checkpoint(tmp_path: Path) -> None:
    expected, _ = whole_run()

    class Killed(Noisy):
        def losses(self, module: nn.Module, batch: Any, step: int) -> Any:
            if step == 11:
                raise RuntimeError("power cut")
            return super().losses(module, batch, step)

    with pytest.raises(RuntimeError, match="power cut"):
        parameters_after(Killed(), CONFIG, folder=tmp_path)
    again = Noisy()
    found, _ = parameters_after(again, CONFIG, folder=tmp_path, resume=True)
    assert min(again.steps) == 8
    assert same(found, expected)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 5, 10, 15, 16, 20, 24]


def test_ctrl_c_stops_after_a_step_with_a_checkpoint(tmp_path: Path) -> None:
    expected, _ = whole_run()

    class Slow(Noisy):
        def losses(self, module: nn.Module, batch: Any, step: int) -> Any:
            if step == 7 and self.steps.count(7) == 0:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.05)
            return super().losses(module, batch, step)

    task = Slow()
    with pytest.raises(KeyboardInterrupt, match="after step 8 of 24"):
        parameters_after(task, CONFIG, folder=tmp_path)
    found, _ = parameters_after(Noisy(), CONFIG, folder=tmp_path, resume=True)
    assert same(found, expected)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("crossfade-read")]


def test_a_run_interrupted_again_and_again_ends_the_same(tmp_path: Path) -> None:
    expected, _ = whole_run()
    for step in (2, 3, 14, 20):
        with pytest.raises(KeyboardInterrupt):
            parameters_after(Noisy(interrupt_at=step), CONFIG, folder=tmp_path, resume=True)
    found, _ = parameters_after(Noisy(), CONFIG, folder=tmp_path, resume=True)
    assert same(found, expected)


def test_patience_counts_on_after_a_resume(tmp_path: Path) -> None:
    config = TrainingConfig(**{**vars(CONFIG), "patience": 1, "learning_rate": 5.0, "clip": None, "evaluate_every": 2})
    expected, result = whole_run(config)
    assert result.stopped_early
    with pytest.raises(KeyboardInterrupt):
        parameters_after(Noisy(interrupt_at=1), config, folder=tmp_path)
    found, resumed = parameters_after(Noisy(), config, folder=tmp_path, resume=True)
    assert same(found, expected)
    assert comparable(resumed) == comparable(result)


def test_a_finished_run_gives_its_result_again(tmp_path: Path) -> None:
    expected, result = parameters_after(Noisy(), CONFIG, folder=tmp_path)
    again = Noisy()
    found, resumed = parameters_after(again, CONFIG, folder=tmp_path, resume=True)
    assert again.steps == []
    assert same(found, expected)
    assert resumed == result


def test_the_last_two_checkpoints_stay(tmp_path: Path) -> None:
    parameters_after(Noisy(), CONFIG, folder=tmp_path)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-20", "step-24"]
    names = {path.name for path in (tmp_path / "checkpoints" / "step-24").iterdir()}
    assert names - {"best.safetensors"} == {
        "state.json", "parameters.safetensors", "optimizer.safetensors", "generators.safetensors"
    }  # fmt: skip


def test_only_what_trains_and_buffers_are_kept(tmp_path: Path) -> None:
    task = Noisy()
    task.module[0].requires_grad_(False)
    parameters_after(task, CONFIG, folder=tmp_path)
    path = checkpoints.newest(tmp_path)
    assert path is not None
    kept = checkpoints.read(path)
    assert {name.split(".")[0] for name in kept.parameters} == {"1", "4"}
    assert "1.running_mean" in kept.parameters
    assert {name.partition("/")[2] for name in kept.optimizer} == {"step", "exp_avg", "exp_avg_sq"}


def test_nothing_to_resume_starts_anew_and_checkpoints_are_not_overwritten(tmp_path: Path) -> None:
    expected, _ = whole_run()
    found, _ = parameters_after(Noisy(), CONFIG, folder=tmp_path / "new", resume=True)
    assert same(found, expected)
    with pytest.raises(StorageError, match="nothing is overwritten unasked"):
        parameters_after(Noisy(), CONFIG, folder=tmp_path / "new")


def test_a_changed_setting_is_refused_and_named(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        parameters_after(Noisy(interrupt_at=5), CONFIG, folder=tmp_path, fingerprint={"data": "a", "sizes": (1, 2)})

    def refused(message: str, task: Regression | None = None, **options: Any) -> None:
        config = options.pop("config", CONFIG)
        options = {"fingerprint": {"data": "a", "sizes": (1, 2)}, "seed": 3, **options}
        with pytest.raises(ConfigError, match=message):
            train(task or Noisy(), config, device="cpu", folder=tmp_path, resume=True, **options)

    refused("fingerprint.data was a and is b", fingerprint={"data": "b", "sizes": (1, 2)})
    refused("seed was 3 and is 4", seed=4)
    refused("samples was 96 and is 95", Noisy(size=95))
    changed = TrainingConfig(**{**vars(CONFIG), "learning_rate": 0.5, "betas": (0.8, 0.9)})
    refused(
        r"config.betas was \[0.9, 0.999\] and is \[0.8, 0.9\]; config.learning_rate was 0.02 and is 0.5", config=changed
    )
    refused("parameters.4.bias", Regression())
    with pytest.raises(ConfigError, match="JSON"):
        train(Noisy(), CONFIG, device="cpu", folder=tmp_path / "new", fingerprint={"data": object()})
    often = TrainingConfig(**{**vars(CONFIG), "checkpoint_every": 1})
    parameters_after(Noisy(), often, folder=tmp_path, resume=True, fingerprint={"sizes": (1, 2), "data": "a"})


def test_damaged_and_foreign_checkpoints_are_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        parameters_after(Noisy(interrupt_at=9), CONFIG, folder=tmp_path / "good")

    def broken(name: str) -> Path:
        copy = Path(shutil.copytree(tmp_path / "good", tmp_path / name))
        return copy / "checkpoints" / "step-9"

    cut = broken("cut") / "optimizer.safetensors"
    cut.write_bytes(cut.read_bytes()[:-9])
    state = json.loads((broken("later") / "state.json").read_text())
    (tmp_path / "later/checkpoints/step-9/state.json").write_text(json.dumps({**state, "format_version": 99}))
    (broken("foreign") / "state.json").write_text("{}")
    for name, error, message in (
        ("cut", FormatError, "goes on from the checkpoint before it"),
        ("later", NewerFormat, "format version 99"),
        ("foreign", FormatError, "not a checkpoint"),
    ):
        with pytest.raises(error, match=message):
            parameters_after(Noisy(), CONFIG, folder=tmp_path / name, resume=True)
    shutil.rmtree(cut.parent)
    found, _ = parameters_after(Noisy(), CONFIG, folder=tmp_path / "cut", resume=True)
    assert same(found, whole_run()[0])


def test_stopping_without_a_folder_says_that_nothing_was_kept() -> None:
    with pytest.raises(KeyboardInterrupt, match="name a folder"):
        train(Noisy(interrupt_at=3), TrainingConfig(epochs=2, batch=16), device="cpu")


def test_generators_go_on_where_they_stood() -> None:
    np.random.normal()  # leaves the second normal of a pair cached
    saved = generators.states(CPU)
    drawn = torch.rand(3).tolist(), np.random.normal(size=3).tolist()
    generators.continue_from(saved, CPU)
    assert (torch.rand(3).tolist(), np.random.normal(size=3).tolist()) == drawn
