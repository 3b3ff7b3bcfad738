"""Following an execution that a server runs: how it comes along, what it asks, and where it is after a restart."""

from __future__ import annotations

import asyncio
import time
from contextlib import nullcontext, suppress
from typing import Final

from dagbok.cli.beside import server_url
from dagbok.cli.desk import Desk
from dagbok.cli.progress import of_execution
from dagbok.cli.questions import Question
from dagbok.cli.replies import Answer
from dagbok.cli.watching import Watch
from dagbok.cli.words import span
from dagbok.client import AsyncClient
from dagbok.errors import StoreUnavailable
from dagbok.settings import Settings

#: Between two looks at how it comes along.
_LOOK_S: Final = 0.2
#: How long a server that went away is looked for; the longest pause between two looks; the longest one of them takes.
PATIENCE_S: Final = 60.0
_LONGEST_PAUSE_S: Final = 5.0
_ANSWER_S: Final = 15.0


async def follow(
    url: str, execution_id: str, watch: Watch, settings: Settings, *, desk: Desk | None = None, by: str | None = None
) -> bool:
    """Return True once the execution ended or waits for a person; False: its server is away for longer than is waited.

    A server that restarts goes on with it, at another address perhaps. What opens meanwhile is asked at the `desk`, if
    there is one, and answered in the name of `by`.
    """
    with watch.shown() if desk is None else nullcontext():
        while True:
            try:
                async with AsyncClient(url) as client:
                    await (_follow(client, execution_id, watch) if desk is None else _ask(client, watch, desk, by))
                return True
            except StoreUnavailable as exc:
                away = exc.message
            watch.tell(f"The server is away: {away} Looking for it for {span(PATIENCE_S * 1000)}.")
            found = await _look_for(url, execution_id, settings)
            if found is None:
                return False
            url = found
            watch.tell(f"The server is back, at {url}.")


async def _follow(client: AsyncClient, execution_id: str, watch: Watch) -> None:
    """Return once the execution ended or waits for a person. The server tells when; looks in between are for show."""
    progress = watch.progress[execution_id]
    settled = asyncio.ensure_future(client.wait(execution_id))
    try:
        while not (watch.quiet or settled.done()):
            asked_at = time.monotonic()
            progress.take(*of_execution(await client.get(execution_id)))
            # A large execution takes the server a while to tell; most of its time is for running it.
            await asyncio.wait([settled], timeout=max(_LOOK_S, 5 * (time.monotonic() - asked_at)))
        progress.take(*of_execution(await settled))
    finally:
        settled.cancel()
        await asyncio.gather(settled, return_exceptions=True)


async def _ask(client: AsyncClient, watch: Watch, desk: Desk, by: str | None) -> None:
    """Return once the execution ended or waits for a person, and nothing is left to ask."""
    looking = asyncio.ensure_future(_look(client, watch, desk))

    async def settle() -> None:
        settled = asyncio.ensure_future(client.wait(desk.execution_id))
        try:
            await asyncio.wait([settled, looking], return_when=asyncio.FIRST_COMPLETED)
            if not settled.done():
                looking.result()
            watch.progress[desk.execution_id].take(*of_execution(await settled))
        finally:
            settled.cancel()
            await asyncio.gather(settled, return_exceptions=True)

    async def give(question: Question, answer: Answer) -> None:
        await client.answer(desk.execution_id, question.task_id, answer, number=question.number, by=by)
        with suppress(TimeoutError):  # durable it is; whether the execution has settled is told only once it is applied
            await asyncio.wait_for(desk.closed(question), _ANSWER_S)

    try:
        await desk.see_to(settle, give, watch)
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)


async def _look(client: AsyncClient, watch: Watch, desk: Desk) -> None:
    """Look how it comes along, for ever."""
    while True:
        asked_at = time.monotonic()
        execution = await client.get(desk.execution_id)
        watch.progress[desk.execution_id].take(*of_execution(execution))
        desk.take(execution.sub_steps)
        await asyncio.sleep(max(_LOOK_S, 5 * (time.monotonic() - asked_at)))


async def _look_for(url: str, execution_id: str, settings: Settings) -> str | None:
    """Return where a server tells of the execution again; None: none does for `PATIENCE_S`."""
    until = time.monotonic() + PATIENCE_S
    pause_s = _LOOK_S
    while (left_s := until - time.monotonic()) > 0:
        await asyncio.sleep(min(pause_s, left_s))
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        with suppress(StoreUnavailable):  # the server, or the database, which says where the server is
            found = await asyncio.to_thread(server_url, settings)
            url = found or url
            async with AsyncClient(url, timeout_s=_ANSWER_S) as client:
                await client.get(execution_id)
            return url
    return None
