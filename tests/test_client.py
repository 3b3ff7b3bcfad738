"""`Client` and `AsyncClient` against a real server, and against one that answers as none should."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from cli.program import make_project, task
from dagbok import wire
from dagbok.api import examples
from dagbok.client import AsyncClient, Client
from dagbok.domain.plan import Plan
from dagbok.errors import (
    BadInput,
    Conflict,
    DagbokError,
    IdempotencyKeyReused,
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
        started = client.submit(GREETING, title="Greeting", labels={"of": "test"})
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


def test_an_execution_is_retried_with_overrides_and_forked(url: str) -> None:
    fails = {**GREETING, "sub_tasks": [task(1, "say", text="hi"), task(2, "boom", 1, message="no")]}
    mended = {"2": {"tool": "say", "params": {"text": "<Result from Task 1>!"}}}
    with Client(url) as client:
        id = client.run(fails, timeout_s=20).id
        with pytest.raises(BadInput) as refused:
            client.retry(id, overrides={"2": {"tool": "nothing"}})
        assert refused.value.fields["pointer"] == "/overrides/2/tool"
        fork = client.fork(id, overrides=mended, by="ann", idempotency_key=f"of-{id}")
        assert (fork.forked_from, fork.reused_tasks, fork.status) == (id, 1, "started")
        assert client.wait(fork.execution_id, timeout_s=20)["2"].result == "hi!"
        assert client.fork(id, overrides=mended, idempotency_key=f"of-{id}") == fork
        assert client.retry(id, overrides=mended).retry_count == 1
        until(lambda: client.get(id)["2"].result == "hi!")
        with pytest.raises(Conflict, match="would run"):
            client.fork(fork.execution_id)

    async def use() -> None:
        async with AsyncClient(url) as client:
            again = await client.fork(fork.execution_id, from_task="2")
            assert (await client.wait(again.execution_id, timeout_s=20)).forked_from == fork.execution_id
            with pytest.raises(InvalidPlan) as refused:
                await client.fork(id, plan=Plan.model_validate({**GREETING, "sub_tasks": [task(1, "nothing")]}))
            assert refused.value.problems[0].pointer == "/plan/sub_tasks/0/tool_or_prompt/name"

    asyncio.run(use())


def test_the_async_client_does_the_same(url: str) -> None:
    async def use() -> None:
        async with AsyncClient(url) as client:
            slow = {**GREETING, "sub_tasks": [task(1, "slow", seconds=30)]}
            started = await client.submit(Plan.model_validate(slow))
            with pytest.raises(TimeoutError, match="it goes on"):
                await client.wait(started.execution_id, timeout_s=0.1)
            await client.cancel(started.execution_id)
            assert (await client.wait(started.execution_id, timeout_s=20)).status == "cancelled"
            with pytest.raises(Conflict) as asked:
                await client.submit({**GREETING, "clarification_needed": True, "clarification_query": "Who?"})
            assert asked.value.clarification_query == "Who?"

    asyncio.run(use())


def until(look: Callable[[], bool]) -> None:
    """Return once it is so. The server applies a command after its answer."""
    deadline = time.monotonic() + 60
    while not look():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_an_execution_is_paused_resumed_and_cancelled(url: str) -> None:
    with Client(url) as client:
        id = client.submit(
            {**GREETING, "sub_tasks": [task(1, "slow", seconds=30), task(2, "say", 1, text="x")]}
        ).execution_id
        assert client.pause(id, by="ann").execution_id == id
        until(lambda: client.get(id).paused_at is not None)
        assert client.pause(id).execution_id == id
        assert client.resume(id, by="bob").execution_id == id
        until(lambda: client.get(id).paused_at is None)
        assert client.cancel(id, by="cem").execution_id == id
        assert client.wait(id, timeout_s=20).status == "cancelled"
        assert client.cancel(id).execution_id == id
        for ask in (client.pause, client.resume):
            with pytest.raises(Conflict, match="is cancelled already"):
                ask(id)
            with pytest.raises(NotFound):
                ask("dag-exec_x")
        with pytest.raises(BadInput) as refused:
            client.pause(id, by="x" * 201)
        assert refused.value.pointer == "/by"

    async def use() -> None:
        async with AsyncClient(url) as client:
            id = (await client.submit({**GREETING, "sub_tasks": [task(1, "slow", seconds=30)]})).execution_id
            for ask in (client.pause, client.resume, client.cancel):
                assert (await ask(id, by="ann")).execution_id == id
            assert (await client.wait(id, timeout_s=20)).status == "cancelled"

    asyncio.run(use())


def test_who_asks_is_said_only_where_it_is_given(pauses: list[float]) -> None:
    """Servers of earlier releases know no body of a cancellation."""
    answer = {"message": "", "executionId": "e"}
    server = Flaky(*[httpx2.Response(202, json=answer)] * 2)
    with Client("http://server", transport=httpx2.MockTransport(server)) as client:
        client.cancel("e")
        client.cancel("e", by="ann")
    plain, named = server.requests
    assert (plain.content, plain.headers.get("content-type")) == (b"", None)
    assert (named.content, named.headers["content-type"]) == (b'{"by":"ann"}', "application/json")


def test_the_attempts_that_failed_are_there_to_be_read(url: str) -> None:
    tries = {"retry": {"max_attempts": 2, "backoff_seconds": 0}}
    document = {**GREETING, "sub_tasks": [task(1, "boom", message="bang") | tries]}
    with Client(url) as client:
        execution = client.run(document, timeout_s=20)
        found = client.attempts(execution.id, "1")
        assert [(a.number, a.outcome, a.error_code) for a in found] == [
            (1, "failed", "tool_error"), (2, "failed", "tool_error"),
        ]  # fmt: skip
        assert execution["1"].attempts == found
        with pytest.raises(NotFound):
            client.attempts(execution.id, "../1")

    async def read() -> None:
        async with AsyncClient(url) as client:
            assert await client.attempts(execution.id, "1") == found

    asyncio.run(read())


def test_a_deadline_travels_with_the_plan(url: str) -> None:
    slow = {**GREETING, "sub_tasks": [task(1, "slow", seconds=30)]}
    with Client(url) as client:
        execution = client.run(slow, deadline_seconds=0.2, timeout_s=20)
        assert (execution.error_code, execution.options) == ("deadline", {"deadlineSeconds": 0.2})
        started = client.submit(GREETING, deadline_seconds=60)
        assert client.get(started.execution_id).deadline_at is not None
        for seconds in (-1, 0, float("nan")):
            with pytest.raises(BadInput) as refused:
                client.submit(GREETING, deadline_seconds=seconds)
            assert refused.value.pointer == "/options/deadlineSeconds"

    async def run() -> None:
        async with AsyncClient(url) as client:
            assert (await client.run(slow, deadline_seconds=0.2, timeout_s=20)).error_code == "deadline"
            started = await client.submit(GREETING, deadline_seconds=60)
            assert (await client.get(started.execution_id)).deadline_at is not None

    asyncio.run(run())


def test_both_clients_have_the_same_methods_and_arguments() -> None:
    def methods(kind: type) -> dict[str, list[str]]:
        public = (name for name in vars(kind) if not name.startswith("_"))
        return {name: list(inspect.signature(getattr(kind, name)).parameters) for name in public}

    assert methods(Client) == methods(AsyncClient)


def test_problems_of_a_real_server_are_the_errors_of_the_library(url: str) -> None:
    with Client(url) as client:
        with pytest.raises(InvalidPlan) as invalid:
            client.submit({**GREETING, "sub_tasks": [task(1, "nix"), task(1, "say", text="x")]})
        assert {problem.code for problem in invalid.value.problems} == {"unknown_tool", "duplicate_id"}
        assert invalid.value.problems[0].pointer.startswith("/sub_tasks/")
        with pytest.raises(TooLarge):
            client.submit({**GREETING, "original_request": "x" * 9 * 2**20})
        with pytest.raises(BadInput):
            client.list(limit=0)
        with pytest.raises(NotFound):
            client.result("dag-exec_x", "../..")
        with pytest.raises(MalformedJson):
            client.submit("{")


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
        for call in (lambda: client.get("x"), lambda: client.submit(GREETING), client.tools):
            with pytest.raises(Misconfigured, match="http://server"):
                call()


def test_a_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    with Client("http://127.0.0.1:1") as client, pytest.raises(StoreUnavailable, match=r"http://127\.0\.0\.1:1 cannot"):
        client.submit(GREETING)
    with pytest.raises(Misconfigured, match="no address"):
        Client("localhost:3000")


def test_a_connection_that_breaks_after_sending_leaves_the_outcome_unknown() -> None:
    """What was deleted is not there to be deleted again; what was submitted is safe to submit again with its key."""

    def broken(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ReadError("reset", request=request)

    with Client("http://server", transport=httpx2.MockTransport(broken)) as client:
        with pytest.raises(OutcomeUnknown, match="it runs once") as unknown:
            client.submit(GREETING, idempotency_key="k")
        assert unknown.value.idempotency_key == "k"
        with pytest.raises(OutcomeUnknown, match="Look first"):
            client.delete("x")
        with pytest.raises(StoreUnavailable):
            client.get("x")


class Flaky:
    """A server that answers, refuses or breaks off as it is told, and keeps what it was sent."""

    def __init__(self, *outcomes: httpx2.Response | type[httpx2.RequestError]) -> None:
        self.outcomes = list(outcomes)
        self.requests: list[httpx2.Request] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, type):
            raise outcome("broke", request=request)
        return outcome

    @property
    def keys(self) -> set[str]:
        return {request.headers["idempotency-key"] for request in self.requests}


STARTED = {"status": "started", "executionId": "e", "dagId": "d", "originalRequest": "", "totalTasks": 1, "message": ""}


def problem(status: int, code: str, **headers: str) -> httpx2.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    body = {"title": "x", "status": status, "detail": "Said.", "code": code}
    return httpx2.Response(status, json=body, headers=named)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long a client paused, without the pauses."""
    found: list[float] = []

    async def sleep(seconds: float) -> None:
        found.append(seconds)

    monkeypatch.setattr("dagbok.client.blocking.time.sleep", found.append)
    monkeypatch.setattr("dagbok.client.awaiting.asyncio.sleep", sleep)
    return found


