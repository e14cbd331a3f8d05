"""The shared views: numbers, matrix, slices, spaces, headline."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfade.evaluation.result import Estimate, Evaluation, Score, Verdict
from crossfade.reporting.formatting import count, interval, percent, points, points_interval
from crossfade.reporting.headline import headline
from crossfade.reporting.matrix import matrix, metric_names
from crossfade.reporting.slices import slice_tables
from crossfade.reporting.spacetable import fingerprint, space_rows


@pytest.mark.parametrize(
    ("value", "words"),
    [(0.1034, "10.3"), (0.0, "0.0"), (-0.0001, "0.0"), (-0.05, "−5.0"), (1.0, "100.0"), (1e7, "> 999.9")],
)
def test_percent(value: float, words: str) -> None:
    assert percent(value) == words


@pytest.mark.parametrize(("value", "words"), [(0.047, "+4.7"), (0.0, "0.0"), (-0.0001, "0.0"), (-0.047, "−4.7")])
def test_points(value: float, words: str) -> None:
    assert points(value) == words


def test_intervals() -> None:
    assert interval(Estimate(0.1, 0.05, 0.2)) == "5.0–20.0"
    assert interval(Estimate(0.1, -0.05, 0.2)) == "−5.0 to 20.0"
    assert interval(Estimate(0.1, -50.0, 1e9)) == "< −999.9 to > 999.9"
    assert points_interval(Estimate(0.1, -0.05, 0.2)) == "−5.0 to +20.0"
    assert count(1234567) == "1,234,567"


@given(st.floats(-9.99, 9.99))
def test_percent_is_near(value: float) -> None:
    assert float(percent(value).replace("−", "-")) == pytest.approx(100 * value, abs=0.0501)


def marked(evaluation: Evaluation, old: Estimate, mapped: Estimate, difference: Estimate | None) -> str:
    direction = evaluation.directions[0]
    changed = dataclasses.replace(
        direction,
        scores={"old/old": Score("old/old", {"R@1": old}), "mapped/old": Score("mapped/old", {"R@1": mapped})},
        verdict=dataclasses.replace(direction.verdict, difference=difference),
    )
    reference, upgrade = matrix(changed)
    assert reference.cells[0].mark == ""
    return upgrade.cells[0].mark


@pytest.mark.parametrize(
    ("mapped", "difference", "mark"),
    [
        (Estimate(0.5, 0.45, 0.55), None, "above"),
        (Estimate(0.25, 0.2, 0.31), None, ""),
        (Estimate(0.1, 0.05, 0.15), None, "below"),
        (Estimate(0.25, 0.2, 0.31), Estimate(0.05, 0.01, 0.09), "above"),
        (Estimate(0.5, 0.45, 0.55), Estimate(0.3, -0.01, 0.6), ""),
        (Estimate(0.19, 0.15, 0.23), Estimate(-0.01, -0.02, -0.001), "below"),
    ],
)
def test_marks(evaluation: Evaluation, mapped: Estimate, difference: Estimate | None, mark: str) -> None:
    assert marked(evaluation, Estimate(0.2, 0.16, 0.24), mapped, difference) == mark


def test_matrix_keeps_every_metric_of_every_system(evaluation: Evaluation) -> None:
    direction = evaluation.directions[0]
    scores = {**direction.scores, "new/new": Score("new/new", {"nDCG@10": Estimate(0.5, 0.4, 0.6)})}
    changed = dataclasses.replace(direction, scores=scores)
    assert metric_names(changed) == ("R@1", "R@5", "R@10", "mAP", "nDCG@10")
    rows = {row.system: row for row in matrix(changed)}
    assert list(rows) == ["old/old", "mapped/old", "old/mapped", "new/new"]
    assert [cell.estimate is None for cell in rows["new/new"].cells] == [True] * 4 + [False]
    assert [cell.estimate is None for cell in rows["old/old"].cells] == [False] * 4 + [True]


def test_slices_are_ordered_by_size(evaluation: Evaluation) -> None:
    (table,) = slice_tables(evaluation.directions[0])
    assert [row.value for row in table.rows] == ["Latin", "<u>"]
    assert table.systems == ("old/old", "mapped/old")
    assert (table.low, table.high) == pytest.approx((0.3 - 0.0213, 0.41 + 0.0327))


def test_space_rows(evaluation: Evaluation) -> None:
    rows = {row.name: (row.old, row.new) for row in space_rows(evaluation)}
    assert rows["model"] == ("acme/old", "acme/new")
    assert rows["revision"] == ("2021", "—")
    assert rows["normalized"] == ("no", "no")
    assert rows["modalities"] == ("image, text", "image, text")
    assert rows["fingerprint"][0] != rows["fingerprint"][1]
    assert fingerprint({"model": ""}) == ""


def verdicts(evaluation: Evaluation, **changes: Any) -> Evaluation:
    directions = tuple(
        dataclasses.replace(d, verdict=dataclasses.replace(d.verdict, **changes)) for d in evaluation.directions
    )
    whole = {name: value for name, value in changes.items() if name != "difference"}
    return dataclasses.replace(
        evaluation, directions=directions, verdict=dataclasses.replace(evaluation.verdict, **whole)
    )


def test_headline(evaluation: Evaluation, minimal: Evaluation) -> None:
    assert "every direction" in headline(verdicts(evaluation, outcome="compatible"))
    said = headline(verdicts(evaluation, outcome="not compatible")).replace("\N{NO-BREAK SPACE}", " ")
    assert "does not beat what runs today in text → image and image → text" in said
    assert "About 4,321 more" in headline(evaluation)
    assert "no practical number" in headline(verdicts(evaluation, more_queries=None))
    assert "was not measured" in headline(minimal)


def test_headline_names_only_the_directions_concerned(evaluation: Evaluation) -> None:
    good = Verdict("compatible", "R@1", Estimate(0.1, 0.05, 0.15), 10, None, "")
    first, second = evaluation.directions
    mixed = dataclasses.replace(evaluation, directions=(dataclasses.replace(first, verdict=good), second))
    said = headline(mixed).replace("\N{NO-BREAK SPACE}", " ")
    assert "image → text" in said
    assert "text → image" not in said
