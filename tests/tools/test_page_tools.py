"""`fetch_page` and `fetch_urls`: real pages from real servers, kind and hostile."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import select
import signal
import subprocess
import sys
import threading
from asyncio.subprocess import Process
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from servers import Received, Server, redirect, reply, serving, to_loopback
from tool_calls import make_call

from dagbok import Dagbok
from dagbok.domain.states import Effect
from dagbok.errors import ToolError
from dagbok.tools import markup, page_reader, pages
from dagbok.tools.egress import Egress, Fetched
from dagbok.tools.page_reader import PageReader
from dagbok.tools.registry import Registry, ToolContext

PARAGRAPH = "The harbour was quiet that morning, and the boats lay still while the town slept on behind them. " * 3
ARTICLE = f"""<!doctype html>
<html lang="en"><head>
<title>Harbour news</title>
<meta name="author" content="Astrid Lind"><meta property="og:site_name" content="The Quay">
<meta property="article:published_time" content="2023-05-06T08:00:00Z">
<style>p {{ color: red }}</style><script>var secret = "script text";</script></head>
<body>
<nav><a href="/">Home</a> <a href="/sport">Sport</a> <a href="#top">Up</a></nav>
<main><article><h1>Harbour news</h1>
<p>{PARAGRAPH}</p><h2>Boats</h2><p>{PARAGRAPH}<b>Bold words</b> end it.</p>
<ul><li>First boat, the red one</li><li>Second boat, the blue one</li></ul>
<p>Read <a href="more/boats?id=7#list">all  about
boats</a>, <a href="https://other.example/x">elsewhere</a>, <a href="/sport">sport again</a>,
<a href="mailto:a@b.se">mail</a>, <a href="javascript:alert(1)">no</a>.</p></article></main>
<footer>Cookies and copyright notice</footer></body></html>"""

Answer = bytes | Callable[[Received], bytes | AsyncIterator[bytes]]


def call(name: str, egress: Egress, report: Any = lambda message, fraction: None, **params: Any) -> Any:
    registry = Registry(egress=egress)
    registry.load_module("dagbok.tools.pages")
    made = registry.get(name)
    assert made is not None
    try:
        return asyncio.run(made(make_call(params, report=report)))
    finally:
        registry.close()


def to(*servers: Server) -> Egress:
    return Egress(allow=[server.place for server in servers], resolve=to_loopback, timeout_s=20)


def fetch(answer: Answer, target: str = "/news/today?x=1", **params: Any) -> dict[str, Any]:
    with serving(answer if callable(answer) else lambda request: answer) as server:
        found: dict[str, Any] = call("fetch_page", to(server), url=server.url_of("quay.example", target), **params)
        return found


def html(text: str | bytes, charset: str = "; charset=utf-8") -> bytes:
    content = text if isinstance(text, bytes) else text.encode()
    return reply(content, content_type=f"text/html{charset}")


def refusal(answer: Answer, **params: Any) -> ToolError:
    with pytest.raises(ToolError) as caught:
        fetch(answer, **params)
    return caught.value


def read(
    page: str, *, max_chars: int = 10**7, max_links: int = 100, url: str = "https://a.example/x"
) -> dict[str, Any]:
    async def main() -> dict[str, Any]:
        async with PageReader() as reader:
            return await reader.read(page, url=url, max_chars=max_chars, max_links=max_links)

    return asyncio.run(main())


# -- what a page becomes ----------------------------------------------------------------------------------------------


def test_an_article_becomes_markdown_without_what_stands_around_it() -> None:
    page = fetch(html(ARTICLE))
    assert page["text"].startswith("# Harbour news\n")
    assert "## Boats" in page["text"]
    assert "- First boat, the red one\n- Second boat, the blue one" in page["text"]
    assert "**Bold words**" in page["text"]
    for absent in ("Cookies", "script text", "color: red", "Home"):
        assert absent not in page["text"]
    assert (page["title"], page["author"], page["date"]) == ("Harbour news", "Astrid Lind", "2023-05-06")
    assert (page["site_name"], page["language"]) == ("The Quay", "en")
    assert (page["truncated"], page["note"]) == (False, None)


def test_links_are_absolute_without_fragments_and_each_comes_once() -> None:
    with serving(lambda request: html(ARTICLE)) as server:
        page = call("fetch_page", to(server), url=server.url_of("quay.example", "/news/today?x=1"))
        assert page["url"] == server.url_of("quay.example", "/news/today?x=1")
        assert page["links"] == [
            {"url": server.url_of("quay.example", "/"), "text": "Home"},
            {"url": server.url_of("quay.example", "/sport"), "text": "Sport"},
            {"url": server.url_of("quay.example", "/news/more/boats?id=7"), "text": "all about boats"},
            {"url": "https://other.example/x", "text": "elsewhere"},
        ]


def test_links_follow_the_base_of_the_page_and_are_bounded() -> None:
    page = '<base href="/deep/"><a href="one">1</a><a href="two"><img></a><a href="two">2</a><a href="http://[">x</a>'
    links = [{"url": "https://a.example/deep/one", "text": "1"}, {"url": "https://a.example/deep/two", "text": "2"}]
    assert read(page)["links"] == links
    assert read(page, max_links=1)["links"] == links[:1]
    assert read(page, max_links=0)["links"] == []


def test_a_redirect_tells_where_the_page_is() -> None:
    def respond(request: Received) -> bytes:
        return redirect("/b") if request.target == "/a" else html(ARTICLE)

    page = fetch(respond, "/a")
    assert page["url"].endswith("/b")
    assert page["title"] == "Harbour news"


@pytest.mark.parametrize("answer", [html(ARTICLE), reply(b"text")])
@pytest.mark.parametrize(
    ("asked", "location", "shown"),
    [("/a?id=7", "/b?sig=key", "/b"), ("/a", "/b?sig=key", "/b"), ("/a?id=7", "/b?id=7", "/b?id=7"),
     ("/a?id=7", "/b", "/b")],
)  # fmt: skip
def test_a_query_that_a_redirect_brought_is_not_kept(answer: bytes, asked: str, location: str, shown: str) -> None:
    """It may be a key (a signed URL of a store); what the plan asked for is a part of what the page is."""
    page = fetch(lambda request: redirect(location) if request.target == asked else answer, asked)
    assert page["url"].partition("quay.example")[2].partition("/")[2] == shown[1:]
    assert "sig" not in str(page)


def test_text_beyond_the_limit_is_cut_and_said_to_be() -> None:
    page = fetch(html(ARTICLE), max_chars=10)
    assert (page["text"], page["truncated"]) == ("# Harbour ", True)
    page = fetch(reply(b"0123456789"), max_chars=9)
    assert (page["text"], page["truncated"]) == ("012345678", True)
    assert fetch(reply(b"0123456789"), max_chars=10)["truncated"] is False


def test_a_page_without_main_text_gives_its_visible_text() -> None:
    page = fetch(
        html("<html><body><div>Menu</div><span>one</span> <span>two</span><script>no()</script></body></html>")
    )
    assert page["text"].split() == ["Menu", "one", "two"]
    assert page["note"] is None


@pytest.mark.parametrize("shell", ['<html><body><div id="root"></div><script src="/a.js"></script></body></html>', ""])
def test_a_shell_of_scripts_has_no_text_and_says_why(shell: str) -> None:
    page = fetch(html(shell))
    assert page["text"] == ""
    assert "scripts, which are not run" in page["note"]


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("text/plain", "a <b> c"), ("text/markdown", "# hej"), ("application/json", '{"a": 1}'),
        ("text/csv", "a,b\n1,2"),
        ("application/atom+xml", "<feed/>"), ("application/ld+json; charset=utf-8", "[]"), ("application/xml", "<a/>"),
    ],
)  # fmt: skip
def test_what_is_no_page_but_text_comes_as_it_is(content_type: str, body: str) -> None:
    page = fetch(reply(body.encode(), content_type=content_type))
    assert (page["text"], page["title"], page["links"]) == (body, None, [])
    assert set(page) == set(fetch(html(ARTICLE)))


def test_a_page_without_a_media_type_is_known_by_its_beginning() -> None:
    assert fetch(reply(ARTICLE.encode(), content_type=""))["title"] == "Harbour news"
    assert fetch(reply(b"just text", content_type=""))["text"] == "just text"


@pytest.mark.parametrize(
    ("content_type", "body"),
    [("application/pdf", b"%PDF-1.7"), ("image/png", b"\x89PNG"), ("application/octet-stream", b"abc"),
     ("text/plain", b"a\0b"), ("", b"\0\1")],
)  # fmt: skip
def test_what_is_no_text_is_refused_and_the_way_to_get_it_named(content_type: str, body: bytes) -> None:
    error = refusal(reply(body, content_type=content_type))
    assert error.code == "unsupported_media_type"
    assert "http_request" in error.message


@pytest.mark.parametrize(
    ("encoded", "charset"),
    [
        ("<html><body><p>smörgås “x”</p></body></html>".encode("cp1252"), '; charset="ISO-8859-1"'),
        ('<html><meta charset="iso-8859-1"><p>smörgås “x”</p></html>'.encode("cp1252"), ""),
        ('<meta http-equiv="Content-Type" content="text/html; charset=macintosh"><p>smörgås'.encode("mac_roman"), ""),
        ("<html><p>smörgås</p></html>".encode("utf-8-sig"), ""),
        ("<html><p>smörgås</p></html>".encode("utf-16"), ""),
        ("<html><p>smörgås</p></html>".encode(), ""),
        ('<html><meta charset="latin1"><p>smörgås</p></html>'.encode(), "; charset=utf-8"),  # the header wins
        ('<html><meta charset="punycode"><p>smörgås</p></html>'.encode(), ""),  # no encoding of the web
    ],
)  # fmt: skip
def test_the_charset_is_that_of_the_mark_the_header_or_the_page(encoded: bytes, charset: str) -> None:
    text = fetch(html(encoded, charset))["text"]
    assert text in ("smörgås", "smörgås “x”")


@pytest.mark.parametrize(
    ("content_type", "begin"),
    [
        ("text/html; charset=" + " " * 10**6 + ";", b""),
        ("text/html; charset " + " " * 10**6, b""),
        ("text/html" + "; charset = " * 10**5, b""),
        ("text/html", b"<meta" * 4000 + b"charset=" + b" " * 10**6 + b";"),
        ("text/html", b"<meta " + b"charset=" + b" " * 10**6 + b";"),
        ("text/html", (b"<meta charset" + b" " * 9) * 40_000),
        ("text/html", b"<meta " + b"charset=" * 10**5),
    ],
    ids=range(7),
)
def test_a_charset_built_to_be_slow_is_none(monkeypatch: pytest.MonkeyPatch, content_type: str, begin: bytes) -> None:
    """Regular expressions of quadratic time took seconds for a few kilobytes, with the engine held; hours for these."""
    monkeypatch.setattr(pages, "_META_BYTES", 10**7)
    monkeypatch.setattr(pages, "_HEADER_CHARS", 10**7, raising=False)
    content = begin + "<p>smörgås</p>".encode()
    assert "smörgås" in pages._decoded(Fetched(200, "https://a.example/", {"content-type": content_type}, content))


@pytest.mark.parametrize(
    "declared",
    ['<meta charset=latin1>', "<META/CHARSET = 'latin1'>", '<meta name=x><meta content="text/html; charset= latin1">',
     '<meta data-x="' + "y" * 300 + '" charset="latin1"/>'],
)  # fmt: skip
def test_the_ways_a_page_declares_its_charset(declared: str) -> None:
    content = f"{declared}<p>smörgås</p>".encode("cp1252")
    assert "smörgås" in pages._decoded(Fetched(200, "https://a.example/", {"content-type": "text/html"}, content))
    content = f"{declared}<p>smörgås</p>".encode()
    headers = {"content-type": "text/html; Charset='utf-8'"}
    assert "smörgås" in pages._decoded(Fetched(200, "https://a.example/", headers, content))


@pytest.mark.parametrize(
    ("status", "code"), [(404, "not_found"), (403, "refused"), (500, "unavailable"), (400, "invalid_input")]
)
def test_an_answer_without_success_is_an_error_as_for_any_request(status: int, code: str) -> None:
    error = refusal(reply(b"sorry", status=status))
    assert (error.code, error.status) == (code, status)


def test_a_page_that_asks_to_wait_says_how_long() -> None:
    error = refusal(reply(b"", status=429, headers={"Retry-After": "7"}))
    assert (error.code, error.retry_after_s) == ("rate_limited", 7.0)


def test_a_page_over_the_limit_is_an_error() -> None:
    assert refusal(html("x" * (pages.MAX_PAGE_BYTES + 1))).code == "too_large"


def test_a_private_address_is_not_read() -> None:
    with serving(lambda request: html(ARTICLE)) as server, pytest.raises(ToolError) as caught:
        call("fetch_page", Egress(resolve=to_loopback), url=server.url_of("quay.example"))
    assert caught.value.code == "refused_address"
    assert server.requests == []


def test_the_names_a_plan_may_use() -> None:
    registry = Registry()
    registry.load_module("dagbok.tools.pages")
    for name in ("fetch_page", "fetchPage", "fetch_url", "fetchUrl", "fetch_urls", "fetchURLs", "fetchUrls"):
        made = registry.get(name)
        assert made is not None
        assert made.effect is Effect.PURE
    registry.close()


# -- hostile pages ----------------------------------------------------------------------------------------------------

MIB = 2**20


@pytest.mark.parametrize(
    "page",
    [
        "<div>" * 800_000 + "deep",
        "<b>x</b>" * 500_000,
        "<p " + " ".join(f"a{n}=x" for n in range(400_000)) + ">text</p>",
        "<table><tr><td>" * 100_000 + "text",
        "<p title='" + "a" * (4 * MIB - 100) + "'>text</p>",
        "<!--" + "x" * (4 * MIB - 100) + "-->text",
        "<a href='/same'>y</a>" * 190_000,
        "<script type='application/ld+json'>" + "[" * MIB + "</script><p>text</p>",
    ],
    ids=["nested", "elements", "attributes", "tables", "attribute", "comment", "links", "json"],
)
def test_a_page_built_to_be_slow_is_read_all_the_same(page: str) -> None:
    """Each takes from minutes to hours, or gigabytes, where nothing is counted first."""
    found = read(page)
    assert found["fault"] is None
    assert found["text"].strip() in ("deep", "text", "") or found["text"].strip()[0] in "xy"


HOSTILE = "<html><script type='application/ld+json'>{" + '"@type"  : [' * 300_000 + "</script><p>x</p></html>"


def instead(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, begin: str = "", **constants: int) -> None:
    """Let the processes run a program that begins otherwise, or has other constants."""
    program = Path(markup.__file__).read_text()
    for name, value in constants.items():
        program, count = re.subn(rf"^({name}: Final = )\d+", rf"\g<1>{value}", program, flags=re.MULTILINE)
        assert count == 1
    (tmp_path / "program.py").write_text(program.replace("import json\n", f"{begin}\nimport json\n", 1))
    monkeypatch.setattr(page_reader, "_PROGRAM", tmp_path / "program.py")


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Process]:
    """The processes that read pages, in the order they were ready."""
    found: list[Process] = []
    start = page_reader._start

    async def noting() -> Process:
        found.append(await start())
        return found[-1]

    monkeypatch.setattr(page_reader, "_start", noting)
    return found


async def simply(reader: PageReader, text: str = "x") -> str:
    page = await reader.read(f"<p>{text}</p>", url="https://a.example/x?key=7", max_chars=100, max_links=0)
    return str(page["text"])


def test_a_page_that_holds_a_rule_for_hours_is_given_up_and_the_next_is_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A regular expression of trafilatura is quadratic in this; in a thread it would stop the whole process."""
    instead(monkeypatch, tmp_path, CPU_S=1)
    turns = 0

    async def main() -> tuple[ToolError, str]:
        async def tick() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0.01)
                turns += 1

        ticking = asyncio.ensure_future(tick())
        async with PageReader() as reader:
            with pytest.raises(ToolError) as caught:
                await reader.read(HOSTILE, url="https://a.example/?key=7", max_chars=100, max_links=0)
            after = await simply(reader, "next")
        ticking.cancel()
        return caught.value, after

    error, after = asyncio.run(main())
    assert error.code == "unreadable"
    assert "http_request" in error.message
    assert "key" not in error.message
    assert after == "next"
    assert turns > 20  # the loop went on meanwhile


