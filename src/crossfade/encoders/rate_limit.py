"""A token bucket: so many a minute, from this side."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from crossfade.errors import ConfigError

__all__ = ["TokenBucket"]


class TokenBucket:
    """Lets ``per_minute`` units through a minute, and at most that many at once.

    Args:
        per_minute: units a minute.
        clock: tells seconds.
        sleep: lets seconds pass.

    Attributes:
        waited: seconds spent waiting so far.
    """

    def __init__(
        self,
        per_minute: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if not per_minute > 0:
            raise ConfigError(f"A limit a minute must be above 0; found {per_minute}. Leave it out for no limit.")
        self._rate = per_minute / 60
        self._full = per_minute
        self._level = per_minute
        self._clock = clock
        self._sleep = sleep
        self._last = clock()
        self._lock = threading.Lock()
        self.waited = 0.0

    def take(self, units: int) -> None:
        """Wait until ``units`` are there, and take them; more than a minute's worth are paid off afterwards."""
        with self._lock:
            now = self._clock()
            self._level = min(self._full, self._level + (now - self._last) * self._rate)
            self._last = now
            short = min(units, self._full) - self._level
            wait = max(short / self._rate, 0.0)
            self._level -= units
            self.waited += wait
        if wait:
            self._sleep(wait)
