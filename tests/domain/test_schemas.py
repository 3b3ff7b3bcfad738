from __future__ import annotations

from typing import Any

import pytest

from dagbok.domain.schemas import faults

EVIL = {"pattern": "^(a+)+$"}
TREE = {"type": "object", "properties": {"below": {"type": "array", "items": {"$ref": "#"}}}}


def doubling(times: int, **wrap: str) -> dict[str, Any]:
    """Return a schema of `times` definitions, each of which refers twice to the next."""
    definitions: dict[str, Any] = {str(times): {"type": "string"}}
    for n in range(times):
        twice: dict[str, Any] = {"allOf": [{"$ref": f"#/$defs/{n + 1}"}, {"$ref": f"#/$defs/{n + 1}"}]}
        definitions[str(n)] = {wrap["below"]: twice} if wrap else twice
    return {"$defs": definitions, "$ref": "#/$defs/0"}


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#/default", "default": EVIL},
        {"$ref": "#/const", "const": EVIL},
        {"$ref": "#/enum/0", "enum": [EVIL]},
        {"$ref": "#/examples/0", "examples": [EVIL]},
        {"$dynamicRef": "#/default", "default": EVIL},
        {"$ref": "#/%64efault", "%64efault": {}, "default": EVIL},
        {"$ref": "#/properties/a/default", "properties": {"a": {"default": EVIL}}},
        {"$ref": "#/properties", "properties": {"minimum": {}}},
        {"$ref": "#/$defs/a%2Fb", "$defs": {"a/b": {}}},
        {"$ref": "#a", "$defs": {"a": {"$anchor": "a"}}},
        {"$ref": "#/required/0", "required": ["a"]},
    ],
)
def test_a_reference_leads_to_a_schema_that_was_looked_at(schema: dict[str, Any]) -> None:
    assert ["leads to no schema" in message for _, message in faults(schema)] == [True]


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#/properties/default", "properties": {"default": {"type": "string"}}},
        {"$ref": "#/$defs/a~1b", "$defs": {"a/b": {}}},
        {"items": {"$ref": "#/allOf/0/not"}, "allOf": [{"not": {"type": "string"}}]},
        {"$ref": "#/$defs/%C3%A9", "$defs": {"é": {}}},
        {"$id": "urn:a", "$schema": "https://json-schema.org/draft/2020-12/schema"},
        {"properties": {"$id": {"type": "string"}, "$schema": {"type": "string"}}},
        TREE,
        {"$defs": {"e": {"anyOf": [{"type": "null"}, {"properties": {"l": {"$ref": "#/$defs/e"}}}]}},
         "$ref": "#/$defs/e"},
        doubling(8),
    ],
)  # fmt: skip
def test_an_honest_schema_is_taken(schema: dict[str, Any]) -> None:
    assert not list(faults(schema))


@pytest.mark.parametrize("key", ["$id", "$schema"])
def test_only_the_root_says_what_references_and_keywords_mean(key: str) -> None:
    inner = {key: "http://json-schema.org/draft-04/schema#"}
    assert [path for path, _ in faults({"properties": {"a": inner}})] == [("properties", "a", key)]


@pytest.mark.parametrize("schema", [doubling(20), doubling(20, below="items"), doubling(20, below="not")])
def test_references_that_multiply_a_schema_are_refused(schema: dict[str, Any]) -> None:
    assert [message for _, message in faults(schema)] == ["its references make more than 10,000 schemas of it"]


def test_a_long_chain_of_references_is_refused() -> None:
    chain = {"$defs": {str(n): {"$ref": f"#/$defs/{n + 1}"} for n in range(2_000)} | {"2000": {}}, "$ref": "#/$defs/0"}
    assert ["nests deeper" in message for _, message in faults(chain)] == [True]


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"allOf": [{"$ref": "#"}]},
        {"oneOf": [{"$ref": "#"}]},
        {"anyOf": [{"$ref": "#"}, {"$ref": "#"}]},
        {"not": {"$ref": "#"}},
        {"if": {}, "then": {"$ref": "#"}},
        {"if": {"$ref": "#"}},
        {"if": {}, "else": {"$ref": "#"}},
        {"dependentSchemas": {"a": {"$ref": "#"}}},
        {"properties": {"a": {"$ref": "#/$defs/a"}}, "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
    ],
)
def test_a_schema_that_turns_in_circles_is_refused(schema: dict[str, Any]) -> None:
    assert ["it has no end" in message for _, message in faults(schema)] == [True]
