"""One line of the log per event of the diary, on the logger `dagbok.diary`, once the event is durable.

The event's type is the message; ids, number and the telling parts of its data are the fields (`extra`), named as in the
API. What a step gives back or is given is never told. Programs decide what becomes of the lines; a program that
configures no logging sees none.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

from dagbok.domain import values
from dagbok.domain.events import Event, EventType
from dagbok.domain.execution import Execution
from dagbok.domain.ids import ExecutionId
from dagbok.domain.records import Changes, NewExecution
from dagbok.store.batch import Created

log = logging.getLogger("dagbok.diary")
# Else Python would print the bare message of a warning where nobody configured logging.
log.addHandler(logging.NullHandler())

_WARNINGS: Final = frozenset({EventType.SUBSTEP_FAILED, EventType.EXECUTION_PARTIAL, EventType.EXECUTION_FAILED})
#: Of an event's data; none of them is an attribute that `logging.LogRecord` has already.
_TOLD: Final = frozenset(
    {"attempt", "tool", "durationMs", "delayMs", "errorCode", "error", "costUsd", "model", "reason", "because"}
    | {"forkedFrom", "fromTask", "reused", "by", "kind", "decision", "completed", "failed", "skipped", "cancelled"}
)


def log_changes(_: Execution, changes: Changes) -> None:
    """Log each event of durable changes; a listener of the scheduler."""
    everything = log.isEnabledFor(logging.INFO)
    if not everything and not log.isEnabledFor(logging.WARNING):
        return
    for event in changes.events:
        if everything or event.type in _WARNINGS:
            _log(changes.execution_id, event)


def log_created(new: NewExecution, written: asyncio.Future[Created]) -> None:
    """Log `execution.created`, which is written with the submission, if `written` says that it was."""
    if written.cancelled() or written.exception() is not None or written.result().existing:
        return
    if log.isEnabledFor(logging.INFO):
        _log(new.id, new.event, dagId=new.dag_id, totalTasks=new.total_tasks)


def _log(execution_id: ExecutionId, event: Event, **more: Any) -> None:
    fields: dict[str, Any] = {"executionId": execution_id, "seq": event.seq, **more}
    if event.task_id is not None:
        fields["taskId"] = event.task_id
    if event.data is not None:
        data: dict[str, Any] = values.decode(event.data)
        fields.update({name: value for name, value in data.items() if name in _TOLD})
    level = logging.WARNING if event.type in _WARNINGS else logging.INFO
    # What `log.log` does, without the search for the line of code that called: it costs as much as the rest.
    log.handle(log.makeRecord(log.name, level, __file__, 0, event.type, (), None, "log_changes", fields))
