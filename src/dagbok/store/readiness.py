"""Whether the database answers now, asked in a thread of its own: behind other work a question looks unanswered."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from dagbok.errors import StoreError
from dagbok.store.queries import Reader

#: How long a question about readiness waits for the database.
READY_TIMEOUT_S = 2.0
#: How long an answer about readiness holds.
READY_FOR_S = 1.0


class Readiness:
    """Asks one database. Call it on one event loop."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._thread = ThreadPoolExecutor(1, "dagbok-ping")
        self._ping: asyncio.Future[None] | None = None  # the last; all who ask while it is under way share it
        self._answered_at_s = float("-inf")  # by the loop's clock

    async def ask(self) -> bool:
        """Return whether the database answers in time, or did a moment ago."""
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        if now_s - self._answered_at_s < READY_FOR_S:
            return True
        if self._ping is None or self._ping.done():
            self._ping = loop.run_in_executor(self._thread, self._reader.ping)
        try:
            await asyncio.wait_for(asyncio.shield(self._ping), READY_TIMEOUT_S)
        except (StoreError, TimeoutError):
            return False
        self._answered_at_s = now_s
        return True

    def close(self) -> None:
        """Let the thread end. A ping under way is not waited for."""
        self._thread.shutdown(wait=False, cancel_futures=True)
