"""The report as Markdown: verdict, warnings, the matrix, flips, slices and provenance, for an issue or a model card."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from crossfade.evaluation.result import DirectionResult, Estimate, Evaluation, QueryChange
from crossfade.reporting.formatting import count, interval, percent, points, points_interval
from crossfade.reporting.headline import headline
from crossfade.reporting.html import crossfade_version, default_title
from crossfade.reporting.hubness import hubness_rows, hubness_words
from crossfade.reporting.material import DirectionMaterial, Material
from crossfade.reporting.matrix import matrix, metric_names
from crossfade.reporting.rivals import rival_rows
from crossfade.reporting.slices import slice_tables
from crossfade.reporting.spacetable import space_rows
from crossfade.reporting.systems import STYLES
from crossfade.reporting.words import GLOSSARY

__all__ = ["to_markdown"]

SIGNS = {"above": " ▲", "below": " ▼", "": ""}


def to_markdown(evaluation: Evaluation, *, material: Material | None = None, title: str | None = None) -> str:
    """The whole report without its pictures; the same input gives the same bytes."""
    drawn = material or Material()
    level = f"{100 * evaluation.level:g} %"
    lines = [f"# {_words(title or default_title(evaluation))}", ""]
    lines += [f"**{evaluation.verdict.outcome.capitalize()}.** {_words(headline(evaluation))}", ""]
    if len(evaluation.directions) > 1:
        lines += [_words(evaluation.verdict.sentence), ""]
    if evaluation.warnings:
        lines += ["> **Before you believe these numbers**", ">"]
        lines += [f"> - {_words(warning)}" for warning in evaluation.warnings]
        lines.append("")
    for direction in evaluation.directions:
        material_of = drawn.directions.get(direction.name, DirectionMaterial())
        lines += _direction(direction, material_of, level, evaluation.method)
    lines += ["## Method and spaces", "", f"Method: {_words(evaluation.method)}", ""]
    if evaluation.config:
        rows = [[name, json.dumps(value, ensure_ascii=False)] for name, value in evaluation.config.items()]
        lines += _table(["hyper-parameter", "value"], rows)
    lines += _table(["field", "old (target)", "new (source)"], [[r.name, r.old, r.new] for r in space_rows(evaluation)])
    lines += ["## Provenance", ""]
    lines += [f"- {_words(role)}: {_words(name)}" for role, name in drawn.data.items()]
    lines += [f"- {_words(note)}" for note in evaluation.notes]
    lines += [
        f"- intervals: {level}, paired bootstrap over queries, {count(evaluation.resamples)} resamples, "
        f"seed {evaluation.seed}",
        f"- crossfade {crossfade_version()}",
        "",
        "## Words",
        "",
    ]
    lines += [f"- **{word}**: {meaning}" for word, meaning in GLOSSARY]
    return "\n".join(lines) + "\n"


def _direction(direction: DirectionResult, drawn: DirectionMaterial, level: str, method: str) -> list[str]:
    verdict = direction.verdict
    lines = [f"## {_words(direction.name)}: {verdict.outcome}", "", _words(verdict.sentence), ""]
    if verdict.difference is not None:
        value, bounds = points(verdict.difference.value), points_interval(verdict.difference)
        lines.append(f"- {verdict.metric}, mapped/old − old/old: {value} points ({bounds})")
    if direction.gain is not None:
        lines.append(f"- share of the gap to a full re-index closed: {_estimate(direction.gain)} %")
    if direction.flips is not None:
        broken, mended = direction.flips.negative, direction.flips.positive
        lines.append(
            f"- queries broken at {direction.flips.metric}: {_estimate(broken)} %; mended: {_estimate(mended)} %"
        )
    if verdict.more_queries is not None:
        lines.append(f"- about {count(verdict.more_queries)} more queries would decide")
    lines += [
        f"- {count(direction.queries)} queries, {count(direction.gallery)} gallery items",
        "",
        f"Percent, with {level} intervals. ▲ surely above, ▼ surely below old/old.",
        "",
    ]
    rows = [
        [
            f"{row.system} ({STYLES[row.system].meaning})",
            *(f"{_estimate(c.estimate)}{SIGNS[c.mark]}" if c.estimate else "—" for c in row.cells),
        ]
        for row in matrix(direction)
    ]
    lines += _table(["query / gallery", *metric_names(direction)], rows)
    if rivals := rival_rows(direction, method):
        header = ["method", *metric_names(direction), f"{direction.metric} − old/old, points", "verdict"]
        body = [
            [
                row.method,
                *(_estimate(e) if e else "—" for e in row.estimates),
                f"{points(row.lead.value)} ({points_interval(row.lead)}){SIGNS[row.mark]}" if row.lead else "—",
                row.notes,
            ]
            for row in rivals
        ]
        lines += ["### Methods beside each other", "", *_table(header, body)]
    if direction.hubness is not None:
        header = ["query / gallery", *metric_names(direction), f"change in {direction.metric}, points"]
        body = [
            [
                row.system,
                *(_estimate(e) if e else "—" for e in row.estimates),
                f"{points(row.change.value)} ({points_interval(row.change)}){SIGNS[row.mark]}",
            ]
            for row in hubness_rows(direction)
        ]
        lines += ["### With a hubness correction, shown apart", "", f"{_words(hubness_words(direction.hubness))}.", ""]
        lines += _table(header, body)
    if direction.flips is not None:
        texts = {e.query.id: e.query.text for e in drawn.worse if e.query.text is not None}
        lines += _changes("Queries that fell furthest", direction.flips.worst, texts)
        lines += _changes("Queries that rose furthest", direction.flips.best, texts)
    for table in slice_tables(direction):
        header = [table.column, "queries", *table.systems]
        body = [
            [row.value, count(row.size), *(_estimate(e) if e else "—" for e in row.estimates(table.systems))]
            for row in table.rows
        ]
        lines += [f"### {direction.metric} by {_words(table.column)}", "", *_table(header, body)]
    return lines


def _changes(heading: str, changes: Sequence[QueryChange], texts: Mapping[str, str | None]) -> list[str]:
    if not changes:
        return []
    rows = [
        [
            c.id,
            texts.get(c.id) or "",
            count(c.old_rank),
            count(c.mapped_rank),
            "—" if c.new_rank is None else count(c.new_rank),
        ]
        for c in changes
    ]
    return [f"### {heading}", "", *_table(["query", "text", "old rank", "mapped rank", "re-indexed rank"], rows)]


def _estimate(estimate: Estimate) -> str:
    return f"{percent(estimate.value)} ({interval(estimate)})"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(_words(cell) for cell in cells) + " |"

    rule = "| " + " | ".join(["---"] + ["---:"] * (len(header) - 1)) + " |"
    return [line(header), rule, *(line(row) for row in rows), ""]


def _words(value: str) -> str:
    """Untrusted words on one line, with what Markdown or HTML in it would act on made harmless."""
    plain = " ".join(str(value).split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for sign in ("\\", "|", "`", "*", "[", "]"):
        plain = plain.replace(sign, "\\" + sign)
    return plain
