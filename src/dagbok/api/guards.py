"""What a request must be before any route sees it: for this host, from no foreign web page, and of bounded size.

A server on loopback without keys is reached by every web page its user opens: a form can post to it (so `Origin` is
judged), and a name can be made to resolve to 127.0.0.1 (DNS rebinding; so `Host` is). Plain ASGI, because it runs for
every request. Sources: OWASP "Cross-Site Request Forgery Prevention"; Fetch Metadata (W3C), RFC 9110 7.2 and 15.5.20.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dagbok.api import problems
from dagbok.api.requests import is_health

_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
#: A body too large is read on for so much, so that a client that sends all before it listens hears the answer.
_DRAIN_BYTES: Final = 16 * 2**20
#: The longest silence within a body.
_BODY_TIMEOUT_S: Final = 30.0
#: Requests under way at once, their bodies read; those that wait for an execution are counted by `Waiting`.
_MAX_REQUESTS: Final = 256
#: Bodies at once of which a part came and more is to come: they are held in memory.
_MAX_BODIES: Final = 256
#: How long one more waits for its place before it is refused: a burst passes, overload does not.
_PLACE_PATIENCE_S: Final = 10.0

_HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
)
_DEFAULTS: Final = (
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)


#: In the scope of a request: called, it gives the place among those under way to another.
GIVE_WAY: Final = "dagbok.give_way"


class Guard:
    """ASGI middleware around the whole application. Everything it refuses is told as a problem."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        hosts: Iterable[str],
        origins: Iterable[str],
        max_body_bytes: int,
        any_address: bool = False,
    ) -> None:
        """Guard `app`.

        Args:
            hosts: Names and addresses it answers to, beside those of loopback.
            origins: Foreign web origins that may call.
            max_body_bytes: Of any request.
            any_address: Whether it answers to every IP address. A name can be made to resolve to us, an address cannot.
        """
        self._app = app
        self._hosts = {"localhost", *(_bare(host) for host in hosts)}
        self._origins = {origin.rstrip("/").lower() for origin in origins}
        self._max_bytes = max_body_bytes
        self._any_address = any_address
        self._places = asyncio.Semaphore(_MAX_REQUESTS)
        self._bodies = asyncio.Semaphore(_MAX_BODIES)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        head = scope["method"] == "HEAD"
        if head:  # what GET would say, without its body
            scope = {**scope, "method": "GET"}
        started = False
        has_place = False

        def give_way() -> None:
            nonlocal has_place
            if has_place:
                has_place = False
                self._places.release()

        scope = {**scope, GIVE_WAY: give_way}

        async def guarded_send(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = list(message.get("headers", ()))
                present = {name for name, _ in headers}
                headers += _HEADERS
                headers += (pair for pair in _DEFAULTS if pair[0] not in present)
                message = {**message, "headers": headers}
            elif head:
                message = {**message, "body": b""}
            await send(message)

        body = _Body(receive, self._max_bytes)
        try:
            self._admit(scope)
            if not is_health(scope):  # which has to be heard however busy the others are
                await self._read(body, scope)
                await _take(self._places)
                has_place = True
            await self._app(scope, body.receive, guarded_send)
        except ClientDisconnect:
            pass  # nobody is left to be told
        except Exception as exc:
            if started:
                raise
            if isinstance(exc, HTTPException) and exc.status_code == 413:
                # Many clients send all before they read; closing on them would reset the connection, unanswered.
                await body.drain()
            await problems.of(exc, scope)(scope, receive, guarded_send)
        finally:
            give_way()

    async def _read(self, body: _Body, scope: Scope) -> None:
        """Read the body, if one is announced. Until its first part is here the request holds nothing of ours."""
        if not any(name in _ANNOUNCING and value.strip() != b"0" for name, value in scope["headers"]):
            return
        if await body.read_part():
            return
        await _take(self._bodies)
        try:
            while not await body.read_part():
                pass
        finally:
            self._bodies.release()

    def _admit(self, scope: Scope) -> None:
        """Raise if the request is not to be served."""
        found: dict[bytes, list[bytes]] = {}
        for name, value in scope["headers"]:
            if name in _JUDGED:
                found.setdefault(name, []).append(value)
        hosts = found.get(b"host", [])
        if len(hosts) != 1:
            raise HTTPException(400, f"The request has {len(hosts) or 'no'} Host headers; it needs one.")
        host = hosts[0].decode("latin-1").strip().lower()
        if not self._knows(host):
            name = host[:100]
            raise HTTPException(421, f"This server does not answer for {name!r}; DAGBOK_ALLOWED_HOSTS adds names.")
        if origins := found.get(b"origin"):
            self._judge_origin(origins, host, scope)
        elif scope["method"] not in _SAFE_METHODS and b"cross-site" in found.get(b"sec-fetch-site", ()):
            raise HTTPException(403, "A page of another site sent this request; it may only read.")
        length = found.get(b"content-length", [b"0"])[0]
        if length.isdigit() and int(length) > self._max_bytes:
            # The server passes over what it did not read, so a client may send it all; but not without end.
            headers = {"Connection": "close"} if int(length) > self._max_bytes + _DRAIN_BYTES else None
            raise HTTPException(413, _too_large(int(length), self._max_bytes), headers)

    def _knows(self, host: str) -> bool:
        name = _bare(host)
        if name in self._hosts:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return self._any_address or address.is_loopback

    def _judge_origin(self, origins: list[bytes], host: str, scope: Scope) -> None:
        origin = origins[0].decode("latin-1").strip().lower()
        if len(origins) == 1 and (origin in self._origins or _is_own(origin, host, scope)):
            return
        raise HTTPException(
            403, f"Pages of {origin[:100]!r} may not call; DAGBOK_ALLOWED_ORIGINS names those that may."
        )


async def _take(places: asyncio.Semaphore) -> None:
    """Take a place. Raises HTTPException 503 if none becomes free for long."""
    if not places.locked():
        await places.acquire()
        return
    try:
        async with asyncio.timeout(_PLACE_PATIENCE_S):
            await places.acquire()
    except TimeoutError as exc:
        message = "Too many requests are under way; try again in a second."
        raise HTTPException(503, message, {"Retry-After": "1"}) from exc


#: The headers that say a body comes (RFC 9112 6).
_ANNOUNCING: Final = frozenset({b"content-length", b"transfer-encoding"})
_JUDGED: Final = frozenset({b"host", b"origin", b"sec-fetch-site", b"content-length"})


class _Body:
    """The body of one request as it arrives, counted."""

    def __init__(self, receive: Receive, max_bytes: int) -> None:
        self._receive = receive
        self._max_bytes = max_bytes
        self._size = 0
        self._ended = False
        self._drained = False
        self._parts: list[bytes] = []  # read, with more to come
        self._whole: bytes | None = None  # read to its end, and not yet received

    async def read_part(self) -> bool:
        """Read the next part and keep it for `receive`; return whether it was the last. Raises as `receive`.

        Raises:
            ClientDisconnect: The client left before its end.
        """
        message = await self.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        self._parts.append(message.get("body", b""))
        if self._ended:
            self._whole = b"".join(self._parts)
            self._parts.clear()
        return self._ended

    async def receive(self) -> Message:
        """Return the next part.

        Raises:
            HTTPException: 413, there is more than the limit; 408, nothing came for long.
        """
        if self._whole is not None:
            whole, self._whole = self._whole, None
            return {"type": "http.request", "body": whole, "more_body": False}
        if self._ended:
            return await self._receive()  # ends with the connection: no bound
        try:
            async with asyncio.timeout(_BODY_TIMEOUT_S):
                message = await self._next()
        except TimeoutError as exc:
            raise HTTPException(
                408, f"Nothing of the body came for {_BODY_TIMEOUT_S:.0f} seconds.", {"Connection": "close"}
            ) from exc
        if self._size > self._max_bytes:
            ended = await self.drain()
            raise HTTPException(413, _too_large(None, self._max_bytes), None if ended else {"Connection": "close"})
        return message

    async def drain(self) -> bool:
        """Read on for a while, once, and forget it; return whether the body ended."""
        if self._drained:
            return self._ended
        self._drained = True
        limit = self._size + _DRAIN_BYTES
        try:
            async with asyncio.timeout(5.0):
                while not self._ended and self._size < limit:
                    await self._next()
        except TimeoutError:
            pass
        return self._ended

    async def _next(self) -> Message:
        message = await self._receive()
        self._size += len(message.get("body", b""))
        self._ended = message["type"] == "http.disconnect" or not message.get("more_body", False)
        return message


def _too_large(size: int | None, limit: int) -> str:
    has = f"{size:,}" if size is not None else "more"
    return f"The body has {has} bytes{'' if size is not None else ' than fit'}; at most {limit:,} are accepted."


def _bare(host: str) -> str:
    """Return a host without its port and brackets, in lower case; one trailing dot is no difference."""
    host = host.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    if host.count(":") == 1:
        host = host.partition(":")[0]
    return host.removesuffix(".")


def _is_own(origin: str, host: str, scope: Scope) -> bool:
    """Whether a page of this server (by whatever name it was asked), or of loopback at its port, is calling."""
    try:
        parts = urlsplit(origin)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return False
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path or parts.query or parts.fragment:
        return False
    if parts.netloc == host:
        return True
    server = scope.get("server")
    if server is None or port != server[1]:
        return False
    try:
        return parts.hostname == "localhost" or ipaddress.ip_address(parts.hostname).is_loopback
    except ValueError:
        return False
