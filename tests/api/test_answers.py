"""How answers travel: gzipped where that pays, and not at all where the client has them already."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from api.serving import Server, plan, task
from api.watched import Watched, watched
from dagbok.api import answers
from dagbok.api.app import create_app
from dagbok.app import Dagbok
from dagbok.tools.context import ToolContext
from dagbok.tools.decorator import tool


def ended(server: Server, document: Any) -> str:
    """Run a plan to its end and return its path."""
    answer = server.client.post("/api/v1/execute-dag", json=document, headers={"prefer": "wait=20"})
    assert answer.status_code == 200, answer.text
    location: str = answer.headers["location"]
    return location


def raw(server: Server, path: str, *headers: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    return server.send(f"{method} {path} HTTP/1.1", "Host: localhost", "Connection: close", *headers)


def test_a_large_answer_is_gzipped_for_those_who_take_it(server: Server) -> None:
    path = ended(server, plan(task(1, "large", size=50_000)))
    for part in ("", "/sub-steps", "/sub-steps/1/result"):
        status, headers, packed = raw(server, path + part, "Accept-Encoding: br, gzip;q=0.9")
        assert (status, headers["content-encoding"], headers["vary"]) == (200, "gzip", "Accept-Encoding")
        assert (headers["content-length"], headers["content-type"]) == (str(len(packed)), "application/json")
        status, headers, plain = raw(server, path + part, "Accept-Encoding: gzip;q=0")
        assert (status, headers["vary"], "content-encoding" in headers) == (200, "Accept-Encoding", False)
        assert gzip.decompress(packed) == plain
        assert len(packed) < len(plain) / 20


def test_what_is_small_travels_as_it_is(server: Server) -> None:
    path = ended(server, plan(task(1, value="x")))
    _, headers, data = raw(server, f"{path}/sub-steps/1/result", "Accept-Encoding: gzip")
    assert (data, headers["vary"], "content-encoding" in headers) == (b'"x"', "Accept-Encoding", False)


def test_from_a_kibibyte_on_it_pays(server: Server) -> None:
    for size, packed in ((answers.MIN_GZIP_BYTES - 1, False), (answers.MIN_GZIP_BYTES, True)):
        path = ended(server, plan(task(1, "large", size=size - 2)))  # and two quotes
        _, headers, _ = raw(server, f"{path}/sub-steps/1/result", "Accept-Encoding: gzip")
        assert ("content-encoding" in headers) is packed


@pytest.mark.parametrize("path", ["/docs", "/openapi.json", "/api/v1/tools", "/api/v1/dag-executions"])
def test_other_long_pages_are_gzipped_too(server: Server, path: str) -> None:
    ended(server, plan(task(1, "large", size=5_000)))
    _, headers, packed = raw(server, path, "Accept-Encoding: gzip")
    assert (headers["content-encoding"], headers["vary"]) == ("gzip", "Accept-Encoding")
    assert gzip.decompress(packed)


def test_a_problem_with_1000_errors_is_gzipped(server: Server) -> None:
    body = json.dumps(plan(*(task(n, "nix") for n in range(1000)))).encode()
    lines = ("POST /api/v1/execute-dag HTTP/1.1", "Host: localhost", "Connection: close", "Accept-Encoding: gzip")
    length = f"Content-Length: {len(body)}"
    status, headers, packed = server.send(*lines, "Content-Type: application/json", length, body=body)
    assert (status, headers["content-encoding"], headers["vary"]) == (422, "gzip", "Accept-Encoding")
    assert headers["content-type"] == "application/problem+json"
    assert len(json.loads(gzip.decompress(packed))["errors"]) == 1000


@pytest.mark.parametrize("accept", ["gzip", "identity"])
def test_head_says_what_get_would_about_a_large_answer(server: Server, accept: str) -> None:
    path = ended(server, plan(task(1, "large", size=5_000)))
    for extra in ((), ("If-None-Match: *",)):
        heads = [raw(server, path, f"Accept-Encoding: {accept}", *extra, method=name) for name in ("GET", "HEAD")]
        (get_status, get, _), (status, head, nothing) = heads
        assert (status, nothing) == (get_status, b"")
        of_each = ("date", "x-request-id")
        assert {k: v for k, v in head.items() if k not in of_each} == {k: v for k, v in get.items() if k not in of_each}


@pytest.fixture
def fresh(database_url: str, tmp_path: Path) -> Iterator[Watched]:
    with watched(database_url, tmp_path) as running:
        yield running


@pytest.mark.parametrize("part", ["", "/sub-steps"])
def test_an_execution_that_did_not_change_is_not_sent_again(fresh: Watched, part: str) -> None:
    client = fresh.server.client
    fresh.let("tools", "off")
    path = client.post("/api/v1/execute-dag", json=plan(task(1, "hold"))).headers["location"]
    fresh.server.reached(path.rpartition("/")[2], "running")
    first = client.get(path + part)
    assert (first.status_code, first.headers["cache-control"]) == (200, "no-cache")
    tag = first.headers["etag"]
    assert tag.startswith('W/"')
    for seen in (tag, tag.removeprefix("W/"), f'"other", {tag}', "*"):
        reads = fresh.state()["reads"]
        same = client.get(path + part, headers={"If-None-Match": seen})
        assert (same.status_code, same.content) == (304, b"")
        assert (same.headers["etag"], same.headers["cache-control"]) == (tag, "no-cache")
        assert "accept-encoding" in same.headers["vary"].lower()
        assert fresh.state()["reads"] == reads + 1, "the sub-steps are not read for that"
    assert client.get(path + part, headers={"If-None-Match": '"other"'}).status_code == 200
    fresh.let("tools", "on")
    fresh.server.ended(path.rpartition("/")[2])
    last = client.get(path + part, headers={"If-None-Match": tag})
    assert (last.status_code, last.headers["etag"] == tag) == (200, False)


def test_a_tag_does_not_make_what_is_gone_exist(server: Server) -> None:
    assert server.client.get("/api/v1/dag-executions/x", headers={"If-None-Match": "*"}).status_code == 404
    assert server.client.get("/api/v1/dag-executions/x/sub-steps", headers={"If-None-Match": "*"}).status_code == 404


def test_who_waits_with_a_tag_hears_when_it_changes(fresh: Watched) -> None:
    client = fresh.server.client
    fresh.let("tools", "off")
    path = client.post("/api/v1/execute-dag", json=plan(task(1, "hold"))).headers["location"]
    fresh.server.reached(path.rpartition("/")[2], "running")
    tag = client.get(path).headers["etag"]
    assert client.get(path, headers={"If-None-Match": tag, "Prefer": "wait=1"}).status_code == 304
    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(client.get, path, headers={"If-None-Match": tag, "Prefer": "wait=60"})
        fresh.until(waiting=1)
        fresh.let("tools", "on")
        assert waiting.result().json()["status"] == "completed"


def test_each_report_of_progress_changes_the_tag_though_the_diary_has_no_line_of_it(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And though the clock stands still: a commit takes less than a millisecond, and clocks are set back."""
    monkeypatch.setattr("dagbok.engine.clock.SystemClock.now_ms", lambda _: 1_700_000_000_000)

    async def main() -> None:
        told, go_on = asyncio.Event(), asyncio.Queue[str]()

        @tool(effect="pure")
        async def tell(context: ToolContext) -> None:
            """Report what the test says."""
            while message := await go_on.get():
                context.progress(message)

        async with Dagbok(database_url, tools=[tell]) as dagbok:
            dagbok.scheduler.subscribe(lambda *_: told.set())
            transport = httpx2.ASGITransport(create_app(dagbok))
            async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
                path = f"/api/v1/dag-executions/{(await dagbok.submit(plan(task(1, 'tell')))).execution_id}"
                seen: dict[str, Any] = {}
                for message in ("one", "two", "three"):
                    told.clear()
                    go_on.put_nowait(message)
                    while True:
                        await told.wait()
                        told.clear()
                        answer = await client.get(path)
                        if (answer.json()["subSteps"][0]["progress"] or {}).get("message") == message:
                            break
                    seen[answer.headers["etag"]] = (message, answer.json()["lastEventSeq"])
                go_on.put_nowait("")
                await dagbok.wait(path.rpartition("/")[2])
                assert [message for message, _ in seen.values()] == ["one", "two", "three"]
                assert len({number for _, number in seen.values()}) == 1

    asyncio.run(main())


def test_another_release_has_other_tags(monkeypatch: pytest.MonkeyPatch) -> None:
    before = answers.tag((1, 2))
    monkeypatch.setattr(answers, "version", lambda: "9.9")
    assert answers.tag((1, 2)) != before
    assert len({answers.tag((1, 2)), answers.tag((1, 3)), answers.tag((2, 2))}) == 3
