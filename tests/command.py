"""The command line in this process: quicker than a process of its own where nothing has to be killed."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import pytest

from crossfade.cli import main


@dataclass(frozen=True)
class Done:
    """What a command said and how it left."""

    code: int
    out: str
    err: str


def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: object, code: int = 0) -> Done:
    """Run ``crossfade ARGUMENTS``, and require its exit code."""
    monkeypatch.setattr(sys, "argv", ["crossfade", *map(str, arguments)])
    found = 0
    capsys.readouterr()
    try:
        main()
    except SystemExit as left:
        found = int(left.code or 0)
    said = capsys.readouterr()
    assert found == code, f"exit code {found}\n{said.out}\n{said.err}"
    assert "Traceback" not in said.err
    return Done(found, said.out, said.err)
