"""Trying again, and waiting: when a request is sent once more, and for how long."""

from __future__ import annotations

import math
import time
from typing import Final, Generic, TypeVar

import httpx2

from dagbok.client import faults
from dagbok.client.calls import Call
from dagbok.errors import OutcomeUnknown

T = TypeVar("T")

#: How often a submission is sent, at most, and how long to pause before the second time; then twice that.
TRIES: Final = 3
FIRST_PAUSE_S: Final = 0.2
#: No server is waited for longer than so between two tries.
LONGEST_PAUSE_S: Final = 5.0
#: Of one request that waits; what lies between may cut off longer silences.
LONG_POLL_S: Final = 30
#: Between two looks at a server that does not wait: too many do so already, or it does not run the execution.
_POLL_S: Final = 0.25


class Tries(Generic[T]):
    """The tries of one call: whether there is another, and what came of them all."""

    def __init__(self, call: Call[T], base_url: str) -> None:
        self._call = call
        self._base_url = base_url
        self._number = 0
        self._lost: Exception | None = None  # why a try may have been done

    def pause_s(self, outcome: httpx2.Response | Exception) -> float | None:
        """Return how long to wait before trying again; None: it is not tried again."""
        self._number += 1
        again = self._call.key is not None and self._number < TRIES
        if isinstance(outcome, httpx2.Response):
            if outcome.status_code == 503:
                said = faults.of(outcome, self._base_url, self._call.base)
                self._lost = said if isinstance(said, OutcomeUnknown) else self._lost
            # Without one, or with another status, the same request meets the same answer.
            after = outcome.headers.get("retry-after", "")
            asked = again and outcome.status_code in (409, 503) and after.isdecimal()
            return min(float(after), LONGEST_PAUSE_S) if asked else None
        if not faults.never_sent(outcome):
            self._lost = outcome
        # A server that took too long has had its time.
        broke = isinstance(outcome, httpx2.NetworkError | httpx2.RemoteProtocolError)
        return FIRST_PAUSE_S * 2 ** (self._number - 1) if again and broke else None

    def result(self, outcome: httpx2.Response | Exception) -> T:
        """Return what the last response says. Raises the error that all of it amounts to."""
        answered = isinstance(outcome, httpx2.Response) and outcome.status_code not in (409, 503)
        if self._lost is not None and not answered and self._call.method != "GET":
            raise faults.unknown(self._lost, self._base_url, self._call.key)
        if isinstance(outcome, httpx2.Response):
            return self._call.answer(outcome, self._base_url)
        raise faults.unreachable(outcome, self._base_url)


class Patience:
    """How long to wait: what to ask of the server, and how long to pause where it does not wait."""

    def __init__(self, timeout_s: float | None) -> None:
        self._timeout_s = timeout_s
        self._deadline = math.inf if timeout_s is None else time.monotonic() + timeout_s
        self._asked_until = 0.0

    @property
    def left_s(self) -> float | None:
        """What is left of the time; None: there is no end to it."""
        return None if self._timeout_s is None else max(0.0, self._deadline - time.monotonic())

    def wait_s(self) -> int:
        """Return how long the server is to wait: whole seconds, because HTTP knows no others."""
        now = time.monotonic()
        wait_s = max(1, math.ceil(min(LONG_POLL_S, self._deadline - now)))
        self._asked_until = now + wait_s
        return wait_s

    def pause_s(self, execution_id: str) -> float:
        """Return how long to pause before asking again. Raises TimeoutError."""
        now = time.monotonic()
        if now >= self._deadline:
            raise TimeoutError(f"Execution {execution_id} still runs after {self._timeout_s:g} s; it goes on.")
        return 0.0 if now >= self._asked_until else _POLL_S
