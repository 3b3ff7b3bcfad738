"""Errors as clients see them: problem details (RFC 9457), from one table.

`type` points to the sentence about the `code` on this server's own `/docs` page; programs go by `code`. What a client
did wrong is told in full, with a JSON pointer for each fault. What went wrong here is told in general words; the log
has the rest under the request's id: error texts of a database or a bug are not for strangers.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import orjson
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Scope

from dagbok import wire
from dagbok.api import requests
from dagbok.domain.validate import Problem
from dagbok.domain.values import clean, pointer_to
from dagbok.domain.wording import said
from dagbok.errors import (
    BadInput,
    Conflict,
    DagbokError,
    Fenced,
    IdempotencyInFlight,
    IdempotencyKeyReused,
    InvalidPlan,
    MalformedJson,
    NotFound,
    OutcomeUnknown,
    StoreUnavailable,
    TooLarge,
)

log = logging.getLogger("dagbok.api")

MEDIA_TYPE: Final = "application/problem+json"
#: A plan of 10,000 sub-tasks may be wrong in 10,000 places; nobody reads more than these.
MAX_ERRORS: Final = 1_000
EXAMPLE_REQUEST_ID: Final = "01932f3e-7c1b-7d2a-9f53-3f4e6c8b0d13"
_MAX_INSTANCE_CHARS: Final = 500


class Kind(NamedTuple):
    """What one class of errors is to a client."""

    status: int
    title: str
    detail: str | None = None  #: said instead of the error's own words, which may hold what is not for clients
    retry_after_s: int | None = None


#: An error is of the first kind found along its classes, from itself upward.
KINDS: Final[Mapping[type[BaseException], Kind]] = {
    MalformedJson: Kind(400, "Malformed JSON"),
    TooLarge: Kind(413, "Too large"),
    InvalidPlan: Kind(422, "Invalid plan"),
    IdempotencyKeyReused: Kind(422, "Idempotency key reused"),
    BadInput: Kind(422, "Invalid input"),
    NotFound: Kind(404, "Not found"),
    IdempotencyInFlight: Kind(409, "Request in flight", retry_after_s=1),
    Conflict: Kind(409, "Conflict"),
    Fenced: Kind(409, "Conflict", "Another engine has taken this execution; nothing was changed."),
    StoreUnavailable: Kind(
        503, "Diary unavailable", "The database is not available at the moment; nothing was changed. Try again.", 2
    ),
    OutcomeUnknown: Kind(
        503,
        "Outcome unknown",
        "It is not known whether this was written. Look before you try again.",
        2,
    ),
    BaseException: Kind(500, "Internal error", "Something went wrong here; it is not the fault of the request."),
}

#: What goes wrong before any of our code is asked: (code, title) by status.
HTTP_FAULTS: Final[Mapping[int, tuple[str, str]]] = {
    400: ("bad_request", "Bad request"),
    403: ("foreign_origin", "Foreign origin"),
    404: ("not_found", "Not found"),
    405: ("method_not_allowed", "Method not allowed"),
    408: ("request_timeout", "Request timeout"),
    413: ("too_large", "Too large"),
    415: ("unsupported_media_type", "Unsupported media type"),
    421: ("unknown_host", "Unknown host"),
    503: ("overloaded", "Overloaded"),
}

#: Every `code` at the top of a problem, with its sentence on `/docs`.
CODES: Final[Mapping[str, str]] = {
    "malformed_json": "The body is not JSON; the detail names line and column.",
    "invalid_plan": "The plan cannot run. `errors` holds every fault, each with its pointer and a code of its own.",
    "invalid_input": "An option or a query parameter cannot be used; `errors` names each.",
    "not_json": "The body holds what no JSON may: NaN, an integer beyond 64 bits, NUL, a lone surrogate, depth > 200.",
    "invalid_answer": "The answer does not fit the schema of its question; `errors` holds every fault.",
    "bad_reference": "A reference to a result cannot be read.",
    "idempotency_key_reused": "The Idempotency-Key came with another request before. Take a new key for a new request.",
    "too_large": "The body or the plan is over a limit of this server's settings.",
    "not_found": "There is no such path, execution, sub-step or result.",
    "conflict": "The state of the execution does not allow this now.",
    "idempotency_in_flight": "A request with this Idempotency-Key is under way; try again after `Retry-After`.",
    "fenced": "Another engine has taken the execution.",
    "store_unavailable": "The database is away. Nothing was changed; try again after `Retry-After`.",
    "outcome_unknown": "It is not known whether this was written: the database did not answer in time, or the engine "
    "stopped meanwhile. Look before you try again; the detail names the execution, if it was to be a new one.",
    "internal_error": "A fault of this server; its log has more under the `requestId`.",
    "bad_request": "The request is not proper HTTP for this server.",
    "foreign_origin": "A web page of another origin called; DAGBOK_ALLOWED_ORIGINS names those that may.",
    "method_not_allowed": "The path exists, but not with this method; `Allow` names those it has.",
    "request_timeout": "The body did not arrive in time.",
    "unsupported_media_type": "The body is not `application/json`.",
    "unknown_host": "The Host header names a host that this server does not answer for; see DAGBOK_ALLOWED_HOSTS.",
    "overloaded": "Too many requests at once; try again after `Retry-After`.",
}


def kind_of(error: BaseException) -> Kind:
    """Return what `error` is to a client."""
    return next(KINDS[cls] for cls in type(error).__mro__ if cls in KINDS)


def of(error: BaseException, scope: Scope) -> Response:
    """Return the response that tells a client of `error`; what is our fault is logged."""
    if isinstance(error, HTTPException):
        code, title = HTTP_FAULTS.get(error.status_code, ("http_error", "Error"))
        return response(scope, error.status_code, code, title, error.detail, headers=error.headers)
    if isinstance(error, RequestValidationError):
        faults = [_parameter_fault(fault) for fault in error.errors()]
        return response(scope, 422, BadInput.code, KINDS[BadInput].title, _summary("request", faults), faults)
    kind = kind_of(error)
    code = error.code if isinstance(error, DagbokError) and kind.status != 500 else "internal_error"
    detail = kind.detail or str(error)
    if isinstance(error, OutcomeUnknown) and (execution_id := error.fields.get("execution_id")):
        detail = f"{detail} It is about execution {execution_id}."
    headers = {"Retry-After": str(kind.retry_after_s)} if kind.retry_after_s else {}
    if kind.status >= 500:
        request_id = requests.id_of(scope)
        if isinstance(error, StoreUnavailable):  # no fault of ours to be searched for; the journal tells of an outage
            log.warning("%s %s refused (request %s): %s", scope["method"], scope["path"], request_id, error)
        else:
            log.error("%s %s failed (request %s)", scope["method"], scope["path"], request_id, exc_info=error)
        detail = f"{detail} The log has it under {request_id}."
    return response(scope, kind.status, code, kind.title, detail, _faults(error), headers=headers)


def response(
    scope: Scope,
    status: int,
    code: str,
    title: str,
    detail: str,
    faults: Sequence[Problem] = (),
    *,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return a problem as a response; at most `MAX_ERRORS` of its faults are listed."""
    if len(faults) > MAX_ERRORS:
        detail = f"{detail} The first {MAX_ERRORS:,} of {len(faults):,} are listed."
    body = {
        "type": type_of(code),
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
        "instance": quote(scope["path"][:_MAX_INSTANCE_CHARS], safe="/:@!$&'()*+,;=~"),
        "errors": [{"pointer": f.pointer, "code": f.code, "detail": f.message} for f in faults[:MAX_ERRORS]] or None,
        "requestId": requests.id_of(scope),
    }
    return Response(_dump(body), status, headers, media_type=MEDIA_TYPE)


