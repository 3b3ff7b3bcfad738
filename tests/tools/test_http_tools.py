"""`http_request` and `send_webhook` against real servers, and what repeating them would do."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import threading
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from servers import LOOPBACK, Received, Server, redirect, reply, serving, to_loopback, trap
from standardwebhooks.webhooks import Webhook
from tool_calls import call

from dagbok import Dagbok
from dagbok.domain.states import Effect
from dagbok.errors import ToolError
from dagbok.tools import contents
from dagbok.tools.decorator import as_tool
from dagbok.tools.egress import Egress, Fetched
from dagbok.tools.http import http_request, send_webhook
from dagbok.tools.registry import Registry

KEY = "dag-exec_1:1:2"  # of `make_call`


def use(thing: Any, **params: Any) -> Any:
    registry = Registry(egress=Egress(allow=[LOOPBACK], resolve=to_loopback))
    try:
        return asyncio.run(call(registry.add(thing), **params))
    finally:
        registry.close()


def fault(thing: Any, **params: Any) -> ToolError:
    with pytest.raises(ToolError) as caught:
        use(thing, **params)
    return caught.value


@pytest.fixture
def api() -> Iterator[Server]:
    def respond(request: Received) -> bytes:
        return reply(
            b'{"items": [1, 2]}', content_type="application/json", headers={"X-Page": "1", "Set-Cookie": "s=1"}
        )

    with serving(respond) as server:
        yield server


# -- http_request -----------------------------------------------------------------------------------------------------


def test_json_of_an_api_comes_as_json_with_status_url_and_headers(api: Server) -> None:
    found = use(http_request, url=api.url_of("api.example", "/items?key=hunter2"), params={"page": 1})
    assert found == {
        "status": 200,
        "url": api.url_of("api.example", "/items"),
        "headers": {"content-type": "application/json", "content-length": "17", "x-page": "1"},
        "body": {"items": [1, 2]},
    }
    (got,) = api.requests
    assert (got.method, got.target, got.body) == ("GET", "/items?key=hunter2&page=1", b"")
    assert "idempotency-key" not in got.headers


@pytest.mark.parametrize(
    ("content", "content_type", "body"),
    [
        (b"[1]", "application/json; charset=utf-8", [1]),
        (b"[1]", "application/problem+json", [1]),
        ("\ufeff[1]".encode(), "text/json", [1]),
        (b"null", "application/json", None),
        (b"", "application/json", ""),
        (b"", "", ""),
        (b"not json", "application/json", "not json"),
        (b"[NaN]", "application/json", "[NaN]"),
        (str(2**70).encode(), "application/json", str(2**70)),
        (b"[" * 100_000, "application/json", "[" * 100_000),
        (b'"\\u0000"', "application/json", '"\\u0000"'),
        (b'"\\ud800"', "application/json", '"\\ud800"'),
        (b"1e400", "application/json", "1e400"),
        (str(2**63 - 1).encode(), "application/json", 2**63 - 1),
        (b"[0.12345678901234567890123]", "application/json", [0.12345678901234567890123]),
        (b"[" * 201 + b"]" * 201, "application/json", "[" * 201 + "]" * 201),
        (b"[" + b"[]," * 249_998 + b"[]]", "application/json", [[]] * 249_999),
        (b"<a/>", "application/xml", "<a/>"),
        (b"<svg/>", "image/svg+xml", "<svg/>"),
        ("åäö".encode("latin-1"), "text/html; charset=latin-1", "åäö"),
        ("åäö".encode(), "", "åäö"),
        (b"\xff\xfe\xfd\xfc", "", {"base64": base64.b64encode(b"\xff\xfe\xfd\xfc").decode()}),
        (b"\x89PNG", "image/png", {"base64": base64.b64encode(b"\x89PNG").decode()}),
        (b"a\x00b", "text/plain", {"base64": base64.b64encode(b"a\x00b").decode()}),
        (b"[" + b"1," * 200_000 + b"1]", "application/json", [1] * 200_001),
    ],
)
def test_a_body_is_json_or_text_or_base64_whatever_of_these_it_is(content: bytes, content_type: str, body: Any) -> None:
    with serving(lambda request: reply(content, content_type=content_type)) as server:
        assert use(http_request, url=server.url)["body"] == body


@pytest.mark.parametrize("part", [b"[],", b"{},", b"1,", b'{"a":1},', b"[[[]]],"])
def test_json_of_too_many_parts_comes_as_text(part: bytes) -> None:
    """Parsed, 15 MB of lists would take 2 GB and hold the interpreter for seconds."""
    content = b"[" + part * 500_000 + b"0]"
    answer = Fetched(200, "", {"content-type": "application/json"}, content)
    tracemalloc.start()
    try:
        assert asyncio.run(contents.value(answer)) == content.decode()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3 * len(content) + 2**20


def test_a_content_that_takes_long_to_read_is_read_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []

    def text(answer: Fetched) -> str:
        seen.append(threading.current_thread() is threading.main_thread())
        return ""

    monkeypatch.setattr(Fetched, "text", text)
    for size in (16 * 1024, 16 * 1024 + 1):
        asyncio.run(contents.value(Fetched(200, "", {"content-type": "application/json"}, b" " * size)))
    assert seen == [True, False]


@pytest.mark.parametrize("content_type", ["", "text/plain", "text/plain; charset=utf-8", "application/json"])
def test_of_an_error_no_more_is_decoded_than_could_be_shown(content_type: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the cut falls, it is not within a character: a half one would make the whole Windows-1252."""
    sizes: list[int] = []
    whole = Fetched.text

    def text(answer: Fetched) -> str:
        sizes.append(len(answer.content))
        return whole(answer)

    monkeypatch.setattr(Fetched, "text", text)
    for before in range(4):
        content = b"x" * before + "å€😀".encode() * 200_000
        shown = contents.begin(Fetched(503, "", {"content-type": content_type}, content))
        assert shown == content.decode()[: len(shown)]
    assert all(16 * 1024 - 3 <= size <= 16 * 1024 for size in sizes)


