"""The tries that did not end well stay readable: with their sub-step, all of them by their own request, in programs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import pytest

from api.inside import PATH, Inside, inside
from api.serving import task
from dagbok import views, wire
from dagbok.diary import SHOWN_ATTEMPTS
from dagbok.domain.call import Charge
from dagbok.errors import ToolError
from dagbok.tools.decorator import tool

FIELDS = {
    "number", "outcome", "error", "errorCode", "startedAt", "completedAt", "durationMs", "usage", "costUsd",
}  # fmt: skip


def fails(times: int) -> Any:
    """Return a tool that fails so often, each time with a bill, and then succeeds."""
    calls: list[int] = []

    @tool(effect="pure")
    async def flaky() -> int:
        """Fail for a while."""
        calls.append(1)
        if len(calls) <= times:
            charge = Charge({"input_tokens": len(calls)}, 0.5, "m")
            raise ToolError(f"not yet: {len(calls)}", code="unavailable", charge=charge)
        return len(calls)

    return flaky


def trying(max_attempts: int) -> dict[str, Any]:
    return task(1, "flaky") | {"retry": {"max_attempts": max_attempts, "backoff_seconds": 0}}


def numbers(attempts: Sequence[Any]) -> list[int]:
    return [attempt["number"] for attempt in attempts]


async def all_of(api: Inside, execution_id: str, task_id: str = "1") -> list[dict[str, Any]]:
    answer = await api.client.get(f"{PATH}/{execution_id}/sub-steps/{task_id}/attempts")
    assert answer.status_code == 200, answer.text
    assert {name: answer.json()[name] for name in ("executionId", "taskId")} == {
        "executionId": execution_id, "taskId": task_id,
    }  # fmt: skip
    wire.AttemptList.model_validate(answer.json())
    found: list[dict[str, Any]] = answer.json()["attempts"]
    return found


def test_failed_attempts_are_told_with_their_sub_step_and_the_one_that_succeeded_is_its_own(database_url: str) -> None:
    async def main() -> None:
        async with inside(database_url, fails(2)) as api:
            id = await api.submit(trying(5), task(2, "wait", seconds=0))
            execution = await api.settled(id)
            assert execution["status"] == "completed"
            first, second = execution["subSteps"]
            assert (first["attempt"], first["result"], second["attempts"]) == (3, 3, [])
            one, two = first["attempts"]
            for attempt in (one, two):
                assert set(attempt) == FIELDS
                began, ended = (datetime.fromisoformat(attempt[name]) for name in ("startedAt", "completedAt"))
                assert attempt["durationMs"] == round((ended - began).total_seconds() * 1000)
            assert (one["number"], one["outcome"], one["errorCode"]) == (1, "failed", "unavailable")
            assert (one["error"], one["usage"], one["costUsd"]) == ("not yet: 1", {"input_tokens": 1}, 0.5)
            assert (two["number"], two["error"]) == (2, "not yet: 2")
            assert execution["totalUsage"] == {"input_tokens": 3}

            steps = (await api.client.get(f"{PATH}/{id}/sub-steps")).json()["subSteps"]
            assert steps == execution["subSteps"]
            assert await all_of(api, id) == first["attempts"]
            assert await all_of(api, id, "2") == []

            program = await api.dagbok.get(id)
            assert [(a.number, a.outcome, a.cost_usd) for a in program["1"].attempts] == [
                (1, "failed", 0.5), (2, "failed", 0.5),
            ]  # fmt: skip
            assert program["2"].attempts == []

    asyncio.run(main())


def test_of_many_attempts_the_latest_come_with_the_sub_step_and_all_by_their_own_request(database_url: str) -> None:
    async def main() -> None:
        async with inside(database_url, fails(100)) as api:
            tries = SHOWN_ATTEMPTS + 5
            id = await api.submit(trying(tries))
            execution = await api.settled(id)
            assert execution["status"] == "failed"
            assert numbers(execution["subSteps"][0]["attempts"]) == list(range(6, tries + 1))
            assert numbers(await all_of(api, id)) == list(range(1, tries + 1))
            assert len((await api.dagbok.get(id))["1"].attempts) == SHOWN_ATTEMPTS

    asyncio.run(main())


def test_one_that_took_too_long_and_one_that_was_cut_off_say_so(database_url: str) -> None:
    async def main() -> None:
        running = asyncio.Event()

        @tool(effect="pure")
        async def forever() -> None:
            """Never return."""
            running.set()
            await asyncio.Event().wait()

        async with inside(database_url, forever) as api:
            id = await api.submit(task(1, "forever") | {"timeout_seconds": 0.01, "retry": {"max_attempts": 1}})
            [attempt] = (await api.settled(id))["subSteps"][0]["attempts"]
            assert (attempt["outcome"], attempt["errorCode"]) == ("timeout", "timeout")

            running.clear()
            id = await api.submit(task(1, "forever"))
            await running.wait()
            await api.post(id, "cancel")
            [attempt] = (await api.settled(id))["subSteps"][0]["attempts"]
            assert (attempt["outcome"], attempt["errorCode"]) == ("cancelled", "cancelled")

    asyncio.run(main())


def test_an_attempt_that_failed_is_seen_by_a_client_that_asks_whether_anything_changed(database_url: str) -> None:
    async def main() -> None:
        running, fail = asyncio.Event(), asyncio.Event()

        @tool(effect="pure")
        async def flaky() -> None:
            """Fail once the test says so."""
            running.set()
            await fail.wait()
            raise ToolError("not yet", code="unavailable")

        async with inside(database_url, flaky) as api:
            async with api.told(lambda execution, _: execution.status == "running"):
                id = await api.submit(task(1, "flaky") | {"retry": {"max_attempts": 2, "backoff_seconds": 60}})
            await running.wait()
            seen = (await api.client.get(f"{PATH}/{id}")).headers["etag"]
            async with api.told(lambda _, changes: bool(changes.attempts)):
                fail.set()
            for part in ("", "/sub-steps"):
                answer = await api.client.get(f"{PATH}/{id}{part}", headers={"if-none-match": seen})
                [step] = answer.json()["subSteps"]
                assert (step["status"], step["nextAttemptAt"] is None) == ("pending", False)
                assert [attempt["errorCode"] for attempt in step["attempts"]] == ["unavailable"]

    asyncio.run(main())


def test_attempts_of_what_is_not_there_are_not_found(database_url: str) -> None:
    async def main() -> None:
        async with inside(database_url) as api:
            id = await api.submit(task(1, "wait", seconds=0))
            for path in (f"{id}/sub-steps/nobody", f"{id}/sub-steps/%00", "nothing/sub-steps/1"):
                answer = await api.client.get(f"{PATH}/{path}/attempts")
                assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), path

    asyncio.run(main())


@pytest.mark.parametrize(("began", "took"), [(1_000, 234), (None, None), (5_000, 0)])
def test_how_long_an_attempt_took_is_told_where_its_start_is_known(began: int | None, took: int | None) -> None:
    """And is never less than nothing, though the clock was set back meanwhile."""
    row = {
        "number": 1, "outcome": "failed", "error": None, "error_code": None, "started_at": began,
        "completed_at": 1_234, "usage": None, "cost_usd": None,
    }  # fmt: skip
    [attempt] = wire.AttemptList.read(views.attempts_json("e", "1", [row])).attempts
    assert attempt.duration_ms == took
