from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from urllib.parse import quote

import httpx2
import pytest
from pydantic_ai import exceptions as ai
from pydantic_ai.models.test import TestModel

from dagbok.domain.secrets import Redactor
from dagbok.engine.outcomes import failure
from dagbok.llm.faults import to_tool_error

MODEL = TestModel()


@pytest.mark.parametrize(
    ("exc", "code"),
    [
        (ai.ModelHTTPError(429, "m", headers={"Retry-After": "7"}), "rate_limited"),
        (ai.ModelRateLimitError("m", "slow down", retry_after=7), "rate_limited"),
        (ai.ModelQuotaExceededError("m", "no credit"), "refused"),
        (ai.ModelHTTPError(401, "m"), "refused"),
        (ai.ModelHTTPError(403, "m"), "refused"),
        (ai.ModelAuthenticationError("m", "bad key"), "refused"),
        (ai.ContentFilterError("not this"), "refused"),
        (ai.ModelHTTPError(400, "m"), "invalid_input"),
        (ai.ModelHTTPError(404, "m"), "invalid_input"),
        (ai.ModelHTTPError(410, "m"), "invalid_input"),
        (ai.ModelHTTPError(402, "m"), "refused"),
        (ai.ModelHTTPError(409, "m"), "unavailable"),
        (ai.ModelContextWindowExceededError("m", "too long"), "invalid_input"),
        (ai.UserError("wrong"), "invalid_input"),
        (ai.ModelHTTPError(500, "m"), "unavailable"),
        (ai.ModelHTTPError(529, "m"), "unavailable"),
        (ai.ModelHTTPError(408, "m"), "unavailable"),
        (ai.ModelConnectionError("m", "refused"), "unavailable"),
        (ai.ModelAPIError("m", "something"), "unavailable"),
        (ai.ModelTimeoutError("m", "slow", phase="read"), "timeout"),
        (ai.ModelTimeoutError("m", "slow"), "timeout"),
        (ai.ModelTimeoutError("m", "nobody", phase="connect"), "unavailable"),
        (ai.ModelTimeoutError("m", "all connections taken", phase="pool"), "unavailable"),
        (ai.ModelRequestTimeout("m", 5), "timeout"),
        (httpx2.ConnectError("refused"), "unavailable"),
        (httpx2.ConnectTimeout(""), "unavailable"),
        (httpx2.ReadTimeout(""), "timeout"),
        (ConnectionResetError(), "unavailable"),
        (TimeoutError(), "timeout"),
        (ai.ModelHTTPError(0, "m"), "tool_error"),
        (ai.UnexpectedModelBehavior("nonsense", "{}"), "tool_error"),
        (ai.UsageLimitExceeded("too many"), "tool_error"),
        (TypeError("'NoneType' object is not iterable"), "tool_error"),
        (ai.FallbackExceptionGroup("all", [ValueError("x"), ai.ModelHTTPError(503, "m")]), "unavailable"),
    ],
)
def test_each_fault_has_its_code(exc: Exception, code: str) -> None:
    """The engine decides by it whether to try again."""
    error = to_tool_error(exc, MODEL)
    assert error.code == code
    assert "test:test" in str(error)
    assert error.model == "test:test"
    assert pickle.loads(pickle.dumps(error)).fields == error.fields


@pytest.mark.parametrize(
    ("status", "headers"), [(429, {"Retry-After": "7"}), (503, {"retry-after": "7"}), (529, {"retry-after-ms": "7000"})]
)
def test_a_provider_that_says_when_to_come_back_is_heard(status: int, headers: dict[str, str]) -> None:
    error = to_tool_error(ai.ModelHTTPError(status, "m", headers=headers), MODEL)
    assert error.retry_after_s == 7
    assert error.status == status
    assert failure(error, Redactor({})).retry_after_s == 7


def test_a_wait_in_vain_says_what_gives_it_more_time() -> None:
    said = str(to_tool_error(ai.ModelTimeoutError("m", "Cancelled via cancel scope 7f", phase="read"), MODEL))
    assert said.startswith("No answer in time from test:test: ")
    assert "`timeout_seconds`" in said
    assert "cancel scope" not in said


def test_a_provider_that_answers_with_a_page_is_cut_short() -> None:
    assert len(str(to_tool_error(ai.ModelHTTPError(502, "m", body="<html>" * 9_000), MODEL))) < 700


@pytest.mark.parametrize("value", ["sk-a/secret of-the-tests", "sk-a/secret of-the-tests\n"])
@pytest.mark.parametrize("spell", [str, repr, json.dumps, quote], ids=["as it is", "repr", "json", "url"])
def test_a_key_in_the_words_of_a_provider_is_hidden_however_it_is_spelled(
    value: str, spell: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACME_API_KEY", value)
    said = str(to_tool_error(ai.ModelAPIError("m", f"Illegal header value {spell(value)}"), MODEL))
    assert "[secret ACME_API_KEY]" in said
    assert "of-the-tests" not in said
