"""Waiting for an execution within a request: no polling, and no place of those who have something to do.

A request that waits costs two small tasks and a callback on the one future of its execution (`Scheduler.wait`). It ends
with whatever comes first: the execution ended or waits for a person, the time is over, the client went away, the engine
or the server stops.
"""

from __future__ import annotations

import asyncio
from typing import Final

from fastapi import Request
from starlette.requests import ClientDisconnect

from dagbok.api.guards import GIVE_WAY
from dagbok.service import Service

#: Requests that wait at once. Beyond, they are answered at once, as if their time were over.
MAX_WAITING: Final = 2_000


class Waiting:
    """The requests of one server that wait. For one event loop."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._waits: set[asyncio.Task[None]] = set()
        self._ended = False

    def __len__(self) -> int:
        return len(self._waits)

    def end(self) -> None:
        """Let all who wait be answered now, and nobody wait any more: the server stops."""
        self._ended = True
        for wait in self._waits:
            wait.cancel()

    async def settled(self, request: Request, execution_id: str, seconds: int) -> bool:
        """Wait for an execution; return whether it ended, waits for a person, or does not run here, within `seconds`.

        Which of these it is, its row tells: one that this process lost or left has not ended.

        Raises:
            ClientDisconnect: Nobody is left to be told.
        """
        if not seconds or self._ended or len(self._waits) >= MAX_WAITING:
            return False
        request.scope[GIVE_WAY]()
        wait = asyncio.ensure_future(self._service.wait(execution_id))
        gone = asyncio.ensure_future(_disconnect(request))
        self._waits.add(wait)
        try:
            await asyncio.wait([wait, gone], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if gone.done() and not wait.done():
                gone.result()  # or what was wrong with its body
                raise ClientDisconnect
            return wait.done() and not wait.cancelled()
        finally:
            self._waits.discard(wait)
            wait.cancel()
            gone.cancel()
            await asyncio.gather(wait, gone, return_exceptions=True)


async def _disconnect(request: Request) -> None:
    """Return once the client is gone. The body has been read; of a GET there is an empty one."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
