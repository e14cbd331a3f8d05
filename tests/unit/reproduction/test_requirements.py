"""What the protocol needs, and what of it is not there."""

from __future__ import annotations

import json
from pathlib import Path

import huggingface_hub.constants
import protocol_data
import pytest

from crossfade.errors import ConfigError
from crossfade.reproduction import missing, reproduce
from crossfade.reproduction.requirements import EVALUATED, PAIRS, TRAINING, located

DEMO = {"old": "demo:old", "new": "demo:new"}
PAIR = PAIRS["l14-b32"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    protocol_data.write(tmp_path / "data")
    return tmp_path / "data"


def lacks(data: Path, **options: object) -> list[str]:
    arguments = {"sets": tuple(EVALUATED), "scale": "small", **DEMO, **options}
    return [str(lack) for lack in missing(PAIR, data, **arguments)]  # type: ignore[arg-type]


def test_nothing_is_missing_where_everything_is(data: Path) -> None:
    assert lacks(data, fit_images=50) == []


def test_the_splits_are_the_protocols(data: Path) -> None:
    sizes = {name: len(list(one.open(data).images())) for name, one in EVALUATED.items()}
    assert sizes == {"flickr30k": 20, "coco": 20, "nocaps": 15}
    searched = {item.id for item in EVALUATED["coco"].open(data).images()}
    trained = {item.id for item in TRAINING.open(data).images()}
    assert len(trained) == 160
    assert not searched & trained


def test_a_missing_image_is_counted_and_named(data: Path) -> None:
    gone = data / "flickr30k" / "images" / f"{ord('B'):04X}.png"
    gone.unlink()
    (told,) = lacks(data)
    assert "1 of 20 images, the first of them 0042.png" in told


def test_training_images_are_asked_for_only_where_they_are_used(data: Path) -> None:
    for image in (data / "coco" / "train2014").iterdir():
        image.unlink()
    assert lacks(data) == []
    (told,) = lacks(data, fit_images=7)
    assert "7 of 7 images" in told


def test_a_file_of_another_form_is_missing_too(data: Path) -> None:
    (data / "nocaps" / "nocaps_val_4500_captions.json").write_text(json.dumps([1, 2]), encoding="utf-8")
    (told,) = lacks(data)
    assert "captions that can be read" in told


def test_only_the_sets_that_are_searched_are_needed(data: Path) -> None:
    (data / "flickr30k" / "dataset_flickr30k.json").unlink()
    assert lacks(data, sets=("nocaps",)) == []
    assert len(lacks(data)) == 1


def test_checkpoints_are_taken_from_the_folder_and_never_fetched_unasked(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    assert located(PAIR.old.id, data, hub=PAIR.old) is None
    told = lacks(data, old=None, new="owner/nowhere")
    assert [line for line in told if "openai/clip-vit-base-patch32" in line]
    assert [line for line in told if "owner/nowhere" in line]
    assert lacks(data, old=None, new="owner/nowhere", download=True) == []
    (data / "checkpoints" / "clip-vit-base-patch32").mkdir(parents=True)
    assert located(PAIR.old.id, data, hub=PAIR.old) == str(data / "checkpoints" / "clip-vit-base-patch32")
    assert lacks(data, old=None) == []


def test_a_checkpoint_in_the_hubs_cache_is_taken_by_its_commit(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    commit = "0123456789" * 4
    stored = tmp_path / "cache" / "models--openai--clip-vit-base-patch32"
    (stored / "refs").mkdir(parents=True)
    (stored / "refs" / "main").write_text(commit, encoding="utf-8")
    snapshot = stored / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}", encoding="utf-8")
    assert located(PAIR.old.id, data, hub=PAIR.old) is None
    (snapshot / "model.safetensors").write_bytes(b"")
    assert located(PAIR.old.id, data, hub=PAIR.old) == f"openai/clip-vit-base-patch32@{commit}"
    assert located(f"{PAIR.old.id}@main", data) == f"openai/clip-vit-base-patch32@{commit}"
    assert lacks(data, old=None) == []


def test_the_library_refuses_with_the_whole_list(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        reproduce("l14-b32", data=tmp_path / "none", out=tmp_path / "out")
    assert str(refused.value).count("looked for") == 8
    with pytest.raises(ConfigError, match="The pairs are"):
        reproduce("b16-b32", data=tmp_path, out=tmp_path / "out")
    with pytest.raises(ConfigError, match="Stage 2 needs images"):
        reproduce("l14-b32", data=tmp_path, out=tmp_path / "out", fit_images=0)
