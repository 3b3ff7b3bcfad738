"""The bodies of requests: a bare plan, or `{"plan" | "dagId", "options"}`; an answer; a command. Faults get a place.

The standard parser reads a submission, because it keeps NaN, 2**70 and lone surrogates as they are; the plan's checker
then names each of them. `Guard` bounds the size.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.message import Message
from typing import Any, Final, TypeVar

from pydantic import ValidationError
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request

from dagbok import wire
from dagbok.api import problems
from dagbok.domain import values
from dagbok.domain.validate import Problem
from dagbok.domain.values import Json, pointer_to
from dagbok.domain.wording import said
from dagbok.errors import BadInput, InvalidPlan, NotJson
from dagbok.submitting import Options

S = TypeVar("S", bound=wire.Shape)

#: From this size on a body is parsed in a thread.
LARGE_BODY_BYTES: Final = 64 * 1024

_ENVELOPE: Final = {"plan": "plan", "dagId": "dag_id", "dag_id": "dag_id", "options": "options"}


@dataclass(frozen=True, slots=True)
class Submission:
    """What a client wants to run."""

    plan: Json  #: None where `dag_id` is given
    dag_id: str | None
    options: Options
    problems: tuple[
        Problem, ...
    ]  #: faults outside the plan; not yet told, so that those of the plan can come with them
    pointer: str  #: of the plan within the body: "" or "/plan"
    size_bytes: int


async def read(request: Request) -> Submission:
    """Return the submission of a request.

    Raises:
        HTTPException: 415, it is not JSON by its own words.
        MalformedJson: Nor by its content.
        BadInput: It is JSON, but no object.
    """
    require_json(request.headers)
    data = await request.body()
    large = len(data) >= LARGE_BODY_BYTES
    document = await asyncio.to_thread(values.read, data) if large else values.read(data)
    if not isinstance(document, dict):
        kind = "a list" if isinstance(document, list) else "no object"
        message = f'The body is {kind}; it has to be a plan, or {{"plan": ..., "options": ...}}.'
        raise BadInput(message, problems=(Problem("", "bad_value", message),))
    if "sub_tasks" in document or not ("plan" in document or "dagId" in document or "dag_id" in document):
        return Submission(document, None, Options(), (), "", len(data))
    faults = list(_envelope_faults(document))
    options = _options(document.get("options"), faults)
    dag_id = document.get("dagId", document.get("dag_id"))
    return Submission(document.get("plan"), dag_id, options, tuple(faults), "/plan", len(data))


async def read_answer(request: Request) -> tuple[dict[str, Any], int | None, str | None]:
    """Return the answer of a request, without what is null, the number of its question, and who gives it.

    Raises:
        HTTPException: 415, it is not JSON by its own words.
        MalformedJson: Nor by its content.
        BadInput: It is no answer; `problems` name each place.
    """
    require_json(request.headers)
    answer = _fitting(wire.AnswerRequest, await request.body(), "The answer")
    return answer.model_dump(exclude_unset=True, exclude={"by", "number"}), answer.number, answer.by


async def read_command(request: Request, shape: type[S]) -> S:
    """Return what a request says with a command: it may come without a body, and then needs no Content-Type.

    Raises:
        HTTPException: 415, there is a body, which is not JSON by its own words.
        MalformedJson: Nor by its content.
        BadInput: It says something else; `problems` name each place.
    """
    data = await request.body()
    if not data:
        return shape()
    require_json(request.headers)
    if len(data) >= LARGE_BODY_BYTES:
        return await asyncio.to_thread(_fitting, shape, data, "The body")
    return _fitting(shape, data, "The body")


def _fitting(shape: type[S], data: bytes, what: str) -> S:
    """Return JSON text as `shape`. Raises MalformedJson, BadInput."""
    document = values.parse(data)
    try:
        return shape.model_validate(document)
    except ValidationError as exc:
        faults = tuple(_fault(shape, error, what) for error in exc.errors(include_url=False, include_input=False))
        raise BadInput(problems.summary(faults), problems=faults) from exc


def _fault(shape: type[wire.Shape], error: Mapping[str, Any], what: str) -> Problem:
    name = f"`{'/'.join(map(str, error['loc']))}`" if error["loc"] else what
    known = ", ".join(field.alias or field_name for field_name, field in shape.model_fields.items())
    more = f"; there may be: {known}" if error["type"] == "extra_forbidden" else ""
    return Problem(pointer_to(*error["loc"]), "bad_value", f"{name} {said(error)}{more}.")


def require_json(headers: Headers) -> None:
    """Raise HTTPException 415 unless the headers announce plain JSON in UTF-8."""
    message = Message()
    message["content-type"] = headers.get("content-type", "none/none")
    kind = message.get_content_type()
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        given = f"is {headers['content-type'][:100]!r}" if "content-type" in headers else "is missing"
        raise HTTPException(415, f"The Content-Type {given}; it has to be application/json.", _ACCEPT)
    charset = str(message.get_param("charset", "utf-8")).lower()
    if charset not in ("utf-8", "utf8", "us-ascii"):
        raise HTTPException(415, f"The charset is {charset[:50]!r}; JSON is UTF-8 (RFC 8259).", _ACCEPT)
    if (encoding := headers.get("content-encoding", "identity").lower()) != "identity":
        raise HTTPException(
            415, f"The Content-Encoding is {encoding[:50]!r}; send the body as it is.", {"Accept-Encoding": "identity"}
        )


_ACCEPT: Final = {"Accept": "application/json"}


def at(pointer: str, error: BadInput) -> BadInput:
    """Return `error` about a plan as one about the body that has this plan at `pointer`."""
    if not pointer or error.fields.get("outside_plan"):
        return error
    fields = dict(error.fields)
    if found := fields.get("problems"):
        fields["problems"] = moved(pointer, found)
    if isinstance(inner := fields.get("pointer"), str):
        fields["pointer"] = pointer + inner
    return type(error)(error.message, **fields)


def moved(pointer: str, found: Iterator[Problem] | tuple[Problem, ...] | list[Problem]) -> tuple[Problem, ...]:
    """Return problems of a plan with their pointers into the body that has it at `pointer`."""
    return tuple(Problem(pointer + problem.pointer, problem.code, problem.message) for problem in found)


def refusal(faults: tuple[Problem, ...]) -> BadInput:
    """Return the error that tells of all `faults` of a submission."""
    in_plan = any(fault.pointer.startswith("/plan") for fault in faults)
    return (InvalidPlan if in_plan else BadInput)(problems.summary(faults), problems=faults)


def _envelope_faults(document: Mapping[str, Any]) -> Iterator[Problem]:
    around = {name: value for name, value in document.items() if name != "plan"}
    yield from (Problem(fault.pointer, NotJson.code, fault.message) for fault in values.faults(around))
    known = ", ".join(name for name in _ENVELOPE if "_" not in name)
    for name in around:
        if name not in _ENVELOPE:
            yield Problem(
                pointer_to(name), "unknown_field", f"`{name}` is not known here; beside a plan there may be: {known}."
            )
    dag_id = document.get("dagId", document.get("dag_id"))
    if "plan" in document and dag_id is not None:
        yield Problem("/dagId", "bad_value", "Give either a plan or the dagId of a stored one, not both.")
    elif "plan" not in document and not isinstance(dag_id, str):
        yield Problem("/dagId", "bad_value", "`dagId` is the id of a stored dag, a string.")


def _options(given: Json, faults: list[Problem]) -> Options:
    """Return the options of a submission; what is wrong with them is added to `faults`."""
    if given is None or any(fault.code == NotJson.code for fault in faults):
        return Options()
    try:
        options = wire.SubmitOptions.model_validate(given)
    except ValidationError as exc:
        known = ", ".join(field.alias or name for name, field in wire.SubmitOptions.model_fields.items())
        for error in exc.errors(include_url=False, include_input=False):
            pointer = pointer_to("options", *error["loc"])
            if error["type"] == "extra_forbidden":
                message = f"This release knows no option `{error['loc'][-1]}`; it knows {known}."
                faults.append(Problem(pointer, "unsupported_option", message))
            else:
                name = f"The option `{'/'.join(map(str, error['loc']))}`" if error["loc"] else "`options`"
                faults.append(Problem(pointer, "bad_value", f"{name} {said(error)}."))
        return Options()
    return Options(**dict(options))
