"""Commands reach their execution whoever runs it: this engine, or nobody yet."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dagbok import Dagbok, tool
from dagbok.domain.ids import ExecutionId
from dagbok.domain.states import ExecutionStatus
from dagbok.errors import NotFound
from dagbok.store.database import Database
from dagbok.store.takeover import write_command
from dagbok.submitting import Options


@tool(effect="pure")
async def forever() -> None:
    """Run until cut off."""
    await asyncio.Event().wait()


def _plan(name: str) -> dict[str, Any]:
    task = {"id": 1, "tool_or_prompt": {"name": name}}
    return {"original_request": "r", "intent": {"primary": "p"}, "sub_tasks": [task]}


def test_a_running_execution_is_cancelled_by_a_command_of_another_process(database_url: str) -> None:
    """The other process writes the row and nothing else; the engine finds it by polling."""

    async def main() -> None:
        async with Dagbok(database_url, tools=[forever]) as dagbok:
            submitted = await dagbok.submit(_plan("forever"))
            other = Database.open(database_url)
            await asyncio.to_thread(write_command, other, submitted.execution_id, "cancel", {}, "ann", at_ms=0)
            other.close()
            execution = await dagbok.wait(submitted.execution_id)
        assert execution.status is ExecutionStatus.CANCELLED
        assert execution["1"].reason == "cancelled"

    asyncio.run(main())


def test_an_execution_that_this_process_cannot_run_is_left_alone_and_can_be_cancelled(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with Dagbok(database_url, tools=[forever], close_grace_s=0) as dagbok:
            submitted = await dagbok.submit(_plan("forever"))
        async with Dagbok(database_url) as dagbok:
            assert "has no tool forever" in caplog.text
            assert (await dagbok.get(submitted.execution_id)).status is not ExecutionStatus.FAILED
            execution = await dagbok.cancel(submitted.execution_id)
            assert execution.status is ExecutionStatus.CANCELLED
            assert (await dagbok.cancel(submitted.execution_id)).last_event_seq == execution.last_event_seq

    asyncio.run(main())


def test_a_command_for_an_execution_that_has_ended_changes_nothing_and_is_marked_as_applied(database_url: str) -> None:
    async def main() -> None:
        async with Dagbok(database_url, tools=[forever]) as dagbok:
            submitted = await dagbok.submit(_plan("forever"))
            ended = await dagbok.cancel(submitted.execution_id)
            other = Database.open(database_url)
            await asyncio.to_thread(write_command, other, ExecutionId(ended.id), "cancel", {}, None, at_ms=0)
            other.close()
            await dagbok.service._worker.hear()
            assert dagbok.service.reader.pending_commands() == []
            assert (await dagbok.get(ended.id)).last_event_seq == ended.last_event_seq

    asyncio.run(main())


def test_a_command_for_nothing_is_not_found(database_url: str) -> None:
    async def main() -> None:
        async with Dagbok(database_url) as dagbok:
            with pytest.raises(NotFound):
                await dagbok.cancel("dag-exec_nothing")

    asyncio.run(main())


def _questions(*ids: str) -> dict[str, Any]:
    tool = {"name": "human", "params": {"prompt": "Well?"}}
    tasks = [{"id": id, "action_type": "human", "tool_or_prompt": tool} for id in ids]
    return {"original_request": "r", "intent": {"primary": "p"}, "sub_tasks": tasks}


def test_answers_at_once_to_an_execution_that_nobody_runs_are_all_applied(database_url: str) -> None:
    """Two claims of one execution would fence each other, and an answer that was accepted would be lost."""

    async def main() -> None:
        async with Dagbok(database_url) as dagbok:
            submitted = await dagbok.submit(_questions("a", "b", "c", "d"))
            await dagbok.wait(submitted.execution_id)
        async with Dagbok(database_url, recover=False) as dagbok:
            await asyncio.gather(
                *(dagbok.answer(submitted.execution_id, id, {"input": id}) for id in ("a", "b", "c", "d"))
            )
            execution = await dagbok.get(submitted.execution_id)
            assert [step.result for step in execution.sub_steps] == ["a", "b", "c", "d"]
            assert execution.status is ExecutionStatus.COMPLETED
            assert dagbok.service.reader.pending_commands() == []

    asyncio.run(main())


def test_a_command_waits_for_a_submission_that_is_durable_but_not_handed_over(database_url: str) -> None:
    """Claiming it then would fence the very engine that is about to run it."""

    async def main() -> None:
        async with Dagbok(database_url, tools=[forever]) as dagbok:
            service = dagbok.service
            execution, new = service._prepare(_plan("forever"), None, Options(), None)
            created = await service._journal.create(new)
            committed = asyncio.get_running_loop().create_future()
            arriving = asyncio.ensure_future(service._worker.submit(execution, committed))
            await asyncio.sleep(0)
            cancelling = asyncio.ensure_future(service.cancel(execution.id))
            await asyncio.wait([cancelling])
            row = service.reader.get_execution(execution.id)
            assert row is not None
            assert (row["epoch"], row["status"]) == (1, "pending")
            committed.set_result(created)
            await arriving
            ended = await dagbok.wait(execution.id)
            assert ended.status is ExecutionStatus.CANCELLED

    asyncio.run(main())
