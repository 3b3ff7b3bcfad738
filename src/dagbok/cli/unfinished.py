"""What earlier processes left unfinished: named for people, and sorted by whether it can go on here."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from dagbok import wire
from dagbok.cli import render, summary
from dagbok.cli.terminal import is_terminal, line, note
from dagbok.cli.words import ago, aligned, counted
from dagbok.diary import Diary
from dagbok.domain import values
from dagbok.domain.ids import SYNTHESIS
from dagbok.domain.states import ENDED, ExecutionStatus, StepStatus
from dagbok.service import Service
from dagbok.settings import Settings

#: A longer list is for `dagbok list`.
_NAMED: Final = 5
#: Their steps are read, which takes about a millisecond each.
_LOOKED_AT: Final = 100

Row = Mapping[str, Any]


def name_all(diary: Diary, settings: Settings, flags: Mapping[str, Any]) -> None:
    """Name the newest unfinished executions on stderr, and the command that goes on with them.

    Those that only wait for a person are counted apart: going on changes nothing about them.
    """
    asking = _asking(diary)
    waits = set(asking)
    rows = [row for row in diary.unfinished() if row["id"] not in waits]
    if rows:
        newest = [summary.brief(diary, row["id"]) for row in reversed(rows[-_NAMED:])]
        by_id = ["ID"] if all(execution.paused_at is not None for execution in newest) else []
        go_on = summary.command(settings, "resume", *by_id, flags=flags)
        note(f"{_are(len(rows))} unfinished from earlier; `{go_on}` goes on:")
        for row in aligned([_cells(execution) for execution in newest]):
            note(f"  {row}")
        if more := len(rows) - len(newest):
            note(f"  and {more:,} more: `{summary.command(settings, 'list')}`")
    if asking:
        one = len(asking) == 1
        listed = "" if one else f"`{summary.command(settings, 'inbox')}` names them, "
        how = summary.command(settings, "show", render.short_id(asking[0]) if one else "ID")
        wait = "1 execution waits" if one else f"{len(asking):,} executions wait"
        note(f"{wait} for an answer; {listed}`{how}` says how to give it.")


def _asking(diary: Diary) -> list[str]:
    """Return the newest executions that do nothing but wait for a person, whoever goes on with them."""
    rows = diary.list_executions(limit=_LOOKED_AT, status=ExecutionStatus.WAITING).items
    asked = {command.execution_id for command in diary.reader.pending_commands([row["id"] for row in rows])}
    return [row["id"] for row in rows if row["id"] not in asked and _only_waits(diary, row)]


def _only_waits(diary: Diary, row: Row) -> bool:
    if row["paused_at"] is not None or (row["wake_at"] is not None and row["wake_at"] <= time.time() * 1000):
        return False
    steps = diary.sub_steps(row["id"], inline_bytes=0)
    ended = {step["task_id"] for step in steps if step["status"] in ENDED}
    # The synthesis depends on no sub-task by its row, and comes last: where somebody is asked, it is not its turn.
    steps = [step for step in steps if step["task_id"] != SYNTHESIS or len(ended) == len(steps) - 1]
    # One that a crash left in the middle of other work has steps that are under way, or could begin.
    return not any(
        step["status"] == StepStatus.RUNNING
        or (step["status"] == StepStatus.PENDING and ended.issuperset(values.decode(step["dependencies"])))
        for step in steps
    )


def rows(diary: Diary) -> list[Row]:
    """Return every unfinished execution, oldest first, with all its columns."""
    return [diary.execution(row["id"]) for row in diary.unfinished()]


def goes_on(row: Row) -> bool:
    """Return whether an execution has something to do by itself, now or at some time; a paused one has not."""
    if row["paused_at"] is not None:
        return False
    # One that waits for a person may have been left in the middle of other work.
    due = row["wake_at"] is not None and row["wake_at"] <= time.time() * 1000
    return row["status"] != ExecutionStatus.WAITING or row["owner"] is not None or due


def unknown_tools(
    service: Service, execution_id: str, *, again: bool = False, instead: Mapping[str, Any] = MappingProxyType({})
) -> list[str]:
    """Return the tools that an execution still needs, or would `again`, and that this process does not know.

    `instead`: by sub-task the tool that is to take the place of its own.
    """
    done = {StepStatus.COMPLETED} if again else ENDED
    steps = service.sub_steps(execution_id, inline_bytes=0)
    needed = {
        str(instead.get(step["task_id"]) or tool_of(step))
        for step in steps
        if step["status"] not in done and step["action_type"] == "tool" and step["task_id"] != SYNTHESIS
    }
    return sorted(line(name, 60) for name in needed if service.registry.get(name) is None)


def tool_of(step: Row) -> str:
    """Return the tool that a sub-step calls now."""
    override = {} if step["override"] is None else values.decode(step["override"])
    return str(override.get("tool", step["tool_or_prompt_name"]))


def told_of_tools(execution_id: str, tools: list[str]) -> str:
    """Return the sentence about an execution that cannot go on without `tools`."""
    named = ", ".join(tools[:10]) + (", ..." if len(tools) > 10 else "")
    what = "a tool that is" if len(tools) == 1 else "tools that are"
    return f"Execution {execution_id} needs {what} not known here: {named}; --tools MODULE brings them."


def _are(number: int) -> str:
    return f"{counted(number, 'execution')} {'is' if number == 1 else 'are'}"


def _cells(execution: wire.ExecutionSummary) -> list[str]:
    id = render.short_id(execution.id) if is_terminal(sys.stderr) else execution.id
    return [id, render.state(execution, alive=False), ago(execution.created_at), line(execution.title, 60)]
