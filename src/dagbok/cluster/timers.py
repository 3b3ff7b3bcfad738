"""Brings back the executions that belong to nobody until they are due: one timer for all of them, however many wait.

The database knows who is due (`wake_at`); the timer is set for the earliest.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final, Protocol

from dagbok.domain.ids import ExecutionId
from dagbok.engine.ports import Clock, Timer
from dagbok.errors import StoreError

log = logging.getLogger("dagbok.cluster")

#: Before the database, which was away, is asked again.
RETRY_S: Final = 1.0
#: Taken over at a time.
BATCH: Final = 100

DueAt = tuple[int, ExecutionId]  # when, and which


class Due(Protocol):
    """The part of the reader that knows what is due. Synchronous; called from threads."""

    def due(self, now_ms: int, *, limit: int, after: DueAt | None = None) -> Sequence[DueAt]:
        """Return executions that belong to nobody and are due, in order, those behind `after`."""
        ...

    def next_wake_at(self, now_ms: int) -> int | None:
        """Return when the next one is due, of those that are not yet."""
        ...


class Timers:
    """Rings for parked executions. For one event loop."""

    def __init__(
        self, due: Due, clock: Clock, take_over: Callable[[Iterable[ExecutionId]], Awaitable[Sequence[ExecutionId]]]
    ) -> None:
        self._due = due
        self._clock = clock
        self._take_over = take_over
        self._timer: Timer | None = None
        self._wake_at: int | None = None  # what the timer is set for
        self._ringing: asyncio.Task[None] | None = None
        self._rung_again = False  # while it was ringing already
        self._closed = False

    def note(self, wake_at: int | None) -> None:
        """Take in that an execution was parked; None: nothing of it is ever due."""
        if wake_at is not None and not self._closed and (self._wake_at is None or wake_at < self._wake_at):
            self._set(wake_at)

    def start(self) -> None:
        """Find out what is due, and go on from there."""
        self._ring()

    def close(self) -> list[asyncio.Task[None]]:
        """Ring no more; return what is still under way, which ends soon."""
        self._closed = True
        self._unset()
        return [] if self._ringing is None else [self._ringing]

    def _set(self, wake_at: int) -> None:
        self._unset()
        self._wake_at = wake_at
        self._timer = self._clock.call_at(wake_at, self._ring)

    def _unset(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._wake_at = None

    def _ring(self) -> None:
        self._unset()
        if self._closed:
            return
        if self._ringing is not None and not self._ringing.done():
            self._rung_again = True
            return
        self._ringing = asyncio.get_running_loop().create_task(self._wake())

    async def _wake(self) -> None:
        self._rung_again = False
        try:
            next_at = await self._take_over_due()
        except StoreError as exc:
            log.debug("what is due cannot be read: %s", exc)
            next_at = self._clock.now_ms() + round(RETRY_S * 1000)
        except Exception:
            log.exception("what is due cannot be taken over; it is tried again")
            next_at = self._clock.now_ms() + round(RETRY_S * 1000)
        if not self._closed:
            self.note(self._clock.now_ms() if self._rung_again else next_at)

    async def _take_over_due(self) -> int | None:
        """Take over what is due, and return when more is. What cannot run here is tried again when that rings."""
        now_ms, last = self._clock.now_ms(), None
        while not self._closed and (due := await asyncio.to_thread(self._due.due, now_ms, limit=BATCH, after=last)):
            await self._take_over(id for _, id in due)
            last = due[-1]
        return await asyncio.to_thread(self._due.next_wake_at, now_ms)
