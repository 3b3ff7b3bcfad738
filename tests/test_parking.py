"""Waiting costs a row and no memory: executions leave, belong to nobody, and come back, on both databases."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dagbok import Dagbok
from dagbok.domain.states import ExecutionStatus
from dagbok.errors import ToolError
from dagbok.service import Submitted
from dagbok.store.database import Database
from dagbok.store.takeover import write_command
from dagbok.submitting import Options
from dagbok.testing import FakeClock, ScriptedTool

HOUR_S = 3600


def _plan(*tasks: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"original_request": "r", "intent": {"primary": "p"}, "sub_tasks": list(tasks), **more}


def _wait(seconds: float, id: int = 1) -> dict[str, Any]:
    return {"id": id, "tool_or_prompt": {"name": "wait", "params": {"seconds": seconds}}}


QUESTION = {"id": "q", "action_type": "human", "tool_or_prompt": {"name": "human", "params": {"prompt": "Well?"}}}


class Parked:
    """Tells when an execution has left the memory of an engine."""

    def __init__(self, dagbok: Dagbok) -> None:
        self._left = asyncio.Event()
        tell = dagbok.scheduler.on_parked
        assert tell is not None

        def parked(wake_at: int | None) -> None:
            tell(wake_at)
            self._left.set()

        dagbok.scheduler.on_parked = parked

    async def left(self) -> None:
        await self._left.wait()
        self._left.clear()


def _row(dagbok: Dagbok, execution_id: str) -> Any:
    return dagbok.service.execution(execution_id)


def test_an_execution_that_waits_belongs_to_nobody_and_comes_back_by_itself(database_url: str) -> None:
    async def main() -> None:
        clock = FakeClock()
        async with Dagbok(database_url, clock=clock) as dagbok:
            parked = Parked(dagbok)
            submitted = await dagbok.submit(_plan(_wait(HOUR_S), {**_wait(0), "id": 2, "dependencies": [1]}))
            await parked.left()
            row = _row(dagbok, submitted.execution_id)
            assert (row["status"], row["owner"]) == ("running", None)
            assert dagbok.scheduler.get(submitted.execution_id) is None
            waiting = asyncio.ensure_future(dagbok.wait(submitted.execution_id))
            await clock.advance(HOUR_S)
            execution = await waiting
            assert execution.status is ExecutionStatus.COMPLETED
            assert execution["1"].result == {"waited_seconds": 3600.0}
            assert (execution["1"].attempt, execution.wake_at, execution.duration_ms) == (1, None, HOUR_S * 1000)
            assert dagbok.scheduler.parked == set()

    asyncio.run(main())


def test_a_restart_leaves_what_waits_alone_until_it_is_due(database_url: str) -> None:
    """Reading ten thousand waiting executions back would take a starting engine a minute."""

    async def main() -> None:
        clock = FakeClock()
        async with Dagbok(database_url, clock=clock) as dagbok:
            parked = Parked(dagbok)
            submitted = await dagbok.submit(_plan(_wait(HOUR_S)))
            await parked.left()
            epoch = _row(dagbok, submitted.execution_id)["epoch"]
        async with Dagbok(database_url, clock=clock) as dagbok:
            await clock.timer_set(at_least=HOUR_S)
            assert _row(dagbok, submitted.execution_id)["epoch"] == epoch
            waiting = asyncio.ensure_future(dagbok.wait(submitted.execution_id))
            await clock.advance(HOUR_S)
            assert (await waiting).status is ExecutionStatus.COMPLETED

    asyncio.run(main())


def test_what_was_due_while_no_engine_was_there_goes_on_at_the_next_start(database_url: str) -> None:
    async def main() -> None:
        clock = FakeClock()
        async with Dagbok(database_url, clock=clock) as dagbok:
            parked = Parked(dagbok)
            submitted = await dagbok.submit(_plan(_wait(HOUR_S)))
            await parked.left()
        clock.jump(10 * HOUR_S)
        async with Dagbok(database_url, clock=clock) as dagbok:
            execution = await dagbok.wait(submitted.execution_id)
            assert execution.status is ExecutionStatus.COMPLETED
            assert execution.duration_ms == HOUR_S * 1000, "nobody was there in the nine hours after"

    asyncio.run(main())


def test_what_waits_is_not_longer_for_a_clock_that_was_set_back(database_url: str) -> None:
    """Parked by a process whose clock was ten hours ahead: a wait, and a question that has a deadline."""

    async def main() -> None:
        clock = FakeClock()
        async with Dagbok(database_url, clock=clock, journal=clock.watch) as dagbok:
            parked = Parked(dagbok)
            wait = await dagbok.submit(_plan(_wait(HOUR_S)))
            await parked.left()
            question = await dagbok.submit(_plan(QUESTION), deadline_seconds=HOUR_S)
            await parked.left()
        clock.set_back(10 * HOUR_S)
        for _ in range(2):  # however often the process dies meanwhile
            clock = clock.next_process()
            async with Dagbok(database_url, clock=clock, journal=clock.watch) as dagbok:
                await clock.advance(HOUR_S / 2 - 1)
                for each in (wait, question):
                    assert _row(dagbok, each.execution_id)["status"] in ("running", "waiting"), "nor shorter"
        async with Dagbok(database_url, clock=clock, journal=clock.watch) as dagbok:
            await clock.advance(2)
            execution = await dagbok.get(wait.execution_id)
            assert (execution.status, execution["1"].result) == ("completed", {"waited_seconds": 3600.0})
            cancelled = (await dagbok.get(question.execution_id))["q"]
            assert (cancelled.status, cancelled.reason) == ("cancelled", "deadline")

    asyncio.run(main())


def test_an_answer_brings_back_what_waits_for_a_person(database_url: str) -> None:
    async def main() -> None:
        async with Dagbok(database_url) as dagbok:
            parked = Parked(dagbok)
            submitted = await dagbok.submit(_plan(QUESTION, {**_wait(0, 2), "dependencies": ["q"]}))
            await parked.left()
            assert (await dagbok.wait(submitted.execution_id)).status is ExecutionStatus.WAITING
            assert _row(dagbok, submitted.execution_id)["wake_at"] is None
            await dagbok.answer(submitted.execution_id, "q", {"input": "yes"}, by="ann")
            execution = await dagbok.wait(submitted.execution_id)
            assert execution.status is ExecutionStatus.COMPLETED
            assert execution["q"].result == "yes"
            assert dagbok.service.reader.pending_commands() == []

    asyncio.run(main())


@pytest.mark.parametrize("kind", ["cancel", "pause"])
def test_a_command_of_another_process_reaches_what_has_left(database_url: str, kind: str) -> None:
    async def main() -> None:
        async with Dagbok(database_url, clock=FakeClock()) as dagbok:
            parked = Parked(dagbok)
            submitted = await dagbok.submit(_plan(_wait(HOUR_S), QUESTION))
            await parked.left()
            other = Database.open(database_url)
            await asyncio.to_thread(write_command, other, submitted.execution_id, kind, {}, "ann", at_ms=0)
            other.close()
            if kind == "cancel":
                while _row(dagbok, submitted.execution_id)["status"] != "cancelled":
                    await dagbok.service._worker.hear()
                return
            await parked.left()
            assert _row(dagbok, submitted.execution_id)["paused_at"] is not None
            await dagbok.service.resume(submitted.execution_id)
            await parked.left()
            row = _row(dagbok, submitted.execution_id)
            assert (row["paused_at"], row["owner"]) == (None, None)

    asyncio.run(main())


def test_a_deadline_reaches_what_has_left(database_url: str) -> None:
    async def main() -> None:
        clock = FakeClock()
        async with Dagbok(database_url, clock=clock, journal=clock.watch) as dagbok:
            parked = Parked(dagbok)
            plan = _plan(_wait(10 * HOUR_S), QUESTION)
            submitted = await dagbok.service.submit(plan, Options(deadline_seconds=HOUR_S))
            assert isinstance(submitted, Submitted)
            await parked.left()
            row = _row(dagbok, submitted.execution_id)
            assert row["wake_at"] == row["deadline_at"]
            await clock.advance(HOUR_S)
            execution = await dagbok.get(submitted.execution_id)
            assert (execution.status, execution.error_code) == ("failed", "deadline")

    asyncio.run(main())


def test_many_that_are_due_at_once_all_come_back(database_url: str) -> None:
    """More than are taken over at a time."""

    async def main() -> None:
        clock = FakeClock()
        async with Dagbok(database_url, clock=clock, journal=clock.watch) as dagbok:
            submitted = await asyncio.gather(*(dagbok.submit(_plan(_wait(HOUR_S))) for _ in range(150)))
            await clock.advance(1)
            assert len(dagbok.scheduler.parked) == 150
            await clock.advance(HOUR_S)
            for each in submitted:
                assert (await dagbok.wait(each.execution_id)).status is ExecutionStatus.COMPLETED
            assert dagbok.scheduler.parked == set()

    asyncio.run(main())


def test_a_back_off_outlives_the_process(database_url: str) -> None:
    async def main() -> None:
        clock = FakeClock()
        busy = ToolError("not yet", code="unavailable")
        flaky = ScriptedTool("flaky", [busy, "done"], effect="pure", retry={"max_attempts": 2, "backoff_seconds": 60})
        async with Dagbok(database_url, tools=[flaky], clock=clock) as dagbok:
            parked = Parked(dagbok)
            submitted = await dagbok.submit(_plan({"id": 1, "tool_or_prompt": {"name": "flaky"}}))
            await parked.left()
            stored = await dagbok.get(submitted.execution_id)
            assert stored["1"].status == "pending"
            assert stored["1"].next_attempt_at is not None
        assert len(flaky.calls) == 1
        async with Dagbok(database_url, tools=[flaky], clock=clock) as dagbok:
            await clock.advance(await clock.timer_set(at_most=60))
            execution = await dagbok.wait(submitted.execution_id)
            assert (execution["1"].result, execution["1"].attempt) == ("done", 2)
            [attempt] = dagbok.service.attempts(submitted.execution_id, "1")
        assert (attempt["number"], attempt["outcome"], attempt["error_code"]) == (1, "failed", "unavailable")

    asyncio.run(main())


def test_a_run_that_recovers_nothing_keeps_its_own_execution(database_url: str) -> None:
    """`dagbok run` brings back nothing, so what it runs must not leave."""

    async def main() -> None:
        clock = FakeClock()
        async with Dagbok(database_url, recover=False, clock=clock) as dagbok:
            submitted = await dagbok.submit(_plan(_wait(HOUR_S)))
            await clock.advance(await clock.timer_set(at_least=HOUR_S))
            assert (await dagbok.wait(submitted.execution_id)).status is ExecutionStatus.COMPLETED

    asyncio.run(main())
