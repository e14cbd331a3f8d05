"""ctrl-C without a write cut in two."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from crossfade.encoding.progress import Meter

__all__ = ["first_interrupt"]


@contextmanager
def first_interrupt(meter: Meter) -> Iterator[threading.Event]:
    """Turn the first ctrl-C into an event, so that no write is cut in two; the second one stops at once."""
    event = threading.Event()
    mine = threading.current_thread() is threading.main_thread()
    if not mine or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield event
        return

    def note(number: int, frame: FrameType | None) -> None:
        event.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        meter.say("Stopping after this batch; press ctrl-C again to stop at once.")

    signal.signal(signal.SIGINT, note)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