def test_a_process_that_dies_fails_its_page_and_no_other() -> None:
    async def main() -> None:
        async with PageReader(processes=1) as reader:
            await simply(reader)
            process = next(iter(reader._idle))
            process.kill()
            await process.wait()
            assert await simply(reader, "two") == "two"  # nobody waited on the one that died
            process = next(iter(reader._idle))
            os.kill(process.pid, signal.SIGSTOP)
            reading = asyncio.ensure_future(simply(reader))
            await asyncio.sleep(0)
            process.kill()
            with pytest.raises(ToolError) as caught:
                await reading
            assert caught.value.code == "unreadable"
            assert await simply(reader, "three") == "three"

    asyncio.run(main())


def test_no_process_is_left_after_a_call_that_is_cancelled(
    monkeypatch: pytest.MonkeyPatch, started: list[Process]
) -> None:
    asking = asyncio.Event()
    ask = page_reader._ask

    async def noting(*arguments: Any) -> bytes:
        asking.set()
        return await ask(*arguments)

    monkeypatch.setattr(page_reader, "_ask", noting)

    async def main() -> None:
        async with PageReader() as reader:
            task = asyncio.ensure_future(reader.read(HOSTILE, url="https://a.example/", max_chars=1, max_links=0))
            await asking.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert started[0].returncode is not None

    asyncio.run(main())
    with pytest.raises(ProcessLookupError):
        os.kill(started[0].pid, 0)


