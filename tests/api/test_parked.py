"""Over HTTP nobody notices that an execution which only waits is a row and no memory: it is shown, waited for, ended.

Here every execution leaves the memory as soon as nothing of it runs, and the clock jumps instead of anybody waiting.
"""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

from api.inside import PATH, Inside, inside
from api.serving import task
from dagbok.domain.execution import Execution
from dagbok.domain.records import Changes
from dagbok.engine.clock import SystemClock
from dagbok.errors import ToolError
from dagbok.tools.decorator import tool

HOUR_S = 3600
ASKING = {"id": "ask", "action_type": "human", "tool_or_prompt": {"name": "human", "params": {"prompt": "Which?"}}}
LONG = task(1, "wait", seconds=HOUR_S)

_now_ms = SystemClock.now_ms


class Wall:
    """The wall clock, which a test sets forward."""

    def __init__(self) -> None:
        self.ahead_ms = 0

    def now_ms(self, clock: SystemClock) -> int:
        return _now_ms(clock) + self.ahead_ms


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Wall:
    wall = Wall()
    monkeypatch.setattr("dagbok.engine.scheduler.PARK_AFTER_S", 0.0)
    # Timers of a loop do not notice that a clock was set: the engine looks again, sooner here than it does otherwise.
    monkeypatch.setattr("dagbok.engine.clock.LONGEST_NAP_S", 0.02)
    monkeypatch.setattr(SystemClock, "now_ms", lambda clock: wall.now_ms(clock))
    return wall


def left(execution: Execution, changes: Changes) -> bool:
    """Whether the execution is nobody's after this."""
    return changes.release and not execution.ended


@tool(effect="pure")
async def flaky() -> str:
    """Fail once."""
    if next(_calls) == 0:
        raise ToolError("not yet", code="unavailable")
    return "at last"


_calls = itertools.count()


def backing_off() -> dict[str, Any]:
    global _calls
    _calls = itertools.count()
    retry = {"max_attempts": 2, "backoff_seconds": HOUR_S, "max_backoff_seconds": HOUR_S}
    return task(1, "flaky") | {"retry": retry}


async def parked(api: Inside, *tasks: dict[str, Any], **options: Any) -> str:
    """Submit a plan, and return its execution once it has left the memory."""
    async with api.told(left):
        id = await api.submit(*tasks, **options)
    assert not api.dagbok.scheduler._runs
    return id


async def waits(api: Inside, execution_id: str, *, clients: int = 1) -> list[asyncio.Task[dict[str, Any]]]:
    """Let clients wait for an execution; return once the server has them."""
    tasks = [asyncio.ensure_future(api.settled(execution_id)) for _ in range(clients)]
    while len(api.app.state.waiting) < clients:
        await asyncio.sleep(0)
    return tasks


@pytest.mark.parametrize("kind", ["timer", "back-off"])
def test_who_waits_for_one_that_left_the_memory_is_answered_when_it_ends(
    database_url: str, wall: Wall, kind: str
) -> None:
    async def main() -> None:
        async with inside(database_url, flaky) as api:
            id = await parked(api, LONG if kind == "timer" else backing_off())
            clients = await waits(api, id, clients=3)
            assert id in api.dagbok.scheduler.parked
            wall.ahead_ms += HOUR_S * 1000
            for execution in await asyncio.gather(*clients):
                assert (execution["status"], execution["wakeAt"]) == ("completed", None)
            assert not api.dagbok.scheduler._waiters

    asyncio.run(main())


def test_who_submits_and_waits_is_answered_too_though_it_leaves_meanwhile(database_url: str, wall: Wall) -> None:
    async def main() -> None:
        async with inside(database_url, flaky) as api:
            async with api.told(left):
                body = {"original_request": "r", "intent": {"primary": "p"}, "sub_tasks": [LONG]}
                posted = asyncio.ensure_future(
                    api.client.post("/api/v1/execute-dag", json=body, headers={"prefer": "wait=60"})
                )
            assert not posted.done()
            wall.ahead_ms += HOUR_S * 1000
            answer = await posted
            assert (answer.status_code, answer.json()["status"]) == (200, "completed")
            assert answer.headers["preference-applied"] == "wait=60"

    asyncio.run(main())


def test_one_that_left_is_listed_and_shown_and_is_not_to_be_deleted(database_url: str, wall: Wall) -> None:
    async def main() -> None:
        async with inside(database_url, flaky) as api:
            id = await parked(api, backing_off(), task(2, "wait", 1, seconds=0))
            execution = await api.get(id)
            assert (execution["status"], execution["wakeAt"]) == ("running", execution["subSteps"][0]["nextAttemptAt"])
            assert [step["status"] for step in execution["subSteps"]] == ["pending", "pending"]
            listed = (await api.client.get(PATH, params={"status": "running"})).json()["executions"]
            assert [found["id"] for found in listed] == [id]
            refused = await api.client.delete(f"{PATH}/{id}")
            assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
            assert not api.dagbok.scheduler._runs, "whoever looks does not bring it back"

    asyncio.run(main())


