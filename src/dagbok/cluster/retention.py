"""Deletes in the background what ended long ago, and lets everybody else write in between.

Each batch goes through the engine's one writer: so it is this engine's, or nobody's any more, and an outage makes it
wait like every other write. Between two batches comes a pause that is longer than the batch took, and that no burst of
work makes shorter. All times are the engine's.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Final, Protocol

from dagbok.engine.ports import Clock
from dagbok.store.retention import Place, Pruned

log = logging.getLogger("dagbok.retention")

DAY_MS: Final = 86_400_000
#: Between two looks: a part of the retention itself, within these bounds.
_PARTS: Final = 24
_LEAST_MS: Final = 60_000
_MOST_MS: Final = 3_600_000
#: Between two batches, and how many times as long as the batch took, at least.
PAUSE_S: Final = 0.05
_SHARE: Final = 9.0


class PruningJournal(Protocol):
    """The part of the journal that deletes."""

    def prune(self, before_ms: int, *, after: Place | None = None) -> asyncio.Future[Pruned]:
        """Delete a few executions that ended before that time, behind those of the batch before."""
        ...


class Retention:
    """Keeps executions for so many days after their end. For one event loop."""

    def __init__(self, journal: PruningJournal, clock: Clock, *, days: float) -> None:
        self._journal = journal
        self._clock = clock
        self._keep_ms = round(days * DAY_MS)
        self._every_ms = min(max(self._keep_ms // _PARTS, _LEAST_MS), _MOST_MS)
        self._told = False  # of an error, since it last went well
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin now, and look again from time to time."""
        self._task = asyncio.get_running_loop().create_task(self._go_on())

    async def close(self) -> None:
        """Begin no more batches. One under way is the journal's to end."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _go_on(self) -> None:
        while True:
            try:
                await self._sweep(self._clock.now_ms() - self._keep_ms)
                self._told = False
            except Exception as exc:
                # It is tried again at the next look; what it cannot delete today harms nobody.
                log.log(logging.DEBUG if self._told else logging.WARNING, "old executions cannot be deleted: %r", exc)
                self._told = True
            await self._until(self._clock.now_ms() + self._every_ms)

    async def _sweep(self, before_ms: int) -> None:
        """Delete all that ended before that time."""
        deleted, last = 0, None
        try:
            while True:
                began = time.monotonic()
                pruned = await self._journal.prune(before_ms, after=last)
                deleted += pruned.executions
                if (last := pruned.last) is None:
                    return
                await self._pause(max(PAUSE_S, _SHARE * (time.monotonic() - began)))
        finally:
            if deleted:
                log.info("deleted %d executions that ended more than %g days ago", deleted, self._keep_ms / DAY_MS)

    async def _until(self, time_ms: int) -> None:
        rung = asyncio.Event()
        timer = self._clock.call_at(time_ms, rung.set)
        try:
            await rung.wait()
        finally:
            timer.cancel()

    async def _pause(self, seconds: float) -> None:
        rung = asyncio.Event()
        timer = self._clock.call_later(seconds, rung.set)
        try:
            await rung.wait()
        finally:
            timer.cancel()
