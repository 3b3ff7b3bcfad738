"""Connections of `Egress`: httpcore2, made to connect only to addresses that were checked, and its errors made ours.

httpcore2 and not httpx2 above it: no cookies, no proxies of the environment, no redirects and no unpacking behind our
back. Every new connection passes `Network.connect_tcp`; there is no other way out. Imported at the first request.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, Final

import httpcore2

from dagbok.errors import ToolError
from dagbok.tools.urls import Url

KEPT_CONNECTIONS: Final = 20  # idle ones
KEPT_S: Final = 5.0

#: Calls its last argument with one checked address after the other until one connects.
Connect = Callable[[str, int, Callable[[str], Awaitable[Any]]], Awaitable[Any]]

default_tls = httpcore2.default_ssl_context


class _Stream(httpcore2.AsyncNetworkStream):
    """A stream that is closed when its TLS handshake is cancelled; httpcore2 closes it after errors only."""

    def __init__(self, inner: httpcore2.AsyncNetworkStream) -> None:
        self._inner = inner
        self.read = inner.read  # type: ignore[method-assign]  # as they are
        self.write = inner.write  # type: ignore[method-assign]
        self.aclose = inner.aclose  # type: ignore[method-assign]
        self.get_extra_info = inner.get_extra_info  # type: ignore[method-assign]

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - of the base class
    ) -> httpcore2.AsyncNetworkStream:
        try:
            return await self._inner.start_tls(ssl_context, server_hostname, timeout)
        except BaseException:
            await self._inner.aclose()
            raise


class Network(httpcore2.AsyncNetworkBackend):
    """How httpcore2 reaches the network."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._inner = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - of the base class
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Return a connection to a checked address of `host`."""

        async def to(address: str) -> _Stream:
            try:
                return _Stream(await self._inner.connect_tcp(address, port, timeout, local_address, socket_options))
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as exc:
                origin = _origin(exc)
                raise (origin if isinstance(origin, OSError) else OSError(str(exc))) from exc

        stream: httpcore2.AsyncNetworkStream = await self._connect(host, port, to)
        return stream


def open_pool(connect: Connect, tls: ssl.SSLContext) -> httpcore2.AsyncConnectionPool:
    """Return an empty pool. A connection is used again for the same scheme, host and port only."""
    return httpcore2.AsyncConnectionPool(
        ssl_context=tls,
        network_backend=Network(connect),
        max_connections=None,  # the engine limits what is under way
        max_keepalive_connections=KEPT_CONNECTIONS,
        keepalive_expiry=KEPT_S,
    )


@asynccontextmanager
async def exchange(
    pool: httpcore2.AsyncConnectionPool,
    method: str,
    url: Url,
    headers: Iterable[tuple[str, str]],
    content: bytes | None,
    on_send: Callable[[], None],
) -> AsyncIterator[httpcore2.Response]:
    """Send one request and give its answer, whose body is then read by `aiter_stream`.

    Args:
        headers: All there are, framing included, checked already.
        on_send: Called when the first byte is about to be sent.

    Raises:
        ToolError: `unavailable`: no connection, no TLS, no HTTP, or cut off; `too_large`: endless headers.
    """

    async def trace(name: str, _: object) -> None:
        if name == "http11.send_request_headers.started":
            on_send()

    request = httpcore2.Request(
        method,
        httpcore2.URL(scheme=url.scheme, host=url.host, port=url.port, target=url.target),
        headers=[(name.encode("ascii"), value.encode("ascii")) for name, value in headers],
        content=content or b"",
        extensions={"trace": trace},
    )
    try:
        response = await pool.handle_async_request(request)
        try:
            yield response
        finally:
            await response.aclose()
    except (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.TimeoutException) as exc:
        raise _translated(url, exc) from exc


def _origin(error: BaseException) -> BaseException:
    """Return what `error` began with: httpcore2 and anyio wrap it, and httpcore2's pool then drops the `__cause__`."""
    inner = error.__cause__ or (error.args[0] if error.args else None)
    return _origin(inner) if isinstance(inner, BaseException) else error


def _translated(url: Url, error: Exception) -> ToolError:
    cause = _origin(error)
    if getattr(cause, "error_status_hint", None) == 431:  # h11's word for headers beyond its bound of 100 KiB
        return ToolError(f"{url.shown} answers with headers that are too large.", code="too_large")
    if isinstance(cause, ssl.SSLCertVerificationError):
        why = f"its certificate is not valid: {cause.verify_message}"
    elif isinstance(cause, ssl.SSLError):
        why = f"TLS failed: {cause.reason or cause}"
    elif isinstance(error, httpcore2.ProtocolError):
        why = f"its answer is cut off or not HTTP: {error!s:.200}"
    else:
        why = f"the connection was lost: {str(error) or type(error).__name__:.200}"
    return ToolError(f"{url.shown} cannot be reached: {why.rstrip('.')}.", code="unavailable")
