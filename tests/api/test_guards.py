"""Who may call: the names a server answers to, the web pages it listens to, what it sends with every answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.types import Message, Receive, Scope, Send

from api.serving import Server, serving
from dagbok.api import guards

TOOLS = "/api/v1/tools"


@pytest.fixture(scope="module")
def open_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose operator allowed a name and an origin."""
    folder: Path = tmp_path_factory.mktemp("open")
    settings = {"DAGBOK_ALLOWED_HOSTS": "Dagbok.Example,other.example", "DAGBOK_ALLOWED_ORIGINS": "https://ui.example"}
    with serving(f"sqlite:///{folder / 'dagbok.db'}", folder, **settings) as running:
        yield running


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:3000", "127.0.0.1", "127.0.0.1:99", "127.1.2.3", "[::1]", "[::1]:3000", "localhost."],
)
def test_it_answers_to_the_names_of_loopback(server: Server, host: str) -> None:
    assert server.send(f"GET {TOOLS} HTTP/1.1", f"Host: {host}")[0] == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "192.168.1.1", "0.0.0.0", "", "[::2]", "::1:"],
)
def test_it_does_not_answer_to_others(server: Server, host: str) -> None:
    """A name that an attacker made resolve to 127.0.0.1 must not reach the tools (DNS rebinding)."""
    status, headers, body = server.send(f"GET {TOOLS} HTTP/1.1", f"Host: {host}")
    assert (status, headers["content-type"]) == (421, "application/problem+json")
    assert json.loads(body)["code"] == "unknown_host"


def test_a_host_is_needed_and_one_is_enough(server: Server) -> None:
    assert server.send(f"GET {TOOLS} HTTP/1.0")[0] == 400
    assert server.send(f"GET {TOOLS} HTTP/1.1")[0] == 400
    assert server.send(f"GET {TOOLS} HTTP/1.1", "Host: localhost", "Host: evil.example")[0] == 400


def test_allowed_hosts_are_answered(open_server: Server) -> None:
    for host in ("dagbok.example", "DAGBOK.example:8443", "other.example"):
        assert open_server.send(f"GET {TOOLS} HTTP/1.1", f"Host: {host}")[0] == 200
    assert open_server.send(f"GET {TOOLS} HTTP/1.1", "Host: third.example")[0] == 421


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "null", "http://localhost", "http://127.0.0.1:1", "http://localhost:{port}.evil.example",
     "file://", "http://localhost:{port}/path", "http://evil.example:{port}", "chrome-extension://abc", "http://[", ""],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "OPTIONS"])
def test_a_page_of_a_foreign_origin_is_refused(server: Server, origin: str, method: str) -> None:
    given = origin.replace("{port}", str(server.port))
    status, headers, body = server.send(
        f"{method} {TOOLS} HTTP/1.1", f"Host: localhost:{server.port}", f"Origin: {given}"
    )
    assert (status, json.loads(body)["code"]) == (403, "foreign_origin")
    assert not [name for name in headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("127.0.0.1:{port}", "http://127.0.0.1:{port}"),
        ("127.0.0.1:{port}", "http://localhost:{port}"),
        ("localhost:{port}", "http://[::1]:{port}"),
        ("localhost:{port}", "HTTP://LOCALHOST:{port}"),
    ],
)
def test_its_own_pages_may_call(server: Server, host: str, origin: str) -> None:
    lines = [line.replace("{port}", str(server.port)) for line in (f"Host: {host}", f"Origin: {origin}")]
    assert server.send(f"GET {TOOLS} HTTP/1.1", *lines)[0] == 200


def test_two_origins_are_none(server: Server) -> None:
    own = f"Origin: http://127.0.0.1:{server.port}"
    assert server.send(f"GET {TOOLS} HTTP/1.1", f"Host: 127.0.0.1:{server.port}", own, own)[0] == 403


def test_an_allowed_origin_may_call_and_is_told_so(open_server: Server) -> None:
    lines = ["Host: localhost", "Origin: https://ui.example", "Sec-Fetch-Site: cross-site"]
    status, headers, _ = open_server.send(f"GET {TOOLS} HTTP/1.1", *lines)
    assert (status, headers["access-control-allow-origin"]) == (200, "https://ui.example")
    status, _, _ = open_server.send("POST /api/v1/execute-dag HTTP/1.1", *lines, "Content-Length: 0")
    assert status == 415, "it got past the guard"
    ask = ["Access-Control-Request-Method: POST", "Access-Control-Request-Headers: content-type"]
    status, headers, _ = open_server.send("OPTIONS /api/v1/execute-dag HTTP/1.1", *lines, *ask)
    assert (status, headers["access-control-allow-origin"]) == (200, "https://ui.example")


@pytest.mark.parametrize(("site", "status"), [("cross-site", 403), ("same-origin", 404), ("none", 404)])
def test_a_cross_site_request_may_not_change_anything(server: Server, site: str, status: int) -> None:
    line = "POST /api/v1/dag-executions/x/cancel HTTP/1.1"
    assert server.send(line, "Host: localhost", f"Sec-Fetch-Site: {site}", "Content-Length: 0")[0] == status


