"""Methods beside each other: the rows, and all three reports that show them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rich.console import Console

from crossfade.evaluation.result import DirectionResult, Estimate, Evaluation, Outcome, Rival, Verdict
from crossfade.reporting.console import evaluation_table
from crossfade.reporting.html import to_html
from crossfade.reporting.markdown import to_markdown
from crossfade.reporting.rivals import rival_rows


def rival(recall: float, lead: tuple[float, float, float] | None, outcome: Outcome, *, two: bool = False) -> Rival:
    difference = None if lead is None else Estimate(*lead)
    metrics = {"R@1": Estimate(recall, recall - 0.01, recall + 0.01)}
    return Rival(metrics, Verdict(outcome, "R@1", difference, 1234, None, "A sentence."), two)


@pytest.fixture
def compared(evaluation: Evaluation) -> Evaluation:
    """The first direction with three rivals, the second with none."""
    rivals = {
        "xbt <stage 1>": rival(0.9137, (0.0811, 0.0622, 0.1013), "compatible"),
        "slerp": rival(0.0111, (-0.0717, -0.0915, -0.0519), "not compatible", two=True),
        "unmeasured": rival(0.0421, None, "undecided"),
    }
    first, second = evaluation.directions
    return replace(evaluation, directions=(replace(first, rivals=rivals), second))


def test_the_rows_hold_the_upgrade_and_every_rival_the_best_first(compared: Evaluation) -> None:
    direction = compared.directions[0]
    rows = rival_rows(direction, compared.method)
    assert [row.method for row in rows] == ["xbt <stage 1>", "procrustes", "unmeasured", "slerp"]
    assert [row.mark for row in rows] == ["above", "", "", "below"]
    assert [row.notes for row in rows] == [
        "compatible",
        "this upgrade, undecided",
        "undecided",
        "two encoders, not compatible",
    ]
    own = rows[1]
    assert own.lead == direction.verdict.difference
    assert own.estimates == tuple(direction.scores["mapped/old"].metrics.values())
    assert rows[0].estimates[1:] == (None, None, None)


def test_nothing_is_shown_where_nothing_was_compared(evaluation: Evaluation, compared: Evaluation) -> None:
    assert rival_rows(evaluation.directions[0], "procrustes") == ()
    unmapped: DirectionResult = replace(
        compared.directions[0], scores={"old/old": compared.directions[0].scores["old/old"]}
    )
    assert rival_rows(unmapped, "procrustes") == ()
    assert "beside each other" not in to_html(evaluation)
    assert "beside each other" not in to_markdown(evaluation)


def test_the_page_shows_them_once_and_makes_their_names_harmless(compared: Evaluation) -> None:
    page = to_html(compared)
    assert page.count('aria-label="Methods ') == 1
    assert '<a href="#methods">Methods</a>' in page
    assert "xbt &lt;stage 1&gt;" in page
    assert "<stage 1>" not in page
    assert "91.4" in page
    assert "+8.1" in page


def test_markdown_and_terminal_show_the_same_figures(compared: Evaluation) -> None:
    text = to_markdown(compared)
    console = Console(width=160, record=True, file=None, quiet=False)
    with console.capture() as captured:
        console.print(evaluation_table(compared))
    for shown in (text, captured.get()):
        assert shown.lower().count("methods beside each other") == 1
        for figure in ("91.4", "+8.1", "−7.2", "two encoders, not compatible", "this upgrade, undecided"):
            assert figure in shown
    assert "xbt &lt;stage 1&gt;" in text
