"""Small diaries for tests: an execution, its steps, and the changes that move it on."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from dagbok.domain import values
from dagbok.domain.events import Event, EventType
from dagbok.domain.graph import natural
from dagbok.domain.ids import DagId, Epoch, ExecutionId, TaskId
from dagbok.domain.records import Changes, HeaderRow, NewExecution, NewStep, StepRow
from dagbok.domain.values import JsonText
from dagbok.store.database import Database
from dagbok.store.journal import Journal

NOW = 1_790_000_000_000
EMPTY = JsonText("{}")
_numbers = itertools.count(1)


def execution_id(number: int) -> ExecutionId:
    return ExecutionId(f"dag-exec_{number:08}-0000-7000-8000-000000000000")


def new_execution(number: int | None = None, *, tasks: Iterable[str] = ("1", "2", "10"), **other: Any) -> NewExecution:
    number = next(_numbers) if number is None else number
    ids = list(tasks)
    ranks = natural(ids)
    steps = [
        NewStep(TaskId(id), rank, "does", "because", "tool", "echo", EMPTY, "words", JsonText("[]"), "pure")
        for id, rank in zip(ids, ranks, strict=True)
    ]
    fields: dict[str, Any] = {
        "id": execution_id(number),
        "dag_id": DagId(f"dag_{number:08}"),
        "new_dag": True,
        "plan_hash": "hash-of-a-plan",
        "plan": values.encode({"original_request": "Say ö"}),
        "title": f"Title {number}",
        "original_request": "Say ö",
        "primary_intent": "say",
        "created_at": NOW + number,
        "total_tasks": len(steps),
        "steps": steps,
        "event": Event(1, EventType.EXECUTION_CREATED.value, None, NOW + number, None),
        "owner": "engine-1",
    }
    return NewExecution(**(fields | other))


def header(status: str = "running", **columns: Any) -> HeaderRow:
    blank: dict[str, Any] = dict.fromkeys(HeaderRow._fields)
    counts = dict.fromkeys(("duration_ms", "completed_tasks", "failed_tasks", "waiting_tasks", "skipped_tasks"), 0)
    return HeaderRow(
        **(blank | counts | {"running_tasks": 0, "retry_count": 0, "status": status, "updated_at": NOW} | columns)
    )


def step(task_id: str, status: str = "completed", **columns: Any) -> StepRow:
    blank: dict[str, Any] = dict.fromkeys(StepRow._fields)
    ended = NOW + 5 if status in ("completed", "failed", "skipped", "cancelled") else None
    base = {"task_id": task_id, "status": status, "attempt": 1, "revision": 0, "updated_at": NOW}
    return StepRow(**(blank | base | {"started_at": NOW, "completed_at": ended} | columns))


def event(seq: int, task_id: str | None = None, type: EventType = EventType.SUBSTEP_COMPLETED) -> Event:
    return Event(seq, type.value, None if task_id is None else TaskId(task_id), NOW, values.encode({"n": seq}))


def changes(id: ExecutionId, before: int, *steps: StepRow, epoch: int = 1, **other: Any) -> Changes:
    """Changes with one event per step (at least one), beginning after event `before`."""
    events = [event(before + 1 + index, row.task_id) for index, row in enumerate(steps)] or [event(before + 1)]
    fields: dict[str, Any] = {
        "execution_id": id,
        "epoch": Epoch(epoch),
        "seq_before": before,
        "seq_after": before + len(events),
        "header": header(),
        "steps": steps,
        "events": events,
    }
    return Changes(**(fields | other))


@asynccontextmanager
async def journal(database: Database, **options: Any) -> AsyncIterator[Journal]:
    writing = Journal(database, **options)
    writing.start()
    try:
        yield writing
    finally:
        await asyncio.wait_for(writing.close(), 30)