def test_a_link_from_elsewhere_may_be_followed(server: Server) -> None:
    assert server.send("GET /docs HTTP/1.1", "Host: localhost", "Sec-Fetch-Site: cross-site")[0] == 200


@pytest.mark.parametrize("path", [TOOLS, "/nothing", "/health", "/docs"])
def test_every_answer_has_the_headers_that_keep_browsers_careful(server: Server, path: str) -> None:
    headers = server.client.get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["content-security-policy"].startswith("default-src 'none'")
    assert "server" not in headers
    assert not [name for name in headers if name.startswith("access-control")]


def test_a_header_without_end_is_refused(server: Server) -> None:
    try:
        status, _, _ = server.send("GET /health HTTP/1.1", "Host: localhost", f"X-Long: {'x' * 4_000_000}")
    except OSError:
        return  # cut off before all of it was sent
    assert status == 400


class Client:
    """What a guard hears of one client, and what it says to it; `body` are the parts that come, in time."""

    def __init__(self, method: str, path: str = "/", *, body: bool = False, host: str = "localhost") -> None:
        headers = [(b"host", host.encode())] + ([(b"transfer-encoding", b"chunked")] if body else [])
        self.scope = {"type": "http", "method": method, "path": path, "headers": headers}
        self.parts: asyncio.Queue[Message] = asyncio.Queue()
        self.said: list[Message] = []

    def part(self, data: bytes, *, more: bool) -> None:
        self.parts.put_nowait({"type": "http.request", "body": data, "more_body": more})

    def ask(self, guard: guards.Guard) -> asyncio.Future[int]:
        async def send(message: Message) -> None:
            self.said.append(message)

        async def served() -> int:
            await guard(self.scope, self.parts.get, send)
            return int(self.said[0]["status"]) if self.said else 0

        return asyncio.ensure_future(served())


class Held:
    """An application that answers with the body it got, once it is let."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.under_way += 1
        if scope["path"] != "/health":
            await self.open.wait()
        body = (await receive())["body"] if scope["method"] == "POST" else b""
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})


def guard_of(app: Held, max_bytes: int = 100) -> guards.Guard:
    return guards.Guard(app, hosts=(), origins=(), max_body_bytes=max_bytes)


async def turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.mark.parametrize(("patience_s", "status"), [(60.0, 200), (0.0, 503)])
def test_one_request_too_many_waits_for_its_place_a_while(
    monkeypatch: pytest.MonkeyPatch, patience_s: float, status: int
) -> None:
    """A burst is answered; what does not pass is told to come again; health and the refused need no place."""
    monkeypatch.setattr(guards, "_MAX_REQUESTS", 1)
    monkeypatch.setattr(guards, "_PLACE_PATIENCE_S", patience_s)

    async def main() -> None:
        app = Held()
        guard = guard_of(app)
        first = Client("GET").ask(guard)
        await turns()
        late = Client("GET")
        second = late.ask(guard)
        await turns()
        assert app.under_way == 1
        assert await Client("GET", "/health").ask(guard) == 200
        assert await Client("GET", host="evil.example").ask(guard) == 421
        if status == 503:
            assert await second == 503
            assert (b"retry-after", b"1") in late.said[0]["headers"]
        app.open.set()
        assert (await first, await second) == (200, status)
        assert await Client("GET").ask(guard) == 200

    asyncio.run(main())


def test_bodies_that_do_not_come_hold_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guards, "_MAX_REQUESTS", 1)
    monkeypatch.setattr(guards, "_MAX_BODIES", 1)
    monkeypatch.setattr(guards, "_PLACE_PATIENCE_S", 0.0)

    async def main() -> None:
        app = Held()
        app.open.set()
        guard = guard_of(app)
        slow = [Client("POST", body=True) for _ in range(5)]
        asking = [client.ask(guard) for client in slow]
        await turns()
        assert app.under_way == 0
        assert await Client("GET").ask(guard) == 200, "nobody is in its way"
        slow[0].part(b"a", more=True)
        await turns()
        slow[1].part(b"b", more=True)
        assert await asking[1] == 503, "one body at a time is held"
        slow[2].part(b"c", more=False)
        assert await asking[2] == 200, "one that comes whole is not held"
        slow[3].parts.put_nowait({"type": "http.disconnect"})
        assert await asking[3] == 0, "nobody is left to be told"
        slow[0].part(b"z", more=False)
        assert (await asking[0], slow[0].said[1]["body"]) == (200, b"az")
        slow[4].part(b"x" * 60, more=True)
        slow[4].part(b"x" * 60, more=False)
        assert await asking[4] == 413
        again = Client("POST", body=True)
        again.part(b"1", more=True)
        again.part(b"2", more=False)
        assert await again.ask(guard) == 200, "every place was given back"

    asyncio.run(main())
