"""`Prefer: wait`: the answer comes when the execution has, nobody asks in between, and nobody is in anybody's way."""

from __future__ import annotations

import asyncio
import json
import resource
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from api.serving import plan, serving, task
from api.watched import Watched, request, watched
from dagbok.api.app import create_app
from dagbok.app import Dagbok
from dagbok.tools.decorator import tool

HELD = plan(task(1, "hold"))
QUICK = plan(task(1, value="done"))
ASKING = {
    "id": "ask",
    "action_type": "human",
    "tool_or_prompt": {"name": "human", "params": {"prompt": "Which?"}},
    "dependencies": [],
}


@pytest.fixture
def server(database_url: str, tmp_path: Path) -> Iterator[Watched]:
    with watched(database_url, tmp_path, DAGBOK_CLOSE_GRACE_S="0.2") as running:
        yield running


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("server")
    with watched(f"sqlite:///{folder / 'dagbok.db'}", folder) as running:
        yield running


def submit(server: Watched, document: Any, **headers: str) -> httpx2.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return server.server.client.post("/api/v1/execute-dag", json=document, headers=named)


def test_an_execution_that_ends_in_time_is_the_answer(server: Watched) -> None:
    answer = submit(server, QUICK, prefer="wait=20")
    assert answer.status_code == 200
    execution = answer.json()
    assert (execution["status"], execution["subSteps"][0]["result"]) == ("completed", "done")
    assert answer.headers["preference-applied"] == "wait=20"
    assert answer.headers["location"] == f"/api/v1/dag-executions/{execution['id']}"
    got = server.server.client.get(answer.headers["location"])
    assert got.json() == execution
    assert got.headers["etag"] == answer.headers["etag"]


@pytest.mark.parametrize("prefer", ["wait=0", "wait=soon", "respond-async", ""])
def test_who_does_not_wish_to_wait_does_not(shared: Watched, prefer: str) -> None:
    answer = submit(shared, QUICK, prefer=prefer)
    assert answer.status_code == 202
    assert "preference-applied" not in answer.headers


def test_an_execution_that_goes_on_is_accepted_as_ever(shared: Watched) -> None:
    shared.let("tools", "off")
    answer = submit(shared, HELD, prefer="wait=1")
    assert (answer.status_code, answer.json()["status"]) == (202, "started")
    assert "preference-applied" not in answer.headers
    shared.let("tools", "on")
    assert shared.server.ended(answer.json()["executionId"])["status"] == "completed"


def test_a_longer_wait_than_a_minute_is_a_minute(shared: Watched) -> None:
    assert submit(shared, QUICK, prefer="wait=100000").headers["preference-applied"] == "wait=60"


def test_one_that_waits_for_a_person_is_an_answer_once_nothing_else_of_it_runs(server: Watched) -> None:
    """`waiting` is its status from the question on; but a branch still runs, and whoever waits wants its end."""
    server.let("tools", "off")
    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(submit, server, plan(ASKING, task(2, "hold")), prefer="wait=60")
        server.until(waiting=1)
        id = server.server.client.get("/api/v1/dag-executions").json()["executions"][0]["id"]
        assert server.server.reached(id, "waiting")["subSteps"][0]["status"] == "running"
        assert server.state()["waiting"] == 1
        server.let("tools", "on")
        answer = waiting.result()
    assert (answer.status_code, answer.json()["status"]) == (200, "waiting")
    assert [step["status"] for step in answer.json()["subSteps"]] == ["completed", "waiting"]
    again = server.server.client.get(f"/api/v1/dag-executions/{id}", headers={"Prefer": "wait=60"})
    assert (again.json()["status"], again.headers["preference-applied"]) == ("waiting", "wait=60")


def test_a_clarification_is_asked_at_once(shared: Watched) -> None:
    document = {**QUICK, "clarification_needed": True, "clarification_query": "Which?"}
    answer = submit(shared, document, prefer="wait=20")
    assert (answer.status_code, answer.json()["clarification_query"]) == (200, "Which?")
    assert "preference-applied" not in answer.headers


def test_a_running_execution_can_be_waited_for(server: Watched) -> None:
    server.let("tools", "off")
    location = submit(server, HELD).headers["location"]
    client = server.server.client
    early = client.get(location, headers={"Prefer": "wait=1"})
    assert (early.status_code, early.json()["status"]) == (200, "running")
    assert "preference-applied" not in early.headers
    with ThreadPoolExecutor() as threads:
        late = threads.submit(client.get, location, headers={"Prefer": "wait=60"})
        server.until(waiting=1)
        server.let("tools", "on")
        answer = late.result()
    assert (answer.json()["status"], answer.headers["preference-applied"]) == ("completed", "wait=60")


def test_waiting_for_what_is_not_there_is_not_found(shared: Watched) -> None:
    answer = shared.server.client.get("/api/v1/dag-executions/nothing", headers={"Prefer": "wait=60"})
    assert answer.status_code == 404


def test_one_that_does_not_run_here_is_told_as_it_stands(tmp_path: Path) -> None:
    """A process without its tool leaves it alone: waiting for that would be waiting for nothing."""
    url = f"sqlite:///{tmp_path / 'dagbok.db'}"
    with watched(url, tmp_path) as server:
        server.let("tools", "off")
        location = submit(server, HELD).headers["location"]
        server.server.reached(location.rpartition("/")[2], "running")
        server.server.stop(signal.SIGKILL)
    with serving(url, tmp_path) as plain:
        answer = plain.client.get(location, headers={"Prefer": "wait=60"})
        assert answer.json()["status"] == "running"
        assert "preference-applied" not in answer.headers


