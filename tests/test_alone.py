"""Commands of a process that is no engine, and what fencing makes of two that want the same execution."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dagbok import Dagbok, tool
from dagbok.domain.ids import ExecutionId
from dagbok.domain.secrets import Redactor
from dagbok.domain.states import ExecutionStatus, StepStatus
from dagbok.errors import Fenced
from dagbok.outside import Commander
from dagbok.store import takeover
from dagbok.store.database import Database


@tool(effect="pure")
async def forever() -> None:
    """Run until cut off."""
    await asyncio.Event().wait()


PLAN: Any = {
    "original_request": "r",
    "intent": {"primary": "p"},
    "sub_tasks": [{"id": "1", "tool_or_prompt": {"name": "forever"}}],
}


def _commander(database: Database) -> Commander:
    return Commander(database, redactor=Redactor({"CARD": "4111-1111-1111-1111"}), command="test")


async def _left(database: Database, url: str) -> ExecutionId:
    """Return an execution with a step that runs, whose owner died."""
    async with Dagbok(url, tools=[forever], close_grace_s=0) as dagbok:
        submitted = await dagbok.submit(PLAN)
        while (await dagbok.get(submitted.execution_id))["1"].status is not StepStatus.RUNNING:
            await asyncio.sleep(0)
        takeover.claim(database, submitted.execution_id, "one that dies")
    return submitted.execution_id


def test_what_was_asked_is_applied_and_the_execution_belongs_to_nobody(database: Database, database_url: str) -> None:
    async def main() -> None:
        id = await _left(database, database_url)
        commander = _commander(database)
        ann = "ann with 4111-1111-1111-1111"
        numbers = [commander.write(id, kind, ann) for kind in ("pause", "resume")]
        assert {command.by for command in commander._reader.pending_commands()} == {"ann with [secret CARD]"}
        numbers.append(takeover.write_command(database, id, "pause", {}, ann, at_ms=0))  # who does not know our secrets
        assert not any(commander.is_applied(id, number) for number in numbers)
        await commander.apply(id)
        assert all(commander.is_applied(id, number) for number in numbers)
        async with Dagbok(database_url, recover=False) as dagbok:
            row, (step,) = dagbok.service.details(id)
            assert (row["status"], row["owner"], row["wake_at"]) == ("waiting", None, None)
            assert (step["status"], [tried["outcome"] for tried in step["attempts"]]) == ("pending", ["interrupted"])
            said = [event["data"] for event in dagbok.service.events(id) if event["type"] == "execution.paused"]
            assert said == ['{"by":"ann with [secret CARD]"}'] * 2
        async with Dagbok(database_url, tools=[forever]) as dagbok:
            assert dagbok.scheduler.get(id) is None, "an engine leaves alone what is paused"
            assert (await dagbok.cancel(id)).status is ExecutionStatus.CANCELLED

    asyncio.run(main())


def test_what_is_not_paused_any_more_is_due_at_once(database: Database, database_url: str) -> None:
    async def main() -> None:
        id = await _left(database, database_url)
        commander = _commander(database)
        for kind in ("pause", "resume"):
            commander.write(id, kind, None)
            await commander.apply(id)
        async with Dagbok(database_url, tools=[forever]) as dagbok:
            assert dagbok.scheduler.get(id) is not None

    asyncio.run(main())


def test_one_that_claims_meanwhile_fences_the_command_which_stays_for_it(
    database: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine starts between our claim and our commit: the row is not lost, and nothing of ours is written."""

    async def main() -> None:
        id = await _left(database, database_url)
        commander = _commander(database)
        number = commander.write(id, "cancel", None)
        reader = commander._reader
        before = reader.version(id)
        pending = reader.pending_commands

        def overtaken(ids: list[str]) -> Any:
            takeover.claim(database, id, "a faster one")
            return pending(ids)

        with monkeypatch.context() as patch:
            patch.setattr(reader, "pending_commands", overtaken)
            with pytest.raises(Fenced):
                await commander.apply(id)
        assert reader.version(id) == before
        assert not commander.is_applied(id, number)
        async with Dagbok(database_url, tools=[forever]) as dagbok:
            assert (await dagbok.wait(id)).status is ExecutionStatus.CANCELLED
        assert commander.is_applied(id, number)

    asyncio.run(main())


def test_one_that_dies_between_its_claim_and_its_commit_loses_nothing(
    database: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        id = await _left(database, database_url)
        commander = _commander(database)
        commander.write(id, "cancel", None)
        with monkeypatch.context() as patch:
            patch.setattr(commander._reader, "pending_commands", _die)
            with pytest.raises(KeyError):
                await commander.apply(id)
        async with Dagbok(database_url, tools=[forever]) as dagbok:
            assert (await dagbok.wait(id)).status is ExecutionStatus.CANCELLED

    asyncio.run(main())


def _die(_: list[str]) -> None:
    raise KeyError("the process is gone")


def test_an_engine_of_another_process_is_fenced_by_the_command_and_gives_up_that_execution_alone(
    database: Database, database_url: str
) -> None:
    """It can start just after it was looked for. Its other executions go on."""

    async def main() -> None:
        async with Dagbok(database_url, tools=[forever]) as dagbok:
            lost, kept = await dagbok.submit(PLAN), await dagbok.submit(PLAN)
            commander = _commander(database)
            commander.write(lost.execution_id, "cancel", None)
            await commander.apply(lost.execution_id)
            row = await asyncio.to_thread(dagbok.service.execution, lost.execution_id)
            assert row["status"] == "cancelled"
            assert (await dagbok.cancel(kept.execution_id)).status is ExecutionStatus.CANCELLED

    asyncio.run(main())
