from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from urllib.parse import quote

import httpx2
import pytest
from pydantic_ai import exceptions as ai
from pydantic_ai.models.test import TestModel

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
        (ai.ModelContextWindowExceededError("m", "too long"), "invalid_input"),
        (ai.UserError("wrong"), "invalid_input"),
        (ai.ModelHTTPError(500, "m"), "unavailable"),
        (ai.ModelHTTPError(529, "m"), "unavailable"),
        (ai.ModelHTTPError(408, "m"), "unavailable"),
        (ai.ModelConnectionError("m", "refused"), "unavailable"),
        (ai.ModelAPIError("m", "something"), "unavailable"),
        (httpx2.ConnectError("refused"), "unavailable"),
        (httpx2.ReadTimeout(""), "unavailable"),
        (ConnectionResetError(), "unavailable"),
        (TimeoutError(), "unavailable"),
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


def test_a_provider_that_says_when_to_come_back_is_heard() -> None:
    error = to_tool_error(ai.ModelHTTPError(429, "m", headers={"Retry-After": "7"}), MODEL)
    assert error.retry_after_s == 7
    assert error.status == 429


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
