"""`extract_json`: one part of a JSON value, by a JMESPath expression (https://jmespath.org/specification.html).

The expression is written by a model and the data by anybody, so neither may exhaust memory. JMESPath has no loops, but
`[@, @]` names a value twice, and a chain of those doubles it with each link. Whatever an expression builds is therefore
weighed as it would be written out, and refused beyond the size of a result.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

import jmespath
from jmespath import functions
from jmespath.exceptions import JMESPathError
from jmespath.visitor import Options, TreeInterpreter
from pydantic import Field

from dagbok.domain import values
from dagbok.domain.values import Json
from dagbok.errors import BadInput, ToolError
from dagbok.tools.decorator import tool

MAX_CHARS = 32 * 2**20  # of JSON given as text
MAX_WEIGHT = 32 * 2**20  # of anything an expression builds: a character weighs 1, a node `NODE`
NODE = 8  # a pointer in memory; what a list of millions costs is not its text

_FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})[^\n`]*\n(.*?)^[ \t]*\1[`~]*[ \t]*$", re.MULTILINE | re.DOTALL)

#: The parts of an expression that can build more than they were given.
_BUILDERS: Final = frozenset(
    {
        "multi_select_list",
        "multi_select_dict",
        "function_expression",
        "projection",
        "value_projection",
        "filter_projection",
    }
)


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
        return _Weighing().visit(jmespath.compile(expression).parsed, data)
    except _TooHeavy:
        raise ToolError(
            f"The expression {_short(expression)} builds a value that is too large.", code="too_large"
        ) from None
    except RecursionError as exc:
        raise ToolError(f"The expression {_short(expression)} nests too deep.", code="invalid_input") from exc
    except (JMESPathError, ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as exc:
        # The library does not check what arguments hold; some of that surfaces as a fault of its own.
        reason = " ".join(str(exc).split())[:500]
        raise ToolError(f"The expression {_short(expression)} cannot be used: {reason}", code="invalid_input") from exc


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


class _TooHeavy(Exception):
    """The expression builds more than a result may hold."""


class _Functions(functions.Functions):  # type: ignore[misc]  # jmespath has no types
    # The one function whose result may be larger than its arguments together.
    @functions.signature({"types": ["string"]}, {"types": ["array-string"]})  # type: ignore[untyped-decorator]  # as above
    def _func_join(self, separator: str, array: list[str]) -> str:
        if len(separator) * len(array) > MAX_WEIGHT:
            raise _TooHeavy
        return separator.join(array)


class _Weighing(TreeInterpreter):  # type: ignore[misc]  # jmespath has no types
    """Evaluates one expression and weighs what it builds."""

    def __init__(self) -> None:
        super().__init__(Options(custom_functions=_Functions()))
        # By identity, which is why each value is kept beside its weight: a value that is freed lends its id to another.
        self._weights: dict[int, tuple[object, int]] = {}

    def visit(self, node: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        result = super().visit(node, *args, **kwargs)
        if node["type"] in _BUILDERS and self._weigh(result) > MAX_WEIGHT:
            raise _TooHeavy
        return result

    def _weigh(self, value: object) -> int:
        """Return the weight of `value` as if written out: each shared part as often as it is named."""
        stack = [value]
        while stack:
            item = stack[-1]
            if not isinstance(item, list | dict) or id(item) in self._weights:
                stack.pop()
                continue
            children = list(item.values()) if isinstance(item, dict) else item
            unknown = [child for child in children if isinstance(child, list | dict) and id(child) not in self._weights]
            if unknown:
                stack.extend(unknown)
                continue
            weight = NODE + sum(map(self._weight, children))
            self._weights[id(item)] = (item, weight + (sum(map(len, item)) if isinstance(item, dict) else 0))
            stack.pop()
        return self._weight(value)

    def _weight(self, value: object) -> int:
        if isinstance(value, str):
            return NODE + len(value)
        return self._weights[id(value)][1] if isinstance(value, list | dict) else NODE


def _short(expression: str) -> str:
    return repr(expression if len(expression) <= 200 else expression[:200] + "...")
