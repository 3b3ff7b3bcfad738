"""What a person may answer: nothing of an answer is dropped without a word."""

from __future__ import annotations

from typing import Any

import pytest

from dagbok.domain import answers
from dagbok.domain.answers import Calls
from dagbok.domain.secrets import Redactor
from dagbok.domain.states import Effect
from dagbok.domain.task import Task
from dagbok.domain.validate import Limits
from dagbok.errors import InvalidAnswer


@pytest.mark.parametrize(
    ("kind", "answer", "pointer"),
    [
        ("did_it_happen", {"decision": "retry", "result": 5}, "/result"),
        ("did_it_happen", {"decision": "fail", "result": {}}, "/result"),
        ("did_it_happen", {"decision": "succeeded", "input": 5}, "/input"),
        ("human", {"input": "red", "decision": "succeeded"}, "/decision"),
        ("human", {"input": "red", "result": 0}, "/result"),
        ("human", {"input": "red", "params": {}}, "/params"),
        ("did_it_happen", {"decision": "retry", "params": {}}, "/params"),
        ("approval", {"decision": "approve", "params": {}}, "/params"),
        ("approval", {"decision": "reject", "params": {"to": "ann"}}, "/params"),
        ("approval", {"decision": "approve", "result": 1}, "/result"),
        ("approval", {"decision": "edit", "params": {}, "input": 1}, "/input"),
    ],
)
def test_what_would_be_dropped_is_refused(kind: str, answer: dict[str, Any], pointer: str) -> None:
    with pytest.raises(InvalidAnswer) as refused:
        answers.read(kind, None, answer)
    assert [problem.pointer for problem in refused.value.fields["problems"]] == [pointer]


@pytest.mark.parametrize(
    ("kind", "answer", "taken"),
    [
        ("did_it_happen", {"decision": "retry", "result": None}, {"decision": "retry", "result": None}),
        ("did_it_happen", {"decision": "succeeded", "result": None}, {"decision": "succeeded", "result": None}),
        ("human", {"input": None, "decision": None}, None),
        ("approval", {"decision": "approve", "params": None}, {"decision": "approve"}),
        ("approval", {"decision": "edit", "params": {}}, {"decision": "edit", "params": {}}),
    ],
)
def test_null_says_nothing_and_is_a_result_too(kind: str, answer: dict[str, Any], taken: Any) -> None:
    assert answers.read(kind, None, answer) == taken


@pytest.mark.parametrize(
    ("kind", "answer", "pointer", "words"),
    [
        ("approval", {}, "/decision", "approve (run it), edit (run it with other params), reject (do not run it)"),
        ("approval", {"decision": "retry"}, "/decision", "one of approve"),
        ("approval", {"decision": ["approve"]}, "/decision", "one of approve"),
        ("approval", {"decision": "edit"}, "/params", "`params` is required with `edit`"),
        ("approval", {"input": "yes"}, "/decision", "one of approve"),
        ("did_it_happen", {"decision": "approve"}, "/decision", "retry (run it again)"),
        ("human", {"decision": "approve"}, "/input", "`input` is required"),
    ],
)
def test_an_answer_that_is_none_is_told_what_it_has_to_be(
    kind: str, answer: dict[str, Any], pointer: str, words: str
) -> None:
    with pytest.raises(InvalidAnswer) as refused:
        answers.read(kind, None, answer)
    [problem] = refused.value.fields["problems"]
    assert problem.pointer == pointer
    assert words in problem.message


# -- edited params ----------------------------------------------------------------------------------------------------

PLAN: dict[str, Any] = {
    "original_request": "r",
    "intent": {"primary": "p"},
    "sub_tasks": [
        {"id": 1, "tool_or_prompt": {"name": "look", "params": {"to": "a"}}},
        {"id": 2, "tool_or_prompt": {"name": "pay", "params": {"to": "<Result from Task 1>", "cents": 5}}},
        {"id": 3, "tool_or_prompt": {"name": "look", "params": {"to": "c"}}},
    ],
}
_TO: dict[str, Any] = {"type": "object", "properties": {"to": {"type": "string"}}, "additionalProperties": False}
_PAY = {**_TO, "properties": {**_TO["properties"], "cents": {"type": "integer"}}, "required": ["cents"]}


def _effect(task: Task) -> Effect:
    params = task.tool_or_prompt.params
    return Effect.PURE if task.tool == "look" or params.get("cents") == 0 else Effect.ONCE


CALLS = Calls({"look": _TO, "pay": _PAY}, _effect, Limits(), Redactor({"KEY": "s3cret-value"}))


def _edited(params: Any, standing: dict[str, Any] | None = None) -> Any:
    return answers.edited({"decision": "edit", "params": params}, PLAN, "2", standing or {}, CALLS)


def test_edited_params_come_with_the_effect_that_they_have() -> None:
    assert _edited({"cents": 7}) == {"decision": "edit", "params": {"cents": 7}, "effect": "once"}
    assert _edited({"cents": 0, "to": "<Result from Task 1>"})["effect"] == "pure"


def test_they_are_judged_for_the_tool_that_is_called_now() -> None:
    assert _edited({"to": "b"}, {"tool": "look", "params": {"to": "a"}})["effect"] == "pure"
    with pytest.raises(InvalidAnswer):
        _edited({"cents": 7}, {"tool": "look", "params": {"to": "a"}})


@pytest.mark.parametrize(
    ("params", "pointer", "code"),
    [
        ([], "/params", "bad_value"),
        ({"to": "ann"}, "/params", "invalid_params"),
        ({"cents": "many"}, "/params/cents", "invalid_params"),
        ({"cents": 1, "colour": "red"}, "/params", "invalid_params"),
        ({"cents": 1, "to": {"secret": "KEY"}}, "/params/to", "secret_not_allowed"),
        ({"cents": 1, "to": "s3cret-value"}, "/params/to", "literal_secret"),
    ],
)
def test_edited_params_that_no_plan_could_have_are_refused_with_their_place(
    params: Any, pointer: str, code: str
) -> None:
    with pytest.raises(InvalidAnswer) as refused:
        _edited(params)
    [problem] = refused.value.fields["problems"]
    assert (problem.pointer, problem.code) == (pointer, code)


# -- too late ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "by", "words"),
    [
        ("answered", "ann", "was answered by 'ann' at 1970-01-01T00:00:01.500Z."),
        ("answered", None, "was answered at 1970-01-01T00:00:01.500Z."),
        ("timed_out", None, "timed out at 1970-01-01T00:00:01.500Z."),
        ("cancelled", "bob", "was closed by 'bob', with its execution, at 1970-01-01T00:00:01.500Z."),
        (None, None, "was closed at 1970-01-01T00:00:01.500Z."),
    ],
)
def test_whoever_is_late_is_told_how_the_question_was_closed(outcome: str | None, by: str | None, words: str) -> None:
    error = answers.too_late("dag-exec_1", "q", outcome=outcome, by=by, at_ms=1_500)
    assert error.message == f"The question of sub-step 'q' of dag-exec_1 {words}"
    named = answers.too_late("dag-exec_1", "q", outcome=outcome, by=by, at_ms=1_500, status="failed")
    assert named.message.endswith("; the sub-step is failed.")
