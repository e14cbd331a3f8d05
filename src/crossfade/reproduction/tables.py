"""Measured recalls beside the published ones, in the terminal."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from crossfade.reproduction.published import PUBLISHED, SOURCE
from crossfade.reproduction.run import LABELS, WAYS, Reproduction

__all__ = ["print_reproduction", "reproduction_table"]

WIDTH = 150
"""Columns that a table takes where stdout is a file or a pipe, which has no width of its own."""


def reproduction_table(result: Reproduction) -> RenderableType:
    """R@1 of every system on every data set, each published row under the measured one, then the notes."""
    sets = list(result.sizes)
    title = f"{result.pair}: R@1 in percent, image→text / text→image"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="dim")
    table.add_column("", no_wrap=True)
    for name in sets:
        size = result.sizes[name]
        table.add_column(f"{name}\n{size['images']:,} / {size['texts']:,}", justify="right", no_wrap=True)
    table.add_column("mean", justify="right", no_wrap=True)
    published = {row.system: row for row in PUBLISHED[result.pair]}
    for system, label in LABELS.items():
        if system in result.recalls:
            cells = {name: _both(result.recalls[system][name]) for name in sets}
            table.add_row(Text(label), *_cells(cells))
        if system in published:
            row = published[system]
            table.add_row(Text(f"  published: {row.label}"), *_cells({n: row.recalls[n] for n in sets}), style="dim")
    lines = [f"Published rows: {SOURCE}; means are over the columns shown.", *result.notes]
    return Group(table, Text(), *(Text(f"• {line}", style="dim") for line in lines))


def print_reproduction(result: Reproduction) -> None:
    """Print the table on stdout, in full where it is no terminal."""
    console = Console()
    console = console if console.is_terminal else Console(width=WIDTH)
    console.print(reproduction_table(result))


def _both(recalls: Mapping[str, float]) -> tuple[float, float]:
    (first, second) = (recalls[f"{asked}→{stored} R@1"] for asked, stored in WAYS)
    return first, second


def _cells(values: Mapping[str, tuple[float, float]]) -> list[Text]:
    every = [value for pair in values.values() for value in pair]
    cells = [f"{first:.2f} / {second:.2f}" for first, second in values.values()]
    return [Text(cell) for cell in (*cells, f"{sum(every) / len(every):.2f}")]
