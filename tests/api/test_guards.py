"""Who may call: the names a server answers to, the web pages it listens to, what it sends with every answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx2
import pytest

from api.serving import Server, serving
from dagbok.api import guards
from dagbok.api.app import create_app
from dagbok.app import Dagbok

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


@pytest.mark.parametrize(("patience_s", "status"), [(60.0, 200), (0.0, 503)])
def test_one_request_too_many_waits_for_its_place_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patience_s: float, status: int
) -> None:
    """A burst is answered; what does not pass is told to come again."""
    monkeypatch.setattr(guards, "_MAX_REQUESTS", 1)
    monkeypatch.setattr(guards, "_PLACE_PATIENCE_S", patience_s)

    async def main() -> None:
        async with Dagbok(f"sqlite:///{tmp_path / 'dagbok.db'}") as dagbok:
            transport = httpx2.ASGITransport(create_app(dagbok))
            sending, rest = asyncio.Event(), asyncio.Event()

            async def slow_body() -> AsyncIterator[bytes]:
                sending.set()
                await rest.wait()
                yield b"{}"

            async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
                headers = {"content-type": "application/json"}
                first = asyncio.ensure_future(client.post("/api/v1/execute-dag", content=slow_body(), headers=headers))
                await sending.wait()
                second = asyncio.ensure_future(client.get("/health"))
                if status == 503:
                    refused = await second
                    assert refused.json()["code"] == "overloaded"
                    assert refused.headers["retry-after"] == "1"
                rest.set()
                assert (await first).status_code == 422
                assert (await second).status_code == status
                assert (await client.get("/health")).status_code == 200

    asyncio.run(main())
