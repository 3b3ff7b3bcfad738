"""What the engine makes of a result or an error, before it decides whether to try again."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import httpx2
import pytest

from dagbok.domain.call import Charge, Reply
from dagbok.domain.secrets import Redactor
from dagbok.domain.values import JsonText
from dagbok.engine.outcomes import Outcome, failure, success
from dagbok.errors import BadInput, DagbokError, NotFound, ToolError

NO_SECRETS = Redactor({})


def outcome(exc: BaseException) -> Outcome:
    return failure(exc, NO_SECRETS)


@pytest.mark.parametrize(
    ("exc", "code", "unknown"),
    [
        (ToolError("no"), "tool_error", False),
        (ToolError("turned away", code="unavailable"), "unavailable", False),
        (ToolError("turned away", code="rate_limited"), "rate_limited", False),
        (ToolError("cut off", code="unavailable", sent=True), "unavailable", True),
        (ToolError("not there", code="unavailable", sent=False), "unavailable", False),
        (ToolError("late", code="timeout"), "timeout", True),
        (ToolError("late", code="timeout", sent=True), "timeout", True),
        (ToolError("no connection", code="timeout", sent=False), "timeout", False),
        (ToolError("who knows", code="outcome_unknown"), "outcome_unknown", True),
        (ToolError("who knows", code="outcome_unknown", sent=False), "outcome_unknown", True),
        (ToolError("half an answer", code="too_large", sent=True), "too_large", True),
        (ToolError("half an answer", code="bad_response", sent=True), "bad_response", True),
        (ToolError("elsewhere", code="refused_redirect", sent=True), "refused_redirect", False),
        (ToolError("elsewhere", code="too_many_redirects", sent=True), "too_many_redirects", False),
        (ToolError("no", code="server_error"), "server_error", False),
        (ToolError("said yes", code="unavailable", sent="yes"), "unavailable", False),
        (BadInput("no"), "invalid_input", False),
        (NotFound("no"), "not_found", False),
        (TimeoutError(), "timeout", True),
        (ConnectionResetError(), "unavailable", True),
        (ConnectionRefusedError(), "unavailable", False),
        (FileNotFoundError(), "tool_error", False),
        (httpx2.PoolTimeout("busy"), "timeout", False),
        (SystemExit(1), "tool_error", False),
    ],
)
def test_an_error_says_whether_it_may_have_had_effect(exc: BaseException, code: str, unknown: bool) -> None:
    told = outcome(exc)
    assert (told.code, told.unknown, told.kind) == (code, unknown, "failed")


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [
        (7, 7.0),
        (0, 0.0),
        (0.25, 0.25),
        (10**400, 366 * 86_400.0),
        (-1, None),
        (math.nan, None),
        (math.inf, None),
        ("7", None),
        (True, None),
        (None, None),
    ],
)
def test_the_wait_that_an_error_asks_for_is_kept_if_it_is_one(asked: Any, seconds: float | None) -> None:
    kept = outcome(ToolError("later", code="rate_limited", retry_after_s=asked)).retry_after_s
    assert kept == seconds
    assert type(kept) is type(seconds)


def test_the_wait_of_an_answer_is_kept_too() -> None:
    answer = httpx2.Response(429, headers={"Retry-After": "9"}, request=httpx2.Request("GET", "http://api.example/"))
    with pytest.raises(httpx2.HTTPStatusError) as caught:
        answer.raise_for_status()
    told = outcome(caught.value)
    assert (told.code, told.retry_after_s, told.unknown) == ("rate_limited", 9.0, False)
    assert "429" in told.message


def _group(*errors: Exception) -> ExceptionGroup[Exception]:
    return ExceptionGroup("several", errors)


@pytest.mark.parametrize(
    ("exc", "code", "unknown", "wait_s"),
    [
        (_group(httpx2.ReadTimeout("slow")), "timeout", True, None),
        (_group(_group(ToolError("no", code="refused"))), "refused", False, None),
        (_group(ConnectionRefusedError(), ConnectionResetError()), "unavailable", True, None),
        (_group(ConnectionRefusedError(), TimeoutError()), "tool_error", True, None),
        (_group(ValueError(), httpx2.ConnectError("nobody")), "tool_error", False, None),
        (
            _group(*(ToolError("later", code="rate_limited", retry_after_s=n) for n in (3, 9, None))),
            "rate_limited",
            False,
            9.0,
        ),
    ],
)
def test_errors_of_a_task_group_count_as_the_code_that_they_share(
    exc: BaseException, code: str, unknown: bool, wait_s: float | None
) -> None:
    """anyio and asyncio wrap even one error into a group."""
    told = outcome(exc)
    assert (told.code, told.unknown, told.retry_after_s) == (code, unknown, wait_s)


def test_an_error_whose_parts_raise_when_they_are_looked_at_keeps_its_words() -> None:
    class Odd(httpx2.HTTPStatusError):
        @property
        def response(self) -> httpx2.Response:
            raise RuntimeError("gone")

        @response.setter
        def response(self, value: httpx2.Response) -> None:
            pass

    request = httpx2.Request("GET", "http://api.example/")
    told = outcome(Odd("it broke", request=request, response=httpx2.Response(503)))
    assert (told.code, told.message) == ("tool_error", "Odd: it broke")


def test_a_secret_in_the_code_of_an_error_is_hidden() -> None:
    told = failure(ToolError("no", code="key-of-the-tests"), Redactor({"KEY": "key-of-the-tests"}))
    assert told.code == "[secret KEY]"


def test_what_came_back_and_cannot_be_kept_did_happen() -> None:
    """It must not be repeated, but there is nothing to ask a person either."""
    for value, code in ((float("nan"), "not_json"), ("x" * 100, "result_too_large")):
        told = success(Reply(value, cost_usd=0.5), max_bytes=50, redactor=NO_SECRETS)
        assert (told.code, told.unknown, told.result, told.charge) == (code, False, None, Charge(cost_usd=0.5))


def test_a_result_has_no_code() -> None:
    assert success(1, max_bytes=50, redactor=NO_SECRETS) == Outcome(JsonText("1"))


def test_every_error_of_ours_keeps_its_code() -> None:
    def all_of(kind: type[DagbokError]) -> list[type[DagbokError]]:
        return [kind, *(one for below in kind.__subclasses__() for one in all_of(below))]

    for kind in all_of(DagbokError):
        assert outcome(kind()).code == kind.code


def test_a_timeout_of_the_tools_own_is_one() -> None:
    async def main() -> Outcome:
        try:
            async with asyncio.timeout(0):
                await asyncio.Event().wait()
        except TimeoutError as exc:
            return outcome(exc)
        raise AssertionError

    told = asyncio.run(main())
    assert (told.code, told.unknown, told.kind) == ("timeout", True, "failed")
