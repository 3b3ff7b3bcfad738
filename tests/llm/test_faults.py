from __future__ import annotations

import pickle

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
