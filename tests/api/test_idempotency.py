"""`Idempotency-Key`: a submission that is sent again, for whatever reason, is one submission."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from api.serving import Server, plan, serving, task
from api.watched import Watched, request, watched
from dagbok.domain import values

HELD = plan(task(1, "hold"))
QUICK = plan(task(1, value="done"))
REUSED = "idempotency_key_reused"


@pytest.fixture
def server(database_url: str, tmp_path: Path) -> Iterator[Watched]:
    with watched(database_url, tmp_path) as running:
        yield running


def submit(server: Server, document: Any, key: str | None, **headers: str) -> httpx2.Response:
    named = {} if key is None else {"idempotency-key": key}
    return server.client.post("/api/v1/execute-dag", json=document, headers=named | headers)


def stored(server: Server) -> int:
    total: int = server.client.get("/api/v1/dag-executions").json()["pagination"]["total"]
    return total


def refused(answer: httpx2.Response, status: int, code: str) -> None:
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text


def test_the_same_request_with_the_same_key_gets_the_first_answer_again(server: Watched) -> None:
    first = submit(server.server, QUICK, "k")
    assert first.status_code == 202
    assert "idempotent-replayed" not in first.headers
    other_order = dict(reversed(list(QUICK.items())))
    for again in (
        submit(server.server, QUICK, "k"),
        submit(server.server, other_order, '"k"'),
        submit(server.server, {"plan": QUICK}, "k"),
    ):
        assert (again.status_code, again.json()) == (202, first.json())
        assert again.headers["idempotent-replayed"] == "true"
        assert again.headers["location"] == first.headers["location"]
    waited = submit(server.server, QUICK, "k", prefer="wait=20")
    assert (waited.status_code, waited.json()["id"]) == (200, first.json()["executionId"])
    assert (waited.headers["idempotent-replayed"], waited.headers["preference-applied"]) == ("true", "wait=20")
    assert stored(server.server) == 1


def test_without_a_key_or_with_another_it_is_another_request(server: Watched) -> None:
    for key in ("a", "b", None, None):
        assert submit(server.server, QUICK, key).status_code == 202
    assert stored(server.server) == 4


@pytest.mark.parametrize(
    "other", [plan(task(1, value="else")), {"plan": QUICK, "options": {"title": "Else"}}, plan(task(1, "nix"))]
)
def test_another_request_with_the_same_key_is_refused(server: Watched, other: Any) -> None:
    id = submit(server.server, QUICK, "k").json()["executionId"]
    answer = submit(server.server, other, "k")
    refused(answer, 422, "idempotency_key_reused")
    assert id in answer.json()["detail"]
    assert stored(server.server) == 1


def test_what_stores_nothing_leaves_the_key_free(server: Watched) -> None:
    refused(submit(server.server, plan(task(1, "nix")), "k"), 422, "invalid_plan")
    assert submit(server.server, {**QUICK, "clarification_needed": True}, "k").status_code == 200
    refused(submit(server.server, {"dagId": "dag_x"}, "k"), 404, "not_found")
    assert (
        server.server.post_raw('{"sub_tasks": [NaN, 1e999, 9999999999999999999999]}', idempotency_key="k").status_code
        == 422
    )
    answer = submit(server.server, QUICK, "k")
    assert answer.status_code == 202
    assert "idempotent-replayed" not in answer.headers


def test_what_json_cannot_write_is_never_the_request_that_had_null_there(server: Watched) -> None:
    text = json.dumps({**QUICK, "extra": None})
    assert server.server.post_raw(text, idempotency_key="k").status_code == 202
    for number in ("NaN", "-Infinity", "1e999", "9223372036854775808"):
        answer = server.server.post_raw(text.replace("null", number), idempotency_key="k")
        refused(answer, 422, "invalid_plan")
        assert "idempotent-replayed" not in answer.headers
    again = server.server.post_raw(text, idempotency_key="k")
    assert (again.status_code, again.headers["idempotent-replayed"]) == (202, "true")


def test_empty_options_are_none(server: Watched) -> None:
    first = submit(server.server, QUICK, "k")
    empty: tuple[Any, ...] = (None, {}, {"labels": {}}, {"labels": None, "title": None})
    for options in empty:
        again = submit(server.server, {"plan": QUICK, "options": options}, "k")
        assert (again.status_code, again.json()) == (202, first.json()), options
    refused(submit(server.server, {"plan": QUICK, "options": {"labels": {"a": "b"}}}, "k"), 422, REUSED)


def test_1_and_1_0_are_two_requests(server: Watched) -> None:
    assert submit(server.server, {**QUICK, "extra": 1}, "k").status_code == 202
    refused(submit(server.server, {**QUICK, "extra": 1.0}, "k"), 422, REUSED)


def test_a_key_counts_for_a_plan_as_deep_as_plans_may_be(server: Watched) -> None:
    deep: Any = 1
    for _ in range(values.MAX_DEPTH - 1):
        deep = [deep]
    first, second = (submit(server.server, {**QUICK, "extra": deep}, "k") for _ in range(2))
    assert (first.status_code, second.json()) == (202, first.json()), first.text


def test_a_stored_dag_run_again_has_a_key_too(server: Watched) -> None:
    dag = submit(server.server, QUICK, "k").json()["dagId"]
    refused(submit(server.server, {"dagId": dag}, "k"), 422, "idempotency_key_reused")
    first, second = (submit(server.server, {"dagId": dag}, "again") for _ in range(2))
    assert first.json() == second.json()
    assert second.headers["idempotent-replayed"] == "true"
    assert stored(server.server) == 2


def test_a_deleted_execution_gives_its_key_back(server: Watched) -> None:
    first = submit(server.server, QUICK, "k", prefer="wait=20")
    assert server.server.client.delete(first.headers["location"]).status_code == 200
    second = submit(server.server, plan(task(1, value="else")), "k")
    assert second.status_code == 202
    assert "idempotent-replayed" not in second.headers


def test_while_the_first_is_not_answered_the_second_has_to_come_again(server: Watched) -> None:
    server.let("before", "off")
    with ThreadPoolExecutor() as threads:
        first = threads.submit(submit, server.server, HELD, "k")
        server.until(held=1)
        for document in (HELD, QUICK):
            answer = submit(server.server, document, "k")
            refused(answer, 409, "idempotency_in_flight")
            assert answer.headers["retry-after"] == "1"
        server.let("before", "on")
        assert first.result().status_code == 202
    again = submit(server.server, HELD, "k")
    assert again.json() == first.result().json()
    assert stored(server.server) == 1
    server.let("tools", "on")


def test_a_client_that_hangs_up_finds_its_execution_when_it_comes_back(server: Watched) -> None:
    server.let("before", "off")
    with socket.create_connection(("127.0.0.1", server.server.port)) as sock:
        sock.sendall(request("POST", "/api/v1/execute-dag", json.dumps(QUICK).encode(), idempotency_key="k"))
        server.until(held=1)
    refused(submit(server.server, QUICK, "k"), 409, "idempotency_in_flight")
    server.let("before", "on")
    tries = (submit(server.server, QUICK, "k", prefer="wait=20") for _ in range(1000))
    answer = next(answer for answer in tries if answer.status_code != 409)
    assert (answer.status_code, answer.headers["idempotent-replayed"]) == (200, "true")
    assert stored(server.server) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_key_outlives_the_server(database_url: str, tmp_path: Path, number: signal.Signals) -> None:
    """Though the tool is gone meanwhile: what was accepted once is not judged again."""
    with watched(database_url, tmp_path, DAGBOK_CLOSE_GRACE_S="0.2") as server:
        first = submit(server.server, HELD, "k")
        server.server.stop(number)
    with serving(database_url, tmp_path) as plain:
        again = submit(plain, HELD, "k")
        assert (again.status_code, again.json()) == (202, first.json())
        refused(submit(plain, QUICK, "k"), 422, "idempotency_key_reused")
        refused(submit(plain, HELD, "other"), 422, "invalid_plan")
        assert stored(plain) == 1


@pytest.mark.parametrize(("when", "replayed"), [("before", False), ("after", True)])
def test_killed_before_or_after_the_commit_the_retry_runs_it_once(
    database_url: str, tmp_path: Path, when: str, replayed: bool
) -> None:
    """The client heard nothing either way, and cannot know which it was; the database does."""
    with watched(database_url, tmp_path) as server:
        server.let(when, "off")
        with ThreadPoolExecutor() as threads:
            lost = threads.submit(submit, server.server, QUICK, "k")
            server.until(held=1)
            server.server.stop(signal.SIGKILL)
            with pytest.raises(httpx2.HTTPError):
                lost.result()
    with serving(database_url, tmp_path) as plain:
        again = submit(plain, QUICK, "k", prefer="wait=20")
        assert (again.status_code, "idempotent-replayed" in again.headers) == (200, replayed)
        assert stored(plain) == 1


CLIENTS = 200


def test_200_with_one_key_make_one_execution(server: Watched) -> None:
    async def together() -> list[Any]:
        return await asyncio.gather(*(server.post(QUICK, idempotency_key="k") for _ in range(CLIENTS)))

    first, second = asyncio.run(together()), asyncio.run(together())
    made = {body["executionId"] for status, _, body in first + second if status == 202}
    assert len(made) == 1
    assert {status for status, _, _ in first} <= {202, 409}
    assert {body["code"] for status, _, body in first if status == 409} <= {"idempotency_in_flight"}
    assert {status for status, _, _ in second} == {202}
    new = [headers for status, headers, _ in first + second if status == 202 and "idempotent-replayed" not in headers]
    assert len(new) == 1
    assert stored(server.server) == 1
