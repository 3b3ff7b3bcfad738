"""The real clock: wall time that never goes back, and timers of the running loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


class SystemClock:
    """Wall time anchored to the monotonic clock, so that a clock set back an hour neither repeats nor stops time.

    A jump forward of more than a second (a laptop that slept) is followed.
    """

    def __init__(self) -> None:
        self._offset_s = time.time() - time.monotonic()

    def now_ms(self) -> int:
        """Return UTC milliseconds since 1970."""
        monotonic = time.monotonic()
        if time.time() - monotonic > self._offset_s + 1:
            self._offset_s = time.time() - monotonic
        return int((monotonic + self._offset_s) * 1000)

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        """Call `callback` on the running loop after `delay_s`."""
        return asyncio.get_running_loop().call_later(delay_s, callback)
