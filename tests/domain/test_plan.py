"""The plan takes every spelling agents use, and gives back all they wrote."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from pydantic import ValidationError

from dagbok.domain import values
from dagbok.domain.plan import Plan, SubTask, read_id
from strategies import plans


def plan_of(*tasks: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"original_request": "r", "intent": {"primary": "p"}, "sub_tasks": list(tasks), **more}


def task(**more: Any) -> dict[str, Any]:
    return {"id": "1", "tool_or_prompt": {"name": "t"}, **more}


#: The design's own example, every field filled.
FULL = {
    "original_request": "r",
    "title": "t",
    "intent": {"primary": "p", "sub_intents": ["a", {"b": 1}]},
    "entities": [{"entity": "Oslo", "type": "city", "grounded_value": "NO-03"}],
    "sub_tasks": [
        {
            "id": "1",
            "description": "d",
            "thought": "th",
            "action_type": "tool",
            "tool_or_prompt": {"name": "fetch_url", "params": {"url": "x"}},
            "expected_output": "text",
            "dependencies": [],
            "retry": {"max_attempts": 3},
            "timeout_seconds": 30,
            "on_failure": "default",
            "on_timeout": "remind",
            "default": {"a": None},
            "requires_approval": True,
        }
    ],
    "synthesis_plan": "s",
    "validation": {"coverage": "", "gaps": [], "iteration_triggers": []},
    "clarification_needed": False,
    "clarification_query": None,
}


def test_the_plan_of_the_design_comes_back_as_it_was() -> None:
    assert Plan.model_validate(FULL).document() == FULL


def test_what_is_not_required_has_a_default() -> None:
    plan = Plan.model_validate(plan_of(task()))
    one = plan.sub_tasks[0]
    assert (one.action_type, one.on_failure, one.on_timeout, one.default) == ("tool", "fail", "fail", None)
    assert (one.description, one.thought, one.expected_output, one.dependencies) == ("", "", "", [])
    assert (one.retry, one.timeout_seconds, one.requires_approval) == ({}, None, False)
    assert one.tool_or_prompt.params == {}
    assert (plan.title, plan.entities, plan.synthesis_plan, plan.validation) == ("", [], "", {})
    assert (plan.intent.sub_intents, plan.clarification_needed, plan.clarification_query) == ([], False, None)


def test_defaults_are_not_written_into_the_document() -> None:
    document = plan_of(task())
    assert Plan.model_validate(document).document() == document


def test_null_means_the_default_where_agents_write_it() -> None:
    nothing = dict.fromkeys(["description", "thought", "expected_output", "dependencies", "retry", "timeout_seconds"])
    document = plan_of(
        task(**nothing, tool_or_prompt={"name": "t", "params": None}),
        title=None,
        entities=None,
        synthesis_plan=None,
        validation=None,
    )
    document["intent"]["sub_intents"] = None
    plan = Plan.model_validate(document)
    assert plan.sub_tasks[0].dependencies == []
    assert plan.sub_tasks[0].tool_or_prompt.params == {}
    assert plan.synthesis_plan == ""


def test_unknown_fields_survive_at_each_level() -> None:
    """An agent's own notes are part of the diary; a field of a later release must not be lost by this one."""
    odd = {"x": [1, {"y": None}], "_private": True, "with space": "é"}
    document = plan_of(
        task(**odd, tool_or_prompt={"name": "t", "params": {"a": odd}, **odd}),
        **odd,
        validation=dict(odd),
        entities=[dict(odd)],
    )
    document["intent"] |= odd
    assert Plan.model_validate(document).document() == document


@given(plans())
def test_a_document_is_the_same_after_each_round_trip(document: dict[str, Any]) -> None:
    once = Plan.model_validate(document).document()
    assert Plan.model_validate(once).document() == once
    assert [one["tool_or_prompt"] for one in once["sub_tasks"]] == [
        one["tool_or_prompt"] for one in document["sub_tasks"]
    ]
    assert values.parse(json.dumps(once)) == once


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (1, "1"),
        ("1", "1"),
        (1.0, "1"),
        (" 1 ", "1"),
        (0, "0"),
        (-1, "-1"),
        ("1.0", "1.0"),
        ("1a", "1a"),
        ("fetch page", "fetch page"),
        ("åäö-𝄞_.:#'\"", "åäö-𝄞_.:#'\""),
        ("a" * 200, "a" * 200),
        (2**62, str(2**62)),
    ],
)
def test_ids_are_read_however_they_are_spelled(written: object, read: str) -> None:
    assert SubTask.model_validate(task(id=written)).id == read
    assert SubTask.model_validate(task(dependencies=[written])).dependencies == [read]
    assert read_id(written) == read


@pytest.mark.parametrize(
    "written", ["", "  ", True, False, None, 1.5, [], {}, "a/b", "a<b", "a>b", "{a}", "a\nb", "\x7f", "a" * 201]
)
def test_what_no_reference_could_name_is_no_id(written: object) -> None:
    with pytest.raises(ValidationError):
        SubTask.model_validate(task(id=written))
    assert read_id(written) is None


@pytest.mark.parametrize("written", [["none"], "none", "None", " NONE ", "", None, [], ["None", " none "]])
def test_no_dependencies_has_many_spellings(written: object) -> None:
    assert SubTask.model_validate(task(dependencies=written)).dependencies == []


def test_none_among_dependencies_is_left_out() -> None:
    assert SubTask.model_validate(task(dependencies=[1, "none", 2.0])).dependencies == ["1", "2"]


@pytest.mark.parametrize(("action", "tool"), [("tool", "named"), ("inference", "inference"), ("human", "human")])
def test_the_action_type_decides_which_tool_runs(action: str, tool: str) -> None:
    one = SubTask.model_validate(task(action_type=action, tool_or_prompt={"name": "named"}))
    assert one.tool == tool
    assert one.tool_or_prompt.name == "named"


def test_the_expected_output_may_be_a_schema() -> None:
    document = plan_of(task(expected_output={"type": "object"}))
    assert Plan.model_validate(document).document() == document


@pytest.mark.parametrize(
    "field",
    [
        {"action_type": "agent"},
        {"on_failure": "remind"},
        {"on_timeout": "retry"},
        {"timeout_seconds": 0},
        {"timeout_seconds": -1},
        {"timeout_seconds": 367 * 86_400},
        {"dependencies": "1"},
        {"dependencies": {"1": True}},
        {"tool_or_prompt": {}},
        {"tool_or_prompt": {"name": ""}},
        {"tool_or_prompt": {"name": "t", "params": []}},
        {"tool_or_prompt": "t"},
        {"expected_output": []},
        {"retry": 3},
        {"description": 5},
    ],
)
def test_a_field_of_another_kind_is_refused(field: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SubTask.model_validate(task(**field))


@pytest.mark.parametrize("written", ["true", 1, "yes", 0])
def test_whether_to_ask_first_is_said_in_true_or_false(written: object) -> None:
    """The service looks for `true` before it reads the plan. Were "true" true here, an empty plan would pass."""
    with pytest.raises(ValidationError):
        Plan.model_validate(plan_of(clarification_needed=written))


def test_a_plan_does_not_change() -> None:
    plan = Plan.model_validate(FULL)
    with pytest.raises(ValidationError):
        plan.title = "other"
