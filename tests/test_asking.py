"""`Dagbok.cancel`, `pause`, `resume`, `answer`: what a program asks is applied when the call returns."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dagbok import Dagbok, tool
from dagbok.app import Vault
from dagbok.domain.execution import Execution
from dagbok.domain.records import Changes
from dagbok.domain.states import ExecutionStatus, StepStatus
from dagbok.errors import Conflict, NotFound, NotJson
from dagbok.outside import open_commands
from dagbok.settings import load
from dagbok.testing import ScriptedTool

QUESTION = {"id": "q", "action_type": "human", "tool_or_prompt": {"name": "human", "params": {"prompt": "Well?"}}}


def _plan(*tasks: dict[str, Any]) -> dict[str, Any]:
    return {"original_request": "r", "intent": {"primary": "p"}, "sub_tasks": list(tasks)}


def _wait(id: int, seconds: float, *after: int | str) -> dict[str, Any]:
    return {"id": id, "tool_or_prompt": {"name": "wait", "params": {"seconds": seconds}}, "dependencies": list(after)}


def test_a_program_pauses_resumes_and_cancels(database_url: str) -> None:
    async def main() -> None:
        running, opened = asyncio.Event(), asyncio.Event()

        @tool(effect="pure")
        async def hold() -> str:
            """Return once the test says so."""
            running.set()
            await opened.wait()
            return "let go"

        async with Dagbok(database_url, tools=[hold]) as dagbok:
            steps = ({"id": 1, "tool_or_prompt": {"name": "hold"}}, {**QUESTION, "dependencies": [1]})
            id = (await dagbok.submit(_plan(*steps))).execution_id
            await running.wait()
            paused = await dagbok.pause(id, by="ann")
            assert (paused.status, paused.paused_at is None) == (ExecutionStatus.RUNNING, False)
            assert (await dagbok.pause(id)).paused_at == paused.paused_at
            opened.set()
            rests = await dagbok.wait(id)
            assert (rests.status, rests["q"].status) == (ExecutionStatus.WAITING, StepStatus.PENDING)
            assert (await dagbok.resume(id, by="bob")).paused_at is None
            assert (await dagbok.resume(id)).paused_at is None
            cancelled = await dagbok.cancel(id, by="cem")
            assert (cancelled.status, cancelled["1"].result) == (ExecutionStatus.CANCELLED, "let go")
            assert await dagbok.cancel(id) == cancelled

    asyncio.run(main())


def test_what_is_asked_while_an_execution_leaves_the_memory_is_applied_all_the_same(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes no command at that moment; the answer is not what it was before, but what came of the command."""
    monkeypatch.setattr("dagbok.engine.scheduler.PARK_AFTER_S", 0.0)

    async def main() -> None:
        async with Dagbok(database_url) as dagbok:
            parks = Parks(dagbok)
            id = (await dagbok.submit(_plan(QUESTION))).execution_id
            for ask, paused in ((dagbok.pause, True), (dagbok.resume, False)):
                await parks.begun()
                asked = asyncio.ensure_future(ask(id))
                await parks.refused()
                parks.go_on()
                assert ((await asked).paused_at is not None) is paused
            await parks.begun()
            answered = asyncio.ensure_future(dagbok.answer(id, "q", {"input": "yes"}))
            await parks.refused()
            parks.go_on()
            await answered
            assert (await dagbok.wait(id)).final_result == "yes"
            cancelled = (await dagbok.submit(_plan(QUESTION))).execution_id
            await parks.begun()
            asked = asyncio.ensure_future(dagbok.cancel(cancelled))
            await parks.refused()
            parks.go_on()
            assert (await asked).status is ExecutionStatus.CANCELLED

    asyncio.run(main())


