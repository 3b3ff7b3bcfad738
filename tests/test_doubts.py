"""A `once` step of which nobody knows what it did, end to end: the question, what comes late, the decision."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from dagbok import Dagbok, tool
from dagbok.domain import values
from dagbok.domain.states import ExecutionStatus

_SAME = {"data": "<Result from Task 1>", "expression": "@"}


def _plan(name: str, **fields: Any) -> dict[str, Any]:
    tasks = [
        {"id": 1, "tool_or_prompt": {"name": name}, "timeout_seconds": 0.2, **fields},
        {"id": 2, "tool_or_prompt": {"name": "extract_json", "params": _SAME}},
    ]
    return {"original_request": "r", "intent": {"primary": "p"}, "sub_tasks": tasks}


class Gate:
    """Tools that outlive their time, and end when the test says so."""

    def __init__(self) -> None:
        self.opened, self.ended = threading.Event(), threading.Event()
        self.calls = 0

    def tools(self) -> list[Any]:
        @tool(effect="once")
        def slow_thread() -> dict[str, int]:
            self.calls += 1
            self.opened.wait(30)
            return {"booked": self.calls}

        @tool(effect="once")
        async def stubborn() -> dict[str, int]:
            self.calls += 1
            while not self.opened.is_set():
                try:
                    await asyncio.sleep(0.01)
                except asyncio.CancelledError:
                    continue  # it does not heed its cancellation
            return {"booked": self.calls}

        @tool(effect="once")
        def breaks_late() -> None:
            self.opened.wait(30)
            raise ValueError("the line broke")

        return [slow_thread, stubborn, breaks_late]


def _shown(dagbok: Dagbok, execution_id: str) -> Any:
    question = dagbok.service.reader.question(execution_id, "1")
    assert question is not None
    return values.decode(question["shown"])


async def _late(dagbok: Dagbok, execution_id: str) -> Any:
    while "late" not in (shown := _shown(dagbok, execution_id)):
        await asyncio.sleep(0.01)
    return shown["late"]


@pytest.mark.parametrize("parks", [True, False])
@pytest.mark.parametrize("name", ["slow_thread", "stubborn"])
def test_what_a_timed_out_once_step_brings_late_is_its_result_if_a_person_says_so(
    database_url: str, name: str, parks: bool
) -> None:
    """Whether or not the execution has left the memory meanwhile."""
    gate = Gate()

    async def main() -> None:
        async with Dagbok(database_url, tools=gate.tools()) as dagbok:
            if not parks:
                dagbok.scheduler.on_parked = None
            execution = await dagbok.run(_plan(name))
            assert execution.status is ExecutionStatus.WAITING
            assert (execution["1"].status, execution["1"].reason) == ("waiting", "outcome_unknown")
            gate.opened.set()
            assert await _late(dagbok, execution.id) == {"result": {"booked": 1}}
            await dagbok.answer(execution.id, "1", {"decision": "succeeded"}, by="ann")
            done = await dagbok.wait(execution.id)
            assert done.status is ExecutionStatus.COMPLETED
            assert done["2"].result == {"booked": 1}

    asyncio.run(main())
    assert gate.calls == 1


def test_a_late_error_is_told_and_does_not_decide(database_url: str) -> None:
    gate = Gate()

    async def main() -> None:
        async with Dagbok(database_url, tools=gate.tools()) as dagbok:
            execution = await dagbok.run(_plan("breaks_late"))
            gate.opened.set()
            late = await _late(dagbok, execution.id)
            assert late["errorCode"] == "tool_error"
            assert "the line broke" in late["error"]
            await dagbok.answer(execution.id, "1", {"decision": "fail"})
            assert (await dagbok.wait(execution.id))["1"].status == "failed"

    asyncio.run(main())


def test_a_decision_to_run_it_again_is_a_new_attempt(database_url: str) -> None:
    gate = Gate()

    async def main() -> None:
        async with Dagbok(database_url, tools=gate.tools()) as dagbok:
            execution = await dagbok.run(_plan("stubborn"))
            gate.opened.set()
            await _late(dagbok, execution.id)
            await dagbok.answer(execution.id, "1", {"decision": "retry"})
            done = await dagbok.wait(execution.id)
            assert (done["1"].attempt, done["1"].result) == (2, {"booked": 2})
            [attempt] = dagbok.service.attempts(execution.id, "1")
            assert (attempt["outcome"], attempt["error_code"]) == ("timeout", "timeout")

    asyncio.run(main())


def test_silence_is_a_time_out_of_its_own(database_url: str) -> None:
    from dagbok.tools.registry import ToolContext

    async def main() -> None:
        @tool(effect="pure", idle_timeout_seconds=0.2)
        async def talks(context: ToolContext) -> str:
            for _ in range(30):
                context.progress("going on")
                await asyncio.sleep(0.01)
            return "done"

        @tool(effect="pure")
        async def silent() -> None:
            await asyncio.Event().wait()

        async with Dagbok(database_url, tools=[talks, silent]) as dagbok:
            plan = _plan("talks", timeout_seconds=60)
            assert (await dagbok.run(plan))["1"].result == "done"
            quiet = _plan("silent", timeout_seconds=60, idle_timeout_seconds=0.1, retry={"max_attempts": 1})
            failed = (await dagbok.run(quiet))["1"]
            assert (failed.status, failed.error_code) == ("failed", "timeout")
            assert failed.error == "The attempt reported no progress for 0.1 s."

    asyncio.run(main())
