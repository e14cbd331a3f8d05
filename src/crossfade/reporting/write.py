"""write_report(): HTML, Markdown and JSON side by side."""

from __future__ import annotations

from pathlib import Path

from crossfade.evaluation.result import Evaluation
from crossfade.files import atomic_file, write_json
from crossfade.reporting.document import to_json
from crossfade.reporting.html import to_html
from crossfade.reporting.markdown import to_markdown
from crossfade.reporting.material import Material

__all__ = ["write_report"]


def write_report(
    evaluation: Evaluation, path: str | Path, *, material: Material | None = None, title: str | None = None
) -> Path:
    """Write the report; each file appears whole or not at all.

    Args:
        evaluation: what was found.
        path: a folder, which gets ``report.html``, ``report.md`` and ``report.json``; or the name of an .html file,
            beside which the .md and .json of the same name are put.
        material: what is shown beside the numbers.
        title: by default the two models' names.

    Returns:
        The HTML file.

    Raises:
        StorageError: a file could not be written.
    """
    place = Path(path)
    page = place if place.suffix.lower() in (".html", ".htm") else place / "report.html"
    document = to_html(evaluation, material=material, title=title)
    text = to_markdown(evaluation, material=material, title=title)
    values = to_json(evaluation, material=material, title=title)
    write_json(page.with_suffix(".json"), values)
    for target, content in ((page.with_suffix(".md"), text), (page, document)):
        with atomic_file(target) as temporary:
            temporary.write_text(content, encoding="utf-8")
    return page
