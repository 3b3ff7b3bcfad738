"""The one way out: every request that tools make to the network passes `Egress`.

A plan comes from a model, and a model may have read anything. So what it names is fetched only from the public Internet
(`dagbok.tools.addresses`), unless the operator allows more (`DAGBOK_EGRESS_ALLOW`). A name is resolved once per
connection, all of its addresses must pass, and exactly a checked address is connected to, so an answer of DNS that
changes leads nowhere new. Redirects are followed one by one under the same rules. Time and size are bounded as a whole.
"""

from __future__ import annotations

import asyncio
import codecs
import os
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from dagbok.errors import ToolError
from dagbok.tools import charsets, urls
from dagbok.tools.addresses import (
    Address,
    Allowed,
    as_address,
    canonical_host,
    is_local_name,
    plain,
    why_forbidden,
)
from dagbok.tools.bodies import Body
from dagbok.tools.request import Request, headers_of, is_redirect
from dagbok.tools.resolver import SystemResolver

if TYPE_CHECKING:
    import httpcore2

T = TypeVar("T")

#: Returns the addresses of a host at a port, as text.
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

MAX_RESPONSE_BYTES: Final = 16 * 2**20  # as `Settings.max_response_bytes`
TIMEOUT_S: Final = 30.0  # as `Settings.http_timeout_s`
_TRY_S: Final = 5.0  # for each address of a host but the last
_TURN_CHUNKS: Final = 64  # of a body in one turn of the loop; each takes some 20 microseconds

_BOMS: Final = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


@dataclass(frozen=True, slots=True)
class Fetched:
    """An answer, whole."""

    status: int
    url: str  #: where it came from in the end; never with credentials
    headers: Mapping[str, str]  #: lower-case names, repeated ones joined by a comma; cookies are not kept
    content: bytes  #: unpacked
    redirects: tuple[str, ...] = ()  #: the URLs that led on, first to last

    @property
    def media_type(self) -> str:
        """The media type in lower case without its parameters, empty if there is none."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def charset(self) -> str | None:
        """Python's name for the charset of the header; None if there is none that is known (`charsets.known`)."""
        for parameter in self.headers.get("content-type", "").split(";")[1:]:
            name, _, value = parameter.partition("=")
            if name.strip().lower() == "charset":
                return charsets.known(value.strip().strip("\"'"))
        return None

    def text(self) -> str:
        """Return the content as text: by its byte order mark, the charset of the header, UTF-8, else Windows-1252.

        What cannot be decoded becomes U+FFFD.
        """
        for mark, charset in _BOMS:
            if self.content.startswith(mark):
                return charsets.decode(self.content, charset)
        if given := self.charset:
            return charsets.decode(self.content, given)
        try:
            return self.content.decode()
        except UnicodeDecodeError:
            return charsets.decode(self.content, "cp1252")


