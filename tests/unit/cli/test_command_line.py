"""The command line, run as a user runs it: a process, its stdout, its stderr and its exit code."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from command import COMMAND
from command import run_apart as run
from upgrades import Upgrade, make_upgrade

import crossfade as cf
from crossfade.cli.output import resumable
from crossfade.embeddings.collection import write_links
from crossfade.embeddings.core import item_keys


@pytest.fixture(scope="module")
def upgrade(tmp_path_factory: pytest.TempPathFactory) -> Upgrade:
    return make_upgrade(tmp_path_factory.mktemp("upgrade"))


@pytest.fixture(scope="module")
def adapter(upgrade: Upgrade, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("fit") / "adapter"
    run(
        "fit",
        "--old",
        upgrade.old_folder,
        "--new",
        upgrade.new_folder,
        "--out",
        out,
        "-m",
        "procrustes",
        "--hold-out",
        0.5,
    )
    return out


def test_help_and_version() -> None:
    shown = run("--help").stdout
    for verb in ("demo", "encode", "fit", "evaluate", "report", "export", "run", "fingerprint", "doctor"):
        assert verb in shown
    assert run("--version").stdout.strip() == cf.__version__


def test_wrong_usage_is_exit_code_2(tmp_path: Path) -> None:
    run("nonsense", code=2)
    run("fit", "--out", tmp_path / "x", code=2)
    run("fit", "--old", "a", "--new", "b", "--out", tmp_path / "x", "--hold-out", "1.5", code=2)


def test_fit_evaluate_report_export(upgrade: Upgrade, adapter: Path, tmp_path: Path) -> None:
    sides = ("--old", upgrade.old_folder, "--new", upgrade.new_folder)
    judged = run("evaluate", adapter, *sides, "--slice", "parity", "--out", tmp_path / "report", "--json")
    result = json.loads(judged.stdout)
    assert result["verdict"]["outcome"] == "compatible"
    assert set(result["directions"][0]["slices"]) == {"parity"}
    page = run("report", tmp_path / "report" / "report.json", "--out", tmp_path / "again").stdout
    assert (tmp_path / "again" / "report.html").exists()
    assert "again" in page
    told = run("export", adapter, "--out", tmp_path / "map.onnx", "--modality", "image").stdout
    assert (tmp_path / "map.onnx").stat().st_size > 0
    assert "largest difference" in told


def test_evaluate_corrects_hubness_by_a_bank_of_logged_queries(upgrade: Upgrade, adapter: Path, tmp_path: Path) -> None:
    provenance = cf.from_pretrained(adapter).provenance
    assert provenance is not None
    for name, side in (("new", upgrade.new), ("old", upgrade.old)):  # what was fitted on is not judged: the bank
        for modality, vectors in side.sets.items():
            known = np.isin(item_keys(vectors.ids, salt=modality), provenance.fitted_on)
            vectors.select(known).save(tmp_path / name / modality)
    sides = ("--old", upgrade.old_folder, "--new", upgrade.new_folder)
    bank = ("--bank", tmp_path / "new", "--bank-old", tmp_path / "old", "--hubness", "qb-norm")
    result = json.loads(run("evaluate", adapter, *sides, *bank, "--resamples", 200, "--json").stdout)
    plain = json.loads(run("evaluate", adapter, *sides, "--resamples", 200, "--json").stdout)
    for corrected, direction in zip(result["directions"], plain["directions"], strict=True):
        hubness = corrected.pop("hubness")
        assert hubness["correction"]["name"] == "querybank_normalisation"
        assert set(hubness["scores"]) == set(direction["scores"])
        assert direction.pop("hubness") is None
        assert corrected == direction
    shown = run("evaluate", adapter, *sides, "--bank", tmp_path / "new", "--resamples", 200).stdout
    assert "CSLS" in shown
    assert "Name them with --bank" in run("evaluate", adapter, *sides, "--hubness", "csls", code=3).stderr
    judged = ("--bank", upgrade.new_folder)
    assert "other queries than those that are judged" in run("evaluate", adapter, *sides, *judged, code=3).stderr


def test_auto_says_what_it_compared_and_why_it_chose(upgrade: Upgrade, tmp_path: Path) -> None:
    sides = ("--old", upgrade.old_folder, "--new", upgrade.new_folder)
    told = json.loads(run("fit", *sides, "--out", tmp_path / "auto", "--json").stdout)
    assert len(told["candidates"]) >= 6
    assert sum(candidate["chosen"] for candidate in told["candidates"]) == 1
    assert told["method"] in cf.METHODS
    assert told["pairs"] + told["kept_aside"] == 3 * 400
    shown = run("fit", *sides, "--out", tmp_path / "auto", "--overwrite").stdout
    assert "← chosen" in shown


def test_hyper_parameters_are_set_by_name(upgrade: Upgrade, tmp_path: Path) -> None:
    sides = ("--old", upgrade.old_folder, "--new", upgrade.new_folder)
    run("fit", *sides, "--out", tmp_path / "a", "-m", "procrustes", "--set", "center=modality")
    assert cf.from_pretrained(tmp_path / "a").provenance.config["center"] == "modality"  # type: ignore[union-attr]
    assert (
        "hyper-parameters" in run("fit", *sides, "--out", tmp_path / "b", "-m", "ridge", "--set", "x=1", code=3).stderr
    )
    assert not (tmp_path / "b").exists()


def test_a_worse_model_is_exit_code_10(tmp_path: Path) -> None:
    worse = make_upgrade(tmp_path, swap=True)
    sides = ("--old", worse.old_folder, "--new", worse.new_folder)
    run("fit", *sides, "--out", tmp_path / "adapter", "-m", "procrustes", "--hold-out", 0.5)
    run("evaluate", tmp_path / "adapter", *sides, code=10)


def test_missing_old_queries_are_exit_code_11(upgrade: Upgrade, adapter: Path) -> None:
    sides = ("--old", upgrade.old_folder / "image", "--new", upgrade.new_folder / "text")
    run("evaluate", adapter, *sides, "--links", upgrade.old_folder / "links.parquet", code=11)


def test_an_existing_adapter_is_not_overwritten_unasked(upgrade: Upgrade, adapter: Path) -> None:
    before = (adapter / "config.json").read_bytes()
    sides = ("--old", upgrade.old_folder, "--new", upgrade.new_folder)
    assert "exists" in run("fit", *sides, "--out", adapter, "-m", "ridge", code=3).stderr
    assert (adapter / "config.json").read_bytes() == before


def test_swapped_sides_are_told(upgrade: Upgrade, adapter: Path) -> None:
    told = run("evaluate", adapter, "--old", upgrade.new_folder, "--new", upgrade.old_folder, code=3).stderr
    assert "swapped" in told


def test_vectors_without_a_space_enter_by_naming_it(upgrade: Upgrade, tmp_path: Path) -> None:
    for name, side in (("old", upgrade.old), ("new", upgrade.new)):
        for modality, embeddings in side.sets.items():
            np.save(tmp_path / f"{name}-{modality}.npy", embeddings.matrix())
        (tmp_path / f"{name}.json").write_text(json.dumps(side.space.to_dict()))
    sides = [
        part for n in ("old", "new") for m in ("image", "text") for part in (f"--{n}", f"{m}={tmp_path}/{n}-{m}.npy")
    ]
    spaces = ("--old-space", tmp_path / "old.json", "--new-space", tmp_path / "new.json")
    run("fit", *sides, *spaces, "--out", tmp_path / "adapter", "-m", "procrustes")
    assert cf.from_pretrained(tmp_path / "adapter").source == upgrade.new.space
    assert "space" in run("fit", *sides, "--out", tmp_path / "none", "-m", "procrustes", code=3).stderr


def test_a_label_column_of_a_parquet_file_can_be_compared(upgrade: Upgrade, tmp_path: Path) -> None:
    for name, side in (("old", upgrade.old), ("new", upgrade.new)):
        side.sets["image"].to_parquet(tmp_path / f"{name}.parquet")
    sides = ("--old", tmp_path / "old.parquet", "--new", tmp_path / "new.parquet")
    run("fit", *sides, "--out", tmp_path / "adapter", "-m", "procrustes", "--hold-out", 0.5)
    done = subprocess.run(
        [*COMMAND, "evaluate", str(tmp_path / "adapter"), *map(str, sides), "--relevant", "labels:parity", "--json"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode in (0, 10, 11), done.stderr
    assert json.loads(done.stdout)["directions"][0]["metric"] == "mAP"


def test_fingerprints_are_printed_and_compared(upgrade: Upgrade, adapter: Path) -> None:
    assert upgrade.old.space.fingerprint in run("fingerprint", upgrade.old_folder).stdout
    assert upgrade.new.space.fingerprint in run("fingerprint", adapter).stdout
    run("fingerprint", upgrade.old_folder, upgrade.old_folder / "image")
    told = run("fingerprint", upgrade.old_folder, upgrade.new_folder, code=10).stdout
    assert "dimension" in told


def test_doctor_lists_features_and_checks_a_data_set(tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("a red cube\na blue ball\n", encoding="utf-8")
    told = json.loads(run("doctor", f"texts:{tmp_path / 'texts.txt'}", "--json").stdout)
    assert told["data"]["texts"] == 2
    assert told["methods"] == list(cf.METHODS)
    assert all(feature["ok"] or "pip install" in feature["mend"] for feature in told["features"])


def test_encode_writes_both_modalities_and_links_and_goes_on_after_a_kill(tmp_path: Path) -> None:
    arguments = [
        "encode",
        "glyphs:unseen-characters",
        "-e",
        "demo:old",
        "-o",
        str(tmp_path / "v"),
        "--batch-size",
        "32",
    ]
    process = subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not (tmp_path / "v" / "image").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    told = json.loads(run(*arguments, "--json").stdout)
    made = cf.open_collection({"": str(tmp_path / "v")})
    assert told["rows"] == {m: len(made.sets[m]) for m in ("image", "text")}
    assert len(made.links) == len(made.sets["image"])
    assert told["fingerprint"] == made.space.fingerprint


def test_bad_input_is_exit_code_3_with_one_message(upgrade: Upgrade, tmp_path: Path) -> None:
    assert "missing" in run("run", tmp_path / "no.yaml", code=3).stderr
    assert run("evaluate", tmp_path / "no-adapter", "--old", "a", "--new", "b", code=3).stderr.startswith("error: ")
    (tmp_path / "broken.npy").write_bytes(b"\x93NUMPY\x01\x00")
    told = run(
        "fit", "--old", tmp_path / "broken.npy", "--new", upgrade.new_folder, "--out", tmp_path / "x", code=3
    ).stderr
    assert told.startswith("error: ")
    assert not (tmp_path / "x").exists()


def test_a_job_runs_from_its_file(upgrade: Upgrade, tmp_path: Path) -> None:
    job = tmp_path / "job.yaml"
    job.write_text(
        f"old: {{vectors: {upgrade.old_folder}}}\nnew: {{vectors: {upgrade.new_folder}}}\n"
        f"method: procrustes\nslices: [parity]\nout: {tmp_path / 'out'}\n",
        encoding="utf-8",
    )
    shown = run("run", job).stdout
    assert "COMPATIBLE" in shown
    assert str(tmp_path / "out" / "adapter") in shown
    told = json.loads(run("run", job, "--json").stdout)
    assert Path(told["reports"]["evaluation"]).exists()


@pytest.mark.parametrize(
    "verb", ["fit", "evaluate", "run", "demo", "encode", "report", "export", "fingerprint", "doctor"]
)
def test_every_verb_has_json_and_help(verb: str) -> None:
    assert "--json" in run(verb, "--help").stdout


def test_logged_queries_are_fitted_on_and_told(upgrade: Upgrade, tmp_path: Path) -> None:
    """The old model never saw the captions: images are paired, and captions are queries that links lead on."""
    logged = tmp_path / "logged"
    upgrade.new.sets["text"].save(logged / "text")
    write_links(logged / "links.parquet", upgrade.new.links)
    sides = ("--old", f"image={upgrade.old_folder}", "--new", f"image={upgrade.new_folder}", "--queries", logged)
    quick = [word for name in ("steps=4", "evaluations=2", "batch=64", "gallery=64") for word in ("--set", name)]
    links = ("--links", upgrade.new_folder / "links.parquet")
    told = json.loads(
        run("fit", *sides, "--out", tmp_path / "a", "-m", "contrastive", *quick, "--hold-out", 0, "--json").stdout
    )
    assert told["pairs"] == 400
    assert "text queries→image: 800 queries (800 labelled, 800 distilled)" in told["sentence"]
    adapter = cf.from_pretrained(tmp_path / "a")
    assert adapter.modalities == ("image", "text")
    assert adapter.provenance is not None
    assert adapter.provenance.used in told["sentence"]
    aside = run("fit", *sides, *links, "--out", tmp_path / "b", "-m", "procrustes", "--hold-out", 0).stdout
    assert "the 800 queries were left aside" in aside.replace("\n", " ")
    wrong = run("fit", *sides[:4], "--queries", upgrade.old_folder, "--out", tmp_path / "c", code=3).stderr
    assert "The queries" in wrong


def test_ctrl_c_in_a_resumable_command_says_how_to_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt), resumable(tmp_path):
        raise KeyboardInterrupt
    assert capsys.readouterr().err == f"The same command with --resume goes on; what is done is in {tmp_path}.\n"
