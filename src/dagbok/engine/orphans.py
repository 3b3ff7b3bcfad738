"""Bodies that ended for the engine, but not yet for Python: cut off, and still on their way out."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

log = logging.getLogger("dagbok.engine")

#: How long they have to heed their cancellation when the engine closes.
GRACE_S: Final = 1.0


class Orphans:
    """Tasks that nobody waits for any more."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def take(self, task: asyncio.Task[None]) -> None:
        """Keep a task until it has ended."""
        if not task.done():
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def bury(self) -> None:
        """Let them end. One that swallows its cancellation must not keep the program from ending."""
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=GRACE_S)
        for task in self._tasks:
            log.warning("a tool did not end when it was cancelled; it is left behind: %s", task.get_coro())
            # `asyncio.run` waits for every task it knows of, for ever. This is how one leaves its books; see
            # https://docs.python.org/3/library/asyncio-extending.html#task-lifetime-support
            asyncio._unregister_task(task)
            task._log_destroy_pending = False  # type: ignore[attr-defined]  # it is no news that it is pending
