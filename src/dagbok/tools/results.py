"""What a tool returned, made JSON: models, dataclasses, times, UUIDs, paths, sets, enums and their like become values.

What JSON cannot say (NaN, huge integers) is left as it is: the engine encodes the value once, and names the place.
"""

from __future__ import annotations

import inspect
from typing import Final

import pydantic_core

from dagbok.domain.call import Reply
from dagbok.domain.values import Json
from dagbok.errors import ToolError

#: Types that are done as they are: the hot path is one look-up.
AS_IS: Final[frozenset[type]] = frozenset({type(None), bool, int, float, str, Reply})


def as_json(value: object, *, tool: str) -> Json:
    """Return `value` as JSON; a plain scalar and a `Reply` are returned untouched.

    Raises:
        ToolError: `not_json`; the message names the type that cannot be converted.
    """
    kind = type(value)
    if kind in AS_IS:
        return value
    if inspect.isgenerator(value) or inspect.isasyncgen(value):
        # It may never end, so it is not exhausted here.
        raise ToolError(f"The tool {tool!r} returned a generator, which is not JSON; return a list.", code="not_json")
    try:
        return pydantic_core.to_jsonable_python(value)
    except (ValueError, TypeError, RecursionError) as exc:
        reason = str(exc).splitlines()[0] if str(exc) else type(exc).__name__
        message = f"The tool {tool!r} returned a {kind.__name__} that is not JSON: {reason}."
        raise ToolError(message, code="not_json") from exc
