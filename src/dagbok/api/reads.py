"""Answers that are read from the diary: few at a time, and one read for all who wait for the same.

Threads are few, and everybody's: hundreds of clients that waited for one large execution want it in one moment, and
submissions would stand behind them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from fastapi import Request, Response

from dagbok.api import answers
from dagbok.api.headers import accepts_gzip

#: Reads at once, fewer than the default executor has threads (5 on one processor).
MAX_READS: Final = 4

#: The status of an execution, and the execution as an answer.
Whole = tuple[str, Response]


class Reads:
    """The reads of one server. For one event loop."""

    def __init__(self) -> None:
        self._places = asyncio.Semaphore(MAX_READS)
        self._next: dict[tuple[str, bool], asyncio.Task[Whole]] = {}  # those that have not begun

    async def made(self, request: Request, make: Callable[[], Response]) -> Response:
        """Return what `make` returns, called and packed in a thread."""
        gzip = accepts_gzip(request.headers)
        async with self._places:
            return await asyncio.to_thread(lambda: answers.pack(make(), gzip=gzip))

    async def whole(self, request: Request, execution_id: str, make: Callable[[], Whole]) -> Whole:
        """Return what `make` returns for an execution, packed; one call for all who ask before it begins.

        Nobody joins a read under way, because it may not see what its client knows to be written. The answer is
        shared: make another of it with `answers.again`.
        """
        key = (execution_id, accepts_gzip(request.headers))
        task = self._next.get(key)
        if task is None:
            task = self._next[key] = asyncio.ensure_future(self._read(key, make))
        return await asyncio.shield(task)  # others share it: one who leaves does not end it

    async def _read(self, key: tuple[str, bool], make: Callable[[], Whole]) -> Whole:
        def packed() -> Whole:
            status, response = make()
            return status, answers.pack(response, gzip=key[1])

        try:
            await self._places.acquire()
        finally:
            del self._next[key]
        try:
            return await asyncio.to_thread(packed)
        finally:
            self._places.release()
