"""The states of executions and sub-steps, what each means, and the table of legal moves.

Docs and tests read this table; the database checks the words and the columns they imply.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class ExecutionStatus(StrEnum):
    """Where one run of a plan stands."""

    PENDING = "pending"  #: accepted and durable; nothing has started
    RUNNING = "running"  #: work is left, and it can go on by itself
    WAITING = "waiting"  #: a person must answer, or it is paused with nothing running
    COMPLETED = "completed"  #: every sub-step completed, or was skipped by choice
    FAILED = "failed"  #: ended, and nothing completed
    PARTIAL = "partial"  #: ended with some results and some losses
    CANCELLED = "cancelled"  #: somebody asked for the end


class StepStatus(StrEnum):
    """Where one sub-task of an execution stands."""

    PENDING = "pending"  #: waits for its dependencies, a free slot, or its next attempt
    RUNNING = "running"  #: an attempt is open
    WAITING = "waiting"  #: a person must answer
    COMPLETED = "completed"  #: has a result
    FAILED = "failed"  #: its last attempt failed, or its outcome cannot be known
    SKIPPED = "skipped"  #: will not run; `reason` says why
    CANCELLED = "cancelled"  #: was stopped, or will not start; `reason` says why


class Effect(StrEnum):
    """What repeating a tool call would do."""

    PURE = "pure"  #: nothing; it reads or computes
    IDEMPOTENT = "idempotent"  #: nothing more than doing it once (with the same idempotency key)
    ONCE = "once"  #: it must not be repeated blindly


class Reason(StrEnum):
    """Why a sub-step was skipped or cancelled, waits, may run, or has a result without a try."""

    DEPENDENCY_FAILED = "dependency_failed"
    CHOSEN = "chosen"  #: `on_failure: skip`
    CANCELLED = "cancelled"  #: on request
    DEADLINE = "deadline"  #: the execution's time was over
    STORE_REJECTED = "store_rejected"  #: the database refuses its rows
    FAIL_FAST = "fail_fast"  #: another sub-task failed, and the execution was to end then
    HUMAN = "human"  #: waits for an answer
    APPROVAL = "approval"  #: waits for a person who lets it run
    APPROVED = "approved"  #: a person has let it run; it may begin, or does run
    REUSED = "reused"  #: it completed in the execution that this one is a fork of
    OUTCOME_UNKNOWN = "outcome_unknown"  #: nobody knows what an attempt of a `once` tool did; did it happen?


class FailurePolicy(StrEnum):
    """What the failure of a sub-task means for those that do not depend on it."""

    CONTINUE = "continue"  #: nothing
    FAIL_FAST = "fail_fast"  #: they are cancelled, and the execution ends


class AttemptOutcome(StrEnum):
    """How a try ended that did not end well."""

    FAILED = "failed"  #: the tool failed
    TIMEOUT = "timeout"  #: it took too long
    INTERRUPTED = "interrupted"  #: its process died
    STOPPED = "stopped"  #: its engine closed
    CANCELLED = "cancelled"  #: the execution was ended


class QuestionOutcome(StrEnum):
    """How a question to a person was closed."""

    ANSWERED = "answered"
    TIMED_OUT = "timed_out"  #: nobody answered in time
    CANCELLED = "cancelled"  #: the execution ended


ENDED: Final = frozenset({StepStatus.COMPLETED, StepStatus.FAILED, StepStatus.SKIPPED, StepStatus.CANCELLED})
EXECUTION_ENDED: Final = frozenset(
    {ExecutionStatus.COMPLETED, ExecutionStatus.FAILED, ExecutionStatus.PARTIAL, ExecutionStatus.CANCELLED}
)

STEP_MOVES: Final[dict[StepStatus, frozenset[StepStatus]]] = {
    StepStatus.PENDING: frozenset(
        {
            StepStatus.RUNNING,
            StepStatus.WAITING,
            StepStatus.SKIPPED,
            StepStatus.CANCELLED,
            StepStatus.FAILED,
            StepStatus.COMPLETED,
        }
    ),
    StepStatus.RUNNING: frozenset(
        {
            StepStatus.PENDING,
            StepStatus.WAITING,
            StepStatus.COMPLETED,
            StepStatus.FAILED,
            StepStatus.SKIPPED,
            StepStatus.CANCELLED,
        }
    ),
    StepStatus.WAITING: frozenset(
        {StepStatus.PENDING, StepStatus.COMPLETED, StepStatus.FAILED, StepStatus.SKIPPED, StepStatus.CANCELLED}
    ),
    StepStatus.COMPLETED: frozenset({StepStatus.PENDING}),  # the synthesis alone; as the next three, by a retry
    StepStatus.FAILED: frozenset({StepStatus.PENDING}),
    StepStatus.SKIPPED: frozenset({StepStatus.PENDING}),
    StepStatus.CANCELLED: frozenset({StepStatus.PENDING}),
}

#: Where a retry leads: pending where nothing has ever started.
_RETRIED: Final = frozenset({ExecutionStatus.PENDING, ExecutionStatus.RUNNING, ExecutionStatus.WAITING})

EXECUTION_MOVES: Final[dict[ExecutionStatus, frozenset[ExecutionStatus]]] = {
    ExecutionStatus.PENDING: frozenset(ExecutionStatus) - {ExecutionStatus.PENDING},
    ExecutionStatus.RUNNING: frozenset(ExecutionStatus) - {ExecutionStatus.PENDING, ExecutionStatus.RUNNING},
    ExecutionStatus.WAITING: frozenset(ExecutionStatus) - {ExecutionStatus.WAITING},  # pending: one that was paused
    ExecutionStatus.COMPLETED: frozenset(),
    ExecutionStatus.FAILED: _RETRIED,
    ExecutionStatus.PARTIAL: _RETRIED,
    ExecutionStatus.CANCELLED: _RETRIED,
}
