"""What clients see: the shapes of requests, responses and problems, camelCase outside of plans.

These models say it to OpenAPI, to the client and to the library. Responses themselves are written from rows
(`dagbok.views`); every field is always there, and what has no value is `null`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, Self

import orjson
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from dagbok.domain import inbox
from dagbok.domain.plan import LONGEST_S, Id, Plan
from dagbok.domain.retry import RetryObject
from dagbok.domain.states import AttemptOutcome, Effect, ExecutionStatus, FailurePolicy, QuestionOutcome, StepStatus


class Shape(BaseModel):
    """A JSON object with camelCase names; snake_case is accepted too, unknown fields are kept."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="allow")

    @classmethod
    def read(cls, data: bytes | str) -> Self:
        """Return the object of JSON text. Raises ValueError.

        Not by Pydantic's own parser, which nests less deep than values may.
        """
        return cls.model_validate(orjson.loads(data))


class Attempt(Shape):
    """A try of a sub-step that did not end well."""

    number: int = Field(description="Which try it was, from 1; tries that ended well are not told")
    outcome: AttemptOutcome
    error: str | None
    error_code: str | None
    started_at: datetime | None
    completed_at: datetime
    duration_ms: int | None
    usage: dict[str, Any] | None
    cost_usd: float | None


_SHOWN = (
    "What there is to know before answering. Of `approval`: `tool`, `params`, `description`. Of `did_it_happen`: "
    '`attempt`, `params`, `description`, and `late`, if the attempt has ended since: `{"result"}`, or '
    '`{"error", "errorCode"}`'
)
_DUE = "When its time is over, or somebody is reminded; null: it waits for as long as its execution does"


class Question(Shape):
    """What a sub-step asks a person; it waits for the answer."""

    number: int = Field(description="The n-th question of this sub-step, from 1")
    kind: inbox.Kind
    prompt: str
    answer_schema: dict[str, Any] | None = Field(alias="schema", description="JSON Schema of the answer; null: any")
    assignee: str | None
    asked_at: datetime
    due_at: datetime | None = Field(description=_DUE)
    reminders: int = Field(description="How often its time was over, and somebody was reminded")
    shown: dict[str, Any] | None = Field(description=_SHOWN)


class SubStep(Shape):
    """One sub-task of one execution."""

    id: str
    execution_id: str
    task_id: str
    position: int
    description: str
    thought: str
    action_type: Literal["tool", "inference", "human"]
    tool_or_prompt_name: str
    tool_or_prompt_params: dict[str, Any]
    expected_output: str
    dependencies: list[str]
    status: StepStatus
    reason: str | None
    attempt: int
    revision: int = Field(description="How often it was overridden; part of its idempotency key")
    override: dict[str, Any] | None = Field(
        description="What stands in place of the plan's `params`, `tool` or `model`; null: nothing"
    )
    input: Any = Field(
        description="The params with references replaced; null before the first attempt, and if over 1 MiB"
    )
    result: Any = Field(description="The result; null while there is none, and where it is larger than 64 KiB")
    result_bytes: int | None
    result_url: str | None = Field(description="Where the whole result is, if it is larger than 64 KiB")
    error: str | None
    error_code: str | None
    error_detail: str | None
    effect: Effect
    progress: dict[str, Any] | None
    started_at: datetime | None
    completed_at: datetime | None
    duration_ms: int | None
    next_attempt_at: datetime | None = Field(description="When its back-off ends, or its `wait`")
    question: Question | None = Field(description="The question that it waits for an answer to")
    attempts: list[Attempt] = Field(
        description="Those of its last 20 tries that did not end well, oldest first; `.../attempts` has all"
    )
    usage: dict[str, Any] | None
    cost_usd: float | None
    model: str | None
    created_at: datetime
    updated_at: datetime


class ExecutionSummary(Shape):
    """One run of a plan, without plan and sub-steps."""

    id: str
    dag_id: str
    forked_from: str | None = Field(description="The execution that it is a fork of; that may be deleted by now")
    title: str
    original_request: str
    primary_intent: str
    status: ExecutionStatus
    started_at: datetime | None
    completed_at: datetime | None
    duration_ms: int
    total_tasks: int
    completed_tasks: int
    failed_tasks: int
    waiting_tasks: int
    skipped_tasks: int
    running_tasks: int
    final_result: str | None = Field(description="What the user gets, Markdown; null in a list if over 64 KiB")
    synthesis_result: str | None = Field(description="The raw output of the synthesis, Markdown; likewise")
    error: str | None
    error_code: str | None
    retry_count: int
    last_retry_at: datetime | None
    total_usage: dict[str, Any] | None
    total_cost_usd: float | None
    labels: dict[str, str] | None
    priority: int
    options: dict[str, Any] | None = Field(
        description="What was asked beside the plan: `deadlineSeconds`, `failurePolicy`"
    )
    paused_at: datetime | None = Field(description="Since when nothing more of it begins")
    deadline_at: datetime | None = Field(description="When what has not ended is cancelled")
    wake_at: datetime | None
    last_event_seq: int
    created_at: datetime
    updated_at: datetime


