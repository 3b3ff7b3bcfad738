from __future__ import annotations

import pickle
from collections.abc import Iterator

import pytest

from dagbok import errors
from dagbok.errors import DagbokError


def _all(kind: type[DagbokError] = DagbokError) -> Iterator[type[DagbokError]]:
    yield kind
    for below in kind.__subclasses__():
        if below.__module__ == "dagbok.errors":
            yield from _all(below)


@pytest.mark.parametrize("kind", list(_all()), ids=lambda kind: kind.__name__)
def test_an_error_survives_pickling_with_its_fields(kind: type[DagbokError]) -> None:
    """Errors cross processes, where a tool's body runs on a cluster."""
    error = kind("what happened", execution_id="dag-exec_1")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert (str(copy), copy.code, copy.execution_id) == ("what happened", error.code, "dag-exec_1")
    assert copy.fields == error.fields


@pytest.mark.parametrize("kind", list(_all()), ids=lambda kind: kind.__name__)
def test_the_docstring_is_the_default_message(kind: type[DagbokError]) -> None:
    assert kind.__doc__
    assert str(kind()) == kind.__doc__.splitlines()[0]


def test_codes_are_unique_and_the_tree_at_the_top_names_every_error() -> None:
    kinds = list(_all())
    assert len({kind.code for kind in kinds}) == len(kinds)
    for kind in kinds:
        assert f"{kind.__name__} " in f"{errors.__doc__} ".replace("\n", " "), kind


def test_a_tool_error_keeps_the_code_its_tool_chose() -> None:
    error = errors.ToolError("slow down", code="rate_limited", retry_after_s=3)
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.code, copy.retry_after_s) == ("rate_limited", 3)


def test_a_message_that_is_no_text_becomes_one() -> None:
    assert str(errors.ToolError(ValueError("inner"))) == "inner"  # type: ignore[arg-type]  # as people write it
