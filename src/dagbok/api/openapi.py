"""What OpenAPI is told beside what FastAPI finds by itself: problems, raw request bodies, examples."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable
from typing import Any, Final

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic.json_schema import models_json_schema

from dagbok import wire
from dagbok.api import examples
from dagbok.api.problems import HTTP_FAULTS, KINDS, MEDIA_TYPE
from dagbok.api.requests import HEADER

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
    {"name": "executions", "description": "Submit plans, watch them run, cancel and delete."},
    {"name": "tools", "description": "What plans may call."},
    {"name": "health", "description": "For whoever keeps the server running."},
]

# Refusals that any request may meet.
_ALWAYS: Final = (403, 421, 500)


def success(status: int, description: str, example: Any, **more: Any) -> Responses:
    """Return the entry of a response that worked."""
    return {status: {"description": description, "content": {"application/json": {"example": example}}, **more}}


def problems(*statuses: int, unprocessable: dict[str, Any] | None = None) -> Responses:
    """Return the entries of the problems that an operation may answer with, beside those that any may."""
    titles = {kind.status: kind.title for kind in KINDS.values()} | {s: title for s, (_, title) in HTTP_FAULTS.items()}
    titles[503] = "Not now; `Retry-After` says when to try again"
    entries: Responses = {}
    for status in sorted({*statuses, *_ALWAYS}):
        example = unprocessable if status == 422 and unprocessable else examples.PROBLEMS[status]
        schema = {"$ref": "#/components/schemas/ProblemDetails"}
        entries[status] = {
            "description": titles[status],
            "content": {MEDIA_TYPE: {"schema": schema, "example": example}},
        }
    return entries


#: The body of `/execute-dag`, which its route reads itself.
SUBMISSION: Final[dict[str, Any]] = {
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
    }
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
        for media_type, content in response["content"].items():
            found[str(status)]["content"][media_type]["example"] = content["example"]


def version() -> str:
    """Return the release of this program, as installed."""
    try:
        return importlib.metadata.version("dagbok")
    except importlib.metadata.PackageNotFoundError:  # run from a source tree that was never installed
        return "0"