@pytest.mark.parametrize(
    ("params", "body", "content_type"),
    [
        ({"json": {"a": [1, "å"]}}, '{"a":[1,"å"]}', "application/json"),
        ({"json": False}, "false", "application/json"),
        ({"body": "hej å"}, "hej å", "text/plain; charset=utf-8"),
        ({"body": "<a/>", "headers": {"content-type": "text/xml"}}, "<a/>", "text/xml"),
        ({"form": {"a": "1 2", "b": ["x", "y"]}}, "a=1+2&b=x&b=y", "application/x-www-form-urlencoded"),
    ],
)
def test_a_body_is_sent_as_json_text_or_a_form(params: Any, body: str, content_type: str, api: Server) -> None:
    use(http_request, url=api.url, method="post", **params)
    (got,) = api.requests
    assert (got.method, got.body.decode(), got.headers["content-type"]) == ("POST", body, content_type)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_what_changes_something_carries_the_idempotency_key(method: str, api: Server) -> None:
    use(http_request, url=api.url, method=method)
    use(http_request, url=api.url, method=method, headers={"idempotency-key": "mine"})
    assert [got.headers["idempotency-key"] for got in api.requests] == [KEY, "mine"]


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_what_changes_nothing_carries_no_idempotency_key(method: str) -> None:
    with serving(lambda request: reply()) as server:
        use(http_request, url=server.url, method=method)
        assert "idempotency-key" not in server.requests[0].headers


@pytest.mark.parametrize(
    ("auth", "name", "value"),
    [
        ({"bearer": "t0ken"}, "authorization", "Bearer t0ken"),
        ({"basic": {"username": "me", "password": "a:b"}}, "authorization", "Basic bWU6YTpi"),
        ({"header": {"name": "X-Api-Key", "value": "k"}}, "x-api-key", "k"),
    ],
)
def test_credentials_are_sent_as_asked(auth: Any, name: str, value: str, api: Server) -> None:
    use(http_request, url=api.url, auth=auth)
    assert api.requests[0].headers[name] == value


