from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import worlds
from safetensors.numpy import load_file, save_file

from crossfade.artifacts import from_pretrained, push_to_hub, read_spaces, require_free, save_pretrained
from crossfade.errors import ConfigError, CrossfadeError, FormatError, NewerFormat, StorageError, UnsafeFormat
from crossfade.evaluation.result import DirectionResult, Estimate, Evaluation, Score, Verdict
from crossfade.methods import Adapter, LinearAdapter, Procrustes, Ridge

GOLDEN = sorted((Path(__file__).parents[1] / "golden").glob("adapter-v*/*"))


@pytest.fixture
def adapter(two_modalities: worlds.World) -> Adapter:
    return Ridge(penalty=1.0).fit(two_modalities.pairs(), seed=5)


@pytest.fixture
def saved(adapter: Adapter, tmp_path: Path) -> Path:
    save_pretrained(adapter, tmp_path / "saved")
    return tmp_path / "saved"


def an_evaluation(adapter: Adapter) -> Evaluation:
    half = Estimate(0.5, 0.4, 0.6)
    verdict = Verdict("compatible", "R@1", Estimate(0.1, 0.05, 0.15), 100, None, "It is compatible.")
    scores = {"old/old": Score("old/old", {"R@1": half}), "mapped/old": Score("mapped/old", {"R@1": half, "R@5": half})}
    direction = DirectionResult("text→image", 100, 50, "R@1", scores, None, None, verdict)
    spaces = adapter.source.to_dict(), adapter.target.to_dict()
    return Evaluation(*spaces, "ridge", {}, (direction,), verdict, ("3 queries leak.",), 0.95, 2000, 0)


