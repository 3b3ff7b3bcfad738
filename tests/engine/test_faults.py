"""Errors of libraries. For those that are not installed stand classes of the same names, packages and ancestors.

They were held against the libraries themselves once, with servers that refuse, hang, reset and talk nonsense.
"""

from __future__ import annotations

import asyncio
import errno
import http.client
import multiprocessing
import smtplib
import socket
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from email.message import Message
from typing import Any

import anthropic
import anyio
import httpcore2
import httpx2
import openai
import psycopg
import pytest
from pydantic_ai import exceptions as ai

from dagbok.engine import faults
from dagbok.engine.faults import OWN, Fault

LATE, LATE_UNSENT = ("timeout", True), ("timeout", False)
LOST, UNREACHED = ("unavailable", True), ("unavailable", False)
MISTAKE = ("tool_error", False)


def read(exc: BaseException) -> tuple[str, bool]:
    code, unknown, _ = faults.read(exc)
    return code, unknown


def of(package: str, line: str, *arguments: object, **fields: object) -> Any:
    """Return an error by its line of descent, itself first: "ReadTimeout > Timeout > RequestException > OSError"."""
    names = line.split(" > ")
    base: type[Exception] = OSError if names[-1] == "OSError" else Exception
    for name in reversed(names if base is Exception else names[:-1]):
        base = type(name, (base,), {"__module__": package})
    exc = base(*arguments)
    for name, value in fields.items():
        setattr(exc, name, value)
    return exc


def caused(exc: Any, cause: BaseException) -> Any:
    exc.__cause__ = cause
    return exc


# -- what each library calls it ---------------------------------------------------------------------------------------

_HTTPX = "TransportError > RequestError > HTTPError"
_REQUESTS = "RequestException > OSError"
_AIOHTTP = "ClientConnectionError > ClientError"
_BOTO = "BotoCoreError"
_POSTGRES = "OperationalError > DatabaseError > Error"


