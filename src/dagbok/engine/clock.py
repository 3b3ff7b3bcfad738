"""The real clock: wall time that never goes back, and timers of the running loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

#: Timers of a loop do not notice that the machine's clock is set; they look at it that often.
LONGEST_NAP_S: Final = 30.0


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

    def call_at(self, time_ms: int, callback: Callable[[], None]) -> Alarm:
        """Call `callback` on the running loop once `now_ms` has come to `time_ms`."""
        return Alarm(self, time_ms, callback)


class Alarm:
    """Rings at a time, and naps until then."""

    def __init__(self, clock: SystemClock, time_ms: int, callback: Callable[[], None]) -> None:
        self._clock = clock
        self._time_ms = time_ms
        self._callback = callback
        self._nap()

    def cancel(self) -> None:
        """Ring no more."""
        self._timer.cancel()

    def _nap(self) -> None:
        left_s = max(0.0, (self._time_ms - self._clock.now_ms()) / 1000)
        self._timer = self._clock.call_later(min(left_s, LONGEST_NAP_S), self._wake)

    def _wake(self) -> None:
        if self._clock.now_ms() >= self._time_ms:
            self._callback()
        else:
            self._nap()