def type_of(code: str) -> str:
    """Return the `type` of a problem: where this server explains it."""
    return f"/docs#{code}"


def example(status: int, code: str, title: str, detail: str, faults: Iterable[Problem] = ()) -> dict[str, Any]:
    """Return a problem as the documentation shows it."""
    errors = [wire.ProblemItem(pointer=f.pointer, code=f.code, detail=f.message) for f in faults]
    shape = wire.ProblemDetails(
        type=type_of(code), title=title, status=status, detail=detail, code=code,
        instance="/api/v1/execute-dag", errors=errors or None, requestId=EXAMPLE_REQUEST_ID,
    )  # fmt: skip
    return shape.model_dump(mode="json", by_alias=True)


def summary(problems: Sequence[Problem]) -> str:
    """Return the sentence about the faults of a request as a whole."""
    return _summary("request", problems)


def _summary(what: str, problems: Sequence[Problem]) -> str:
    count = "1 problem" if len(problems) == 1 else f"{len(problems):,} problems"
    return f"The {what} has {count}: {problems[0].message}"


def _faults(error: BaseException) -> Sequence[Problem]:
    if not isinstance(error, BadInput):
        return ()
    if problems := error.fields.get("problems"):
        return tuple(problems)
    pointer = error.fields.get("pointer")
    return () if pointer is None else (Problem(pointer, error.code, error.message),)


def _parameter_fault(fault: Mapping[str, Any]) -> Problem:
    name = fault["loc"][-1]
    given = f" is {clean(str(fault['input']), 100)!r}; it" if fault.get("input") is not None else ""
    return Problem(pointer_to(*fault["loc"][1:]), "bad_value", f"`{name}`{given} {said(fault)}.")


def _dump(body: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(body)
    except TypeError:  # a lone surrogate that came with a name; a problem must not fail to be told
        return orjson.dumps(_cleaned(body))


def _cleaned(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _cleaned(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_cleaned(item) for item in value]
    return clean(value, 10_000) if isinstance(value, str) else value
