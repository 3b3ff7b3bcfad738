"""What OpenAPI is told beside what FastAPI finds by itself: problems, raw request bodies, headers, examples."""

from __future__ import annotations

import functools
import importlib.metadata
from collections.abc import Iterable
from typing import Any, Final

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic.json_schema import models_json_schema

from dagbok import wire
from dagbok.api import examples
from dagbok.api.headers import MAX_WAIT_S
from dagbok.api.problems import HTTP_FAULTS, KINDS, MEDIA_TYPE
from dagbok.api.requests import HEADER
from dagbok.domain.idempotency import MAX_KEY_CHARS

Responses = dict[int | str, dict[str, Any]]

DESCRIPTION: Final = """\
Runs the plans of AI agents as DAGs and keeps a durable diary of every step.

Plans are snake_case inside; everything else is camelCase (snake_case is accepted). Every field is always there, and
`null` where it has no value. Times are ISO 8601 UTC with milliseconds.
Errors are problem details (RFC 9457): go by `code`.
Every answer has an `X-Request-Id`, which the server's log has too: the request's own, if that is 1 to 128 of
`A-Z a-z 0-9 . _ ~ + / = -`, else a new one.
"""

TAGS: Final = [
    {"name": "executions", "description": "Submit plans, watch them run, pause, resume, cancel and delete."},
    {"name": "people", "description": "What people are asked, and their answers."},
    {"name": "tools", "description": "What plans may call."},
    {"name": "health", "description": "For whoever keeps the server running."},
]

# Refusals that any request may meet.
_ALWAYS: Final = (403, 421, 500)


def success(status: int, description: str, example: Any, **more: Any) -> Responses:
    """Return the entry of a response that worked."""
    return {status: {"description": description, "content": {"application/json": {"example": example}}, **more}}


def problems(
    *statuses: int, unprocessable: dict[str, Any] | None = None, conflict: dict[str, Any] | None = None
) -> Responses:
    """Return the entries of the problems that an operation may answer with, beside those that any may.

    Args:
        unprocessable: The example of its 422, where it is not a plan's.
        conflict: The example of its 409, where it is not a state's.
    """
    own = {422: unprocessable, 409: conflict}
    titles = {kind.status: kind.title for kind in KINDS.values()} | {s: title for s, (_, title) in HTTP_FAULTS.items()}
    titles[503] = "Not now; `Retry-After` says when to try again"
    entries: Responses = {}
    for status in sorted({*statuses, *_ALWAYS}):
        example = own.get(status) or examples.PROBLEMS[status]
        schema = {"$ref": "#/components/schemas/ProblemDetails"}
        entries[status] = {
            "description": titles[status],
            "content": {MEDIA_TYPE: {"schema": schema, "example": example}},
        }
    return entries


def _header(description: str, example: str) -> dict[str, Any]:
    return {"description": description, "schema": {"type": "string"}, "example": example}


def _parameter(name: str, description: str, example: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": False, **_header(description, example)}


def parameters(*of_headers: dict[str, Any]) -> dict[str, Any]:
    """Return what an operation says of the request headers that it reads."""
    return {"parameters": list(of_headers)}


PREFER: Final = _parameter(
    "Prefer",
    f"`wait=N` (RFC 7240): wait up to N seconds, at most {MAX_WAIT_S}, until the execution ended, waits for a person, "
    "or is paused and nothing of it runs",
    "wait=20",
)
IF_NONE_MATCH: Final = _parameter(
    "If-None-Match", "The `ETag` of an earlier answer: 304 while it is the latest", examples.TAG
)
_IDEMPOTENCY_KEY: Final = _parameter(
    "Idempotency-Key",
    f"Your own name for this request, 1 to {MAX_KEY_CHARS} visible ASCII characters, such as a UUID. The same request "
    "with the same key gets the first answer again, and nothing runs twice, until the execution is deleted",
    '"8e03978e-40d5-43e8-bc93-6894a57f9324"',
)

_TAG: Final = {"ETag": _header("This state of the execution, for `If-None-Match`", examples.TAG)}
_WAITED: Final = {
    "Preference-Applied": _header(
        "The wait that was taken, if the execution ended, waits for a person or rests paused", "wait=20"
    )
}
_LOCATION: Final = {
    "Location": {"description": "Where the execution is", "schema": {"type": "string", "format": "uri-reference"}},
    "Idempotent-Replayed": _header("Whether an earlier request with this Idempotency-Key made the execution", "true"),
}
STARTED_HEADERS: Final = _LOCATION
SETTLED_HEADERS: Final = _LOCATION | _TAG | _WAITED
TAG_HEADERS: Final = _TAG
WAITED_HEADERS: Final = _TAG | _WAITED
NOT_MODIFIED: Final[Responses] = {
    304: {"description": "Nothing changed since the answer with this ETag", "headers": _TAG}
}

#: The body of `/execute-dag`, which its route reads itself, and its headers.
SUBMISSION: Final[dict[str, Any]] = {
    **parameters(PREFER, _IDEMPOTENCY_KEY),
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "anyOf": [{"$ref": "#/components/schemas/Plan"}, {"$ref": "#/components/schemas/SubmitRequest"}]
                },
                "examples": examples.SUBMISSIONS,
            }
        },
    },
}

