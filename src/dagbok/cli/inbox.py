"""`dagbok inbox`: what people are asked, of all executions, read beside whatever engine owns the database."""

from __future__ import annotations

import sys
from functools import partial
from typing import Final

from rich.table import Table
from rich.text import Text

from dagbok import views, wire
from dagbok.cli import render, summary
from dagbok.cli.questions import choices
from dagbok.cli.show import find
from dagbok.cli.terminal import is_terminal, line, note, out
from dagbok.cli.words import ago, aligned, counted, left, shown_id
from dagbok.domain import approval, doubt, inbox, values
from dagbok.errors import BadInput
from dagbok.outside import open_diary
from dagbok.settings import Settings

#: How the kinds are called where there is little room.
_KINDS = {"human": "question", approval.KIND: "approval", doubt.KIND: "did it happen?"}

#: Columns of a screen below which a table would be too narrow to read.
_WIDE: Final = 80


def show_inbox(
    *, assignee: str | None, execution: str | None, kind: str | None, everything: bool, limit: int, cursor: str | None,
    json: bool, settings: Settings,
) -> int:  # fmt: skip
    """Show the open questions, the oldest first, or `everything` that was asked, the newest first.

    Returns the exit code.

    Raises:
        NotFound, BadInput: There is no such execution; a filter cannot be used.
    """
    if kind is not None and kind not in inbox.KINDS:
        raise BadInput(f"--kind is {line(kind, 60)!r}; it is one of {', '.join(inbox.KINDS)}.")
    with open_diary(settings) as diary:
        page = diary.human_inputs(
            status="all" if everything else "open", assignee=assignee, kind=kind, limit=limit, cursor=cursor,
            execution_id=None if execution is None else find(diary, execution),
        )  # fmt: skip
    data = views.human_inputs_json(page)
    if json:
        render.print_json(data)
        return 0
    items = wire.HumanInputList.read(data).human_inputs
    if is_terminal(sys.stdout):
        if items:
            screen = render.console(sys.stdout)
            wide = screen.width >= _WIDE
            screen.print(_table(items, everything=everything) if wide else _narrow(items))
    else:
        for row in aligned([_row(item) for item in items]):
            out(row)
    _say_more(items, page.next_cursor, everything=everything, settings=settings)
    return 0


def _say_more(items: list[wire.HumanInput], cursor: str | None, *, everything: bool, settings: Settings) -> None:
    command = partial(summary.command, settings)
    if not items:
        note("Nothing was asked." if everything else "Nobody is asked anything now.")
    if cursor is not None:
        note(f"There are more: --cursor {cursor}")
    waiting = [item for item in items if item.closed_at is None]
    if waiting:
        kinds = "; or ".join(map(choices, dict.fromkeys(item.kind for item in waiting)))
        note(
            f"To answer: `{command('answer', 'ID', 'TASK')}`, which asks; a script puts the answer behind it: {kinds}."
        )


def _row(item: wire.HumanInput) -> list[str]:
    asked_at = views.iso(round(item.asked_at.timestamp() * 1000))
    whom = line(item.assignee, 40) if item.assignee else "-"
    return [
        item.execution_id, shown_id(item.task_id), item.kind, asked_at, whom, _state(item), line(item.prompt, 200),
    ]  # fmt: skip


def _state(item: wire.HumanInput) -> str:
    """Return what became of a question, or until when it is open."""
    if item.closed_at is None:
        reminded = f", reminded {counted(item.reminders, 'time')}" if item.reminders else ""
        return f"due {left(item.due_at)}{reminded}" if item.due_at is not None else "open"
    if item.outcome is not None and item.outcome != "answered":
        return item.outcome.replace("_", " ")
    by = f" by {line(item.answered_by, 40)}" if item.answered_by else ""
    answer = item.answer
    said = answer.get("decision", answer) if isinstance(answer, dict) and item.kind != "human" else answer
    return f"{line(values.as_text(said), 40)}{by}"


def _table(items: list[wire.HumanInput], *, everything: bool) -> Table:
    table = Table(box=None, padding=(0, 1), header_style="bright_black", expand=True)
    for name in ("id", "task", "kind"):
        table.add_column(name, no_wrap=True)
    table.add_column("what is asked", no_wrap=True, overflow="ellipsis", ratio=1)
    table.add_column("whom", no_wrap=True, max_width=16)
    table.add_column("answer" if everything else "due", no_wrap=True, max_width=30)
    table.add_column("asked", no_wrap=True, justify="right", style="bright_black")
    for item in items:
        table.add_row(
            Text(render.short_id(item.execution_id)),
            Text(shown_id(item.task_id)),
            _kind(item),
            Text(_asked(item)),
            Text(line(item.assignee or "", 40)),
            Text("" if _state(item) == "open" else _state(item)),
            ago(item.asked_at),
        )
    return table


def _narrow(items: list[wire.HumanInput]) -> Table:
    """Return two lines for each, for a screen on which the columns would be too narrow to read."""
    table = Table.grid(expand=True)
    table.add_column(no_wrap=True, overflow="ellipsis")
    for item in items:
        whom = Text(f" {line(item.assignee, 16)}" if item.assignee else "")
        state = Text(f" {_state(item)}" if _state(item) != "open" else "")
        id, task = Text(render.short_id(item.execution_id)), Text(f" {shown_id(item.task_id)} ")
        table.add_row(Text.assemble(id, task, _kind(item), whom, state))
        table.add_row(Text(f"  {_asked(item)}"))
    return table


def _kind(item: wire.HumanInput) -> Text:
    return Text(_KINDS[item.kind], style="yellow" if item.closed_at is None else "")


def _asked(item: wire.HumanInput) -> str:
    """Return what is asked; where the words are always the same, what matters first."""
    if item.kind not in (approval.KIND, doubt.KIND) or item.shown is None:
        return line(item.prompt)
    what = item.shown.get("description") or values.as_text(item.shown.get("params"))
    about = f"May it call {item.shown.get('tool')}?" if item.kind == approval.KIND else "Did it happen?"
    return line(f"{about} {what}")
