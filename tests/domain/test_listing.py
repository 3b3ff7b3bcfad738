"""The cursors of the list of executions: read as they were written, and refused where nobody has written them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagbok.domain import cursor, inbox, values
from dagbok.domain.listing import Place, begins_behind
from dagbok.domain.states import ExecutionStatus
from dagbok.errors import BadInput

ID = "dag-exec_01980000-0000-7000-8000-00000000000a"
STATUSES = st.sampled_from([None, *ExecutionStatus])


@given(st.integers(0, values.MAX_INTEGER), st.uuids(), STATUSES)
def test_a_cursor_is_read_as_it_was_written(created_at: int, uuid: object, status: str | None) -> None:
    place = Place(created_at, f"dag-exec_{uuid}")
    written = place.cursor(status)
    assert len(written) <= cursor.MAX_CHARS
    assert written.isascii()
    assert Place.read(written, status) == place


@given(STATUSES, STATUSES)
def test_a_cursor_is_of_the_list_that_gave_it(given_by: str | None, given_to: str | None) -> None:
    written = Place(1, ID).cursor(given_by)
    if given_by == given_to:
        return
    with pytest.raises(
        BadInput, match=f"status {given_by or 'all'}, and this is that of {given_to or 'all'}"
    ) as refused:
        Place.read(written, given_to)
    assert refused.value.fields["pointer"] == "/cursor"


@given(st.text(max_size=40) | st.text(alphabet="abcXYZ019-_=", max_size=120))
def test_what_is_no_cursor_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="`cursor` is none of this list"):
        Place.read(text, None)


@pytest.mark.parametrize(
    "text",
    [
        f"all:01:{ID}",
        f"all:-1:{ID}",
        f"all:{2**63}:{ID}",
        f"all:1:{ID}:2",
        f"all:1:{ID}\n",
        f"ALL:1:{ID}",
        "all:1:dag-exec_",
        "all:1:dag-exec_" + "a" * 65,
        "all:1:dag-exec_'; --",
        "all:1:2",
        "",
    ],
)
def test_what_a_cursor_never_says_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="`cursor` is none of this list"):
        Place.read(cursor.encode(text), None)


@pytest.mark.parametrize("change", [lambda c: c + "=", lambda c: c + "\n", lambda c: " " + c, lambda c: c[:-1] + "1"])
def test_another_spelling_of_a_cursor_is_none(change: object) -> None:
    assert callable(change)
    written = Place(123, ID).cursor(None)
    with pytest.raises(BadInput, match="`cursor` is none of this list"):
        Place.read(change(written), None)


def test_cursors_of_the_inbox_and_of_this_list_are_not_mixed_up() -> None:
    with pytest.raises(BadInput):
        Place.read(inbox.Place(1, 2).cursor("all"), None)
    with pytest.raises(BadInput):
        inbox.Place.read(Place(1, ID).cursor(None), "all")


def test_a_page_begins_at_one_place() -> None:
    assert begins_behind(None, offset=7, status=None) is None
    assert begins_behind(Place(1, ID).cursor(None), offset=0, status=None) == (1, ID)
    with pytest.raises(BadInput, match="give one of them") as refused:
        begins_behind(Place(1, ID).cursor(None), offset=7, status=None)
    assert refused.value.fields["pointer"] == "/offset"