def test_leaving_ends_every_process_even_if_it_is_cancelled() -> None:
    async def main() -> list[int]:
        reader = PageReader(processes=3)
        await reader.__aenter__()
        await asyncio.gather(*(simply(reader) for _ in range(3)))
        processes = list(reader._idle)
        assert len(processes) == 3
        leaving = asyncio.ensure_future(reader.__aexit__())
        await asyncio.sleep(0)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        return [await asyncio.wait_for(process.wait(), 20) for process in processes]

    assert asyncio.run(main()) == [-signal.SIGKILL] * 3


def test_however_many_pages_there_are_the_processes_are_few(started: list[Process]) -> None:
    """64 calls once had 64 processes and 3.6 GB."""

    async def main() -> list[str]:
        async with PageReader(processes=2) as reader:
            return await asyncio.gather(*(simply(reader, str(n)) for n in range(20)))

    assert asyncio.run(main()) == [str(n) for n in range(20)]
    assert len(started) == 2


def test_a_process_without_pages_ends_after_a_while(started: list[Process]) -> None:
    async def main() -> None:
        async with PageReader(idle_s=0) as reader:
            await simply(reader)
            assert await asyncio.wait_for(started[0].wait(), 20) == -signal.SIGKILL
            assert await simply(reader, "again") == "again"

    asyncio.run(main())
    assert len(started) == 2