def change(config: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        values = json.loads((folder / "config.json").read_text())
        config(values)
        (folder / "config.json").write_text(json.dumps(values))

    return apply


def tensors(edit: Callable[[dict[str, np.ndarray]], None]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        arrays = dict(load_file(folder / "model.safetensors"))
        edit(arrays)
        save_file(arrays, folder / "model.safetensors")

    return apply


def nan_in_matrix(arrays: dict[str, np.ndarray]) -> None:
    arrays["matrix"] = np.full_like(arrays["matrix"], np.nan)


def cut(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-40]) and None


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "no config": lambda folder: (folder / "config.json").unlink(),
    "config cut off": cut("config.json"),
    "another format": change(lambda c: c.update(format="bert")),
    "a list": lambda folder: (folder / "config.json").write_text("[]"),
    "no version": change(lambda c: c.pop("format_version")),
    "no method": change(lambda c: c.pop("method")),
    "unknown method": change(lambda c: c.update(method="teleport")),
    "no source": change(lambda c: c.pop("source")),
    "no provenance": change(lambda c: c.pop("provenance")),
    "unknown modality": change(lambda c: c.update(modalities=["audio"])),
    "no settings": change(lambda c: c.update(adapter={})),
    "changed dimension": change(lambda c: c["source"].update(dimension=99)),
    "changed space": change(lambda c: c["target"].update(revision="other")),
    "no tensors": lambda folder: (folder / "model.safetensors").unlink(),
    "tensors cut off": cut("model.safetensors"),
    "tensors garbled": lambda folder: (folder / "model.safetensors").write_bytes(b"garbage"),
    "missing tensor": tensors(lambda t: t.pop("matrix")),
    "missing offset": tensors(lambda t: t.pop("offset.text")),
    "wrong shape": tensors(lambda t: t.update(matrix=t["matrix"][:-1].copy())),
    "not finite": tensors(nan_in_matrix),
    "whole numbers": tensors(lambda t: t.update(matrix=t["matrix"].astype(np.int32))),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_damage_is_a_format_error(saved: Path, damage: Callable[[Path], Any]) -> None:
    damage(saved)
    with pytest.raises(FormatError):
        from_pretrained(saved)


def test_a_later_format_is_named(saved: Path) -> None:
    change(lambda c: c.update(format_version=2))(saved)
    with pytest.raises(NewerFormat, match=r"version 2.*up to 1"):
        from_pretrained(saved)


@pytest.mark.parametrize("name", ["model.bin", "model.pkl", "model.pt"])
def test_pickle_is_refused(saved: Path, name: str) -> None:
    (saved / "model.safetensors").rename(saved / name)
    with pytest.raises(UnsafeFormat, match="pickle"):
        from_pretrained(saved)
    with pytest.raises(UnsafeFormat, match="pickle"):
        from_pretrained(saved / name)


@pytest.mark.parametrize("folder", GOLDEN, ids=lambda folder: f"{folder.parent.name}-{folder.name}")
def test_golden_adapters_of_every_format_load_for_ever(folder: Path) -> None:
    expected = json.loads((folder / "expected.json").read_text())
    new, old = np.float32(expected["new"]), np.float32(expected["old"])
    mapped = from_pretrained(folder / "adapter").map(new, expected["modality"], old=old)
    np.testing.assert_allclose(mapped, np.float32(expected["mapped"]), atol=1e-6)


def test_there_are_golden_adapters() -> None:
    assert {folder.name for folder in GOLDEN} >= {"procrustes", "ridge", "residual_mlp", "slerp"}


def test_everything_comes_back(saved: Path, adapter: Adapter) -> None:
    loaded = Adapter.from_pretrained(saved)
    assert isinstance(loaded, LinearAdapter)
    made, expected = loaded.provenance, adapter.provenance
    assert made is not None
    assert expected is not None
    assert (made.method, made.seed, dict(made.pairs)) == ("ridge", 5, expected.pairs)
    assert made.config["penalty"] == 1.0
    np.testing.assert_array_equal(made.fitted_on, expected.fitted_on)
    assert read_spaces(saved) == (adapter.source, adapter.target)


def test_spaces_of_another_kind_of_folder_are_none(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    assert read_spaces(tmp_path) is None


def test_nothing_is_overwritten_unasked(saved: Path, adapter: Adapter) -> None:
    with pytest.raises(StorageError, match="exists already"):
        save_pretrained(adapter, saved)
    with pytest.raises(StorageError, match="exists already"):
        require_free(saved, overwrite=False)
    adapter.save_pretrained(saved, overwrite=True)
    assert from_pretrained(saved).source == adapter.source


def test_a_failed_save_leaves_what_stood_there(saved: Path, adapter: Adapter, tmp_path: Path) -> None:
    before = (saved / "config.json").read_bytes()
    evaluation = an_evaluation(adapter)
    object.__setattr__(evaluation, "method", object())
    with pytest.raises(TypeError):
        save_pretrained(adapter, saved, evaluation=evaluation, overwrite=True)
    assert (saved / "config.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]


def test_an_adapter_without_a_method_is_not_saved(rotated: worlds.World, tmp_path: Path) -> None:
    adapter = LinearAdapter(rotated.source, rotated.target, matrix=np.eye(12), offsets={"image": np.zeros(12)})
    with pytest.raises(ConfigError, match="method"):
        save_pretrained(adapter, tmp_path / "saved")


def test_the_card_shows_what_was_measured_and_how_to_use_it(adapter: Adapter, tmp_path: Path) -> None:
    save_pretrained(adapter, tmp_path / "measured", evaluation=an_evaluation(adapter))
    card = (tmp_path / "measured" / "README.md").read_text()
    assert "| mapped/old | 0.500 [0.400, 0.600] | 0.500 [0.400, 0.600] |" in card
    assert "| old/old | 0.500 [0.400, 0.600] |  |" in card
    assert "It is compatible." in card
    assert "**Warning:** 3 queries leak." in card
    assert adapter.source.fingerprint in card
    metrics = json.loads((tmp_path / "measured" / "config.json").read_text())["metrics"]
    assert Evaluation.from_dict(metrics).verdict.outcome == "compatible"
    save_pretrained(adapter, tmp_path / "unmeasured")
    assert "Nothing was measured" in (tmp_path / "unmeasured" / "README.md").read_text()


QUERY = """
import sys
import numpy as np
from crossfade.artifacts import from_pretrained
adapter = from_pretrained(sys.argv[1])
vector = np.zeros(adapter.source.dimension, dtype=np.float32)
vector[0] = 1
print(float(np.linalg.norm(adapter.map(vector, "text", old=np.ones(adapter.target.dimension, dtype=np.float32)))))
heavy = {"torch", "scipy", "pyarrow", "matplotlib", "sklearn", "pandas", "PIL", "transformers"} & set(sys.modules)
assert not heavy, heavy
"""


@pytest.mark.parametrize("folder", GOLDEN, ids=lambda folder: f"{folder.parent.name}-{folder.name}")
def test_loading_and_mapping_a_query_imports_numpy_and_safetensors_alone(folder: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", QUERY, str(folder / "adapter")], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert float(run.stdout) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("place", ["nowhere", "a/b/c", "./nowhere", "nowhere.pkl"])
def test_a_place_that_is_nothing_is_named(place: str) -> None:
    with pytest.raises(FormatError, match=r"nowhere|a/b/c"):
        from_pretrained(place)


def test_a_file_is_not_a_folder(saved: Path) -> None:
    with pytest.raises(FormatError, match="not a folder"):
        from_pretrained(saved / "config.json")


def test_a_hub_that_cannot_be_reached_is_an_error_of_ours(
    rotated: worlds.World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Offline mode is the hub client's own switch; it raises before anything leaves the machine."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CrossfadeError, match="hub"):
        from_pretrained("nobody/nothing")
    with pytest.raises(CrossfadeError, match="pushed"):
        push_to_hub(Procrustes().fit(rotated.pairs()), "nobody/nothing", token="none")


def test_the_folder_may_move(saved: Path, tmp_path: Path, adapter: Adapter) -> None:
    shutil.move(saved, tmp_path / "elsewhere")
    assert from_pretrained(tmp_path / "elsewhere").target == adapter.target
