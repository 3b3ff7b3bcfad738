"""JMESPath expressions (https://jmespath.org/specification.html), evaluated within bounds.

An expression is written by a model and the data by anybody, so neither may exhaust memory. JMESPath has no loops, but
`[@, @]` names a value twice, and a chain of those doubles it with each link. Whatever an expression builds is therefore
weighed as it would be written out, and refused beyond the size of a result.
"""

from __future__ import annotations

from typing import Any, Final

import jmespath
from jmespath import functions
from jmespath.visitor import Options, TreeInterpreter

from dagbok.domain.values import Json
from dagbok.errors import BadReference, TooLarge

MAX_WEIGHT: Final = 32 * 2**20  # of anything an expression builds: a character weighs 1, a node `NODE`
NODE: Final = 8  # a pointer in memory; what a list of millions costs is not its text

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


def compile_path(expression: str) -> Any:
    """Return the parsed expression. Raises BadReference if it is no JMESPath."""
    try:
        return jmespath.compile(expression).parsed
    except (ValueError, RecursionError) as exc:  # JMESPathError is a ValueError; int() raises plain ones
        raise BadReference(f"{_short(expression)} is no JMESPath expression: {_reason(exc)}", path=expression) from exc


def search(expression: str, value: Json) -> Json:
    """Return what the expression finds in `value`; None when it matches nothing.

    Raises:
        BadReference: It is no JMESPath, or cannot be applied to this value.
        TooLarge: It builds more than `MAX_WEIGHT`.
    """
    parsed = compile_path(expression)
    try:
        return _Weighing().visit(parsed, value)
    except _TooHeavy:
        message = f"The expression {_short(expression)} builds a value that is too large."
        raise TooLarge(message, limit=MAX_WEIGHT) from None
    except RecursionError as exc:
        raise BadReference(f"The expression {_short(expression)} nests too deep.", path=expression) from exc
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as exc:
        # JMESPathError is a ValueError. The library does not check what arguments hold, so there are others.
        message = f"The expression {_short(expression)} cannot be applied: {_reason(exc)}"
        raise BadReference(message, path=expression) from exc


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


def _reason(exc: BaseException) -> str:
    return " ".join(str(exc).split())[:500]


def _short(expression: str) -> str:
    return repr(expression if len(expression) <= 200 else expression[:200] + "...")
