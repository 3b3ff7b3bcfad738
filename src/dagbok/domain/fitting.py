"""Whether a value surely fits a JSON Schema: the quick answer for the params of nearly every sub-task.

jsonschema tells what is wrong, and where, at 4 to 100 µs for the params of one call; a plan has thousands of calls that
are right. So a schema becomes one function that knows what the schemas of tools consist of. What it says yes to fits,
by Draft 2020-12, a schema whose references end: of an `anyOf` one branch that fits is enough, where jsonschema would
fail at a reference to nowhere in one before it. Where it says no, nobody knows, and jsonschema is asked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from dagbok.domain.values import Json

Fits = Callable[[Json], bool]


def compiled(schema: Mapping[str, Any]) -> Fits:
    """Return `compile(schema)`, made once for a schema that never changes, such as a tool's."""
    found = _made.get(id(schema))
    if found is None:
        if len(_made) >= _MOST_MADE:
            _made.clear()
        found = _made[id(schema)] = (schema, compile(schema))
    return found[1]


def compile(schema: Json) -> Fits:
    """Return what says whether a value surely fits `schema`. Never fails: of a schema that is none it says no."""
    try:
        return _compile(schema)
    except Exception:  # a pattern that is no regex, a number that is none: jsonschema has words for it
        return _never


def _compile(schema: Json) -> Fits:
    if schema is True:
        return _always
    if not isinstance(schema, Mapping):
        return _never
    rules = {keyword: wanted for keyword, wanted in schema.items() if keyword not in _NOTES}
    kind = rules.get("type")
    if kind == "object" and rules.keys() <= _OF_OBJECTS:
        return _object(rules)
    if not rules.keys() <= _TESTS.keys():
        return _never
    tests = [_TESTS[keyword](wanted) for keyword, wanted in rules.items()]
    return _all(tests)


def _object(rules: Mapping[str, Any]) -> Fits:
    known = {name: _compile(child) for name, child in rules.get("properties", {}).items()}
    other = _compile(rules.get("additionalProperties", True))
    required = frozenset(rules.get("required", ()))

    def fits(value: Json) -> bool:
        if type(value) is not dict or not required <= value.keys():
            return False
        return all(known.get(name, other)(child) for name, child in value.items()) if value else True

    return fits


def _always(_value: Json) -> bool:
    return True


def _never(_value: Json) -> bool:
    return False


def _all(tests: list[Fits]) -> Fits:
    if len(tests) == 1:
        return tests[0]
    return lambda value: all(test(value) for test in tests)


def _any(schemas: list[Json]) -> Fits:
    tests = [_compile(schema) for schema in schemas]
    return lambda value: any(test(value) for test in tests)


def _type(wanted: Json) -> Fits:
    # Exactly these: a bool is an int to Python, and 1.0 an integer to JSON Schema, which is left to jsonschema.
    kinds = frozenset(kind for name in ([wanted] if isinstance(wanted, str) else wanted) for kind in _KINDS[name])
    return lambda value: type(value) in kinds


def _enum(wanted: list[Json]) -> Fits:
    texts = frozenset(word for word in wanted if type(word) is str)
    return lambda value: type(value) is str and value in texts


def _items(wanted: Json) -> Fits:
    item = _compile(wanted)
    return lambda value: type(value) is not list or all(map(item, value))


def _pattern(wanted: str) -> Fits:
    search = re.compile(wanted).search
    return lambda value: type(value) is not str or search(value) is not None


def _of(kinds: frozenset[type], test: Callable[[Any, Any], bool]) -> Callable[[Any], Fits]:
    """Return what makes a test out of a bound: of values of these types alone, and with a number as the bound."""

    def make(bound: Any) -> Fits:
        bound + 0  # a TypeError where it is none
        return lambda value: type(value) not in kinds or test(value, bound)

    return make


_KINDS: Final[Mapping[str, tuple[type, ...]]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "null": (type(None),),
}
#: By identity, with the schema, so that no other has it: a large one takes as long as a check by jsonschema.
_made: dict[int, tuple[Mapping[str, Any], Fits]] = {}
_MOST_MADE: Final = 1_000

_NUMBERS: Final = frozenset({int, float})
_STRINGS: Final = frozenset({str})
_LISTS: Final = frozenset({list})
_TESTS: Final[Mapping[str, Callable[[Any], Fits]]] = {
    "type": _type,
    "enum": _enum,
    "anyOf": _any,
    "items": _items,
    "pattern": _pattern,
    "minimum": _of(_NUMBERS, lambda value, bound: value >= bound),
    "maximum": _of(_NUMBERS, lambda value, bound: value <= bound),
    "exclusiveMinimum": _of(_NUMBERS, lambda value, bound: value > bound),
    "exclusiveMaximum": _of(_NUMBERS, lambda value, bound: value < bound),
    "minLength": _of(_STRINGS, lambda value, bound: len(value) >= bound),
    "maxLength": _of(_STRINGS, lambda value, bound: len(value) <= bound),
    "minItems": _of(_LISTS, lambda value, bound: len(value) >= bound),
    "maxItems": _of(_LISTS, lambda value, bound: len(value) <= bound),
}
_OF_OBJECTS: Final = frozenset({"type", "properties", "required", "additionalProperties"})
#: What says nothing about a value; `format` neither, as Draft 2020-12 has it and jsonschema applies it.
_NOTES: Final = frozenset(
    {
        "title",
        "description",
        "default",
        "examples",
        "format",
        "deprecated",
        "readOnly",
        "writeOnly",
        "$comment",
        "$defs",
    }
)
