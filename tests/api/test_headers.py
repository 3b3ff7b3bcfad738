"""What request headers ask for: by the RFCs, and by clients that never read one."""

from __future__ import annotations

import json

import pytest
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException

from api.serving import Server, plan, task
from dagbok.api import headers
from dagbok.domain.idempotency import MAX_KEY_CHARS, check_key, request_hash
from dagbok.errors import BadInput


def sent(name: str, *values: str) -> Headers:
    return Headers(raw=[(name.encode(), value.encode("latin-1")) for value in values])


@pytest.mark.parametrize(
    ("values", "seconds"),
    [
        (("wait=10",), 10),
        (("WAIT=10",), 10),
        (("wait = 10",), 10),
        (('wait="10"',), 10),
        (("wait=007",), 7),
        (("wait=60",), 60),
        (("wait=61",), 60),
        (("wait=" + "9" * 60_000,), 60),
        (("wait=0",), 0),
        (("respond-async, wait=5",), 5),
        (("respond-async; x=1; y, wait=5; z=\"a,b\"",), 5),
        (("respond-async", "handling=lenient", "wait=5"), 5),
        (('note="a, wait=3", wait=5',), 5),
        (('note="a\\", wait=3", wait=5',), 5),
        (("wait=5, wait=9",), 5),
        (("wait=5", "wait=9"), 5),
        (("=5, wait=9",), 9),
        (("a b, wait=9",), 9),
        ((",,, wait=9,",), 9),
        ((", ".join(["x=1"] * 10_000) + ", wait=9",), 9),
        # What is no wish to wait.
        ((), 0),
        (("",), 0),
        (("wait",), 0),
        (("wait=",), 0),
        (("wait=-1",), 0),
        (("wait=1.5",), 0),
        (("wait=soon",), 0),
        (("wait=1 2",), 0),
        (("wait=\x01",), 0),
        (("wait=\xb2",), 0),
        (("waiting=5",), 0),
        (("no;wait=5",), 0),
        (('x="open, wait=5',), 0),
        (('"' * 30_001 + "wait=5",), 0),
        (('"' + '\\"' * 30_000 + ", wait=5",), 0),
    ],
)  # fmt: skip
def test_a_wish_to_wait(values: tuple[str, ...], seconds: int) -> None:
    assert headers.wait_s(sent("prefer", *values)) == seconds


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ((), None),
        (("abc",), "abc"),
        (('"abc"',), "abc"),
        (('  "abc" ',), "abc"),
        (('"a\\"b\\\\c"',), 'a"b\\c'),
        (('a"b',), 'a"b'),
        (('""',), ""),
    ],
)
def test_a_key_is_bare_or_quoted(values: tuple[str, ...], key: str | None) -> None:
    assert headers.idempotency_key(sent("idempotency-key", *values)) == key


@pytest.mark.parametrize(
    "values", [("a", "b"), ("a", "a"), ('"a',), ('"',), ('"a"b',), ('"a"; p=1',), ('"a", "b"',), ('"a\\x"',)]
)
def test_a_key_that_cannot_be_read_is_refused(values: tuple[str, ...]) -> None:
    with pytest.raises(HTTPException, match="Idempotency-Key") as refused:
        headers.idempotency_key(sent("idempotency-key", *values))
    assert refused.value.status_code == 400


@pytest.mark.parametrize("key", ["k", "!~", "x" * MAX_KEY_CHARS])
def test_a_key_is_of_visible_ascii(key: str) -> None:
    check_key(key)


@pytest.mark.parametrize("key", ["", " ", "a b", "a\tb", "a\0", "\x7f", "é", "\ud800", "x" * (MAX_KEY_CHARS + 1)])
def test_any_other_key_is_refused(key: str) -> None:
    with pytest.raises(BadInput, match="idempotency key"):
        check_key(key)


