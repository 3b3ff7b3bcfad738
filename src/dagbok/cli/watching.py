"""What is shown of executions while they run: plain lines, or a picture where stderr is a terminal."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final

from dagbok.app import Dagbok
from dagbok.cli import render
from dagbok.cli.beside import server_url
from dagbok.cli.progress import Now, Progress, Whole, of_changes, of_execution, print_lines
from dagbok.cli.terminal import is_terminal, line, note
from dagbok.cli.words import span
from dagbok.client import AsyncClient
from dagbok.domain.execution import Execution
from dagbok.domain.records import Changes
from dagbok.errors import StoreUnavailable
from dagbok.settings import Settings

#: Between two looks at how it comes along.
_LOOK_S: Final = 0.2
#: How long a server that went away is looked for; the longest pause between two looks; the longest one of them takes.
PATIENCE_S: Final = 60.0
_LONGEST_PAUSE_S: Final = 5.0
_ANSWER_S: Final = 15.0


class Watch:
    """Executions by id, each with its progress."""

    def __init__(self, *, quiet: bool, several: bool = False) -> None:
        """Watch nothing yet; of `several` a picture has a line each, and plain lines say whose they are."""
        self.quiet = quiet
        self.progress: dict[str, Progress] = {}
        self._several = several
        self._picture = not quiet and is_terminal(sys.stderr)

    def add(self, execution_id: str, title: str, total: int, known: tuple[list[Now], Whole] | None = None) -> Progress:
        """Watch one more, of which `known` is no news."""
        label = render.short_id(execution_id) if self._several else ""
        title = line(title)
        progress = Progress(total, title=title, started_ms=round(time.time() * 1000), label=label)
        if known is not None:
            progress.know(*known)
        if not self.quiet and not self._picture:
            progress.on_lines = lambda lines: print_lines(progress, lines)
        self.progress[execution_id] = progress
        return progress

    @contextmanager
    def hearing(self, dagbok: Dagbok) -> Iterator[None]:
        """Hear what the engine makes durable, until the end of the block."""
        unsubscribe = dagbok.scheduler.subscribe(self._hear)
        try:
            yield
        finally:
            unsubscribe()

    def _hear(self, execution: Execution, changes: Changes) -> None:
        if (progress := self.progress.get(execution.id)) is not None:
            progress.take(*of_changes(execution, changes))

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Draw what is watched until the end of the block; where there is no terminal, name it and leave the rest."""
        if not self._picture or not self.progress:
            if not self.quiet:
                for execution_id, progress in self.progress.items():
                    note(f"{execution_id}  {line(progress.title, 100)}".rstrip())
            yield
            return
        from dagbok.cli.live import drawn

        with drawn(render.console(sys.stderr), list(self.progress.values())):
            yield

    def tell(self, words: str) -> None:
        """Say something about all that is watched, unless only results are wanted."""
        if not self.quiet:
            note(words)

    @property
    def bodies(self) -> bool:
        """Whether anything runs now that would have to be cut off."""
        under_way = (step for progress in self.progress.values() for step in progress.snapshot()[0])
        return any(step.next_ms is None for step in under_way)


async def follow(url: str, execution_id: str, watch: Watch, settings: Settings) -> bool:
    """Return True once the execution ended or waits for a person; False: its server is away for longer than is waited.

    A server that restarts goes on with it, at another address perhaps.
    """
    with watch.shown():
        while True:
            try:
                async with AsyncClient(url) as client:
                    await _follow(client, execution_id, watch)
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


def title_of(document: Mapping[str, Any], title: str | None) -> str:
    """Return how a plan is called while it runs."""
    return str(title or document.get("title") or document.get("original_request") or "")
