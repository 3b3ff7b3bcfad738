"""`POST .../retry` and `POST /resume-dag/{id}`: what was lost runs again, and what they refuse."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from api.inside import Inside, inside
from api.serving import task
from api.test_commands import applied
from dagbok.errors import ToolError
from dagbok.tools.decorator import tool


class Work:
    """A tool that fails what is broken, and keeps a log of its own."""

    def __init__(self, *broken: str) -> None:
        self.broken = set(broken)
        self.log: Counter[str] = Counter()

        @tool(effect="pure")
        def work(what: str) -> str:
            """Do one thing."""
            self.log[what] += 1
            if what in self.broken:
                raise ToolError("it is broken")
            return what

        self.tool = work


def steps(*names: str) -> list[dict[str, Any]]:
    """A chain."""
    return [task(name, "work", *names[:at][-1:], what=name) for at, name in enumerate(names)]


async def retried(api: Inside, path: str, **more: Any) -> dict[str, Any]:
    answer = await api.client.post(f"/api/v1/{path}", **more)
    assert answer.status_code == 202, answer.text
    said: dict[str, Any] = answer.json()
    return said


@pytest.mark.parametrize("way", ["dag-executions/{id}/retry", "resume-dag/{id}"])
def test_what_was_lost_runs_again(database_url: str, way: str) -> None:
    async def main() -> None:
        work = Work("b")
        async with inside(database_url, work.tool) as api:
            id = await api.submit(*steps("a", "b", "c"))
            before = await api.settled(id)
            assert before["status"] == "partial"
            work.broken.clear()
            said = await retried(api, way.format(id=id), json={"by": "ann"})
            message = "What was lost runs again; what has completed is kept."
            assert said == {
                "status": "resumed", "executionId": id, "dagId": before["dagId"], "retryCount": 1, "message": message
            }  # fmt: skip
            after = await api.settled(id)
            assert (after["status"], after["retryCount"], after["completedTasks"]) == ("completed", 1, 3)
            assert after["lastRetryAt"] is not None
            assert work.log == {"a": 1, "b": 2, "c": 1}
            (event,) = [event for event in api.events(id) if event["type"] == "execution.retried"]
            assert '"by":"ann"' in event["data"]

    asyncio.run(main())


def test_a_paused_execution_is_resumed_by_the_same_operation(database_url: str) -> None:
    async def main() -> None:
        async with inside(database_url) as api:
            id = await api.submit(task("w", "wait", seconds=3600))
            await applied(api, id, "pause")
            async with api.told(lambda _, changes: bool(changes.commands)):
                said = await retried(api, f"resume-dag/{id}")
            assert (said["message"], said["retryCount"]) == ("The execution goes on.", 0)
            assert (await api.get(id))["pausedAt"] is None

    asyncio.run(main())


def test_only_the_steps_that_are_named_run_again(database_url: str) -> None:
    async def main() -> None:
        work = Work("1", "b")
        async with inside(database_url, work.tool) as api:
            id = await api.submit(*steps("a"), task(1, "work", what="1"), *steps("b"))
            await api.settled(id)
            work.broken.clear()
            await retried(api, f"dag-executions/{id}/retry", json={"steps": [1]})
            after = await api.settled(id)
            assert (after["status"], after["failedTasks"]) == ("partial", 1)
            assert work.log == {"a": 1, "1": 2, "b": 1}

    asyncio.run(main())


def test_what_cannot_be_retried_is_refused_with_its_place(database_url: str) -> None:
    async def main() -> None:
        work = Work("b")
        async with inside(database_url, work.tool) as api:
            good, bad = await api.submit(*steps("a")), await api.submit(*steps("a", "b", "c"))
            busy = await api.submit(task("w", "wait", seconds=3600))
            await api.settled(good)
            before = await api.settled(bad)
            for id, status in ((good, "completed"), (busy, "running")):
                for path in (f"dag-executions/{id}/retry", f"resume-dag/{id}"):
                    answer = await api.client.post(f"/api/v1/{path}")
                    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
                    assert f"is {status};" in answer.json()["detail"]
            assert (await api.client.post("/api/v1/resume-dag/dag-exec_nobody")).status_code == 404
            refused: list[tuple[Any, str, str]] = [
                ({"steps": ["b", "x"]}, "/steps/1", "not in it"),
                ({"steps": ["a"]}, "/steps/0", "completed"),
                ({"steps": ["c"]}, "/steps/0", "skipped"),
                ({"steps": []}, "/steps", "at least 1"),
                ({"steps": "b"}, "/steps", "list"),
                ({"override": {}}, "/override", "there may be: by, steps, overrides"),
                ({"overrides": []}, "/overrides", "JSON object"),
                ({"overrides": {"b": {"params": {"what": 1}}}}, "/overrides/b/params/what", "not of type 'string'"),
                ({"overrides": {"b": {"tool": "nothing"}}}, "/overrides/b/tool", "not known"),
                ({"overrides": {"a": {"params": {"what": "x"}}}}, "/overrides/a", "does not run again"),
                ({"overrides": {"x": {}}}, "/overrides/x", "no sub-task"),
                ([], "", "object"),
            ]
            for body, pointer, why in refused:
                answer = await api.client.post(f"/api/v1/dag-executions/{bad}/retry", json=body)
                assert answer.status_code == 422, body
                (error,) = answer.json()["errors"]
                assert error["pointer"].removeprefix("#") == pointer, answer.text
                assert why in error["detail"], answer.text
            assert await api.get(bad) == before

    asyncio.run(main())


def test_an_override_is_shown_beside_the_plan(database_url: str) -> None:
    async def main() -> None:
        work = Work("b")
        async with inside(database_url, work.tool) as api:
            id = await api.submit(*steps("a", "b", "c"))
            await api.settled(id)
            overrides = {"b": {"params": {"what": "another"}}}
            await retried(api, f"dag-executions/{id}/retry", json={"overrides": overrides})
            after = await api.settled(id)
            assert after["status"] == "completed"
            b, c = after["subSteps"][1:]
            assert (b["override"], b["revision"]) == (overrides["b"], 1)
            assert (b["toolOrPromptParams"], b["input"], b["result"]) == (
                {"what": "b"}, {"what": "another"}, "another"
            )  # fmt: skip
            assert (c["override"], c["revision"]) == (None, 0)

    asyncio.run(main())