def submitted(server: Flaky, kind: str) -> wire.SubmitResponse:
    if kind == "sync":
        with Client("http://server", transport=httpx2.MockTransport(server)) as client:
            return client.submit(GREETING)

    async def submit() -> wire.SubmitResponse:
        async with AsyncClient("http://server", transport=httpx2.MockTransport(server)) as client:
            return await client.submit(GREETING)

    return asyncio.run(submit())


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_submission_is_sent_again_with_its_key_until_it_is_answered(kind: str, pauses: list[float]) -> None:
    server = Flaky(
        httpx2.ReadError, problem(503, "store_unavailable", retry_after="2"), httpx2.Response(202, json=STARTED)
    )
    assert submitted(server, kind).execution_id == "e"
    assert len(server.requests) == 3
    assert len(server.keys) == 1
    assert pauses == [0.2, 2.0]


def test_one_that_is_in_flight_is_asked_for_again(pauses: list[float]) -> None:
    server = Flaky(
        httpx2.RemoteProtocolError,
        problem(409, "idempotency_in_flight", retry_after="1"),
        httpx2.Response(202, json=STARTED),
    )
    assert submitted(server, "sync").execution_id == "e"
    assert pauses == [0.2, 1.0]


def test_three_tries_are_enough(pauses: list[float]) -> None:
    server = Flaky(*[httpx2.ConnectError] * 3)
    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        submitted(server, "sync")
    assert (len(server.requests), pauses) == (3, [0.2, 0.4])
    server = Flaky(*[problem(503, "store_unavailable", retry_after="3600")] * 3)
    with pytest.raises(StoreUnavailable, match="Said"):
        submitted(server, "sync")
    assert pauses[2:] == [5.0, 5.0]


