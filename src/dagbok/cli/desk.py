"""Asking people on the terminal while an execution goes on: what opens is asked at once, and the rest does not wait.

The picture of what runs gives way to a question, and comes back after it. A question that is closed meanwhile, by
somebody else or because its time is over, is taken back. What is left unanswered is not asked again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from dagbok import wire
from dagbok.app import Dagbok
from dagbok.cli import interview, questions
from dagbok.cli.questions import Question
from dagbok.cli.replies import Answer
from dagbok.cli.terminal import line, note
from dagbok.cli.watching import Watch
from dagbok.cli.words import shown_id
from dagbok.domain.records import Changes
from dagbok.domain.states import EXECUTION_ENDED
from dagbok.domain.values import Json
from dagbok.errors import Conflict
from dagbok.outside import open_diary
from dagbok.settings import Settings

Key = tuple[str, int]
Give = Callable[[Question, Answer], Awaitable[None]]


class Desk:
    """The questions of one execution that are open now, as far as this process has heard."""

    def __init__(self, execution_id: str, settings: Settings) -> None:
        self.execution_id = execution_id
        self._settings = settings
        self._open: dict[Key, Question] = {}
        self._left: set[Key] = set()
        self._heard = 0  # how many commits have opened or closed one
        self._changed = asyncio.Event()

    @contextmanager
    def hearing(self, dagbok: Dagbok) -> Iterator[None]:
        """Hear what the engine makes durable, until the end of the block."""
        unsubscribe = dagbok.scheduler.subscribe(self._hear)
        try:
            yield
        finally:
            unsubscribe()

    def _hear(self, _: object, changes: Changes) -> None:
        if changes.execution_id != self.execution_id:
            return
        self._heard += bool(changes.questions)
        for row in changes.questions:
            if row.closed_at is None:
                question = questions.of_row(row)
                self._open[question.key] = question
            else:
                self._open.pop((row.task_id, row.number), None)
        if changes.header.status in EXECUTION_ENDED:
            self._open.clear()
        self._changed.set()

    def take(self, steps: Iterable[wire.SubStep]) -> None:
        """Take in all sub-steps, as a server tells them."""
        found = (questions.of_step(step) for step in steps)
        self._open = {question.key: question for question in found if question is not None}
        self._changed.set()

    async def load(self) -> None:
        """Take in what is open by the diary. Raises StoreUnavailable."""
        heard = -1
        while heard != self._heard:  # what is heard meanwhile is newer than what is read
            heard = self._heard
            found = await asyncio.to_thread(self._read)
        self._open = {question.key: question for question in found}

    def _read(self) -> list[Question]:
        with open_diary(self._settings) as diary:
            return list(questions.load(diary, self.execution_id))

    async def see_to_here(self, dagbok: Dagbok, watch: Watch, *, by: str | None) -> None:
        """Ask what opens until the execution has ended here, or waits for what is left unanswered."""

        async def give(question: Question, answer: Answer) -> None:
            await dagbok.answer(self.execution_id, question.task_id, answer, number=question.number, by=by)

        await self.see_to(lambda: dagbok.service.wait(self.execution_id), give, watch)

    async def see_to(self, settle: Callable[[], Coroutine[Any, Any, object]], give: Give, watch: Watch) -> None:
        """Ask what opens until the execution has settled, by `settle`, and nothing is left to ask.

        Raises:
            DagbokError: What `settle` raises, or `give`, unless the question is closed by then.
        """
        while True:
            with watch.shown():
                settled = asyncio.ensure_future(settle())
                try:
                    await _first(settled, self._until(lambda: self._next() is not None))
                    if self._next() is None:
                        settled.result()
                        await self.load()  # what was open before anybody listened
                    if self._next() is None:
                        return
                finally:
                    await _given_up(settled)
            while (question := self._next()) is not None:
                await self._ask(question, give)
                self._left.add(question.key)  # whatever came of it: a look from before may have it still

    def _next(self) -> Question | None:
        return next((question for key, question in self._open.items() if key not in self._left), None)

    async def _until(self, true: Callable[[], bool]) -> None:
        while not true():
            self._changed.clear()
            await self._changed.wait()

    async def closed(self, question: Question) -> None:
        """Return once a question is not open any more."""
        await self._until(lambda: question.key not in self._open)

    async def _ask(self, question: Question, give: Give) -> None:
        """Ask a question until it is answered, left, or closed by others."""
        giving = False

        async def given(answer: Answer) -> None:
            nonlocal giving
            giving = True
            try:
                await give(question, answer)
            finally:
                giving = False

        asking = asyncio.ensure_future(interview.ask(question, given, lambda: self._params(question)))
        try:
            # It is closed by the very answer, too.
            await _first(asking, self._until(lambda: question.key not in self._open and not giving))
            if not asking.done():
                note(f"\n  {shown_id(question.task_id)} needs no answer any more: the question is closed.")
            elif isinstance(exc := asking.exception(), Conflict):  # somebody was faster, or its time was over
                note(f"  {line(exc.message, 500)}")
            else:
                asking.result()
        finally:
            await _given_up(asking)

    async def _params(self, question: Question) -> Json:
        def read() -> Json:
            with open_diary(self._settings) as diary:
                return questions.params(diary, self.execution_id, question)

        return await asyncio.to_thread(read)


async def _first(future: asyncio.Future[Any], other: Coroutine[Any, Any, None]) -> None:
    """Return once a future is done, or the other, which then goes no further."""
    waiting = asyncio.ensure_future(other)
    try:
        await asyncio.wait([future, waiting], return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
        with suppress(asyncio.CancelledError):
            await waiting


async def _given_up(future: asyncio.Future[Any]) -> None:
    """Let a future go no further."""
    future.cancel()
    await asyncio.gather(future, return_exceptions=True)
