"""`Client` and `AsyncClient` against a real server, and against one that answers as none should."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from cli.program import make_project, task
from dagbok import wire
from dagbok.client import AsyncClient, Client
from dagbok.domain.plan import Plan
from dagbok.errors import (
    BadInput,
    Conflict,
    DagbokError,
    InvalidPlan,
    MalformedJson,
    Misconfigured,
    NotFound,
    OutcomeUnknown,
    StoreUnavailable,
    TooLarge,
)

GREETING = {"original_request": "Hi", "intent": {"primary": "greet"}, "sub_tasks": [task(1, "say", text="hi")]}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with make_project(tmp_path_factory.mktemp("server")).serving() as url:
        yield url


def answering(status: int, body: bytes | str | None = None, **problem: object) -> Client:
    """A client whose server always answers so."""

    def answer(request: httpx2.Request) -> httpx2.Response:
        if body is not None:
            return httpx2.Response(status, content=body)
        return httpx2.Response(status, json={"title": "x", "status": status, "detail": "Said.", **problem})

    return Client("http://server", transport=httpx2.MockTransport(answer))


def test_a_plan_is_submitted_awaited_read_listed_and_deleted(url: str) -> None:
    with Client(url) as client:
        assert client.health().status == "ready"
        assert "say" in {tool.function.name for tool in client.tools()}
        started = client.execute(GREETING, wire.SubmitOptions(title="Greeting", labels={"of": "test"}))
        assert isinstance(started, wire.SubmitResponse)
        execution = client.wait(started.execution_id, timeout_s=20)
        assert (execution.status, execution.title, execution.final_result) == ("completed", "Greeting", "hi")
        assert execution.labels == {"of": "test"}
        assert client.get(started.execution_id) == execution
        assert client.sub_steps(started.execution_id) == execution.sub_steps
        assert client.result(started.execution_id, "1") == "hi"
        assert started.execution_id in {found.id for found in client.list(limit=5, status="completed").executions}
        with pytest.raises(Conflict):
            client.cancel(started.execution_id)
        assert client.delete(started.execution_id).cascade_info.related_sub_steps_deleted == 1
        with pytest.raises(NotFound):
            client.get(started.execution_id)


def test_the_async_client_does_the_same(url: str) -> None:
    async def use() -> None:
        async with AsyncClient(url) as client:
            slow = {**GREETING, "sub_tasks": [task(1, "slow", seconds=30)]}
            started = await client.execute(Plan.model_validate(slow))
            assert isinstance(started, wire.SubmitResponse)
            with pytest.raises(TimeoutError, match="it goes on"):
                await client.wait(started.execution_id, timeout_s=0.1)
            await client.cancel(started.execution_id)
            assert (await client.wait(started.execution_id, timeout_s=20)).status == "cancelled"
            question = await client.execute({**GREETING, "clarification_needed": True, "clarification_query": "Who?"})
            assert question == wire.ClarificationResponse(clarification_query="Who?")

    asyncio.run(use())


def test_both_clients_have_the_same_methods_and_arguments() -> None:
    def methods(kind: type) -> dict[str, list[str]]:
        public = (name for name in vars(kind) if not name.startswith("_"))
        return {name: list(inspect.signature(getattr(kind, name)).parameters) for name in public}

    assert methods(Client) == methods(AsyncClient)


def test_problems_of_a_real_server_are_the_errors_of_the_library(url: str) -> None:
    with Client(url) as client:
        with pytest.raises(InvalidPlan) as invalid:
            client.execute({**GREETING, "sub_tasks": [task(1, "nix"), task(1, "say", text="x")]})
        assert {problem.code for problem in invalid.value.problems} == {"unknown_tool", "duplicate_id"}
        assert invalid.value.problems[0].pointer.startswith("/sub_tasks/")
        with pytest.raises(TooLarge):
            client.execute({**GREETING, "original_request": "x" * 9 * 2**20})
        with pytest.raises(BadInput):
            client.list(limit=0)
        with pytest.raises(NotFound):
            client.result("dag-exec_x", "../..")
        with pytest.raises(MalformedJson):
            client.execute("{")


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "malformed_json", MalformedJson), (404, "not_found", NotFound), (409, "conflict", Conflict),
        (413, "too_large", TooLarge), (422, "invalid_input", BadInput), (422, "of_a_later_release", BadInput),
        (503, "store_unavailable", StoreUnavailable), (503, "outcome_unknown", OutcomeUnknown),
        (503, "overloaded", StoreUnavailable), (500, "internal_error", DagbokError),
        (403, "foreign_origin", DagbokError),
    ],
)  # fmt: skip
def test_a_problem_becomes_the_error_of_its_code_or_status(status: int, code: str, kind: type[DagbokError]) -> None:
    with answering(status, code=code) as client, pytest.raises(DagbokError, match="Said") as told:
        client.get("x")
    assert type(told.value) is kind


@pytest.mark.parametrize("body", [b"<html>hello</html>", b"", b"{}", b"[1]"])
@pytest.mark.parametrize("status", [200, 404, 502])
def test_what_is_no_dagbok_is_said_to_be_none(status: int, body: bytes) -> None:
    with answering(status, body) as client:
        for call in (lambda: client.get("x"), lambda: client.execute(GREETING), client.tools):
            with pytest.raises(Misconfigured, match="http://server"):
                call()


def test_a_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    with Client("http://127.0.0.1:1") as client, pytest.raises(StoreUnavailable, match=r"http://127\.0\.0\.1:1 cannot"):
        client.execute(GREETING)
    with pytest.raises(Misconfigured, match="no address"):
        Client("localhost:3000")


def test_a_connection_that_breaks_after_sending_leaves_the_outcome_unknown() -> None:
    """A submission whose answer was lost may have been stored; saying "try again" would run it twice."""

    def broken(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ReadError("reset", request=request)

    with Client("http://server", transport=httpx2.MockTransport(broken)) as client:
        with pytest.raises(OutcomeUnknown, match="Look first"):
            client.execute(GREETING)
        with pytest.raises(StoreUnavailable):
            client.get("x")


def test_the_environment_names_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGBOK_URL", "http://there:1/")
    assert Client().base_url == "http://there:1"
    assert Client("http://here").base_url == "http://here"
