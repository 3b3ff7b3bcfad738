"""What a client may get wrong, over real HTTP: each is told what, where and by which code; nothing is stored."""

from __future__ import annotations

import itertools
import json
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from api.serving import Server, dumps, plan, task

MEBIBYTE = 2**20
PARAMS = "/sub_tasks/0/tool_or_prompt/params"


@pytest.fixture(autouse=True)
def nothing_is_stored(server: Server) -> Iterator[None]:
    before = server.client.get("/api/v1/dag-executions").json()["pagination"]["total"]
    yield
    assert server.client.get("/api/v1/dag-executions").json()["pagination"]["total"] == before
    assert server.client.get("/health/ready").status_code == 200


def refused(answer: Any, status: int, code: str) -> dict[str, Any]:
    """Check a problem as a whole and return it."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert set(body) == {"type", "title", "status", "detail", "code", "instance", "errors", "requestId"}
    assert (body["status"], body["code"], body["instance"]) == (status, code, "/api/v1/execute-dag")
    assert body["type"] == f"/docs#{code}"
    assert body["title"]
    assert body["detail"]
    return body


def faults(body: dict[str, Any]) -> set[tuple[str, str]]:
    return {(error["pointer"], error["code"]) for error in body["errors"]}


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("", "line 1, column 1"),
        ("{", "line 1, column 2"),
        ('{"a": 1,\n "b" 2}', "line 2, column 6"),
        ("plan: yes", "line 1, column 1"),
        ("{} {}", "line 1, column 4"),
        ("{'a': 1}", "line 1, column 2"),
    ],
)
def test_malformed_json_is_told_with_line_and_column(server: Server, text: str, place: str) -> None:
    body = refused(server.post_raw(text), 400, "malformed_json")
    assert place in body["detail"]


def test_bytes_that_are_no_utf_8_are_malformed(server: Server) -> None:
    refused(server.post_raw(b'{"a": "\xff"}'), 400, "malformed_json")


@pytest.mark.parametrize("document", [[], [plan()], "plan", 3, None, True])
def test_a_body_that_is_no_object_is_refused(server: Server, document: Any) -> None:
    body = refused(server.post_raw(dumps(document)), 422, "invalid_input")
    assert faults(body) == {("", "bad_value")}


WRONG: list[tuple[str, Any, str, str]] = [
    ("nothing", {}, "/original_request", "missing_field"),
    ("sub_tasks", plan() | {"sub_tasks": {}}, "/sub_tasks", "bad_value"),
    ("no tasks", plan(), "/sub_tasks", "empty_plan"),
    ("request", plan(task(1)) | {"original_request": 5}, "/original_request", "bad_value"),
    ("id", plan(task(1) | {"id": [1]}), "/sub_tasks/0/id", "bad_value"),
    ("params", plan(task(1) | {"tool_or_prompt": {"name": "echo", "params": 1}}), PARAMS, "bad_value"),
    ("timeout", plan(task(1) | {"timeout_seconds": "soon"}), "/sub_tasks/0/timeout_seconds", "bad_value"),
    ("no time", plan(task(1) | {"timeout_seconds": 0}), "/sub_tasks/0/timeout_seconds", "bad_value"),
    ("less time", plan(task(1) | {"timeout_seconds": -5}), "/sub_tasks/0/timeout_seconds", "bad_value"),
    ("no silence", plan(task(1) | {"idle_timeout_seconds": 0}), "/sub_tasks/0/idle_timeout_seconds", "bad_value"),
    ("attempts", plan(task(1) | {"retry": {"max_attempts": 10**9}}), "/sub_tasks/0/retry/max_attempts", "bad_value"),
    ("no attempts", plan(task(1) | {"retry": {"max_attempts": 0}}), "/sub_tasks/0/retry/max_attempts", "bad_value"),
    ("back-off", plan(task(1) | {"retry": {"backoff_seconds": -1}}), "/sub_tasks/0/retry/backoff_seconds", "bad_value"),
    ("factor", plan(task(1) | {"retry": {"factor": 0.5}}), "/sub_tasks/0/retry/factor", "bad_value"),
    ("jitter", plan(task(1) | {"retry": {"jitter": 2}}), "/sub_tasks/0/retry/jitter", "bad_value"),
    ("codes", plan(task(1) | {"retry": {"retry_on": "timeout"}}), "/sub_tasks/0/retry/retry_on", "bad_value"),
    (
        "never", plan(task(1) | {"retry": {"retry_on": ["timeout", "invalid_input"]}}),
        "/sub_tasks/0/retry/retry_on/1", "bad_value",
    ),
    ("pause NaN", plan(task(1) | {"retry": {"jitter": float("nan")}}), "/sub_tasks/0/retry/jitter", "not_json"),
    ("retry", plan(task(1) | {"retry": 3}), "/sub_tasks/0/retry", "bad_value"),
    ("tool", plan(task(1, "no_such_tool")), "/sub_tasks/0/tool_or_prompt/name", "unknown_tool"),
    ("tool params", plan(task(1, "wait", seconds=-1)), f"{PARAMS}/seconds", "invalid_params"),
    ("cycle", plan(task(1, "echo", 2), task(2, "echo", 1)), "/sub_tasks/0/dependencies", "cycle"),
    ("itself", plan(task(1, "echo", 1)), "/sub_tasks/0/dependencies/0", "self_dependency"),
    ("dependency", plan(task(1, "echo", "7")), "/sub_tasks/0/dependencies/0", "unknown_dependency"),
    ("reference", plan(task(1, value="<Result from Task 9>")), f"{PARAMS}/value", "unknown_reference"),
    ("ids", plan(task(1), task("1")), "/sub_tasks/1/id", "duplicate_id"),
    ("NaN", plan(task(1, value=float("nan"))), f"{PARAMS}/value", "not_json"),
    ("infinity", plan(task(1, value=[float("-inf")])), f"{PARAMS}/value/0", "not_json"),
    ("2**70", plan(task(1, value={"n": 2**70})), f"{PARAMS}/value/n", "not_json"),
    ("NUL", plan(task(1, value="a\0b")), f"{PARAMS}/value", "not_json"),
    ("surrogate", plan(task(1, value="\ud800")), f"{PARAMS}/value", "not_json"),
    ("key", plan(task(1, value={"\udc00": 1})), f"{PARAMS}/value", "not_json"),
    ("request NUL", plan(task(1)) | {"original_request": "\0"}, "/original_request", "not_json"),
]  # fmt: skip


@pytest.mark.parametrize(("document", "pointer", "code"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG])
def test_a_wrong_plan_is_told_where_and_how(server: Server, document: Any, pointer: str, code: str) -> None:
    """Bare, the pointer leads into the plan; in an envelope, through `/plan`."""
    bare = refused(server.post_raw(dumps(document)), 422, "invalid_plan")
    assert (pointer, code) in faults(bare)
    wrapped = refused(server.post_raw(dumps({"plan": document})), 422, "invalid_plan")
    assert (f"/plan{pointer}", code) in faults(wrapped)


@pytest.mark.parametrize("escaped", ['"\\ud800"', '"a\\u0000"', "1e999", "-Infinity", "9223372036854775808"])
def test_what_only_json_text_can_say_is_found_too(server: Server, escaped: str) -> None:
    text = dumps(plan(task(1, value="HERE"))).replace('"HERE"', escaped)
    body = refused(server.post_raw(text), 422, "invalid_plan")
    assert faults(body) == {(f"{PARAMS}/value", "not_json")}


@pytest.mark.parametrize("depth", [199, 5_000, 500_000])
def test_endless_nesting_is_refused(server: Server, depth: int) -> None:
    text = dumps(plan(task(1, value="HERE"))).replace('"HERE"', "[" * depth + "]" * depth)
    answer = server.post_raw(text)
    assert answer.status_code == 422
    assert {error["code"] for error in answer.json()["errors"]} == {"not_json"}


def test_endless_digits_are_refused(server: Server) -> None:
    text = dumps(plan(task(1, value="HERE"))).replace('"HERE"', "9" * 100_000)
    refused(server.post_raw(text), 422, "not_json")


def test_every_fault_is_told_at_once(server: Server) -> None:
    """Those of the options too: a client should not have to mend one to learn of the next."""
    document = {"plan": plan(task(1, "nope"), task(1)), "options": {"priority": 3, "title": 5}, "what": 1}
    body = refused(server.post_raw(dumps(document)), 422, "invalid_plan")
    assert faults(body) == {
        ("/plan/sub_tasks/0/tool_or_prompt/name", "unknown_tool"),
        ("/plan/sub_tasks/1/id", "duplicate_id"),
        ("/options/priority", "unsupported_option"),
        ("/options/title", "bad_value"),
        ("/what", "unknown_field"),
    }


@pytest.mark.parametrize(
    ("options", "pointer", "code"),
    [
        ({"startAt": "2030-01-01"}, "/options/startAt", "unsupported_option"),
        ({"deadlineSeconds": -1}, "/options/deadlineSeconds", "bad_value"),
        ({"deadlineSeconds": 0}, "/options/deadlineSeconds", "bad_value"),
        ({"deadlineSeconds": 366 * 86_400 + 1}, "/options/deadlineSeconds", "bad_value"),
        ({"deadlineSeconds": "60"}, "/options/deadlineSeconds", "bad_value"),
        ({"deadlineSeconds": True}, "/options/deadlineSeconds", "bad_value"),
        ({"deadlineSeconds": float("nan")}, "/options/deadlineSeconds", "not_json"),
        ({"deadlineSeconds": 2**70}, "/options/deadlineSeconds", "not_json"),
        ({"deadline_seconds": -1}, "/options/deadline_seconds", "bad_value"),
        ({"deadlineSeconds": 1, "deadline_seconds": 2}, "/options/deadline_seconds", "unsupported_option"),
        ({"webhook_url": "http://x"}, "/options/webhook_url", "unsupported_option"),
        ({"title": "x" * 501}, "/options/title", "bad_value"),
        ({"title": "\0"}, "/options/title", "not_json"),
        ({"labels": {"a": 1}}, "/options/labels/a", "bad_value"),
        ({"labels": {"\ud800": "a"}}, "/options/labels", "not_json"),
        ({"labels": {str(n): "" for n in range(101)}}, "/options/labels", "bad_value"),
        ([], "/options", "bad_value"),
        ("fast", "/options", "bad_value"),
    ],
)
def test_options_that_cannot_be_used_are_named(server: Server, options: Any, pointer: str, code: str) -> None:
    body = refused(server.post_raw(dumps({"plan": plan(task(1)), "options": options})), 422, "invalid_input")
    assert faults(body) == {(pointer, code)}


def test_an_unsupported_option_is_named_with_those_there_are(server: Server) -> None:
    body = refused(server.post_raw(dumps({"plan": plan(task(1)), "options": {"priority": 1}})), 422, "invalid_input")
    assert (
        body["errors"][0]["detail"]
        == "This release knows no option `priority`; it knows title, labels, deadlineSeconds, failurePolicy."
    )


def test_a_name_that_no_text_holds_is_told_all_the_same(server: Server) -> None:
    refused(server.post_raw('{"plan": {}, "\\ud800": 1}'), 422, "invalid_plan")


@pytest.mark.parametrize(
    ("document", "status"),
    [
        ({"dagId": "dag_nothing"}, 404),
        ({"dagId": 5}, 422),
        ({"dagId": "dag_1", "plan": {}}, 422),
        ({"dagId": "\0"}, 422),
    ],
)
def test_a_dag_that_is_not_there_is_refused(server: Server, document: Any, status: int) -> None:
    assert server.post_raw(dumps(document)).status_code == status


def test_10_001_sub_tasks_are_too_many(server: Server) -> None:
    document = plan(*(task(n) for n in range(10_001)))
    body = refused(server.post_raw(dumps(document)), 413, "too_large")
    assert faults(body) == {("/sub_tasks", "too_many_tasks")}
    assert "10,001" in body["detail"]


def test_a_plan_wrong_in_10_000_places_lists_the_first_1_000(server: Server) -> None:
    document = plan(*(task(n, f"tool_{n}") for n in range(10_000)))
    body = refused(server.post_raw(dumps(document)), 422, "invalid_plan")
    assert len(body["errors"]) == 1000
    assert "The first 1,000 of 10,000 are listed." in body["detail"]


def test_a_plan_over_8_mebibytes_is_too_large_though_its_body_is_not(server: Server) -> None:
    document = plan(task(1, value="x" * (8 * MEBIBYTE + 10)))
    body = refused(server.post_raw(dumps(document)), 413, "too_large")
    assert faults(body) == {("", "too_large")}


def test_a_body_of_9_mebibytes_is_refused_by_its_length(server: Server) -> None:
    refused(server.post_raw(b" " * (9 * MEBIBYTE)), 413, "too_large")
    status, _, _ = server.send(*_head(f"Content-Length: {9 * MEBIBYTE}"))  # not one byte of it was sent
    assert status == 413


def test_a_body_without_a_length_is_refused_once_it_is_too_large(server: Server) -> None:
    chunks = itertools.repeat(b" " * MEBIBYTE, 9)
    answer = server.client.post("/api/v1/execute-dag", content=chunks, headers={"content-type": "application/json"})
    refused(answer, 413, "too_large")
    assert "connection" not in answer.headers, "it ended soon, so the connection lives on"


def test_a_body_without_end_is_cut_off(server: Server) -> None:
    """The server reads on for a while, then answers and closes; it does not read for ever."""
    sent = 0

    def send_on(sock: socket.socket) -> None:
        nonlocal sent
        sock.sendall("\r\n".join([*_head("Transfer-Encoding: chunked"), "", ""]).encode())
        while sent < 200:
            sock.sendall(b"100000\r\n" + b" " * MEBIBYTE + b"\r\n")
            sent += 1

    with (
        socket.create_connection(("127.0.0.1", server.port), 20) as sock,
        pytest.raises((BrokenPipeError, ConnectionResetError)),
    ):
        send_on(sock)
    assert 8 <= sent < 40


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "", "json"]
)
def test_only_json_is_taken(server: Server, content_type: str) -> None:
    refused(server.post_raw(dumps(plan(task(1))), content_type=content_type), 415, "unsupported_media_type")


def test_a_body_without_a_content_type_is_refused(server: Server) -> None:
    status, headers, _ = server.send(
        "POST /api/v1/execute-dag HTTP/1.1", "Host: localhost", "Content-Length: 2", body=b"{}"
    )
    assert (status, headers["content-type"]) == (415, "application/problem+json")


@pytest.mark.parametrize(
    "headers", [{"content_type": "application/json; charset=latin-1"}, {"content_encoding": "gzip"}]
)
def test_only_plain_utf_8_is_taken(server: Server, headers: dict[str, str]) -> None:
    refused(server.post_raw(dumps(plan(task(1))), **headers), 415, "unsupported_media_type")


@pytest.mark.parametrize(
    "content_type", ["application/json; charset=UTF-8", "APPLICATION/JSON", "application/plan+json"]
)
def test_json_by_other_names_is_taken(server: Server, content_type: str) -> None:
    answer = server.post_raw("[]", content_type=content_type)
    assert answer.status_code == 422


def test_an_unknown_path_and_a_wrong_method_are_problems_too(server: Server) -> None:
    for method, path, status, code in (
        ("GET", "/api/v1/nothing", 404, "not_found"),
        ("GET", "/api/v1/tools/", 404, "not_found"),
        ("GET", "/api/v1/execute-dag", 405, "method_not_allowed"),
        ("PATCH", "/api/v1/dag-executions/1", 405, "method_not_allowed"),
    ):
        answer = server.client.request(method, path)
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["allow"] == "DELETE, GET, HEAD"


def _head(length: str) -> list[str]:
    return ["POST /api/v1/execute-dag HTTP/1.1", "Host: localhost", "Content-Type: application/json", length]


def test_a_client_that_sends_all_before_it_reads_hears_that_it_was_too_much(server: Server) -> None:
    """The standard library's client closes with the request: a server that closes first resets the connection."""
    request = urllib.request.Request(
        f"{server.url}/api/v1/execute-dag", data=b" " * (9 * 2**20), headers={"Content-Type": "application/json"}
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=30)
    with refused.value as answer:
        assert (answer.code, json.loads(answer.read())["code"]) == (413, "too_large")