@pytest.mark.parametrize(
    "params",
    [
        {"url": "https://user:hunter2@api.example/"},
        {"url": "file:///etc/passwd"},
        {"method": "CONNECT"},
        {"method": "GET\r\nX: 1"},
        {"json": 1, "body": "x"},
        {"json": 2**70},
        {"form": {"a": {"b": 1}}},
        {"body": "\ud800"},
        {"auth": {}},
        {"auth": {"bearer": "hunter2", "basic": {"username": "a", "password": "hunter2"}}},
        {"auth": {"bearer": "hunter2\n"}},
        {"auth": {"bearer": "hunter2"}, "headers": {"authorization": "hunter2"}},
        {"auth": {"basic": {"username": "a:b", "password": "hunter2"}}},
        {"auth": {"digest": "hunter2"}},
        {"headers": {"X-A": "hunter2\r\nX-B: 1"}},
        {"headers": {"Host": "hunter2"}},
        {"timeout_seconds": 0},
        {"ok": [99]},
    ],
)
def test_a_request_that_cannot_be_sent_is_refused_and_shows_no_secret(params: Any, api: Server) -> None:
    error = fault(http_request, **{"url": api.url} | params)
    assert error.code == "invalid_input"
    assert "hunter2" not in str(error)
    assert not api.connections


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "invalid_input"), (401, "refused"), (403, "refused"), (404, "not_found"), (407, "refused"),
        (408, "unavailable"), (409, "invalid_input"), (410, "not_found"), (422, "invalid_input"), (429, "rate_limited"),
        (500, "unavailable"), (502, "unavailable"), (503, "unavailable"), (599, "unavailable"), (300, "bad_response"),
        (302, "bad_response"),
    ],
)  # fmt: skip
def test_a_status_without_success_is_an_error_of_its_class(status: int, code: str) -> None:
    with serving(lambda request: reply(b"because\r\n  of this", status=status)) as server:
        error = fault(http_request, url=server.url_of("api.example", "/p?key=hunter2"))
    assert (error.code, error.status) == (code, status)
    assert error.message.startswith(f"GET {server.url_of('api.example', '/p')} answers {status}")
    assert error.message.endswith(": because of this")
    assert "retry_after_s" not in error.fields


def test_the_message_shows_how_a_long_body_begins_and_nothing_of_one_that_is_no_text() -> None:
    with serving(lambda request: reply(b"x" * 5000, status=500)) as server:
        assert fault(http_request, url=server.url).message.endswith(": " + "x" * 300)
    with serving(lambda request: reply(b"\x89PNG", status=500, content_type="image/png")) as server:
        assert fault(http_request, url=server.url).message.endswith("answers 500 Internal Server Error.")


def test_the_wait_that_a_server_asks_for_is_told() -> None:
    for status, code in ((429, "rate_limited"), (503, "unavailable")):
        with serving(lambda request: reply(status=status, headers={"Retry-After": "7"})) as server:  # noqa: B023
            for method in ("GET", "POST"):
                error = fault(http_request, url=server.url, method=method)
                assert (error.code, error.retry_after_s, error.fields.get("sent")) == (code, 7, None)


def test_a_wait_that_is_no_time_does_not_hide_what_the_server_answered() -> None:
    with serving(lambda request: reply(status=503, headers={"Retry-After": "soon"})) as server:
        error = fault(http_request, url=server.url)
    assert (error.code, error.status, "retry_after_s" in error.fields) == ("unavailable", 503, False)


def test_the_wait_can_be_given_as_a_date() -> None:
    due = datetime.now(UTC) + timedelta(hours=2)
    with serving(
        lambda request: reply(status=503, headers={"Retry-After": format_datetime(due, usegmt=True)})
    ) as server:
        error = fault(http_request, url=server.url)
    left_s = (due - datetime.now(UTC)).total_seconds()
    assert left_s - 1 <= error.retry_after_s <= 7200  # dates have whole seconds


def test_statuses_can_be_called_a_success(api: Server) -> None:
    with serving(lambda request: reply(b"gone", status=404)) as server:
        assert use(http_request, url=server.url, ok=[200, 404])["status"] == 404
    assert fault(http_request, url=api.url, ok=[404]).status == 200


