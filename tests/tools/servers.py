"""Real servers for tests of outgoing requests: each in a thread with a loop of its own, on a free port of loopback.

with serving(lambda request: reply(b"hello")) as server:
    egress = Egress(allow=[server.place], resolve=to_loopback)
    await egress.fetch("GET", server.url_of("public.example"))
    assert server.requests[0].target == "/"
"""

from __future__ import annotations

import asyncio
import datetime
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass, field

import trustme

LOOPBACK = "127.0.0.1"


@dataclass
class Received:
    """A request as the server got it."""

    method: str
    target: str
    headers: dict[str, str]  # lower-case names; repeated ones are joined by " | "
    body: bytes


#: Bytes are written and the connection is kept. What an iterator yields is written as it comes; its end closes.
Respond = Callable[[Received], bytes | AsyncIterator[bytes]]


@dataclass
class Server:
    """A server that runs."""

    port: int
    scheme: str
    requests: list[Received] = field(default_factory=list)
    connections: int = 0

    @property
    def place(self) -> str:
        """What `allow` must hold for it to be reached."""
        return f"{LOOPBACK}:{self.port}"

    @property
    def url(self) -> str:
        return self.url_of(LOOPBACK)

    def url_of(self, host: str, target: str = "/") -> str:
        return f"{self.scheme}://{host}:{self.port}{target}"


async def to_loopback(host: str, port: int) -> list[str]:
    """A resolver by which every name leads to this machine."""
    return [LOOPBACK]


def reply(
    body: bytes = b"", *, status: int = 200, headers: Mapping[str, str] | None = None, content_type: str = "text/plain"
) -> bytes:
    """An answer, whole."""
    lines = {"Content-Type": content_type, "Content-Length": str(len(body)), **(headers or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"HTTP/1.1 {status} X\r\n{head}\r\n".encode() + body


def redirect(location: str, status: int = 302) -> bytes:
    return reply(status=status, headers={"Location": location})


@contextmanager
def serving(respond: Respond, *, tls: ssl.SSLContext | None = None) -> Iterator[Server]:
    """Run a server that answers each request with what `respond` makes of it."""
    ready = threading.Event()
    server = Server(0, "https" if tls else "http")
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def main() -> None:
        talks: set[asyncio.Task[None]] = set()

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with suppress(OSError, asyncio.IncompleteReadError):
                await _converse(server, respond, reader, writer)

        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            server.connections += 1
            # A task of our own: asyncio prints the traceback of one of its own that is cancelled.
            task = loop.create_task(talk(reader, writer))
            task.add_done_callback(lambda _: writer.transport.abort())  # also where it was cancelled before it began
            talks.add(task)

        listening = await asyncio.start_server(
            connected, LOOPBACK, 0, ssl=tls, ssl_handshake_timeout=5 if tls else None
        )
        server.port = listening.sockets[0].getsockname()[1]
        ready.set()
        await stop.wait()
        # Those just accepted first: of a server that is closed by then, asyncio would leave their sockets open.
        while accepting := asyncio.all_tasks() - talks - {asyncio.current_task()}:
            await asyncio.wait(accepting)
        listening.close()
        for task in talks:
            task.cancel()
        await asyncio.gather(*talks, return_exceptions=True)
        await asyncio.sleep(0)  # what was aborted is closed in the next turn

    def work() -> None:
        loop.run_until_complete(main())
        loop.close()

    thread = threading.Thread(target=work)
    thread.start()
    assert ready.wait(10)
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()


async def _converse(
    server: Server, respond: Respond, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    while True:
        request = await _read(reader)
        server.requests.append(request)
        answer = respond(request)
        if isinstance(answer, bytes):
            writer.write(answer)
            await writer.drain()
            continue
        async with aclosing(answer) as chunks:  # type: ignore[type-var]  # generators, all of them
            async for chunk in chunks:
                writer.write(chunk)
                await writer.drain()
        return


async def _read(reader: asyncio.StreamReader) -> Received:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.strip().split("\r\n")
    method, target, _ = first.split(" ")
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        key = name.lower()
        headers[key] = f"{headers[key]} | {value.strip()}" if key in headers else value.strip()
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Received(method, target, headers, body)


@contextmanager
def trap() -> Iterator[socket.socket]:
    """A listening socket that nobody serves: the system completes every connection, so `was_touched` shows it."""
    with socket.create_server((LOOPBACK, 0)) as listener:
        listener.setblocking(False)
        yield listener


def was_touched(listener: socket.socket) -> bool:
    try:
        connection, _ = listener.accept()
    except BlockingIOError:
        return False
    connection.close()
    return True


class Authority:
    """A certificate authority of the test's own."""

    def __init__(self) -> None:
        self._ca = trustme.CA()

    def server(self, *names: str, expired: bool = False) -> ssl.SSLContext:
        """What a server of these names uses."""
        past = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
        issued = self._ca.issue_cert(*names, not_after=past) if expired else self._ca.issue_cert(*names)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        issued.configure_cert(context)
        return context

    def client(self) -> ssl.SSLContext:
        """What a client uses that trusts this authority and no other."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._ca.configure_trust(context)
        return context