@pytest.mark.parametrize(
    ("package", "line", "expected"),
    [
        *(
            (package, line, expected)
            for package in ("httpx", "httpx2")
            for line, expected in (
                (f"ReadTimeout > TimeoutException > {_HTTPX}", LATE),
                (f"WriteTimeout > TimeoutException > {_HTTPX}", LATE),
                (f"ConnectTimeout > TimeoutException > {_HTTPX}", LATE_UNSENT),
                (f"PoolTimeout > TimeoutException > {_HTTPX}", LATE_UNSENT),
                (f"ConnectError > NetworkError > {_HTTPX}", UNREACHED),
                (f"ProxyError > {_HTTPX}", UNREACHED),
                (f"ReadError > NetworkError > {_HTTPX}", LOST),
                (f"WriteError > NetworkError > {_HTTPX}", LOST),
                (f"CloseError > NetworkError > {_HTTPX}", LOST),
                (f"RemoteProtocolError > ProtocolError > {_HTTPX}", LOST),
                (f"LocalProtocolError > ProtocolError > {_HTTPX}", MISTAKE),
                (f"UnsupportedProtocol > {_HTTPX}", MISTAKE),
                ("DecodingError > RequestError > HTTPError", MISTAKE),
                ("TooManyRedirects > RequestError > HTTPError", MISTAKE),
                ("ResponseNotRead > StreamError", MISTAKE),
            )
        ),
        ("httpcore._exceptions", "ReadTimeout > TimeoutException", LATE),
        ("httpcore._exceptions", "ConnectError > NetworkError", UNREACHED),
        ("httpcore._exceptions", "RemoteProtocolError > ProtocolError", LOST),
        ("requests.exceptions", f"ReadTimeout > Timeout > {_REQUESTS}", LATE),
        ("requests.exceptions", f"ConnectTimeout > ConnectionError > {_REQUESTS}", LATE_UNSENT),
        ("requests.exceptions", f"ProxyError > ConnectionError > {_REQUESTS}", UNREACHED),
        ("requests.exceptions", f"ConnectionError > {_REQUESTS}", LOST),
        ("requests.exceptions", f"ChunkedEncodingError > {_REQUESTS}", LOST),
        ("requests.exceptions", f"RetryError > {_REQUESTS}", LOST),
        ("requests.exceptions", f"MissingSchema > {_REQUESTS}", MISTAKE),
        ("requests.exceptions", f"JSONDecodeError > {_REQUESTS}", MISTAKE),
        ("urllib3.exceptions", "ReadTimeoutError > TimeoutError > RequestError > PoolError > HTTPError", LATE),
        ("urllib3.exceptions", "ConnectTimeoutError > TimeoutError > HTTPError", LATE_UNSENT),
        ("urllib3.exceptions", "NewConnectionError > ConnectTimeoutError > TimeoutError > HTTPError", UNREACHED),
        ("urllib3.exceptions", "EmptyPoolError > PoolError > HTTPError", UNREACHED),
        ("urllib3.exceptions", "MaxRetryError > RequestError > PoolError > HTTPError", LOST),
        ("urllib3.exceptions", "ProtocolError > HTTPError", LOST),
        ("urllib3.exceptions", "LocationParseError > LocationValueError > HTTPError", MISTAKE),
        ("aiohttp.client_exceptions", f"SocketTimeoutError > ServerTimeoutError > {_AIOHTTP}", LATE),
        ("aiohttp.client_exceptions", f"ConnectionTimeoutError > ServerTimeoutError > {_AIOHTTP}", LATE_UNSENT),
        (
            "aiohttp.client_exceptions",
            f"ClientConnectorDNSError > ClientConnectorError > ClientOSError > {_AIOHTTP} > OSError",
            UNREACHED,
        ),
        ("aiohttp.client_exceptions", f"ServerDisconnectedError > ServerConnectionError > {_AIOHTTP}", LOST),
        ("aiohttp.client_exceptions", f"ClientOSError > {_AIOHTTP} > OSError", LOST),
        ("aiohttp.client_exceptions", "ClientPayloadError > ClientError", LOST),
        ("aiohttp.client_exceptions", "InvalidURL > ClientError", MISTAKE),
        ("botocore.exceptions", f"ReadTimeoutError > HTTPClientError > {_BOTO}", LATE),
        ("botocore.exceptions", f"ConnectTimeoutError > ConnectionError > {_BOTO}", LATE_UNSENT),
        ("botocore.exceptions", f"EndpointConnectionError > ConnectionError > {_BOTO}", UNREACHED),
        ("botocore.exceptions", f"ConnectionClosedError > HTTPClientError > {_BOTO}", LOST),
        ("botocore.exceptions", f"NoCredentialsError > {_BOTO}", MISTAKE),
        ("redis.exceptions", "TimeoutError > RedisError", LATE),
        ("redis.exceptions", "ConnectionError > RedisError", LOST),
        ("redis.exceptions", "BusyLoadingError > ConnectionError > RedisError", UNREACHED),
        ("redis.exceptions", "AuthenticationError > ConnectionError > RedisError", MISTAKE),
        ("redis.exceptions", "ResponseError > RedisError", MISTAKE),
        ("psycopg2", _POSTGRES, LOST),
        ("psycopg2.errors", f"SyntaxError > {_POSTGRES}", MISTAKE),
        ("psycopg_pool.errors", f"PoolTimeout > {_POSTGRES}", LATE_UNSENT),
        ("groq", "APITimeoutError > APIConnectionError > APIError", LATE),
        ("groq", "APIConnectionError > APIError", LOST),
    ],
)
def test_an_error_is_known_by_the_names_of_its_class_and_package(
    package: str, line: str, expected: tuple[str, bool]
) -> None:
    assert read(of(package, line, "broken")) == expected