def test_a_redirect_that_is_not_followed_is_a_success(api: Server) -> None:
    with serving(lambda request: redirect(api.url)) as server:
        found = use(http_request, url=server.url, follow_redirects=False)
        assert (found["status"], found["headers"]["location"]) == (302, api.url)
        assert use(http_request, url=server.url)["url"] == api.url
    assert len(api.requests) == 1


def test_limits_of_the_call_are_heeded(api: Server) -> None:
    assert fault(http_request, url=api.url, max_bytes=16).code == "too_large"
    assert use(http_request, url=api.url, max_bytes=17)["status"] == 200

    async def silence() -> Any:
        await asyncio.Event().wait()
        yield b""

    with serving(lambda request: silence()) as server:
        assert fault(http_request, url=server.url, timeout_seconds=0.1).code == "timeout"


async def _silence() -> Any:
    await asyncio.Event().wait()
    yield b""


async def _cut() -> Any:
    yield b"HTTP/1.1 200 X\r\nContent-Length: 9\r\n\r\nhalf"


#: What a server does after it was sent the whole request, and the code of a request that may be repeated.
HALVES = [
    (lambda: _silence(), "timeout"),
    (lambda: _cut(), "unavailable"),
    (lambda: reply(b"x" * 99), "too_large"),
    (lambda: reply(b"?", headers={"Content-Encoding": "br"}), "bad_response"),
    (lambda: redirect("http://10.0.0.1/", 303), "refused_address"),
]


@pytest.mark.parametrize(("respond", "code"), HALVES)
@pytest.mark.parametrize("method", ["POST", "patch", "GET", "PUT", "DELETE"])
def test_of_what_must_not_be_repeated_it_is_said_that_it_may_have_happened(
    method: str, respond: Any, code: str
) -> None:
    """Also after a redirect that asks for a GET elsewhere, by which a server says that it has acted."""
    if code == "refused_address" and method not in ("POST", "GET"):
        return
    with serving(lambda request: respond()) as server:
        timeout_s = 0.3 if code == "timeout" else 20
        error = fault(http_request, url=server.url, method=method, max_bytes=50, timeout_seconds=timeout_s)
    assert error.sent is True
    if method in ("GET", "PUT", "DELETE"):
        assert (error.code, "cause" in error.fields) == (code, False)
        return
    assert (error.code, error.cause) == ("outcome_unknown", code)
    assert f"not known whether the server acted on this {method.upper()}" in error.message
    assert f"({code}: " in error.message
    assert "Idempotency-Key" in error.message


@pytest.mark.parametrize(("respond", "code"), HALVES[:2])
def test_of_a_webhook_it_is_said_that_it_may_have_arrived(respond: Any, code: str) -> None:
    with serving(lambda request: respond()) as server:
        error = fault(send_webhook, url=server.url, payload=1, timeout_seconds=0.3)
    assert (error.code, error.cause) == ("outcome_unknown", code)


@pytest.mark.parametrize("status", [408, 502, 503, 504, 520, 524])
def test_of_what_a_gateway_answers_alone_nobody_knows_whether_it_happened(status: int) -> None:
    with serving(lambda request: reply(b"upstream is\ngone", status=status)) as server:
        for thing, params in ((http_request, {"method": "POST"}), (http_request, {"method": "patch"}), HOOK):
            error = fault(thing, url=server.url, **params)
            assert (error.code, error.cause, error.status) == ("outcome_unknown", "unavailable", status)
            assert f"answers {status}" in error.message
            assert "upstream is gone" in error.message
            assert "Look there for what it would have done before sending it again" in error.message
        for method in ("GET", "HEAD", "OPTIONS", "PUT", "DELETE"):
            error = fault(http_request, url=server.url, method=method)
            assert (error.code, error.status, "cause" in error.fields) == ("unavailable", status, False)


