"""How an execution that has stopped looks: its result, its steps, its errors, and where to go from there.

Two looks of the same: Rich on a terminal, aligned lines elsewhere. No text of a plan or a tool is read as markup.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TextIO

import orjson
from rich.console import Console
from rich.markdown import Markdown
from rich.table import Table
from rich.text import Text

from dagbok import wire
from dagbok.cli.attempts import NO_TRIES, Tries, attempts_of
from dagbok.cli.progress import called
from dagbok.cli.terminal import clean, clean_json, is_terminal, line, out
from dagbok.cli.words import REASONS, SIGNS, aligned, clock, counted, left, shown_error, shown_id, shown_tool, span
from dagbok.domain import values
from dagbok.domain.states import ENDED, ExecutionStatus, Reason

#: A longer result is shown as it is: laying out Markdown takes its time.
MARKDOWN_CHARS = 200_000
_IN_WORDS = {
    "pending": "not started", "running": "unfinished", "waiting": "waiting for a person", "paused": "paused",
    "interrupted": "interrupted",
}  # fmt: skip
#: Of waits, for people or for the next process, that are worth a word.
_WAITED_MS = 1_000
#: Steps that the summary of a run lists; `dagbok show` lists all.
SUMMARY_STEPS = 40


def console(stream: TextIO) -> Console:
    """Return a console for a stream that is a terminal. NO_COLOR is respected."""
    return Console(file=stream, force_terminal=True, markup=False, highlight=False, emoji=False, soft_wrap=False)


def print_json(data: bytes) -> None:
    """Write one JSON document to stdout, indented for eyes only."""
    if is_terminal(sys.stdout):
        data = orjson.dumps(orjson.loads(data), option=orjson.OPT_INDENT_2)
    out(clean_json(data.decode()))


def print_result(text: str) -> None:
    """Write a final result to stdout: laid out on a terminal, its Markdown as it is elsewhere."""
    text = clean(text)
    if not is_terminal(sys.stdout) or len(text) > MARKDOWN_CHARS:
        out(text.rstrip("\n"))
        return
    screen = console(sys.stdout)
    # Links are written out: a terminal would hide where they lead.
    screen.print(Markdown(_fenced(text), hyperlinks=False, code_theme="ansi_dark"))


def state(execution: wire.ExecutionSummary, *, alive: bool = True) -> str:
    """Return the status of an execution; `paused` for one that somebody paused, whatever else it waits for.

    `interrupted` if it should go on by itself and nobody works on it: whoever did is not `alive`.
    """
    if execution.paused_at is not None and execution.completed_at is None:
        return "paused"
    # One that asks somebody may have been left in the middle of other work.
    goes_on = execution.status in (ExecutionStatus.PENDING, ExecutionStatus.RUNNING) or execution.running_tasks > 0
    return "interrupted" if goes_on and not alive and execution.completed_at is None else str(execution.status)


def took(execution: wire.ExecutionSummary, *, alive: bool) -> str:
    """Return how long an execution took, or has been running; empty for one that rests, which may take any time."""
    if execution.completed_at is not None:
        return span(execution.duration_ms)
    if state(execution, alive=alive) == "running" and execution.started_at is not None:
        return span(max(0.0, (datetime.now(UTC) - execution.started_at).total_seconds() * 1000))
    return ""


def steps_table(steps: Iterable[wire.SubStep], tries: Tries = NO_TRIES) -> Table:
    """Return the steps for a terminal: sign, id, tool, duration, and the error or the description.

    Below each step come its `tries` that did not end well.
    """
    table = Table(box=None, padding=(0, 1), show_header=False, expand=True)
    table.add_column(width=1)
    table.add_column(no_wrap=True, max_width=24)
    table.add_column(no_wrap=True, max_width=20, style="cyan")
    table.add_column(no_wrap=True, justify="right", style="bright_black")
    table.add_column(overflow="fold", ratio=1)
    for step in steps:
        sign, style = SIGNS[step.status]
        words = _outcome(step)
        last = Text(words, style=style) if words else Text(_described(step))
        table.add_row(Text(sign, style=style), shown_id(step.task_id), _tool(step), _took(step), last)
        for number, took, how in attempts_of(step, tries):
            table.add_row("", "", Text(number, style="bright_black"), took, Text(how, style="bright_black"))
    return table


def steps_lines(steps: Sequence[wire.SubStep], tries: Tries = NO_TRIES) -> list[str]:
    """Return the steps as aligned plain lines; below each, those of its `tries` that did not end well."""
    rows = []
    for step in steps:
        last = _outcome(step) or _described(step)
        rows.append([str(step.status), shown_id(step.task_id), _tool(step), _took(step), last])
        rows += (["", "", *cells] for cells in attempts_of(step, tries))
    return aligned(rows)


def notable(steps: Sequence[wire.SubStep]) -> tuple[list[wire.SubStep], int]:
    """Return the steps a summary shows, in order, and how many it leaves out. Of too many, those that went well go."""
    if len(steps) <= SUMMARY_STEPS:
        return list(steps), 0
    shown = [step for step in steps if step.status not in ("completed", "skipped")][:SUMMARY_STEPS]
    return shown, len(steps) - len(shown)


def headline(execution: wire.ExecutionSummary, *, alive: bool | None = None) -> str:
    """Return how it went in one line: status, time, counts, what it cost.

    `alive` says whether somebody works on it; None: whoever asks has just stopped doing so.
    """
    now = state(execution, alive=alive is not False)
    since = took(execution, alive=alive is True)
    if now == "running" and alive and since:
        parts = [f"running for {since}"]
    else:
        parts = [_IN_WORDS.get(now, f"{execution.status} in {span(execution.duration_ms)}")]
    parts.append(f"{execution.completed_tasks:,} of {counted(execution.total_tasks, 'sub-task')} completed")
    for number, word in (
        (execution.failed_tasks, "failed"),
        (execution.skipped_tasks, "skipped"),
        (execution.running_tasks, "under way" if now == "interrupted" else "running"),
        (_cancelled(execution), "cancelled"),
    ):
        if number:
            parts.append(f"{number:,} {word}")
    usage = execution.total_usage or {}
    tokens = sum(usage.get(name, 0) for name in ("inputTokens", "outputTokens"))
    if tokens:
        parts.append(f"{tokens:,.0f} tokens")
    if execution.total_cost_usd:
        parts.append(f"${execution.total_cost_usd:.4f}")
    return ", ".join(parts) + _with_waits(execution)


def _with_waits(execution: wire.ExecutionSummary) -> str:
    """Return how long it took as people's watches have it, if it waited so long that they wonder."""
    if execution.started_at is None or execution.completed_at is None:
        return ""
    whole_ms = (execution.completed_at - execution.started_at).total_seconds() * 1000
    if whole_ms < (execution.duration_ms or 0) + _WAITED_MS:
        return ""
    return f" ({span(whole_ms)} from start to end)"