class Egress:
    """The guard and client of outgoing requests. Cheap to make; nothing is opened before the first request.

    Inside `async with egress:` connections are kept for a few seconds and used again; without it, and in any other
    event loop, each `fetch` has its own. So a synchronous tool may use it: `asyncio.run(context.egress.fetch(...))`.
    """

    def __init__(
        self,
        *,
        allow: Iterable[str] = (),
        timeout_s: float = TIMEOUT_S,
        max_bytes: int = MAX_RESPONSE_BYTES,
        max_redirects: int = 5,
        resolve: Resolve | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Make a guard.

        Args:
            allow: What may be reached although it is not public; see `Allowed.read`.
            timeout_s: Of one `fetch` with all its redirects, from resolving the name to the last byte.
            max_bytes: Of one body, unpacked.
            max_redirects: Of one `fetch`.
            resolve: Instead of the system's resolver.
            tls: Instead of the system's certificates.

        Raises:
            Misconfigured: An entry of `allow` cannot be read.
        """
        self._allowed = Allowed.read(allow)
        self._timeout_s = timeout_s
        self._max_bytes = max_bytes
        self._max_redirects = max_redirects
        self._resolve = resolve or SystemResolver()
        self._tls = tls
        self._tls_loading = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None  # in which connections are kept
        self._kept: httpcore2.AsyncConnectionPool | None = None

    async def __aenter__(self) -> Self:
        """Keep connections from now on, for this event loop."""
        if self._loop is not None:
            raise RuntimeError("this Egress is open already")
        self._loop = asyncio.get_running_loop()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close what is kept."""
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections that are kept; none is kept from now on. Closing again does nothing."""
        kept, self._kept, self._loop = self._kept, None, None
        if kept is not None:
            await kept.aclose()

    async def fetch(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, Any] | None = None,
        content: bytes | None = None,
        timeout_s: float | None = None,
        max_bytes: int | None = None,
        redirects: bool = True,
    ) -> Fetched:
        """Send a request and return the answer, whatever its status.

        Args:
            method: `GET`, `POST`, ...; not `CONNECT` or `TRACE`.
            url: http or https, at most 8 KiB.
            headers: Not those of the connection (`Host`, `Content-Length`, ...), which are ours.
            params: Put at the end of the query; see `urls.read`.
            content: The body.
            timeout_s: For all of it, instead of the default.
            max_bytes: Of the body, unpacked, where that is less than the default.
            redirects: Whether to follow them. To another origin go only harmless headers, never a body; from https to
                http nothing goes.

        Raises:
            ToolError: With a code, and the field `sent` (False: no server has seen anything of it):
                `invalid_input`: the request cannot be sent as it is;
                `refused_address`: it leads where tools may not go; fields `host`, `address`;
                `refused_redirect`, `too_many_redirects`;
                `timeout`, `too_large`;
                `unavailable`: not resolved, not connected, no TLS, or cut off;
                `bad_response`: an answer in an encoding that was not asked for, a broken one, or one in crumbs.
        """
        request = Request.read(method, urls.read(url, params), headers or {}, content)
        limit_s = self._timeout_s if timeout_s is None else timeout_s
        sending = _Sending(request)
        try:
            async with asyncio.timeout(limit_s), self._pool() as pool:
                return await self._follow(pool, sending, min(max_bytes or self._max_bytes, self._max_bytes), redirects)
        except TimeoutError as exc:
            message = f"{sending.request.url.shown} did not answer in full within {limit_s:g} s."
            raise ToolError(message, code="timeout", sent=sending.sent) from exc
        except ToolError as exc:
            exc.fields.setdefault("sent", sending.sent)
            raise

    async def open_connection(
        self, host: str, port: int, *, timeout_s: float | None = None
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Return a connection to a checked address of `host`, without TLS, for protocols other than HTTP.

        Raises:
            ToolError: `refused_address`, `timeout`, `unavailable`, or `invalid_input`; with `sent` False, as above.
        """
        limit_s = self._timeout_s if timeout_s is None else timeout_s
        try:
            async with asyncio.timeout(limit_s):
                return await self._connect(host, port, lambda address: asyncio.open_connection(address, port))
        except TimeoutError as exc:
            message = f"{host!r:.300} could not be connected to within {limit_s:g} s."
            raise ToolError(message, code="timeout", sent=False) from exc
        except ToolError as exc:
            exc.fields["sent"] = False
            raise

    async def addresses(self, host: str, port: int) -> tuple[str, ...]:
        """Resolve `host` and return its addresses, each of which may be connected to.

        One forbidden address among them refuses them all: which one gets used would be left to chance.

        Raises:
            ToolError: `refused_address`, `unavailable` (it does not resolve), or `invalid_input`.
        """
        try:
            name = canonical_host(f"[{host}]" if ":" in host else host)
        except ValueError as exc:
            raise ToolError(f"The host cannot be used: {exc}.", code="invalid_input") from exc
        free = self._allowed.host(name, port)
        if not free and is_local_name(name):
            raise _refused(name, name, "a name of this machine or its cloud", port)
        literal = as_address(name)
        found = [literal] if literal else await self._ask(name, port)
        for address in found:
            why = None if free or self._allowed.address(address, port) else why_forbidden(address)
            if why:
                raise _refused(name, str(address), why, port)
        return tuple(dict.fromkeys(map(str, found)))

    async def _ask(self, name: str, port: int) -> list[Address]:
        try:
            found = [plain(ip_address(text)) for text in await self._resolve(name, port)]
        except (OSError, ValueError) as exc:  # `socket.gaierror`; UnicodeError; an answer that is no address
            reason = getattr(exc, "strerror", None) or str(exc)
            raise ToolError(f"The host {name} cannot be resolved: {reason}.", code="unavailable") from exc
        if not found:
            raise ToolError(f"The host {name} has no address.", code="unavailable")
        return found

    async def _connect(self, host: str, port: int, to: Callable[[str], Awaitable[T]]) -> T:
        found = await self.addresses(host, port)
        failure: OSError | None = None
        for address in found:
            try:
                # One that swallows packets must not use up the time of all.
                async with asyncio.timeout(None if address == found[-1] else _TRY_S):
                    return await to(address)
            except OSError as exc:  # of which TimeoutError is one
                failure = exc
        # asyncio puts the address in place of the system's words.
        reason = os.strerror(failure.errno) if failure and failure.errno else f"no answer within {_TRY_S:g} s"
        raise ToolError(f"No connection to {host} port {port}: {reason}.", code="unavailable") from failure

    @asynccontextmanager
    async def _pool(self) -> AsyncIterator[httpcore2.AsyncConnectionPool]:
        if (tls := self._tls) is None:
            tls = await asyncio.to_thread(self._load_tls)
        from dagbok.tools import connections

        if self._loop is not asyncio.get_running_loop():
            async with connections.open_pool(self._connect, tls) as pool:
                yield pool
            return
        if self._kept is None:
            self._kept = connections.open_pool(self._connect, tls)
        yield self._kept

    def _load_tls(self) -> ssl.SSLContext:
        from dagbok.tools import connections  # the first import, and reading the certificates, take a tenth of a second

        with self._tls_loading:  # once, though all first requests come at once
            if self._tls is None:
                self._tls = connections.default_tls()
            return self._tls

    async def _follow(
        self, pool: httpcore2.AsyncConnectionPool, sending: _Sending, max_bytes: int, redirects: bool
    ) -> Fetched:
        seen: list[str] = []
        while True:
            request = sending.request
            status, headers, content = await _answer(pool, sending, max_bytes, follow=redirects)
            if content is not None:
                return Fetched(status, str(request.url), headers, content, tuple(seen))
            seen.append(str(request.url))
            if len(seen) > self._max_redirects:
                message = f"{urls.read(seen[0]).shown} redirects more than {self._max_redirects} times."
                raise ToolError(message, code="too_many_redirects")
            sending.request = request.redirected(status, headers["location"])


class _Sending:
    """The request that is under way, and whether any server may have seen some of it."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.sent = False  # stays true after a redirect: what came before it has happened

    def note(self) -> None:
        self.sent = True


async def _answer(
    pool: httpcore2.AsyncConnectionPool, sending: _Sending, max_bytes: int, *, follow: bool
) -> tuple[int, dict[str, str], bytes | None]:
    """Return status, headers and body; no body if it is a redirect to follow."""
    from dagbok.tools import connections

    request = sending.request
    wire = request.wire_headers()
    async with connections.exchange(pool, request.method, request.url, wire, request.content, sending.note) as response:
        headers = headers_of(response.headers)
        if follow and is_redirect(response.status, headers):
            return response.status, headers, None
        body = Body(headers.get("content-encoding", ""), max_bytes=max_bytes, shown=request.url.shown)
        size = headers.get("content-length", "")
        if size.isdecimal() and request.method != "HEAD":
            body.expect(int(size[:20]))
        async for chunk in response.aiter_stream():
            body.add(chunk)
            if body.chunks % _TURN_CHUNKS == 0:
                await asyncio.sleep(0)  # what has arrived comes without a pause, however many pieces it is in
        return response.status, headers, body.finish()


def _refused(host: str, address: str, why: str, port: int) -> ToolError:
    leads = f"{host} is" if address == host else f"{host} leads to {address}, which is"
    message = (
        f"{leads} {why}; tools reach only the public Internet. Whoever runs this engine can allow it: "
        f"DAGBOK_EGRESS_ALLOW={host if ':' not in host else f'[{host}]'}:{port}."
    )
    return ToolError(message, code="refused_address", host=host, address=address)
