"""Fields that look misspelt are told to whoever checks a plan; somebody's own fields are nobody's business."""

from __future__ import annotations

from typing import Any

import pytest

from dagbok.domain.overlooked import MAX_NAMES, overlooked


def _plan(*tasks: dict[str, Any], **more: Any) -> dict[str, Any]:
    made = [{"id": n, "tool_or_prompt": {"name": "wait"}, **task} for n, task in enumerate(tasks)]
    return {"original_request": "r", "intent": {"primary": "p"}, "sub_tasks": made, **more}


@pytest.mark.parametrize(
    ("document", "pointer", "meant"),
    [
        (_plan({"timeoutSeconds": -5}), "/sub_tasks/0/timeoutSeconds", "timeout_seconds"),
        (_plan({}, {"idleTimeoutSeconds": 5}), "/sub_tasks/1/idleTimeoutSeconds", "idle_timeout_seconds"),
        (_plan({"retries": 3}), "/sub_tasks/0/retries", "retry"),
        (_plan({"dependencies_": ["1"]}), "/sub_tasks/0/dependencies_", "dependencies"),
        (
            _plan({"tool_or_prompt": {"name": "wait", "parameters": {}}}),
            "/sub_tasks/0/tool_or_prompt/parameters",
            "params",
        ),
        (_plan({}, synthesisPlan="All of it."), "/synthesisPlan", "synthesis_plan"),
    ],
)
def test_a_field_that_looks_misspelt_is_named(document: dict[str, Any], pointer: str, meant: str) -> None:
    [warning] = overlooked(document)
    assert (warning.pointer, warning.code) == (pointer, "unknown_field")
    assert warning.message.endswith(f"changes nothing. Did you mean {meant!r}?")


def test_fields_of_somebodys_own_are_not() -> None:
    own = {"x_team": "docs", "cost_center": 7, "agent": "planner", "confidence": 0.9, "tags": [], "": 1}
    assert overlooked(_plan(own, agent_name="a", version=2, created_at="now")) == []


def test_of_very_many_only_the_first_are_compared() -> None:
    many = [{f"timeout_second{n}": 1} for n in range(10_000)]
    assert len(overlooked(_plan(*many))) == MAX_NAMES
