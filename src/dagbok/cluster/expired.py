"""Closes the questions whose time is over: by a command each, of which many are written before what waits is applied.

A command, because an answer is one: whichever is written first counts, and no answer that was taken is dropped.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import islice
from typing import Final, NamedTuple

from dagbok.domain.ids import ExecutionId, TaskId
from dagbok.errors import Conflict, DagbokError, NotFound

log = logging.getLogger("dagbok.cluster")

#: Closed before what has become of them is applied: each time all commands that wait are read.
AT_ONCE: Final = 100


class Question(NamedTuple):
    """An open question."""

    execution_id: ExecutionId
    task_id: TaskId
    number: int


class Expired:
    """Questions that are to be closed, each once, however often that is said before it is done. For one event loop."""

    def __init__(self, write: Callable[[Question], Awaitable[object]], hear: Callable[[], Awaitable[None]]) -> None:
        self._write = write
        self._hear = hear
        self._left: dict[Question, None] = {}  # in order
        self._closing: asyncio.Task[None] | None = None

    def add(self, question: Question) -> asyncio.Task[None]:
        """Let a question be closed; return what does it."""
        self._left[question] = None
        if self._closing is None or self._closing.done():
            self._closing = asyncio.get_running_loop().create_task(self._close())
        return self._closing

    async def _close(self) -> None:
        while self._left:
            some = list(islice(self._left, AT_ONCE))
            await asyncio.gather(*map(self._tell, some))
            for question in some:
                del self._left[question]
            try:
                await self._hear()
            except DagbokError as exc:  # whoever listens tries it again
                log.warning("what became of questions whose time is over is applied later: %s", exc)

    async def _tell(self, question: Question) -> None:
        try:
            with suppress(Conflict, NotFound):  # it has its answer; it was deleted
                await self._write(question)
        except DagbokError as exc:  # it is said again in a moment, or by whoever runs the execution next
            log.warning("execution %s: question %s#%s is not closed yet: %s", *question, exc)
