"""How far a long job is, on stderr: a bar on a terminal, a line now and then elsewhere; or a call of the user's own."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

__all__ = ["Meter", "Progress", "ProgressOption"]

_LINE_EVERY = 30.0  # seconds between two lines where there is no terminal


@dataclass(frozen=True, slots=True)
class Progress:
    """A moment of a job.

    Attributes:
        done: items that are finished, those of earlier runs included.
        total: items in all, where that is known.
        skipped: items left out because they are corrupt.
        seconds: since this run began.
        per_second: items a second in this run.
    """

    done: int
    total: int | None
    skipped: int
    seconds: float
    per_second: float

    @property
    def remaining(self) -> float | None:
        """Seconds until the end, where the total is known and the pace is too."""
        if self.total is None or self.per_second <= 0:
            return None
        return max(self.total - self.done - self.skipped, 0) / self.per_second


ProgressOption = bool | Callable[[Progress], None]


class Meter:
    """Shows progress while its block runs.

    Args:
        label: what is being done.
        show: true for stderr, false for silence, or what is called with each :class:`Progress`.
        total: items in all, where that is known.
    """

    def __init__(self, label: str, show: ProgressOption, *, total: int | None) -> None:
        self._label = label
        self._show = show
        self._total = total
        self._console = Console(stderr=True)
        self._bar: Bar | None = None
        self._start = time.monotonic()
        self._worked = 0
        self._last_line = self._start

    def __enter__(self) -> Self:
        self._start = self._last_line = time.monotonic()
        if self._show is True and self._console.is_terminal:
            rate = TextColumn("{task.fields[rate]}")
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), rate, TimeRemainingColumn())
            self._bar = Bar(*columns, console=self._console)
            self._task = self._bar.add_task(self._label, total=self._total, rate="")
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, done: int, *, worked: int, skipped: int) -> None:
        """Show a moment.

        Args:
            done: items finished, those of earlier runs included.
            worked: items finished in this run.
            skipped: items left out.
        """
        now = time.monotonic()
        first = self._worked == 0 < worked
        self._worked = worked
        rate = worked / (now - self._start) if now > self._start else 0.0
        moment = Progress(done, self._total, skipped, now - self._start, rate)
        if callable(self._show):
            self._show(moment)
        elif self._show:
            if first and moment.remaining is not None and moment.remaining > 1:
                self.say(
                    f"{self._label}: about {_duration(moment.remaining)} for {self._total} items, by the first batch"
                )
            if self._bar is not None:
                self._bar.update(self._task, completed=done + skipped, rate=f"{rate:.1f}/s")
            elif now - self._last_line >= _LINE_EVERY:
                self._last_line = now
                left = "" if moment.remaining is None else f", {_duration(moment.remaining)} left"
                self.say(f"{self._label}: {done} of {self._total or '?'}, {rate:.1f}/s{left}")

    def say(self, message: str) -> None:
        """Print a line, unless silent."""
        if self._show is True:
            if self._bar is not None:
                self._bar.console.print(message, highlight=False, markup=False)
            else:
                print(message, file=sys.stderr, flush=True)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
