"""The filters of the inbox, judged; and its cursors, which nobody else can make."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagbok.domain.inbox import STATUSES, Place, Wanted
from dagbok.domain.values import MAX_INTEGER
from dagbok.errors import BadInput

_NUMBERS = st.integers(0, MAX_INTEGER)


@given(_NUMBERS, _NUMBERS, st.sampled_from(STATUSES))
def test_a_cursor_says_where_the_page_before_ended(asked_at: int, id: int, status: str) -> None:
    place = Place(asked_at, id)
    assert Place.read(place.cursor(status), status) == place
    assert place.cursor(status).isascii()
    assert set(place.cursor(status)).isdisjoint("=+/ "), "it needs no escaping in an address"


def _made(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    "cursor",
    [
        "", "x", "ö", "\ud800", "=" * 8, "A" * 5_000, _made("open:1"), _made("open:1:-2"), _made("closed:1:2"),
        _made("open:01:2"), _made("open:1:2 "), _made("open:1:9999999999999999999"), _made("open:1:2") + "=",
        _made("open:1:٣"),
    ],
)  # fmt: skip
def test_a_cursor_that_is_none_is_refused(cursor: str) -> None:
    with pytest.raises(BadInput, match="`cursor` is none of this list") as refused:
        Place.read(cursor, "open")
    assert refused.value.fields["pointer"] == "/cursor"


def test_a_cursor_of_the_other_list_is_refused_and_told_apart() -> None:
    with pytest.raises(BadInput, match="of the list with the status all, and this is that of open"):
        Wanted.read(cursor=Place(1, 2).cursor("all"))


@pytest.mark.parametrize(
    ("filters", "pointer", "words"),
    [
        ({"status": "closed"}, "/status", "one of open, all"),
        ({"kind": "riddle"}, "/kind", "one of human, approval, did_it_happen"),
        ({"limit": 0}, "/limit", "from 1 to 100"),
        ({"limit": 101}, "/limit", "from 1 to 100"),
        ({"assignee": "a\0"}, "/assignee", "what no database holds"),
        ({"execution_id": "\ud800"}, "/executionId", "what no database holds"),
        ({"due_before": datetime(2025, 1, 1)}, "/dueBefore", "has no zone"),  # noqa: DTZ001 - which is the point
    ],
)
def test_a_filter_that_cannot_be_used_is_refused(filters: dict[str, Any], pointer: str, words: str) -> None:
    with pytest.raises(BadInput, match=words) as refused:
        Wanted.read(**filters)
    assert refused.value.fields["pointer"] == pointer


def test_a_due_time_counts_to_the_millisecond() -> None:
    assert Wanted.read(due_before=datetime(1970, 1, 1, 0, 0, 1, 2_000, UTC)).due_before == 1_002
