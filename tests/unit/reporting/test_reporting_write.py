"""write_report, the JSON document and reading it back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from crossfade.errors import FormatError, NewerFormat, StorageError
from crossfade.evaluation.result import Evaluation
from crossfade.reporting import Material, read_report, to_html, to_json, to_markdown, write_report
from crossfade.spaces import Space


def test_into_a_folder(tmp_path: Path, evaluation: Evaluation, material: Material) -> None:
    page = write_report(evaluation, tmp_path / "new" / "folder", material=material, title="T")
    assert page == tmp_path / "new" / "folder" / "report.html"
    assert sorted(p.name for p in page.parent.iterdir()) == ["report.html", "report.json", "report.md"]
    assert page.read_text(encoding="utf-8") == to_html(evaluation, material=material, title="T")
    assert page.with_suffix(".md").read_text(encoding="utf-8") == to_markdown(evaluation, material=material, title="T")
    assert json.loads(page.with_suffix(".json").read_text(encoding="utf-8"))["title"] == "T"


def test_to_a_named_file(tmp_path: Path, evaluation: Evaluation) -> None:
    page = write_report(evaluation, tmp_path / "may.html")
    assert page == tmp_path / "may.html"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["may.html", "may.json", "may.md"]


def test_read_back(tmp_path: Path, evaluation: Evaluation) -> None:
    page = write_report(evaluation, tmp_path)
    assert read_report(page.with_suffix(".json")).to_dict() == json.loads(
        json.dumps(evaluation.to_dict()), object_hook=tuples
    )
    bare = tmp_path / "bare.json"
    bare.write_text(json.dumps(evaluation.to_dict()), encoding="utf-8")
    assert to_html(read_report(bare)) == to_html(evaluation)


def tuples(values: dict[str, object]) -> dict[str, object]:
    """JSON knows no tuples: the fields that are tuples in an evaluation."""
    return {k: tuple(v) if k in ("directions", "warnings", "notes", "worst", "best") else v for k, v in values.items()}  # type: ignore[arg-type]


def test_json_names_the_fingerprints_and_no_texts(evaluation: Evaluation, material: Material) -> None:
    document = to_json(evaluation, material=material)
    assert document["fingerprints"] == {
        "old": Space.from_dict(evaluation.target).fingerprint,
        "new": Space.from_dict(evaluation.source).fingerprint,
    }
    written = json.dumps(document)
    assert "alert" not in written
    assert "data:image" not in written
    assert set(document["curves"]) == {"text→image", "image→text"}


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ("[1, 2]", FormatError),
        ("{", FormatError),
        ('{"format_version": 1, "evaluation": {}}', FormatError),
        ('{"format_version": 999}', NewerFormat),
        ('{"format_version": "soon"}', FormatError),
        ('{"evaluation": 3}', FormatError),
        ('{"evaluation": {"directions": [{"scores": 3}], "verdict": {}, "warnings": []}}', FormatError),
    ],
)
def test_damaged_reports(tmp_path: Path, content: str, error: type[Exception]) -> None:
    path = tmp_path / "r.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(error):
        read_report(path)


def test_missing_report(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="missing"):
        read_report(tmp_path / "none.json")


def test_a_place_that_cannot_be_written(tmp_path: Path, evaluation: Evaluation) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    with pytest.raises(StorageError):
        write_report(evaluation, tmp_path / "file")
    assert (tmp_path / "file").read_text(encoding="utf-8") == "in the way"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_an_old_report_is_replaced(tmp_path: Path, evaluation: Evaluation, minimal: Evaluation) -> None:
    write_report(evaluation, tmp_path)
    page = write_report(minimal, tmp_path)
    assert page.read_text(encoding="utf-8") == to_html(minimal)
    assert len(list(tmp_path.iterdir())) == 3
