"""The shape that an answer must have: a JSON Schema, what is sent of it, and how an answer is read and judged.

Providers know three ways to ask for a shape (their own schema mode, a tool to call, words in the prompt), and all want
an object at the root. So any other root is sent as `{"answer": ...}` and taken out again, and which of the three is
used is pydantic-ai's choice for the model. What comes back is judged here, whatever the provider promised.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from jsonschema.exceptions import ValidationError

from dagbok.domain import extent, schemas
from dagbok.domain.call import Call
from dagbok.domain.judging import misfits
from dagbok.domain.values import Json, faults, pointer_to, read
from dagbok.errors import BadInput, TooLarge, ToolError

if TYPE_CHECKING:
    from pydantic_ai.messages import ModelResponse
    from pydantic_ai.models import ModelRequestParameters

_WRAP: Final = "answer"
_TOOL: Final = "final_result"  # that a model without a schema mode calls with its answer
_FENCE = re.compile(r"\A\s*```[a-z]*\s*\n(.*)\n\s*```\s*\Z", re.DOTALL | re.IGNORECASE)
_MISFITS = 5  # named of one answer
_LONGEST = 300  # characters of one; they quote the answer


class Shape:
    """A JSON Schema for the answer of a model."""

    def __init__(self, schema: dict[str, Any], pointer: str = "/output_schema") -> None:
        """Take a schema. Raises BadInput, with the pointer, for one that cannot be used."""
        for path, fault in schemas.faults(schema):
            at = f"{pointer}{pointer_to(*path)}"
            raise BadInput(f"The schema of the answer cannot be used: {at}: {fault}.", pointer=at)
        self.schema = schema
        self._wrapped = schema.get("type") != "object"

    @cached_property
    def parameters(self) -> ModelRequestParameters:
        """What a request says of it, in each of the three ways; the model's profile decides for one."""
        from pydantic_ai.models import ModelRequestParameters
        from pydantic_ai.output import OutputObjectDefinition
        from pydantic_ai.tools import ToolDefinition

        sent, said = self._sent(), "The answer."
        return ModelRequestParameters(
            output_mode="auto",
            output_object=OutputObjectDefinition(json_schema=sent, name=_TOOL, description=said),
            output_tools=[ToolDefinition(name=_TOOL, parameters_json_schema=sent, description=said, kind="output")],
            allow_text_output=False,
        )

    def value(self, response: ModelResponse) -> Json:
        """Return the value that a response holds; it takes its time for a large one, so not on an event loop.

        Raises:
            BadInput: The schema cannot be applied.
            ToolError: `invalid_output`: it is not in shape; the message says where, for the model that wrote it.
        """
        from pydantic_ai.messages import ToolCallPart

        calls = [part for part in response.parts if isinstance(part, ToolCallPart)]
        value = _parsed(calls[0].args_as_json_str() if calls else response.text or "")
        if self._wrapped:
            if not (isinstance(value, dict) and value.keys() == {_WRAP}):
                raise _misfit(f"The answer is not an object with the one key {_WRAP!r}.")
            value = value[_WRAP]
        for fault in faults(value):
            raise _misfit(fault.message)
        self._judge(value)
        return value

    def _judge(self, value: Json) -> None:
        try:
            found = misfits(self.schema, value, _MISFITS + 1)
        except TooLarge as exc:  # of the model's answer; it may try a shorter one
            raise _misfit(exc.message) from exc
        if found:
            more = "; and more" if len(found) > _MISFITS else ""
            raise _misfit("; ".join(map(self._words, found[:_MISFITS])) + more)

    def _words(self, error: ValidationError) -> str:
        path = (_WRAP, *error.absolute_path) if self._wrapped else error.absolute_path
        return f"{pointer_to(*path) or 'the answer'}: {error.message[:_LONGEST]}"

    def _sent(self) -> dict[str, Any]:
        if not self._wrapped:
            return self.schema
        inner = _moved(self.schema, f"#/properties/{_WRAP}")
        for name in ("$schema", "$id"):  # they belong at a root
            inner.pop(name, None)
        return _wrapped(inner)


def wanted(sent: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the schema of the answer, given what is sent of it."""
    inner: Mapping[str, Any] = sent["properties"][_WRAP] if _is_wrapped(sent) else sent
    return inner


def said(value: Json, sent: Mapping[str, Any] | None) -> Json:
    """Return `value` as a model says it that was sent this schema, or none."""
    if sent is None or not _is_wrapped(sent) or (isinstance(value, dict) and value.keys() == {_WRAP}):
        return value
    return {_WRAP: value}


def of(call: Call) -> Shape | None:
    """Return the shape that a call asks for, by `output_schema` or an `expected_output` that is a schema; None: text.

    Raises:
        BadInput: There is one, but it cannot be used. Fields: `pointer`.
    """
    schema = call.params.get("output_schema")
    if schema is not None:
        if not isinstance(schema, dict):
            raise BadInput("The param `output_schema` is a JSON Schema: an object.", pointer="/output_schema")
        return Shape(schema)
    expected = schemas.of_expected(call.sub_task.expected_output)
    return None if expected is None else Shape(expected, "/expected_output")


def _is_wrapped(sent: Mapping[str, Any]) -> bool:
    inner = sent.get("properties", {}).get(_WRAP)
    return sent == _wrapped(inner) and isinstance(inner, dict) and inner.get("type") != "object"


def _wrapped(inner: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {_WRAP: inner}, "required": [_WRAP], "additionalProperties": False}


def _misfit(message: str) -> ToolError:
    return ToolError(message, code="invalid_output")


def _parsed(text: str) -> Json:
    fenced = _FENCE.match(text)
    try:
        return read(fenced[1] if fenced else text)
    except BadInput as exc:
        raise _misfit(f"The answer is not JSON: {exc.message}") from exc


def _moved(schema: Any, to: str, *, names: bool = False) -> Any:
    """Return a copy of a schema whose references to its own places hold below `to`."""
    if isinstance(schema, list):
        return [_moved(item, to) for item in schema]
    if not isinstance(schema, dict):
        return schema
    moved: dict[str, Any] = {}
    for key, child in schema.items():
        if not names and key in extent.REFERENCES and isinstance(child, str):
            moved[key] = to + child.removeprefix("#")
        elif not names and key in extent.VALUES:
            moved[key] = child
        else:
            moved[key] = _moved(child, to, names=not names and key in extent.NAMED)
    return moved