def test_outside_an_engine_a_call_has_processes_of_its_own(started: list[Process]) -> None:
    with serving(lambda request: html(ARTICLE)) as server:
        urls = [server.url_of("quay.example", f"/{n}") for n in range(12)]
        assert len(call("fetch_urls", to(server), urls=urls)) == 12
        assert 1 <= len(started) <= page_reader.PROCESSES
        assert all(process.returncode is not None for process in started)

    async def main() -> None:
        reader = PageReader()
        with pytest.raises(RuntimeError, match="not open"):
            await simply(reader)
        async with reader:
            async with reader.here() as same:
                assert same is reader
            with pytest.raises(RuntimeError, match="open already"):
                await reader.__aenter__()

    asyncio.run(main())


def test_all_calls_of_an_engine_share_its_processes(tmp_path: Path, started: list[Process]) -> None:
    async def read(context: ToolContext) -> str:
        async with context.page_reader.here() as reader:
            return await simply(reader)

    async def main() -> None:
        database = f"sqlite:///{tmp_path}/diary.db"
        async with Dagbok(database, tools=[read], workspace=tmp_path) as dagbok:
            tasks = [{"id": str(n), "action_type": "tool", "tool_or_prompt": {"name": "read"}} for n in range(12)]
            done = await dagbok.run({"original_request": "x", "intent": {"primary": "x"}, "sub_tasks": tasks})
            assert done.status == "completed"
            assert 1 <= len(started) <= page_reader.PROCESSES
        assert all(process.returncode is not None for process in started)

    asyncio.run(main())


