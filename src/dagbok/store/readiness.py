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
        self._asked_at_s = 0.0  # when it began, by the loop's clock

    def expect(self) -> None:
        """Ask now, unless the answer is known, so that `ask` has less to wait for in a moment."""
        if not self._is_known() and (self._ping is None or self._ping.done()):
            loop = asyncio.get_running_loop()
            self._asked_at_s = loop.time()
            self._ping = loop.run_in_executor(self._thread, self._reader.ping)
            self._ping.add_done_callback(lambda ping: ping.cancelled() or ping.exception())  # perhaps nobody asks

    async def ask(self) -> bool:
        """Return whether the database answers in time, or did a moment ago."""
        if self._is_known():
            return True
        self.expect()
        assert self._ping is not None
        try:
            await asyncio.wait_for(asyncio.shield(self._ping), READY_TIMEOUT_S)
        except (StoreError, TimeoutError):
            return False
        return True

    def _is_known(self) -> bool:
        """Whether the last ping was answered, and was no longer ago than an answer holds."""
        ping = self._ping
        if ping is None or not ping.done() or ping.cancelled() or ping.exception() is not None:
            return False
        return asyncio.get_running_loop().time() - self._asked_at_s < READY_FOR_S

    def close(self) -> None:
        """Let the thread end. A ping under way is not waited for."""
        self._thread.shutdown(wait=False, cancel_futures=True)
