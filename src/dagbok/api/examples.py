"""One story told through every example of the API's documentation: a plan of two steps and a synthesis, as it runs."""

from __future__ import annotations

from typing import Any, Final

import orjson

from dagbok import views, wire
from dagbok.api import problems
from dagbok.domain import diagram
from dagbok.domain.inbox import Place
from dagbok.domain.validate import Problem

EXECUTION_ID: Final = "dag-exec_01932f3e-7c1b-7d2a-9f53-3f1c0a6c2b11"
_FORK_ID: Final = "dag-exec_01932f3e-9b0c-7c44-8a1e-5d4b9c2f7e30"
_DAG_ID: Final = "dag_01932f3e-7c1b-7d2a-9f53-3f2b8e0f4c57"
_AT: Final = "2025-01-15T09:30:00.120Z"
_LATER: Final = "2025-01-15T09:30:01.480Z"

PLAN: Final[dict[str, Any]] = {
    "original_request": "What does our README promise?",
    "intent": {"primary": "summarise a file"},
    "sub_tasks": [
        {
            "id": "1",
            "description": "Read the file",
            "action_type": "tool",
            "tool_or_prompt": {"name": "read_file", "params": {"path": "README.md"}},
            "dependencies": ["none"],
        },
        {
            "id": "2",
            "description": "Name the promises",
            "action_type": "inference",
            "tool_or_prompt": {"name": "inference", "params": {"prompt": "List the promises in: <Result from Task 1>"}},
            "dependencies": ["1"],
        },
    ],
    "synthesis_plan": "One sentence per promise.",
}

SUBMISSIONS: Final[dict[str, Any]] = {
    "plan": {"summary": "A bare plan", "value": PLAN},
    "options": {
        "summary": "A plan with options",
        "value": {
            "plan": PLAN,
            "options": {"title": "README promises", "labels": {"team": "docs"}, "deadlineSeconds": 600},
        },
    },
    "dag": {"summary": "A stored dag once more", "value": {"dagId": _DAG_ID}},
}

# What the routes really say.
STARTED_MESSAGE: Final = "The execution is durable and runs."
DELETED_MESSAGE: Final = "The execution and all it wrote are gone."
COMMANDED: Final = {
    "cancel": "The execution is being cancelled.",
    "pause": "The execution is being paused; what runs of it ends by itself.",
    "resume": "The execution goes on.",
}
FORKED_MESSAGE: Final = "The fork is durable and runs; what it took over does not run again."
RETRIED_MESSAGE: Final = "What was lost runs again; what has completed is kept."
ANSWERED_MESSAGE: Final = "The answer is durable; the sub-step goes on."

STARTED: Final = {
    "status": "started",
    "executionId": EXECUTION_ID,
    "dagId": _DAG_ID,
    "originalRequest": PLAN["original_request"],
    "totalTasks": 2,
    "message": STARTED_MESSAGE,
}

CLARIFICATION: Final = {"status": "clarification_required", "clarification_query": "Which README do you mean?"}


def _nothing(shape: type[wire.Shape], **given: Any) -> dict[str, Any]:
    # Every field is always there, so an example shows every field.
    return {(field.alias or name): given.get(field.alias or name) for name, field in shape.model_fields.items()}


_ATTEMPT: Final = _nothing(
    wire.Attempt,
    number=1,
    outcome="failed",
    error="The disk does not answer.",
    errorCode="unavailable",
    startedAt=_AT,
    completedAt="2025-01-15T09:30:00.180Z",
    durationMs=60,
)
SUB_STEP: Final = _nothing(
    wire.SubStep,
    id="sub-step_01932f3e-7c1b-7d2a-9f53-3f3d5b7a9e02",
    executionId=EXECUTION_ID,
    taskId="1",
    position=0,
    description="Read the file",
    thought="",
    actionType="tool",
    toolOrPromptName="read_file",
    toolOrPromptParams={"path": "README.md"},
    expectedOutput="",
    dependencies=[],
    status="completed",
    attempt=2,
    attempts=[_ATTEMPT],
    revision=0,
    input={"path": "README.md"},
    result={"path": "README.md", "text": "# Dagbok\n..."},
    resultBytes=46,
    effect="pure",
    startedAt="2025-01-15T09:30:01.180Z",
    completedAt=_LATER,
    durationMs=300,
    createdAt=_AT,
    updatedAt=_LATER,
)