@pytest.mark.parametrize("status", [500, 501, 505, 507, 599])
def test_a_server_that_fails_within_has_answered_but_after_who_knows_what(status: int) -> None:
    """So it is no `unavailable`, which is repeated by default."""
    with serving(lambda request: reply(b"a bug", status=status, headers={"Retry-After": "1"})) as server:
        for thing, params in ((http_request, {"method": "POST"}), HOOK):
            error = fault(thing, url=server.url, **params)
            assert (error.code, error.status, "cause" in error.fields) == ("server_error", status, False)
            assert error.message.startswith("The server failed at this POST (POST http://")
            assert error.message.endswith(": a bug). Look there for what it did before sending it again.")
        for method in ("GET", "PUT", "DELETE"):
            assert fault(http_request, url=server.url, method=method).code == "unavailable"


def test_a_server_that_says_when_to_come_back_has_done_nothing() -> None:
    with serving(lambda request: reply(status=503, headers={"Retry-After": "7"})) as server:
        for thing, params in ((http_request, {"method": "POST"}), HOOK):
            error = fault(thing, url=server.url, **params)
            assert (error.code, error.retry_after_s, "sent" in error.fields) == ("unavailable", 7, False)


def test_a_status_that_is_called_a_success_leaves_no_doubt() -> None:
    with serving(lambda request: reply(status=502)) as server:
        assert use(http_request, url=server.url, method="POST", ok=[502])["status"] == 502


HOOK = (send_webhook, {"payload": 1})


def test_what_was_not_sent_or_was_answered_did_not_happen_in_the_dark(api: Server) -> None:
    with trap() as listener:
        nowhere = f"http://{LOOPBACK}:{listener.getsockname()[1]}/"
    for thing, params in ((http_request, {"method": "POST"}), (send_webhook, {"payload": 1})):
        error = fault(thing, url=nowhere, **params)
        assert (error.code, error.sent) == ("unavailable", False)
        for status, code in ((400, "invalid_input"), (401, "refused"), (404, "not_found"), (429, "rate_limited")):
            with serving(lambda request: reply(status=status)) as server:  # noqa: B023
                assert fault(thing, url=server.url, **params).code == code
    with serving(lambda request: redirect(api.url, 307)) as server:
        assert fault(http_request, url=server.url, method="POST", body="x").code == "refused_redirect"
    with serving(lambda request: redirect("/", 307)) as server:
        assert fault(http_request, url=server.url, method="POST", body="x").code == "too_many_redirects"


def test_whoever_gives_a_long_time_limit_is_told_of_the_other_one() -> None:
    for thing in (http_request, send_webhook):
        part = as_tool(thing).parameters["properties"]["timeout_seconds"]
        assert "usually 300" in json.dumps(part)


@pytest.mark.parametrize(
    ("params", "effect"),
    [
        ({}, "pure"),
        *(({"method": method}, "pure") for method in ("GET", "get", "HEAD", "OPTIONS")),
        *(({"method": method}, "idempotent") for method in ("PUT", "DELETE", "delete")),
        *(({"method": method}, "once") for method in ("POST", "PATCH", "Post", "", "NONSENSE", " GET")),
        ({"method": "<Result from Task 1>"}, "once"),
        ({"method": "{{ tasks.1.result }}"}, "once"),
        ({"method": {"secret": "METHOD"}}, "once"),
        ({"method": ["GET"]}, "once"),
        ({"method": None}, "once"),
        ({"method": 1}, "once"),
    ],
)
def test_the_effect_of_a_request_is_that_of_its_method(params: Any, effect: str) -> None:
    made = as_tool(http_request)
    assert made.effect_of({"url": "http://api.example/", **params}) is Effect(effect)
    assert made.effect is Effect.ONCE


def test_a_plan_keeps_the_effect_of_each_method_and_runs(api: Server, tmp_path: Path) -> None:
    tasks = [
        {
            "id": str(i),
            "tool_or_prompt": {"name": "httpRequest", "params": {"url": api.url, "method": method}},
            "dependencies": [str(i - 1)] if i else [],
        }
        for i, method in enumerate(["GET", "PUT", "POST"])
    ]
    plan = {"original_request": "x", "intent": {"primary": "x"}, "sub_tasks": tasks}

    async def main() -> dict[str, str]:
        url = f"sqlite:///{tmp_path / 'diary.db'}"
        async with Dagbok(url, tools=[http_request], egress_allow=[api.place]) as dagbok:
            execution = await dagbok.run(plan)
            assert execution.status == "completed", [step.error for step in execution.sub_steps]
            return {step.task_id: str(step.effect) for step in execution.sub_steps}

    assert asyncio.run(main()) == {"0": "pure", "1": "idempotent", "2": "once"}
    assert api.connections == 1  # an engine keeps it between steps


