"""How an execution comes along, told by the rows of its sub-steps as they become durable.

One way to tell for an engine in this process (committed rows) and for a server (polled sub-steps): both become `Now`.
`Progress` compares each with what it knew and says what happened in between; `plain` and `live` decide how it looks.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import NamedTuple

from dagbok import wire
from dagbok.cli.terminal import line, note
from dagbok.cli.words import REASONS, clock, of_ms, shown_error, shown_id, shown_tool, span
from dagbok.domain import values
from dagbok.domain.execution import Execution
from dagbok.domain.ids import SYNTHESIS
from dagbok.domain.records import Changes, StepRow
from dagbok.domain.states import ENDED, EXECUTION_ENDED

_ENDED = frozenset(map(str, ENDED))
_STOPPED = frozenset(map(str, EXECUTION_ENDED)) | {"waiting"}


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
    next_ms: int | None  # when its next attempt begins (pending), or its timer ends (running)
    updated_ms: int
    error_code: str | None
    error: str | None
    message: str  # the last progress report


class Whole(NamedTuple):
    """The execution itself as it is now."""

    status: str
    paused: bool
    active_ms: int
    updated_ms: int


class Line(NamedTuple):
    """One thing that happened."""

    at_ms: int
    verb: str
    now: Now | None  # None: to the execution
    text: str


class Progress:
    """What is known of one execution. Written by one thread, read by the one that draws."""

    def __init__(self, total: int, *, title: str = "", started_ms: int, label: str = "") -> None:
        self.total = total  # sub-tasks; the synthesis is none
        self.title = title
        self.started_ms = started_ms
        self.label = label  # tells it from others that are shown beside it; "": there are none
        self.whole = Whole("pending", paused=False, active_ms=0, updated_ms=started_ms)
        self.on_lines: Callable[[list[Line]], None] | None = None  # called with what happened, in order of time
        self._lock = threading.Lock()
        self._under_way: dict[str, Now] = {}  # running, or waiting for the next attempt
        self._seen: dict[str, tuple[str, int]] = {}  # status and attempt by task id
        self._counts: dict[str, int] = {}

    def know(self, steps: Iterable[Now], whole: Whole) -> None:
        """Take in how things stand at the start, which is no news."""
        self._take_in(steps)
        self.whole = whole

    def take(self, steps: Iterable[Now], whole: Whole) -> None:
        """Take in sub-steps and execution as they are now, changed or not."""
        lines = self._take_in(steps)
        before, self.whole = self.whole, whole
        lines += _happened_to_all(before, whole, alone=not self.label)
        if lines and self.on_lines is not None:
            lines.sort(key=lambda happened: happened.at_ms)
            self.on_lines(lines)

    def _take_in(self, steps: Iterable[Now]) -> list[Line]:
        lines: list[Line] = []
        with self._lock:
            for now in steps:
                status, attempt = self._seen.get(now.task_id, ("pending", 0))
                if now.status == "running" or (now.status == "pending" and now.next_ms is not None):
                    self._under_way[now.task_id] = now
                else:
                    self._under_way.pop(now.task_id, None)
                if (now.status, now.attempt) == (status, attempt):
                    continue
                self._seen[now.task_id] = (now.status, now.attempt)
                if now.task_id != SYNTHESIS:
                    self._counts[status] = self._counts.get(status, 0) - 1
                    self._counts[now.status] = self._counts.get(now.status, 0) + 1
                lines += _happened(now, status, attempt)
        return lines

    def snapshot(self) -> tuple[list[Now], dict[str, int]]:
        """Return what is under way, the longest first and what waits for a time last, and sub-tasks by status."""
        with self._lock:
            under_way = sorted(self._under_way.values(), key=lambda now: (now.next_ms or 0, now.started_ms or 0))
            return under_way, dict(self._counts)


def of_changes(execution: Execution, changes: Changes) -> tuple[list[Now], Whole]:
    """Return the sub-steps of a commit, and the execution after it."""
    header = changes.header
    whole = Whole(header.status, header.paused_at is not None, header.duration_ms, header.updated_at)
    return [_of_row(execution, row) for row in changes.steps], whole


def of_execution(execution: wire.Execution) -> tuple[list[Now], Whole]:
    """Return an execution as a server, or the diary, gives it."""
    updated_ms = _ms(execution.updated_at) or 0
    whole = Whole(str(execution.status), execution.paused_at is not None, execution.duration_ms, updated_ms)
    return [_of_step(step) for step in execution.sub_steps], whole


def print_lines(progress: Progress, lines: Iterable[Line]) -> None:
    """Write what happened to stderr, one plain line each, with the time since the start."""
    label = f"{progress.label}  " if progress.label else ""
    for at_ms, verb, now, text in lines:
        elapsed = max(0, at_ms - progress.started_ms) / 1000
        about = _cells(now) if now is not None else ""
        note(f"{elapsed:7.2f}s  {label}{verb:<9}  {about}{line(text, 300)}".rstrip())


def _cells(now: Now) -> str:
    # Ids of plans are short and tools few; a longer one pushes its own line only.
    return f"{shown_id(now.task_id):<2}  {shown_tool(now.task_id, now.tool):<11}  "


def _happened(now: Now, status: str, attempt: int) -> Iterable[Line]:
    if now.attempt > attempt and now.started_ms is not None:
        again = f" (attempt {now.attempt})" if now.attempt > 1 else ""
        until = f"until {clock(of_ms(now.next_ms))}" if now.status == "running" and now.next_ms is not None else ""
        text = ", ".join(part for part in (f"{now.description}{again}".strip(), until) if part)
        yield Line(now.started_ms, "started", now, text)
    if now.status == status:
        if (
            now.status == "pending" and now.attempt > attempt
        ):  # begun and failed within one commit, or between two looks
            yield Line(now.updated_ms, "retrying", now, next_attempt(now))
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
        yield Line(now.updated_ms, "retrying", now, next_attempt(now))


def next_attempt(now: Now) -> str:
    """Return why a sub-step is tried again, and when."""
    why = shown_error(now.error_code, now.error, 200) or "it was cut off"
    pause = f" in {span(max(0, now.next_ms - now.updated_ms))}" if now.next_ms is not None else ""
    return f"{why.rstrip('.')}; attempt {now.attempt + 1}{pause or ' follows'}"


def _happened_to_all(before: Whole, now: Whole, *, alone: bool) -> Iterable[Line]:
    if now.paused and not before.paused:
        yield Line(now.updated_ms, "paused", None, "what runs ends by itself, and nothing more begins")
    if before.paused and not now.paused and now.status not in _STOPPED:
        yield Line(now.updated_ms, "resumed", None, "")
    # One that is alone has its end told at length.
    if not alone and now.status != before.status and now.status in _STOPPED and not now.paused:
        words = "for a person" if now.status == "waiting" else f"in {span(now.active_ms)}"
        yield Line(now.updated_ms, now.status, None, words)


def _of_row(execution: Execution, row: StepRow) -> Now:
    task = execution.steps[execution.index[row.task_id]].task
    message = ""
    if row.progress and row.status == "running":
        message = str(values.decode(row.progress).get("message", ""))
    return Now(
        row.task_id, task.tool, task.description, row.status, row.reason, row.attempt, row.started_at,
        row.completed_at, row.next_attempt_at, row.updated_at, row.error_code, row.error, message,
    )  # fmt: skip


def _of_step(step: wire.SubStep) -> Now:
    tool = called(step)
    return Now(
        step.task_id, tool, step.description, str(step.status), step.reason, step.attempt, _ms(step.started_at),
        _ms(step.completed_at), _ms(step.next_attempt_at), _ms(step.updated_at) or 0, step.error_code, step.error,
        str((step.progress or {}).get("message", "")),
    )  # fmt: skip


def called(step: wire.SubStep) -> str:
    """Return the tool that a sub-step calls now, the one that its type names if it has no choice."""
    named = (step.override or {}).get("tool", step.tool_or_prompt_name)
    return str(named) if step.action_type == "tool" else step.action_type


def _ms(moment: datetime | None) -> int | None:
    return None if moment is None else round(moment.timestamp() * 1000)
