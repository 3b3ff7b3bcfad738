"""The words of the diary: one event is one line, numbered without gaps per execution."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from dagbok.domain.ids import TaskId
from dagbok.domain.values import JsonText


class EventType(StrEnum):
    """What happened."""

    EXECUTION_CREATED = "execution.created"
    EXECUTION_STARTED = "execution.started"
    EXECUTION_WAITING = "execution.waiting"
    EXECUTION_PAUSED = "execution.paused"
    EXECUTION_RESUMED = "execution.resumed"
    EXECUTION_RETRIED = "execution.retried"
    EXECUTION_COMPLETED = "execution.completed"
    EXECUTION_PARTIAL = "execution.partial"
    EXECUTION_FAILED = "execution.failed"
    EXECUTION_CANCELLED = "execution.cancelled"
    SUBSTEP_STARTED = "substep.started"
    SUBSTEP_COMPLETED = "substep.completed"
    SUBSTEP_FAILED = "substep.failed"
    SUBSTEP_RETRYING = "substep.retrying"
    SUBSTEP_WAITING = "substep.waiting"
    SUBSTEP_ANSWERED = "substep.answered"
    SUBSTEP_REMINDED = "substep.reminded"
    SUBSTEP_OVERRIDDEN = "substep.overridden"
    SUBSTEP_SKIPPED = "substep.skipped"
    SUBSTEP_CANCELLED = "substep.cancelled"


class Event(NamedTuple):
    """One line of the diary. A tuple, because each step writes two of them."""

    seq: int  #: 1, 2, 3, ... per execution
    type: str  #: a word of EventType
    task_id: TaskId | None  #: None: about the execution
    at_ms: int  #: UTC milliseconds since 1970
    data: JsonText | None  #: an object: sizes, usage, codes; never a whole result