def test_one_that_left_is_cancelled_told_to_those_who_wait_and_deleted(database_url: str, wall: Wall) -> None:
    async def main() -> None:
        async with inside(database_url) as api:
            id = await parked(api, LONG, task(2, "wait", 1, seconds=0))
            [client] = await waits(api, id)
            assert (await api.post(id, "cancel")).status_code == 202
            execution = await client
            assert execution["status"] == "cancelled"
            assert [step["status"] for step in execution["subSteps"]] == ["cancelled", "cancelled"]
            assert not api.dagbok.scheduler.parked
            assert (await api.client.delete(f"{PATH}/{id}")).status_code == 200
            assert (await api.client.get(f"{PATH}/{id}", headers={"prefer": "wait=60"})).status_code == 404

    asyncio.run(main())


def test_one_that_waits_for_a_person_has_an_answer_at_once_though_it_left(database_url: str, wall: Wall) -> None:
    async def main() -> None:
        async with inside(database_url) as api:
            id = await parked(api, ASKING)
            assert (await api.settled(id))["status"] == "waiting"
            async with api.told(lambda _, changes: bool(changes.commands)):
                assert (await api.post(id, "sub-steps/ask/input", json={"input": "blue"})).status_code == 202
            assert (await api.settled(id))["finalResult"] == "blue"

    asyncio.run(main())


def test_one_that_is_paused_during_its_back_off_has_settled_and_goes_on_when_it_is_resumed(
    database_url: str, wall: Wall
) -> None:
    """Its pause outlives the time when it would have gone on: then nothing has to be waited for any more."""

    async def main() -> None:
        async with inside(database_url, flaky) as api:
            id = await parked(api, backing_off())
            [client] = await waits(api, id)
            assert (await api.post(id, "pause")).status_code == 202
            assert (await client)["status"] == "waiting"
            assert (await api.settled(id))["status"] == "waiting"
            wall.ahead_ms += 2 * HOUR_S * 1000
            async with api.told(lambda _, changes: bool(changes.commands)):
                assert (await api.post(id, "resume")).status_code == 202
            assert (await api.settled(id))["finalResult"] == "at last"

    asyncio.run(main())


def test_one_whose_back_off_ends_while_it_is_paused_leaves_again_and_is_still_settled(
    database_url: str, wall: Wall
) -> None:
    """It comes back because it is due, and may not go on: nobody else would ever tell those who wait since then."""

    async def main() -> None:
        async with inside(database_url, flaky) as api:
            id = await parked(api, backing_off())
            async with api.told(left):
                assert (await api.post(id, "pause")).status_code == 202
            epoch = api.dagbok.service.execution(id)["epoch"]
            async with api.told(left):
                wall.ahead_ms += 2 * HOUR_S * 1000
                while api.dagbok.service.execution(id)["epoch"] == epoch:
                    await asyncio.sleep(0)
                assert (await api.settled(id))["status"] == "waiting"
            assert not api.dagbok.scheduler._runs
            assert (await api.post(id, "resume")).status_code == 202
            assert (await api.settled(id))["finalResult"] == "at last"

    asyncio.run(main())


def test_a_long_wait_that_is_paused_ends_when_it_is_due_and_nothing_follows(database_url: str, wall: Wall) -> None:
    async def main() -> None:
        async with inside(database_url) as api:
            id = await parked(api, LONG, task(2, "wait", 1, seconds=0))
            async with api.told(left):
                assert (await api.post(id, "pause")).status_code == 202
            paused = await api.get(id)
            assert (paused["status"], paused["pausedAt"] is None) == ("running", False)
            [client] = await waits(api, id)
            wall.ahead_ms += HOUR_S * 1000
            execution = await client
            assert execution["status"] == "waiting"
            assert [step["status"] for step in execution["subSteps"]] == ["completed", "pending"]
            async with api.told(lambda _, changes: bool(changes.commands)):
                assert (await api.post(id, "resume")).status_code == 202
            assert (await api.settled(id))["status"] == "completed"

    asyncio.run(main())


@pytest.mark.parametrize("paused", [False, True])
def test_a_deadline_ends_one_that_left_and_tells_those_who_wait(database_url: str, wall: Wall, paused: bool) -> None:
    """A pause does not stop it: it counts from the submission."""

    async def main() -> None:
        async with inside(database_url) as api:
            id = await parked(api, LONG, deadlineSeconds=HOUR_S / 2)
            if paused:
                async with api.told(left):
                    assert (await api.post(id, "pause")).status_code == 202
            [client] = await waits(api, id)
            wall.ahead_ms += HOUR_S * 500
            execution = await client
            assert (execution["status"], execution["errorCode"]) == ("failed", "deadline")

    asyncio.run(main())


def test_who_waits_when_the_engine_closes_is_answered_as_it_stands(database_url: str, wall: Wall) -> None:
    async def main() -> None:
        async with inside(database_url) as api:
            id = await parked(api, LONG)
            client = asyncio.ensure_future(api.client.get(f"{PATH}/{id}", headers={"prefer": "wait=60"}))
            while not api.dagbok.scheduler._waiters:
                await asyncio.sleep(0)
            await api.dagbok.scheduler.close(0)
            answer = await client
            assert (answer.status_code, answer.json()["status"]) == (200, "running")
            assert "preference-applied" not in answer.headers

    asyncio.run(main())
