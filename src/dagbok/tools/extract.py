"""`extract_json`: one part of a JSON value, by a JMESPath expression."""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import Field

from dagbok.domain import expressions, values
from dagbok.domain.values import Json
from dagbok.errors import BadInput, BadReference, TooLarge, ToolError
from dagbok.tools.decorator import tool

MAX_CHARS: Final = 32 * 2**20  # of JSON given as text

_FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})[^\n`]*\n(.*?)^[ \t]*\1[`~]*[ \t]*$", re.MULTILINE | re.DOTALL)


@tool(effect="pure")
def extract_json(data: Json, expression: Annotated[str, Field(min_length=1, max_length=4096)]) -> Json:
    """Return a part of JSON data, chosen by a JMESPath expression.

    Args:
        data: JSON, or text that holds JSON, also inside a Markdown code fence.
        expression: JMESPath, such as `items[?price < `10`].name | [0]`.

    Returns:
        The value found; null when the expression matches nothing.
    """
    if isinstance(data, str):
        data = _parse(data)
    try:
        return expressions.search(expression, data)
    except TooLarge as exc:
        raise ToolError(exc.message, code="too_large") from exc
    except BadReference as exc:
        raise ToolError(exc.message, code="invalid_input") from exc


def _parse(text: str) -> Json:
    if len(text) > MAX_CHARS:
        raise ToolError(f"The text has {len(text):,} characters; at most {MAX_CHARS:,} are read.", code="too_large")
    try:
        return values.parse(text)
    except BadInput as exc:
        fault = exc
    for fence in _FENCE.finditer(text):
        try:
            return values.parse(fence[2])
        except BadInput as exc:
            fault = exc
    raise ToolError(f"The data is text that holds no JSON: {fault.message}", code="invalid_input") from fault