def test_who_resumes_or_answers_through_the_service_may_wait_for_the_end_at_once(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As HTTP clients do: told that it is durable and applied right after, they must not hear that it still waits."""
    monkeypatch.setattr("dagbok.engine.scheduler.PARK_AFTER_S", 0.0)

    async def main() -> None:
        async with Dagbok(database_url) as dagbok:
            parks = Parks(dagbok)
            id = (await dagbok.submit(_plan(QUESTION))).execution_id
            await parks.begun()
            asked = asyncio.ensure_future(dagbok.service.answer(id, "q", {"input": "yes"}))
            await parks.refused()
            parks.go_on()
            await asked
            assert (await dagbok.wait(id)).final_result == "yes"

    asyncio.run(main())


def test_nobody_waits_for_an_engine_that_has_stopped(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither for what is in its memory nor for what left that: it brings nothing back any more."""

    async def main() -> None:
        async with Dagbok(database_url) as dagbok:
            in_memory = (await dagbok.submit(_plan(_wait(1, 4)))).execution_id
            monkeypatch.setattr("dagbok.engine.scheduler.PARK_AFTER_S", 0.0)
            left = (await dagbok.submit(_plan(_wait(1, 3600)))).execution_id
            while left not in dagbok.scheduler.parked:
                await asyncio.sleep(0)
            await dagbok.scheduler.close(0)
            for id in (in_memory, left):
                with pytest.raises(Conflict, match="stopped"):
                    await asyncio.wait_for(dagbok.wait(id), 30)

    asyncio.run(main())


class Parks:
    """Holds each commit by which an execution leaves the memory, until the test says so."""

    def __init__(self, dagbok: Dagbok) -> None:
        self._journal = dagbok.scheduler._journal
        self._held = asyncio.Event()
        self._go_on = asyncio.Event()
        self._refused = asyncio.Event()
        self._append = self._journal.append
        self._apply = dagbok.scheduler.apply
        self._journal.append = self._slow  # type: ignore[method-assign]  # the fault enters through the port
        dagbok.scheduler.apply = self._told  # type: ignore[method-assign]  # only to be told

    def _slow(self, changes: Changes) -> asyncio.Future[None]:
        if not changes.release or changes.header.status != "waiting":
            return self._append(changes)
        return asyncio.ensure_future(self._later(changes))

    async def _later(self, changes: Changes) -> None:
        self._held.set()
        await self._go_on.wait()
        self._go_on.clear()
        await self._append(changes)

    def _told(self, command: Any) -> bool:
        done = self._apply(command)
        if not done:
            self._refused.set()
        return done

    async def begun(self) -> None:
        await self._held.wait()
        self._held.clear()
        self._refused.clear()

    async def refused(self) -> None:
        """Return once a command came to the execution while it leaves."""
        await self._refused.wait()

    def go_on(self) -> None:
        self._go_on.set()


def test_what_cannot_be_asked_is_refused_and_nothing_changes(database_url: str) -> None:
    async def main() -> None:
        async with Dagbok(database_url) as dagbok:
            waiting = await dagbok.run(_plan(QUESTION))
            ended = await dagbok.run(_plan(_wait(1, 0)))
            for ask in (dagbok.pause, dagbok.resume, dagbok.cancel):
                with pytest.raises(NotFound):
                    await ask("dag-exec_nothing")
                with pytest.raises(Conflict, match="is completed already"):
                    await ask(ended.id)
                with pytest.raises(NotJson):
                    await ask(waiting.id, by="a\0b")
            assert (await dagbok.get(ended.id)) == ended
            assert (await dagbok.get(waiting.id)).last_event_seq == waiting.last_event_seq
            assert not dagbok.scheduler._listeners[1:], "nobody listens any more"

    asyncio.run(main())


def test_one_that_cannot_be_read_back_is_shown_as_it_stands(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its command waits for a release that can read it; the program does not."""
    monkeypatch.setattr("dagbok.app.APPLY_PATIENCE_S", 0.0)
    monkeypatch.setattr("dagbok.engine.scheduler.PARK_AFTER_S", 0.0)

    async def main() -> None:
        async with Dagbok(database_url) as dagbok:
            id = (await dagbok.run(_plan(QUESTION))).id
            while dagbok.scheduler._runs:
                await asyncio.sleep(0)
            monkeypatch.setattr("dagbok.cluster.local.restore", _broken)
            assert (await dagbok.cancel(id)).status is ExecutionStatus.WAITING

    asyncio.run(main())


def _broken(*_: object) -> Execution:
    raise ValueError("no such plan")


def test_an_answer_that_nobody_has_applied_is_applied_by_whoever_takes_over(database_url: str) -> None:
    """Before that, an engine that waits would be told that it waits for that very answer."""

    async def main() -> None:
        async with Dagbok(database_url, recover=False) as asking:
            id = (await asking.run(_plan(QUESTION))).id
        settings = load(database_url=database_url)
        async with Dagbok(database_url, recover=False) as dagbok:
            with open_commands(settings, Vault.load(settings), command="test") as (_, commander):
                commander.write(id, "answer", "ann", {"taskId": "q", "answer": "yes"}, "q#1")
            assert await dagbok.take_over(id) == [id]
            assert (await dagbok.wait(id)).final_result == "yes"

    asyncio.run(main())


def test_who_approves_what_was_changed_meanwhile_has_not_approved_it(database_url: str) -> None:
    async def main() -> None:
        paid: list[Any] = []
        pay = ScriptedTool("pay", lambda call: paid.append(call.params), effect="once")
        asked = {"id": "b", "tool_or_prompt": {"name": "pay", "params": {"eur": 5}}, "requires_approval": True}
        async with Dagbok(database_url, tools=[pay]) as dagbok:
            id = (await dagbok.submit(_plan(asked))).execution_id
            await dagbok.wait(id)
            judged = dagbok.service.judge_answer(id, "b", {"decision": "approve"}, dagbok.service._calls)
            await dagbok.cancel(id)
            await dagbok.retry(id, overrides={"b": {"params": {"eur": 5000}}})
            assert (await dagbok.wait(id)).status == "waiting"
            settings = load(database_url=database_url)
            with open_commands(settings, Vault.load(settings), command="test") as (_, commander):
                commander.write(id, "answer", "ann", *judged)
            await dagbok.service.let_hear()
            assert ((await dagbok.wait(id)).status, paid) == ("waiting", [])
            with pytest.raises(Conflict, match="was closed, with its execution"):
                await dagbok.answer(id, "b", {"decision": "approve"}, number=1)
            with pytest.raises(Conflict, match="has not asked question 3 yet"):
                await dagbok.answer(id, "b", {"decision": "approve"}, number=3)
            await dagbok.answer(id, "b", {"decision": "approve"}, number=2)
            assert ((await dagbok.wait(id)).status, paid) == ("completed", [{"eur": 5000}])

    asyncio.run(main())
