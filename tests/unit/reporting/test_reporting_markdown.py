"""The Markdown report: tables that parse, words that cannot break out of them."""

from __future__ import annotations

import re

from crossfade.evaluation.result import Evaluation
from crossfade.reporting import Material, to_markdown
from crossfade.reporting.formatting import percent


def tables(document: str) -> list[list[list[str]]]:
    """Every pipe table as rows of cells, by the rules of GitHub Flavored Markdown."""
    found: list[list[list[str]]] = [[]]
    for line in document.splitlines():
        if line.startswith("|"):
            assert line.endswith("|")
            found[-1].append([cell.strip() for cell in re.split(r"(?<!\\)\|", line[1:-1])])
        elif found[-1]:
            found.append([])
    return [table for table in found if table]


def test_tables_parse(evaluation: Evaluation, material: Material) -> None:
    found = tables(to_markdown(evaluation, material=material))
    assert len(found) == 2 * 4 + 2
    for table in found:
        header, rule, *rows = table
        assert all(re.fullmatch(r":?-{3,}:?", cell) for cell in rule)
        assert rows
        assert {len(row) for row in table} == {len(header)}


def test_the_matrix_holds_every_estimate(evaluation: Evaluation) -> None:
    document = to_markdown(evaluation)
    matrices = [table for table in tables(document) if table[0][0] == "query / gallery"]
    for direction, table in zip(evaluation.directions, matrices, strict=True):
        assert table[0][1:] == ["R@1", "R@5", "R@10", "mAP"]
        for system, row in zip(direction.scores, table[2:], strict=True):
            assert row[0].startswith(system)
            for metric, cell in zip(table[0][1:], row[1:], strict=True):
                expected = direction.scores[system].metrics[metric]
                assert cell.startswith(f"{percent(expected.value)} ({percent(expected.low)}–{percent(expected.high)})")


def test_hostile_words_stay_words(evaluation: Evaluation, material: Material) -> None:
    document = to_markdown(evaluation, material=material, title="a | b\n# c <img>")
    assert "<" not in document.replace("&lt;", "")
    assert document.startswith("# a \\| b # c &lt;img&gt;\n")
    assert "\\`code\\`" in document


def test_verdict_and_warnings_stand_first(evaluation: Evaluation) -> None:
    lines = to_markdown(evaluation).splitlines()
    assert lines[2].startswith("**Undecided.**")
    assert lines[8] == "> - 822 of 1,234 queries were fitted on."
    assert "- about 8,765 more queries would decide" in lines


def test_minimal(minimal: Evaluation) -> None:
    document = to_markdown(minimal)
    assert tables(document)
    assert "None" not in document
    assert "flips" not in document.split("## Words")[0]
    assert to_markdown(minimal) == document
