"""`dagbok run`: one plan, from submission to its result, in this process or on the server that has the database.

Stopping is safe at any time: what is committed stays, and the last words say who goes on with the rest.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from dagbok import wire
from dagbok.app import Dagbok, Vault, make_registry
from dagbok.cli import summary, unfinished
from dagbok.cli.asking import who_asks
from dagbok.cli.beside import server_url, told_of_flags
from dagbok.cli.collector import leave_out
from dagbok.cli.desk import Desk
from dagbok.cli.exit_codes import EXIT_CODES, SERVER_AWAY
from dagbok.cli.following import follow
from dagbok.cli.keyboard import is_there
from dagbok.cli.log import show_log
from dagbok.cli.plans import load_plan
from dagbok.cli.progress import Progress, of_execution
from dagbok.cli.stopping import Interrupted, run_until_stopped
from dagbok.cli.terminal import line, note, redact_with, stdout_reserved
from dagbok.cli.validate import check_plan
from dagbok.cli.watching import Watch, title_of
from dagbok.cli.words import counted
from dagbok.client import AsyncClient
from dagbok.domain.ids import ExecutionId
from dagbok.domain.plan import LONGEST_S
from dagbok.domain.states import ExecutionStatus, Reason
from dagbok.domain.values import Json
from dagbok.errors import BadInput, Conflict, DagbokError
from dagbok.outside import open_diary
from dagbok.settings import Settings


@dataclass(slots=True)
class Asked:
    """What the command line asks for."""

    document: Json  # the plan; None for a fork that has its origin's
    settings: Settings
    secrets: Vault
    options: dict[str, Any]  # of the submission or the fork, those that are given
    quiet: bool
    flags: dict[str, Any]  # of the engine, as given; a server has its own

    watch: Watch = field(repr=False)
    origin: str | None = None  # what is forked
    title: str = ""  # for who watches
    submitting: bool = False  # whether the submission has begun: from then on it may be stored
    execution_id: ExecutionId | None = None  # known once it is answered
    server: str | None = None  # the URL of the server that runs it, if any

    @property
    def asks(self) -> bool:
        """Whether somebody is there whom the execution may ask."""
        return not self.quiet and is_there()


def run(
    source: str,
    *,
    title: str | None,
    deadline: float | None,
    fail_fast: bool,
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
    if deadline is not None and not 0 < deadline <= LONGEST_S:
        raise BadInput(f"--deadline is {deadline:g}; it is in seconds, more than 0 and at most {LONGEST_S:,}.")
    document = load_plan(source, max_bytes=settings.max_plan_bytes)
    policy = "fail_fast" if fail_fast else None
    given = {"title": title, "deadline_seconds": deadline, "failure_policy": policy, "idempotency_key": key}
    options = {name: value for name, value in given.items() if value is not None}
    if _asks_first(document):
        summary.print_clarification(document)
        return EXIT_CODES[ExecutionStatus.WAITING]
    show_log(logging.WARNING)
    named = title_of(document, title) if isinstance(document, dict) else ""
    return see(Asked(document, settings, secrets, options, quiet, flags, Watch(quiet=quiet), title=named), json=json)


def see(asked: Asked, *, json: bool) -> int:
    """Run what is asked for, here or on the server that has the database, and tell what came of it."""
    settings, flags, quiet = asked.settings, asked.flags, asked.quiet
    asked.server = server_url(settings)
    try:
        with stdout_reserved():
            work = _on_server(asked, asked.server) if asked.server else _here(asked)
            settled = run_until_stopped(work, partial(_tell_interrupted, asked))
    except Interrupted as exc:
        return exc.exit_code
    except DagbokError as exc:
        if asked.execution_id is not None:
            exc.message += f" {summary.how_to_go_on(asked.execution_id, asked.server, settings, flags)}"
        raise
    assert asked.execution_id is not None
    with open_diary(settings) as diary:
        stopped = summary.load(diary, asked.execution_id)
    if not settled and stopped.execution.status not in EXIT_CODES:
        note(f"The server is still away. {summary.how_to_go_on(asked.execution_id, asked.server, settings, flags)}")
        return SERVER_AWAY
    summary.show(stopped, settings, json=json, quiet=quiet, flags=flags)
    return EXIT_CODES[stopped.execution.status]


def _asks_first(document: Json) -> bool:
    return isinstance(document, dict) and document.get("clarification_needed") is True


def _check(asked: Asked) -> None:
    registry = make_registry(asked.settings)
    try:
        check_plan(asked.document, registry.schemas(), asked.settings, asked.secrets)
    finally:
        registry.close()


async def _here(asked: Asked) -> bool:
    settings = asked.settings
    if asked.document is not None:
        _check(asked)  # before a database is made for nothing
    name = "dagbok run" if asked.origin is None else "dagbok fork"
    async with (
        Dagbok(settings=settings, secrets=asked.secrets, recover=False, command=name) as dagbok,
        says_stopping(settings, asked.watch),
    ):
        if not asked.quiet:
            await asyncio.to_thread(unfinished.name_all, dagbok.service, settings, asked.flags)
        leave_out()
        with asked.watch.hearing(dagbok):
            asked.submitting = True
            if asked.origin is None:
                submitted = await dagbok.submit(asked.document, **asked.options)
            else:
                submitted = await dagbok.fork(asked.origin, **asked.options)
            asked.execution_id = submitted.execution_id
            if submitted.replayed:
                await _worth_showing(dagbok, submitted.execution_id)
            progress = asked.watch.add(asked.execution_id, asked.title, submitted.total_tasks)
            if asked.origin is not None:
                _tell_reused(asked, progress, await dagbok.get(asked.execution_id))
            await _settled(asked, dagbok, submitted.execution_id)
    return True


async def _settled(asked: Asked, dagbok: Dagbok, execution_id: ExecutionId) -> None:
    """Return once the execution has ended or waits for a person; one who is there is asked."""
    if not asked.asks:
        with asked.watch.shown():
            await dagbok.service.wait(execution_id)
        return
    desk = Desk(execution_id, asked.settings)
    with desk.hearing(dagbok):
        await desk.load()  # it may have asked before anybody listened
        await desk.see_to_here(dagbok, asked.watch, by=who_asks(None))


async def _worth_showing(dagbok: Dagbok, execution_id: str) -> None:
    """Raise Conflict if an earlier `dagbok run` left this execution unfinished: nobody runs it now."""
    row = await asyncio.to_thread(dagbok.service.execution, execution_id)
    if row["status"] not in EXIT_CODES:
        raise Conflict(f"An earlier run with this key left execution {execution_id} {row['status']}.")


async def _on_server(asked: Asked, url: str) -> bool:
    """Return whether it ended or waits for a person; else the server went away."""
    if not asked.quiet:
        note(f"The server at {url} has the database and runs the {'plan' if asked.origin is None else 'fork'}.")
        told_of_flags(asked.flags)
    async with AsyncClient(url) as client:
        asked.submitting = True
        answer = await _submit_to(client, asked)
        asked.execution_id = ExecutionId(answer.execution_id)
        progress = asked.watch.add(asked.execution_id, asked.title, answer.total_tasks)
        if asked.origin is not None:
            _tell_reused(asked, progress, await client.get(asked.execution_id))
    desk = Desk(asked.execution_id, asked.settings) if asked.asks else None
    return await follow(
        url, asked.execution_id, asked.watch, asked.settings, desk=desk, by=who_asks(None) if desk else None
    )


async def _submit_to(client: AsyncClient, asked: Asked) -> wire.SubmitResponse:
    if asked.origin is None:
        return await client.submit(asked.document, **asked.options)
    return await client.fork(asked.origin, **asked.options)


def _tell_reused(asked: Asked, progress: Progress, execution: wire.Execution) -> None:
    """Say of a fork what is done already, which is no news of any step."""
    steps, _ = of_execution(execution)
    reused = [now for now in steps if now.attempt == 0 and now.reason in (Reason.REUSED, Reason.CHOSEN)]
    progress.know(reused, progress.whole)
    took = counted(len(reused), "sub-task")
    asked.watch.tell(f"{asked.execution_id} is a fork of {asked.origin}, and takes over {took}.")


def _tell_interrupted(asked: Asked) -> None:
    note(f"Interrupted{_left_behind(asked)}")


def _left_behind(asked: Asked) -> str:
    if asked.execution_id is not None:
        return f". {summary.how_to_go_on(asked.execution_id, asked.server, asked.settings, asked.flags)}"
    if not asked.submitting:
        return " before anything was stored."
    key = asked.options.get("idempotency_key")
    known = f" with the idempotency key {line(key, 255)}" if key else ""
    return f". It may have been stored{known}; `{summary.command(asked.settings, 'list')}` shows it."


@asynccontextmanager
async def says_stopping(settings: Settings, watch: Watch) -> AsyncIterator[None]:
    """Say on Ctrl-C or another signal what the engine now waits for, if it does; what it cuts off is no news."""
    try:
        yield
    except asyncio.CancelledError:
        if watch.bodies:
            note(f"Stopping: what runs has {settings.close_grace_s:g} s to end. Ctrl-C again stops at once.")
        logging.getLogger("dagbok").setLevel(logging.CRITICAL)
        raise
