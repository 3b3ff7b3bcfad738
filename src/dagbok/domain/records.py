"""The rows that pass between the aggregate and the store, as tuples of column values.

Tuples, because each step writes several and they go to the database driver as they are. JSON travels as text
(`JsonText`), encoded once where it arises. Times are UTC milliseconds since 1970.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from dagbok.domain.events import Event
from dagbok.domain.ids import DagId, Epoch, ExecutionId, TaskId
from dagbok.domain.states import Effect
from dagbok.domain.values import Json, JsonText


class StepRow(NamedTuple):
    """The columns of a sub-step that change. Sizes (`result_bytes`) and blobs are the store's."""

    task_id: TaskId
    status: str  # a word of StepStatus; the plain string, because drivers bind those fastest
    reason: str | None
    attempt: int  # tries begun so far
    revision: int  # grows when params are overridden; part of the idempotency key
    input: JsonText | None  # the resolved params; None while not started, or where they equal `tool_or_prompt_params`
    result: JsonText | None
    error: str | None
    error_code: str | None
    error_detail: str | None
    progress: JsonText | None  # the last report of a running tool: {"message", "fraction"}
    started_at: int | None  # of the latest attempt
    completed_at: int | None
    duration_ms: int | None  # of the latest attempt, once it has ended and the step has too, or backs off
    next_attempt_at: int | None  # when a back-off ends (pending), or a timer (running)
    usage: JsonText | None
    cost_usd: float | None
    model: str | None
    updated_at: int


class HeaderRow(NamedTuple):
    """The columns of an execution that change."""

    status: str  # a word of ExecutionStatus
    started_at: int | None
    completed_at: int | None
    duration_ms: int  # the sum of its active periods
    completed_tasks: int
    failed_tasks: int
    waiting_tasks: int
    skipped_tasks: int
    running_tasks: int
    final_result: str | None  # Markdown
    synthesis_result: str | None  # Markdown
    error: str | None
    error_code: str | None
    retry_count: int
    last_retry_at: int | None
    total_usage: JsonText | None
    total_cost_usd: float | None
    paused_at: int | None
    deadline_at: int | None
    wake_at: int | None  # when somebody has to look at it who does not own it now; None: nobody by itself
    parked_at: int | None  # since when it belongs to nobody, and waits
    updated_at: int


class AttemptRow(NamedTuple):
    """A try that did not end well."""

    task_id: TaskId
    number: int
    outcome: str  # a word of AttemptOutcome
    error: str | None
    error_code: str | None
    started_at: int | None
    completed_at: int
    usage: JsonText | None
    cost_usd: float | None


class QuestionRow(NamedTuple):
    """One line of the inbox: written when asked (closed_at None), written again when closed."""

    task_id: TaskId
    number: int  # the n-th question of this sub-step, from 1
    kind: str  # human | approval | did_it_happen
    prompt: str
    answer_schema: JsonText | None
    assignee: str | None
    shown: JsonText | None  # what the person was shown beside the prompt
    asked_at: int
    due_at: int | None  # when its time is over, or somebody is reminded
    closed_at: int | None
    answer: JsonText | None
    answered_by: str | None
    outcome: str | None = None  # a word of QuestionOutcome, once it is closed
    reminders: int = 0


class OverrideRow(NamedTuple):
    """What somebody has changed about a sub-step since its plan was written."""

    task_id: TaskId
    override: JsonText  # {"params"?, "tool"?, "model"?}, all that stand now
    effect: str  # a word of Effect, of what it calls now


@dataclass(frozen=True, slots=True)
class Changes:
    """All that one commit writes of one execution. `seq_before == seq_after` only for progress reports."""

    execution_id: ExecutionId
    epoch: Epoch
    seq_before: int
    seq_after: int
    header: HeaderRow
    steps: Sequence[StepRow] = ()
    attempts: Sequence[AttemptRow] = ()
    questions: Sequence[QuestionRow] = ()
    events: Sequence[Event] = ()
    commands: Sequence[int] = ()  # ids of the commands applied by these changes
    ready: Sequence[int] = ()  # positions of steps that may start once this is committed; not stored
    overrides: Sequence[OverrideRow] = ()
    release: bool = False  # the execution leaves this owner: it ended, or has nothing to do before `header.wake_at`


class NewStep(NamedTuple):
    """The columns of a sub-step that never change."""

    task_id: TaskId
    position: int  # its rank in natural order; the synthesis is last
    description: str
    thought: str
    action_type: str
    tool_or_prompt_name: str
    tool_or_prompt_params: JsonText
    expected_output: str
    dependencies: JsonText
    effect: str  # a word of Effect


@dataclass(frozen=True, slots=True)
class NewExecution:
    """A submission: everything that makes an execution exist, in one transaction."""

    id: ExecutionId
    dag_id: DagId
    new_dag: bool  # the dag is stored with it; otherwise it exists already
    plan_hash: str
    plan: JsonText
    title: str
    original_request: str
    primary_intent: str
    created_at: int
    total_tasks: int
    steps: Sequence[NewStep]
    event: Event  # execution.created
    owner: str | None = None  # the engine that runs it from the start (epoch 1); None: whoever claims it
    labels: JsonText | None = None
    options: JsonText | None = None
    priority: int = 0
    deadline_at: int | None = None
    idempotency_key: str | None = None
    request_hash: str | None = None
    traceparent: str | None = None
    forked_from: ExecutionId | None = None
    start: Changes | None = None  # what a fork has from the beginning: written in the same commit


class Command(NamedTuple):
    """What somebody asks of an execution; its owner applies it."""

    id: int
    execution_id: ExecutionId
    kind: str
    data: Mapping[str, Json]
    by: str | None
    at_ms: int


@dataclass(frozen=True, slots=True)
class StoredExecution:
    """What taking over an execution reads: enough to go on, results included."""

    id: ExecutionId
    dag_id: DagId
    plan: JsonText
    options: JsonText | None
    epoch: Epoch
    last_event_seq: int
    created_at: int
    header: HeaderRow
    steps: Sequence[StepRow]  # in any order
    effects: Mapping[TaskId, Effect]
    questions: Sequence[QuestionRow] = ()  # open and closed
    failures: Mapping[TaskId, int] = field(default_factory=dict)  # attempts that failed or took too long, per task
    interruptions: Mapping[TaskId, int] = field(default_factory=dict)  # attempts closed as interrupted, per task
    parked: tuple[int, int] | None = None  # from when until when it belonged to nobody and waited, if it did
    overrides: Mapping[TaskId, JsonText] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list."""

    items: Sequence[Mapping[str, Any]]
    total: int  # of all pages
    limit: int
    offset: int
    next_cursor: str | None = None  # of the page behind it; None: this is the last, or the list has no cursors
    total_is_estimate: bool = False
