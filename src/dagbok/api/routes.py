"""The operations under `/api/v1`. Each says what it answers; the use cases are the service's, the JSON is `wire`'s.

What reads goes to a thread, and so does the writing of its JSON: an execution may have 10,000 sub-steps. Responses are
made by `wire` from rows; the models named here only tell OpenAPI the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Path, Query, Request, Response

from dagbok import wire
from dagbok.api import body, examples
from dagbok.api.openapi import ANSWER, SUBMISSION, problems, success
from dagbok.domain.states import ExecutionStatus
from dagbok.domain.values import MAX_INTEGER
from dagbok.errors import BadInput, NotFound, StoreUnavailable
from dagbok.service import ClarificationNeeded, Service, Submitted

PREFIX = "/api/v1"

ExecutionId = Annotated[str, Path(description="The id of the execution", examples=[examples.EXECUTION_ID])]
TaskId = Annotated[str, Path(description="The id of the sub-task in the plan, or `__SYNTHESIS__`", examples=["1"])]
Limit = Annotated[int, Query(ge=1, le=100, description="At most so many, from 1 to 100")]
Offset = Annotated[int, Query(ge=0, le=MAX_INTEGER, description="How many to pass over")]
Status = Annotated[ExecutionStatus | None, Query(description="Only executions in this state")]

_ONE = "/dag-executions/{execution_id}"


def router(service: Service) -> APIRouter:
    """Return the operations on `service`."""
    routes = APIRouter(prefix=PREFIX)

    @routes.post(
        "/execute-dag",
        status_code=202,
        summary="Run a plan",
        description="Checked whole and stored before the answer; then it runs, whatever becomes of the client.",
        response_model=wire.SubmitResponse,
        responses=success(202, "The execution is durable and runs", examples.STARTED, headers=_LOCATION)
        | success(
            200,
            "The plan asks for a clarification; nothing runs",
            examples.CLARIFICATION,
            model=wire.ClarificationResponse,
        )
        | problems(400, 404, 413, 415, 422, 503),
        openapi_extra=SUBMISSION,
        tags=["executions"],
    )
    async def execute_dag(request: Request) -> Response:
        _writable(service)
        submission = await body.read(request)
        plan = submission.plan
        if submission.problems:
            faults = submission.problems
            if submission.dag_id is None:
                found = await asyncio.to_thread(service.check, plan)
                faults += body.moved(submission.pointer, found)
            raise body.refusal(faults)
        submitted: Submitted | ClarificationNeeded
        try:
            if submission.dag_id is not None:
                _storable(submission.dag_id, "dag")
                submitted = await service.submit_dag(submission.dag_id, submission.options)
            else:
                large = submission.size_bytes >= body.LARGE_BODY_BYTES
                submitted = await service.submit(plan, submission.options, large=large)
        except BadInput as exc:
            raise body.at(submission.pointer, exc) from exc
        if isinstance(submitted, ClarificationNeeded):
            answer = wire.ClarificationResponse(clarification_query=submitted.query)
            return _json(answer.model_dump_json().encode())
        started = wire.SubmitResponse(
            execution_id=submitted.execution_id,
            dag_id=submitted.dag_id,
            original_request=submitted.original_request,
            total_tasks=submitted.total_tasks,
            message=examples.STARTED_MESSAGE,
        )
        location = f"{PREFIX}/dag-executions/{submitted.execution_id}"
        return _json(started.model_dump_json(by_alias=True).encode(), 202, {"Location": location})

    @routes.get(
        "/dag-executions",
        summary="List executions",
        description="Newest first, without plans and sub-steps; final results over 64 KiB are null.",
        response_model=wire.ExecutionList,
        responses=success(200, "A page of executions", examples.EXECUTIONS)
        | problems(422, 503, unprocessable=examples.PARAMETER_PROBLEM),
        tags=["executions"],
    )
    async def list_executions(limit: Limit = 50, offset: Offset = 0, status: Status = None) -> Response:
        return await _read(
            lambda: wire.executions_json(service.list_executions(limit=limit, offset=offset, status=status))
        )

    @routes.get(
        _ONE,
        summary="Get an execution",
        description="With its sub-steps in task-id order, the synthesis last. Results over 64 KiB: see `resultUrl`.",
        response_model=wire.Execution,
        responses=success(200, "The execution as it stands", examples.EXECUTION) | problems(404, 503),
        tags=["executions"],
    )
    async def get_execution(execution_id: ExecutionId) -> Response:
        _storable(execution_id, "execution")
        return await _read(lambda: wire.execution_json(*service.details(execution_id)))

    @routes.get(
        f"{_ONE}/sub-steps",
        summary="List the sub-steps of an execution",
        description="In task-id order, the synthesis last. Results over 64 KiB: see `resultUrl`.",
        response_model=wire.SubStepList,
        responses=success(200, "All sub-steps", examples.SUB_STEPS) | problems(404, 503),
        tags=["executions"],
    )
    async def list_sub_steps(execution_id: ExecutionId) -> Response:
        _storable(execution_id, "execution")
        return await _read(lambda: wire.sub_steps_json(execution_id, service.sub_steps(execution_id)))

    @routes.get(
        f"{_ONE}/sub-steps/{{task_id}}/result",
        summary="Get the whole result of a sub-step",
        description="The JSON that the tool or model returned, as it was stored. 404 while there is none.",
        response_model=Any,
        responses=success(200, "The result", examples.SUB_STEP["result"]) | problems(404, 503),
        tags=["executions"],
    )
    async def get_result(execution_id: ExecutionId, task_id: TaskId) -> Response:
        _storable(execution_id, "execution")
        _storable(task_id, "sub-step")
        return await _read(lambda: service.result(execution_id, task_id).encode())

    @routes.delete(
        _ONE,
        summary="Delete an execution",
        description="With all it wrote. Only one that has ended: cancel it first.",
        response_model=wire.DeleteResponse,
        responses=success(200, "It is gone", examples.DELETED) | problems(404, 409, 503),
        tags=["executions"],
    )
    async def delete_execution(execution_id: ExecutionId) -> Response:
        _storable(execution_id, "execution")
        _writable(service)
        deleted = await service.delete(execution_id)
        gone = wire.DeleteResponse(
            message=examples.DELETED_MESSAGE,
            execution_id=execution_id,
            cascade_info=wire.CascadeInfo(related_sub_steps_deleted=deleted),
        )
        return _json(gone.model_dump_json(by_alias=True).encode())

    @routes.post(
        f"{_ONE}/cancel",
        status_code=202,
        summary="Cancel an execution",
        description="Durable when answered, applied right after: what runs is cut off, what waits does not begin.",
        response_model=wire.CommandResponse,
        responses=success(202, "The wish is durable", examples.CANCELLED) | problems(404, 409, 503),
        tags=["executions"],
    )
    async def cancel_execution(execution_id: ExecutionId) -> Response:
        _storable(execution_id, "execution")
        _writable(service)
        await service.cancel(execution_id)
        answer = wire.CommandResponse(message=examples.CANCELLED_MESSAGE, execution_id=execution_id)
        return _json(answer.model_dump_json(by_alias=True).encode(), 202)

    @routes.post(
        f"{_ONE}/sub-steps/{{task_id}}/input",
        status_code=202,
        summary="Answer a question",
        description="Of the plan (`input`), or whether a cut-off sub-step happened (`decision`). It takes one answer.",
        response_model=wire.CommandResponse,
        responses=success(202, "The answer is durable", examples.ANSWERED) | problems(400, 404, 409, 415, 422, 503),
        openapi_extra=ANSWER,
        tags=["executions"],
    )
    async def answer_question(request: Request, execution_id: ExecutionId, task_id: TaskId) -> Response:
        _storable(execution_id, "execution")
        _storable(task_id, "sub-step")
        _writable(service)
        given, by = await body.read_answer(request)
        await service.answer(execution_id, task_id, given, by=by)
        answer = wire.CommandResponse(message=examples.ANSWERED_MESSAGE, execution_id=execution_id)
        return _json(answer.model_dump_json(by_alias=True).encode(), 202)

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
    async def list_tools() -> Response:
        return _json(tools)

    return routes


_LOCATION = {
    "Location": {"description": "Where the execution is", "schema": {"type": "string", "format": "uri-reference"}}
}


async def _read(read: Callable[[], bytes]) -> Response:
    return _json(await asyncio.to_thread(read))


def _json(content: bytes, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(content, status, headers, media_type="application/json")


def _writable(service: Service) -> None:
    """Raise at once while the database is away: the journal itself would hold the request until it is back."""
    if not service.ready:
        raise StoreUnavailable


def _storable(id: str, what: str) -> None:
    """Raise NotFound for an id that no database can hold, and so nobody can have."""
    if len(id) > 500 or not id.isprintable():
        raise NotFound(f"There is no such {what}.")
