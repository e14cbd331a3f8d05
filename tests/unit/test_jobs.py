"""Job files: what they may say, and that a job does what its parts do."""

from __future__ import annotations

from pathlib import Path

import pytest
from upgrades import make_upgrade

from crossfade.errors import ConfigError
from crossfade.jobs import Job, Side, load_job, overall, run_job


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


GOOD = """
old: {encoder: demo:old}
new: {encoder: demo:new, batch_size: 32}
fit_on: glyphs:train?share=0.2
evaluate_on: {faces: "glyphs:unseen-faces", characters: "glyphs:unseen-characters"}
slices: [script]
out: somewhere
"""


def test_a_job_file_is_read_as_it_is_written(tmp_path: Path) -> None:
    job = load_job(write(tmp_path / "job.yaml", GOOD))
    assert job.old == Side(encoder="demo:old")
    assert job.new == Side(encoder="demo:new", batch_size=32)
    assert job.evaluate_on == {"faces": "glyphs:unseen-faces", "characters": "glyphs:unseen-characters"}
    assert (job.out, job.slices, job.method) == (Path("somewhere"), ("script",), "auto")


def test_one_data_set_needs_no_name(tmp_path: Path) -> None:
    job = load_job(write(tmp_path / "j.yaml", "old: {encoder: a}\nnew: {encoder: b}\nevaluate_on: data\nout: o\n"))
    assert job.evaluate_on == {"evaluation": "data"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n- b\n", "keys and values"),
        ("old: [1\n", "must be YAML"),
        ("new: {encoder: b}\nevaluate_on: d\nout: o\n", "section 'old'"),
        ("old: {encoder: a}\nnew: {encoder: b}\nevaluate_on: d\n", "under 'out'"),
        ("old: {vectors: a}\nnew: {encoder: b}\nout: o\n", "to encode under evaluate_on"),
        ("old: {encoder: a}\nnew: {encoder: b}\nevaluate_on: d\nout: o\nmethode: auto\n", r"found also \['methode'\]"),
        ("old: {encoder: a, colour: red}\nnew: {encoder: b}\nevaluate_on: d\nout: o\n", "section old"),
        ("old: {encoder: a, vectors: v}\nnew: {encoder: b}\nevaluate_on: d\nout: o\n", "exactly one"),
        ("old: {device: cpu}\nnew: {encoder: b}\nevaluate_on: d\nout: o\n", "exactly one"),
        ("old: {encoder: a}\nnew: {encoder: b}\nevaluate_on: {}\nout: o\n", "at least one data set"),
        ("old: {encoder: a}\nnew: {encoder: b}\nevaluate_on: {x: d, y: e}\nout: o\n", "Name fit_on too"),
    ],
)
def test_a_wrong_job_file_is_told_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_job(write(tmp_path / "job.yaml", text))


def test_a_missing_or_binary_job_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="missing"):
        load_job(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes("title: Büro".encode("latin-1"))
    with pytest.raises(ConfigError, match="UTF-8"):
        load_job(tmp_path / "latin.yaml")


def test_a_job_on_stored_vectors_holds_out_fits_judges_and_writes(tmp_path: Path) -> None:
    upgrade = make_upgrade(tmp_path / "vectors")
    job = Job(
        old=Side(vectors=str(upgrade.old_folder)),
        new=Side(vectors={"": str(upgrade.new_folder)}),
        out=tmp_path / "out",
        evaluate_on={"all": None},
        method="procrustes",
        hold_out=0.4,
    )
    result = run_job(job)
    assert overall(result) == "compatible"
    assert result.pairs < len(upgrade.new.sets["image"]) + len(upgrade.new.sets["text"])
    assert (tmp_path / "out" / "adapter" / "model.safetensors").exists()
    assert result.reports["all"].exists()
    assert {"encode", "fit", "evaluate and report"} == set(result.seconds)
    assert result.to_dict()["outcome"] == "compatible"


def test_running_a_job_again_gives_the_same_numbers(tmp_path: Path) -> None:
    upgrade = make_upgrade(tmp_path / "vectors")
    job = Job(
        old=Side(vectors=str(upgrade.old_folder)),
        new=Side(vectors=str(upgrade.new_folder)),
        out=tmp_path / "out",
        method="ridge",
    )
    first, second = run_job(job).to_dict(), run_job(job).to_dict()
    assert first["evaluations"] == second["evaluations"]
