"""Reports of an evaluation: one offline HTML file, Markdown, JSON, and a table in the terminal."""

from crossfade.reporting.console import evaluation_table
from crossfade.reporting.document import read_report, to_json
from crossfade.reporting.html import to_html
from crossfade.reporting.markdown import to_markdown
from crossfade.reporting.material import DirectionMaterial, Material, collect_material
from crossfade.reporting.sequences import sequence_markdown, sequence_table
from crossfade.reporting.write import write_report

__all__ = [
    "DirectionMaterial",
    "Material",
    "collect_material",
    "evaluation_table",
    "read_report",
    "sequence_markdown",
    "sequence_table",
    "to_html",
    "to_json",
    "to_markdown",
    "write_report",
]
