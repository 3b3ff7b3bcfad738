"""JSON Schemas that come with a plan, for the answers of people and models: checked before anybody is asked.

A plan is written by a model, and its schema is applied on behalf of whoever answers. So it may name nothing outside
itself, and hold no regular expression: one of those can keep a processor busy for years with thirty characters. Its
references may not multiply it (`dagbok.domain.extent`), and judging by it has an end (`dagbok.domain.judging`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

from dagbok.domain import extent
from dagbok.domain.extent import NAMED, REFERENCES, VALUES
from dagbok.domain.values import Json, parse
from dagbok.errors import BadInput

#: A place in the schema, and what is wrong there.
Fault = tuple[tuple[str | int, ...], str]

_REGULAR_EXPRESSIONS = ("pattern", "patternProperties")
_BASES = ("$id", "$schema")
_TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")


def of_expected(expected: Json) -> dict[str, Any] | None:
    """Return the JSON Schema that an `expected_output` is or spells; None where it is a description in other form.

    Only what no description looks like counts: `type` with a type of JSON, `properties` of objects, a `$schema`, a
    reference, or a list of alternatives.
    """
    if isinstance(expected, str):
        if not expected.lstrip().startswith("{"):
            return None
        try:
            expected = parse(expected)
        except BadInput:  # a sentence that opens with a brace
            return None
    if not isinstance(expected, dict):
        return None
    kinds = expected.get("type")
    named = kinds if isinstance(kinds, list) else [kinds]
    properties = expected.get("properties")
    clearly = (
        (bool(named) and all(kind in _TYPES for kind in named))
        or (isinstance(properties, dict) and all(isinstance(item, dict) for item in properties.values()))
        or any(isinstance(expected.get(key), str) for key in ("$schema", "$ref"))
        or any(_are_objects(expected.get(key)) for key in ("anyOf", "oneOf", "allOf"))
    )
    return expected if clearly else None


def _are_objects(value: Json) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def faults(schema: Json) -> Iterator[Fault]:
    """Yield what keeps `schema` from being the schema of an answer; nothing for a good one."""
    if not isinstance(schema, dict):
        yield (), "it is no JSON object"
        return
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as exc:
        yield tuple(exc.absolute_path), exc.message[:300]
        return
    refused = False
    for path, message in _refusals(schema):
        refused = True
        yield path, message
    if not refused and (endless := extent.fault(schema)):
        yield (), endless


def _refusals(schema: dict[str, Any]) -> Iterator[Fault]:
    stack: list[tuple[tuple[str | int, ...], Any, bool]] = [((), schema, False)]
    while stack:
        path, item, names = stack.pop()  # names: the keys are names of properties or schemas, and no keywords
        if isinstance(item, list):
            stack.extend(((*path, index), child, False) for index, child in enumerate(item))
        elif isinstance(item, dict):
            for key, child in item.items():
                if not names and (message := _refusal(schema, item, key)):
                    yield (*path, key), message
                if names or key not in VALUES:
                    stack.append(((*path, key), child, not names and key in NAMED))


def _refusal(schema: dict[str, Any], item: dict[str, Any], key: str) -> str | None:
    if key in _REGULAR_EXPRESSIONS:
        return f"`{key}` is not supported in the schema of an answer; list the values with `enum` instead"
    if key in _BASES and item is not schema:
        return f"`{key}` is only supported at the root of a schema, for it changes what references mean"
    if key in REFERENCES and extent.target(schema, item[key]) is None:
        return f"`{key}` leads to no schema; it may name a place of this schema, such as #/$defs/name"
    return None
