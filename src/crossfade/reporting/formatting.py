"""Numbers as a reader sees them: shares in percent with one decimal, differences in points with their sign."""

from __future__ import annotations

from crossfade.evaluation.result import Estimate

__all__ = ["count", "interval", "percent", "points", "points_interval"]


def percent(value: float) -> str:
    """0.1034 → ``10.3``, never ``-0.0``, and ``> 999.9`` for what a ratio to nearly nothing gives; without the unit."""
    if abs(value) >= 10:
        return "> 999.9" if value > 0 else "< −999.9"
    return _tidy(f"{100 * value:.1f}")


def points(value: float) -> str:
    """A difference of shares: 0.047 → ``+4.7``."""
    text = _tidy(f"{100 * value:+.1f}")
    return "0.0" if text == "+0.0" else text


def interval(estimate: Estimate) -> str:
    """``9.1–11.6``; with *to* instead of the dash where a bound is negative."""
    return _span(percent(estimate.low), percent(estimate.high))


def points_interval(estimate: Estimate) -> str:
    """``+2.1 to +7.3``."""
    return f"{points(estimate.low)} to {points(estimate.high)}"


def count(number: int) -> str:
    """12345 → ``12,345``."""
    return f"{number:,}"


def _tidy(text: str) -> str:
    return "0.0" if text in ("-0.0", "+0.0") else text.replace("-", "−")


def _span(low: str, high: str) -> str:
    return f"{low} to {high}" if "−" in low + high or ">" in high else f"{low}–{high}"
