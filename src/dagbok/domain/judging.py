"""Judging a value by the JSON Schema that came with a plan, in bounded work.

Neither the schema nor the value is to be trusted: a recursion that branches multiplies with each level of the value,
and long values with long schemas. So each keyword that is applied costs steps of a budget, and `uniqueItems` compares
hashes where jsonschema compares each item with each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextvars import ContextVar
from itertools import islice
from typing import Any, Final

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend
from referencing import Registry

from dagbok.domain.values import Json
from dagbok.errors import BadInput, TooLarge

#: Values within one value, keys not counted.
MOST_VALUES: Final = 100_000
#: Keywords applied to values, each with what its list, or its comparisons, cost.
MOST_STEPS: Final = 1_000_000
_LONGEST = 300  # characters of an error's words; some hold all of the value

_Keyword = Callable[[Any, Any, Any, Any], Iterator[ValidationError] | None]
_left: ContextVar[list[int]] = ContextVar("steps that are left")


def misfits(schema: dict[str, Any], value: Json, most: int, *, steps: int = MOST_STEPS) -> list[ValidationError]:
    """Return the first `most` places where `value` is not as `schema` says; none: it fits.

    Raises:
        BadInput: The schema cannot be applied to this value.
        TooLarge: The value holds more than `MOST_VALUES`, or judging it takes more than so many `steps`.
    """
    if _holds_more(value, MOST_VALUES):
        raise TooLarge(
            f"The answer holds more than {MOST_VALUES:,} values; that is too much to judge by a schema.",
            limit=MOST_VALUES,
        )
    before = _left.set([steps])
    try:
        # Without its `$schema`: a reference to the root would go on with the keywords of another draft. An empty
        # registry: a reference into the net must not make a check of data open a connection.
        rules = {key: child for key, child in schema.items() if key != "$schema"}
        return list(islice(_Validator(rules, registry=Registry()).iter_errors(value), most))
    except TooLarge:
        raise
    except Exception as exc:  # a reference into nothing, one to what is no schema, recursion
        why = f"{type(exc).__name__}: {exc}"[:_LONGEST]
        raise BadInput(f"The schema of the answer cannot be applied: {why}.") from exc
    finally:
        _left.reset(before)


def _holds_more(value: Json, most: int) -> bool:
    stack: list[Any] = [value]
    seen = 1
    while stack:
        item = stack.pop()
        if isinstance(item, dict | list):
            seen += len(item)
            if seen > most:
                return True
            stack.extend(item.values() if isinstance(item, dict) else item)
    return False


def _unique_items(_validator: Any, wanted: Any, instance: Any, _schema: Any) -> Iterator[ValidationError]:
    if wanted and isinstance(instance, list) and len(set(map(_hashable, instance))) < len(instance):
        yield ValidationError("it has items that are equal")


def _hashable(value: Any) -> object:
    """Return what is equal for values that JSON Schema calls equal: 1 and 1.0, but not 1 and true."""
    if isinstance(value, dict):
        return frozenset((key, _hashable(child)) for key, child in value.items())
    if isinstance(value, list):
        return tuple(map(_hashable, value))
    return (bool, value) if isinstance(value, bool) else value


def _counted(name: str, keyword: _Keyword) -> _Keyword:
    def apply(validator: Any, wanted: Any, instance: Any, schema: Any) -> Iterator[ValidationError] | None:
        steps = 1 + (len(wanted) if isinstance(wanted, list | dict) else 0)
        if name.startswith("unevaluated") and isinstance(instance, list | dict):
            steps += len(instance) ** 2  # jsonschema looks each up in a list of those that were evaluated
        left = _left.get()
        left[0] -= steps
        if left[0] < 0:
            raise TooLarge(
                f"Judging the answer by its schema takes more than {MOST_STEPS:,} steps; make the schema simpler, or "
                "the answer shorter.",
                limit=MOST_STEPS,
            )
        return keyword(validator, wanted, instance, schema)

    return apply


_KEYWORDS: dict[str, _Keyword] = {**Draft202012Validator.VALIDATORS, "uniqueItems": _unique_items}
_Validator = extend(Draft202012Validator, {name: _counted(name, keyword) for name, keyword in _KEYWORDS.items()})
