"""The last words about an execution: its result, its steps, where it is kept and what to do next."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from rich.text import Text

from dagbok import views, wire
from dagbok.app import model_hint
from dagbok.cli import questions, render
from dagbok.cli.attempts import Tries
from dagbok.cli.questions import Questions, asks
from dagbok.cli.terminal import clean, is_terminal, line, note, out
from dagbok.cli.words import aligned, counted, database_name, shown_error
from dagbok.diary import Diary
from dagbok.domain.rerun import RETRYABLE
from dagbok.domain.states import ExecutionStatus
from dagbok.errors import DagbokError
from dagbok.outside import find_owner
from dagbok.settings import Settings


@dataclass
class Stopped:
    """An execution as its rows have it, and the questions it waits for."""

    json: bytes
    questions: Questions
    tries: Tries  # that did not end well, by task id
    worker: str | None  # the engine that works on it, or did

    @cached_property
    def execution(self) -> wire.Execution:
        """The same, read."""
        return wire.Execution.read(self.json)


def load(diary: Diary, execution_id: str) -> Stopped:
    """Return an execution with all results whole. Raises NotFound."""
    row, steps = diary.details(execution_id, whole=True)
    asked = questions.load(diary, execution_id) if row["status"] == ExecutionStatus.WAITING else []
    tries = {step["task_id"]: step["attempts"] for step in steps}
    return Stopped(views.execution_json(row, steps), asked, tries, row["owner"])


def brief(diary: Diary, execution_id: str) -> wire.ExecutionSummary:
    """Return an execution without its sub-steps. Raises NotFound."""
    return wire.ExecutionSummary.read(views.execution_json(diary.execution(execution_id)))


def show(stopped: Stopped, settings: Settings, *, json: bool, quiet: bool, flags: Mapping[str, Any]) -> None:
    """Write the result to stdout, and all else about how it went to stderr; `flags` are those of the engine."""
    execution = stopped.execution
    fancy = is_terminal(sys.stderr)
    if json:
        render.print_json(stopped.json)
    elif execution.final_result is not None:
        if fancy:
            note()
        render.print_result(execution.final_result)
        if fancy:
            note()
    if quiet:
        print_error(execution)
        return
    if fancy:
        _print_steps(execution)
        render.console(sys.stderr).print(render.styled(execution, render.headline(execution)))
    else:
        print_error(execution)
        note(render.headline(execution))
    for words in asks(stopped.questions):
        note(words)
    for words in how_to_answer(stopped, settings, short=fancy, flags=flags):
        note(words)
    short = execution.id if not fancy else render.short_id(execution.id)
    note(f"{execution.id} in {database_name(settings)}")
    next_ = [command(settings, "show", short), command(settings, "list")]
    if render.state(execution) == "paused":
        next_.insert(0, command(settings, "resume", short, flags=flags))
    if execution.status in RETRYABLE:
        next_.insert(0, command(settings, "retry", short, flags=flags))
    note(f"Next: {', '.join(f'`{each}`' for each in next_)}")
    _print_hint(execution)


def show_several(executions: Sequence[wire.ExecutionSummary], asked: Mapping[str, Questions]) -> None:
    """Write a line for each of several executions to stdout, and below it what it asks (`asked`, by id)."""
    fancy = is_terminal(sys.stdout)
    rows = aligned([[execution.id, render.headline(execution), line(execution.title, 80)] for execution in executions])
    for execution, row in zip(executions, rows, strict=True):
        if fancy:
            words = f"{render.short_id(execution.id)}  {line(execution.title, 60)}: {render.headline(execution)}"
            render.console(sys.stdout).print(render.styled(execution, words))
        else:
            out(row)
        for words in asks(asked.get(execution.id, [])):
            out(words)


def how_to_answer(
    stopped: Stopped, settings: Settings, *, short: bool, flags: Mapping[str, Any] | None = None
) -> list[str]:
    """Return lines that say how to answer what an execution asks, which is named by a `short` id or all of it.

    `flags` are those of the engine that went on with it, where that was this process.
    """
    id = render.short_id(stopped.execution.id) if short else stopped.execution.id
    lines = questions.how_to_answer(id, stopped.questions, partial(command, settings))
    if lines and not _is_owned(settings):
        lines.append(f"  then `{command(settings, 'resume', id, flags=flags)}` goes on")
    return lines


def print_error(execution: wire.Execution) -> None:
    """Write the error of an execution, if it has one, to stderr."""
    if execution.error:
        note(shown_error(execution.error_code, execution.error, 2000))


def print_clarification(document: dict[str, Any]) -> None:
    """Write the question that the agent asks instead of a plan."""
    query = document.get("clarification_query")
    note(f"The agent asks first, and nothing runs: {line(str(query or '(no question given)'), 2000)}")


def how_to_go_on(execution_id: str, server: str | None, settings: Settings, flags: Mapping[str, Any]) -> str:
    """Return what becomes of an execution that this process leaves; `flags` are those of its engine."""
    resume = command(settings, "resume", execution_id, flags=flags)
    if server is None:
        return f"{execution_id} stays in the diary; `{resume}` goes on."
    if _is_owned(settings):
        show = command(settings, "show", execution_id)
        return f"{execution_id} is in the diary; the server goes on with it, and `{show}` tells how far it is."
    return f"{execution_id} is in the diary; it goes on as soon as a server starts again, or with `{resume}`."


def _is_owned(settings: Settings) -> bool:
    try:
        return find_owner(settings) is not None
    except DagbokError:  # the database is away, too; the error that led here tells more
        return False


def command(settings: Settings, *words: str, flags: Mapping[str, Any] | None = None) -> str:
    """Return a command that works where this one did: same program, same database, and the `flags` of the engine."""
    program = "dagbok"
    called = Path(sys.argv[0])
    if called.name == program and shutil.which(program) is None and called.is_file():
        program = os.path.relpath(called)  # not on the PATH: as in a fresh checkout
    url = settings.database_url
    known = os.environ.get("DAGBOK_DATABASE_URL", Settings.model_fields["database_url"].default)
    database = ["-d", url] if url != known and url == database_name(settings) else []  # no password on a screen
    given = [
        part
        for name, value in (flags or {}).items()
        for one in (value if isinstance(value, list) else [value])
        if one
        for part in (f"--{name}", str(one))
    ]
    return clean(shlex.join([program, *words, *given, *database]))


def _print_steps(execution: wire.Execution) -> None:
    steps, left_out = render.notable(execution.sub_steps)
    screen = render.console(sys.stderr)
    screen.print(render.steps_table(steps))
    if left_out:
        screen.print(Text(f" {counted(left_out, 'more step')} not shown", style="bright_black"))
    screen.print()


def _print_hint(execution: wire.Execution) -> None:
    hints = {hint for step in execution.sub_steps if (hint := model_hint(step.model))}
    shown = is_terminal(sys.stdout) and any(hint in (execution.final_result or "") for hint in hints)
    if hints and not shown:
        note(f"The built-in offline model was used, which only quotes. {hints.pop()}")
