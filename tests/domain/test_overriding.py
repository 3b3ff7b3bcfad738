"""Overrides are judged as the plan was, where they stand, and told with pointers into them."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from dagbok.domain import outline, overriding, validate
from dagbok.domain.plan import SubTask
from dagbok.domain.secrets import Redactor
from dagbok.domain.validate import Limits, Problem, check

TOOLS: dict[str, Any] = {
    "fetch": {
        "type": "object",
        "properties": {"url": {"type": "string"}, "a/b": {"type": "integer"}, "token": {"type": "string"}},
        "required": ["url"],
        "additionalProperties": False,
    },
    "copy": {"type": "object", "properties": {"value": {}}, "required": ["value"], "additionalProperties": False},
    "inference": {"type": "object", "properties": {"prompt": {}, "model": {"type": "string", "minLength": 1}}},
}
SYNTHESIS = "__SYNTHESIS__"
DEEP: Any = "x"
for _ in range(300):
    DEEP = [DEEP]


def task(id: Any, name: str = "fetch", *, type: str = "tool", after: Any = None, **params: Any) -> dict[str, Any]:
    given = {"id": id, "action_type": type, "tool_or_prompt": {"name": name, "params": params}}
    return given if after is None else given | {"dependencies": after}


def plan(**more: Any) -> dict[str, Any]:
    return {
        "original_request": "Look it up.",
        "intent": {"primary": "look"},
        "sub_tasks": [
            task(1, url="https://one.example"),
            task("2", url="<Result from Task 1>", after=["none"]),
            task("3", type="inference", name="prompt", prompt="Sum up {{ tasks['2'].result }}"),
            task("4", type="human", name="human", prompt="Is it right?", after=["3"]),
            task("5", "copy", value=5),
        ],
        "synthesis_plan": "Put it together.",
        **more,
    }


def found(overrides: dict[str, Any], document: Any = None, **more: Any) -> set[tuple[str, str]]:
    problems = overriding.faults_of_all(document or plan(), overrides, tools=TOOLS, **more)
    return {(problem.code, problem.pointer) for problem in problems}


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"1": {"params": {"url": "https://two.example"}}}, set()),
        ({"1": {"tool": "copy", "params": {"value": 1}}}, set()),
        ({"2": {"params": {"url": "{{ tasks.1.result.next }}"}}}, set()),
        ({"2": {"params": {"url": "https://two.example"}}}, set()),
        ({"3": {"model": "test:a"}, SYNTHESIS: {"model": "test:b"}}, set()),
        ({"4": {"params": {"prompt": "Is it?"}}}, set()),
        ({}, set()),
        ({"1": {"params": {"uri": "x"}}}, {("invalid_params", "/1/params")}),
        ({"1": {"params": {"url": 1}}}, {("invalid_params", "/1/params/url")}),
        ({"1": {"params": {"url": "x", "a/b": "y"}}}, {("invalid_params", "/1/params/a~1b")}),
        ({"1": {"tool": "fetsch"}}, {("unknown_tool", "/1/tool")}),
        ({"1": {"tool": "copy"}}, {("invalid_params", "/1/tool")}),  # the params of the plan do not suit it
        ({"1": {"tool": 1}}, {("bad_value", "/1/tool")}),
        ({"1": {"tool": ""}}, {("bad_value", "/1/tool")}),
        ({"3": {"tool": "copy"}}, {("not_allowed", "/3/tool")}),
        ({"4": {"tool": "copy"}}, {("not_allowed", "/4/tool")}),
        ({SYNTHESIS: {"tool": "copy"}}, {("not_allowed", f"/{SYNTHESIS}/tool")}),
        ({SYNTHESIS: {"params": {}}}, {("not_allowed", f"/{SYNTHESIS}/params")}),
        ({"1": {"model": "test:a"}}, {("not_allowed", "/1/model")}),
        ({"4": {"model": "test:a"}}, {("not_allowed", "/4/model")}),
        ({"3": {"model": ""}}, {("bad_value", "/3/model")}),
        ({"3": {"model": "a\x00b"}}, {("bad_value", "/3/model")}),
        ({SYNTHESIS: {"model": None}}, {("bad_value", f"/{SYNTHESIS}/model")}),
        ({"3": {"params": {"prompt": "x", "model": 7}}}, {("invalid_params", "/3/params/model")}),
        ({"4": {"params": {"prompt": "x", "schema": {"type": "no"}}}}, {("bad_schema", "/4/params/schema/type")}),
        ({"1": {}}, {("bad_value", "/1")}),
        ({"1": "x"}, {("bad_value", "/1")}),
        ({"1": None}, {("bad_value", "/1")}),
        ({"1": {"param": {}}}, {("unknown_field", "/1/param")}),
        ({"1": {"params": []}}, {("bad_value", "/1/params")}),
        ({"9": {"params": {}}, "a/b": {}}, {("unknown_task", "/9"), ("unknown_task", "/a~1b")}),
        ({"1": {"params": {"url": "<Result from Task 5>"}}}, {("new_dependency", "/1/params/url")}),
        ({"1": {"params": {"url": "<Result from Task 2>"}}}, {("new_dependency", "/1/params/url")}),
        ({"1": {"params": {"url": "<Result from Task 1>"}}}, {("self_dependency", "/1/params/url")}),
        ({"1": {"params": {"url": "<Result from Task 9>"}}}, {("unknown_reference", "/1/params/url")}),
        ({"2": {"params": {"url": "{{ tasks.1.result[ }}"}}}, {("bad_reference", "/2/params/url")}),
        ({"1": {"params": {"url": float("nan")}}}, {("not_json", "/1/params/url")}),
        ({"5": {"params": {"value": DEEP}}}, {("not_json", "/5/params/value" + "/0" * 195)}),
        ({"1": {"params": {"url": {"secret": "A_TOKEN"}}}}, {("unknown_secret", "/1/params/url")}),
        ({"1": {"params": {"url": "see hunter2!"}}}, {("literal_secret", "/1/params/url")}),
        ({SYNTHESIS: {"model": "test:hunter2!"}}, {("literal_secret", f"/{SYNTHESIS}/model")}),
        ({"1": {"params": {"url": 1}}, "5": {"params": {}}}, {
            ("invalid_params", "/1/params/url"), ("invalid_params", "/5/params"),
        }),
    ],
)  # fmt: skip
def test_what_is_wrong_with_an_override_is_told_where_it_stands(
    overrides: dict[str, Any], expected: set[tuple[str, str]]
) -> None:
    codes = found(overrides, redactor=Redactor({"PASSWORD": "hunter2!"}))
    if "5" in overrides and overrides["5"].get("params", {}).get("value") is DEEP:
        ((code, pointer),) = codes  # how deep is too deep is told elsewhere
        assert code == "not_json"
        assert pointer.startswith("/5/params/value/0")
    else:
        assert codes == expected


def test_one_override_is_told_with_pointers_that_begin_at_it() -> None:
    problems = overriding.faults(plan(), "1", {"params": {"url": 1}, "tool": "fetch"}, tools=TOOLS)
    assert [(problem.code, problem.pointer) for problem in problems] == [("invalid_params", "/params/url")]
    assert overriding.faults(plan(), "9", {}, tools=TOOLS)[0].pointer == ""


def test_no_message_holds_the_value_of_a_secret() -> None:
    redactor = Redactor({"PASSWORD": "hunter2!"})
    given = {
        "hunter2!": {"params": {}},
        "1": {"hunter2!": 1},
        "5": {"params": {"value": 1, "hunter2!": 2}},
        "2": {"tool": "hunter2!"},
    }
    problems = overriding.faults_of_all(plan(), given, tools=TOOLS, redactor=redactor)
    assert len({problem.pointer.split("/")[1] for problem in problems}) == 4
    assert "hunter2!" not in repr(problems)


def test_what_was_wrong_with_the_plan_before_is_no_fault_of_an_override() -> None:
    document = plan(title="hunter2!")
    document["sub_tasks"][4]["tool_or_prompt"]["name"] = "gone"  # a tool of then
    document["sub_tasks"][0]["retry"] = {"maxAttempts": 3}
    redactor, limits = Redactor({"PASSWORD": "hunter2!"}), Limits(sub_tasks=2, plan_bytes=10)
    assert check(document, TOOLS, None, redactor)
    assert found({"1": {"params": {"url": "x"}}}, document, redactor=redactor) == set()
    assert found({"1": {"params": {"url": ""}}}, document, limits=limits) == set()
    assert found({"5": {"params": {"value": 1}}}, document) == set()  # cannot mend it
    assert found({"5": {"tool": "copy"}}, document) == set()  # mends it


def test_overrides_that_make_the_plan_too_large_are_refused_together() -> None:
    assert found({"1": {"params": {"url": "x" * 2000}}}, limits=Limits(plan_bytes=1000)) == {("too_large", "")}


def test_there_is_no_synthesis_to_override_where_the_plan_has_none() -> None:
    assert found({SYNTHESIS: {"model": "x"}}, plan(synthesis_plan="  ")) == {("unknown_task", f"/{SYNTHESIS}")}


def test_written_into_the_document_an_override_keeps_who_waits_for_whom() -> None:
    document = plan()
    before = copy.deepcopy(document)
    written = overriding.write(
        document,
        {
            "1": {"params": {"url": "new"}, "tool": "copy"},
            "2": {"params": {"url": "new"}},
            "3": {"model": "test:a"},
            SYNTHESIS: {"model": "test:b"},
        },
    )
    assert document == before
    one, two, three, four, five = written["sub_tasks"]
    assert one["tool_or_prompt"] == {"name": "copy", "params": {"url": "new"}}
    assert "dependencies" not in one
    assert (two["tool_or_prompt"]["params"], two["dependencies"]) == ({"url": "new"}, ["1"])
    assert three["tool_or_prompt"]["params"] == {"prompt": "Sum up {{ tasks['2'].result }}", "model": "test:a"}
    assert all(mine is theirs for mine, theirs in zip((four, five), document["sub_tasks"][3:], strict=True))
    parents = outline.read(before).graph.parents
    assert outline.read(written).graph.parents == parents
    assert SubTask.model_validate(two).dependencies == ["1"]


def test_ten_thousand_overrides_are_one_check_of_the_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    document = {**plan(), "sub_tasks": [task(id, url="x") for id in range(10_000)]}
    checked: list[Any] = []

    def counting(*args: Any) -> list[Problem]:
        checked.append(args)
        return check(*args)

    monkeypatch.setattr(validate, "check", counting)
    assert found({str(id): {"params": {"url": "y"}} for id in range(10_000)}, document) == set()
    assert len(checked) == 1


def test_thousands_of_unknown_sub_tasks_are_not_compared_with_all_that_are_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """That took 18 ms for each of them: minutes of a server's time for one request."""
    compared: list[str] = []
    monkeypatch.setattr(overriding, "nearest", lambda name, known: compared.append(name))
    assert len(found({f"1{id}": {} for id in range(1_000)})) == 1_000
    assert 0 < len(compared) <= validate.MAX_SUGGESTIONS


def test_a_sub_task_that_is_nearly_known_is_suggested() -> None:
    (problem,) = overriding.faults_of_all({"sub_tasks": [task("fetch")]}, {"fetsch": {}}, tools=TOOLS)
    assert problem.message.endswith("Did you mean 'fetch'?")
