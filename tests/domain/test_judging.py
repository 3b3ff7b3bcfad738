from __future__ import annotations

from typing import Any

import pytest

from dagbok.domain import schemas
from dagbok.domain.judging import MOST_VALUES, misfits
from dagbok.errors import BadInput, TooLarge


@pytest.mark.parametrize(
    ("value", "fits"),
    [
        ([1, True, "1", None, 0, False, [], {}], True),
        ([1, 1.0], False),
        ([[1], [True]], True),
        ([{"a": 1, "b": 2}, {"b": 2.0, "a": 1}], False),
        ([{"a": [True]}, {"a": [1]}], True),
        ([[], []], False),
        ("aa", True),
    ],
)
def test_items_are_unique_as_json_has_it(value: Any, fits: bool) -> None:
    assert (not misfits({"uniqueItems": True}, value, 9)) is fits
    assert not misfits({"uniqueItems": False}, value, 9)


def test_many_unique_items_are_judged_one_by_one() -> None:
    """Each with each other would be a thousand million comparisons."""
    assert not misfits({"uniqueItems": True}, [{"a": n} for n in range(45_000)], 9)


def test_a_value_of_too_many_values_is_not_judged() -> None:
    assert not misfits({"type": "array"}, [[1, 2]] + [0] * (MOST_VALUES - 4), 9)
    with pytest.raises(TooLarge, match="more than 100,000 values") as caught:
        misfits({"type": "array"}, [[1, 2]] + [0] * (MOST_VALUES - 2), 9)
    assert caught.value.limit == MOST_VALUES


def nested(levels: int) -> Any:
    value: Any = {}
    for _ in range(levels):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"properties": {"a": {"allOf": [{"$ref": "#"}, {"$ref": "#"}]}}}, nested(40)),
        ({"items": {"enum": [f"no {n}" for n in range(1_000)] + [1]}}, [1] * 50_000),
        ({"unevaluatedProperties": False, "additionalProperties": True}, {str(n): n for n in range(3_000)}),
    ],
)
def test_judging_that_does_not_come_to_an_end_is_given_up(schema: dict[str, Any], value: Any) -> None:
    assert not list(schemas.faults(schema))
    with pytest.raises(TooLarge, match="more than 1,000,000 steps"):
        misfits(schema, value, 9)


def test_each_judgement_has_steps_of_its_own() -> None:
    for _ in range(3):
        assert not misfits({"items": {"type": "integer"}}, [1] * 99_000, 9)


@pytest.mark.parametrize("schema", [{"$ref": "#"}, {"$ref": "#/$defs/a"}, {"$ref": "urn:a"}, {"minimum": {"a": 1}}])
def test_a_schema_that_cannot_be_applied_is_told_so(schema: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="cannot be applied"):
        misfits(schema, 1, 9)


def test_the_root_does_not_change_the_draft_on_the_way() -> None:
    schema = {"$schema": "http://json-schema.org/draft-07/schema#", "prefixItems": [{"type": "string"}]}
    assert misfits(schema | {"properties": {"a": {"$ref": "#"}}}, {"a": [1]}, 9)