def _cancelled(execution: wire.ExecutionSummary) -> int:
    """Return how many sub-tasks were cancelled: of one that has ended, all that are nothing else."""
    if execution.completed_at is None:
        return 0
    return execution.total_tasks - execution.completed_tasks - execution.failed_tasks - execution.skipped_tasks


def short_id(execution_id: str) -> str:
    """Return the start of an id that is enough for `dagbok show`: the millisecond and 12 more bits of a UUIDv7."""
    return execution_id.partition("_")[2][:18] or execution_id


def styled(execution: wire.ExecutionSummary, text: str, *, alive: bool = True) -> Text:
    """Return `text` after the sign of the execution's status, in its colour."""
    sign, style = SIGNS[state(execution, alive=alive)]
    return Text(f"{sign} {text}", style=style)


def _tool(step: wire.SubStep) -> str:
    return shown_tool(step.task_id, called(step))


def _took(step: wire.SubStep) -> str:
    ended = step.status in ENDED  # that of one between two attempts is of the one that failed
    return span(step.duration_ms) if ended and step.duration_ms is not None else ""


def _described(step: wire.SubStep) -> str:
    again = f"attempt {step.attempt}" if step.attempt > 1 else ""
    other = "" if step.override is None else f"with other {', '.join(sorted(step.override))}"
    taken = REASONS[Reason.REUSED] if step.reason == Reason.REUSED else ""
    more = ", ".join(part for part in (again, other, taken) if part)
    return f"{_what(step)}{f' ({more})' if more else ''}".strip()


def _what(step: wire.SubStep) -> str:
    """Return what a step does, in the plan's words; of a question what is asked, and what was answered."""
    if step.action_type != "human":
        return line(step.description, 120)
    asked = step.description or (step.input or step.tool_or_prompt_params).get("prompt", "")
    answer = f" {line(values.as_text(step.result), 80)}" if step.status == "completed" else ""
    return f"{line(values.as_text(asked), 120)}{answer}".strip()


def _outcome(step: wire.SubStep) -> str:
    """Return what there is to say beside "completed": the error, or why it was not run."""
    error = shown_error(step.error_code, step.error)
    if step.status == "completed":
        return f"used its default after {error}" if error else ""
    if step.status in ("skipped", "cancelled", "waiting"):
        why = REASONS.get(step.reason or "", step.reason or "")
        return f"{step.status} {why}".rstrip() + (f" ({error})" if error else "")
    if step.next_attempt_at is None:
        return error
    when = f"{clock(step.next_attempt_at)} ({left(step.next_attempt_at)})"
    if step.status == "running":
        return f"{line(step.description, 120)} until {when}".lstrip()
    return f"attempt {step.attempt + 1} at {when} after {error}"


def _fenced(text: str) -> str:
    # A result that is a JSON object (a plan of several ends without a synthesis) is no prose.
    if text[:1] not in "{[":
        return text
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
    fence = "`" * 8
    return f"{fence}json\n{orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()}\n{fence}"
