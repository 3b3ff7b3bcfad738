"""A sub-task is read in two ways, plainly or by the model, and both say the same of it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dagbok.domain import outline
from dagbok.domain.plan import Plan, SubTask
from dagbok.domain.task import Reading, Task, read_task, task_of
from strategies import plans


def by_the_model(item: Any) -> Task | None:
    try:
        return task_of(SubTask.model_validate(item))
    except ValidationError:
        return None


ODD: list[Any] = [
    None, True, False, 0, 1, -3, 1.0, 2.5, "", " ", "1", " 1 ", "none", "None ", "a/b", "a\nb", "<x>", "x" * 201, [],
    {}, [1, "1", 1.0, True], ["none", "a"], [None], [[]], {"a": 1}, {"name": "x"}, "tool", "human", "inference",
    "other", "\u2003a", "a\x85", "é", "٣",
]  # fmt: skip
FIELDS = (*SubTask.model_fields, "tool", "unknown")
CALLS = [{"name": "x"}, {"name": "x", "params": None}, {"name": "x", "params": {}}, {"name": "x", "params": {"a": [1]}}]
PLAIN = {"id": "1", "tool_or_prompt": CALLS[0]}


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize(
    "beside", [{}, {"dependencies": ["b"]}, {"description": "d"}], ids=["", "depends", "described"]
)
def test_each_field_is_read_as_the_model_reads_it(field: str, beside: dict[str, Any]) -> None:
    for value in ODD:
        item = {**PLAIN, **beside, field: value}
        assert Reading().all([item]) == [by_the_model(item)], value


@pytest.mark.parametrize("field", ["name", "params", "more"])
def test_each_field_of_the_call_is_read_as_the_model_reads_it(field: str) -> None:
    for value in ODD:
        item = {**PLAIN, "tool_or_prompt": {"name": "x", field: value}}
        assert Reading().all([item]) == [by_the_model(item)], value


items = st.fixed_dictionaries(
    {"id": st.sampled_from([1, "1", "2", " 2", "none", True, 1.0]), "tool_or_prompt": st.sampled_from(CALLS)},
    optional={
        "dependencies": st.none() | st.sampled_from(["none", "", "1"]) | st.lists(st.sampled_from(ODD), max_size=3),
        **{name: st.sampled_from(ODD) for name in FIELDS if name not in ("id", "tool_or_prompt", "dependencies")},
    },
)


@given(st.lists(items, max_size=4))
def test_what_was_read_before_changes_nothing(document: list[dict[str, Any]]) -> None:
    assert Reading().all(document) == [by_the_model(item) for item in document]


def test_what_equals_an_id_that_was_read_is_not_taken_for_it() -> None:
    """To a dict, 1, 1.0 and true are one key; to a reader, true is no id."""
    document = [{**PLAIN, "id": 1}, *({**PLAIN, "id": "b", "dependencies": [1, odd]} for odd in ODD)]
    assert Reading().all(document) == [by_the_model(item) for item in document]


@given(plans())
def test_a_plan_is_outlined_as_its_model_is(document: dict[str, Any]) -> None:
    found = outline.read(document)
    assert found == outline.of(Plan.model_validate(document))
    assert list(found.sub_tasks) == [read_task(item) for item in document["sub_tasks"]]


def test_equal_ids_are_one_string_and_equal_calls_one_object() -> None:
    """A plan of 100,000 sub-tasks names each id several times."""
    reading = Reading()
    one, two = reading.all([{**PLAIN, "id": "1234"}, {**PLAIN, "id": 2, "dependencies": ["".join(["12", "34"]), 1234]}])
    assert one is not None
    assert two is not None
    assert all(name is one.id for name in two.dependencies)
    assert two.tool_or_prompt is one.tool_or_prompt


def test_what_an_action_runs_is_its_tool() -> None:
    said = {"id": 1, "tool_or_prompt": {"name": "x", "params": {"prompt": "?"}}}
    assert [read_task({**said, "action_type": kind}).tool for kind in ("tool", "inference", "human")] == [
        "x", "inference", "human",
    ]  # fmt: skip


def test_what_no_model_reads_is_an_error() -> None:
    with pytest.raises(ValidationError):
        read_task({"id": "1"})
