"""Lines, bars and silence."""

from __future__ import annotations

import pytest

from crossfade.encoding.progress import Meter, Progress


def test_the_time_that_remains() -> None:
    assert Progress(10, 40, 5, 5.0, 2.0).remaining == 12.5
    assert Progress(10, None, 0, 5.0, 2.0).remaining is None
    assert Progress(0, 40, 0, 0.0, 0.0).remaining is None
    assert Progress(41, 40, 0, 1.0, 1.0).remaining == 0


def test_the_cost_is_said_after_the_first_batch(capsys: pytest.CaptureFixture[str]) -> None:
    with Meter("Encoding", True, total=10**13) as meter:
        meter.update(1, worked=1, skipped=0)
        meter.update(2, worked=2, skipped=0)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("by the first batch") == 1
    assert "Encoding: about " in captured.err
    assert " h for 10000000000000 items" in captured.err


def test_lines_come_now_and_then(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crossfade.encoding.progress._LINE_EVERY", 0.0)
    with Meter("Encoding", True, total=None) as meter:
        meter.update(7, worked=7, skipped=0)
    assert "Encoding: 7 of ?, " in capsys.readouterr().err


def test_a_terminal_gets_a_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    with Meter("Encoding", True, total=4) as meter:
        meter.update(2, worked=2, skipped=1)
        meter.say("something [odd]")
    said = capsys.readouterr().err
    assert "3/4" in said
    assert "something [odd]" in said


def test_silence(capsys: pytest.CaptureFixture[str]) -> None:
    with Meter("Encoding", False, total=4) as meter:
        meter.update(4, worked=4, skipped=0)
        meter.say("nothing")
    assert capsys.readouterr() == ("", "")
