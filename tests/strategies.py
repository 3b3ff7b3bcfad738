"""Hypothesis strategies that several tests share: JSON values, sound and odd, and plans."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import strategies as st

from dagbok.domain.values import MAX_INTEGER, MIN_INTEGER

#: Strings as every database stores them. The six characters `\\u0000`, written out, are an ordinary string.
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20) | st.sampled_from(
    ["\\u0000", "null", "\\", "<Result from Task 1>", "{{ tasks.1.result }}", "9" * 25, "\ufeff", "𝄞"]
)
_floats = st.floats(allow_nan=False, allow_infinity=False)
_integers = st.integers(MIN_INTEGER, MAX_INTEGER) | st.sampled_from([MIN_INTEGER, MAX_INTEGER, 10**18, 10**17])
_leaves = st.none() | st.booleans() | _integers | _floats | texts


def _nested(leaves: st.SearchStrategy[Any], keys: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4), max_leaves=12
    )


#: Any value as `dagbok.domain.values` defines it.
json_values = _nested(_leaves, texts)

_odd_leaves = st.sampled_from(
    [math.nan, math.inf, -math.inf, 2**70, 2**63, 2**64 - 1, 2**64, MIN_INTEGER - 1, "a\0b", "\ud800", "x\udfff", b"x"]
)
_odd_keys = st.sampled_from(["\0", "\udc00", 1, None, True, 1.5])

#: Values of which many, not all, break a rule somewhere.
odd_values = _nested(_leaves | _odd_leaves, texts | texts | _odd_keys)


@st.composite
def plans(draw: st.DrawFn, *, max_tasks: int = 12, human: bool = True) -> dict[str, Any]:
    """Plans that can run: random edges (dependency, reference, or both), policies, questions, a synthesis or none.

    Tools are `pure`, `idempotent` and `once`, for the effect of the same name. Sub-tasks come in any order.
    """
    count = draw(st.integers(1, max_tasks))
    tasks: list[dict[str, Any]] = []
    for position in range(count):
        above = draw(st.lists(st.integers(0, position - 1), unique=True, max_size=3)) if position else []
        asks = human and draw(st.integers(0, 4)) == 0
        params: dict[str, Any] = {"prompt": f"what is {position}?"} if asks else {"n": position}
        depends: list[str] = []
        for parent in above:
            how = draw(st.sampled_from(["dependency", "reference", "path", "both"]))
            if how in ("dependency", "both"):
                depends.append(f"t{parent}")
            if how in ("reference", "both"):
                params[f"of{parent}"] = f"<Result from Task t{parent}>"
            if how == "path":
                params[f"of{parent}"] = f"about {{{{ tasks.t{parent}.result.value }}}}"
        tasks.append(
            {
                "id": f"t{position}",
                "action_type": "human" if asks else "tool",
                "tool_or_prompt": {
                    "name": "human" if asks else draw(st.sampled_from(["pure", "idempotent", "once"])),
                    "params": params,
                },
                "dependencies": depends or draw(st.sampled_from([[], ["none"], "none", None])),
                "on_failure": draw(st.sampled_from(["fail", "fail", "skip", "default"])),
                "default": draw(st.sampled_from([None, {"value": "instead"}])),
            }
        )
    return {
        "original_request": "a random plan",
        "intent": {"primary": "test"},
        "sub_tasks": draw(st.permutations(tasks)),
        "synthesis_plan": draw(st.sampled_from(["", "put it together"])),
    }