SUMMARY: Final = _nothing(
    wire.ExecutionSummary,
    id=EXECUTION_ID,
    dagId=_DAG_ID,
    title="README promises",
    originalRequest=PLAN["original_request"],
    primaryIntent="summarise a file",
    status="running",
    startedAt=_AT,
    durationMs=1360,
    totalTasks=2,
    completedTasks=1,
    failedTasks=0,
    waitingTasks=0,
    skippedTasks=0,
    runningTasks=1,
    retryCount=0,
    labels={"team": "docs"},
    priority=0,
    lastEventSeq=6,
    options={"deadlineSeconds": 600.0},
    deadlineAt="2025-01-15T09:40:00.120Z",
    createdAt=_AT,
    updatedAt=_LATER,
)

EXECUTION: Final = {**SUMMARY, "subSteps": [SUB_STEP]}
#: What a client that waited gets.
SETTLED: Final = {
    **EXECUTION,
    "status": "completed",
    "completedAt": _LATER,
    "finalResult": "It keeps a durable diary of every step.",
    "completedTasks": 2,
    "runningTasks": 0,
}
TAG: Final = 'W/"0.1.0-6-1736933401480"'
EXECUTIONS: Final = {
    "executions": [SUMMARY],
    "pagination": {"limit": 50, "offset": 0, "count": 1, "total": 1, "totalIsEstimate": False, "nextCursor": None},
}
SUB_STEPS: Final = {"executionId": EXECUTION_ID, "subSteps": [SUB_STEP]}
_DIAGRAM: Final = diagram.of(
    {"id": EXECUTION_ID, "title": "README promises", "status": "running"},
    [
        {**dict.fromkeys(diagram.Node._fields), **row}
        for row in (
            {
                "task_id": "1", "position": 0, "description": "Read the file", "action_type": "tool",
                "tool_or_prompt_name": "read_file", "dependencies": "[]", "status": "completed", "attempt": 2,
                "started_at": 1_736_933_401_180, "completed_at": 1_736_933_401_480, "duration_ms": 300,
            },
            {
                "task_id": "2", "position": 1, "description": "Name the promises", "action_type": "inference",
                "tool_or_prompt_name": "inference", "dependencies": '["1"]', "status": "running", "attempt": 1,
                "started_at": 1_736_933_401_480,
            },
        )
    ],
)  # fmt: skip
GRAPH: Final = orjson.loads(views.graph_document(_DIAGRAM, "json"))
#: The same in each format, by media type.
GRAPHS: Final[dict[str, Any]] = {
    "application/json": {"example": GRAPH},
    **{
        media_type: {"schema": {"type": "string"}, "example": views.graph_document(_DIAGRAM, format).decode()}
        for format, media_type in diagram.MEDIA_TYPES.items()
        if format != "json"
    },
}
DELETED: Final = {
    "message": DELETED_MESSAGE,
    "executionId": EXECUTION_ID,
    "cascadeInfo": {"relatedSubStepsDeleted": 3},
}
ATTEMPTS: Final = {"executionId": EXECUTION_ID, "taskId": "1", "attempts": [_ATTEMPT]}
COMMANDS: Final[dict[str, Any]] = {
    "nothing": {"summary": "Nothing more to say; the body may be left out as well", "value": {}},
    "by": {"summary": "Who asks", "value": {"by": "ann"}},
}
RETRIES: Final[dict[str, Any]] = {
    "all": {"summary": "All that was lost; the body may be left out as well", "value": {}},
    "some": {"summary": "Some of it", "value": {"steps": ["3", "5"], "by": "ann"}},
    "overrides": {
        "summary": "With other params and another model",
        "value": {
            "overrides": {"1": {"params": {"path": "docs/README.md"}}, "2": {"model": "openai:gpt-5"}},
            "by": "ann",
        },
    },
}
FORKS: Final[dict[str, Any]] = {
    "from": {"summary": "Run one sub-task again, and all that depends on it", "value": {"fromTask": "2", "by": "ann"}},
    "overrides": {
        "summary": "With other params; what depends on it runs again, too",
        "value": {"overrides": {"2": {"params": {"prompt": "List the promises, shortly: <Result from Task 1>"}}}},
    },
    "plan": {"summary": "With another plan; what it has in common is taken over", "value": {"plan": PLAN}},
    "nothing": {"summary": "What has not completed runs; the body may be left out as well", "value": {}},
}
FORKED: Final = {
    **STARTED,
    "message": FORKED_MESSAGE,
    "executionId": _FORK_ID,
    "forkedFrom": EXECUTION_ID,
    "reusedTasks": 1,
}
FORK_SETTLED: Final = {**SETTLED, "id": _FORK_ID, "forkedFrom": EXECUTION_ID}
RESUMED: Final = {
    "status": "resumed",
    "executionId": EXECUTION_ID,
    "dagId": _DAG_ID,
    "retryCount": 1,
    "message": RETRIED_MESSAGE,
}
TOOLS: Final = [
    {
        "type": "function",
        "function": {
            "name": "wait",
            "description": "Wait before the sub-tasks that depend on this one go on.",
            "parameters": {
                "type": "object",
                "properties": {"seconds": {"type": "number", "minimum": 0, "maximum": 31622400}},
                "required": ["seconds"],
            },
        },
        "effect": "pure",
        "timeoutSeconds": 31622460.0,
        "idleTimeoutSeconds": None,
        "maxConcurrency": None,
        "aliases": [],
        "retry": None,
    }
]
HEALTH: Final = {"status": "ok", "timestamp": _AT}
READY: Final = {
    "status": "ready",
    "provider": "offline",
    "model": "extractive",
    "scheduler": {"activeSchedules": 0},
    "timestamp": _AT,
}
NOT_READY: Final = {**READY, "status": "not_ready"}
ANSWERED: Final = {"message": ANSWERED_MESSAGE, "executionId": EXECUTION_ID}
ANSWERS: Final[dict[str, Any]] = {
    "input": {"summary": "To a question of the plan", "value": {"input": "the blue one", "by": "ann"}},
    "approve": {"summary": "May it run? Yes", "value": {"decision": "approve", "number": 1, "by": "ann"}},
    "edit": {
        "summary": "May it run? With other params",
        "value": {"decision": "edit", "params": {"to": "bob@example.com", "subject": "The promises"}, "by": "ann"},
    },
    "reject": {"summary": "May it run? No", "value": {"decision": "reject", "by": "ann"}},
    "decision": {
        "summary": "Did it happen?",
        "value": {"decision": "succeeded", "result": {"sent": True}, "by": "ann"},
    },
}
HUMAN_INPUTS: Final = {
    "humanInputs": [
        _nothing(
            wire.HumanInput,
            executionId=EXECUTION_ID,
            executionTitle="README promises",
            taskId="3",
            number=1,
            kind="approval",
            prompt="Sub-task '3' is about to call 'send_email'. May it?",
            shown={
                "tool": "send_email",
                "params": {"to": "ann@example.com", "subject": "What we promise"},
                "description": "Tell Ann",
            },
            reminders=0,
            askedAt=_LATER,
        ),
        _nothing(
            wire.HumanInput,
            executionId=EXECUTION_ID,
            executionTitle="README promises",
            taskId="4",
            number=1,
            kind="human",
            prompt="Which of the promises matters most?",
            schema={"type": "string", "enum": ["durable", "small"]},
            assignee="ann",
            reminders=0,
            askedAt=_LATER,
            dueAt="2025-01-15T10:30:01.480Z",
        ),
    ],
    "pagination": {"limit": 2, "count": 2, "nextCursor": Place(1_736_933_401_480, 4).cursor("open")},
}


