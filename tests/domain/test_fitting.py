"""What `fitting` says yes to fits; what tools are usually given, it says yes to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from dagbok.app import make_registry
from dagbok.domain import fitting
from dagbok.settings import Settings
from strategies import json_values

names = st.sampled_from(["a", "b", "c"])
numbers = st.integers(-3, 3) | st.sampled_from([0.5, 1.0, -2.0])
leaves: st.SearchStrategy[Any] = st.none() | st.booleans() | numbers | st.text("ab", max_size=4)
few_values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=3), max_leaves=8
)
kinds = st.sampled_from(["object", "array", "string", "number", "integer", "boolean", "null"])


def bounded(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    sizes = st.integers(0, 4)
    return st.booleans() | st.fixed_dictionaries(
        {},
        optional={
            "type": kinds | st.lists(kinds, min_size=1, max_size=3, unique=True),
            "properties": st.dictionaries(names, inner, max_size=3),
            "required": st.lists(names, max_size=2),
            "additionalProperties": inner,
            "items": inner,
            "anyOf": st.lists(inner, min_size=1, max_size=3),
            "oneOf": st.lists(inner, min_size=1, max_size=2),
            "enum": st.lists(leaves, min_size=1, max_size=3),
            "const": leaves,
            "pattern": st.sampled_from(["a", "^b", "b$"]),
            "title": st.just("x"),
            "format": st.just("date"),
            **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), numbers),
            **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems"), sizes),
        },
    )


schemas: st.SearchStrategy[Any] = st.recursive(st.just({}), bounded, max_leaves=6)


@given(schemas, few_values)
@example({"type": "integer"}, True)
@example({"enum": [1]}, True)
@example({"type": "number", "minimum": 1}, True)
def test_what_surely_fits_fits(schema: Any, value: Any) -> None:
    if fitting.compile(schema)(value):
        assert Draft202012Validator(schema).is_valid(value)


#: A schema, a value that fits, one that does not: of each keyword the one that only it refuses.
CASES: list[tuple[Any, Any, Any]] = [
    ({"type": "string"}, "", None),
    ({"type": ["string", "null"]}, None, 1),
    ({"type": "integer"}, 2, True),
    ({"type": "number"}, 2.5, True),
    ({"type": "boolean"}, True, 1),
    ({"type": "array"}, [], {}),
    ({"type": "object", "required": ["a"]}, {"a": 1}, {"b": 1}),
    ({"type": "object", "properties": {"a": {"type": "string"}}}, {"a": "", "b": 1}, {"a": 1}),
    ({"type": "object", "properties": {"a": {}}, "additionalProperties": False}, {"a": 1}, {"b": 1}),
    ({"type": "object", "additionalProperties": {"type": "string"}}, {"a": ""}, {"a": 1}),
    ({"type": "object", "additionalProperties": False}, {}, []),
    ({"items": {"type": "string"}}, ["a"], ["a", 1]),
    ({"anyOf": [{"type": "string"}, {"type": "null"}]}, None, 1),
    ({"enum": ["a", 1]}, "a", "b"),
    ({"pattern": "^a"}, "ab", "ba"),
    ({"minimum": 1}, 1, 0),
    ({"maximum": 1}, 1, 2),
    ({"exclusiveMinimum": 1}, 2, 1),
    ({"exclusiveMaximum": 1}, 0, 1),
    ({"minLength": 1}, "a", ""),
    ({"maxLength": 1}, "a", "ab"),
    ({"minItems": 1}, [1], []),
    ({"maxItems": 1}, [1], [1, 2]),
    (True, 1, ...),
    ({}, 1, ...),
]


@pytest.mark.parametrize(("schema", "good", "bad"), CASES, ids=str)
def test_each_keyword_that_is_known_decides(schema: Any, good: Any, bad: Any) -> None:
    fits = fitting.compile(schema)
    assert fits(good)
    assert bad is ... or not fits(bad)


@pytest.mark.parametrize(
    "schema",
    [
        False, None, "object", {"type": "thing"}, {"type": 5}, {"pattern": "("}, {"minimum": "1"}, {"minItems": None},
        {"$ref": "#/$defs/a", "$defs": {"a": True}}, {"not": {}}, {"properties": 5}, {"type": "object", "required": 5},
    ],
    ids=str,
)  # fmt: skip
def test_of_what_is_not_understood_nothing_is_sure(schema: Any) -> None:
    for value in (None, True, 1, "a", [], [1], {}, {"a": 1}):
        assert not fitting.compile(schema)(value)


@given(json_values)
def test_any_value_is_judged(value: Any) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string", "maxLength": 3}}, "additionalProperties": {}}
    assert fitting.compile(schema)(value) == Draft202012Validator(schema).is_valid(value)


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("extract_json", {"data": "<Result from Task 1>", "expression": "items[0]"}),
        ("read_file", {"path": "a.txt"}),
        ("write_file", {"path": "a.txt", "content": {"a": [1]}}),
        ("list_files", {"pattern": "*", "limit": 10}),
        ("http_request", {"url": "https://a.b", "method": "POST", "json": {"a": 1}, "headers": {"x": "y"}}),
        ("fetch_url", {"url": "https://a.b"}),
        ("web_search", {"query": "a"}),
        ("wait", {"seconds": 5}),
        ("inference", {"prompt": "Sum up {{ tasks.1.result }}"}),
    ],
)
def test_the_usual_params_of_the_tools_that_ship_surely_fit(name: str, params: dict[str, Any], tmp_path: Path) -> None:
    """Otherwise nothing is wrong, but slow."""
    registry = make_registry(Settings(workspace=tmp_path))
    try:
        assert fitting.compile(registry.schemas()[name])(params)
    finally:
        registry.close()


def test_a_schema_is_compiled_once_and_stands_for_no_other() -> None:
    """By identity: a schema that is gone must not lend its place in memory to another one."""
    first = {"type": "string"}
    assert fitting.compiled(first) is fitting.compiled(first)
    for kind, good in (("string", "a"), ("integer", 1)) * 600:
        assert fitting.compiled({"type": kind})(good)
