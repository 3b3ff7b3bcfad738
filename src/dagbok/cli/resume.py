"""`dagbok resume`: goes on, in this process, with what earlier ones left; of a paused execution, also with its pause.

With an id it looks and ends like `dagbok run`. Without one it takes all that is unfinished and not paused. Beside a
server, which goes on by itself, it only lifts a pause and follows. `dagbok retry` does the same with what an execution
that has ended had lost.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from dagbok import views, wire
from dagbok.app import Dagbok, Vault
from dagbok.cli import questions, render, summary, unfinished
from dagbok.cli.asking import Wish, deliver
from dagbok.cli.beside import owner_words, server_url, told_of_flags, works_on
from dagbok.cli.collector import leave_out
from dagbok.cli.desk import Desk
from dagbok.cli.exit_codes import EXIT_CODES, SERVER_AWAY, UNUSABLE, of_several
from dagbok.cli.following import follow
from dagbok.cli.keyboard import is_there
from dagbok.cli.log import show_log
from dagbok.cli.overriding import read_overrides
from dagbok.cli.progress import of_execution
from dagbok.cli.run import says_stopping
from dagbok.cli.show import find
from dagbok.cli.stopping import Interrupted, run_until_stopped
from dagbok.cli.terminal import note, redact_with, stdout_reserved
from dagbok.cli.watching import Watch
from dagbok.client import Client
from dagbok.diary import Diary
from dagbok.domain.records import Page
from dagbok.domain.states import EXECUTION_ENDED
from dagbok.domain.values import Json
from dagbok.errors import BadInput, Conflict, DagbokError, Misconfigured
from dagbok.outside import Owner, find_owner, open_commands, open_diary
from dagbok.service import Service
from dagbok.settings import Settings

T = TypeVar("T")
Ask = Callable[[Service], Awaitable[object]]


@dataclass(slots=True)
class Asked:
    """What the command line asks for."""

    settings: Settings
    secrets: Vault
    by: str | None
    json: bool
    quiet: bool
    flags: dict[str, Any]  # of the engine, as given; a server has its own

    watch: Watch = field(repr=False)

    @property
    def asks(self) -> bool:
        """Whether somebody is there whom the execution may ask."""
        return not self.quiet and is_there()


def resume(
    which: str | None, *, by: str | None, json: bool, quiet: bool, settings: Settings, flags: dict[str, Any]
) -> int:
    """Go on with one execution, or with everything unfinished; return the exit code.

    Raises:
        NotFound, BadInput, Conflict: There is no such execution, or it has ended.
        Misconfigured, StoreError: It cannot go on here; the message says why.
    """
    secrets = Vault.take(settings)  # what tools start must not inherit them
    redact_with(secrets.redact)
    show_log(logging.WARNING)
    asked = Asked(settings, secrets, by, json, quiet, flags, Watch(quiet=quiet, several=which is None))
    try:
        return _everything(asked) if which is None else _one(asked, which)
    except Interrupted as exc:
        return exc.exit_code


def retry(
    which: str, *, steps: Sequence[str], overrides: Sequence[str] | None, by: str | None, json: bool, quiet: bool,
    settings: Settings, flags: dict[str, Any],
) -> int:  # fmt: skip
    """Run the lost part of an execution again, or `steps` of it alone, with `overrides`; return the exit code.

    Raises:
        NotFound, BadInput: There is no such execution; a step of it was not lost; an override cannot stand.
        Conflict: It has not ended, or has completed.
        Misconfigured, StoreError: It cannot run here; the message says why.
    """
    secrets = Vault.take(settings)
    redact_with(secrets.redact)
    show_log(logging.WARNING)
    asked = Asked(settings, secrets, by, json, quiet, flags, Watch(quiet=quiet, several=False))
    try:
        given = read_overrides(overrides, max_bytes=settings.max_plan_bytes)
        return _again(asked, which, list(steps), given)
    except Interrupted as exc:
        return exc.exit_code


# -- one --------------------------------------------------------------------------------------------------------------


def _one(asked: Asked, which: str) -> int:
    settings = asked.settings
    with open_commands(settings, asked.secrets, command="dagbok resume") as (diary, commander):
        execution_id = find(diary, which, to="resume")
        row = diary.execution(execution_id)
        if row["status"] in EXECUTION_ENDED:
            show = summary.command(settings, "show", execution_id)
            raise Conflict(f"Execution {execution_id} is {row['status']} already; `{show}` shows what came of it.")
        paused = row["paused_at"] is not None
        _watch(asked, diary, execution_id)  # before anything changes: all that does is news
        url = server_url(settings)
        owner = find_owner(settings)
        if not paused and owner is not None and url is None and row["owner"] and works_on(owner, row["owner"]):
            show = summary.command(settings, "show", execution_id)
            raise Conflict(f"{owner_words(owner)} works on {execution_id} already; `{show}` tells how far it is.")
        if paused and owner is not None:
            if not deliver(commander, settings, Wish(execution_id, "resume", asked.by)):
                return 0
            if url is None:
                note(f"{execution_id} is not paused any more; {owner_words(owner)} has the database and goes on.")
                return 0
    ask = partial(Service.resume, execution_id=execution_id, by=asked.by) if paused else None
    return _see(
        asked, execution_id, url, _follow(asked, execution_id, url) if url else _go_on(asked, execution_id, ask)
    )


def _again(asked: Asked, which: str, steps: list[str], overrides: dict[str, Json]) -> int:
    settings = asked.settings
    with open_commands(settings, asked.secrets, command="dagbok retry") as (diary, commander):
        execution_id = find(diary, which, to="retry")
        diary.judge(execution_id, "retry")
        diary.check_lost(execution_id, steps)
        if overrides:
            diary.overridable(execution_id, overrides, steps or None)
        _watch(asked, diary, execution_id)
        url = server_url(settings)
        if (owner := find_owner(settings)) is not None:
            if overrides:
                _ask_to_override(asked, execution_id, steps, overrides, url, owner)
            elif not deliver(commander, settings, _wish(asked, execution_id, steps)):
                return 0
            if url is None:
                note(f"{execution_id} runs again; {owner_words(owner)} has the database and works on it.")
                return 0
    ask = partial(
        Service.retry, execution_id=execution_id, steps=steps or None, overrides=overrides or None, by=asked.by
    )
    tools = {id: given.get("tool") for id, given in overrides.items() if isinstance(given, dict)}
    work = _follow(asked, execution_id, url) if url else _go_on(asked, execution_id, ask, again=True, instead=tools)
    return _see(asked, execution_id, url, work)


def _wish(asked: Asked, execution_id: str, steps: list[str]) -> Wish:
    return Wish(execution_id, "retry", asked.by, {"steps": list[Json](steps)} if steps else None)


def _ask_to_override(
    asked: Asked, execution_id: str, steps: list[str], overrides: dict[str, Json], url: str | None, owner: Owner
) -> None:
    """Let the server that has the database judge overrides: by its tools, which run them."""
    if url is None:
        who = owner_words(owner)
        raise Conflict(f"{who} has the database, and overrides are judged by its tools; give them there, or stop it.")
    with Client(url) as client:
        client.retry(execution_id, steps=steps or None, overrides=overrides, by=asked.by)


def _see(asked: Asked, execution_id: str, url: str | None, work: Coroutine[Any, Any, bool]) -> int:
    """Let it go on until it has ended or waits, and tell what came of it."""
    settings = asked.settings
    how = partial(summary.how_to_go_on, execution_id, url, settings, asked.flags)
    settled = _run(work, how)
    with open_diary(settings) as diary:
        stopped = summary.load(diary, execution_id)
    if not settled and stopped.execution.status not in EXIT_CODES:
        note(f"The server is still away. {how()}")
        return SERVER_AWAY
    summary.show(stopped, settings, json=asked.json, quiet=asked.quiet, flags=asked.flags)
    return EXIT_CODES.get(stopped.execution.status, UNUSABLE)


async def _go_on(
    asked: Asked, execution_id: str, ask: Ask | None, *, again: bool = False, instead: Mapping[str, Json] | None = None
) -> bool:
    async with _engine(asked) as dagbok, says_stopping(asked.settings, asked.watch):
        look = partial(unfinished.unknown_tools, dagbok.service, execution_id, again=again, instead=instead or {})
        if tools := await asyncio.to_thread(look):
            raise Misconfigured(unfinished.told_of_tools(execution_id, tools))
        desk = Desk(execution_id, asked.settings) if asked.asks else None
        leave_out()
        with asked.watch.hearing(dagbok), asked.watch.shown() if desk is None else desk.hearing(dagbok):
            if ask is not None:
                await ask(dagbok.service)
            await dagbok.take_over(execution_id)
            if desk is None:
                await dagbok.service.wait(execution_id)
            else:
                await desk.see_to_here(dagbok, asked.watch, by=asked.by)
    return True


async def _follow(asked: Asked, execution_id: str, url: str) -> bool:
    if not asked.quiet:
        note(f"The server at {url} has the database and runs it.")
        told_of_flags(asked.flags)
    desk = Desk(execution_id, asked.settings) if asked.asks else None
    return await follow(url, execution_id, asked.watch, asked.settings, desk=desk, by=asked.by)


# -- everything -------------------------------------------------------------------------------------------------------


def _everything(asked: Asked) -> int:
    settings = asked.settings
    with open_diary(settings) as diary:
        rows = unfinished.rows(diary)
        wanted = [row["id"] for row in rows if row["paused_at"] is None]
        able = [row["id"] for row in rows if unfinished.goes_on(row)]
        url = server_url(settings)
        if not rows:
            note("Nothing is unfinished.")
        elif url:
            note(f"The server at {url} has the database, and goes on with all that is unfinished by itself.")
        if not asked.quiet:
            _tell_paused(asked, [row["id"] for row in rows if row["paused_at"] is not None])
    if url or not rows:
        wanted = able = []
    if able:
        _run(_go_on_with_all(asked, able), lambda: f"`{_same(asked)}` goes on.")
    with open_diary(settings) as diary:
        briefs = [summary.brief(diary, id) for id in wanted]
        asked_of = {id: questions.load(diary, id) for id in wanted}
        if asked.json:
            page = Page([diary.execution(id) for id in wanted], len(wanted), len(wanted), 0)
            render.print_json(views.executions_json(page))
    if not asked.json:
        summary.show_several(briefs, asked_of)
        if briefs and not asked.quiet:
            for words in questions.told(asked_of, partial(summary.command, settings)):
                note(words)
            note(f"Next: `{summary.command(settings, 'show', 'ID')}`, `{summary.command(settings, 'list')}`")
    return of_several(execution.status for execution in briefs)


def _tell_paused(asked: Asked, paused: Sequence[str]) -> None:
    if not paused:
        return
    named = ", ".join(map(render.short_id, paused[:5])) + (", ..." if len(paused) > 5 else "")
    are = "1 execution is paused and stays so" if len(paused) == 1 else f"{len(paused):,} executions are paused"
    note(f"{are}; `{summary.command(asked.settings, 'resume', 'ID')}` goes on with one: {named}")


async def _go_on_with_all(asked: Asked, execution_ids: Sequence[str]) -> None:
    """Go on with executions until each has ended or waits for a person; one that fails to lets the others go on."""
    async with _engine(asked) as dagbok, says_stopping(asked.settings, asked.watch):
        able = []
        for execution_id in execution_ids:
            if tools := await asyncio.to_thread(unfinished.unknown_tools, dagbok.service, execution_id):
                note(f"dagbok: {unfinished.told_of_tools(execution_id, tools)}")
            else:
                able.append(execution_id)
                await asyncio.to_thread(_watch, asked, dagbok.service, execution_id)
        leave_out()
        with asked.watch.hearing(dagbok), asked.watch.shown():
            taken = await dagbok.take_over(*able)
            waits = (dagbok.service.wait(execution_id) for execution_id in taken)
            outcomes = await asyncio.gather(*waits, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome


def _same(asked: Asked) -> str:
    return summary.command(asked.settings, "resume", flags=asked.flags)


# -- both -------------------------------------------------------------------------------------------------------------


def _engine(asked: Asked) -> Dagbok:
    return Dagbok(settings=asked.settings, secrets=asked.secrets, recover=False, command="dagbok resume")


def _watch(asked: Asked, diary: Diary, execution_id: str) -> None:
    execution = wire.Execution.read(views.execution_json(*diary.details(execution_id)))
    asked.watch.add(execution_id, execution.title, execution.total_tasks, of_execution(execution))


def _run(work: Coroutine[Any, Any, T], how_to_go_on: Callable[[], str]) -> T:
    """Do `work`, and say how to go on where it is interrupted or fails. Raises Interrupted."""
    try:
        with stdout_reserved():
            return run_until_stopped(work, lambda: note(f"Interrupted. {how_to_go_on()}"))
    except DagbokError as exc:
        exc.message += f" {how_to_go_on()}" if not isinstance(exc, Misconfigured | BadInput) else ""
        raise
