"""The strategies make what they promise, and all of what they promise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from dagbok.domain import values
from dagbok.domain.plan import Plan
from dagbok.domain.validate import check
from dagbok.testing import json_values, plans, retry_policies, texts

ANYTHING = {"type": "object"}
TOOLS = dict.fromkeys(("pure", "idempotent", "once", "wait", "inference"), ANYTHING)
NUMBERS = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}

EVERYTHING = plans(
    max_tasks=8, inference=True, retries=retry_policies(), waits=st.integers(0, 60) | st.floats(0, 1), min_tasks=2
)


def _tasks(plan: dict[str, Any]) -> list[dict[str, Any]]:
    tasks: list[dict[str, Any]] = plan["sub_tasks"]
    return tasks


@settings(deadline=None)
@given(plan=EVERYTHING)
def test_every_plan_can_run(plan: dict[str, Any]) -> None:
    assert check(plan, TOOLS) == []
    assert 2 <= len(Plan.model_validate(plan).sub_tasks) <= 8


@settings(deadline=None)
@given(plan=plans(tools={"add": st.fixed_dictionaries({"a": st.integers(-9, 9)})}, human=False, synthesis=False))
def test_params_of_a_users_own_tools_are_what_their_strategies_say(plan: dict[str, Any]) -> None:
    assert check(plan, {"add": NUMBERS}) == []
    assert plan["synthesis_plan"] == ""


@given(plan=plans(human=False, policies=["fail"], tools=["one", "two"]))
def test_what_is_switched_off_does_not_come(plan: dict[str, Any]) -> None:
    assert {task["tool_or_prompt"]["name"] for task in _tasks(plan)} <= {"one", "two"}
    assert {task["on_failure"] for task in _tasks(plan)} == {"fail"}
    assert not any("retry" in task for task in _tasks(plan))


def test_every_kind_of_sub_task_edge_and_policy_comes() -> None:
    def comes(holds: Callable[[dict[str, Any]], bool]) -> None:
        find(EVERYTHING, holds, settings=settings(max_examples=2000, phases=[Phase.generate]))  # shrinking takes long

    def has(holds: Callable[[dict[str, Any]], bool]) -> None:
        comes(lambda plan: any(holds(task) for task in _tasks(plan)))

    for name in (*TOOLS, "human"):
        has(lambda task, name=name: task["tool_or_prompt"]["name"] == name)  # type: ignore[misc]
    for policy in ("fail", "skip", "default"):
        has(lambda task, policy=policy: task["on_failure"] == policy)  # type: ignore[misc]
    has(lambda task: task["dependencies"] == ["t0"] and "of0" not in task["tool_or_prompt"]["params"])
    has(lambda task: str(task["tool_or_prompt"]["params"].get("of0")).startswith("<Result"))
    has(lambda task: "{{ tasks.t0.result" in str(task["tool_or_prompt"]["params"].get("of0")))
    has(lambda task: task.get("retry", {}).get("max_attempts") == 4 and "backoff_seconds" in task["retry"])
    comes(lambda plan: bool(plan["synthesis_plan"]))
    comes(lambda plan: Counter(task["id"] for task in _tasks(plan))["t7"] == 1)
    comes(lambda plan: [task["id"] for task in _tasks(plan)] == ["t1", "t0"])


@given(value=json_values(), text=texts())
def test_every_value_is_one_that_a_diary_holds(value: Any, text: str) -> None:
    values.check(value)
    values.check(text)
    assert values.decode(values.encode(value)) == value
