"""A way through `Egress` for libraries that bring an HTTP client of their own: a proxy on loopback that only tunnels.

The library is given `Tunnel.url` as its proxy. It asks for `CONNECT host:port`; the host is resolved, checked and
connected to by `Egress`, as for any other request, and TLS runs from the library to the host. Plain http is refused.
The credentials are made anew for each tunnel, so that no other program of the machine can use it.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import secrets
from contextlib import suppress
from typing import Final, Self

from dagbok.errors import ToolError
from dagbok.tools.egress import Egress

MAX_CONNECTIONS: Final = 64  # of its client, in all its life
MAX_BYTES: Final = 32 * 2**20  # of one tunnel, both ways
_HEAD_S: Final = 10.0  # a client has so long to say where it wants to go
_CHUNK: Final = 64 * 1024


class Tunnel:
    """A proxy that lives as long as its `async with`; leaving cuts every connection, so no thread waits on one."""

    def __init__(self, egress: Egress) -> None:
        self._egress = egress
        self._password = secrets.token_urlsafe(24)
        self._expected = b"basic " + base64.b64encode(f"dagbok:{self._password}".encode())
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._connections = 0
        self._bytes = 0
        self.url = ""  #: of the proxy, with its credentials
        self.refusal: ToolError | None = None  #: what `Egress` said last when it did not connect

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=_CHUNK)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://dagbok:{self._password}@127.0.0.1:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_HEAD_S):
                head = await reader.readuntil(b"\r\n\r\n")
            place = self._read(head)
            if isinstance(place, bytes):
                writer.write(b"HTTP/1.1 " + place + b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                await writer.drain()
                return
            await self._join(reader, writer, *place)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # either side went away, or was too slow: the library sees its connection end and says so
        finally:
            writer.transport.abort()

    def _read(self, head: bytes) -> tuple[str, int] | bytes:
        """Return where the client wants to go, or the status that refuses it."""
        first, *lines = head.split(b"\r\n")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
        given = headers.get(b"proxy-authorization", b"")
        scheme, _, credentials = given.partition(b" ")
        if not hmac.compare_digest(scheme.lower() + b" " + credentials.strip(), self._expected):
            return b'407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm="dagbok"'
        self._connections += 1  # of those who know the password: others must not use them up
        if self._connections > MAX_CONNECTIONS:
            return b"429 Too Many Requests"
        method, _, rest = first.partition(b" ")
        host, _, port = rest.partition(b" ")[0].decode("latin-1").rpartition(":")
        if method != b"CONNECT" or not host or not port.isdecimal():
            return b"405 Method Not Allowed"
        return host.removeprefix("[").removesuffix("]"), int(port[:6])

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, port: int) -> None:
        try:
            there_reader, there_writer = await self._egress.open_connection(host, port)
        except ToolError as exc:
            self.refusal = exc
            writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            await writer.drain()
            return
        try:
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            there = asyncio.ensure_future(self._pump(reader, there_writer))
            back = asyncio.ensure_future(self._pump(there_reader, writer))
            try:
                await asyncio.gather(there, back)
            finally:
                there.cancel()
                back.cancel()
        finally:
            there_writer.transport.abort()

    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while chunk := await source.read(_CHUNK):
            self._bytes += len(chunk)
            if self._bytes > MAX_BYTES:
                raise ConnectionAbortedError("the tunnel has carried as much as it may")
            target.write(chunk)
            await target.drain()
        with suppress(OSError):  # the other side has gone already
            target.write_eof()
