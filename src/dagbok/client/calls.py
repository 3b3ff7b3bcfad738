"""Every request that a client sends: a `Call` each, what it says and how its answer is read."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Generic, TypeVar
from urllib.parse import quote

import httpx2
import orjson
from pydantic import TypeAdapter, ValidationError
from pydantic.alias_generators import to_camel

from dagbok import wire
from dagbok.client import faults
from dagbok.domain import values
from dagbok.domain.idempotency import check_key
from dagbok.domain.plan import Plan
from dagbok.domain.states import EXECUTION_ENDED
from dagbok.domain.values import Json
from dagbok.errors import Conflict, Misconfigured

T = TypeVar("T")

DEFAULT_URL: Final = "http://127.0.0.1:3000"
#: Seconds for one answer. Submitting a plan of 10,000 sub-tasks takes the server a second or two.
TIMEOUT_S: Final = 60.0
CONNECT_TIMEOUT_S: Final = 5.0
_TOOLS: Final = TypeAdapter(list[wire.ToolView])
_API = "/api/v1"


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request, and how to read its answer."""

    method: str
    path: str
    read: Callable[[httpx2.Response], T]
    params: Mapping[str, str | int] | None = None
    content: bytes | None = None
    wait_s: int = 0  # the server may take so much longer
    key: str | None = None  # of what may be sent again
    accepted: tuple[int, ...] = ()  # statuses beside 2xx that bring an answer and not a problem
    base: str = ""  # pointer of what the caller gave, within the body; problems are told as pointers into that

    def request(self, timeout_s: float) -> dict[str, Any]:
        """Return the arguments of the HTTP library."""
        headers = {}
        if self.content is not None:
            headers["Content-Type"] = "application/json"
        if self.key is not None:
            quoted = self.key.replace("\\", "\\\\").replace('"', '\\"')
            headers["Idempotency-Key"] = f'"{quoted}"'
        if self.wait_s:
            headers["Prefer"] = f"wait={self.wait_s}"
        sent = {"method": self.method, "url": self.path, "params": self.params, "content": self.content}
        return {**sent, "headers": headers, "timeout": _timeout(timeout_s + self.wait_s)}

    def answer(self, response: httpx2.Response, base_url: str) -> T:
        """Return what the response says. Raises the error that its problem stands for."""
        if not (response.is_success or response.status_code in self.accepted):
            raise faults.of(response, base_url, self.base)
        try:
            return self.read(response)
        except (ValidationError, ValueError) as exc:
            raise faults.no_dagbok(response, base_url) from exc


def options(
    title: str | None,
    labels: Mapping[str, str] | None,
    deadline_seconds: float | None,
    failure_policy: str | None,
) -> dict[str, Any]:
    """Return the options of a submission that are given."""
    named = {
        "title": title, "labels": labels, "deadlineSeconds": deadline_seconds, "failurePolicy": failure_policy
    }  # fmt: skip
    return {name: value for name, value in named.items() if value is not None}


def submit(
    plan: Plan | Json | str | bytes, options: Mapping[str, Any], key: str | None, wait_s: int = 0
) -> Call[wire.SubmitResponse | wire.Execution]:
    """A submission, with a key of its own if none is given; an execution comes of it if it settles in `wait_s`."""
    document = values.parse(plan) if isinstance(plan, str | bytes) else plan
    body: dict[str, Any] = {"plan": document.document() if isinstance(document, Plan) else document}
    if options:
        body["options"] = options
    if key is None:
        key = str(uuid.uuid4())
    check_key(key)
    content = values.encode(body).encode()
    return Call("POST", f"{_API}/execute-dag", _submission, content=content, base="/plan", key=key, wait_s=wait_s)


def _submission(response: httpx2.Response) -> wire.SubmitResponse | wire.Execution:
    document = orjson.loads(response.content)
    status = document.get("status") if isinstance(document, dict) else None
    if status == "clarification_required":
        query = wire.ClarificationResponse.model_validate(document).clarification_query
        raise Conflict(f"The plan needs a clarification first: {query}", clarification_query=query)
    kind = wire.SubmitResponse if status == "started" else wire.Execution
    return kind.model_validate(document)


def get(execution_id: str) -> Call[wire.Execution]:
    """An execution with its sub-steps."""
    return Call("GET", _path(execution_id), _read(wire.Execution.read))


def settled(execution_id: str, wait_s: int) -> Call[wire.Execution | None]:
    """An execution once it ended or waits for a person; None comes of it where it goes on after `wait_s`."""

    def read(response: httpx2.Response) -> wire.Execution | None:
        execution = wire.Execution.read(response.content)
        # One that waits for a person may have branches that still run; the server knows.
        settled = execution.status in EXECUTION_ENDED or "preference-applied" in response.headers
        return execution if settled else None

    return Call("GET", _path(execution_id), read, wait_s=wait_s)


def list_(limit: int, offset: int, status: str | None, cursor: str | None) -> Call[wire.ExecutionList]:
    """A page of executions."""
    params: dict[str, str | int] = {"limit": limit, "offset": offset}
    if status is not None:
        params["status"] = str(status)
    if cursor is not None:
        params["cursor"] = cursor
    return Call("GET", f"{_API}/dag-executions", _read(wire.ExecutionList.read), params)


