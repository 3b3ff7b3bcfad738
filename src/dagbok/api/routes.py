"""The operations under `/api/v1`. Each says what it answers; the use cases are the service's, the JSON is `wire`'s.

What reads goes to a thread, and so does the writing of its JSON: an execution may have 10,000 sub-steps. Responses are
made by `wire` from rows; the models named here only tell OpenAPI the same. What a header asks for is read in
`headers`, and told to OpenAPI in `openapi`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from functools import partial
from typing import Annotated, Any, Literal, Protocol

import orjson
from fastapi import APIRouter, Path, Query, Request, Response

from dagbok import views, wire
from dagbok.api import answers, body, examples, forks, headers, openapi
from dagbok.api.admission import ExecutionId
from dagbok.api.admission import storable as _storable
from dagbok.api.admission import writable as _writable
from dagbok.api.filters import InboxFilters
from dagbok.api.openapi import ANSWER, COMMAND, RETRY, SUBMISSION, problems, success
from dagbok.api.reads import Reads, Whole
from dagbok.api.waiting import Waiting
from dagbok.diary import Row
from dagbok.domain.cursor import MAX_CHARS
from dagbok.domain.states import EXECUTION_ENDED, ExecutionStatus
from dagbok.domain.values import MAX_INTEGER
from dagbok.errors import BadInput, DagbokError
from dagbok.service import ClarificationNeeded, Service, Submitted

PREFIX = "/api/v1"

TaskId = Annotated[str, Path(description="The id of the sub-task in the plan, or `__SYNTHESIS__`", examples=["1"])]
Limit = Annotated[int, Query(ge=1, le=100, description="At most so many, from 1 to 100")]
Offset = Annotated[
    int, Query(ge=0, le=MAX_INTEGER, description="How many to pass over; for all pages take `cursor`, which is stable")
]
Cursor = Annotated[
    str | None,
    Query(max_length=MAX_CHARS, description="The `nextCursor` of the page before; none for the first page"),
]
Force = Annotated[bool, Query(description="Whether to cancel it first, if it has not ended")]
Status = Annotated[ExecutionStatus | None, Query(description="Only executions in this state")]
Format = Annotated[Literal["json", "mermaid", "dot", "svg"], Query(description="What the graph is written in")]

_ONE = "/dag-executions/{execution_id}"


_SETTLED = EXECUTION_ENDED | {ExecutionStatus.WAITING}
#: A copy may be kept, but whoever shows it asks first whether it still holds.
_ASK_FIRST = {"Cache-Control": "no-cache"}


def router(service: Service, waiting: Waiting) -> APIRouter:
    """Return the operations on `service`; `waiting` are its clients that wait."""
    routes = APIRouter(prefix=PREFIX)
    reads = Reads()

    @routes.post(
        "/execute-dag",
        status_code=202,
        summary="Run a plan",
        description="Checked whole and stored before the answer; then it runs, whatever becomes of the client. "
        "With `Prefer: wait=N` the answer is the execution itself, if in that time it ends, waits for a person, or "
        "rests paused.",
        response_model=wire.SubmitResponse,
        responses=success(202, "The execution is durable and runs", examples.STARTED, headers=openapi.STARTED_HEADERS)
        | success(
            200,
            "The execution ended, waits for a person, or rests paused, while the client waited; or the plan asks for a "
            "clarification, and nothing runs",
            examples.SETTLED,
            model=wire.Execution | wire.ClarificationResponse,
            headers=openapi.SETTLED_HEADERS,
        )
        | problems(400, 404, 409, 413, 415, 422, 503, conflict=examples.IN_FLIGHT_PROBLEM),
        openapi_extra=SUBMISSION,
        tags=["executions"],
    )
    async def execute_dag(request: Request) -> Response:
        _writable(service)
        key, wait_s = headers.idempotency_key(request.headers), headers.wait_s(request.headers)
        submitted = await _submit(service, await body.read(request), key)
        if isinstance(submitted, ClarificationNeeded):
            answer = wire.ClarificationResponse(clarification_query=submitted.query)
            return answers.json(answer.model_dump_json().encode())
        started = wire.SubmitResponse(
            execution_id=submitted.execution_id,
            dag_id=submitted.dag_id,
            original_request=submitted.original_request,
            total_tasks=submitted.total_tasks,
            message=examples.STARTED_MESSAGE,
        )
        return await begun(request, submitted, started, wait_s)

    async def begun(request: Request, submitted: Submitted, started: wire.SubmitResponse, wait_s: int) -> Response:
        """Return the answer to who made an execution: that it has started, or what came of it within `wait_s`."""
        about = {"Location": f"{PREFIX}/dag-executions/{submitted.execution_id}"}
        if submitted.replayed:
            about["Idempotent-Replayed"] = "true"
        if await waiting.settled(request, submitted.execution_id, wait_s):
            settled = await _settled(service, reads, request, submitted.execution_id, about, wait_s)
            if settled is not None:
                return settled
        return answers.json(started.model_dump_json(by_alias=True).encode(), 202, about)

    @routes.get(
        "/dag-executions",
        summary="List executions",
        description="Newest first, without plans and sub-steps; final results over 64 KiB are null. Who goes on by "
        "`nextCursor` meets each execution that was there when the walk began once, whatever is written meanwhile; in "
        "a list of one `status`, each that keeps it. `total` is counted up to 10,000; above that it is an estimate, as "
        "`totalIsEstimate` says.",
        response_model=wire.ExecutionList,
        responses=success(200, "A page of executions", examples.EXECUTIONS)
        | problems(422, 503, unprocessable=examples.PARAMETER_PROBLEM),
        tags=["executions"],
    )
    async def list_executions(
        request: Request, limit: Limit = 50, offset: Offset = 0, status: Status = None, cursor: Cursor = None
    ) -> Response:
        def make() -> Response:
            page = service.list_executions(limit=limit, offset=offset, status=status, cursor=cursor)
            return answers.json(views.executions_json(page))

        return await reads.made(request, make)

    @routes.get(
        _ONE,
        summary="Get an execution",
        description="With its sub-steps in task-id order, the synthesis last. Results over 64 KiB: see `resultUrl`. "
        "With `Prefer: wait=N` it is answered once it ended, waits for a person or rests paused, or as it stands after "
        "that time.",
        response_model=wire.Execution,
        responses=success(200, "The execution as it stands", examples.EXECUTION, headers=openapi.WAITED_HEADERS)
        | openapi.NOT_MODIFIED
        | problems(404, 503),
        openapi_extra=openapi.parameters(openapi.PREFER, openapi.IF_NONE_MATCH),
        tags=["executions"],
    )
    async def get_execution(request: Request, execution_id: ExecutionId) -> Response:
        _storable(execution_id, "execution")
        wait_s = headers.wait_s(request.headers)
        waited = await waiting.settled(request, execution_id, wait_s)

        if unchanged := await _unchanged(service, request, execution_id):
            return unchanged
        status, whole = await reads.whole(request, execution_id, partial(_whole, service, execution_id))
        applied = _applied(wait_s) if waited and status in _SETTLED else {}
        return answers.again(whole, _ASK_FIRST | applied)

    @routes.get(
        f"{_ONE}/sub-steps",
        summary="List the sub-steps of an execution",
        description="In task-id order, the synthesis last. Results over 64 KiB: see `resultUrl`.",
        response_model=wire.SubStepList,
        responses=success(200, "All sub-steps", examples.SUB_STEPS, headers=openapi.TAG_HEADERS)
        | openapi.NOT_MODIFIED
        | problems(404, 503),
        openapi_extra=openapi.parameters(openapi.IF_NONE_MATCH),
        tags=["executions"],
    )
    async def list_sub_steps(request: Request, execution_id: ExecutionId) -> Response:
        _storable(execution_id, "execution")

        def make() -> Response:
            row, steps = service.details(execution_id)
            return answers.json(views.sub_steps_json(execution_id, steps), headers=_tagged(row) | _ASK_FIRST)

        return await _unchanged(service, request, execution_id) or await reads.made(request, make)

    @routes.get(
        f"{_ONE}/graph",
        summary="Get the graph of an execution",
        description="Who waits for whom, with the states, as JSON with coordinates, as Mermaid or Graphviz text, or "
        "as a picture. The same state gives the same bytes.",
        response_model=wire.Graph,
        responses=success(
            200, "The graph as it stands", examples.GRAPH, content=examples.GRAPHS, headers=openapi.TAG_HEADERS
        )
        | openapi.NOT_MODIFIED
        | problems(404, 422, 503, unprocessable=examples.FORMAT_PROBLEM),
        openapi_extra=openapi.parameters(openapi.IF_NONE_MATCH),
        tags=["executions"],
    )
    async def get_graph(request: Request, execution_id: ExecutionId, format: Format = "json") -> Response:
        _storable(execution_id, "execution")

        def make() -> Response:
            row, diagram = service.graph(execution_id)
            return answers.graph(views.graph_document(diagram, format), format, _tagged(row) | _ASK_FIRST)

        return await _unchanged(service, request, execution_id) or await reads.made(request, make)

    @routes.get(
        f"{_ONE}/sub-steps/{{task_id}}/result",
        summary="Get the whole result of a sub-step",
        description="The JSON that the tool or model returned, as it was stored. 404 while there is none.",
        response_model=Any,
        responses=success(200, "The result", examples.SUB_STEP["result"]) | problems(404, 503),
        tags=["executions"],
    )
    async def get_result(request: Request, execution_id: ExecutionId, task_id: TaskId) -> Response:
        _storable(execution_id, "execution")
        _storable(task_id, "sub-step")
        return await reads.made(request, lambda: answers.json(service.result(execution_id, task_id).encode()))

    @routes.get(
        f"{_ONE}/sub-steps/{{task_id}}/attempts",
        summary="List the failed attempts of a sub-step",
        description="All of its tries that did not end well, oldest first: failed, too late, or cut off.",
        response_model=wire.AttemptList,
        responses=success(200, "Its tries that did not end well", examples.ATTEMPTS) | problems(404, 503),
        tags=["executions"],
    )
    async def list_attempts(request: Request, execution_id: ExecutionId, task_id: TaskId) -> Response:
        _storable(execution_id, "execution")
        _storable(task_id, "sub-step")

        def make() -> Response:
            rows = service.attempts(execution_id, task_id)
            return answers.json(views.attempts_json(execution_id, task_id, rows))

        return await reads.made(request, make)

    @routes.delete(
        _ONE,
        summary="Delete an execution",
        description="With all it wrote, its dag and plan too if nothing else needs them. 409 if it has not ended. With "
        "`force=true` it is cancelled first; 409 if it does not end within ten seconds: it is being cancelled, and the "
        "same request in a moment deletes it.",
        response_model=wire.DeleteResponse,
        responses=success(200, "It is gone", examples.DELETED)
        | problems(404, 409, 422, 503, unprocessable=examples.FORCE_PROBLEM),
        tags=["executions"],
    )
    async def delete_execution(execution_id: ExecutionId, force: Force = False) -> Response:
        _storable(execution_id, "execution")
        _writable(service)
        deleted = await service.delete(execution_id, force=force)
        gone = wire.DeleteResponse(
            message=examples.DELETED_MESSAGE,
            execution_id=execution_id,
            cascade_info=wire.CascadeInfo(related_sub_steps_deleted=deleted),
        )
        return answers.json(gone.model_dump_json(by_alias=True).encode())

    commands: tuple[tuple[str, _Ask, str], ...] = (
        ("cancel", service.cancel, "What runs is cut off, what waits does not begin."),
        ("pause", service.pause, "What runs ends by itself, then it is `waiting`; its deadline goes on."),
        ("resume", service.resume, "A paused execution goes on."),
    )
    for name, ask, what in commands:
        _add_command(routes, service, name, ask, what)
    _add_retry(routes, service)
    forks.add(routes, service, begun)

    @routes.get(
        "/human-inputs",
        summary="List what people are asked",
        description="The inbox: the questions of plans, sub-tasks that wait for an approval, and cut-off ones of which "
        "nobody knows whether they happened. Those that wait for an answer, the oldest first; with `status=all` also "
        "the closed ones, the newest first, with who answered what. What is asked or answered between two pages moves "
        "nothing.",
        response_model=wire.HumanInputList,
        responses=success(200, "A page of questions", examples.HUMAN_INPUTS)
        | problems(422, 503, unprocessable=examples.CURSOR_PROBLEM),
        tags=["people"],
    )
    async def list_human_inputs(request: Request, filters: Annotated[InboxFilters, Query()]) -> Response:
        def make() -> Response:
            return answers.json(views.human_inputs_json(service.human_inputs(**dict(filters))))

        return await reads.made(request, make)

    @routes.post(
        f"{_ONE}/sub-steps/{{task_id}}/input",
        status_code=202,
        summary="Answer a question",
        description="Of the plan (`input`), whether a sub-task may run, or whether a cut-off one happened "
        "(`decision`). A question takes one answer; a later one is a 409 that tells of it.",
        response_model=wire.CommandResponse,
        responses=success(202, "The answer is durable", examples.ANSWERED)
        | problems(
            400,
            404,
            409,
            415,
            422,
            503,
            unprocessable=examples.ANSWER_PROBLEM,
            conflict=examples.LATE_ANSWER_PROBLEM,
        ),
        openapi_extra=ANSWER,
        tags=["people"],
    )
    async def answer_question(request: Request, execution_id: ExecutionId, task_id: TaskId) -> Response:
        _storable(execution_id, "execution")
        _storable(task_id, "sub-step")
        _writable(service)
        given, number, by = await body.read_answer(request)
        await service.answer(execution_id, task_id, given, number=number, by=by)
        answer = wire.CommandResponse(message=examples.ANSWERED_MESSAGE, execution_id=execution_id)
        return answers.json(answer.model_dump_json(by_alias=True).encode(), 202)

    # Tools do not change while a server runs.
    tools = orjson.dumps([service.registry.describe(tool) for tool in service.registry])

    @routes.get(
        "/tools",
        summary="List the tools",
        description="What plans may call, each as model APIs describe functions.",
        response_model=list[wire.ToolView],
        responses=success(200, "All tools", examples.TOOLS) | problems(),
        tags=["tools"],
    )
    async def list_tools(request: Request) -> Response:
        return await answers.packed(request, answers.json(tools))

    return routes


class _Ask(Protocol):
    def __call__(self, execution_id: str, /, *, by: str | None) -> Awaitable[object]: ...


def _add_command(routes: APIRouter, service: Service, name: str, ask: _Ask, what: str) -> None:
    """Add the operation by which a client asks something of an execution, which its owner applies."""
    message = examples.COMMANDED[name]

    async def command(request: Request, execution_id: ExecutionId) -> Response:
        _storable(execution_id, "execution")
        _writable(service)
        await ask(execution_id, by=(await body.read_command(request, wire.CommandRequest)).by)
        answer = wire.CommandResponse(message=message, execution_id=execution_id)
        return answers.json(answer.model_dump_json(by_alias=True).encode(), 202)

    routes.add_api_route(
        f"{_ONE}/{name}",
        command,
        methods=["POST"],
        name=f"{name}_execution",
        status_code=202,
        summary=f"{name.capitalize()} an execution",
        description=f"Durable when answered, applied right after. {what} What is so already stays so.",
        response_model=wire.CommandResponse,
        responses=success(202, "The wish is durable", examples.commanded(name))
        | problems(
            400, 404, 409, 415, 422, 503,
            unprocessable=examples.COMMAND_PROBLEM, conflict=examples.ended_problem(name),
        ),
        openapi_extra=COMMAND,
        tags=["executions"],
    )  # fmt: skip


def _add_retry(routes: APIRouter, service: Service) -> None:
    told = success(202, "The wish is durable", examples.RESUMED) | problems(
        400, 404, 409, 415, 422, 503,
        unprocessable=examples.COMMAND_PROBLEM, conflict=examples.not_retried_problem("running"),
    )  # fmt: skip

    def resumed(row: Row, retry_count: int, message: str) -> Response:
        answer = wire.ResumeResponse(
            execution_id=row["id"], dag_id=row["dag_id"], retry_count=retry_count, message=message
        )
        return answers.json(answer.model_dump_json(by_alias=True).encode(), 202)

    async def retried(execution_id: str, asked: wire.RetryRequest) -> Response:
        row = await asyncio.to_thread(service.execution, execution_id)
        await service.retry(execution_id, steps=asked.steps, overrides=asked.overrides, by=asked.by)
        return resumed(row, row["retry_count"] + 1, examples.RETRIED_MESSAGE)  # as it is once that is applied

    @routes.post(
        f"{_ONE}/retry",
        status_code=202,
        summary="Run the lost part again",
        description=(
            "Of an execution that failed, is partial or was cancelled: what failed or was cancelled runs again, "
            "what that skipped, and the synthesis. Completed sub-steps are kept. Attempts are counted on; what "
            "they may fail begins anew, and so does a deadline. Where nobody knows what a sub-step of a `once` "
            "tool has done, somebody is asked, unless `steps` names it. `overrides` change what runs again; what has "
            "completed is changed by a fork."
        ),
        response_model=wire.ResumeResponse,
        responses=told | problems(422, unprocessable=examples.OVERRIDE_PROBLEM),
        openapi_extra=RETRY,
        tags=["executions"],
    )
    async def retry_execution(request: Request, execution_id: ExecutionId) -> Response:
        _storable(execution_id, "execution")
        _writable(service)
        return await retried(execution_id, await body.read_command(request, wire.RetryRequest))

    @routes.post(
        "/resume-dag/{execution_id}",
        status_code=202,
        summary="Let an execution go on, whatever stopped it",
        description="One that is paused is resumed; one that ended without completing runs its lost part again.",
        response_model=wire.ResumeResponse,
        responses=told,
        openapi_extra=COMMAND,
        tags=["executions"],
    )
    async def resume_dag(request: Request, execution_id: ExecutionId) -> Response:
        _storable(execution_id, "execution")
        _writable(service)
        by = (await body.read_command(request, wire.CommandRequest)).by
        row = await asyncio.to_thread(service.execution, execution_id)
        if row["paused_at"] is None:
            return await retried(execution_id, wire.RetryRequest(by=by))
        await service.resume(execution_id, by=by)
        return resumed(row, row["retry_count"], examples.COMMANDED["resume"])


async def _submit(service: Service, submission: body.Submission, key: str | None) -> Submitted | ClarificationNeeded:
    """Submit what a body holds. Raises with pointers into that body."""
    plan = submission.plan
    if submission.problems:
        faults = submission.problems
        if submission.dag_id is None:
            found = await asyncio.to_thread(service.check, plan)
            faults += body.moved(submission.pointer, found)
        raise body.refusal(faults)
    try:
        if submission.dag_id is not None:
            _storable(submission.dag_id, "dag")
            return await service.submit_dag(submission.dag_id, submission.options, idempotency_key=key)
        large = submission.size_bytes >= body.LARGE_BODY_BYTES
        return await service.submit(plan, submission.options, large=large, idempotency_key=key)
    except BadInput as exc:
        raise body.at(submission.pointer, exc) from exc


def _whole(service: Service, execution_id: str) -> Whole:
    row, steps = service.details(execution_id)
    return row["status"], answers.json(views.execution_json(row, steps), headers=_tagged(row))


async def _settled(
    service: Service, reads: Reads, request: Request, execution_id: str, about: dict[str, str], wait_s: int
) -> Response | None:
    """Return an execution that somebody waited for, whole; None where it goes on after all, or cannot be read."""
    try:
        status, whole = await reads.whole(request, execution_id, partial(_whole, service, execution_id))
    except DagbokError:
        return None  # it is durable: that much is true, whatever became of it
    if status not in _SETTLED:  # answered or left by this process meanwhile
        return None
    return answers.again(whole, about | _applied(wait_s))


async def _unchanged(service: Service, request: Request, execution_id: str) -> Response | None:
    """Return 304 if the client has the execution as it is now; its sub-steps are not read for that."""
    if "if-none-match" not in request.headers:
        return None
    tag = answers.tag(await asyncio.to_thread(service.version, execution_id))
    if not headers.has_seen(request.headers, tag):
        return None
    return answers.pack(Response(None, 304, {"ETag": tag} | _ASK_FIRST), gzip=False)


def _tagged(row: Row) -> dict[str, str]:
    return {"ETag": answers.tag((row["last_event_seq"], row["updated_at"]))}


def _applied(wait_s: int) -> dict[str, str]:
    return {"Preference-Applied": f"wait={wait_s}"}
