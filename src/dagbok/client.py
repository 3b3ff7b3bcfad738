"""Dagbok over HTTP: `Client` and `AsyncClient`, the same methods, the same errors as the library raises locally.

A `_Call` says what to send and how to read the answer, once; the two clients differ only in how they send it. Problem
details (RFC 9457) become the exception whose `code` they carry.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Generic, NoReturn, Self, TypeVar
from urllib.parse import quote

import httpx2
import orjson
from pydantic import TypeAdapter, ValidationError

from dagbok import wire
from dagbok.domain import values
from dagbok.domain.plan import Plan
from dagbok.domain.states import EXECUTION_ENDED, ExecutionStatus
from dagbok.domain.validate import Problem
from dagbok.domain.values import Json
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

T = TypeVar("T")

DEFAULT_URL: Final = "http://127.0.0.1:3000"
#: Seconds for one answer. Submitting a plan of 10,000 sub-tasks takes the server a second or two.
TIMEOUT_S: Final = 60.0
CONNECT_TIMEOUT_S: Final = 5.0

_Submission = wire.SubmitResponse | wire.ClarificationResponse
_SUBMISSION: Final[TypeAdapter[_Submission]] = TypeAdapter(_Submission)  # their `status` tells them apart
_TOOLS: Final = TypeAdapter(list[wire.ToolView])

_API = "/api/v1"
_SETTLED = EXECUTION_ENDED | {ExecutionStatus.WAITING}

#: What a problem without a code of ours is, by its HTTP status.
_BY_STATUS: Final[Mapping[int, type[DagbokError]]] = {404: NotFound, 409: Conflict, 413: TooLarge, 422: BadInput}


@dataclass(frozen=True, slots=True)
class _Call(Generic[T]):
    """One request, and how to read its answer."""

    method: str
    path: str
    read: Callable[[bytes], T]
    params: Mapping[str, str | int] | None = None
    content: bytes | None = None
    accepted: tuple[int, ...] = ()  # statuses beside 2xx that bring an answer and not a problem
    base: str = ""  # pointer of what the caller gave, within the body; problems are told as pointers into that

    def request(self) -> dict[str, Any]:
        headers = {"Content-Type": "application/json"} if self.content is not None else {}
        sent = {"method": self.method, "url": self.path, "params": self.params, "content": self.content}
        return {**sent, "headers": headers}

    def answer(self, response: httpx2.Response, base_url: str) -> T:
        """Return what the response says. Raises the error that its problem stands for."""
        if not (response.is_success or response.status_code in self.accepted):
            raise _error(response, base_url, self.base)
        try:
            return self.read(response.content)
        except (ValidationError, ValueError) as exc:
            raise _no_dagbok(response, base_url) from exc


# -- the calls, for both clients --------------------------------------------------------------------------------------


def _execute(plan: Plan | Json | str | bytes, options: wire.SubmitOptions | None) -> _Call[_Submission]:
    document = values.parse(plan) if isinstance(plan, str | bytes) else plan
    body: dict[str, Any] = {"plan": document.document() if isinstance(document, Plan) else document}
    if options is not None:
        body["options"] = options.model_dump(mode="json", by_alias=True, exclude_none=True)
    content = values.encode(body).encode()
    return _Call("POST", f"{_API}/execute-dag", _SUBMISSION.validate_json, content=content, base="/plan")


def _get(execution_id: str) -> _Call[wire.Execution]:
    return _Call("GET", _path(execution_id), wire.Execution.read)


def _list(limit: int, offset: int, status: str | None) -> _Call[wire.ExecutionList]:
    params: dict[str, str | int] = {"limit": limit, "offset": offset}
    if status is not None:
        params["status"] = str(status)
    return _Call("GET", f"{_API}/dag-executions", wire.ExecutionList.read, params)


def _sub_steps(execution_id: str) -> _Call[Sequence[wire.SubStep]]:
    return _Call("GET", _path(execution_id, "sub-steps"), lambda data: wire.SubStepList.read(data).sub_steps)


def _result(execution_id: str, task_id: str) -> _Call[Json]:
    return _Call("GET", _path(execution_id, "sub-steps", task_id, "result"), orjson.loads)


def _delete(execution_id: str) -> _Call[wire.DeleteResponse]:
    return _Call("DELETE", _path(execution_id), wire.DeleteResponse.read)


def _cancel(execution_id: str) -> _Call[wire.CommandResponse]:
    return _Call("POST", _path(execution_id, "cancel"), wire.CommandResponse.read)


def _tools() -> _Call[Sequence[wire.ToolView]]:
    return _Call("GET", f"{_API}/tools", _TOOLS.validate_json)


def _health() -> _Call[wire.Ready]:
    return _Call("GET", "/health/ready", wire.Ready.read, accepted=(503,))


def _path(execution_id: str, *more: str) -> str:
    return "/".join((f"{_API}/dag-executions", *(quote(part, safe="") for part in (execution_id, *more))))


class Client:
    """A server of Dagbok. Safe to share between threads; close it, or use it as a context manager."""

    def __init__(
        self,
        base_url: str | None = None,
        *,
        timeout_s: float = TIMEOUT_S,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        """Prepare a client; nothing is sent yet.

        Args:
            base_url: Where the server answers; else `DAGBOK_URL`, else http://127.0.0.1:3000.
            timeout_s: The longest one answer may take. `wait` has its own.
            transport: How requests are sent, for tests and proxies.
        """
        self.base_url = _base_url(base_url)
        self._http = httpx2.Client(base_url=self.base_url, timeout=_timeout(timeout_s), transport=transport)

    def __enter__(self) -> Self:
        """Return the client, closed at the end of the block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _send(self, call: _Call[T]) -> T:
        try:
            response = self._http.request(**call.request())
        except (httpx2.HTTPError, httpx2.InvalidURL) as exc:
            _unreachable(exc, self.base_url, call)
        return call.answer(response, self.base_url)

    def execute(self, plan: Plan | Json | str | bytes, options: wire.SubmitOptions | None = None) -> _Submission:
        """Submit a plan: an execution that is durable and runs, or the question that the agent asks first.

        Raises:
            InvalidPlan: With every problem in `problems`.
            MalformedJson, NotJson, TooLarge: Nothing was stored.
            StoreUnavailable: The server cannot be reached, or cannot write now; nothing was stored.
            OutcomeUnknown: The connection broke after sending. Look (`list`) before you try again.
        """
        return self._send(_execute(plan, options))

    def get(self, execution_id: str) -> wire.Execution:
        """Return an execution with its sub-steps; results over 64 KiB come by `result`. Raises NotFound."""
        return self._send(_get(execution_id))

    def list(self, limit: int = 50, offset: int = 0, status: str | None = None) -> wire.ExecutionList:
        """Return a page of executions, newest first. Raises BadInput."""
        return self._send(_list(limit, offset, status))

    def sub_steps(self, execution_id: str) -> Sequence[wire.SubStep]:
        """Return the sub-steps, the synthesis last. Raises NotFound."""
        return self._send(_sub_steps(execution_id))

    def result(self, execution_id: str, task_id: str) -> Json:
        """Return the whole result of a sub-step. Raises NotFound, also while there is none."""
        return self._send(_result(execution_id, task_id))

    def delete(self, execution_id: str) -> wire.DeleteResponse:
        """Remove an execution that has ended. Raises NotFound, Conflict."""
        return self._send(_delete(execution_id))

    def cancel(self, execution_id: str) -> wire.CommandResponse:
        """Ask for the end of an execution. Raises NotFound, Conflict."""
        return self._send(_cancel(execution_id))

    def tools(self) -> Sequence[wire.ToolView]:
        """Return the tools that plans may call."""
        return self._send(_tools())

    def health(self) -> wire.Ready:
        """Return whether submissions can be taken now, and which model is set."""
        return self._send(_health())

    def wait(self, execution_id: str, timeout_s: float | None = None, poll_s: float = 0.25) -> wire.Execution:
        """Return an execution once it has ended or waits for a person.

        Raises:
            NotFound: There is no such execution.
            TimeoutError: It still runs after `timeout_s`; it goes on.
        """
        for pause_s in _pauses(execution_id, timeout_s, poll_s):
            execution = self.get(execution_id)
            if execution.status in _SETTLED:
                return execution
            time.sleep(pause_s)
        raise AssertionError("pauses never end by themselves")


