"""Questions whose time is over, reminders, the first failure that ends all: on both databases, with a fake clock."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dagbok import Dagbok
from dagbok.cluster import local
from dagbok.errors import BadInput, Conflict, ToolError
from dagbok.store.database import Database
from dagbok.store.takeover import write_command
from dagbok.testing import FakeClock, ScriptedTool

HOUR_S = 3600
HUMAN = {"action_type": "human", "tool_or_prompt": {"name": "human", "params": {"prompt": "Well?"}}}


def _plan(*tasks: dict[str, Any]) -> dict[str, Any]:
    return {"original_request": "r", "intent": {"primary": "p"}, "sub_tasks": list(tasks)}


def _asked(**more: Any) -> dict[str, Any]:
    return {"id": "q", **HUMAN, "timeout_seconds": HOUR_S, **more}


def _question(dagbok: Dagbok, id: str) -> Any:
    return dagbok.service.reader.question(id, "q")


def _after(id: str) -> dict[str, Any]:
    params = {"data": "<Result from Task q>", "expression": "@"}
    return {"id": id, "tool_or_prompt": {"name": "extract_json", "params": params}}


@pytest.mark.parametrize(
    ("more", "status", "result"),
    [
        ({"on_timeout": "default", "default": {"as": "always"}}, "completed", {"as": "always"}),
        ({"on_timeout": "skip"}, "completed", None),
        ({}, "failed", None),
    ],
)
def test_nobody_answers_and_it_goes_on_as_the_plan_says(
    database_url: str, more: dict[str, Any], status: str, result: Any
) -> None:
    async def main() -> None:
        clock = FakeClock()
        async with Dagbok(database_url, clock=clock) as dagbok:
            id = (await dagbok.submit(_plan(_asked(**more), _after("next")))).execution_id
            waiting = await dagbok.wait(id)
            assert (waiting["q"].next_attempt_at - waiting["q"].created_at).seconds == HOUR_S  # type: ignore[operator]
            await clock.advance(HOUR_S - 1)
            assert (await dagbok.get(id)).status == "waiting"
            ended = asyncio.ensure_future(_ended(dagbok, id))
            await clock.advance(1)
            execution = await ended
            assert (execution.status, execution["q"].error_code) == (status, "unanswered")
            if status == "completed":
                assert execution["next"].result == result
            assert (_question(dagbok, id)["outcome"], _question(dagbok, id)["answer"]) == ("timed_out", None)
            with pytest.raises(Conflict):
                await dagbok.answer(id, "q", {"input": "late"})

    asyncio.run(main())


async def _ended(dagbok: Dagbok, id: str) -> Any:
    await _told(dagbok, "execution.completed", "execution.partial", "execution.failed")
    return await dagbok.get(id)


async def _told(dagbok: Dagbok, *types: str) -> None:
    """Return once a line of one of these types is durable."""
    told = asyncio.Event()
    end = dagbok.scheduler.subscribe(
        lambda _, changes: told.set() if any(event.type in types for event in changes.events) else None
    )
    await told.wait()
    end()


def test_what_became_due_while_nobody_was_there_is_done_at_the_next_start(database_url: str) -> None:
    async def main() -> None:
        clock = FakeClock()
        async with Dagbok(database_url, clock=clock) as dagbok:
            id = (await dagbok.submit(_plan(_asked(on_timeout="skip"), _after("next")))).execution_id
            await dagbok.wait(id)
        clock = clock.next_process()
        clock.jump(2 * HOUR_S)
        async with Dagbok(database_url, clock=clock) as dagbok:
            while (await dagbok.get(id)).status != "completed":
                await asyncio.sleep(0.01)

    asyncio.run(main())


def test_an_answer_that_was_taken_counts_though_its_time_is_over_when_it_is_heard(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "POLL_INTERVAL_S", 9_999)  # nobody looks for commands by himself

    async def main() -> None:
        clock = FakeClock()
        async with Dagbok(database_url, clock=clock) as dagbok:
            id = (await dagbok.submit(_plan(_asked(), _after("next")))).execution_id
            await dagbok.wait(id)
            database = Database.open(database_url)
            data = {"taskId": "q", "answer": {"in": "time"}}
            write_command(database, id, "answer", data, "ann", at_ms=clock.now_ms(), wait="q#1")
            database.close()
            ended = asyncio.ensure_future(_ended(dagbok, id))
            await clock.advance(HOUR_S)
            execution = await ended
            assert (execution.status, execution["next"].result) == ("completed", {"in": "time"})
            assert (_question(dagbok, id)["outcome"], _question(dagbok, id)["answered_by"]) == ("answered", "ann")

    asyncio.run(main())


def test_an_answer_is_refused_once_its_time_is_over_though_nobody_has_heard_that(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the two rows the first counts: whoever comes second is told so at once."""
    monkeypatch.setattr(local, "POLL_INTERVAL_S", 9_999)

    async def main() -> None:
        clock = FakeClock()
        async with Dagbok(database_url, clock=clock) as dagbok:
            id = (await dagbok.submit(_plan(_asked(on_timeout="skip"), _after("next")))).execution_id
            await dagbok.wait(id)
            data = {"taskId": "q", "question": 1}
            database = Database.open(database_url)
            write_command(database, id, "expire", data, None, at_ms=clock.now_ms(), wait="q#1")
            database.close()
            with pytest.raises(Conflict):
                await dagbok.answer(id, "q", {"input": "late"})
            ended = asyncio.ensure_future(_ended(dagbok, id))
            await clock.advance(HOUR_S)
            assert (await ended)["q"].error_code == "unanswered"

    asyncio.run(main())


