"""`POST .../fork`: another execution goes on from this one, which stays as it is."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx2

from api.inside import PATH, Inside, inside
from api.serving import plan, task
from api.test_commands import applied
from api.test_retrying import Work, steps


async def forked(api: Inside, id: str, /, status: int = 202, **more: Any) -> httpx2.Response:
    answer = await api.post(id, "fork", **more)
    assert answer.status_code == status, answer.text
    return answer


def test_a_fork_is_answered_as_a_submission_is(database_url: str) -> None:
    async def main() -> None:
        work = Work("b")
        async with inside(database_url, work.tool) as api:
            id = await api.submit(*steps("a", "b", "c"), title="Letters")
            before = await api.settled(id)
            work.broken.clear()
            answer = await forked(api, id)  # without a body
            said = answer.json()
            assert said == {
                "status": "started", "executionId": said["executionId"], "dagId": before["dagId"],
                "originalRequest": "Test it", "totalTasks": 3, "forkedFrom": id, "reusedTasks": 1,
                "message": "The fork is durable and runs; what it took over does not run again.",
            }  # fmt: skip
            assert answer.headers["location"] == f"{PATH}/{said['executionId']}"
            after = await api.settled(said["executionId"])
            assert (after["status"], after["forkedFrom"], after["title"]) == ("completed", id, "Letters")
            a = after["subSteps"][0]
            assert (a["reason"], a["attempt"], a["input"], a["result"]) == ("reused", 0, {"what": "a"}, "a")
            assert work.log == {"a": 1, "b": 2, "c": 1}
            assert await api.get(id) == before
            assert before["forkedFrom"] is None

    asyncio.run(main())


def test_who_waits_gets_the_fork_itself(database_url: str) -> None:
    async def main() -> None:
        work = Work()
        async with inside(database_url, work.tool) as api:
            id = await api.submit(*steps("a", "b"))
            await api.settled(id)
            answer = await forked(api, id, 200, json={"fromTask": "b", "by": "ann"}, headers={"prefer": "wait=60"})
            assert (answer.json()["status"], answer.json()["forkedFrom"]) == ("completed", id)
            assert answer.headers["preference-applied"] == "wait=60"
            created = json.loads(api.events(answer.json()["id"])[0]["data"])
            assert created == {"forkedFrom": id, "fromTask": "b", "reused": 1, "by": "ann"}

    asyncio.run(main())


def test_the_same_key_gets_the_same_fork(database_url: str) -> None:
    async def main() -> None:
        work = Work()
        async with inside(database_url, work.tool) as api:
            id = await api.submit(*steps("a", "b"))
            await api.settled(id)
            named: dict[str, Any] = {"json": {"fromTask": "b"}, "headers": {"idempotency-key": "k"}}
            first, again = [await forked(api, id, **named) for _ in range(2)]
            assert (first.json(), "idempotent-replayed" in first.headers) == (again.json(), False)
            assert again.headers["idempotent-replayed"] == "true"
            other = await forked(api, id, 422, json={"fromTask": "a"}, headers={"idempotency-key": "k"})
            assert other.json()["code"] == "idempotency_key_reused"
            await api.settled(first.json()["executionId"])
            assert work.log == {"a": 1, "b": 2}

    asyncio.run(main())


def test_an_execution_in_any_state_can_be_forked(database_url: str) -> None:
    async def main() -> None:
        work = Work()
        async with inside(database_url, work.tool) as api:
            id = await api.submit(*steps("a"), task("w", "wait", "a", seconds=3600))
            await applied(api, id, "pause")
            paused = (await forked(api, id)).json()["executionId"]
            assert (await api.get(paused))["pausedAt"] is None  # the pause is the origin's alone
            await applied(api, id, "cancel")
            cancelled = (await forked(api, id)).json()
            assert cancelled["reusedTasks"] == 1
            for other in (paused, cancelled["executionId"]):
                await applied(api, other, "cancel")
            assert work.log == {"a": 1}

    asyncio.run(main())


def test_overrides_and_plans_are_refused_with_their_places_and_nothing_is_made(database_url: str) -> None:
    async def main() -> None:
        work = Work("b")
        async with inside(database_url, work.tool) as api:
            id = await api.submit(*steps("a", "b", "c"))
            before = await api.settled(id)
            done = await api.submit(*steps("a"))
            await api.settled(done)
            refused: list[tuple[Any, int, str, str]] = [
                ({"fromTask": "x"}, 422, "/fromTask", "no sub-task"),
                ({"fromTask": "c"}, 422, "/fromTask", "never run"),
                ({"fromTask": []}, 422, "/fromTask", "string"),
                ({"from": "a"}, 422, "/from", "there may be: by, fromTask, overrides, plan"),
                ({"overrides": {"b": {"params": {"what": 1}}}}, 422, "/overrides/b/params/what", "not of type"),
                ({"overrides": {"x": {}}}, 422, "/overrides/x", "no sub-task"),
                ({"overrides": {}, "plan": plan(*steps("a"))}, 409, "", "would run"),
                ({"overrides": {"a": {}}, "plan": plan(*steps("a"))}, 422, "/overrides", "either"),
                ({"plan": plan(task(1, "nix"))}, 422, "/plan/sub_tasks/0/tool_or_prompt/name", "nix"),
                ({"plan": 7}, 422, "/plan", "JSON object"),
                ([], 422, "", "object"),
            ]
            for body, status, pointer, why in refused:
                answer = await forked(api, id, status, json=body)
                assert why in answer.text, answer.text
                if status == 422:
                    (error,) = answer.json()["errors"]
                    assert error["pointer"].removeprefix("#") == pointer, answer.text
            assert (await forked(api, done, 409)).json()["code"] == "conflict"
            assert (await forked(api, "dag-exec_nobody", 404)).json()["code"] == "not_found"
            assert (await forked(api, "x" * 501, 404)).json()["code"] == "not_found"
            listed = (await api.client.get(PATH)).json()
            assert listed["pagination"]["total"] == 2
            assert await api.get(id) == before

    asyncio.run(main())


def test_a_large_plan_can_be_the_plan_of_a_fork(database_url: str) -> None:
    async def main() -> None:
        work = Work()
        async with inside(database_url, work.tool) as api:
            id = await api.submit(*steps("a"))
            await api.settled(id)
            long = plan(*steps("a"), task("z", "work", what="z" * 100_000))
            after = (await forked(api, id, 200, json={"plan": long}, headers={"prefer": "wait=60"})).json()
            assert (after["status"], after["completedTasks"]) == ("completed", 2)
            assert work.log["a"] == 1

    asyncio.run(main())
