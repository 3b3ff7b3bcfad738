"""How an execution comes along, told by the rows of its sub-steps as they become durable.

One way to tell for an engine in this process (committed rows) and for a server (polled sub-steps): both become `Now`.
`Progress` compares each with what it knew and says what happened in between; `plain` and `live` decide how it looks.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import NamedTuple

from dagbok import wire
from dagbok.cli.terminal import line, note
from dagbok.cli.words import REASONS, shown_error, shown_id, shown_tool, span
from dagbok.domain import values
from dagbok.domain.execution import Execution
from dagbok.domain.ids import SYNTHESIS
from dagbok.domain.records import Changes, StepRow
from dagbok.domain.states import ENDED

_ENDED = frozenset(map(str, ENDED))


class Now(NamedTuple):
    """A sub-step as it is now."""

    task_id: str
    tool: str
    description: str
    status: str
    reason: str | None
    attempt: int
    started_ms: int | None
    ended_ms: int | None
    updated_ms: int
    error_code: str | None
    error: str | None
    message: str  # the last progress report


class Line(NamedTuple):
    """One thing that happened."""

    at_ms: int
    verb: str
    now: Now
    text: str


class Progress:
    """What is known of one execution. Written by one thread, read by the one that draws."""

    def __init__(self, total: int, *, title: str = "", started_ms: int) -> None:
        self.total = total  # sub-tasks; the synthesis is none
        self.title = title
        self.started_ms = started_ms
        self.on_lines: Callable[[list[Line]], None] | None = None  # called with what happened, in order of time
        self._lock = threading.Lock()
        self._running: dict[str, Now] = {}
        self._seen: dict[str, tuple[str, int]] = {}  # status and attempt by task id
        self._counts: dict[str, int] = {}

    def take(self, steps: Iterable[Now]) -> None:
        """Take in sub-steps as they are now, changed or not."""
        lines: list[Line] = []
        with self._lock:
            for now in steps:
                status, attempt = self._seen.get(now.task_id, ("pending", 0))
                if now.status == "running":
                    self._running[now.task_id] = now
                else:
                    self._running.pop(now.task_id, None)
                if (now.status, now.attempt) == (status, attempt):
                    continue
                self._seen[now.task_id] = (now.status, now.attempt)
                if now.task_id != SYNTHESIS:
                    self._counts[status] = self._counts.get(status, 0) - 1
                    self._counts[now.status] = self._counts.get(now.status, 0) + 1
                lines += _happened(now, status, attempt)
        if lines and self.on_lines is not None:
            lines.sort(key=lambda happened: happened.at_ms)
            self.on_lines(lines)

    def snapshot(self) -> tuple[list[Now], dict[str, int]]:
        """Return the running steps, the longest first, and the number of sub-tasks by status."""
        with self._lock:
            return sorted(self._running.values(), key=lambda now: now.started_ms or 0), dict(self._counts)


def of_changes(execution: Execution, changes: Changes) -> list[Now]:
    """Return the sub-steps of a commit."""
    return [_of_row(execution, row) for row in changes.steps]


def of_execution(execution: wire.Execution) -> list[Now]:
    """Return the sub-steps of an execution as a server gives it."""
    return [_of_step(step) for step in execution.sub_steps]


def print_lines(progress: Progress, lines: Iterable[Line]) -> None:
    """Write what happened to stderr, one plain line each, with the time since the start."""
    for at_ms, verb, now, text in lines:
        elapsed = max(0, at_ms - progress.started_ms) / 1000
        note(f"{elapsed:7.2f}s  {verb:<9}  {_cells(now)}{line(text, 300)}".rstrip())


def _cells(now: Now) -> str:
    # Ids of plans are short and tools few; a longer one pushes its own line only.
    return f"{shown_id(now.task_id):<2}  {shown_tool(now.task_id, now.tool):<11}  "


def _happened(now: Now, status: str, attempt: int) -> Iterable[Line]:
    if now.attempt > attempt and now.started_ms is not None:
        again = f" (attempt {now.attempt})" if now.attempt > 1 else ""
        yield Line(now.started_ms, "started", now, f"{now.description}{again}")
    if now.status == status:
        return
    ended_ms = now.ended_ms if now.ended_ms is not None else now.updated_ms
    took = span(ended_ms - now.started_ms) if now.started_ms is not None else ""
    error = shown_error(now.error_code, now.error)
    if now.status == "completed":
        yield Line(ended_ms, "completed", now, f"{took}, with its default after {error}" if error else took)
    elif now.status == "failed":
        yield Line(ended_ms, "failed", now, error)
    elif now.status in _ENDED or now.status == "waiting":
        why = REASONS.get(now.reason or "", now.reason or "")
        yield Line(ended_ms, now.status, now, f"{why} ({error})" if error else why)
    elif now.status == "pending" and status == "running":
        yield Line(now.updated_ms, "retrying", now, error)


def _of_row(execution: Execution, row: StepRow) -> Now:
    task = execution.steps[execution.index[row.task_id]].task
    message = ""
    if row.progress and row.status == "running":
        message = str(values.decode(row.progress).get("message", ""))
    return Now(
        row.task_id, task.tool, task.description, row.status, row.reason, row.attempt, row.started_at,
        row.completed_at, row.updated_at, row.error_code, row.error, message,
    )  # fmt: skip


def _of_step(step: wire.SubStep) -> Now:
    def ms(moment: object) -> int | None:
        return None if moment is None else round(moment.timestamp() * 1000)  # type: ignore[attr-defined]

    tool = step.tool_or_prompt_name if step.action_type == "tool" else step.action_type
    return Now(
        step.task_id, tool, step.description, str(step.status), step.reason, step.attempt, ms(step.started_at),
        ms(step.completed_at), ms(step.updated_at) or 0, step.error_code, step.error,
        str((step.progress or {}).get("message", "")),
    )  # fmt: skip
