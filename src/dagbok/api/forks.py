"""`POST .../fork`: another execution goes on from this one, which stays as it is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi import APIRouter, Request, Response

from dagbok import wire
from dagbok.api import body, examples, headers, openapi
from dagbok.api.admission import ExecutionId, storable, writable
from dagbok.api.openapi import problems, success
from dagbok.forking import Wish
from dagbok.service import Service, Submitted

#: Answers who made an execution, and may wait for what comes of it.
Begun = Callable[[Request, Submitted, wire.SubmitResponse, int], Awaitable[Response]]


def add(routes: APIRouter, service: Service, begun: Begun) -> None:
    """Add the operation."""

    @routes.post(
        "/dag-executions/{execution_id}/fork",
        status_code=202,
        summary="Fork an execution",
        description=(
            "Makes a new execution that takes over what completed here, as far as it stands on nothing that changes, "
            "and runs the rest; this one may be in any state, and stays as it is. What changes: `fromTask` and all "
            "that depends on it; sub-tasks with `overrides`; with a `plan`, those that are new or differ. Nothing that "
            "is taken over runs again. Where nobody knows what a sub-step of a `once` tool has done here, somebody is "
            "asked, unless it changes. With `Prefer: wait=N` the answer is the execution itself, as of a submission."
        ),
        response_model=wire.ForkResponse,
        responses=success(202, "The fork is durable and runs", examples.FORKED, headers=openapi.STARTED_HEADERS)
        | success(
            200,
            "The fork ended, waits for a person, or rests paused, while the client waited",
            examples.FORK_SETTLED,
            model=wire.Execution,
            headers=openapi.SETTLED_HEADERS,
        )
        | problems(
            400, 404, 409, 413, 415, 422, 503,
            unprocessable=examples.OVERRIDE_PROBLEM, conflict=examples.NOTHING_TO_FORK_PROBLEM,
        ),
        openapi_extra=openapi.FORK,
        tags=["executions"],
    )  # fmt: skip
    async def fork_execution(request: Request, execution_id: ExecutionId) -> Response:
        storable(execution_id, "execution")
        writable(service)
        key, wait_s = headers.idempotency_key(request.headers), headers.wait_s(request.headers)
        asked = await body.read_command(request, wire.ForkRequest)
        wish = Wish(asked.from_task, asked.overrides or {}, asked.plan)
        fork = await service.fork(execution_id, wish, by=asked.by, idempotency_key=key)
        started = wire.ForkResponse(
            execution_id=fork.execution_id,
            dag_id=fork.dag_id,
            original_request=fork.original_request,
            total_tasks=fork.total_tasks,
            message=examples.FORKED_MESSAGE,
            forked_from=fork.forked_from,
            reused_tasks=fork.reused_tasks,
        )
        return await begun(request, fork, started, wait_s)