class AsyncClient:
    """`Client` for an event loop."""

    def __init__(
        self,
        base_url: str | None = None,
        *,
        timeout_s: float = TIMEOUT_S,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        """Prepare a client; see `Client`."""
        self.base_url = _base_url(base_url)
        self._http = httpx2.AsyncClient(base_url=self.base_url, timeout=_timeout(timeout_s), transport=transport)

    async def __aenter__(self) -> Self:
        """Return the client, closed at the end of the block."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _send(self, call: _Call[T]) -> T:
        try:
            response = await self._http.request(**call.request())
        except (httpx2.HTTPError, httpx2.InvalidURL) as exc:
            _unreachable(exc, self.base_url, call)
        return call.answer(response, self.base_url)

    async def execute(self, plan: Plan | Json | str | bytes, options: wire.SubmitOptions | None = None) -> _Submission:
        """See `Client.execute`."""
        return await self._send(_execute(plan, options))

    async def get(self, execution_id: str) -> wire.Execution:
        """See `Client.get`."""
        return await self._send(_get(execution_id))

    async def list(self, limit: int = 50, offset: int = 0, status: str | None = None) -> wire.ExecutionList:
        """See `Client.list`."""
        return await self._send(_list(limit, offset, status))

    async def sub_steps(self, execution_id: str) -> Sequence[wire.SubStep]:
        """See `Client.sub_steps`."""
        return await self._send(_sub_steps(execution_id))

    async def result(self, execution_id: str, task_id: str) -> Json:
        """See `Client.result`."""
        return await self._send(_result(execution_id, task_id))

    async def delete(self, execution_id: str) -> wire.DeleteResponse:
        """See `Client.delete`."""
        return await self._send(_delete(execution_id))

    async def cancel(self, execution_id: str) -> wire.CommandResponse:
        """See `Client.cancel`."""
        return await self._send(_cancel(execution_id))

    async def tools(self) -> Sequence[wire.ToolView]:
        """See `Client.tools`."""
        return await self._send(_tools())

    async def health(self) -> wire.Ready:
        """See `Client.health`."""
        return await self._send(_health())

    async def wait(self, execution_id: str, timeout_s: float | None = None, poll_s: float = 0.25) -> wire.Execution:
        """See `Client.wait`."""
        for pause_s in _pauses(execution_id, timeout_s, poll_s):
            execution = await self.get(execution_id)
            if execution.status in _SETTLED:
                return execution
            await asyncio.sleep(pause_s)
        raise AssertionError("pauses never end by themselves")


# -- what goes wrong --------------------------------------------------------------------------------------------------


def _base_url(given: str | None) -> str:
    url = (given or os.environ.get("DAGBOK_URL") or DEFAULT_URL).rstrip("/")
    if not url.startswith(("http://", "https://")):
        raise Misconfigured(f"{url!r} is no address of a server; use http://HOST:PORT.")
    return url


def _timeout(timeout_s: float) -> httpx2.Timeout:
    return httpx2.Timeout(timeout_s, connect=min(timeout_s, CONNECT_TIMEOUT_S))


def _pauses(execution_id: str, timeout_s: float | None, poll_s: float) -> Iterator[float]:
    """Yield how long to pause after each look: short at first, for those who end at once."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    pause_s = min(poll_s, 0.02)
    while True:
        yield pause_s if deadline is None else max(0.0, min(pause_s, deadline - time.monotonic()))
        if deadline is not None and time.monotonic() >= deadline:
            raise TimeoutError(f"Execution {execution_id} still runs after {timeout_s:g} s; it goes on.")
        pause_s = min(poll_s, pause_s * 1.5)


def _unreachable(exc: Exception, base_url: str, call: _Call[Any]) -> NoReturn:
    words = str(exc) or type(exc).__name__
    if isinstance(exc, httpx2.InvalidURL | httpx2.UnsupportedProtocol):
        raise Misconfigured(f"{base_url!r} is no address of a server: {words}", url=base_url) from exc
    never_sent = isinstance(exc, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.PoolTimeout)
    if never_sent or call.method == "GET":
        what = "does not answer in time" if isinstance(exc, httpx2.TimeoutException) else "cannot be reached"
        raise StoreUnavailable(f"The server at {base_url} {what} ({words}).", url=base_url) from exc
    message = f"The connection to {base_url} broke before the answer ({words}); it may have been done. Look first."
    raise OutcomeUnknown(message, url=base_url) from exc


def _classes(kind: type[DagbokError]) -> Iterator[type[DagbokError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from _classes(below)


def _error(response: httpx2.Response, base_url: str, base: str) -> DagbokError:
    """Return the exception that a problem stands for."""
    try:
        problem = wire.ProblemDetails.model_validate_json(response.content)
    except ValidationError:
        return _no_dagbok(response, base_url)
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


def _no_dagbok(response: httpx2.Response, base_url: str) -> Misconfigured:
    kind = response.headers.get("content-type", "no content type")
    message = (
        f"What answers at {base_url} ({response.status_code}, {kind}) does not speak as this release of Dagbok does."
    )
    return Misconfigured(message, url=base_url)
