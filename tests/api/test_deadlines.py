"""`options.deadlineSeconds` over HTTP and in programs: what has not ended by then is cancelled."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any

import pytest

from api.inside import inside
from api.serving import plan, task
from dagbok.errors import BadInput
from dagbok.tools.decorator import tool

QUICK = plan(task(1, "wait", seconds=0))


@tool(effect="pure")
async def forever() -> None:
    """Never return."""
    await asyncio.Event().wait()


def test_what_has_not_ended_by_its_deadline_is_cancelled(database_url: str) -> None:
    async def main() -> None:
        async with inside(database_url, forever) as api:
            asked = {"plan": plan(task(1, "forever")), "options": {"deadlineSeconds": 0.05}}
            answer = await api.client.post("/api/v1/execute-dag", json=asked, headers={"prefer": "wait=60"})
            execution = answer.json()
            assert (answer.status_code, execution["status"], execution["errorCode"]) == (200, "failed", "deadline")
            [step] = execution["subSteps"]
            assert (step["status"], step["reason"]) == ("cancelled", "deadline")

    asyncio.run(main())


@pytest.mark.parametrize("name", ["deadlineSeconds", "deadline_seconds"])
def test_a_deadline_is_shown_as_it_was_asked_for_and_as_a_time(database_url: str, name: str) -> None:
    async def main() -> None:
        async with inside(database_url) as api:
            id = await api.submit(task(1, "wait", seconds=0), **{name: 90})
            execution = await api.settled(id)
            assert (execution["status"], execution["options"]) == ("completed", {"deadlineSeconds": 90})
            created, deadline = (datetime.fromisoformat(execution[of]) for of in ("createdAt", "deadlineAt"))
            assert deadline - created == timedelta(seconds=90)
            none = await api.get(await api.submit(task(1, "wait", seconds=0)))
            assert (none["options"], none["deadlineAt"]) == (None, None)

    asyncio.run(main())


def test_a_deadline_is_part_of_what_an_idempotency_key_stands_for(database_url: str) -> None:
    """90 and 90.0 are one deadline, however a program, an older spelling or a JSON writer says it."""

    async def main() -> None:
        async with inside(database_url) as api:

            async def submit(**options: Any) -> tuple[int, str]:
                asked = {"plan": QUICK, "options": options}
                answer = await api.client.post("/api/v1/execute-dag", json=asked, headers={"idempotency-key": "k"})
                return answer.status_code, answer.json().get("executionId") or answer.json()["code"]

            first = await submit(deadlineSeconds=90)
            assert first[0] == 202
            assert await submit(deadlineSeconds=90.0) == first
            assert await submit(deadline_seconds=90) == first
            again = await api.dagbok.submit(QUICK, deadline_seconds=90, idempotency_key="k")
            assert (again.execution_id, again.replayed) == (first[1], True)
            for other in ({"deadlineSeconds": 91}, {}, {"deadlineSeconds": None}):
                assert await submit(**other) == (422, "idempotency_key_reused")

    asyncio.run(main())


def test_a_stored_dag_has_a_deadline_of_its_own(database_url: str) -> None:
    async def main() -> None:
        async with inside(database_url) as api:
            dag_id = (await api.get(await api.submit(task(1, "wait", seconds=0), deadlineSeconds=90)))["dagId"]
            for options, shown in (({}, None), ({"deadlineSeconds": 5.5}, {"deadlineSeconds": 5.5})):
                answer = await api.client.post("/api/v1/execute-dag", json={"dagId": dag_id, "options": options})
                assert (await api.get(answer.json()["executionId"]))["options"] == shown

    asyncio.run(main())


@pytest.mark.parametrize("seconds", [0, -1, 367 * 86_400, True, "60", float("nan"), float("inf")])
def test_a_program_is_told_of_a_deadline_that_cannot_be_kept(tmp_path: Any, seconds: Any) -> None:
    async def main() -> None:
        async with inside(f"sqlite:///{tmp_path / 'dagbok.db'}") as api:
            with pytest.raises(BadInput, match="deadline_seconds"):
                await api.dagbok.run(QUICK, deadline_seconds=seconds)
            assert await api.dagbok.list() == []

    asyncio.run(main())


def test_a_program_gives_a_deadline_too(database_url: str) -> None:
    async def main() -> None:
        async with inside(database_url, forever) as api:
            execution = await api.dagbok.run(plan(task(1, "forever")), deadline_seconds=0.05)
            assert (execution.error_code, execution.options) == ("deadline", {"deadlineSeconds": 0.05})

    asyncio.run(main())