def test_the_end_of_its_time_is_written_with_the_key_of_its_answer(database_url: str) -> None:
    async def main() -> None:
        clock = FakeClock()
        async with Dagbok(database_url, clock=clock) as dagbok:
            id = (await dagbok.submit(_plan(_asked(on_timeout="skip"), _after("next")))).execution_id
            await dagbok.wait(id)
            ended = asyncio.ensure_future(_ended(dagbok, id))
            await clock.advance(HOUR_S)
            await ended
            database = Database.open(database_url)
            with pytest.raises(Conflict):
                write_command(database, id, "answer", {}, None, at_ms=0, wait="q#1")
            database.close()

    asyncio.run(main())


def test_a_question_is_to_be_closed_once_however_long_the_database_is_away(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every five seconds of an outage left one more command in the queue of the journal, of each question."""

    async def main() -> None:
        clock = FakeClock()
        async with Dagbok(database_url, clock=clock) as dagbok:
            id = (await dagbok.submit(_plan(_asked(on_timeout="skip"), _after("next")))).execution_id
            await dagbok.wait(id)
            journal, back, asked = dagbok.service._journal, asyncio.Event(), asyncio.Event()
            write = journal.write_command
            written: list[Any] = []

            async def held(*args: Any, **more: Any) -> int:
                written.append(args)
                asked.set()
                await back.wait()
                return await write(*args, **more)

            monkeypatch.setattr(journal, "write_command", held)
            await clock.advance(HOUR_S)
            await asked.wait()
            for _ in range(10):
                await clock.advance(5)
            assert len(written) == 1
            ended = asyncio.ensure_future(_ended(dagbok, id))
            await asyncio.sleep(0)
            back.set()
            assert (await ended).status == "completed"

    asyncio.run(main())


def test_of_many_questions_whose_time_is_over_the_commands_are_read_together(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each read all that had not been applied: quadratic in the questions of one moment."""
    monkeypatch.setattr(local, "POLL_INTERVAL_S", 9_999)  # nobody looks for commands by himself

    async def main() -> None:
        clock = FakeClock()
        many = [{**_asked(on_timeout="skip"), "id": str(number)} for number in range(50)]
        async with Dagbok(database_url, clock=clock) as dagbok:
            id = (await dagbok.submit(_plan(*many))).execution_id
            await dagbok.wait(id)
            read, reads = dagbok.service.reader.pending_commands, []

            def counted(*args: Any) -> Any:
                reads.append(args)
                return read(*args)

            monkeypatch.setattr(dagbok.service.reader, "pending_commands", counted)
            ended = asyncio.ensure_future(_ended(dagbok, id))
            await clock.advance(HOUR_S)
            assert (await ended).skipped_tasks == 50
            assert len(reads) < 10

    asyncio.run(main())


def test_reminders_come_at_ever_longer_intervals_and_leave_the_question_open(database_url: str) -> None:
    async def main() -> None:
        clock = FakeClock()
        async with Dagbok(database_url, clock=clock) as dagbok:
            id = (await dagbok.submit(_plan(_asked(on_timeout="remind")))).execution_id
            await dagbok.wait(id)
            for hours in (1, 1, 2, 4):
                reminded = asyncio.ensure_future(_told(dagbok, "substep.reminded"))
                await clock.advance(hours * HOUR_S)
                await reminded
            await clock.advance(HOUR_S)
            lines = [line for line in dagbok.service.events(id) if line["type"] == "substep.reminded"]
            began = _question(dagbok, id)["asked_at"]
            assert [(line["at"] - began) // 1000 / HOUR_S for line in lines] == [1, 2, 4, 8]
            assert (_question(dagbok, id)["reminders"], (await dagbok.get(id)).status) == (4, "waiting")
            await dagbok.answer(id, "q", {"input": "at last"})
            assert (await dagbok.get(id)).status == "completed"

    asyncio.run(main())


def test_the_first_failure_cuts_off_what_runs_and_asks_nobody_any_more(database_url: str) -> None:
    async def main() -> None:
        clock = FakeClock()
        runs = ScriptedTool("runs", lambda _: clock.sleep(HOUR_S), effect="pure", clock=clock)
        fails = ScriptedTool("fails", [ToolError("broken")], effect="pure", clock=clock)
        plan = _plan(
            {"id": "runs", "tool_or_prompt": {"name": "runs"}},
            {"id": "q", **HUMAN},
            {"id": "fails", "tool_or_prompt": {"name": "fails"}, "dependencies": ["quick"]},
            {"id": "quick", "tool_or_prompt": {"name": "wait", "params": {"seconds": 1}}},
        )
        async with Dagbok(database_url, tools=[runs, fails], clock=clock) as dagbok:
            id = (await dagbok.submit(plan, failure_policy="fail_fast")).execution_id
            await runs.called()
            ended = asyncio.ensure_future(_ended(dagbok, id))
            await clock.advance(1)
            execution = await ended
            states = {step.task_id: (step.status, step.reason) for step in execution.sub_steps}
            cancelled = ("cancelled", "fail_fast")
            assert states == {
                "runs": cancelled, "q": cancelled, "fails": ("failed", None), "quick": ("completed", None)
            }  # fmt: skip
            assert (execution.status, execution.error_code) == ("partial", "fail_fast")
            assert execution.options == {"failurePolicy": "fail_fast"}
            assert _question(dagbok, id)["outcome"] == "cancelled"

    asyncio.run(main())


def test_the_policy_outlives_the_process(database_url: str) -> None:
    async def main() -> None:
        clock = FakeClock()
        fails = ScriptedTool("fails", [ToolError("broken")], effect="pure", clock=clock)
        plan = _plan({"id": "q", **HUMAN}, {"id": "later", **HUMAN}, {"id": "f", "tool_or_prompt": {"name": "fails"}})
        plan["sub_tasks"][2]["dependencies"] = ["q"]
        async with Dagbok(database_url, tools=[fails], clock=clock) as dagbok:
            id = (await dagbok.submit(plan, failure_policy="fail_fast")).execution_id
            await dagbok.wait(id)
        async with Dagbok(database_url, tools=[fails], clock=clock.next_process()) as dagbok:
            await dagbok.answer(id, "q", {"input": "go on"})
            execution = await dagbok.wait(id)
            assert (execution.status, execution["later"].reason) == ("partial", "fail_fast")

    asyncio.run(main())


def test_a_policy_that_is_none_is_refused(database_url: str) -> None:
    async def main() -> None:
        async with Dagbok(database_url) as dagbok:
            with pytest.raises(BadInput, match="failure_policy"):
                await dagbok.submit(_plan({"id": "q", **HUMAN}), failure_policy="stop")  # type: ignore[arg-type]

    asyncio.run(main())
