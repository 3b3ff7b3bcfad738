"""Cancel, pause and resume over HTTP, on both databases: what they do, what they say, and what they leave alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

import postgres
from api.inside import Inside, inside
from api.serving import Server, plan, serving, task
from dagbok.errors import ToolError
from dagbok.store.schema import commands
from dagbok.tools.decorator import tool

ASKING = {"id": "ask", "action_type": "human", "tool_or_prompt": {"name": "human", "params": {"prompt": "Which?"}}}


class Gate:
    """A tool that says when it runs, and returns when the test says."""

    def __init__(self) -> None:
        self.running = asyncio.Event()
        self.opened = asyncio.Event()

        @tool(effect="pure")
        async def hold() -> str:
            """Return once the test says so."""
            self.running.set()
            await self.opened.wait()
            return "let go"

        self.tool: Callable[..., Any] = hold


async def applied(api: Inside, execution_id: str, what: str, **more: Any) -> dict[str, Any]:
    """Ask something of an execution, and return it once that is durable."""
    async with api.told(lambda execution, changes: execution.id == execution_id and bool(changes.commands)):
        answer = await api.post(execution_id, what, **more)
        assert (answer.status_code, set(answer.json())) == (202, {"message", "executionId"}), answer.text
        assert answer.json()["executionId"] == execution_id
    return await api.get(execution_id)


def names(api: Inside, execution_id: str) -> list[str]:
    return [event["type"] for event in api.events(execution_id)]


def test_a_paused_execution_ends_what_runs_begins_nothing_and_goes_on_when_it_is_resumed(database_url: str) -> None:
    async def main() -> None:
        gate = Gate()
        async with inside(database_url, gate.tool) as api:
            id = await api.submit(task(1, "hold"), task(2, "extract_json", 1, data=1, expression="@"))
            await gate.running.wait()
            paused = await applied(api, id, "pause", json={"by": "ann"})
            assert paused["status"] == "running", "its step ends by itself"
            assert paused["pausedAt"] is not None
            gate.opened.set()
            rests = await api.settled(id)
            assert [step["status"] for step in rests["subSteps"]] == ["completed", "pending"]
            assert (rests["status"], rests["pausedAt"]) == ("waiting", paused["pausedAt"])

            resumed = await applied(api, id, "resume", json={"by": "bob"})
            assert resumed["pausedAt"] is None
            ended = await api.settled(id)
            assert (ended["status"], ended["subSteps"][1]["result"]) == ("completed", 1)
            told = {event["type"]: event["data"] for event in api.events(id) if event["data"]}
            assert told["execution.paused"] == '{"by":"ann"}'
            assert told["execution.resumed"] == '{"by":"bob"}'

    asyncio.run(main())


def test_one_that_is_paused_during_a_short_back_off_rests_at_once(database_url: str) -> None:
    """Short: it stays in memory. Whoever waits for it would hear nothing until somebody resumes it."""

    async def main() -> None:
        @tool(effect="pure")
        async def flaky() -> None:
            """Fail."""
            raise ToolError("not yet", code="unavailable")

        async with inside(database_url, flaky) as api:
            async with api.told(lambda _, changes: bool(changes.attempts)):
                retry = {"max_attempts": 2, "backoff_seconds": 4.5, "jitter": 0}
                id = await api.submit(task(1, "flaky") | {"retry": retry})
            client = asyncio.ensure_future(api.settled(id))
            while not len(api.app.state.waiting):
                await asyncio.sleep(0)
            assert (await applied(api, id, "pause"))["status"] == "waiting"
            rests = await client
            assert (rests["status"], rests["subSteps"][0]["status"]) == ("waiting", "pending")

    asyncio.run(main())


def test_one_that_is_paused_while_it_stands_in_the_queue_rests_when_its_turn_comes(database_url: str) -> None:
    """It has nothing to write then, so no commit tells those who wait."""

    async def main() -> None:
        gate = Gate()
        async with inside(database_url, gate.tool, max_concurrency=1) as api:
            first = await api.submit(task(1, "hold"))
            await gate.running.wait()
            id = await api.submit(task(1, "hold"))
            client = asyncio.ensure_future(api.settled(id))
            assert (await applied(api, id, "pause"))["status"] == "waiting"
            gate.opened.set()
            assert (await api.settled(first))["status"] == "completed"
            assert [step["status"] for step in (await client)["subSteps"]] == ["pending"]
            await applied(api, id, "resume")
            assert (await api.settled(id))["status"] == "completed"

    asyncio.run(main())


@pytest.mark.parametrize("what", ["pause", "resume", "cancel"])
def test_asking_again_changes_nothing(database_url: str, what: str) -> None:
    """A client that lost the answer asks again: what it asked for is done once, and is what it hears."""

    async def main() -> None:
        gate = Gate()
        async with inside(database_url, gate.tool) as api:
            id = await api.submit(task(1, "hold"), ASKING)
            await gate.running.wait()
            once = await applied(api, id, what)
            before = names(api, id)
            if what == "cancel":
                answer = await api.post(id, what)
                assert (answer.status_code, answer.json()["executionId"]) == (202, id)
                twice = await api.get(id)
            else:
                twice = await applied(api, id, what)
            assert names(api, id) == before
            assert twice | {"updatedAt": 0, "durationMs": 0} == once | {"updatedAt": 0, "durationMs": 0}
            assert api.dagbok.service.reader.pending_commands() == []
            gate.opened.set()

    asyncio.run(main())


BODIES: list[tuple[dict[str, Any], str | None]] = [
    ({}, None),
    ({"content": b""}, None),
    ({"content": b"", "headers": {"content-type": "application/x-www-form-urlencoded"}}, None),  # curl --data ''
    ({"json": {}}, None),
    ({"json": {"by": None}}, None),
    ({"json": {"by": "ann"}}, "ann"),
    ({"json": {"by": "ä" * 200}}, "ä" * 200),
]


def test_a_body_may_say_who_asks_and_may_be_left_out(database_url: str) -> None:
    async def main() -> None:
        async with inside(database_url) as api:
            for body, by in BODIES:
                for what, event in (("pause", "execution.paused"), ("cancel", "execution.cancelled")):
                    id = await api.submit(ASKING)
                    await api.settled(id)
                    await applied(api, id, what, **body)
                    [told] = [found for found in api.events(id) if found["type"] == event]
                    if what == "pause":
                        assert (told["data"] == f'{{"by":"{by}"}}') if by else ('"by":null' in told["data"])
                    assert asked(api, id) == [(what, by)]

    asyncio.run(main())


def asked(api: Inside, execution_id: str) -> list[tuple[str, str | None]]:
    """Return what was asked of an execution, and by whom."""
    of = commands.c
    query = sa.select(of.kind, of.by).where(of.execution_id == execution_id).order_by(of.id)
    with api.dagbok.service.reader._connection() as connection:
        return [(row.kind, row.by) for row in connection.execute(query)]


JSON = {"content-type": "application/json"}
WRONG: list[tuple[str, dict[str, Any], int, str, str | None]] = [
    ("field", {"json": {"colour": 1}}, 422, "invalid_input", "/colour"),
    ("who", {"json": {"by": 5}}, 422, "invalid_input", "/by"),
    ("name", {"json": {"by": "x" * 201}}, 422, "invalid_input", "/by"),
    ("NUL", {"json": {"by": "a\0b"}}, 422, "not_json", "/by"),
    ("list", {"json": []}, 422, "invalid_input", ""),
    ("null", {"content": b"null", "headers": JSON}, 422, "invalid_input", ""),
    ("malformed", {"content": b"{", "headers": JSON}, 400, "malformed_json", None),
    ("blank", {"content": b" ", "headers": JSON}, 400, "malformed_json", None),
    ("text", {"content": b"{}", "headers": {"content-type": "text/plain"}}, 415, "unsupported_media_type", None),
    ("untyped", {"content": b"{}"}, 415, "unsupported_media_type", None),
    ("form", {"data": {"by": "ann"}}, 415, "unsupported_media_type", None),
]


@pytest.mark.parametrize("what", ["pause", "resume", "cancel"])
@pytest.mark.parametrize(("body", "status", "code", "pointer"), [c[1:] for c in WRONG], ids=[c[0] for c in WRONG])
def test_a_body_that_says_something_else_is_refused(
    server: Server, what: str, body: dict[str, Any], status: int, code: str, pointer: str | None
) -> None:
    id = server.submit(plan(ASKING))["executionId"]
    before = server.reached(id, "waiting")
    answer = server.client.post(f"/api/v1/dag-executions/{id}/{what}", **body)
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert [error["pointer"] for error in answer.json()["errors"] or ()] == ([] if pointer is None else [pointer])
    after = server.client.get(f"/api/v1/dag-executions/{id}").json()
    assert (after["status"], after["lastEventSeq"]) == (before["status"], before["lastEventSeq"])


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ([], "The body has to be a JSON object."),
        ({"by": 5}, "`by` has to be a string."),
        ({"by": "x" * 201}, "`by` has to have at most 200 characters."),
        ({"colour": 1}, "`colour` is not known here; there may be: by."),
    ],
)
def test_what_is_wrong_with_a_body_is_said_in_plain_words(server: Server, body: Any, detail: str) -> None:
    """Clients in other languages know no class of ours."""
    answer = server.client.post("/api/v1/dag-executions/x/cancel", json=body)
    assert [error["detail"] for error in answer.json()["errors"]] == [detail]


@pytest.mark.parametrize("length", [("Content-Length: 0",), ()])
def test_a_request_that_announces_nothing_is_a_command_too(server: Server, length: tuple[str, ...]) -> None:
    """As `curl -X POST` sends it, and as HTTP/1.0 clients do."""
    id = server.submit(plan(ASKING))["executionId"]
    line = f"POST /api/v1/dag-executions/{id}/cancel HTTP/1.1"
    assert server.send(line, "Host: localhost", "Connection: close", *length)[0] == 202
    server.reached(id, "cancelled")


def test_of_an_execution_that_has_ended_nothing_is_left_to_ask(fresh_server: Server) -> None:
    def ask(id: str, what: str) -> tuple[int, str]:
        answer = fresh_server.client.post(f"/api/v1/dag-executions/{id}/{what}")
        return answer.status_code, answer.json().get("code", "")

    completed = fresh_server.submit(plan(task(1)))["executionId"]
    before = fresh_server.ended(completed)
    for what in ("pause", "resume", "cancel"):
        assert ask(completed, what) == (409, "conflict")
    said = fresh_server.client.post(f"/api/v1/dag-executions/{completed}/pause").json()["detail"]
    assert said == f"Execution {completed} is completed already; nothing is left to pause."
    assert fresh_server.ended(completed) == before

    cancelled = fresh_server.submit(plan(ASKING))["executionId"]
    assert ask(cancelled, "cancel")[0] == 202
    before = fresh_server.reached(cancelled, "cancelled")
    assert ask(cancelled, "cancel")[0] == 202
    for what in ("pause", "resume"):
        assert ask(cancelled, what) == (409, "conflict")
    assert fresh_server.ended(cancelled) == before
    assert fresh_server.client.delete(f"/api/v1/dag-executions/{cancelled}").status_code == 200


def test_while_the_database_is_away_nothing_can_be_asked(
    postgres_server: postgres.Server, postgres_template: str, tmp_path: Any
) -> None:
    name = postgres_server.create_database(postgres_template)
    with serving(postgres_server.url(name), tmp_path) as server:
        id = server.submit(plan(ASKING))["executionId"]
        server.reached(id, "waiting")
        postgres_server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        postgres_server.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
        for what in ("pause", "resume", "cancel"):
            answer = server.client.post(f"/api/v1/dag-executions/{id}/{what}", json={"by": "ann"})
            assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable"), answer.text
            assert int(answer.headers["retry-after"]) > 0
        postgres_server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        while server.client.post(f"/api/v1/dag-executions/{id}/cancel").status_code == 503:
            pass  # each asks the database
        assert server.reached(id, "cancelled")["pausedAt"] is None
    postgres_server.drop_database(name)
