"""`web_search` against a search engine of the test's own, over TLS, through the tunnel; and the tunnel by itself."""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from ddgs.engines.duckduckgo import Duckduckgo
from servers import Authority, Received, Server, reply, serving, to_loopback, trap, was_touched
from tool_calls import make_call

from dagbok.domain.states import Effect
from dagbok.errors import ToolError
from dagbok.tools import tunnel as tunnels
from dagbok.tools import web_search
from dagbok.tools.egress import Egress
from dagbok.tools.registry import Registry
from dagbok.tools.tunnel import Tunnel

ENGINE = "html.engine.example"


def hit(number: int) -> str:
    return f"""<div class="result results_links web-result"><div class="links_main result__body">
      <h2 class="result__title"><a rel="nofollow" class="result__a" href="https://site{number}.example/p?a={number}">
      Title &amp; {number}</a></h2>
      <a class="result__snippet" href="https://site{number}.example/p?a={number}">Snippet <b>boats</b> {number}</a>
    </div></div>"""


def results(count: int) -> bytes:
    page = f"<!DOCTYPE html><html><body><div id='links'>{''.join(map(hit, range(count)))}</div></body></html>"
    return reply(page.encode(), content_type="text/html; charset=UTF-8")


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def engine(authority: Authority, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Any]:
    """Give a context manager that runs the one engine `ddgs` knows."""
    bundle = tmp_path / "ca.pem"
    authority._ca.cert_pem.write_to_path(str(bundle))
    monkeypatch.setattr(web_search, "VERIFY", str(bundle))
    monkeypatch.setattr(web_search, "BACKENDS", "duckduckgo")

    @contextmanager
    def run(respond: Callable[[Received], bytes | AsyncIterator[bytes]]) -> Iterator[Server]:
        with serving(respond, tls=authority.server(ENGINE)) as server:
            monkeypatch.setattr(Duckduckgo, "search_url", server.url_of(ENGINE, "/html/"))
            yield server

    return run


def search(egress: Egress, **params: Any) -> dict[str, Any]:
    registry = Registry(egress=egress)
    (made,) = registry.load_module("dagbok.tools.web_search")
    try:
        found: Any = asyncio.run(made(make_call({"query": "boats", **params})))
    finally:
        registry.close()
    assert isinstance(found, dict)
    return found


def to(server: Server) -> Egress:
    return Egress(allow=[server.place], resolve=to_loopback)


def refusal(egress: Egress, **params: Any) -> ToolError:
    with pytest.raises(ToolError) as caught:
        search(egress, **params)
    return caught.value


# -- searching --------------------------------------------------------------------------------------------------------


def test_a_search_gives_titles_urls_and_snippets(engine: Any, capfd: pytest.CaptureFixture[str]) -> None:
    with engine(lambda request: results(3)) as server:
        found = search(to(server))
    assert found["query"] == "boats"
    assert sorted(found["results"], key=lambda one: one["url"]) == [
        {
            "title": f"Title & {n}",
            "url": f"https://site{n}.example/p?a={n}",
            "snippet": f"Snippet boats {n}",
        }
        for n in range(3)
    ]
    assert capfd.readouterr() == ("", "")


def test_the_engine_is_asked_for_what_was_asked(engine: Any) -> None:
    with engine(lambda request: results(3)) as server:
        search(to(server), region="se-sv", time_range="week", query="båtar & hamnar")
    asked = parse_qs(server.requests[0].body.decode())
    assert (asked["q"], asked["l"], asked["df"]) == (["båtar & hamnar"], ["se-sv"], ["w"])


def test_no_more_results_than_asked_for(engine: Any) -> None:
    with engine(lambda request: results(30)) as server:
        assert len(search(to(server), max_results=7)["results"]) == 7


def test_a_search_that_finds_nothing_is_no_error(engine: Any) -> None:
    with engine(lambda request: results(0)) as server:
        assert search(to(server)) == {"query": "boats", "results": []}
        assert len(server.requests) == 1


@pytest.mark.parametrize("status", [202, 403, 429])
def test_an_engine_that_refuses_automatic_searches_is_a_rate_limit(engine: Any, status: int) -> None:
    with engine(lambda request: reply(b"robot?", status=status)) as server:
        error = refusal(to(server))
    assert error.code == "rate_limited"
    assert f"duckduckgo ({status})" in error.message


def test_an_engine_that_fails_is_unavailable(engine: Any) -> None:
    with engine(lambda request: reply(b"oops", status=500)) as server:
        error = refusal(to(server))
    assert (error.code, "duckduckgo (500)" in error.message) == ("unavailable", True)