def _problem(status: int, code: str, title: str, detail: str, *faults: Problem) -> dict[str, Any]:
    return problems.example(status, code, title, detail, faults)


_CYCLE: Final = Problem(
    "/sub_tasks/0/dependencies", "cycle", "The sub-tasks wait for each other in a cycle: '1' -> '2' -> '1'."
)
_LIMIT: Final = Problem("/limit", "bad_value", "`limit` is '0'; it has to be greater than or equal to 1.")

#: An example for each status that a problem can have; the routes say which are theirs.
PROBLEMS: Final[dict[int, dict[str, Any]]] = {
    400: _problem(
        400, "malformed_json", "Malformed JSON", "Malformed JSON at line 3, column 14: Expecting ',' delimiter."
    ),
    403: _problem(
        403, "foreign_origin", "Foreign origin",
        "Pages of 'https://example.com' may not call; DAGBOK_ALLOWED_ORIGINS names those that may.",
    ),
    404: _problem(404, "not_found", "Not found", f"There is no execution '{EXECUTION_ID}'."),
    409: _problem(
        409, "conflict", "Conflict",
        f"Execution {EXECUTION_ID} is running; cancel it or let it end before it is deleted, or delete it with force.",
    ),
    413: _problem(413, "too_large", "Too large", "The body has 9,437,184 bytes; at most 8,454,144 are accepted."),
    415: _problem(
        415, "unsupported_media_type", "Unsupported media type",
        "The Content-Type is 'text/plain'; it has to be application/json.",
    ),
    421: _problem(
        421, "unknown_host", "Unknown host",
        "This server does not answer for 'example.com'; DAGBOK_ALLOWED_HOSTS adds names.",
    ),
    422: _problem(422, "invalid_plan", "Invalid plan", f"The plan has 1 problem: {_CYCLE.message}", _CYCLE),
    500: _problem(
        500, "internal_error", "Internal error",
        "Something went wrong here; it is not the fault of the request. The log has it under "
        f"{problems.EXAMPLE_REQUEST_ID}.",
    ),
    503: _problem(
        503, "store_unavailable", "Diary unavailable",
        "The database is not available at the moment; nothing was changed. Try again.",
    ),
}  # fmt: skip