def test_a_client_that_goes_away_leaves_nothing_behind(server: Watched, tmp_path: Path) -> None:
    server.let("tools", "off")
    location = submit(server, HELD).headers["location"]
    server.server.reached(location.rpartition("/")[2], "running")
    before = server.state()
    waits = [
        request("POST", "/api/v1/execute-dag", json.dumps(HELD).encode(), prefer="wait=60"),
        request("GET", location, prefer="wait=60"),
        request("GET", location, prefer="wait=60"),
    ]
    sockets = [socket.create_connection(("127.0.0.1", server.server.port)) for _ in waits]
    for sock, wait in zip(sockets, waits, strict=True):
        sock.sendall(wait)
    state = server.until(waiting=3)
    assert (state["waited_for"], state["waiters"]) == (2, 3), "one future an execution, whoever waits for it"
    for sock in sockets:
        sock.close()
    server.until(waiting=0, waiters=0, tasks=before["tasks"] + 1)  # the body of the execution that was submitted
    server.let("tools", "on")
    assert server.server.ended(location.rpartition("/")[2])["status"] == "completed"
    log = (tmp_path / "server.log").read_text()
    assert "Traceback" not in log
    assert "ASGI" not in log, "what ends without an answer is a fault, unless nobody is there to hear it"


def test_who_waits_when_the_server_stops_hears_of_it(server: Watched) -> None:
    server.let("tools", "off")
    location = submit(server, HELD).headers["location"]
    server.server.reached(location.rpartition("/")[2], "running")
    with ThreadPoolExecutor() as threads:
        posted = threads.submit(submit, server, HELD, prefer="wait=60")
        asked = threads.submit(server.server.client.get, location, headers={"Prefer": "wait=60"})
        server.until(waiting=2)
        assert server.server.stop() == 0
        assert posted.result().status_code == 202
        assert (asked.result().status_code, asked.result().json()["status"]) == (200, "running")


def test_who_waits_when_the_engine_closes_hears_that_it_was_accepted(database_url: str) -> None:
    async def main() -> None:
        running = asyncio.Event()

        @tool(effect="pure")
        async def forever() -> None:
            """Never return."""
            running.set()
            await asyncio.Event().wait()

        async with Dagbok(database_url, tools=[forever], close_grace_s=0) as dagbok:
            transport = httpx2.ASGITransport(create_app(dagbok))
            async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
                posting = asyncio.ensure_future(
                    client.post("/api/v1/execute-dag", json=plan(task(1, "forever")), headers={"prefer": "wait=60"})
                )
                await running.wait()
                await dagbok.scheduler.close(0)
                assert (await posting).status_code == 202

    asyncio.run(main())


CLIENTS = 500


def test_500_clients_wait_and_all_are_answered(server: Watched) -> None:
    """More than may be under way at once, on one connection each; others are served as ever meanwhile."""
    rounds = 3

    async def wait_together() -> list[Any]:
        server.let("tools", "off")
        clients = [asyncio.ensure_future(server.post(HELD, prefer="wait=60")) for _ in range(CLIENTS)]
        await asyncio.to_thread(server.until, waiting=CLIENTS, waiters=CLIENTS, waited_for=CLIENTS)
        before = server.state()["reads"]
        # Something else goes on all the while: an execution from start to end, and none of the 500 is looked at for it.
        assert (await server.ask("GET", "/api/v1/tools"))[0] == 200
        assert (await server.post({**QUICK, "sub_tasks": [task(1, "nix")]}))[0] == 422
        assert server.state()["reads"] == before, "nobody asks while they wait"
        server.let("tools", "on")
        return await asyncio.gather(*clients)

    memory = []
    for _ in range(rounds):
        answers = asyncio.run(wait_together())
        assert {(status, body["status"]) for status, _, body in answers} == {(200, "completed")}
        assert len({body["id"] for _, _, body in answers}) == CLIENTS
        memory.append(server.until(waiting=0, waiters=0)["memory_kib"])
    print(f"\nmemory after each round of {CLIENTS}: {memory} KiB")
    assert memory[-1] - memory[0] < 40 * 1024


def test_a_wait_too_many_is_no_wait(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dagbok.api.waiting.MAX_WAITING", 1)

    async def main() -> None:
        opened = asyncio.Event()

        @tool(effect="pure")
        async def hold() -> str:
            """Return once the test says so."""
            await opened.wait()
            return "let go"

        async with Dagbok(database_url, tools=[hold]) as dagbok:
            app = create_app(dagbok)
            transport = httpx2.ASGITransport(app)
            async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
                submitted = await dagbok.submit(HELD)
                path = f"/api/v1/dag-executions/{submitted.execution_id}"
                wish = {"prefer": "wait=60"}
                first = asyncio.ensure_future(client.get(path, headers=wish))
                while not len(app.state.waiting):
                    await asyncio.sleep(0)
                assert (await client.get(path, headers=wish)).json()["status"] in ("pending", "running")
                assert (await client.post("/api/v1/execute-dag", json=HELD, headers=wish)).status_code == 202
                opened.set()
                assert (await first).json()["status"] == "completed"

    asyncio.run(main())


def test_it_takes_as_many_connections_as_it_says_though_few_files_are_allowed(tmp_path: Path) -> None:
    """1,024 open files are usual, and 256 are found; a server that waits with its clients needs more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
    try:
        with watched(f"sqlite:///{tmp_path / 'dagbok.db'}", tmp_path) as server:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            idle = [socket.create_connection(("127.0.0.1", server.server.port)) for _ in range(300)]
            try:
                assert submit(server, QUICK, prefer="wait=20").status_code == 200
            finally:
                for sock in idle:
                    sock.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