class Execution(ExecutionSummary):
    """One run of a plan with its sub-steps, in task-id order, the synthesis last."""

    sub_steps: list[SubStep]

    def __getitem__(self, task_id: str) -> SubStep:
        """Return the sub-step of a task. Raises KeyError."""
        for step in self.sub_steps:
            if step.task_id == str(task_id):
                return step
        raise KeyError(task_id)


class Pagination(Shape):
    """Which part of a list this is."""

    limit: int
    offset: int
    count: int = Field(description="Items on this page")
    total: int = Field(description="Items on all pages")
    total_is_estimate: bool = Field(description="Whether `total`, of more than 10,000, is estimated and not counted")
    next_cursor: str | None = Field(description="The `cursor` of the page behind this one; null: there is none")


class ExecutionList(Shape):
    """A page of executions, newest first."""

    executions: list[ExecutionSummary]
    pagination: Pagination


class SubStepList(Shape):
    """The sub-steps of an execution."""

    execution_id: str
    sub_steps: list[SubStep]


class AttemptList(Shape):
    """All tries of a sub-step that did not end well, oldest first."""

    execution_id: str
    task_id: str
    attempts: list[Attempt]


class HumanInput(Shape):
    """A question to a person, open or closed, with what became of it."""

    execution_id: str
    execution_title: str
    task_id: str
    number: int = Field(description="The n-th question of this sub-step, from 1")
    kind: inbox.Kind
    prompt: str = Field(description="Of one over 64 KiB the beginning; the sub-step that asks has it whole")
    answer_schema: dict[str, Any] | None = Field(
        alias="schema", description="JSON Schema of the answer; null: any, or over 64 KiB"
    )
    assignee: str | None
    shown: dict[str, Any] | None = Field(description=f"{_SHOWN}. Null also if over 64 KiB")
    asked_at: datetime
    due_at: datetime | None = Field(description=_DUE)
    reminders: int = Field(description="How often its time was over, and somebody was reminded")
    closed_at: datetime | None
    outcome: QuestionOutcome | None = Field(description="How it was closed; null also of what an early release closed")
    answer: Any = Field(description="`input`, or the decision with what belongs to it; null also if over 64 KiB")
    answered_by: str | None = Field(description="Who answered, or ended the execution, as far as they said")


class InboxPagination(Shape):
    """Which part of the inbox this is."""

    limit: int
    count: int = Field(description="Items on this page")
    next_cursor: str | None = Field(description="The `cursor` of the page behind this one; null: there is none")


class HumanInputList(Shape):
    """A page of questions: the open ones, oldest first, or all, newest first."""

    human_inputs: list[HumanInput]
    pagination: InboxPagination


class GraphNode(Shape):
    """A sub-step in the graph of its execution."""

    task_id: str
    position: int
    description: str
    action_type: Literal["tool", "inference", "human"]
    tool_or_prompt_name: str
    status: StepStatus
    reason: str | None
    attempt: int
    error_code: str | None
    started_at: datetime | None
    completed_at: datetime | None
    duration_ms: int | None
    next_attempt_at: datetime | None
    x: int | None = Field(description="Of its upper left corner; y grows downwards")
    y: int | None
    width: int | None
    height: int | None


class GraphEdge(Shape):
    """A sub-step (`target`) that waits for another (`source`), by task id."""

    source: str
    target: str


class GraphFrame(Shape):
    """Many sub-steps, or chains of them, that wait for the same and free the same: drawn in one frame."""

    task_ids: list[str]
    x: int
    y: int
    width: int
    height: int


class GraphLine(Shape):
    """A line of the picture: an edge from each of the sources to each of the targets."""

    sources: list[str]
    targets: list[str]
    points: list[tuple[int, int]] = Field(description="From above; upright where it leaves and enters")


class Graph(Shape):
    """Who waits for whom in an execution, and where a picture has it."""

    execution_id: str
    title: str
    status: ExecutionStatus
    width: int | None = Field(description="Of the picture; null, as all coordinates, where lines are too many for one")
    height: int | None
    nodes: list[GraphNode] = Field(description="In task-id order, the synthesis last")
    edges: list[GraphEdge]
    frames: list[GraphFrame]
    lines: list[GraphLine]


class SubmitOptions(Shape):
    """What a submission may ask beside its plan."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")

    title: Annotated[str, Field(max_length=500)] | None = None
    labels: (
        Annotated[
            dict[Annotated[str, Field(max_length=100)], Annotated[str, Field(max_length=500)]], Field(max_length=100)
        ]
        | None
    ) = None
    deadline_seconds: Annotated[
        float,
        Field(
            strict=True, gt=0, le=LONGEST_S, allow_inf_nan=False,
            description="From the submission on; what has not ended by then is cancelled, and what completed counts",
        ),
    ] | None = None  # fmt: skip
    failure_policy: Annotated[
        FailurePolicy,
        Field(description="`fail_fast`: the first sub-task that fails ends the execution. Absent: `continue`"),
    ] | None = None  # fmt: skip


class SubmitRequest(Shape):
    """A submission with options: either a plan or the id of a stored dag. A bare plan is accepted in its place."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")

    plan: Plan | None = None
    dag_id: str | None = None
    options: SubmitOptions | None = None


