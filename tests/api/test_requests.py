"""Every answer has the id of its request: the client's where that is sane, else a new one."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.types import Receive, Scope, Send

from api.serving import Server, plan, task
from dagbok import Dagbok
from dagbok.api.app import create_app
from dagbok.api.requests import Requests

TOOLS = "/api/v1/tools"


@pytest.mark.parametrize("id", ["a", "A-z.0_9~+/=", "x" * 128])
def test_a_sane_id_of_the_client_is_kept(server: Server, id: str) -> None:
    assert server.client.get(TOOLS, headers={"X-Request-Id": id}).headers["x-request-id"] == id


@pytest.mark.parametrize("id", ["", "x" * 129, "a b", "a\tb", "å", "<script>", '"', "a;b", "a,b", "\x1b[2J"])
def test_any_other_id_is_replaced(server: Server, id: str) -> None:
    _, headers, _ = server.send(f"GET {TOOLS} HTTP/1.1", "Host: localhost", f"X-Request-Id: {id}")
    assert len(headers.get("x-request-id", "")) == 36 or "\x1b" in id  # which the server refuses as no HTTP


def test_two_ids_are_none(server: Server) -> None:
    _, headers, _ = server.send(f"GET {TOOLS} HTTP/1.1", "Host: localhost", "X-Request-Id: a", "X-Request-Id: b")
    assert len(headers["x-request-id"]) == 36


def test_each_request_without_an_id_gets_its_own(server: Server) -> None:
    assert len({server.client.get(TOOLS).headers["x-request-id"] for _ in range(20)}) == 20


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("GET /nothing HTTP/1.1", 404),
        ("PUT /api/v1/tools HTTP/1.1", 405),
        ("GET /api/v1/dag-executions?limit=0 HTTP/1.1", 422),
        ("GET /api/v1/dag-executions/x HTTP/1.1", 404),
        ("POST /api/v1/execute-dag HTTP/1.1", 415),
    ],
)
def test_every_problem_holds_the_id(server: Server, line: str, status: int) -> None:
    got, headers, body = server.send(line, "Host: localhost", "X-Request-Id: mine-1", "Content-Length: 0")
    assert (got, headers["x-request-id"], json.loads(body)["requestId"]) == (status, "mine-1", "mine-1")


def test_so_do_refusals_answers_without_a_body_and_pages(server: Server) -> None:
    mine = "X-Request-Id: mine-2"
    for lines in (("Host: evil.example",), ("Host: localhost", "Origin: https://evil.example")):
        _, headers, body = server.send(f"GET {TOOLS} HTTP/1.1", *lines, mine)
        assert (headers["x-request-id"], json.loads(body)["requestId"]) == ("mine-2", "mine-2")
    for line in ("HEAD /health HTTP/1.1", "GET /docs HTTP/1.1", "GET / HTTP/1.1"):
        assert server.send(line, "Host: localhost", mine)[1]["x-request-id"] == "mine-2"


# -- what is logged, with whatever logging a program configures -------------------------------------------------------


def requests(caplog: pytest.LogCaptureFixture) -> list[tuple[str, Any]]:
    return [(r.levelname, r.__dict__["status"]) for r in caplog.records if r.getMessage() == "http.request"]


async def asked(folder: Path, *paths: str) -> None:
    async with Dagbok(f"sqlite:///{folder / 'dagbok.db'}") as dagbok:
        transport = httpx2.ASGITransport(create_app(dagbok))
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
            for path in paths:
                await client.get(path)


def test_what_goes_wrong_is_told_louder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="dagbok.http"):
        asyncio.run(asked(tmp_path, TOOLS, "/nothing", "/health", "/health/ready"))
    assert requests(caplog) == [("INFO", 200), ("INFO", 404), ("DEBUG", 200), ("DEBUG", 200)]


def test_an_answer_that_breaks_off_is_an_error(caplog: pytest.LogCaptureFixture) -> None:
    async def breaks(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"abc", "more_body": True})
        raise RuntimeError("it broke")

    async def ignore(_: Any) -> None:
        """Nobody listens."""

    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    with caplog.at_level(logging.DEBUG, logger="dagbok.http"), pytest.raises(RuntimeError, match="it broke"):
        asyncio.run(Requests(breaks)(scope, ignore, ignore))  # type: ignore[arg-type]  # it does not receive
    assert requests(caplog) == [("ERROR", 200)]
    assert caplog.records[-1].__dict__["bytes"] == 3


def test_a_program_that_configures_logging_has_the_diary(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> str:
        async with Dagbok(f"sqlite:///{tmp_path / 'dagbok.db'}") as dagbok:
            return (await dagbok.run(plan(task(1, "wait", seconds=0)))).id

    with caplog.at_level(logging.INFO, logger="dagbok.diary"):
        id = asyncio.run(run())
    told = [(r.getMessage(), r.__dict__["executionId"], r.__dict__["seq"]) for r in caplog.records]
    kinds = ["execution.created", "execution.started", "substep.started", "substep.completed", "execution.completed"]
    assert told == [(kind, id, seq) for seq, kind in enumerate(kinds, 1)]
