"""What goes wrong with a request, as the errors that the library raises: problem details, and connections."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import httpx2
from pydantic import ValidationError

from dagbok import wire
from dagbok.domain.validate import Problem
from dagbok.errors import (
    BadInput,
    Conflict,
    DagbokError,
    InvalidPlan,
    Misconfigured,
    NotFound,
    OutcomeUnknown,
    StoreUnavailable,
    TooLarge,
)

#: What a problem without a code of ours is, by its HTTP status.
_BY_STATUS: Final[Mapping[int, type[DagbokError]]] = {404: NotFound, 409: Conflict, 413: TooLarge, 422: BadInput}


def never_sent(exc: Exception) -> bool:
    """Return whether a request cannot have been done."""
    kinds = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.InvalidURL)
    return isinstance(exc, (*kinds, httpx2.UnsupportedProtocol))


def unreachable(exc: Exception, base_url: str) -> DagbokError:
    """Return the error of a request that was not done, or only read."""
    words = str(exc) or type(exc).__name__
    if isinstance(exc, httpx2.InvalidURL | httpx2.UnsupportedProtocol):
        error: DagbokError = Misconfigured(f"{base_url!r} is no address of a server: {words}", url=base_url)
    else:
        what = "does not answer in time" if isinstance(exc, httpx2.TimeoutException) else "cannot be reached"
        error = StoreUnavailable(f"The server at {base_url} {what} ({words}).", url=base_url)
    error.__cause__ = exc
    return error


def unknown(exc: Exception, base_url: str, key: str | None) -> OutcomeUnknown:
    """Return the error of a request that may have been done; `key` is its idempotency key."""
    words = str(exc) or type(exc).__name__
    if not isinstance(exc, OutcomeUnknown):  # which is the server's own word
        words = f"The connection to {base_url} broke before the answer ({words}); it may have been done."
    if key is None:
        error = OutcomeUnknown(f"{words} Look first.", url=base_url)
    else:
        advice = f"Submit it again with the idempotency key {key!r}; it runs once."
        error = OutcomeUnknown(f"{words} {advice}", url=base_url, idempotency_key=key)
    error.__cause__ = exc
    return error


def _classes(kind: type[DagbokError]) -> Iterator[type[DagbokError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from _classes(below)


def of(response: httpx2.Response, base_url: str, base: str) -> DagbokError:
    """Return the exception that a problem stands for."""
    try:
        problem = wire.ProblemDetails.model_validate_json(response.content)
    except ValidationError:
        return no_dagbok(response, base_url)
    fields: dict[str, Any] = {"url": base_url, "status": problem.status}
    if problem.errors:
        fields["problems"] = tuple(
            Problem(item.pointer.removeprefix(base), item.code, item.detail) for item in problem.errors
        )
    by_code = {kind.code: kind for kind in _classes(DagbokError) if kind.__module__ == DagbokError.__module__}
    kind = by_code.get(problem.code) or _BY_STATUS.get(response.status_code)
    if kind is None:
        kind = StoreUnavailable if response.status_code == 503 else DagbokError
        return kind(f"The server at {base_url} answered: {problem.detail}", **fields)
    if kind is not InvalidPlan and "problems" in fields:
        fields["pointer"] = fields["problems"][0].pointer
    return kind(problem.detail, **fields)


def no_dagbok(response: httpx2.Response, base_url: str) -> Misconfigured:
    """Return the error of an answer that cannot be read."""
    kind = response.headers.get("content-type", "no content type")
    message = (
        f"What answers at {base_url} ({response.status_code}, {kind}) does not speak as this release of Dagbok does."
    )
    return Misconfigured(message, url=base_url)
