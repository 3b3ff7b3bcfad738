"""A deletion by force ends what runs, waits, rests or is in nobody's memory, and leaves nothing of it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from api.serving import Server, plan, task
from dagbok import Dagbok, service, tool
from dagbok.client import Client
from dagbok.errors import Conflict, NotFound
from dagbok.store.database import Database
from store.test_deletion import rows

QUESTION = {"id": 1, "action_type": "human", "tool_or_prompt": {"name": "human", "params": {"prompt": "Well?"}}}


@pytest.mark.parametrize("state", ["running", "waiting", "paused", "completed"])
def test_by_force_an_execution_goes_whatever_its_state(
    fresh_server: Server, database_url: str, tmp_path: Path, state: str
) -> None:
    first = {"waiting": QUESTION, "completed": task(1)}.get(state) or task(1, "gate", folder=str(tmp_path))
    id = fresh_server.submit(plan(first, task(2, "echo", 1)))["executionId"]
    with Client(fresh_server.url) as client:
        if state == "paused":
            client.pause(id)
        fresh_server.reached(id, "running" if state == "paused" else state)
        gone = client.delete(id, force=True)
        assert (gone.execution_id, gone.cascade_info.related_sub_steps_deleted) == (id, 2)
        for force in (True, False):
            with pytest.raises(NotFound):
                client.delete(id, force=force)
    database = Database.open(database_url)
    assert rows(database) == {}
    database.close()
    log = (tmp_path / "server.log").read_text()
    assert "given up" not in log
    assert "Traceback" not in log


def test_force_is_a_yes_or_a_no(server: Server) -> None:
    answer = server.client.delete("/api/v1/dag-executions/dag-exec_1", params={"force": "perhaps"})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/force")


def test_an_execution_that_left_the_memory_is_deleted_by_force(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits for it is told that it is over."""
    monkeypatch.setattr("dagbok.engine.scheduler.PARK_AFTER_S", 0.0)
    wait = {"id": 1, "tool_or_prompt": {"name": "wait", "params": {"seconds": 3600}}}

    async def main() -> None:
        async with Dagbok(database_url) as dagbok:
            id = (await dagbok.submit(plan(wait))).execution_id
            while id not in dagbok.scheduler.parked:
                await asyncio.sleep(0)
            with pytest.raises(Conflict, match="with force"):
                await dagbok.delete(id)
            waiting = asyncio.ensure_future(dagbok.service.wait(id))
            assert await dagbok.delete(id, force=True, by="ann") == 1
            await waiting
            with pytest.raises(NotFound):
                await dagbok.delete(id, force=True)

    asyncio.run(main())
    database = Database.open(database_url)
    assert rows(database) == {}
    database.close()


def test_a_body_is_cut_off_by_a_deletion(database_url: str) -> None:
    async def main() -> None:
        began, ended = asyncio.Event(), asyncio.Event()

        @tool(effect="once")
        async def forever() -> None:
            """Run until cut off."""
            began.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        async with Dagbok(database_url, tools=[forever]) as dagbok:
            id = (await dagbok.submit(plan(task(1, "forever")))).execution_id
            await began.wait()
            assert await dagbok.delete(id, force=True) == 1
            await ended.wait()

    asyncio.run(main())


def test_one_that_does_not_end_in_time_is_told_of_and_goes_the_next_time(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its cancellation is durable; its owner applies it when it can."""
    monkeypatch.setattr(service, "ENDING_S", 0.3)

    async def main() -> None:
        async with Dagbok(database_url) as dagbok:
            id = (await dagbok.submit(plan(QUESTION))).execution_id
            await dagbok.wait(id)
            async with dagbok._worker._hearing:  # type: ignore[union-attr] # it hears nothing for a while
                with pytest.raises(Conflict, match=r"is being cancelled.*again"):
                    await dagbok.delete(id, force=True)
            assert await dagbok.delete(id, force=True) == 1

    asyncio.run(main())


def test_a_dag_that_goes_at_the_moment_of_a_submission_is_not_found(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with Dagbok(database_url) as dagbok:
            done: Any = await dagbok.run(plan({"id": 1, "tool_or_prompt": {"name": "wait", "params": {"seconds": 0}}}))
            find = dagbok.service.reader.plan
            found: list[object] = []

            def find_and_lose(id: str) -> Any:
                text = find(id)
                if not found:
                    deleting = asyncio.run_coroutine_threadsafe(dagbok.delete(done.id), loop)
                    found.append(deleting.result(10))
                return text

            loop = asyncio.get_running_loop()
            monkeypatch.setattr(dagbok.service.reader, "plan", find_and_lose)
            with pytest.raises(NotFound, match="no dag"):
                await dagbok.service.submit_dag(done.dag_id)

    asyncio.run(main())
