"""How what is wrong with JSON from outside is said: what it has to be, in words that need no knowledge of Python.

And which known word one that is not known was meant to be; and how a time is written.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

#: Of the message of an error, as rows keep it.
MESSAGE_CHARS: Final = 4_000

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


def iso(time_ms: int) -> str:
    """Return UTC milliseconds since 1970 as ISO 8601."""
    seconds, milliseconds = divmod(time_ms, 1000)
    return f"{_second(seconds)}.{milliseconds:03d}Z"


@lru_cache(1024)  # the times of one execution, of a burst of lines, of a page are mostly of few seconds
def _second(time_s: int) -> str:
    return datetime.fromtimestamp(time_s, UTC).replace(tzinfo=None).isoformat()


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


def also(message: str, more: str) -> str:
    """Return the message of an error with a sentence more, of which nothing is cut off."""
    room = MESSAGE_CHARS - len(more) - 2
    message = message if len(message) <= room else f"{message[: room - 1]}…"
    return f"{message}{'' if message.endswith(('.', '!', '?', '…')) else '.'} {more}"


def nearest(word: str, known: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """Return the word of `known`, all in snake_case, that `word` looks like, however it is written: `maxAttempts` too.

    Costs up to a millisecond for a hundred of them. `cutoff`: from 0, anything, to 1, the same but for capitals.
    """
    if len(word) > 100:
        return None
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[\s-]+", "_", word).lower()
    return next(iter(difflib.get_close_matches(snake, list(known), n=1, cutoff=cutoff)), None)
