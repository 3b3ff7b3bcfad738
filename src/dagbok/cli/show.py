"""`dagbok list` and `dagbok show`: what the diary holds, read beside whatever engine owns it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson
from rich.table import Table
from rich.text import Text

from dagbok import views, wire
from dagbok.cli import render, summary
from dagbok.cli.attempts import Tries
from dagbok.cli.beside import works_on
from dagbok.cli.questions import asks
from dagbok.cli.terminal import clean, is_terminal, line, note, out
from dagbok.cli.words import SIGNS, ago, aligned, left, local, shown_error, shown_id
from dagbok.diary import Diary
from dagbok.domain.listing import Place, begins_behind
from dagbok.domain.records import Page
from dagbok.domain.states import ExecutionStatus
from dagbok.errors import BadInput, NotFound
from dagbok.outside import Owner, find_owner, open_diary
from dagbok.settings import Settings

_PREFIX: Final = "dag-exec_"
#: Of an id without its prefix: all of it, and what names an execution that is to be changed.
_ID_CHARS: Final = 36
_NAMES_CHARS: Final = 6
_EVENTS: Final = 1000  # read at a time
#: States that are not those of rows: who runs it, and whether somebody paused it, make them.
_SEEN: Final = ("paused", "interrupted")


def list_executions(
    *, limit: int, offset: int, status: str | None, cursor: str | None, json: bool, settings: Settings
) -> int:
    """Show executions, newest first; return the exit code."""
    with open_diary(settings) as diary:
        owner = find_owner(settings)
        rows = _page(diary, owner, limit=limit, offset=offset, status=status, cursor=cursor)
    data = views.executions_json(rows)
    if json:
        render.print_json(data)
        return 0
    page = wire.ExecutionList.read(data)
    alive = [works_on(owner, row["owner"]) for row in rows.items]
    listed = list(zip(page.executions, alive, strict=True))
    if is_terminal(sys.stdout):
        render.console(sys.stdout).print(_list_table(listed))
    else:
        for row in aligned([_list_row(*each) for each in listed]):
            out(row)
    of = page.pagination
    all_ = f"about {of.total:,}" if of.total_is_estimate else f"{of.total:,}"
    if not page.executions:
        note("No executions." if not of.total else f"None of {all_} here.")
    elif of.next_cursor is not None:
        note(f"These are {of.count:,} of {all_}. The next: --cursor {of.next_cursor}")
    return 0


def show(which: str, *, json: bool, events: bool, settings: Settings) -> int:
    """Show one execution: `latest`, its id, or the start of its id; return the exit code."""
    with open_diary(settings) as diary:
        execution_id = find(diary, which)
        stopped = summary.load(diary, execution_id)
        alive = works_on(find_owner(settings), stopped.worker)
        diary_lines = _all_events(diary, execution_id) if events else []
    if json:
        data = stopped.json
        if events:
            data = orjson.dumps({**orjson.loads(data), "events": diary_lines})
        render.print_json(data)
        return 0
    execution = stopped.execution
    fancy = is_terminal(sys.stdout)
    (_show_on_terminal if fancy else _show_plain)(execution, stopped.tries, alive)
    for words in [*asks(stopped.questions, indent=""), *summary.how_to_answer(stopped, settings, short=fancy)]:
        out(words)
    if events:
        out()
        for row in aligned([_event_row(event) for event in diary_lines]):
            out(row)
    if execution.final_result is not None:
        out()
        render.print_result(execution.final_result)
    return 0


def find(diary: Diary, which: str, *, to: str = "") -> str:
    """Return the id that `which` means: `latest`, an id, or the start of one, with or without `dag-exec_`.

    Where something is to be changed, `to` says what, and a character or two do not do: they fit by chance.

    Raises:
        NotFound: Nothing begins so.
        BadInput: Several do; the message names them. Nothing is left of it, or too little: an unset variable, say.
    """
    wanted = which.strip()
    if wanted == "latest":
        newest = diary.list_executions(limit=1).items
        if not newest:
            raise NotFound("The diary is empty; `dagbok run PLAN.json` writes into it.")
        return str(newest[0]["id"])
    start = wanted.removeprefix(_PREFIX)
    if not start:
        raise BadInput("The ID is empty: is a variable unset? Give one of `dagbok list`, or `latest`.")
    if to and len(start) < _NAMES_CHARS:
        words = f"{line(which, 60)!r} is too little of an ID to {to} an execution by"
        raise BadInput(f"{words}: give {_NAMES_CHARS} characters after {_PREFIX} or more; `dagbok list` shows them.")
    wanted = _PREFIX + start
    if len(start) >= _ID_CHARS:
        return str(diary.execution(wanted)["id"])
    found = diary.beginning_with(wanted, limit=6)
    if not found:
        raise NotFound(f"No execution has an id that begins with {line(which, 60)!r}; `dagbok list` shows them.")
    if len(found) > 1:
        raise BadInput(f"Several executions begin so: {', '.join(found[:5])}{', ...' if len(found) > 5 else ''}.")
    return found[0]


# -- the list ---------------------------------------------------------------------------------------------------------


def _page(
    diary: Diary, owner: Owner | None, *, limit: int, offset: int, status: str | None, cursor: str | None
) -> Page:
    """Return a page of executions as they are shown: rows know neither `paused` nor `interrupted`."""
    words = [*ExecutionStatus, *_SEEN]
    if status is not None and status not in words:
        raise BadInput(f"--status is {status!r}; it is one of {', '.join(words)}.")
    if status not in _SEEN:
        return diary.list_executions(limit=limit, offset=offset, status=status, cursor=cursor)
    diary.list_executions(limit=limit, offset=offset)  # which judges the figures
    after = begins_behind(cursor, offset=offset, status=status)
    open_ = (ExecutionStatus.PENDING, ExecutionStatus.RUNNING, ExecutionStatus.WAITING)
    found = [row for word in open_ for row in diary.each_execution(word) if _seen(row, owner) == status]
    found.sort(key=_place, reverse=True)
    behind = [row for row in found if after is None or _place(row) < after][offset:]
    more = _place(behind[limit - 1]).cursor(status) if len(behind) > limit else None
    return Page(behind[:limit], len(found), limit, offset, more)


def _place(row: Mapping[str, Any]) -> Place:
    return Place(row["created_at"], row["id"])


def _seen(row: Mapping[str, Any], owner: Owner | None) -> str:
    summary = wire.ExecutionSummary.read(views.execution_json(row))
    return render.state(summary, alive=works_on(owner, row["owner"]))


def _list_row(execution: wire.ExecutionSummary, alive: bool) -> list[str]:
    done = f"{execution.completed_tasks}/{execution.total_tasks}"
    created = views.iso(round(execution.created_at.timestamp() * 1000))
    took = render.took(execution, alive=alive) or "-"
    return [execution.id, render.state(execution, alive=alive), done, took, created, line(execution.title, 120)]


def _list_table(executions: Sequence[tuple[wire.ExecutionSummary, bool]]) -> Table:
    table = Table(box=None, padding=(0, 1), header_style="bright_black", expand=True)
    table.add_column("", width=1)
    table.add_column("id", no_wrap=True)
    table.add_column("title", no_wrap=True, overflow="ellipsis", ratio=1)
    table.add_column("done", no_wrap=True, justify="right")
    table.add_column("took", no_wrap=True, justify="right")
    table.add_column("created", no_wrap=True, justify="right", style="bright_black")
    for execution, alive in executions:
        sign, style = SIGNS[render.state(execution, alive=alive)]
        done = Text(f"{execution.completed_tasks:,}/{execution.total_tasks:,}")
        if execution.failed_tasks:
            done.append(f" ✗{execution.failed_tasks:,}", style="red")
        table.add_row(
            Text(sign, style=style),
            Text(render.short_id(execution.id)),
            Text(line(execution.title)),
            done,
            render.took(execution, alive=alive),
            ago(execution.created_at),
        )
    return table


# -- one execution ----------------------------------------------------------------------------------------------------


def _facts(execution: wire.Execution, alive: bool) -> list[list[str]]:
    facts = [
        ["id", execution.id],
        ["status", render.headline(execution, alive=alive)],
        ["request", line(execution.original_request, 500)],
        ["created", f"{local(execution.created_at)} ({ago(execution.created_at)})"],
    ]
    if execution.forked_from is not None:
        facts.append(["fork of", execution.forked_from])
    if execution.completed_at is None:
        facts += _times(execution)
    if execution.labels:
        facts.append(["labels", line(", ".join(f"{key}={value}" for key, value in execution.labels.items()), 500)])
    if execution.error:
        facts.append(["error", shown_error(execution.error_code, execution.error, 2000)])
    return facts


def _times(execution: wire.Execution) -> list[list[str]]:
    """Return what an unfinished execution waits for, and until when."""
    facts = []
    if execution.paused_at is not None:
        facts.append(["paused", f"{local(execution.paused_at)} ({ago(execution.paused_at)})"])
    if execution.deadline_at is not None:
        facts.append(["deadline", f"{local(execution.deadline_at)} ({left(execution.deadline_at)})"])
    if execution.wake_at is not None:
        facts.append(["due", f"{local(execution.wake_at)} ({left(execution.wake_at)})"])
    return facts


def _show_on_terminal(execution: wire.Execution, tries: Tries, alive: bool) -> None:
    screen = render.console(sys.stdout)
    screen.print(render.styled(execution, line(execution.title), alive=alive))
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bright_black", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in _facts(execution, alive):
        table.add_row(name, Text(value))
    screen.print(table)
    screen.print()
    screen.print(render.steps_table(execution.sub_steps, tries))


def _show_plain(execution: wire.Execution, tries: Tries, alive: bool) -> None:
    out(line(execution.title))
    for row in aligned(_facts(execution, alive)):
        out(row)
    out()
    for row in render.steps_lines(execution.sub_steps, tries):
        out(row)


def _all_events(diary: Diary, execution_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while rows := diary.events(execution_id, after=found[-1]["seq"] if found else 0, limit=_EVENTS):
        found += (
            {
                "seq": row["seq"],
                "type": row["type"],
                "executionId": execution_id,
                "taskId": row["task_id"],
                "at": views.iso(row["at"]),
                "data": None if row["data"] is None else orjson.loads(row["data"]),
            }
            for row in rows
        )
    return found


def _event_row(event: dict[str, Any]) -> list[str]:
    data = clean(orjson.dumps(event["data"]).decode()) if event["data"] is not None else ""
    task = "" if event["taskId"] is None else shown_id(event["taskId"])
    return [f"{event['seq']:>4}", event["at"], event["type"], task, line(data, 300)]
