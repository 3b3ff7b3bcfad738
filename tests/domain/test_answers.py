"""What a person may answer: nothing of an answer is dropped without a word."""

from __future__ import annotations

from typing import Any

import pytest

from dagbok.domain import answers
from dagbok.errors import InvalidAnswer


@pytest.mark.parametrize(
    ("kind", "answer", "pointer"),
    [
        ("did_it_happen", {"decision": "retry", "result": 5}, "/result"),
        ("did_it_happen", {"decision": "fail", "result": {}}, "/result"),
        ("did_it_happen", {"decision": "succeeded", "input": 5}, "/input"),
        ("human", {"input": "red", "decision": "succeeded"}, "/decision"),
        ("human", {"input": "red", "result": 0}, "/result"),
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
    ],
)
def test_null_says_nothing_and_is_a_result_too(kind: str, answer: dict[str, Any], taken: Any) -> None:
    assert answers.read(kind, None, answer) == taken
