"""What the status of an HTTP answer means for an attempt: one table, for our own requests and those of any library."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

#: More patience than this is the same to everybody.
MAX_RETRY_AFTER_S: Final = 366 * 86_400.0

_CODES: Final = {
    **dict.fromkeys((401, 403, 407), "refused"),
    **dict.fromkeys((404, 410), "not_found"),
    408: "unavailable",
    429: "rate_limited",
}

#: A server that is there and says so: with a Retry-After, it has turned the request away and done nothing.
_TURNED_AWAY: Final = (503, 529)


def code(status: int) -> str:
    """Return the code of an answer that is no success."""
    if status >= 500:
        return "unavailable"
    return _CODES.get(status, "invalid_input" if status >= 400 else "bad_response")


def may_have_acted(status: int, retry_after_s: float | None) -> bool:
    """Tell whether the request may have taken effect although it was answered with an error.

    A gateway that gave up says nothing of what is behind it, and a server that failed may have done so at the end.
    """
    turned_away = status in _TURNED_AWAY and retry_after_s is not None
    return (status == 408 or status >= 500) and not turned_away


def retry_after_s(headers: Mapping[str, str], now: datetime) -> float | None:
    """Return the seconds that `Retry-After` asks for (RFC 9110, 10.2.3), at most a year; None: it asks for nothing.

    Args:
        headers: Of the answer; names of a plain dict in lower case. `retry-after-ms`, which servers of models send
            beside it, is the finer one.
        now: What a date is compared with.
    """
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        text = headers.get(name)
        seconds = None if text is None else _seconds(str(text), unit_s, now)
        if seconds is not None:
            return seconds
    return None


def _seconds(text: str, unit_s: float, now: datetime) -> float | None:
    try:
        seconds = float(text) * unit_s
    except ValueError:
        try:
            due = parsedate_to_datetime(text)
            due = due if due.tzinfo else due.replace(tzinfo=UTC)
            seconds = (due - now).total_seconds()
        except (ValueError, OverflowError):  # the latter: a zone, or a date in its zone, beyond all calendars
            return None
    return None if math.isnan(seconds) else min(max(seconds, 0.0), MAX_RETRY_AFTER_S)