@pytest.mark.parametrize("last", [httpx2.ConnectError, problem(503, "store_unavailable", retry_after="1")])
def test_once_an_answer_was_lost_only_an_answer_tells_what_happened(last: Any, pauses: list[float]) -> None:
    """The server cannot be reached *now*; whether the first try was done, that does not tell."""
    with pytest.raises(OutcomeUnknown) as unknown:
        submitted(Flaky(httpx2.ReadError, last, last), "sync")
    assert unknown.value.idempotency_key


def test_a_server_that_does_not_know_itself_leaves_the_key_to_try_again_with(pauses: list[float]) -> None:
    for last in (httpx2.ConnectError, problem(503, "outcome_unknown", retry_after="2")):
        said = problem(503, "outcome_unknown", retry_after="2")
        with pytest.raises(OutcomeUnknown, match=r"Said.*it runs once") as unknown:
            submitted(Flaky(said, said, last), "sync")
        assert unknown.value.idempotency_key


@pytest.mark.parametrize(
    ("outcome", "error"),
    [
        (problem(422, "invalid_plan"), InvalidPlan),
        (problem(409, "conflict"), Conflict),
        (problem(503, "overloaded"), StoreUnavailable),
        (problem(503, "overloaded", retry_after="tomorrow"), StoreUnavailable),
        (problem(422, "idempotency_key_reused"), IdempotencyKeyReused),
        (httpx2.ReadTimeout, OutcomeUnknown),
        (httpx2.ConnectTimeout, StoreUnavailable),
    ],
)
def test_what_the_same_request_would_meet_again_is_not_tried_again(outcome: Any, error: type[DagbokError]) -> None:
    server = Flaky(outcome)
    with pytest.raises(error) as told:
        submitted(server, "sync")
    assert type(told.value) is error
    assert len(server.requests) == 1