def test_what_is_asked_is_hashed_and_not_how_it_is_written() -> None:
    one = request_hash("execute-dag", {"plan": {"a": 1, "b": [1.5, None]}})
    assert one == request_hash("execute-dag", {"plan": {"b": [1.5, None], "a": 1}})
    assert one != request_hash("execute-dag", {"plan": {"a": 1, "b": [None, 1.5]}})
    assert one != request_hash("create-dag", {"plan": {"a": 1, "b": [1.5, None]}})
    assert request_hash("execute-dag", {"plan": 2**64}) is None
    assert request_hash("execute-dag", {"plan": "\ud800"}) is None


@pytest.mark.parametrize(
    ("values", "accepted"),
    [
        (("gzip",), True),
        (("GZIP",), True),
        (("x-gzip",), True),
        (("gzip, deflate, br",), True),
        (("deflate", "gzip"), True),
        (("br;q=1, gzip ; q=0.5",), True),
        (("*",), True),
        (("*;q=0.1",), True),
        (("gzip;q=0.001",), True),
        (("gzip;q=0.5, identity;q=0.5",), True),
        ((), False),
        (("",), False),
        (("identity",), False),
        (("br, deflate",), False),
        (("gzip;q=0",), False),
        (("gzip;q=0.000",), False),
        (("gzip;q=0, *",), False),
        (("*;q=0",), False),
        (("gzip;q=0.5, identity",), False),
        (("gzip;q=x",), False),
        (("gzip;level=9",), False),
        (("gzipped",), False),
        ((", ".join(["x"] * 10_000),), False),
    ],
)
def test_gzip_is_taken_by_those_who_say_so(values: tuple[str, ...], accepted: bool) -> None:
    assert headers.accepts_gzip(sent("accept-encoding", *values)) is accepted


@pytest.mark.parametrize(
    ("values", "seen"),
    [
        (('W/"0.1-2-3"',), True),
        (('"0.1-2-3"',), True),
        (('"x", W/"0.1-2-3" , "y"',), True),
        (('"x"', 'W/"0.1-2-3"'), True),
        (("*",), True),
        ((" * ",), True),
        ((), False),
        (("",), False),
        (('"0.1-2-4"',), False),
        (("0.1-2-3",), False),
        (('W/"0.1-2-3',), False),
        (('"*"',), False),
        (('"x' * 20_000,), False),
    ],
)
def test_a_tag_is_compared_weakly(values: tuple[str, ...], seen: bool) -> None:
    assert headers.has_seen(sent("if-none-match", *values), 'W/"0.1-2-3"') is seen


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (b"Idempotency-Key: a\r\nIdempotency-Key: b", 400),
        (b'Idempotency-Key: "a', 400),
        (b"Idempotency-Key:", 422),
        (b"Idempotency-Key: a b", 422),
        (b"Idempotency-Key: \xe9", 422),
        (b"Idempotency-Key: a\x01b", 422),
        (b"Idempotency-Key: " + b"x" * 256, 422),
        (b"Idempotency-Key: " + b"x" * 60_000, 422),
        (b"Prefer: " + b"x=1, " * 10_000, 202),
        (b"Prefer: \x01\xff;;;\"", 202),
        (b"Prefer: wait=\xb2", 202),
        (b"Accept-Encoding: \xff;q=\xff", 202),
    ],
)  # fmt: skip
def test_hostile_headers_are_refused_or_passed_over_in_words(server: Server, header: bytes, status: int) -> None:
    body = json.dumps(plan(task(1))).encode()
    found, answer_headers, data = server.send(
        "POST /api/v1/execute-dag HTTP/1.1", "Host: localhost", "Content-Type: application/json",
        f"Content-Length: {len(body)}", header.decode("latin-1"), "Connection: close", body=body,
    )  # fmt: skip
    assert found == status, data
    if status >= 400:
        assert answer_headers["content-type"] == "application/problem+json"
        assert "dempotency" in json.loads(data)["detail"]
