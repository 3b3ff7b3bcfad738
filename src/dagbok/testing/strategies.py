"""Hypothesis strategies: JSON values, and plans that can run, for laws that hold whatever an agent writes.

Needs `pip install 'dagbok[testing]'`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from hypothesis import strategies as st

from dagbok.domain.plan import HUMAN, INFERENCE
from dagbok.domain.values import MAX_INTEGER, MIN_INTEGER, Json

Params = st.SearchStrategy[dict[str, Json]]

#: Tools for the effect of the same name.
EFFECTS: Final = ("pure", "idempotent", "once")
POLICIES: Final = ("fail", "skip", "default")
ON_TIMEOUT: Final = (*POLICIES, "remind")
#: Of errors that may be tried again.
CODES: Final = ("timeout", "rate_limited", "unavailable", "tool_error")

_TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20) | st.sampled_from(
    ["\\u0000", "null", "\\", "<Result from Task 1>", "{{ tasks.1.result }}", "9" * 25, "\ufeff", "𝄞"]
)
_FLOATS = st.floats(allow_nan=False, allow_infinity=False)
_INTEGERS = st.integers(MIN_INTEGER, MAX_INTEGER) | st.sampled_from([MIN_INTEGER, MAX_INTEGER, 10**18, 10**17])
_VALUES: st.SearchStrategy[Json] = st.recursive(
    st.none() | st.booleans() | _INTEGERS | _FLOATS | _TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXTS, inner, max_size=4),
    max_leaves=12,
)


def texts() -> st.SearchStrategy[str]:
    """Strings that every database stores, those that look like references, escapes or numbers among them."""
    return _TEXTS


def json_values() -> st.SearchStrategy[Json]:
    """Any value that a diary holds, as `dagbok.domain.values` defines it: results, params, answers."""
    return _VALUES


def retry_policies(*, max_attempts: int = 4, max_backoff_seconds: int = 3600) -> Params:
    """Values for `retry` of a sub-task: up to `max_attempts`, with back-offs up to `max_backoff_seconds`."""
    return st.fixed_dictionaries(
        {"max_attempts": st.integers(1, max_attempts)},
        optional={
            "backoff_seconds": st.integers(0, max_backoff_seconds),
            "factor": st.sampled_from([1, 1.5, 2]),
            "max_backoff_seconds": st.just(max_backoff_seconds),
            "jitter": st.sampled_from([0, 0.5, 1]),
            "retry_on": st.lists(st.sampled_from(CODES), min_size=1, unique=True),
        },
    )


@st.composite
def plans(
    draw: st.DrawFn,
    *,
    min_tasks: int = 1,
    max_tasks: int = 12,
    tools: Sequence[str] | Mapping[str, Params] = EFFECTS,
    human: bool = True,
    inference: bool = False,
    synthesis: bool = True,
    policies: Sequence[str] = POLICIES,
    retries: Params | None = None,
    waits: st.SearchStrategy[float] | None = None,
    approvals: bool = False,
    answer_within: st.SearchStrategy[float] | None = None,
) -> dict[str, Any]:
    """Plans that can run: random edges (dependency, reference, or both), policies, a synthesis or none.

    Sub-tasks are called `t0`, `t1`, ... and come in any order; of two, only the later can depend on the other.

    Args:
        draw: Given by Hypothesis.
        min_tasks: The least number of sub-tasks.
        max_tasks: The largest.
        tools: Names to choose from, of tools that take any params, as a `ScriptedTool` does; by default `pure`,
            `idempotent` and `once`, for the effect of the same name. Or for each name the strategy of its params,
            which then hold no references.
        human: Whether some sub-tasks ask a person.
        inference: Whether some ask the model.
        synthesis: Whether some plans have a synthesis.
        policies: Words of `on_failure` to choose from.
        retries: The strategy of `retry`, such as `retry_policies()`. None: no plan has one.
        waits: The strategy of the seconds that some sub-tasks `wait`. None: none does.
        approvals: Whether some sub-tasks ask before they run.
        answer_within: The strategy of the seconds after which the time of some questions is over, or somebody is
            reminded. None: people have all the time.
    """
    tasks = []
    for position in range(draw(st.integers(min_tasks, max_tasks))):
        kinds = ["tool"] * 4 + ["human"] * human + ["inference"] * inference + ["wait"] * (waits is not None)
        kind = draw(st.sampled_from(kinds))
        takes_any = True
        if kind == "tool":
            name = draw(st.sampled_from(list(tools)))
            takes_any = not isinstance(tools, Mapping)
            params = draw(tools[name]) if isinstance(tools, Mapping) else {"n": position}
        elif kind == "wait":
            assert waits is not None
            name, params, takes_any = "wait", {"seconds": draw(waits)}, False
        else:
            name, params = (HUMAN if kind == "human" else INFERENCE), {"prompt": f"what is {position}?"}
        depends = _edges(draw, position, params if takes_any else None)
        task: dict[str, Any] = {
            "id": f"t{position}",
            "action_type": kind if kind in (HUMAN, INFERENCE) else "tool",
            "tool_or_prompt": {"name": name, "params": params},
            "dependencies": depends or draw(st.sampled_from([[], ["none"], "none", None])),
            "on_failure": draw(st.sampled_from(list(policies))),
            "default": draw(st.sampled_from([None, {"value": "instead"}])),
        }
        if retries is not None and kind != "human" and draw(st.booleans()):
            task["retry"] = draw(retries)
        if kind == "human" and answer_within is not None and draw(st.booleans()):
            task |= {"timeout_seconds": draw(answer_within), "on_timeout": draw(st.sampled_from(ON_TIMEOUT))}
        if approvals and draw(st.integers(0, 3)) == 0:
            task["requires_approval"] = True
        tasks.append(task)
    return {
        "original_request": "a random plan",
        "intent": {"primary": "test"},
        "sub_tasks": draw(st.permutations(tasks)),
        "synthesis_plan": draw(st.sampled_from(["", "put it together"])) if synthesis else "",
    }


def _edges(draw: st.DrawFn, position: int, params: dict[str, Json] | None) -> list[str]:
    """Draw on which earlier sub-tasks one depends: return those it names, and put references to others in `params`."""
    named: list[str] = []
    parents = draw(st.lists(st.integers(0, position - 1), unique=True, max_size=3)) if position else []
    for parent in parents:
        how = "dependency"
        if params is not None:
            how = draw(st.sampled_from(["dependency", "reference", "path", "both"]))
        if how in ("dependency", "both"):
            named.append(f"t{parent}")
        if params is None:
            continue
        if how in ("reference", "both"):
            params[f"of{parent}"] = f"<Result from Task t{parent}>"
        if how == "path":
            params[f"of{parent}"] = f"about {{{{ tasks.t{parent}.result.value }}}}"
    return named