_COLOUR: Final = Problem("/colour", "bad_value", "`colour` is not known here; there may be: by.")
#: The 422 of a command.
COMMAND_PROBLEM: Final = _problem(
    422, "invalid_input", "Invalid input", f"The request has 1 problem: {_COLOUR.message}", _COLOUR
)


_OVERRIDE: Final = Problem(
    "/overrides/1/params/path", "invalid_params", "Sub-task '1', tool 'read_file': 7 is not of type 'string'."
)
#: The 422 of overrides.
OVERRIDE_PROBLEM: Final = _problem(
    422, "invalid_input", "Invalid input", f"The overrides have 1 problem: {_OVERRIDE.message}", _OVERRIDE
)
#: The 409 of a fork.
NOTHING_TO_FORK_PROBLEM: Final = _problem(
    409, "conflict", "Conflict",
    f"Nothing of {EXECUTION_ID} would run in this fork: all of it has completed, and nothing changes. Name fromTask, "
    "or give overrides or a plan that change something.",
)  # fmt: skip


def commanded(name: str) -> dict[str, str]:
    """Return the answer to a command."""
    return {"message": COMMANDED[name], "executionId": EXECUTION_ID}


def not_retried_problem(status: str) -> dict[str, Any]:
    """Return the 409 of a retry."""
    detail = f"Execution {EXECUTION_ID} is {status}; what failed, is partial or was cancelled can be retried."
    return _problem(409, "conflict", "Conflict", detail)


def ended_problem(name: str) -> dict[str, Any]:
    """Return the 409 of a command."""
    detail = f"Execution {EXECUTION_ID} is completed already; nothing is left to {name}."
    return _problem(409, "conflict", "Conflict", detail)


#: The 422 of requests without a plan.
PARAMETER_PROBLEM: Final = _problem(
    422, "invalid_input", "Invalid input", f"The request has 1 problem: {_LIMIT.message}", _LIMIT
)

_CURSOR: Final = Problem(
    "/cursor",
    "invalid_input",
    "`cursor` is none of this list: give the `nextCursor` of a page as it is, or none for the first.",
)
#: The 422 of the inbox.
CURSOR_PROBLEM: Final = _problem(422, "invalid_input", "Invalid input", _CURSOR.message, _CURSOR)

_ANSWER: Final = Problem("/input", "bad_value", "'red' is not one of ['durable', 'small']")
#: The 422 and the 409 of an answer.
ANSWER_PROBLEM: Final = _problem(
    422, "invalid_answer", "Invalid input", f"The answer does not fit: {_ANSWER.message}", _ANSWER
)
LATE_ANSWER_PROBLEM: Final = _problem(
    409, "conflict", "Conflict",
    f"The question of sub-step '4' of {EXECUTION_ID} was answered by 'ann' at 2025-01-15T09:31:07.310Z.",
)  # fmt: skip

_FORCE: Final = Problem("/force", "bad_value", "`force` is 'perhaps': Input should be a valid boolean.")
#: The 422 of a deletion.
FORCE_PROBLEM: Final = _problem(
    422, "invalid_input", "Invalid input", f"The request has 1 problem: {_FORCE.message}", _FORCE
)
_FORMAT: Final = Problem(
    "/format", "bad_value", "`format` is 'png': Input should be 'json', 'mermaid', 'dot' or 'svg'."
)
#: The 422 of a graph.
FORMAT_PROBLEM: Final = _problem(
    422, "invalid_input", "Invalid input", f"The request has 1 problem: {_FORMAT.message}", _FORMAT
)

#: The 409 of a submission.
IN_FLIGHT_PROBLEM: Final = _problem(
    409, "idempotency_in_flight", "Request in flight",
    "A request with this idempotency key is under way; its answer is not known yet. Try again in a moment.",
)  # fmt: skip