def test_a_killed_engine_leaves_no_process() -> None:
    program = (
        "import asyncio\nfrom dagbok.tools.page_reader import PageReader\n"
        "async def main():\n"
        "    async with PageReader() as reader:\n"
        "        await reader.read('<p>x</p>', url='http://a/', max_chars=1, max_links=0)\n"
        "        print(next(iter(reader._idle)).pid, flush=True)\n"
        "        await asyncio.Event().wait()\n"
        "asyncio.run(main())"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as engine:
        assert engine.stdout is not None
        reading = os.pidfd_open(int(engine.stdout.readline()))
        try:
            assert select.select([reading], [], [], 0)[0] == []  # it lives
            engine.kill()
            assert select.select([reading], [], [], 20)[0] == [reading]
        finally:
            os.close(reading)


def test_ctrl_c_in_a_terminal_is_for_the_engine_alone() -> None:
    async def main() -> int:
        async with PageReader() as reader:
            await simply(reader)
            return os.getsid(next(iter(reader._idle)).pid)

    assert asyncio.run(main()) != os.getsid(0)


def test_the_time_of_a_page_begins_when_its_process_is_ready(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """On a busy machine the start alone takes long, and an honest page is not to blame."""
    instead(monkeypatch, tmp_path, "import time; time.sleep(2.5)")
    monkeypatch.setattr(page_reader, "TIMEOUT_S", 2.0)
    assert read("<p>fine</p>")["text"] == "fine"


def failing_start() -> ToolError:
    with pytest.raises(ToolError) as caught:
        read("<p>x</p>")
    assert caught.value.code == "unavailable"
    return caught.value


def test_a_process_that_cannot_start_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    instead(monkeypatch, tmp_path, "raise ImportError('half a package')")
    assert "ImportError: half a package" in failing_start().message
    instead(monkeypatch, tmp_path, "import time; time.sleep(60)")
    monkeypatch.setattr(page_reader, "START_S", 0.1)
    assert "not ready within 0.1 s" in failing_start().message
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert "/nowhere/python" in failing_start().message


def test_the_process_finds_the_packages_that_we_find(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "only_here.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path / "packages"))
    instead(monkeypatch, tmp_path, "import only_here")
    assert read("<p>found</p>")["text"] == "found"


def test_the_process_gets_no_secret_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGBOK_SMTP_URL", "smtp://u:secret@h")

    async def main() -> bytes:
        async with PageReader() as reader:
            await reader.read("<p>x</p>", url="https://a.example/", max_chars=1, max_links=0)
            return await asyncio.to_thread(Path(f"/proc/{next(iter(reader._idle)).pid}/environ").read_bytes)

    environment = asyncio.run(main())
    assert b"PATH=" in environment
    assert b"secret" not in environment


def test_the_process_is_bounded_by_the_system_too() -> None:
    """So that a page neither fills the memory nor writes files, and ends even if this process has died."""

    async def main() -> str:
        async with PageReader() as reader:
            await reader.read("<p>x</p>", url="https://a.example/", max_chars=1, max_links=0)
            return await asyncio.to_thread(Path(f"/proc/{next(iter(reader._idle)).pid}/limits").read_text)

    limits = {line[:26].strip(): line[26:].split()[0] for line in asyncio.run(main()).splitlines()}
    assert int(limits["Max cpu time"]) in range(markup.CPU_S, markup.CPU_S + 10)
    assert limits["Max address space"] == str(markup.MEMORY_BYTES)
    assert limits["Max file size"] == "0"


def test_a_process_that_does_not_answer_is_given_up_and_the_page_can_be_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> ToolError:
        async with PageReader() as reader:
            await simply(reader)
            os.kill(next(iter(reader._idle)).pid, signal.SIGSTOP)
            monkeypatch.setattr(page_reader, "TIMEOUT_S", 0.1)
            with pytest.raises(ToolError) as caught:
                await asyncio.wait_for(simply(reader), 20)
            return caught.value

    error = asyncio.run(main())
    assert error.code == "timeout"
    assert "https://a.example/x " in error.message
    assert "key" not in error.message


def test_what_trafilatura_cannot_take_falls_back_to_the_visible_text(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RecursionError("too deep")

    monkeypatch.setattr("trafilatura.bare_extraction", fail)
    found = markup.read(ARTICLE, url="https://a.example/", max_chars=10_000, max_links=0)
    assert "The harbour was quiet" in found["text"]
    assert "script text" not in found["text"]
    assert (found["title"], found["fault"]) == ("Harbour news", "RecursionError: too deep")


def test_a_fault_is_logged_and_not_part_of_the_page(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def found(*_: object, **__: object) -> dict[str, Any]:
        return {"text": "x", "fault": "RecursionError"}

    monkeypatch.setattr(PageReader, "read", found)
    with caplog.at_level(logging.WARNING, logger="dagbok.tool.fetch_page"):
        assert "fault" not in fetch(html("<p>x</p>"), "/page?key=7")
    assert "RecursionError" in caplog.text
    assert "/page" in caplog.text
    assert "key" not in caplog.text


def test_reading_a_page_makes_no_further_request() -> None:
    requested: list[str] = []

    def respond(request: Received) -> bytes:
        requested.append(request.target)
        here = "http://quay.example/"
        return html(
            ARTICLE.replace(
                "<head>",
                f"<head><base href='{here}'><link rel=canonical href='{here}c'><link rel=stylesheet href='{here}s'>"
                f"<meta http-equiv=refresh content='0; url={here}r'><img src='{here}i'><iframe src='{here}f'></iframe>",
            )
        )

    fetch(respond, "/only")
    assert requested == ["/only"]


def test_lone_surrogates_and_nul_do_not_get_out() -> None:
    found = read("<html><body><p>a&#xD800;b&#0;c\0d</p></body></html>")
    assert "\0" not in found["text"]
    found["text"].encode()


# -- many pages -------------------------------------------------------------------------------------------------------


def test_many_pages_come_in_the_order_asked_for_and_failures_beside_them() -> None:
    def respond(request: Received) -> bytes:
        if request.target == "/missing":
            return reply(b"gone", status=404)
        return html(f"<html><title>{request.target}</title><body><p>{PARAGRAPH}</p></body></html>")

    with serving(respond) as server:
        urls = [server.url_of("quay.example", target) for target in ("/a", "/missing", "/b", "/a", "/a#part")]
        urls.append("http://10.0.0.1/")
        found = call("fetch_urls", to(server), urls=urls)
        assert [one["url"] for one in found] == urls
        assert [one["ok"] for one in found] == [True, False, True, True, True, False]
        assert [one["page"]["title"] for one in found if one["ok"]] == ["/a", "/b", "/a", "/a"]
        assert found[1]["error"]["code"] == "not_found"
        assert found[5]["error"]["code"] == "refused_address"
        assert Counter(request.target for request in server.requests) == {"/a": 1, "/b": 1, "/missing": 1}


def test_a_page_that_finds_a_fault_of_ours_harms_no_other(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_: object, **__: object) -> dict[str, Any]:
        raise TypeError("str is not valid UTF-8")

    monkeypatch.setattr(PageReader, "read", fail)

    def respond(request: Received) -> bytes:
        return html("<p>x</p>") if request.target.startswith("/odd") else reply(b"fine")

    with serving(respond) as server:
        urls = [server.url_of("quay.example", target) for target in ("/odd?key=7", "/fine")]
        odd, fine = call("fetch_urls", to(server), urls=urls)
    assert odd["error"] == {"code": "tool_error", "message": "TypeError: str is not valid UTF-8"}
    assert fine["page"]["text"] == "fine"
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert record.exc_info is not None
    assert "/odd" in record.getMessage()
    assert "key" not in record.getMessage()


def test_a_process_that_cannot_start_harms_no_page_without_html(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with serving(lambda request: html("<p>x</p>") if request.target == "/html" else reply(b"fine")) as server:
        urls = [server.url_of("quay.example", target) for target in ("/html", "/text")]
        page, text = call("fetch_urls", to(server), urls=urls)
    assert page["error"]["code"] == "unavailable"
    assert text["page"]["text"] == "fine"


def test_progress_counts_the_pages() -> None:
    told: list[tuple[str, float | None]] = []
    with serving(lambda request: reply(b"x")) as server:
        urls = [server.url_of("quay.example", f"/{n}") for n in range(4)]
        call("fetch_urls", to(server), lambda message, fraction: told.append((message, fraction)), urls=urls)
    assert told == [("1 of 4 pages", 0.25), ("2 of 4 pages", 0.5), ("3 of 4 pages", 0.75), ("4 of 4 pages", 1.0)]


@pytest.mark.parametrize(("targets", "code"), [(("/404", "/404?"), "not_found"), (("/404", "/500"), "all_failed")])
def test_when_every_page_fails_the_step_fails(targets: tuple[str, ...], code: str) -> None:
    with serving(lambda request: reply(status=int(request.target[1:4]))) as server:
        with pytest.raises(ToolError, match=r"None of the 2 pages could be read") as caught:
            call("fetch_urls", to(server), urls=[server.url_of("quay.example", target) for target in targets])
        assert caught.value.code == code


def test_when_every_page_may_be_there_later_so_may_all_of_them() -> None:
    """Whoever asks for the most patience is heard."""

    def respond(request: Received) -> bytes:
        status = int(request.target[1:4])
        return reply(status=status, headers={"Retry-After": str(status - 426)} if status in (429, 503) else {})

    def fail(*targets: str) -> ToolError:
        with serving(respond) as server, pytest.raises(ToolError) as caught:
            call("fetch_urls", to(server), urls=[server.url_of("quay.example", target) for target in targets])
        return caught.value

    mixed = fail("/429", "/503", "/502")
    assert (mixed.code, mixed.retry_after_s) == ("unavailable", 77)
    assert "(rate_limited, unavailable)" in mixed.message
    same = fail("/429", "/429?")
    assert (same.code, same.retry_after_s) == ("rate_limited", 3)
    assert "retry_after_s" not in fail("/502", "/504").fields
    assert fail("/429", "/404").code == "all_failed"


class Gate:
    """Holds every request until as many as expected are there at once, and notes the most there were."""

    def __init__(self, expected: int) -> None:
        self.expected = expected
        self.inside = 0
        self.most = 0
        self.open = threading.Event()

    def __call__(self, request: Received) -> AsyncIterator[bytes]:
        return self._answer()

    async def _answer(self) -> AsyncIterator[bytes]:
        self.inside += 1
        self.most = max(self.most, self.inside)
        if self.inside >= self.expected:
            self.open.set()
        while not self.open.is_set():
            await asyncio.sleep(0.001)
        # Whoever is let in beyond the limit has had every chance to be here by now.
        await asyncio.sleep(0.02)
        self.inside -= 1
        yield reply(b"x")


@pytest.mark.parametrize(("limit", "expected"), [(8, pages.MAX_PER_HOST), (2, 2)])
def test_one_host_is_asked_a_few_times_at_once(limit: int, expected: int) -> None:
    gate = Gate(expected)
    with serving(gate) as server:
        urls = [server.url_of("quay.example", f"/{n}") for n in range(12)]
        call("fetch_urls", to(server), urls=urls, max_concurrency=limit)
    assert gate.most == expected


def test_one_host_is_one_however_it_is_written() -> None:
    spellings = ("quay.example", "QUAY.example", "\uff51uay.example")
    gate = Gate(pages.MAX_PER_HOST)
    with serving(gate) as server:
        urls = [server.url_of(host, f"/{n}") for host in spellings for n in range(3)]
        call("fetch_urls", to(server), urls=urls, max_concurrency=9)
    assert gate.most == pages.MAX_PER_HOST


def test_a_busy_host_does_not_hold_up_the_others() -> None:
    gate = Gate(8)
    with serving(gate) as server:
        urls = [server.url_of(f"{host}.example", f"/{n}") for host in "ab" for n in range(6)]
        call("fetch_urls", to(server), urls=urls, max_concurrency=8)
    assert gate.most == 8


def test_params_that_cannot_be_are_bad_input() -> None:
    wrong: tuple[dict[str, Any], ...] = (
        {"urls": []},
        {"urls": ["http://a.example/"] * 101},
        {"urls": ["x"], "max_concurrency": 0},
    )
    for params in wrong:
        with pytest.raises(ToolError) as caught:
            call("fetch_urls", Egress(), **params)
        assert caught.value.code == "invalid_input"
    with pytest.raises(ToolError) as caught:
        call("fetch_page", Egress(), url="http://a.example/", max_chars=0)
    assert caught.value.code == "invalid_input"