class SubmitResponse(Shape):
    """A durable execution that runs."""

    status: Literal["started"] = "started"
    execution_id: str
    dag_id: str
    original_request: str
    total_tasks: int
    message: str


class ForkResponse(SubmitResponse):
    """A fork that runs."""

    forked_from: str
    reused_tasks: int = Field(description="Sub-tasks that are taken over as they are, and do not run")


class ClarificationResponse(BaseModel):
    """The agent asks before it plans; nothing runs. The names are fixed: older clients know them."""

    status: Literal["clarification_required"] = "clarification_required"
    clarification_query: str | None


class CascadeInfo(Shape):
    """What went with a deleted execution."""

    related_sub_steps_deleted: int


class DeleteResponse(Shape):
    """An execution that is gone."""

    message: str
    execution_id: str
    cascade_info: CascadeInfo


class AnswerRequest(Shape):
    """An answer: `input` to a question of the plan, a `decision` to an approval and to "did it happen?"."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")

    input: Any = Field(None, description="To `human`: the answer")
    decision: Literal["approve", "edit", "reject", "retry", "succeeded", "fail"] | None = Field(
        None, description="To `approval`: approve, edit or reject; to `did_it_happen`: retry, succeeded or fail"
    )
    params: dict[str, Any] | None = Field(None, description="With `edit`: all params, in place of those shown")
    result: Any = Field(None, description="With `succeeded`: what it brought")
    number: int | None = Field(
        None,
        ge=1,
        le=2**31 - 1,
        description="Of the question that was seen: a later one is about something else, perhaps, and is not answered "
        "by this. Absent: whichever is open",
    )
    by: Annotated[str, Field(max_length=200)] | None = None


class CommandRequest(Shape):
    """What may be said with a command."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")

    by: Annotated[str, Field(max_length=200, description="Who asks; the diary keeps it")] | None = None


Overrides = Annotated[
    dict[str, Any],
    Field(
        max_length=10_000,
        description="By sub-task, what it is called with from now on: `params` as a whole, another `tool`, another "
        '`model` (of an inference, or of `__SYNTHESIS__`): `{"2": {"params": {"url": "..."}}}`',
    ),
]


class RetryRequest(CommandRequest):
    """What may be said with a retry."""

    steps: Annotated[
        list[Id],
        Field(
            min_length=1, max_length=10_000,
            description="Of these sub-tasks alone, each failed or cancelled; what they skipped follows. Absent: all",
        ),
    ] | None = None  # fmt: skip
    overrides: Overrides | None = None


class ForkRequest(CommandRequest):
    """What is to be different in a fork."""

    from_task: Annotated[
        Id, Field(description="A sub-task that runs again, and all that depends on it; or `__SYNTHESIS__`")
    ] | None = None  # fmt: skip
    overrides: Overrides | None = None
    plan: Annotated[
        Any,
        Field(
            description="The plan of the fork, in place of the origin's; not together with `overrides`",
            json_schema_extra={"anyOf": [{"$ref": "#/components/schemas/Plan"}, {"type": "null"}]},
        ),
    ] = None


class ResumeResponse(Shape):
    """An execution that goes on, durably: one that ended runs its lost part again."""

    status: Literal["resumed"] = "resumed"
    execution_id: str
    dag_id: str
    retry_count: int
    message: str


class CommandResponse(Shape):
    """A command that is durable."""

    message: str
    execution_id: str


class ToolFunction(BaseModel):
    """A function as model APIs describe it."""

    name: str
    description: str
    parameters: dict[str, Any]


class ToolView(Shape):
    """A tool that plans may call."""

    type: Literal["function"] = "function"
    function: ToolFunction
    effect: Effect
    timeout_seconds: float
    idle_timeout_seconds: float | None = Field(description="How long it may go without progress; null: for ever")
    max_concurrency: int | None
    aliases: list[str]
    retry: RetryObject | None = Field(description="How failed attempts are repeated where the plan does not say")


class Health(Shape):
    """The process answers."""

    status: Literal["ok"] = "ok"
    timestamp: datetime


class SchedulerHealth(Shape):
    """What starts by itself."""

    active_schedules: int = Field(description="Schedules (cron) that are active; 0 until this server has any")


class Ready(Shape):
    """Submissions can be taken."""

    status: Literal["ready", "not_ready"]
    provider: str
    model: str
    scheduler: SchedulerHealth
    timestamp: datetime


class ProblemItem(BaseModel):
    """One fault of the request."""

    pointer: str = Field(description="JSON pointer (RFC 6901) into the body; the place of a query parameter")
    code: str
    detail: str


class ProblemDetails(BaseModel):
    """An error (RFC 9457)."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str
    instance: str | None = None
    errors: list[ProblemItem] | None = None
    request_id: str | None = Field(
        None, alias="requestId", description="Of the answer's `X-Request-Id`; the log has it too"
    )
