"""Write the pages of the documentation that the code itself knows best: ``docs/cli.md`` and ``docs/benchmarks.md``.

``python docs/generate.py`` writes them, ``python docs/generate.py --check`` fails where they are out of date.
"""

from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path
from typing import Any

import click
import typer

DOCS = Path(__file__).parent
ROOT = DOCS.parent


def cli_page() -> str:
    """The command line reference, from the command line itself."""
    from crossfade.cli import app as home

    command = typer.main.get_command(home.app)
    assert isinstance(command, click.Group)
    lines = [
        "# Command line",
        "",
        "Results go to stdout, progress and errors to stderr; `--json` makes the result one JSON document.",
        "Shell completion: `crossfade --install-completion`.",
        "",
        "| exit code | meaning |",
        "|---|---|",
        "| 0 | done; for `evaluate` and `run`: compatible; for `fingerprint` of two: the same space |",
        "| 2 | wrong usage |",
        f"| {home.BAD_INPUT} | bad input: the message gives the rule, the value found and the way out |",
        "| 10 | `evaluate`, `run`: not compatible; `fingerprint` of two: different spaces |",
        "| 11 | undecided at this number of queries |",
        f"| {home.INTERRUPTED} | interrupted; run the same command again to go on |",
    ]
    for name in command.list_commands(click.Context(command)):
        verb = command.commands[name]
        context = click.Context(verb, info_name=f"crossfade {name}")
        usage = " ".join(verb.collect_usage_pieces(context))
        lines += [
            "",
            f"## crossfade {name}",
            "",
            inspect.cleandoc(verb.help or ""),
            "",
            "```",
            f"crossfade {name} {usage}",
            "```",
            "",
        ]
        lines += ["| option | default | meaning |", "|---|---|---|"]
        lines += [_option(parameter) for parameter in verb.params]
    return "\n".join(lines) + "\n"


def _option(parameter: Any) -> str:
    option = parameter.param_type_name == "option"
    names = ", ".join(f"`{name}`" for name in parameter.opts) if option else f"`{parameter.name.upper()}`"
    choices = [str(choice) for choice in getattr(parameter.type, "choices", None) or ()]
    help_ = " ".join([parameter.help or "", f"({' | '.join(choices)})" if choices else ""]).strip().replace("|", "\\|")
    default = "" if parameter.default in (None, False, []) else f"`{parameter.default}`"
    return f"| {names} | {'required' if parameter.required else default} | {help_} |"


def benchmarks_page() -> str:
    """The newest run of every benchmark that has written its result."""
    lines = [
        "# Benchmarks",
        "",
        "Each is `python -m benchmarks.NAME.run`; `make bench` runs them all. The tables are the newest recorded runs.",
    ]
    for path in sorted((ROOT / "benchmarks").glob("*/result.json")):
        runs = json.loads(path.read_text(encoding="utf-8"))
        run = runs[-1] if isinstance(runs, list) else runs
        readme = path.parent / "README.md"
        lines += ["", f"## {path.parent.name}", ""]
        if readme.exists():
            lines += [readme.read_text(encoding="utf-8").partition("\n")[2].strip(), ""]
        if "processor" in run:
            lines += [
                f"*{run['date']}, {run['processor']}, {run['cores']} cores, NumPy {run['versions']['numpy']}.*",
                "",
            ]
        lines += _table(run.get("results", {}))
    return "\n".join(lines) + "\n"


def _table(results: Any) -> list[str]:
    """Rows of figures as a table; anything deeper as it is recorded."""
    if isinstance(results, dict) and results and all(not isinstance(v, dict | list) for v in results.values()):
        return [
            "| figure | value |",
            "|---|---|",
            *(f"| {name} | {_figure(value)} |" for name, value in results.items()),
        ]
    if isinstance(results, list) and results and all(isinstance(row, dict) for row in results):
        names = list(results[0])
        head = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
        return head + ["| " + " | ".join(_figure(row.get(name)) for name in names) + " |" for row in results]
    return ["```json", json.dumps(results, indent=1, ensure_ascii=False), "```"]


def _figure(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


PAGES = {"cli.md": cli_page, "benchmarks.md": benchmarks_page}


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
