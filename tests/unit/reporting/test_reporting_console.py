"""The terminal table, wide and narrow, with and without colours."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from crossfade.evaluation.result import Evaluation
from crossfade.reporting import evaluation_table
from crossfade.reporting.formatting import percent


def printed(evaluation: Evaluation, *, width: int, colours: bool = False) -> str:
    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=colours, color_system="truecolor" if colours else None)
    console.print(evaluation_table(evaluation))
    return file.getvalue()


@pytest.mark.parametrize("width", [80, 120, 200])
def test_no_number_is_cut(evaluation: Evaluation, width: int) -> None:
    text = printed(evaluation, width=width)
    assert "…" not in text
    for direction in evaluation.directions:
        for score in direction.scores.values():
            for found in score.metrics.values():
                assert percent(found.value) in text
                assert f"[{percent(found.low)}–{percent(found.high)}]" in text


def test_intervals_stand_beside_where_there_is_room(evaluation: Evaluation) -> None:
    assert "7.3 [5.2–10.6]" in printed(evaluation, width=160)
    assert "7.3 [5.2–10.6]" not in printed(evaluation, width=80)


def test_verdict_and_warnings(evaluation: Evaluation) -> None:
    text = printed(evaluation, width=160)
    assert text.index("822 of 1,234 queries were fitted on.") < text.index("text→image")
    assert text.rstrip().splitlines()[-1].startswith("UNDECIDED  These queries cannot tell")
    assert "about 8,765 more queries would decide" in text
    assert "42.4 % of the gap closed" in text


def test_colours_only_on_a_terminal(evaluation: Evaluation) -> None:
    assert "\x1b[" not in printed(evaluation, width=100)
    assert "\x1b[1;33mUNDECIDED" in printed(evaluation, width=100, colours=True)


def test_minimal(minimal: Evaluation) -> None:
    text = printed(minimal, width=100)
    assert "mapped/old" in text
    assert "None" not in text


def test_markup_in_words_is_not_obeyed(minimal: Evaluation) -> None:
    import dataclasses

    hostile = dataclasses.replace(minimal, warnings=("[red]not markup[/red]",))
    assert "[red]not markup[/red]" in printed(hostile, width=100)
