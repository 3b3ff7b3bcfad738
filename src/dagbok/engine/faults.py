"""What an exception of another library means for an attempt: a code, and whether the other side may have acted.

Tools call whatever they like, and nothing of it is imported here: a class is known by its name and the package that it
comes from, its own first and then those that it stands on. Whoever writes a tool says more with a `ToolError`.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from dagbok.domain import http_status


class Fault(NamedTuple):
    """What an error means to whoever decides whether to try again."""

    code: str
    unknown: bool = False  #: nobody can say whether the attempt took effect
    retry_after_s: float | None = None  #: what the other side asked for


#: Anything that is not known here: the tool's own mistake, which the next attempt would make too.
OWN: Final = Fault("tool_error")

_LATE: Final = Fault("timeout", unknown=True)
_LATE_UNSENT: Final = Fault("timeout")  # while it waited for a connection
_LOST: Final = Fault("unavailable", unknown=True)
_UNREACHED: Final = Fault("unavailable")  # no connection was made
_ANSWERED: Final = Fault("")  # by the status of its answer

_HTTPX = {
    "HTTPStatusError": _ANSWERED,
    "ConnectTimeout": _LATE_UNSENT,
    "PoolTimeout": _LATE_UNSENT,
    "TimeoutException": _LATE,
    "ConnectError": _UNREACHED,
    "ProxyError": _UNREACHED,
    "LocalProtocolError": OWN,
    "UnsupportedProtocol": OWN,
    "TransportError": _LOST,
    # Of httpcore, where these stand on nothing:
    "ConnectionNotAvailable": _UNREACHED,
    "NetworkError": _LOST,
    "ProtocolError": _LOST,
}
#: Clients that are generated from OpenAPI by the same program.
_SDK = {"APIStatusError": _ANSWERED, "APITimeoutError": _LATE, "APIConnectionError": _LOST}

#: Package -> name of a class -> what it means. Held against the packages themselves, as they were in 2026.
_KNOWN: Final[Mapping[str, Mapping[str, Fault]]] = {
    "builtins": {"TimeoutError": _LATE, "ConnectionRefusedError": _UNREACHED, "ConnectionError": _LOST},
    "http": {"IncompleteRead": _LOST, "BadStatusLine": _LOST},
    "multiprocessing": {"TimeoutError": _LATE},
    "smtplib": {"SMTPConnectError": _UNREACHED, "SMTPServerDisconnected": _LOST},
    "socket": {"gaierror": _UNREACHED, "herror": _UNREACHED},
    "ssl": {"SSLCertVerificationError": _UNREACHED, "SSLError": _LOST},
    "subprocess": {"TimeoutExpired": _LATE},
    "urllib": {"HTTPError": _ANSWERED, "URLError": _LOST},
    "aiohttp": {
        "ClientResponseError": _ANSWERED,
        "ConnectionTimeoutError": _LATE_UNSENT,
        "ServerTimeoutError": _LATE,
        "ClientConnectorError": _UNREACHED,
        "ClientConnectionError": _LOST,
        "ClientPayloadError": _LOST,
        "HttpProcessingError": _LOST,
    },
    "anthropic": _SDK,
    "anyio": {"ConnectionFailed": _UNREACHED, "BrokenResourceError": _LOST},
    "botocore": {
        "ConnectTimeoutError": _LATE_UNSENT,
        "ReadTimeoutError": _LATE,
        "EndpointConnectionError": _UNREACHED,
        "ProxyConnectionError": _UNREACHED,
        "ConnectionError": _LOST,
        "HTTPClientError": _LOST,
        "IncompleteReadError": _LOST,
    },
    "groq": _SDK,
    "httpcore": _HTTPX,
    "httpcore2": _HTTPX,
    "httpx": _HTTPX,
    "httpx2": _HTTPX,
    "openai": _SDK,
    "psycopg": {
        "ConnectionTimeout": _LATE_UNSENT,
        "QueryCanceled": _LATE,
        "CannotConnectNow": _UNREACHED,
        "TooManyConnections": _UNREACHED,
        "AdminShutdown": _LOST,
        "CrashShutdown": _LOST,
        "ConnectionException": _LOST,
        "ConnectionDoesNotExist": _LOST,
        "ConnectionFailure": _LOST,
    },
    "psycopg_pool": {"PoolTimeout": _LATE_UNSENT, "TooManyRequests": _UNREACHED},
    "pydantic_ai": {
        "ModelHTTPError": _ANSWERED,
        "ModelRequestTimeout": _LATE,
        "ModelTimeoutError": _LATE,
        "ModelConnectionError": _LOST,
    },
    "redis": {
        "TimeoutError": _LATE,
        "BusyLoadingError": _UNREACHED,
        "MaxConnectionsError": _UNREACHED,
        "AuthenticationError": OWN,
        "AuthorizationError": OWN,
        "ConnectionError": _LOST,
    },
    "requests": {
        "HTTPError": _ANSWERED,
        "ConnectTimeout": _LATE_UNSENT,
        "Timeout": _LATE,
        "ProxyError": _UNREACHED,
        "ConnectionError": _LOST,
        "ChunkedEncodingError": _LOST,
        "RetryError": _LOST,
    },
    "urllib3": {
        "NewConnectionError": _UNREACHED,
        "ConnectTimeoutError": _LATE_UNSENT,
        "TimeoutError": _LATE,
        "ClosedPoolError": _UNREACHED,
        "EmptyPoolError": _UNREACHED,
        "ProxyError": _UNREACHED,
        "IncompleteRead": _LOST,
        "InvalidChunkLength": _LOST,
        "MaxRetryError": _LOST,
        "ProtocolError": _LOST,
        "SSLError": _LOST,
    },
}

#: Of an OSError that has no class of its own. A route may also vanish under a connection that stands.
_NETWORK: Final = frozenset(
    getattr(errno, name)
    for name in ("EADDRNOTAVAIL", "EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN", "ENETRESET", "ENETUNREACH", "ENOTCONN")
    if hasattr(errno, name)
)
#: asyncio and anyio put the failures of several addresses into one OSError without a number.
_SEVERAL: Final = ("Multiple exceptions: [Errno ", "All connection attempts failed")

_DEPTH: Final = 8  # of errors within errors; libraries make three


def read(exc: BaseException) -> Fault:
    """Return what an exception means; `OWN` for all that is not known here."""
    found = _of_type(exc)
    if found is None:
        return OWN
    if found is _ANSWERED:
        # aiohttp gives the status 400 to an answer that is no HTTP.
        no_http = exc.__cause__ is not None and _of_type(exc.__cause__) is _LOST
        return _LOST if no_http else _of_status(exc)
    if not found.unknown:
        return found
    if type(exc).__name__ == "URLError" and isinstance(getattr(exc, "reason", None), str) and exc.__cause__ is None:
        return OWN  # urllib's word for a URL that leads nowhere
    # requests and urllib say with one class that nobody is there and that somebody hung up; what is within tells.
    within = [inner for error in _within(exc) if (inner := _of_type(error)) is not None]
    late = any(inner.code == "timeout" for inner in within)
    return Fault("timeout" if late else found.code, all(inner.unknown or not inner.code for inner in within))


def _of_type(exc: BaseException) -> Fault | None:
    kind = type(exc)
    if kind.__name__ == "OperationalError" and _package(kind) in ("psycopg", "psycopg2"):
        # Itself it is a connection that fails; the classes that stand on it have an SQLSTATE, and other reasons. It has
        # a `pgconn` where there was no connection to begin with.
        return _LOST if getattr(exc, "pgconn", None) is None else _UNREACHED
    for one in kind.__mro__:
        if found := _KNOWN.get(_package(one), {}).get(one.__name__):
            return found
    if not isinstance(exc, OSError):
        return None
    if exc.errno in _NETWORK:
        return _LOST
    return _UNREACHED if kind is OSError and exc.errno is None and str(exc).startswith(_SEVERAL) else None


def _package(kind: type) -> str:
    return str(kind.__module__).partition(".")[0]


def _within(exc: BaseException) -> Iterator[BaseException]:
    """Yield the errors that `exc` was made of, as libraries say it.

    Never one that merely came before (`__context__`): that may be of another request.
    """
    for _ in range(_DEPTH):
        parts = (exc.__cause__, getattr(exc, "reason", None), exc.args[0] if exc.args else None)
        inner = next((part for part in parts if isinstance(part, BaseException)), None)
        if inner is None:
            return
        yield inner
        exc = inner


def _of_status(exc: BaseException) -> Fault:
    """Return what an error means that carries an answer: itself, or as its `response`."""
    response = getattr(exc, "response", None)
    holders = [exc] if response is None else [response, exc]  # a response of requests is false where it is an error
    numbers = (getattr(holder, name, None) for holder in holders for name in ("status_code", "status"))
    status = next((number for number in numbers if isinstance(number, int)), 0)
    if status < 400:
        return OWN  # an answer that it could not use: a redirect too many, another type than it wanted
    wait_s = http_status.retry_after_s(_headers(holders), datetime.now(UTC))
    return Fault(http_status.code(status), http_status.may_have_acted(status, wait_s), wait_s)


def _headers(holders: list[Any]) -> Mapping[str, str]:
    for holder in holders:
        headers = getattr(holder, "headers", None)
        if headers is not None:
            return {name.lower(): value for name, value in headers.items()}
    return {}
