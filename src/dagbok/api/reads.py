"""Answers that are read from the diary: few at a time, and one read for all who wait for the same.

Threads are few, and everybody's: hundreds of clients that waited for one large execution want it in one moment, and
submissions would stand behind them. And each way to a thread and back costs as much as the read of a small execution,
so where many wait, a thread reads several of them at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context
from itertools import islice
from typing import Any, Final, NamedTuple

from fastapi import Request, Response

from dagbok.api import answers
from dagbok.api.headers import accepts_gzip

#: Reads at once, fewer than the default executor has threads (5 on one processor).
MAX_READS: Final = 4
#: What one thread reads at once at most: all of them are answered after the last.
MAX_TOGETHER: Final = 8

#: The status of an execution, and the execution as an answer.
Whole = tuple[str, Response]


class _Read(NamedTuple):
    """A read that has not begun, and what those who wait for it are told."""

    make: Callable[[], Whole]
    gzip: bool
    told: asyncio.Future[Whole]


class Reads:
    """The reads of one server. For one event loop."""

    def __init__(self) -> None:
        self._places = asyncio.Semaphore(MAX_READS)
        self._next: dict[tuple[str, bool], _Read] = {}  # those that have not begun
        self._tasks: set[asyncio.Task[None]] = set()
        self._beginning = False

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
        gzip = accepts_gzip(request.headers)
        read = self._next.get((execution_id, gzip))
        if read is None:
            read = _Read(make, gzip, asyncio.get_running_loop().create_future())
            self._next[execution_id, gzip] = read
            if not self._beginning:
                self._beginning = True
                self._start(self._begin())
        return await asyncio.shield(read.told)  # others share it: one who leaves does not end it

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        # In a context of its own: no line of the log carries the id of another's request.
        task = asyncio.get_running_loop().create_task(work, context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _begin(self) -> None:
        """Begin each read in its turn, as places become free."""
        while self._next:
            await self._places.acquire()
            # As many as leave none for the other places, in their order.
            keys = list(islice(self._next, min(MAX_TOGETHER, -(-len(self._next) // MAX_READS))))
            self._start(self._read([self._next.pop(key) for key in keys]))
        self._beginning = False

    async def _read(self, reads: list[_Read]) -> None:
        try:
            made = await asyncio.to_thread(lambda: [_packed(read) for read in reads])
            for read, found in zip(reads, made, strict=True):
                if isinstance(found, Exception):
                    read.told.set_exception(found)
                else:
                    read.told.set_result(found)
        finally:
            self._places.release()
            for read in reads:
                read.told.cancel()  # where this was: the server ends


def _packed(read: _Read) -> Whole | Exception:
    try:
        status, response = read.make()
        return status, answers.pack(response, gzip=read.gzip)
    except Exception as exc:  # for those alone who wait for this one
        return exc