def test_an_engine_whose_certificate_is_not_trusted_is_unavailable(
    engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with engine(lambda request: results(3)) as server:
        monkeypatch.setattr(web_search, "VERIFY", True)
        assert refusal(to(server)).code == "unavailable"
        assert server.requests == []


def test_every_request_of_the_library_passes_the_guard(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing in the environment leads around it."""
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("no_proxy", ENGINE)
    with engine(lambda request: results(3)) as server:
        error = refusal(Egress(resolve=to_loopback))
        assert error.code == "refused_address"
        assert (server.requests, server.connections) == ([], 0)


def test_a_proxy_of_the_environment_is_not_used(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with trap() as listener, engine(lambda request: results(3)) as server:
        for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "DDGS_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{listener.getsockname()[1]}")
        assert len(search(to(server))["results"]) == 3
        assert not was_touched(listener)


async def _never() -> AsyncIterator[bytes]:
    await asyncio.Event().wait()
    yield b""


def no_thread_left() -> bool:
    return not any(thread.name.startswith("DDGS") for thread in threading.enumerate()) and web_search._lane.busy == 0


def wait_until(condition: Callable[[], bool]) -> None:
    for _ in range(3000):
        if condition():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it did not come about within 30 s")


@pytest.mark.parametrize("limit", ["ENGINE_S", "SEARCH_S"])
def test_an_engine_that_hangs_is_a_timeout_and_leaves_no_thread(
    engine: Any, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    """With the limit of the whole search the library would wait on; closing the tunnel ends it."""
    monkeypatch.setattr(web_search, limit, 1)
    with engine(lambda request: _never()) as server:
        error = refusal(to(server))
        assert (error.code, "within 1 s" in error.message) == ("timeout", limit == "SEARCH_S")
        assert len(server.requests) == 1
        wait_until(lambda: no_thread_left() and web_search._lane.abandoned == 0)


def test_an_encyclopaedia_that_answers_does_not_hide_that_the_engines_refuse() -> None:
    state = web_search._Search("")
    state._answers = [("wikipedia", 200), ("brave", 429)]
    with pytest.raises(ToolError) as caught:
        state.check(None)
    assert caught.value.code == "rate_limited"
    state._answers.append(("mojeek", 200))
    state.check(None)


@pytest.mark.parametrize(
    "params", [{"query": "  "}, {"region": "sweden"}, {"time_range": "hour"}, {"max_results": 0}, {"query": "x" * 501}]
)
def test_params_that_cannot_be_are_bad_input(params: dict[str, Any]) -> None:
    assert refusal(Egress(), **params).code == "invalid_input"


def test_the_names_a_plan_may_use() -> None:
    registry = Registry()
    (made,) = registry.load_module("dagbok.tools.web_search")
    assert (made.name, made.aliases, made.effect) == ("web_search", ("webSearch",), Effect.PURE)
    assert made.timeout_s > web_search.SEARCH_S
    registry.close()


# -- the tunnel -------------------------------------------------------------------------------------------------------


def through(egress: Egress, talk: Callable[[Tunnel, asyncio.StreamReader, asyncio.StreamWriter], Any]) -> Any:
    """Return what `talk` makes of a connection to a tunnel."""

    async def main() -> Any:
        async with Tunnel(egress) as tunnel:
            reader, writer = await connect(tunnel)
            try:
                return await asyncio.wait_for(talk(tunnel, reader, writer), 20)
            finally:
                writer.transport.abort()

    return asyncio.run(main())


async def connect(tunnel: Tunnel) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", urlsplit(tunnel.url).port)


def ask(tunnel: Tunnel, line: str, *, password: str | None = None) -> bytes:
    parts = urlsplit(tunnel.url)
    credentials = base64.b64encode(f"{parts.username}:{password or parts.password}".encode()).decode()
    return f"{line} HTTP/1.1\r\nHost: x\r\nProxy-Authorization: Basic {credentials}\r\n\r\n".encode()


def test_the_tunnel_is_for_those_who_know_its_password_alone() -> None:
    with trap() as listener:
        place = f"127.0.0.1:{listener.getsockname()[1]}"

        async def talk(tunnel: Tunnel, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> list[bytes]:
            writer.write(ask(tunnel, f"CONNECT {place}", password="guessed"))
            second, other = await connect(tunnel)
            other.write(f"CONNECT {place} HTTP/1.1\r\n\r\n".encode())
            try:
                return [await reader.read(), await second.read()]
            finally:
                other.transport.abort()

        for said in through(Egress(allow=[place]), talk):
            assert said.startswith(b"HTTP/1.1 407 ")
        assert not was_touched(listener)


def test_strangers_do_not_use_up_the_connections_of_the_tunnel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tunnels, "MAX_CONNECTIONS", 2)

    async def talk(tunnel: Tunnel, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> list[bytes]:
        said: list[bytes] = []
        for password in ("guessed", "guessed", "guessed", None, None, None):
            one, other = await connect(tunnel)
            other.write(ask(tunnel, "CONNECT 10.0.0.1:443", password=password))
            said.append((await one.read())[9:12])
            other.transport.abort()
        return said

    assert through(Egress(), talk) == [b"407", b"407", b"407", b"502", b"502", b"429"]


@pytest.mark.parametrize(
    "line",
    [
        "GET http://{place}/",
        "GET {place}",
        "POST http://{place}/",
        "CONNECT {place}/x",
        "CONNECT 127.0.0.1",
        "CONNECT :443",
        "",
    ],
)
def test_the_tunnel_tunnels_and_nothing_else(line: str) -> None:
    with trap() as listener:
        place = f"127.0.0.1:{listener.getsockname()[1]}"

        async def talk(tunnel: Tunnel, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
            writer.write(ask(tunnel, line.format(place=place)))
            return await reader.read()

        assert through(Egress(allow=[place]), talk).startswith(b"HTTP/1.1 405 ")
        assert not was_touched(listener)


def test_the_tunnel_connects_only_where_tools_may_go() -> None:
    with trap() as listener:

        async def talk(tunnel: Tunnel, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
            writer.write(ask(tunnel, f"CONNECT localhost:{listener.getsockname()[1]}"))
            said = await reader.read()
            assert tunnel.refusal is not None
            assert tunnel.refusal.code == "refused_address"
            return said

        assert through(Egress(), talk).startswith(b"HTTP/1.1 502 ")
        assert not was_touched(listener)


def test_the_tunnel_carries_both_ways_and_ends_with_either_side() -> None:
    async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.read()).upper())
        writer.close()

    async def talk(tunnel: Tunnel, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        server = await asyncio.start_server(shout, "127.0.0.1", 0)
        tunnel._egress = Egress(allow=["127.0.0.1"])
        writer.write(ask(tunnel, f"CONNECT 127.0.0.1:{server.sockets[0].getsockname()[1]}"))
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        writer.write(b"hello")
        writer.write_eof()
        said = await reader.read()
        server.close()
        return said

    assert through(Egress(), talk) == b"HELLO"


def test_leaving_the_tunnel_cuts_what_is_in_it() -> None:
    with trap() as listener:

        async def main() -> bytes:
            async with Tunnel(Egress(allow=["127.0.0.1"])) as tunnel:
                reader, writer = await connect(tunnel)
                writer.write(ask(tunnel, f"CONNECT 127.0.0.1:{listener.getsockname()[1]}"))
                await reader.readuntil(b"\r\n\r\n")
            try:
                return await asyncio.wait_for(reader.read(), 20)
            except ConnectionResetError:
                return b""
            finally:
                writer.transport.abort()

        assert asyncio.run(main()) == b""


def test_the_tunnel_carries_so_much_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tunnels, "MAX_BYTES", 100_000)

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"x" * 1_000_000)
        writer.close()

    async def talk(tunnel: Tunnel, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
        server = await asyncio.start_server(pour, "127.0.0.1", 0)
        writer.write(ask(tunnel, f"CONNECT 127.0.0.1:{server.sockets[0].getsockname()[1]}"))
        await reader.readuntil(b"\r\n\r\n")
        got = 0
        try:
            while chunk := await reader.read(65536):
                got += len(chunk)
        except ConnectionResetError:
            pass
        server.close()
        return got

    assert through(Egress(allow=["127.0.0.1"]), talk) <= 100_000


def test_the_tunnel_takes_so_many_connections_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tunnels, "MAX_CONNECTIONS", 1)
    with trap() as listener:
        line = f"CONNECT 127.0.0.1:{listener.getsockname()[1]}"

        async def talk(tunnel: Tunnel, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
            writer.write(ask(tunnel, line))
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
            second, other = await connect(tunnel)
            other.write(ask(tunnel, line))
            try:
                return await second.read()
            finally:
                other.transport.abort()

        assert through(Egress(allow=["127.0.0.1"]), talk).startswith(b"HTTP/1.1 429 ")


def test_a_client_that_says_nothing_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tunnels, "_HEAD_S", 0.05)

    async def talk(tunnel: Tunnel, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""

    assert through(Egress(), talk) == b""