@pytest.mark.parametrize(
    ("exc", "expected"),
    [
        (TimeoutError(), LATE),
        (OSError(errno.ETIMEDOUT, "timed out"), LATE),
        (multiprocessing.TimeoutError(), LATE),
        (subprocess.TimeoutExpired("x", 1), LATE),
        (ConnectionRefusedError(), UNREACHED),
        (OSError(errno.ECONNREFUSED, "refused"), UNREACHED),
        (socket.gaierror(-2, "unknown"), UNREACHED),
        (ssl.SSLCertVerificationError("expired"), UNREACHED),
        (smtplib.SMTPConnectError(421, "no"), UNREACHED),
        (anyio.ConnectionFailed(), UNREACHED),
        (ConnectionResetError(), LOST),
        (ConnectionAbortedError(), LOST),
        (BrokenPipeError(), LOST),
        (ConnectionError(), LOST),
        (OSError(errno.ENETUNREACH, "no network"), LOST),
        (OSError(errno.EHOSTUNREACH, "no route"), LOST),
        (ssl.SSLError("broken"), LOST),
        (http.client.RemoteDisconnected("gone"), LOST),
        (http.client.IncompleteRead(b""), LOST),
        (http.client.BadStatusLine("?"), LOST),
        (smtplib.SMTPServerDisconnected(), LOST),
        (anyio.BrokenResourceError(), LOST),
        (httpx2.ReadTimeout("slow"), LATE),
        (httpx2.ConnectError("nobody"), UNREACHED),
        (httpcore2.ReadError("gone"), LOST),
        (psycopg.errors.ConnectionTimeout("slow"), LATE_UNSENT),
        (psycopg.errors.QueryCanceled("slow"), LATE),
        (psycopg.errors.TooManyConnections("full"), UNREACHED),
        (psycopg.errors.AdminShutdown("bye"), LOST),
        (psycopg.OperationalError("the connection is lost"), LOST),
        (psycopg.errors.InvalidPassword("no"), MISTAKE),
        (psycopg.errors.DiskFull("full"), MISTAKE),
        (ai.ModelTimeoutError("m", "slow"), LATE),
        (ai.ModelConnectionError("m", "gone"), LOST),
        (FileNotFoundError(errno.ENOENT, "no file"), MISTAKE),
        (PermissionError(errno.EACCES, "no"), MISTAKE),
        (OSError(errno.ENOSPC, "full"), MISTAKE),
        (OSError("no number"), MISTAKE),
        (ValueError("no"), MISTAKE),
        (SystemExit(1), MISTAKE),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "-".join(map(str, value)),
)
def test_errors_of_python_and_of_what_is_installed(exc: BaseException, expected: tuple[str, bool]) -> None:
    assert read(exc) == expected


def test_a_name_alone_says_nothing() -> None:
    assert read(of("mine", "TimeoutError > Error")) == MISTAKE
    assert read(of("mine.requests", "ConnectionError > OSError")) == MISTAKE


def test_a_class_of_ones_own_is_what_it_stands_on() -> None:
    class MyTimeout(httpx2.ReadTimeout):
        pass

    assert read(MyTimeout("slow")) == LATE


# -- errors within errors ---------------------------------------------------------------------------------------------


def _requests(inner: BaseException) -> Any:
    return of("requests.exceptions", f"ConnectionError > {_REQUESTS}", inner)


def _retried(reason: BaseException) -> Any:
    return of("urllib3.exceptions", "MaxRetryError > RequestError > PoolError > HTTPError", "max", reason=reason)


NOBODY = of("urllib3.exceptions", "NewConnectionError > ConnectTimeoutError > TimeoutError > HTTPError", "refused")
SLOW = of("urllib3.exceptions", "ReadTimeoutError > TimeoutError > HTTPError", "slow")
CUT = caused(of("urllib3.exceptions", "ProtocolError > HTTPError", "aborted"), ConnectionResetError())
REQUEST = httpx2.Request("POST", "http://api.example/")


@pytest.mark.parametrize(
    ("exc", "expected"),
    [
        (_requests(_retried(NOBODY)), UNREACHED),
        (_requests(_retried(SLOW)), LATE),
        (_requests(CUT), LOST),
        (_requests(_retried(caused(of("urllib3.exceptions", "SSLError > HTTPError", "tls"), ssl.SSLError()))), LOST),
        (_requests(_retried(of("urllib3.exceptions", "SSLError", ssl.SSLCertVerificationError()))), UNREACHED),
        (urllib.error.URLError(ConnectionRefusedError()), UNREACHED),
        (urllib.error.URLError(socket.gaierror()), UNREACHED),
        (urllib.error.URLError(ConnectionResetError()), LOST),
        (urllib.error.URLError(TimeoutError()), LATE),
        (urllib.error.ContentTooShortError("short", ("", Message())), LOST),
        (caused(openai.APIConnectionError(request=REQUEST), httpx2.ConnectError("nobody")), UNREACHED),
        (caused(openai.APIConnectionError(request=REQUEST), httpx2.ReadError("gone")), LOST),
        (caused(openai.APIConnectionError(request=REQUEST), httpx2.LocalProtocolError("header")), UNREACHED),
        (caused(openai.APITimeoutError(request=REQUEST), httpx2.ConnectTimeout("slow")), LATE_UNSENT),
        (caused(anthropic.APITimeoutError(request=REQUEST), httpx2.ReadTimeout("slow")), LATE),
        (anthropic.APIConnectionError(request=REQUEST), LOST),
    ],
)
def test_what_a_library_wraps_tells_whether_anybody_was_reached(exc: BaseException, expected: tuple[str, bool]) -> None:
    assert read(exc) == expected


def test_an_error_that_merely_came_before_says_nothing_of_this_one() -> None:
    """A tool that turns to a second host because the first is not there, and is cut off by that one."""

    def turn_to_another() -> None:
        try:
            raise ConnectionRefusedError
        except ConnectionRefusedError:
            raise ConnectionResetError  # noqa: B904 - as people write it

    with pytest.raises(ConnectionResetError) as caught:
        turn_to_another()
    assert isinstance(caught.value.__context__, ConnectionRefusedError)
    assert read(caught.value) == LOST


def test_errors_that_were_made_of_each_other_end() -> None:
    first, second = ConnectionResetError(), ConnectionResetError()
    first.__cause__, second.__cause__ = second, first
    assert read(first) == LOST


# -- connections that fail --------------------------------------------------------------------------------------------


@pytest.fixture
def nobody() -> Iterator[int]:
    """A port at which nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def test_nobody_there_is_unreached_whoever_asks(nobody: int) -> None:
    url = f"http://127.0.0.1:{nobody}/"
    with pytest.raises(urllib.error.URLError) as by_urllib:
        urllib.request.urlopen(url, data=b"x", timeout=10)
    with pytest.raises(httpx2.ConnectError) as by_httpx2:
        httpx2.post(url, content=b"x")
    with pytest.raises(psycopg.OperationalError) as by_psycopg:
        psycopg.connect(f"host=127.0.0.1 port={nobody} user=x connect_timeout=10")
    with pytest.raises(ConnectionRefusedError) as by_asyncio:
        asyncio.run(asyncio.wait_for(asyncio.open_connection("127.0.0.1", nobody), 10))
    with pytest.raises(OSError, match="All connection attempts failed") as by_anyio:
        asyncio.run(_connect(nobody))
    for caught in (by_urllib, by_httpx2, by_psycopg, by_asyncio, by_anyio):
        assert read(caught.value) == UNREACHED, repr(caught.value)


async def _connect(port: int) -> None:
    async with await anyio.connect_tcp("127.0.0.1", port):
        pass


def test_several_addresses_at_which_nobody_is_are_one_error_without_a_number() -> None:
    """What asyncio raises for a name of two addresses, as `localhost` mostly is."""
    text = "[Errno 111] Connect call failed ('::1', 9, 0, 0), [Errno 111] Connect call failed ('127.0.0.1', 9)"
    assert read(OSError(f"Multiple exceptions: {text}")) == UNREACHED
    assert read(of("mine", "MyError > OSError", f"Multiple exceptions: {text}")) == MISTAKE


def test_a_url_that_leads_nowhere_is_the_tools_own_mistake() -> None:
    with pytest.raises(urllib.error.URLError) as caught:
        urllib.request.urlopen("foo://api.example/")
    assert read(caught.value) == MISTAKE


# -- answers ----------------------------------------------------------------------------------------------------------

ANSWERS = [
    (400, "invalid_input", False),
    (401, "refused", False),
    (403, "refused", False),
    (404, "not_found", False),
    (407, "refused", False),
    (408, "unavailable", True),
    (409, "invalid_input", False),
    (410, "not_found", False),
    (429, "rate_limited", False),
    (500, "unavailable", True),
    (502, "unavailable", True),
    (503, "unavailable", True),
    (504, "unavailable", True),
]


class Response:
    """As that of requests: false where it is an error."""

    def __init__(self, status: int, headers: dict[str, str]) -> None:
        self.status_code = status
        self.headers = headers

    def __bool__(self) -> bool:
        return self.status_code < 400


def _answered(status: int, headers: dict[str, str]) -> Iterator[BaseException]:
    """Yield the error of each library for an answer."""
    answer = httpx2.Response(status, headers=headers, request=REQUEST)
    with pytest.raises(httpx2.HTTPStatusError) as caught:
        answer.raise_for_status()
    yield caught.value
    yield of("httpx", "HTTPStatusError > HTTPError", "no", response=answer)
    yield openai.APIStatusError("no", response=answer, body=None)
    yield openai.RateLimitError("no", response=answer, body=None)
    yield anthropic.APIStatusError("no", response=answer, body=None)
    yield ai.ModelHTTPError(status, "m", headers=headers)
    yield of("requests.exceptions", f"HTTPError > {_REQUESTS}", "no", response=Response(status, headers))
    yield of("aiohttp.client_exceptions", "ClientResponseError > ClientError", status=status, headers=headers)
    lines = Message()
    for name, value in headers.items():
        lines[name] = value
    with urllib.error.HTTPError("http://api.example/", status, "no", lines, None) as error:
        yield error


@pytest.mark.parametrize(("status", "code", "unknown"), ANSWERS)
def test_an_answer_is_classed_by_its_status_whoever_brings_it(status: int, code: str, unknown: bool) -> None:
    for error in _answered(status, {}):
        assert faults.read(error) == Fault(code, unknown, None), type(error)


@pytest.mark.parametrize("name", ["Retry-After", "retry-after"])
def test_what_the_server_asks_for_is_heard_whoever_brings_it(name: str) -> None:
    for error in _answered(429, {name: "7"}):
        assert faults.read(error) == Fault("rate_limited", False, 7), type(error)
    for error in _answered(503, {name: "7"}):
        assert faults.read(error) == Fault("unavailable", False, 7), "who says when to come back has done nothing"
    for error in _answered(502, {name: "7"}):
        assert faults.read(error) == Fault("unavailable", True, 7), "a gateway knows nothing of what is behind it"


@pytest.mark.parametrize("status", [200, 302, 0])
def test_an_answer_that_is_no_error_and_yet_raised_one_is_the_tools_own_mistake(status: int) -> None:
    """aiohttp: another content type than expected, too many redirects."""
    error = of("aiohttp.client_exceptions", "ContentTypeError > ClientResponseError > ClientError", status=status)
    assert faults.read(error) == OWN


def test_an_error_of_an_answer_that_lost_it_is_the_tools_own() -> None:
    assert faults.read(of("requests.exceptions", f"HTTPError > {_REQUESTS}", "no", response=None)) == OWN
    assert faults.read(of("aiohttp.client_exceptions", "ClientResponseError", "no", status=503, headers=None)) == Fault(
        "unavailable", True
    )


def test_an_answer_that_is_no_http_is_none_although_aiohttp_gives_it_a_status() -> None:
    nonsense = of("aiohttp.http_exceptions", "BadStatusLine > BadHttpMessage > HttpProcessingError", "?")
    error = of("aiohttp.client_exceptions", "ClientResponseError > ClientError", status=400, headers={})
    assert read(caused(error, nonsense)) == LOST
