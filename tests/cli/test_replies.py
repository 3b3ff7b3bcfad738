"""What somebody types is taken as they mean it: JSON where it fits, text where one is asked for, letters for words."""

from __future__ import annotations

from typing import Any

import pytest

from dagbok.cli import replies
from dagbok.cli.questions import Question
from dagbok.errors import BadInput, NotJson


def _question(kind: str = "human", schema: dict[str, Any] | None = None) -> Question:
    return Question("q", 1, kind, "Well?", schema, None, None, None)


STRING, NUMBER = {"type": "string"}, {"type": "integer"}


@pytest.mark.parametrize(
    ("schema", "text", "value"),
    [
        (None, "yes, please", "yes, please"),
        (None, "42", 42),
        (None, '"42"', "42"),
        (None, "null", None),
        (None, '{"a": [1]}', {"a": [1]}),
        (None, "{a", "{a"),
        (None, "NaN", "NaN"),
        (None, "1" * 30, "1" * 30),
        (STRING, "42", "42"),
        (STRING, "true", "true"),
        (STRING, '"true"', "true"),
        (NUMBER, "42", 42),
        (NUMBER, '"42"', "42"),
        (NUMBER, "many", "many"),
        ({"type": "array"}, "[1, 2]", [1, 2]),
        ({"anyOf": [NUMBER, STRING]}, "42", 42),
        ({"enum": ["1", "2"]}, "1", "1"),
        ({"type": "string", "maxLength": 1}, "42", 42),
    ],
)
def test_a_value_is_json_where_it_fits_and_else_text(schema: Any, text: str, value: Any) -> None:
    assert replies.value(_question(schema=schema), text) == {"input": value}


def test_what_is_json_but_beyond_a_diary_is_not_taken_as_text() -> None:
    with pytest.raises(NotJson):
        replies.value(_question(), '{"a": 1e999}')


@pytest.mark.parametrize(
    ("schema", "text", "value"),
    [
        ({"type": "boolean"}, "y", True),
        ({"type": "boolean"}, " No ", False),
        ({"type": "boolean"}, "true", True),
        ({"type": "boolean"}, "perhaps", "perhaps"),
        ({"enum": ["red", "blue"]}, "2", "blue"),
        ({"enum": ["red", "blue"]}, "red", "red"),
        ({"enum": ["red", "blue"]}, "3", 3),
        ({"enum": [3, 2, 1]}, "1", 1),
        ({"enum": ["red", {"mix": ["a"]}]}, "2", {"mix": ["a"]}),
        (STRING, "y", "y"),
    ],
)
def test_a_choice_is_taken_by_its_number_or_as_it_is(schema: Any, text: str, value: Any) -> None:
    assert replies.typed(_question(schema=schema), text) == {"input": value}


@pytest.mark.parametrize(
    ("kind", "text", "word"),
    [
        ("approval", "a", "approve"),
        ("approval", "EDIT", "edit"),
        ("approval", " reject\n", "reject"),
        ("did_it_happen", "r", "retry"),
        ("did_it_happen", "s", "succeeded"),
        ("did_it_happen", "fail", "fail"),
    ],
)
def test_a_decision_is_taken_by_its_word_or_its_letter(kind: str, text: str, word: str) -> None:
    assert replies.typed(_question(kind), text) == {"decision": word}
    assert replies.given(_question(kind), text) == {"decision": word}


@pytest.mark.parametrize("text", ["yes", "approved", "ap", "x", "approve|reject", "{}"])
def test_what_is_no_decision_decides_nothing(text: str) -> None:
    with pytest.raises(BadInput, match="is no decision; it is one of approve, edit, reject"):
        replies.typed(_question("approval"), text)


def test_a_command_line_gives_one_answer_with_what_belongs_to_it() -> None:
    doubt, approval = _question("did_it_happen"), _question("approval")
    assert replies.given(doubt, "succeeded", result="7") == {"decision": "succeeded", "result": 7}
    assert replies.given(doubt, None, decided="succeeded", result="done") == {"decision": "succeeded", "result": "done"}
    assert replies.given(approval, None, decided="edit", params={}) == {"decision": "edit", "params": {}}
    assert replies.given(_question(), None, decided="approve") == {"decision": "approve"}, "for others to refuse"
    with pytest.raises(BadInput, match="There are two answers, 'retry' and 'fail'"):
        replies.given(doubt, "retry", decided="fail")