def test_an_engine_refuses_what_its_settings_do_not_allow(api: Server, tmp_path: Path) -> None:
    task = {"id": "1", "tool_or_prompt": {"name": "http_request", "params": {"url": api.url}}}
    plan = {"original_request": "x", "intent": {"primary": "x"}, "sub_tasks": [task]}

    async def main() -> str | None:
        async with Dagbok(f"sqlite:///{tmp_path / 'diary.db'}", tools=[http_request]) as dagbok:
            execution = await dagbok.run(plan)
            return execution.sub_steps[0].error_code

    assert asyncio.run(main()) == "refused_address"
    assert not api.connections


# -- send_webhook -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("secret", ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "any text, åäö"])
def test_a_webhook_is_signed_so_that_its_receiver_can_check_it(secret: str, api: Server) -> None:
    found = use(send_webhook, url=api.url, payload={"a": "å"}, secret=secret, headers={"X-Mine": "1"})
    (got,) = api.requests
    assert (got.method, got.headers["content-type"], got.headers["x-mine"]) == ("POST", "application/json", "1")
    assert got.headers["idempotency-key"] == KEY
    assert found == {"status": 200, "id": got.headers["webhook-id"]}
    receiver = Webhook(secret if secret.startswith("whsec_") else secret.encode())
    assert receiver.verify(got.body, got.headers) == {"a": "å"}
    with pytest.raises(Exception, match="No matching signature"):
        receiver.verify(got.body + b" ", got.headers)


def test_the_id_of_a_webhook_is_the_same_for_every_attempt_and_unsigned_ones_have_no_signature(api: Server) -> None:
    for _ in range(2):
        use(send_webhook, url=api.url, payload=None)
    first, second = api.requests
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert "webhook-signature" not in first.headers
    assert first.body == b"null"


def test_an_event_type_wraps_the_payload_as_standard_webhooks_has_it(api: Server) -> None:
    use(send_webhook, url=api.url, payload=[1], event_type="invoice.paid")
    body = json.loads(api.requests[0].body)
    assert (body["type"], body["data"], set(body)) == ("invoice.paid", [1], {"type", "data", "timestamp"})
    assert datetime.fromisoformat(body["timestamp"]).tzinfo is not None


@pytest.mark.parametrize(
    "params",
    [{"secret": "whsec_hunter2\x00%"}, {"secret": "whsec_"}, {"payload": 2**70}, {"headers": {"Webhook-Id": "mine"}}],
)
def test_a_webhook_that_cannot_be_sent_is_refused(params: Any, api: Server) -> None:
    error = fault(send_webhook, **{"url": api.url, "payload": 1} | params)
    assert error.code == "invalid_input"
    assert "hunter2" not in str(error)
    assert not api.connections


def test_a_webhook_follows_no_redirect_and_needs_a_success(api: Server) -> None:
    with serving(lambda request: redirect(api.url, 307)) as server:
        assert fault(send_webhook, url=server.url, payload=1).code == "bad_response"
    with serving(lambda request: reply(status=400)) as server:
        assert fault(send_webhook, url=server.url, payload=1).code == "invalid_input"
    assert not api.connections


def test_both_tools_have_their_aliases_and_log_nothing_of_a_request(
    api: Server, caplog: pytest.LogCaptureFixture
) -> None:
    registry = Registry(egress=Egress(allow=[LOOPBACK]))
    registry.load_module("dagbok.tools.http")
    assert registry.names() == ["http_request", "send_webhook"]
    assert registry.get("httpRequest") is registry.get("http_request")
    assert registry.get("sendWebhook") is registry.get("send_webhook")
    registry.close()
    with caplog.at_level(logging.INFO):
        use(http_request, url=api.url, auth={"bearer": "hunter2"})
    assert "hunter2" not in caplog.text
