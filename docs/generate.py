"""Write the pages of the documentation that the code itself knows best: ``docs/cli.md``, ``docs/benchmarks.md`` and
``docs/ablations.md``.

``python docs/generate.py`` writes them, ``python docs/generate.py --check`` fails where they are out of date.
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import typer

DOCS = Path(__file__).parent
ROOT = DOCS.parent


def cli_page() -> str:
    """The command line reference, from the command line itself."""
    from crossfade.cli import app as home

    lines = [
        "# Command line",
        "",
        "Results go to stdout, progress and errors to stderr; `--json` makes the result one JSON document.",
        "Shell completion: `crossfade --install-completion`.",
        "",
        "| exit code | meaning |",
        "|---|---|",
        "| 0 | done; for `evaluate` and `run`: compatible; for `fingerprint` of two: the same space |",
        "| 2 | wrong usage; for `reproduce`: something that it needs is not on this machine |",
        f"| {home.BAD_INPUT} | bad input: the message gives the rule, the value found and the way out |",
        "| 10 | `evaluate`, `run`: not compatible; `fingerprint` of two: different spaces |",
        "| 11 | undecided at this number of queries |",
        f"| {home.INTERRUPTED} | interrupted; run the same command again to go on (`train`: with `--resume`) |",
    ]
    for name, verb in _verbs(home.app):
        assert verb.callback is not None
        hints = get_type_hints(verb.callback, include_extras=True)
        parameters = inspect.signature(verb.callback).parameters.values()
        rows = [_row(p.name, hints[p.name], p.default) for p in parameters]
        words = [row.usage for row in rows if row.usage]
        lines += ["", f"## crossfade {name}", "", inspect.cleandoc(verb.callback.__doc__ or ""), ""]
        lines += ["```", " ".join(["crossfade", name, *words, "[OPTIONS]"]), "```", ""]
        lines += ["| option | default | meaning |", "|---|---|---|", *(row.line for row in rows)]
    return "\n".join(lines) + "\n"


def _verbs(app: typer.Typer, group: str = "") -> Iterator[tuple[str, typer.models.CommandInfo]]:
    """Every verb with its name, those of a group after the others."""
    for verb in app.registered_commands:
        yield f"{group}{verb.name}", verb
    for inner in app.registered_groups:
        assert inner.typer_instance is not None
        yield from _verbs(inner.typer_instance, f"{inner.typer_instance.info.name} ")


@dataclass(frozen=True)
class _Row:
    """A parameter: its line in the table, and its part in the usage where it is required."""

    line: str
    usage: str


def _row(name: str, hint: Any, default: object) -> _Row:
    kind, info = hint.__origin__, hint.__metadata__[0]
    option = isinstance(info, typer.models.OptionInfo)
    # In an Annotated type, typer takes the first flag for the default.
    given = [info.default] if isinstance(info.default, str) and info.default.startswith("-") else []
    flags = [*given, *(info.param_decls or ())] or [f"--{name.strip('_').replace('_', '-')}"]
    required = default is inspect.Parameter.empty
    choices = [str(choice) for choice in get_args(kind)] if get_origin(kind) is Literal else []
    help_ = " ".join([info.help or "", f"({' | '.join(choices)})" if choices else ""]).strip().replace("|", "\\|")
    shown = "required" if required else "" if default is None or default is False else f"`{default}`"
    names = ", ".join(f"`{flag}`" for flag in flags) if option else f"`{name.upper()}`"
    usage = "" if not required else f"{flags[0]} …" if option else name.upper()
    return _Row(f"| {names} | {shown} | {help_} |", usage)


def benchmarks_page() -> str:
    """The newest run of every benchmark that has written its result."""
    lines = [
        "# Benchmarks",
        "",
        "Each is `python -m benchmarks.NAME.run`; `make bench` runs them all. Every table is from the newest recorded run "
        "that has it.",
    ]
    for path in sorted((ROOT / "benchmarks").glob("*/result.json")):
        runs = json.loads(path.read_text(encoding="utf-8"))
        readme = path.parent / "README.md"
        lines += ["", f"## {path.parent.name}"]
        if readme.exists():
            lines += ["", readme.read_text(encoding="utf-8").partition("\n")[2].strip()]
        for run, tables in _newest(runs if isinstance(runs, list) else [runs]):
            if "processor" in run:
                made = f"{run['date']}, {run['processor']}, {run['cores']} cores, NumPy {run['versions']['numpy']}."
                lines += ["", f"*{made}*"]
            for title, rows in tables.items():
                lines += ["", *([f"**{title}**", ""] if title else []), *_table(rows)]
    return "\n".join(lines) + "\n"


def _newest(runs: list[dict[str, Any]]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """The runs that a table is shown of, and these tables by title: each title of the newest run that has it."""
    found: list[tuple[dict[str, Any], dict[str, Any]]] = []
    seen: set[str] = set()
    for run in reversed(runs):
        shown = run.get("table") or run.get("results") or run.get("recalls") or {}
        tables = shown if isinstance(run.get("table"), dict) else {"": shown}
        if kept := {title: rows for title, rows in tables.items() if title not in seen}:
            found.append((run, kept))
            seen |= kept.keys()
    return found[::-1]


def ablations_page() -> str:
    """The newest sweep of every ablation, from the record of their experiments."""
    sys.path.insert(0, str(ROOT))
    from benchmarks.ablations.experiments import Record
    from benchmarks.ablations.table import page

    return page(Record())


def _table(results: Any) -> list[str]:
    """Rows of figures as a table; a deeper structure with one figure a line, under the names that lead to it."""
    if isinstance(results, list) and results and all(isinstance(row, dict) for row in results):
        names = list(results[0])
        head = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
        return head + ["| " + " | ".join(_figure(row.get(name)) for name in names) + " |" for row in results]
    return ["| figure | value |", "|---|---|", *(f"| {name} | {_figure(value)} |" for name, value in _leaves(results))]


def _leaves(value: Any, *names: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves(inner, *names, str(name))
    else:
        yield " · ".join(names), value


def _figure(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_figure, value))
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)


PAGES = {"cli.md": cli_page, "benchmarks.md": benchmarks_page, "ablations.md": ablations_page}


def main() -> int:
    """Write the pages, or check them."""
    stale = []
    for name, make in PAGES.items():
        path, text = DOCS / name, make()
        if "--check" in sys.argv:
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                stale.append(name)
        else:
            path.write_text(text, encoding="utf-8")
    if stale:
        print(f"out of date: {', '.join(stale)}; run python docs/generate.py", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
