"""The one table from errors to problems, without a server: complete, and silent about what is not for clients."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from dagbok import errors
from dagbok.api import problems
from dagbok.domain.validate import Problem
from dagbok.errors import DagbokError

SCOPE: dict[str, Any] = {
    "type": "http", "method": "GET", "path": "/api/v1/tools", "state": {"request_id": "request-7"}
}  # fmt: skip
SECRET = "postgresql://root:hunter2@db.internal/dagbok"


def all_errors() -> list[type[DagbokError]]:
    found = [errors.DagbokError]
    for kind in found:
        found += kind.__subclasses__()
    return [kind for kind in found if kind.__module__ == "dagbok.errors"]


def told(error: Exception) -> tuple[dict[str, Any], dict[str, str]]:
    answer = problems.of(error, SCOPE)
    return json.loads(bytes(answer.body)), dict(answer.headers)


@pytest.mark.parametrize("kind", all_errors())
def test_every_error_is_a_problem_with_a_code_that_is_explained(kind: type[DagbokError]) -> None:
    body, headers = told(kind(SECRET))
    assert headers["content-type"] == "application/problem+json"
    assert body["code"] in problems.CODES
    assert body["requestId"] == "request-7"
    if body["status"] >= 500:
        assert SECRET not in json.dumps(body)
        assert "request-7" in body["detail"]
    if body["status"] == 503:
        assert int(headers["retry-after"]) > 0


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.MalformedJson(), 400),
        (errors.NotFound(), 404),
        (errors.Conflict(), 409),
        (errors.TooLarge(), 413),
        (errors.NotJson(), 422),
        (errors.InvalidPlan(), 422),
        (errors.BadReference(), 422),
        (errors.StoreUnavailable(), 503),
        (errors.OutcomeUnknown(), 503),
        (errors.StoreRejected(), 500),
        (errors.Stalled(), 500),
        (RuntimeError(SECRET), 500),
    ],
)
def test_the_status_of_an_error(error: Exception, status: int) -> None:
    assert told(error)[0]["status"] == status


def test_a_fault_of_ours_is_logged_under_the_id_that_the_client_sees(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        body, _ = told(RuntimeError(SECRET))
    assert SECRET not in json.dumps(body)
    assert body["requestId"] in caplog.text
    assert SECRET in caplog.text


def test_a_write_whose_outcome_is_unknown_names_the_execution_to_look_for() -> None:
    body, _ = told(errors.OutcomeUnknown(SECRET, execution_id="dag-exec_7"))
    assert body["detail"].startswith("It is not known whether this was written. Look before you try again.")
    assert "execution dag-exec_7" in body["detail"]
    assert "execution" not in told(errors.OutcomeUnknown())[0]["detail"]


def test_every_status_of_http_is_explained() -> None:
    for status, (code, _) in problems.HTTP_FAULTS.items():
        assert told(HTTPException(status, "x"))[0]["code"] == code
        assert code in problems.CODES


def test_a_parameter_is_named() -> None:
    fault = {"loc": ("query", "limit"), "msg": "Input should be greater than 0", "type": "greater_than", "input": "0"}
    body, _ = told(RequestValidationError([fault]))
    detail = "`limit` is '0'; it has to be greater than 0."
    assert body["errors"] == [{"pointer": "/limit", "code": "bad_value", "detail": detail}]


def test_what_no_text_holds_is_told_all_the_same() -> None:
    fault = Problem("/\ud800", "bad_value", "The name \ud800 is odd.")
    body, _ = told(errors.BadInput("\ud800", problems=(fault,)))
    assert body["errors"][0]["pointer"] == "/\\ud800"
