"""A TCP proxy on loopback in front of PostgreSQL that can cut a connection at any message, or fall silent.

It understands as much of the protocol as it takes to know where a message begins and which SQL it runs:
https://www.postgresql.org/docs/current/protocol-message-formats.html. A test gives it a rule, which is asked for each
message of a client that runs something and says what becomes of it.
"""

from __future__ import annotations

import enum
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

_SSL, _GSS, _CANCEL = 80877103, 80877104, 80877102


class Act(enum.Enum):
    """What becomes of a message."""

    PASS = "pass"
    CUT_BEFORE = "the connection ends before the message reaches the server"
    CUT_WITHIN = "half of the message reaches the server, and then the end of the connection"
    CUT_AFTER = "the server does what it says, and its answer is lost with the connection"
    ABANDON = "the client loses the connection, and the server is not told"
    STALL = "nothing passes any more, in either direction, and the connection stays open"


@dataclass(slots=True, eq=False)
class Link:
    """One connection through the proxy."""

    client: socket.socket
    server: socket.socket
    application_name: str = ""
    #: The SQL since the last BEGIN, or since the start.
    said: list[str] = field(default_factory=list)
    statements: dict[bytes, str] = field(default_factory=dict)  # prepared ones by name
    bare_answers: int = 0  # one-byte answers to come: to a request for encryption
    swallow: bool = False
    stalled: bool = False
    abandoned: bool = False  # the server's side stays open, as if the client's computer had lost its power
    closed: threading.Event = field(default_factory=threading.Event)

    @property
    def locks(self) -> bool:
        """Whether it holds the lock of the engine."""
        return self.application_name.startswith("dagbok engine")

    @property
    def writes(self) -> bool:
        """Whether the transaction under way is the group commit's."""
        return bool(self.said) and self.said[0].startswith("BEGIN ISOLATION LEVEL READ COMMITTED")

    def close(self, *, whole: bool = False) -> None:
        self.closed.set()
        for end in (self.client, self.server) if whole or not self.abandoned else (self.client,):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


#: Asked for each message of a client that runs SQL: the link, the SQL, the bytes of the message.
Rule = Callable[[Link, str, int], Act]


def let_pass(link: Link, text: str, size: int) -> Act:
    return Act.PASS


class Proxy:
    """Use `through` to make one."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.rule: Rule = let_pass
        #: Whether new connections are taken and then left without a word.
        self.silent = False
        #: Whether new connections end at once.
        self.refuse = False
        #: Whether the server is never told that a client ends its connection, as if it had yet to come to it.
        self.swallow_goodbyes = False
        self.links: list[Link] = []
        self._all: list[Link] = []
        self._silent_ones: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._spawn(self._accept)

    def url(self, url: str) -> str:
        """Return `url` of the server, through this proxy."""
        return url.replace(f":{self._to}/", f":{self.port}/")

    def cut(self, chosen: Callable[[Link], bool] = lambda _: True) -> None:
        """End the connections that are chosen, from both sides."""
        for link in list(self.links):
            if chosen(link):
                link.close()

    def abandon(self, chosen: Callable[[Link], bool]) -> None:
        """End the connections that are chosen without a word to the server."""
        for link in list(self.links):
            if chosen(link):
                link.abandoned = True
                link.close()

    def stall(self, chosen: Callable[[Link], bool] = lambda _: True) -> None:
        """Let nothing pass any more on the connections that are chosen."""
        for link in list(self.links):
            link.stalled |= chosen(link)

    def close(self) -> None:
        # Closing alone does not wake a thread that waits in `accept`.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for link in self._all:
            link.close(whole=True)
        for end in self._silent_ones:
            end.close()
        for thread in self._threads:
            thread.join(10)

    def _spawn(self, run: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=run, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.refuse:
                client.close()
                continue
            if self.silent:
                self._silent_ones.append(client)
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self._to), 10)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            for end in (client, server):  # otherwise small messages are held back for 40 ms
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            link = Link(client, server)
            self.links.append(link)
            self._all.append(link)
            self._spawn(self._pass_on, link, self._ask)
            self._spawn(self._pass_on, link, self._answer)

    def _pass_on(self, link: Link, work: Callable[[Link], None]) -> None:
        try:
            work(link)
        except (OSError, EOFError):
            pass
        finally:
            link.close()
            with suppress(ValueError):
                self.links.remove(link)

    def _ask(self, link: Link) -> None:
        started = False
        while True:
            if not started:
                message = _read_untyped(link.client)
                code = struct.unpack("!i", message[4:8])[0]
                started = code not in (_SSL, _GSS, _CANCEL)
                link.bare_answers += code in (_SSL, _GSS)
                if started:
                    words = message[8:].split(b"\0")
                    given = dict(zip(words[::2], words[1::2], strict=False))
                    link.application_name = given.get(b"application_name", b"").decode()
                self._to_server(link, message)
                continue
            message = _read_typed(link.client)
            if message[:1] == b"X" and self.swallow_goodbyes:
                link.abandoned = True
                return
            text = _sql(link, message)
            act = self.rule(link, text, len(message)) if text else Act.PASS
            if text.startswith("BEGIN"):
                link.said = []
            if text:
                link.said.append(text)
            if act is Act.CUT_BEFORE:
                return
            if act is Act.CUT_WITHIN:
                self._to_server(link, message[: len(message) // 2])
                return
            if act is Act.ABANDON:
                link.abandoned = True
                return
            link.swallow |= act is Act.CUT_AFTER
            link.stalled |= act is Act.STALL
            self._to_server(link, message)

    def _answer(self, link: Link) -> None:
        while True:
            message = _read(link.server, 1)
            if link.bare_answers:
                link.bare_answers -= 1
            else:
                message += _read_untyped(link.server)
            if link.swallow:
                if message[:1] == b"Z":  # it is ready for the next query, so this one is done
                    return
                continue
            self._wait_if_stalled(link)
            link.client.sendall(message)

    def _to_server(self, link: Link, message: bytes) -> None:
        self._wait_if_stalled(link)
        link.server.sendall(message)

    def _wait_if_stalled(self, link: Link) -> None:
        if link.stalled:
            link.closed.wait()
            raise EOFError


@contextmanager
def through(url: str) -> Iterator[tuple[Proxy, str]]:
    """Yield a proxy before the server of `url`, and the URL that leads through it."""
    port = int(url.rpartition("/")[0].rpartition(":")[2])
    proxy = Proxy(port)
    try:
        yield proxy, proxy.url(url)
    finally:
        proxy.close()


def _read(end: socket.socket, size: int) -> bytes:
    parts: list[bytes] = []
    while size:
        part = end.recv(min(size, 1 << 20))
        if not part:
            raise EOFError
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _read_untyped(end: socket.socket) -> bytes:
    head = _read(end, 4)
    return head + _read(end, struct.unpack("!i", head)[0] - 4)


def _read_typed(end: socket.socket) -> bytes:
    kind = _read(end, 1)
    return kind + _read_untyped(end)


def _sql(link: Link, message: bytes) -> str:
    """Return the SQL that a message (Query, Bind) runs; `COPY DATA` for rows of a COPY."""
    kind, body = message[:1], message[5:]
    if kind == b"Q":
        return body.partition(b"\0")[0].decode()
    if kind == b"P":
        name, _, rest = body.partition(b"\0")
        link.statements[name] = rest.partition(b"\0")[0].decode()
        return ""
    if kind == b"B":
        name = body.partition(b"\0")[2].partition(b"\0")[0]
        return link.statements.get(name, "")
    return "COPY DATA" if kind == b"d" else ""