def test_other_requests_are_sent_once(pauses: list[float]) -> None:
    server = Flaky(problem(503, "store_unavailable", retry_after="1"), httpx2.ReadError)
    with Client("http://server", transport=httpx2.MockTransport(server)) as client:
        with pytest.raises(StoreUnavailable):
            client.cancel("x")
        with pytest.raises(OutcomeUnknown):
            client.cancel("x")
    assert pauses == []
    assert "idempotency-key" not in server.requests[0].headers


@pytest.mark.parametrize(("key", "sent"), [("k", '"k"'), ('a"b\\c', '"a\\"b\\\\c"')])
def test_a_key_of_the_caller_travels_quoted(key: str, sent: str) -> None:
    server = Flaky(httpx2.Response(202, json=STARTED))
    with Client("http://server", transport=httpx2.MockTransport(server)) as client:
        client.submit(GREETING, idempotency_key=key)
        with pytest.raises(BadInput, match="visible ASCII"):
            client.submit(GREETING, idempotency_key="a b")
    assert server.keys == {sent}


def test_a_plan_is_run_from_start_to_end_with_the_key_of_the_caller(url: str) -> None:
    with Client(url) as client:
        execution = client.run(GREETING, title="Once", idempotency_key='its-"own"-\\-key')
        assert (execution.status, execution.title, execution.final_result) == ("completed", "Once", "hi")
        assert client.run(GREETING, title="Once", idempotency_key='its-"own"-\\-key') == execution
        with pytest.raises(IdempotencyKeyReused):
            client.run(GREETING, title="Twice", idempotency_key='its-"own"-\\-key')

    async def run() -> None:
        async with AsyncClient(url) as client:
            assert (await client.run(GREETING)).final_result == "hi"
            slow = {**GREETING, "sub_tasks": [task(1, "slow", seconds=30)]}
            with pytest.raises(TimeoutError, match=r"dag-exec_.* it goes on") as late:
                await client.run(slow, timeout_s=0.1)
            await client.cancel(str(late.value).split()[1])

    asyncio.run(run())


def test_waiting_is_one_request_however_long_it_takes(url: str) -> None:
    sent: list[httpx2.Request] = []

    class Counted(httpx2.HTTPTransport):
        def handle_request(self, request: httpx2.Request) -> httpx2.Response:
            sent.append(request)
            return super().handle_request(request)

    with Client(url, transport=Counted()) as client:
        execution = client.run({**GREETING, "sub_tasks": [task(1, "slow", seconds=0.7)]})
        assert (execution.status, len(sent)) == ("completed", 1)
        started = client.submit({**GREETING, "sub_tasks": [task(1, "slow", seconds=0.7)]})
        assert client.wait(started.execution_id).status == "completed"
        assert len(sent) == 3


def test_a_server_that_does_not_wait_is_asked_again_after_a_pause(pauses: list[float]) -> None:
    server = Flaky(
        httpx2.Response(200, json={**examples.EXECUTION, "status": "running"}),
        httpx2.Response(200, json={**examples.EXECUTION, "status": "waiting"}),
        httpx2.Response(
            200, json={**examples.EXECUTION, "status": "waiting"}, headers={"Preference-Applied": "wait=30"}
        ),
    )
    with Client("http://server", transport=httpx2.MockTransport(server)) as client:
        assert client.wait("e").status == "waiting", "and nothing of it runs any more: the server said so"
    assert pauses == [0.25, 0.25]
    assert {request.headers["prefer"] for request in server.requests} == {"wait=30"}


def test_the_environment_names_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGBOK_URL", "http://there:1/")
    assert Client().base_url == "http://there:1"
    assert Client("http://here").base_url == "http://here"
