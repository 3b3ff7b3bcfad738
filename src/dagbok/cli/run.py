"""`dagbok run`: one plan, from submission to its result, in this process or on the server that has the database.

Stopping is safe at any time: what is committed stays, and the last words say who goes on with the rest.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from dagbok.app import Dagbok, Vault, find_owner, make_registry, open_diary
from dagbok.cli import render, summary
from dagbok.cli.log import show_log
from dagbok.cli.plans import load_plan
from dagbok.cli.progress import Progress, of_changes, of_execution, print_lines
from dagbok.cli.terminal import is_terminal, line, note, redact_with, stdout_reserved
from dagbok.cli.validate import check_plan
from dagbok.cli.words import counted
from dagbok.client import AsyncClient
from dagbok.domain.execution import Execution
from dagbok.domain.ids import ExecutionId
from dagbok.domain.records import Changes
from dagbok.domain.states import ExecutionStatus
from dagbok.domain.values import Json
from dagbok.errors import Conflict, DagbokError, DatabaseInUse
from dagbok.settings import Settings

#: What a script may go by. 2 is for all that kept the plan from running.
EXIT_CODES: Final = {
    ExecutionStatus.COMPLETED: 0,
    ExecutionStatus.FAILED: 1,
    ExecutionStatus.PARTIAL: 3,
    ExecutionStatus.WAITING: 4,
    ExecutionStatus.CANCELLED: 5,
}
INTERRUPTED: Final = 130

#: Between two looks at how it comes along.
_LOOK_S = 0.2
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


@dataclass(slots=True)
class Asked:
    """What the command line asks for."""

    document: Json
    settings: Settings
    secrets: Vault
    title: str | None
    key: str | None  # of idempotency
    json: bool
    quiet: bool
    flags: dict[str, Any]  # of the engine, as given; a server has its own

    execution_id: ExecutionId | None = None  # known from the submission on
    server: str | None = None  # the URL of the server that runs it, if any
    progress: Progress | None = field(default=None, repr=False)


def run(
    source: str,
    *,
    title: str | None,
    key: str | None,
    json: bool,
    quiet: bool,
    settings: Settings,
    flags: dict[str, Any],
) -> int:
    """Run the plan of `source` and show how it goes; return the exit code.

    With an idempotency `key` that was used before, the execution of then is shown.

    Raises:
        BadInput, NotFound: The plan cannot be read or cannot run.
        Misconfigured, StoreError: There is no way to run it here.
    """
    secrets = Vault.take(settings)  # what tools start must not inherit them
    redact_with(secrets.redact)
    document = load_plan(source, max_bytes=settings.max_plan_bytes)
    asked = Asked(document, settings, secrets, title, key, json, quiet, flags)
    if _asks_first(document):
        summary.print_clarification(document)
        return EXIT_CODES[ExecutionStatus.WAITING]
    show_log(logging.WARNING)
    asked.server = _server(settings)
    try:
        with stdout_reserved():
            asyncio.run(_on_server(asked, asked.server) if asked.server else _here(asked))
    except KeyboardInterrupt:
        return _interrupted(asked)
    except DagbokError as exc:
        if asked.execution_id is not None:
            exc.message += f" {summary.how_to_go_on(asked.execution_id, asked.server)}"
        raise
    assert asked.execution_id is not None
    with open_diary(settings) as diary:
        stopped = summary.load(diary, asked.execution_id)
    summary.show(stopped, settings, json=json, quiet=quiet)
    return EXIT_CODES[stopped.execution.status]


def _asks_first(document: Json) -> bool:
    return isinstance(document, dict) and document.get("clarification_needed") is True


def _server(settings: Settings) -> str | None:
    """Return where the engine that has the database answers; None: there is none, or it answers to nobody."""
    owner = find_owner(settings)
    url = owner.get("url") if owner else None
    if not owner or not url:
        return None  # one without a URL is told of by its lock
    host = owner.get("host")
    if urlsplit(url).hostname in _LOOPBACK and host not in (None, socket.gethostname()):
        raise DatabaseInUse(
            f"The database is in use by a server on {host}, which answers at {url} there alone; run this on {host}, or "
            "stop it first.",
            owner=owner,
        )
    return url


# -- in this process --------------------------------------------------------------------------------------------------


async def _here(asked: Asked) -> None:
    settings = asked.settings
    registry = make_registry(settings)
    try:
        check_plan(asked.document, registry.schemas(), settings, asked.secrets)  # before a database is made for nothing
    finally:
        registry.close()
    async with (
        Dagbok(settings=settings, secrets=asked.secrets, recover=False, command="dagbok run") as dagbok,
        _says_stopping(settings),
    ):
        unfinished = await asyncio.to_thread(dagbok.service.unfinished)
        if unfinished and not asked.quiet:
            count = counted(len(unfinished), "unfinished execution")
            note(f"{count} from earlier; `dagbok serve` goes on with {'it' if len(unfinished) == 1 else 'them'}.")
        unsubscribe = dagbok.scheduler.subscribe(_listener(asked))
        try:
            submitted = await dagbok.submit(asked.document, title=asked.title, idempotency_key=asked.key)
            asked.execution_id = submitted.execution_id
            if submitted.replayed:
                await _worth_showing(dagbok, submitted.execution_id)
            asked.progress = _progress(asked, submitted.total_tasks)
            with _shown(asked):
                await dagbok.service.wait(submitted.execution_id)
        finally:
            unsubscribe()


async def _worth_showing(dagbok: Dagbok, execution_id: str) -> None:
    """Raise Conflict if an earlier `dagbok run` left this execution unfinished: nobody runs it now."""
    row = await asyncio.to_thread(dagbok.service.execution, execution_id)
    if row["status"] not in EXIT_CODES:
        raise Conflict(f"An earlier run with this key left execution {execution_id} {row['status']}.")


def _listener(asked: Asked) -> Callable[[Execution, Changes], None]:
    def hear(execution: Execution, changes: Changes) -> None:
        if asked.progress is not None and execution.id == asked.execution_id:
            asked.progress.take(of_changes(execution, changes))

    return hear


@asynccontextmanager
async def _says_stopping(settings: Settings) -> AsyncIterator[None]:
    try:
        yield
    except asyncio.CancelledError:
        note(f"Stopping: what runs has {settings.close_grace_s:g} s to end. Ctrl-C again stops at once.")
        logging.getLogger("dagbok").setLevel(logging.CRITICAL)  # that things are cut off is no news now
        raise


# -- on a server ------------------------------------------------------------------------------------------------------


async def _on_server(asked: Asked, url: str) -> None:
    if not asked.quiet:
        note(f"The server at {url} has the database and runs the plan.")
        ignored = ", ".join(f"--{name}" for name, value in asked.flags.items() if value)
        if ignored:
            note(f"It has its own settings: {ignored} changes nothing here.")
    async with AsyncClient(url) as client:
        answer = await client.submit(asked.document, title=asked.title, idempotency_key=asked.key)
        asked.execution_id = ExecutionId(answer.execution_id)
        asked.progress = _progress(asked, answer.total_tasks)
        with _shown(asked):
            await _followed(client, asked, asked.progress)


async def _followed(client: AsyncClient, asked: Asked, progress: Progress) -> None:
    """Return once the execution ended or waits for a person. The server tells when; looks in between are for show."""
    assert asked.execution_id is not None
    settled = asyncio.ensure_future(client.wait(asked.execution_id))
    try:
        while not (asked.quiet or settled.done()):
            asked_at = time.monotonic()
            progress.take(of_execution(await client.get(asked.execution_id)))
            # A large execution takes the server a while to tell; most of its time is for running it.
            await asyncio.wait([settled], timeout=max(_LOOK_S, 5 * (time.monotonic() - asked_at)))
        progress.take(of_execution(await settled))
    finally:
        settled.cancel()
        await asyncio.gather(settled, return_exceptions=True)


# -- how it comes along -----------------------------------------------------------------------------------------------


def _progress(asked: Asked, total: int) -> Progress:
    title = asked.title or asked.document.get("title") or asked.document.get("original_request") or ""
    plain = not asked.quiet and not is_terminal(sys.stderr)
    progress = Progress(total, title=line(str(title)), started_ms=round(time.time() * 1000))
    if plain:
        progress.on_lines = lambda lines: print_lines(progress, lines)
        note(f"{'':7} {' '}{asked.execution_id}  {line(str(title), 100)}".lstrip())
    return progress


def _shown(asked: Asked) -> AbstractContextManager[None]:
    assert asked.progress is not None
    if asked.quiet or not is_terminal(sys.stderr):
        return _nothing()
    from dagbok.cli.live import drawn

    return drawn(render.console(sys.stderr), asked.progress)


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def _interrupted(asked: Asked) -> int:
    if asked.execution_id is None:
        note("Interrupted before anything was stored.")
    else:
        note(f"Interrupted. {summary.how_to_go_on(asked.execution_id, asked.server)}")
    return INTERRUPTED