#: The body of an answer, likewise.
ANSWER: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"$ref": "#/components/schemas/AnswerRequest"},
                "examples": examples.ANSWERS,
            }
        },
    }
}


def _command(shape: str, shown: dict[str, Any]) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{shape}"}
    content = {"application/json": {"schema": schema, "examples": shown}}
    return {"requestBody": {"required": False, "content": content}}


#: The body of a command, which may be left out.
COMMAND: Final = _command("CommandRequest", examples.COMMANDS)
RETRY: Final = _command("RetryRequest", examples.RETRIES)
FORK: Final = {**parameters(PREFER, _IDEMPOTENCY_KEY), **_command("ForkRequest", examples.FORKS)}


def document(app: FastAPI, routers: Iterable[APIRouter]) -> dict[str, Any]:
    """Return the OpenAPI document of `app`, made once; `routers` are those whose operations it tells of."""
    if app.openapi_schema is None:
        made = get_openapi(
            title=app.title, version=app.version, summary=app.summary, description=app.description,
            routes=app.routes, tags=app.openapi_tags,
        )  # fmt: skip
        for router in routers:
            for route in router.routes:
                if isinstance(route, APIRoute):
                    for method in route.methods or ():
                        _complete(made["paths"][route.path][method.lower()]["responses"], route.responses)
        _add_request_ids(made)
        shapes = [
            (wire.SubmitRequest, "validation"),
            (wire.AnswerRequest, "validation"),
            (wire.CommandRequest, "validation"),
            (wire.RetryRequest, "validation"),
            (wire.ForkRequest, "validation"),
            (wire.ProblemDetails, "serialization"),
        ]
        _, schemas = models_json_schema(shapes, ref_template="#/components/schemas/{model}")  # type: ignore[arg-type] # a list of these literals is meant
        components = made["components"]["schemas"]
        components.update(schemas["$defs"])
        for unused in ("HTTPValidationError", "ValidationError"):
            components.pop(unused, None)
        app.openapi_schema = made
    return app.openapi_schema


def _add_request_ids(document: dict[str, Any]) -> None:
    header = {"description": "The request's own, or a new one; the log has it too", "schema": {"type": "string"}}
    document["components"].setdefault("headers", {})["RequestId"] = header
    for item in document["paths"].values():
        for operation in item.values():
            for response in operation["responses"].values():
                response.setdefault("headers", {})[HEADER] = {"$ref": "#/components/headers/RequestId"}


def _complete(found: dict[str, Any], declared: Responses) -> None:
    """Put right what FastAPI makes of responses: it drops every null of an example, and adds a 422 of its own shape."""
    if 422 not in declared:
        found.pop("422", None)
    for status, response in declared.items():
        for media_type, content in response.get("content", {}).items():
            found[str(status)]["content"][media_type]["example"] = content["example"]


@functools.cache
def version() -> str:
    """Return the release of this program, as installed."""
    try:
        return importlib.metadata.version("dagbok")
    except importlib.metadata.PackageNotFoundError:  # run from a source tree that was never installed
        return "0"
