"""How what is wrong with JSON from outside is said: what it has to be, in words that need no knowledge of Python."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

#: Types of Pydantic's findings whose own words name classes, or the way in which something was converted.
_KINDS: Final[Mapping[str, str]] = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "dict_type": "a JSON object",
    "float_parsing": "a number",
    "float_type": "a number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "list_type": "a list",
    "model_attributes_type": "a JSON object",
    "model_type": "a JSON object",
    "string_type": "a string",
}
_STARTS: Final = (("Input should be ", "has to be "), ("String should ", "has to "), ("List should ", "has to "))


def said(error: Mapping[str, Any]) -> str:
    """Return a finding of Pydantic as the rest of a sentence that begins with the name: "has to be a JSON object"."""
    kind, message = str(error["type"]), str(error["msg"])
    if kind in _KINDS:
        return f"has to be {_KINDS[kind]}"
    if kind == "extra_forbidden":
        return "is not known here"
    if kind == "missing":
        return "is required"
    for start, ours in _STARTS:
        if message.startswith(start):
            return ours + message.removeprefix(start)
    return f"cannot be used: {message}"
