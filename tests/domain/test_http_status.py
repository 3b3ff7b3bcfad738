from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dagbok.domain import http_status

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("code", "statuses"),
    [
        ("rate_limited", (429,)),
        ("unavailable", (408, 500, 501, 502, 503, 504, 529, 599)),
        ("refused", (401, 403, 407)),
        ("not_found", (404, 410)),
        ("invalid_input", (400, 402, 405, 409, 413, 422, 425, 451)),
        ("bad_response", (100, 200, 302)),
    ],
)
def test_a_status_has_the_code_of_its_class(code: str, statuses: tuple[int, ...]) -> None:
    assert {http_status.code(status) for status in statuses} == {code}


@pytest.mark.parametrize("status", [408, 500, 501, 502, 504, 599])
@pytest.mark.parametrize("wait_s", [None, 0.0, 7.0])
def test_a_server_that_failed_may_have_acted_whenever_it_wants_to_be_asked_again(
    status: int, wait_s: float | None
) -> None:
    assert http_status.may_have_acted(status, wait_s)


@pytest.mark.parametrize("status", [503, 529])
def test_a_server_that_says_when_to_come_back_has_done_nothing(status: int) -> None:
    assert http_status.may_have_acted(status, None)
    assert not http_status.may_have_acted(status, 0.0)


@pytest.mark.parametrize("status", [200, 302, 400, 404, 429])
def test_a_server_that_refused_has_done_nothing(status: int) -> None:
    assert not http_status.may_have_acted(status, None)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7", 7),
        ("0.5", 0.5),
        ("0", 0),
        ("-3", 0),
        ("99999999", 366 * 86_400),
        ("inf", 366 * 86_400),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
        (format_datetime(NOW + timedelta(hours=2), usegmt=True), 7_200),
        ((NOW + timedelta(hours=2)).strftime("%a %b %d %H:%M:%S %Y"), 7_200),
        ("nan", None),
        ("soon", None),
        ("", None),
        ("Mon, 01 Jan 2024 00:00:00 +99999999999999999999", None),
        ("Mon, 01 Jan 99999999999999999999 00:00:00 GMT", None),
        ("Fri, 31 Dec 9999 23:59:59 -2359", 366 * 86_400),
        ("Mon, 01 Jan 0001 00:00:00 +2359", 0),
    ],
)
def test_the_wait_that_a_server_asks_for_is_seconds_or_a_date_and_at_most_a_day(
    text: str, seconds: float | None
) -> None:
    assert http_status.retry_after_s({"retry-after": text}, NOW) == seconds


def test_milliseconds_are_the_finer_word() -> None:
    assert http_status.retry_after_s({"retry-after": "1", "retry-after-ms": "250"}, NOW) == 0.25
    assert http_status.retry_after_s({"retry-after": "1", "retry-after-ms": "?"}, NOW) == 1
    assert http_status.retry_after_s({}, NOW) is None


@example("nan")
@given(st.text(max_size=40) | st.from_regex(r"[A-Z][a-z]{2}, \d{1,3} [A-Z][a-z]{2} \d{1,5} \d\d:\d\d:\d\d.{0,6}"))
def test_no_retry_after_makes_trouble(text: str) -> None:
    seconds = http_status.retry_after_s({"retry-after": text}, NOW)
    assert seconds is None or 0 <= seconds <= http_status.MAX_RETRY_AFTER_S