def sub_steps(execution_id: str) -> Call[Sequence[wire.SubStep]]:
    """The sub-steps of an execution."""
    return Call("GET", _path(execution_id, "sub-steps"), _read(lambda data: wire.SubStepList.read(data).sub_steps))


def result(execution_id: str, task_id: str) -> Call[Json]:
    """The whole result of a sub-step."""
    return Call("GET", _path(execution_id, "sub-steps", task_id, "result"), _read(orjson.loads))


def human_inputs(**filters: str | int | datetime | None) -> Call[wire.HumanInputList]:
    """A page of the inbox."""
    params: dict[str, str | int] = {}
    for name, value in filters.items():
        if value is not None:
            params[to_camel(name)] = value.isoformat() if isinstance(value, datetime) else value
    return Call("GET", f"{_API}/human-inputs", _read(wire.HumanInputList.read), params)


def answer(
    execution_id: str, task_id: str, said: Mapping[str, Json], number: int | None, by: str | None
) -> Call[wire.CommandResponse]:
    """What somebody answers to the question of a sub-step."""
    more = {name: value for name, value in (("number", number), ("by", by)) if value is not None}
    content = values.encode({**said, **more}).encode()
    path = _path(execution_id, "sub-steps", task_id, "input")
    return Call("POST", path, _read(wire.CommandResponse.read), content=content)


def graph(execution_id: str, format: str) -> Call[wire.Graph | str]:
    """The graph of an execution; read, if it is JSON."""
    read: Callable[[bytes], wire.Graph | str] = wire.Graph.read if format == "json" else bytes.decode
    return Call("GET", _path(execution_id, "graph"), _read(read), {"format": format})


def attempts(execution_id: str, task_id: str) -> Call[Sequence[wire.Attempt]]:
    """The tries of a sub-step that did not end well."""
    path = _path(execution_id, "sub-steps", task_id, "attempts")
    return Call("GET", path, _read(lambda data: wire.AttemptList.read(data).attempts))


def delete(execution_id: str, force: bool) -> Call[wire.DeleteResponse]:
    """The end of all that an execution wrote."""
    params = {"force": "true"} if force else None
    return Call("DELETE", _path(execution_id), _read(wire.DeleteResponse.read), params)


def command(execution_id: str, name: str, by: str | None) -> Call[wire.CommandResponse]:
    """What somebody asks of an execution: `cancel`, `pause`, `resume`."""
    content = None if by is None else values.encode({"by": by}).encode()
    return Call("POST", _path(execution_id, name), _read(wire.CommandResponse.read), content=content)


def retry(
    execution_id: str, steps: Sequence[str] | None, overrides: Mapping[str, Json] | None, by: str | None
) -> Call[wire.ResumeResponse]:
    """The wish that what was lost runs again."""
    content = _said(steps=None if steps is None else list(steps), overrides=_object(overrides), by=by)
    return Call("POST", _path(execution_id, "retry"), _read(wire.ResumeResponse.read), content=content)


def fork(
    execution_id: str,
    from_task: str | None,
    overrides: Mapping[str, Json] | None,
    plan: Plan | Json | str | bytes,
    by: str | None,
    key: str | None,
) -> Call[wire.ForkResponse]:
    """The wish that another execution goes on from this one, with a key of its own if none is given."""
    document = values.parse(plan) if isinstance(plan, str | bytes) else plan
    document = document.document() if isinstance(document, Plan) else document
    if key is None:
        key = str(uuid.uuid4())
    check_key(key)
    content = _said(fromTask=from_task, overrides=_object(overrides), plan=document, by=by)
    return Call("POST", _path(execution_id, "fork"), _read(wire.ForkResponse.read), content=content, key=key)


def _said(**given: Json) -> bytes:
    return values.encode({name: value for name, value in given.items() if value is not None}).encode()


def _object(given: Mapping[str, Json] | None) -> Json:
    return None if given is None else dict(given)


def tools() -> Call[Sequence[wire.ToolView]]:
    """The tools that plans may call."""
    return Call("GET", f"{_API}/tools", _read(_TOOLS.validate_json))


def health() -> Call[wire.Ready]:
    """Whether submissions can be taken."""
    return Call("GET", "/health/ready", _read(wire.Ready.read), accepted=(503,))


def _read(read: Callable[[bytes], T]) -> Callable[[httpx2.Response], T]:
    return lambda response: read(response.content)


def _path(execution_id: str, *more: str) -> str:
    return "/".join((f"{_API}/dag-executions", *(quote(part, safe="") for part in (execution_id, *more))))


def _timeout(timeout_s: float) -> httpx2.Timeout:
    return httpx2.Timeout(timeout_s, connect=min(timeout_s, CONNECT_TIMEOUT_S))


def base_url_of(given: str | None) -> str:
    """Return where the server answers: as given, by `DAGBOK_URL`, or here. Raises Misconfigured: that is no address."""
    url = (given or os.environ.get("DAGBOK_URL") or DEFAULT_URL).rstrip("/")
    if not url.startswith(("http://", "https://")):
        raise Misconfigured(f"{url!r} is no address of a server; use http://HOST:PORT.")
    return url
