"""A sequence of versions in the terminal and as Markdown."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest
import sequences
from rich.console import Console

from crossfade.evaluation import ModelVersion, Relevance, SequenceEvaluation, evaluate_sequence
from crossfade.methods import Ridge
from crossfade.reporting import sequence_markdown, sequence_table
from crossfade.reporting.formatting import percent


@pytest.fixture(scope="module")
def found() -> SequenceEvaluation:
    world = sequences.versions((12, 14, 16), (0.9, 0.5, 0.2))
    train, test = slice(0, 200), slice(200, 300)
    adapters = [Ridge(penalty=1.0).fit(world.pairs(i, j, train)) for i, j in ((1, 0), (2, 1), (2, 0))]
    versions = [ModelVersion(world.part(v, test), world.part(v, test)) for v in range(3)]
    return evaluate_sequence(versions, adapters, relevant=Relevance.from_links(world.links), resamples=200)


def tables(document: str) -> list[list[list[str]]]:
    found: list[list[list[str]]] = [[]]
    for line in document.splitlines():
        if line.startswith("|"):
            found[-1].append([cell.strip() for cell in re.split(r"(?<!\\)\|", line[1:-1])])
        elif found[-1]:
            found.append([])
    return [table for table in found if table]


def test_every_cell_and_every_chain_stands_in_the_markdown(found: SequenceEvaluation) -> None:
    document = sequence_markdown(found)
    parsed = tables(document)
    assert len(parsed) == 3 * len(found.directions)
    for direction, (matrix, chains, growth) in zip(
        found.directions, zip(*[iter(parsed)] * 3, strict=True), strict=True
    ):
        assert matrix[0][1:] == ["v1", "v2", "v3"]
        for cell in direction.cells:
            shown = matrix[1 + cell.newer][cell.older]
            assert shown.startswith(percent(cell.score.value) + " (")
            if cell.gain is not None:
                assert ("▲" in shown) == (cell.gain.low > 0)
                assert ("▼" in shown) == (cell.gain.high < 0)
        assert matrix[2][2:] == ["", ""]
        (only,) = chains[2:]
        assert only[0] == "v3 → v2 → v1"
        assert growth[2][:2] == ["2", "1"]
        assert f"{direction.name}: AC {direction.compatibility.value:.2f}" in document
        assert {len(row) for row in matrix} == {4}


def test_the_terminal_shows_the_same_figures_and_warnings_first(found: SequenceEvaluation) -> None:
    warned = replace(found, warnings=("3 queries leak.",))
    console = Console(file=io.StringIO(), width=140)
    console.print(sequence_table(warned))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert shown.index("3 queries leak.") < shown.index("text→image")
    for direction in found.directions:
        for cell in direction.cells:
            assert percent(cell.score.value) in shown
    assert "v3 → v2 → v1" in shown
    assert "AM" in shown


def test_a_version_s_name_stays_a_name(found: SequenceEvaluation) -> None:
    hostile = replace(found, versions=("a | b", "[bold]c", "<img>"))
    document = sequence_markdown(hostile)
    assert "a \\| b" in document
    assert "\\<img>" in document
    assert {len(row) for row in tables(document)[0]} == {4}
    console = Console(file=io.StringIO(), width=200)
    console.print(sequence_table(hostile))
    assert "[bold]c" in console.file.getvalue()  # type: ignore[attr-defined]


def test_without_chains_there_is_only_the_matrix(found: SequenceEvaluation) -> None:
    bare = replace(
        found,
        directions=tuple(
            replace(d, cells=tuple(replace(c, chain=None) for c in d.cells), growth=()) for d in found.directions
        ),
    )
    assert len(tables(sequence_markdown(bare))) == len(found.directions)
