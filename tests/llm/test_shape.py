from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart

from dagbok.domain.schemas import of_expected
from dagbok.errors import BadInput, Misconfigured, ToolError
from dagbok.llm import shape
from dagbok.llm.prompts import inference_prompt
from dagbok.llm.shape import Shape
from llm.calls import inference, inference_call

OBJECT = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


def text(answer: str) -> ModelResponse:
    return ModelResponse([TextPart(answer)])


@pytest.mark.parametrize(
    "expected",
    [
        OBJECT,
        {"type": ["string", "null"]},
        {"properties": {"a": {}}},
        {"$ref": "#/$defs/a", "$defs": {"a": {}}},
        {"anyOf": [{"type": "string"}]},
        {"$schema": "https://json-schema.org/draft/2020-12/schema"},
        '  {"type": "array"}\n',
    ],
)
def test_an_expected_output_that_is_a_schema_is_taken_for_one(expected: Any) -> None:
    assert isinstance(of_expected(expected), dict)


@pytest.mark.parametrize(
    "expected",
    ["", "Three sentences", "{a list of names}", '{"type": 3}', '["type"]', {}, {"type": "report", "pages": 3},
     {"type": []}, {"properties": {"a": "its name"}}, {"properties": "three"}, {"anyOf": []}, {"anyOf": ["a", "b"]},
     {"title": "string", "summary": "string"}],
)  # fmt: skip
def test_an_expected_output_that_is_a_description_stays_one(expected: Any) -> None:
    assert of_expected(expected) is None


def test_a_schema_in_the_params_goes_before_one_that_is_expected() -> None:
    assert shape.of(inference_call({"prompt": "Go"})) is None
    expected = shape.of(inference_call({"prompt": "Go"}, expected={"type": "array"}))
    given = shape.of(inference_call({"prompt": "Go", "output_schema": OBJECT}, expected={"type": "array"}))
    assert expected is not None
    assert given is not None
    assert (expected.schema, given.schema) == ({"type": "array"}, OBJECT)


def test_the_prompt_does_not_repeat_a_schema_that_is_sent_as_one() -> None:
    assert "integer" not in inference_prompt(inference_call({"prompt": "Go", "output_schema": OBJECT}), 20_000).text
    assert "<expected_output>" not in inference_prompt(inference_call({"prompt": "Go"}, expected=OBJECT), 20_000).text
    both = inference_call({"prompt": "Go", "output_schema": OBJECT}, expected="The number")
    assert "<expected_output>\nThe number" in inference_prompt(both, 20_000).text


@pytest.mark.parametrize(
    ("schema", "pointer"),
    [
        ({"type": "strange"}, "/output_schema/type"),
        ({"type": "string", "pattern": "(a+)+$"}, "/output_schema/pattern"),
        ({"type": "object", "patternProperties": {"^a": {}}}, "/output_schema/patternProperties"),
        ({"$ref": "https://example.com/schema"}, "/output_schema/$ref"),
        ({"type": "object", "properties": {"a": {"$ref": "#/$defs/b"}}}, "/output_schema/properties/a/$ref"),
        ("a number", "/output_schema"),
    ],
)
def test_a_schema_that_cannot_be_used_is_refused_with_its_place(schema: Any, pointer: str) -> None:
    with pytest.raises(BadInput) as caught:
        shape.of(inference_call({"prompt": "Go", "output_schema": schema}))
    assert caught.value.pointer == pointer


def test_what_is_sent_has_an_object_at_its_root_and_references_that_lead_somewhere() -> None:
    tree = {"type": "array", "items": {"$ref": "#"}, "$schema": "https://json-schema.org/draft/2020-12/schema"}
    sent = Shape(tree).parameters.output_object
    assert sent is not None
    assert sent.json_schema == {
        "type": "object",
        "properties": {"answer": {"type": "array", "items": {"$ref": "#/properties/answer"}}},
        "required": ["answer"],
        "additionalProperties": False,
    }
    named = Shape({"anyOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"enum": [{"$ref": "#/x"}]}}}).parameters
    assert named.output_tools[0].parameters_json_schema["properties"]["answer"] == {
        "anyOf": [{"$ref": "#/properties/answer/$defs/a"}],
        "$defs": {"a": {"enum": [{"$ref": "#/x"}]}},  # a value and no reference
    }
    unchanged = Shape(OBJECT).parameters.output_object
    assert unchanged is not None
    assert unchanged.json_schema == OBJECT


def test_a_property_called_like_a_keyword_is_no_reference() -> None:
    schema = {"type": ["object"], "properties": {"$ref": {"type": "string"}, "enum": {"$ref": "#/$defs/a"}}}
    sent = Shape(schema | {"$defs": {"a": {}}}).parameters.output_tools[0].parameters_json_schema
    properties = sent["properties"]["answer"]["properties"]
    assert properties == {"$ref": {"type": "string"}, "enum": {"$ref": "#/properties/answer/$defs/a"}}


def test_a_tree_is_read_through_its_own_references() -> None:
    tree = Shape({"type": "array", "items": {"$ref": "#"}})
    assert tree.value(text('{"answer": [[], [[]]]}')) == [[], [[]]]
    with pytest.raises(ToolError, match="/answer/1/0: 3 is not of type 'array'"):
        tree.value(text('{"answer": [[], [3]]}'))


@pytest.mark.parametrize("answer", ['{"n": 1}', '```json\n{"n": 1}\n```', ' ```\n{"n": 1}\n``` ', ' {"n":1} '])
def test_an_answer_in_a_fence_is_read(answer: str) -> None:
    assert Shape(OBJECT).value(text(answer)) == {"n": 1}


def test_the_call_of_a_tool_goes_before_the_words_around_it() -> None:
    response = ModelResponse([TextPart("Here it is:"), ToolCallPart("final_result", '{"n": 2}')])
    assert Shape(OBJECT).value(response) == {"n": 2}


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("", "not JSON"),
        ("I cannot.", "not JSON"),
        ('{"n": 1', "not JSON"),
        ("[1]", "the answer: \\[1\\] is not of type 'object'"),
        ('{"n": 1e999}', "/n"),
        ('{"n": 1, "m": "\\ud800"}', "lone surrogate"),
        ('{"n": 1, "m": "\\u0000"}', "NUL"),
        ('{"n": 99999999999999999999}', "64 bits"),
        ("[" * 100_000, "deeper"),
    ],
)
def test_an_answer_that_is_no_value_of_the_shape_is_refused(answer: str, said: str) -> None:
    with pytest.raises(ToolError, match=said) as caught:
        Shape(OBJECT).value(text(answer))
    assert caught.value.code == "invalid_output"


def test_only_the_first_misfits_are_named() -> None:
    with pytest.raises(ToolError) as caught:
        Shape({"type": "array", "items": {"type": "string"}}).value(text('{"answer": [1, 2, 3, 4, 5, 6, 7]}'))
    assert caught.value.message.count("is not of type") == 5
    assert caught.value.message.endswith("; and more")


def test_the_offline_model_says_that_it_only_quotes() -> None:
    for call in (
        inference_call({"prompt": "Go", "output_schema": OBJECT}),
        inference_call({"prompt": "Go"}, expected=OBJECT),
    ):
        with pytest.raises(Misconfigured, match="DAGBOK_MODEL=openai:gpt-5"):
            asyncio.run(inference()(call))
