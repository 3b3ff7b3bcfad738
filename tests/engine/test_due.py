"""What happens at a time, and what begins nothing: back-off, deadlines, pauses, and leaving the memory."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from dagbok.domain.call import Call
from dagbok.domain.execution import Execution
from dagbok.domain.ids import TaskId
from dagbok.domain.records import Command
from dagbok.domain.retry import Policy
from dagbok.domain.states import Effect, ExecutionStatus, StepStatus
from dagbok.engine import scheduler as scheduler_module
from dagbok.errors import Fenced, ToolError
from engine.fakes import Bench, FakeJournal, FakeTool, plan, quiet, task

_NUMBERS: Iterator[int] = iter(range(1, 10**6))


def _command(execution: Execution, kind: str, data: Mapping[str, Any] | None = None) -> Command:
    return Command(next(_NUMBERS), execution.id, kind, data or {}, "ann", 0)


def _failing(times: int, code: str = "unavailable") -> tuple[FakeTool, list[int]]:
    """A tool that fails so often, and the times at which it was called."""
    called: list[int] = []

    async def body(call: Call) -> object:
        called.append(call.attempt)
        if len(called) <= times:
            raise ToolError("not now", code=code)
        return call.attempt

    return FakeTool("work", body), called


def _step(execution: Execution, position: int = 0) -> Any:
    return execution.steps[position]


# -- back-off -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("turns", range(8))
@pytest.mark.parametrize("others", range(4))
def test_a_back_off_ends_whenever_in_a_turn_of_the_loop_it_began(turns: int, others: int) -> None:
    """Also between the turn in which others changed and the moment at which that is handed over."""

    async def main() -> None:
        async def ends(call: Call) -> object:
            for _ in range(turns if call.task_id == "a" else int(call.task_id)):
                await asyncio.sleep(0)
            if call.task_id == "a" and call.attempt == 1:
                raise ToolError("not now", code="unavailable")
            return call.attempt

        bench = Bench(FakeTool("work", ends))
        made = bench.add(plan(task("a"), *(task(str(number)) for number in range(others))))
        await quiet()
        assert _step(made, made.index[TaskId("a")]).next_attempt_at is not None
        assert bench.clock.ring()
        await quiet()
        assert made.status is ExecutionStatus.COMPLETED

    asyncio.run(main())


def test_a_pause_between_attempts_holds_no_task_and_no_slot() -> None:
    async def main() -> None:
        tool, called = _failing(1)
        bench = Bench(tool, FakeTool("other", lambda call: asyncio.sleep(0)), max_concurrency=1)
        made = bench.add(plan(task("a"), task("b", tool="other")))
        await quiet()
        assert (_step(made).status, called) == (StepStatus.PENDING, [1])
        assert _step(made).next_attempt_at is not None
        assert len(asyncio.all_tasks()) == 1
        assert _step(made, 1).status is StepStatus.COMPLETED
        assert bench.clock.ring()
        await quiet()
        assert (called, made.status) == ([1, 2], ExecutionStatus.COMPLETED)

    asyncio.run(main())


def test_an_attempt_does_not_come_back_before_its_time_though_the_timer_rings() -> None:
    """A timer naps for half a minute at most, because the wall clock may be set meanwhile."""

    async def main() -> None:
        tool, called = _failing(1)
        bench = Bench(tool)
        made = bench.add(plan(task("a", retry={"max_attempts": 2, "backoff_seconds": 100, "jitter": 0})))
        await quiet()
        due_at = _step(made).next_attempt_at
        while bench.clock.now_ms() < due_at:
            assert called == [1]
            assert bench.clock.ring()
            await quiet()
        assert called == [1, 2]

    asyncio.run(main())


@pytest.mark.parametrize(
    ("of_tool", "of_task", "attempts"),
    [
        (None, {}, 3),
        ({"max_attempts": 5}, {}, 5),
        ({"max_attempts": 5}, {"max_attempts": 2}, 2),
        (None, {"max_attempts": 1}, 1),
        (None, {"retry_on": ["timeout"]}, 1),
        (None, {"max_attempts": "many", "from": "a plan of an earlier release"}, 3),
    ],
)
def test_the_plan_says_more_than_the_tool_and_the_tool_more_than_the_settings(
    of_tool: dict[str, Any] | None, of_task: dict[str, Any], attempts: int
) -> None:
    async def main() -> None:
        tool, called = _failing(99)
        tool.retry = of_tool
        done = await Bench(tool).run(task("a", retry=of_task))
        assert called == list(range(1, attempts + 1))
        assert done.status is ExecutionStatus.FAILED

    asyncio.run(main())


def test_the_settings_say_what_nobody_else_does() -> None:
    async def main() -> None:
        tool, called = _failing(99)
        bench = Bench(tool)
        bench.scheduler._retry = Policy(max_attempts=4)
        await bench.run(task("a"))
        assert len(called) == 4

    asyncio.run(main())


def test_another_attempt_of_a_once_tool_waits_for_its_own_start_to_be_durable() -> None:
    async def main() -> None:
        journal = FakeJournal(held=True)
        tool, called = _failing(1, "rate_limited")
        tool.effect = Effect.ONCE
        bench = Bench(tool, journal=journal)
        bench.add(plan(task("a")))
        await quiet()
        journal.release()
        await quiet()
        assert called == [1]
        assert bench.clock.ring()
        await quiet()
        assert called == [1]
        journal.release()  # that the first attempt failed
        await quiet()
        assert called == [1]
        journal.release()
        await quiet()
        assert called == [1, 2]

    asyncio.run(main())


def test_cancelling_ends_a_pause_between_attempts() -> None:
    async def main() -> None:
        tool, called = _failing(1)
        bench = Bench(tool)
        made = bench.add(plan(task("a")))
        await quiet()
        bench.scheduler.apply(_command(made, "cancel"))
        await quiet()
        assert made.status is ExecutionStatus.CANCELLED
        assert not bench.clock.ring()
        assert called == [1]

    asyncio.run(main())


# -- deadlines ------------------------------------------------------------------------------------------------------


def test_a_deadline_cuts_off_what_runs() -> None:
    async def main() -> None:
        cut_off = asyncio.Event()

        async def body(call: Call) -> object:
            try:
                return await asyncio.Event().wait()
            finally:
                cut_off.set()

        bench = Bench(FakeTool("work", body))
        made = bench.add_with_deadline(plan(task("a"), task("b", "a")), 20)
        await quiet()
        waiting = asyncio.ensure_future(bench.scheduler.wait(made.id))
        assert bench.clock.ring()
        await quiet()
        assert cut_off.is_set()
        await waiting
        assert (made.status, made.header.error_code) == (ExecutionStatus.FAILED, "deadline")
        assert [step.reason for step in made.steps] == ["deadline", "deadline"]

    asyncio.run(main())


@pytest.mark.parametrize("end", ["cancel", "deadline"])
def test_a_once_body_that_was_cut_off_before_it_began_is_in_no_doubt(end: str) -> None:
    """Its start is not durable yet, so it has done nothing that somebody would have to look for."""

    async def main() -> None:
        begun: list[str] = []

        async def body(call: Call) -> object:
            begun.append(call.task_id)
            return await asyncio.Event().wait()

        journal = FakeJournal(held=True)
        bench = Bench(
            FakeTool("work", lambda call: asyncio.sleep(0)), FakeTool("once", body, Effect.ONCE), journal=journal
        )
        made = bench.add_with_deadline(plan(task("a", tool="once"), task("b"), task("c", "b", tool="once")), 20)
        await quiet()
        while _step(made, 2).status is not StepStatus.RUNNING:
            journal.release()
            await quiet()
        if end == "cancel":
            bench.scheduler.apply(_command(made, "cancel"))
        else:
            assert bench.clock.ring()
        journal.release()
        await quiet()
        assert begun == ["a"]
        assert [_step(made, at).status for at in (0, 2)] == [StepStatus.CANCELLED] * 2
        assert [_step(made, at).error_code for at in (0, 2)] == ["outcome_unknown", None]

    asyncio.run(main())


def test_a_deadline_is_kept_though_nothing_could_start() -> None:
    async def main() -> None:
        bench = Bench(FakeTool("work", lambda call: asyncio.Event().wait()), max_concurrency=1)
        bench.add(plan(task("a", timeout_seconds=1000)))
        made = bench.add_with_deadline(plan(task("a")), 20)
        await quiet()
        assert bench.clock.ring()
        await quiet()
        assert made.status is ExecutionStatus.FAILED

    asyncio.run(main())


# -- pausing --------------------------------------------------------------------------------------------------------


def test_a_pause_lets_what_runs_end_and_starts_nothing_new_until_it_is_resumed() -> None:
    async def main() -> None:
        gates = {"a": asyncio.Event()}
        started: list[str] = []

        async def body(call: Call) -> object:
            started.append(call.task_id)
            if call.task_id in gates:
                await gates[call.task_id].wait()
            return 1

        bench = Bench(FakeTool("work", body), max_concurrency=1)
        made = bench.add(plan(task("a"), task("b"), task("c", "a", "b")))
        await quiet()
        assert started == ["a"]
        assert bench.scheduler.apply(_command(made, "pause"))
        gates["a"].set()
        await quiet()
        assert (started, made.status) == (["a"], ExecutionStatus.WAITING)
        await bench.scheduler.wait(made.id)
        bench.scheduler.apply(_command(made, "pause"))
        await quiet()
        bench.scheduler.apply(_command(made, "resume"))
        bench.scheduler.apply(_command(made, "resume"))
        await bench.finish(made)
        assert (started, made.status) == (["a", "b", "c"], ExecutionStatus.COMPLETED)
        words = [word for word, _ in bench.journal.events() if word.startswith("execution.")]
        assert words == [
            "execution.started", "execution.paused", "execution.waiting", "execution.resumed", "execution.completed"
        ]  # fmt: skip

    asyncio.run(main())


def test_a_pause_and_its_end_before_the_commit_start_a_step_once() -> None:
    """What became ready in the commit under way, and what was held meanwhile, are one and the same step."""

    async def main() -> None:
        started: list[str] = []

        async def body(call: Call) -> object:
            started.append(call.task_id)
            return 1

        journal = FakeJournal(held=True)
        bench = Bench(FakeTool("work", body), journal=journal)
        made = bench.add(plan(task("a"), task("b", "a")))
        await quiet()
        bench.scheduler.apply(_command(made, "pause"))
        bench.scheduler.apply(_command(made, "resume"))
        for _ in range(6):
            journal.release()
            await quiet()
        assert (started, made.status) == (["a", "b"], ExecutionStatus.COMPLETED)

    asyncio.run(main())


# -- leaving the memory ---------------------------------------------------------------------------------------------


class Parking(Bench):
    """A bench whose executions leave the memory; `parked` holds when they are due."""

    def __init__(self, *tools: FakeTool, journal: FakeJournal | None = None) -> None:
        super().__init__(*tools, FakeTool("wait", lambda call: asyncio.sleep(0), timer=True), journal=journal)
        self.parked: list[int | None] = []
        self.scheduler.on_parked = self.parked.append


def _wait(id: str, seconds: float) -> Any:
    return task(id, tool="wait", params={"seconds": seconds})


def test_one_that_waits_long_leaves_the_memory_and_those_who_wait_for_it_go_on_waiting() -> None:
    async def main() -> None:
        bench = Parking()
        made = bench.add(plan(_wait("w", 3600)))
        waiting = asyncio.ensure_future(bench.scheduler.wait(made.id))
        await quiet()
        assert bench.scheduler.get(made.id) is None
        assert bench.parked == [bench.clock.now_ms() + 3_600_000]
        assert not bench.clock.ring(), "nothing rings for what is not in memory"
        later = asyncio.ensure_future(bench.scheduler.wait(made.id))
        await quiet()
        assert not waiting.done()
        assert not later.done()
        bench.clock.jump(3600)
        bench.scheduler.take_over(made)
        await quiet()
        await asyncio.gather(waiting, later)
        assert made.status is ExecutionStatus.COMPLETED

    asyncio.run(main())


def test_one_that_waits_a_moment_stays() -> None:
    async def main() -> None:
        bench = Parking()
        made = bench.add(plan(_wait("w", scheduler_module.PARK_AFTER_S)))
        await quiet()
        assert bench.scheduler.get(made.id) is made
        await bench.finish(made)
        assert bench.parked == []

    asyncio.run(main())


def test_one_that_waits_for_a_person_leaves_and_is_never_due() -> None:
    async def main() -> None:
        bench = Parking()
        made = bench.add(plan(task("q", action_type="human", params={"prompt": "Well?"})))
        await bench.scheduler.wait(made.id)
        await quiet()
        assert bench.scheduler.get(made.id) is None
        assert bench.parked == [None]
        assert bench.journal.appended[-1].release
        await bench.scheduler.wait(made.id)  # it waits for a person: nothing more comes by itself

    asyncio.run(main())


def test_one_of_which_something_runs_stays() -> None:
    async def main() -> None:
        enough = asyncio.Event()

        async def body(call: Call) -> object:
            await enough.wait()
            return 1

        bench = Parking(FakeTool("work", body))
        made = bench.add(plan(_wait("w", 3600), task("a")))
        await quiet()
        assert bench.scheduler.get(made.id) is made
        enough.set()
        await quiet()
        assert bench.scheduler.get(made.id) is None

    asyncio.run(main())


def test_one_that_is_leaving_takes_no_command_any_more() -> None:
    """What it applied would be lost: the execution belongs to nobody once that commit is durable."""

    async def main() -> None:
        journal = FakeJournal(held=True)
        bench = Parking(journal=journal)
        made = bench.add(plan(_wait("w", 3600)))
        await quiet()
        journal.release()
        await quiet()
        assert journal.appended[-1].release
        assert not bench.scheduler.apply(_command(made, "cancel"))
        assert not made.changed
        journal.release()
        await quiet()
        assert bench.scheduler.get(made.id) is None
        bench.scheduler.take_over(made, _command(made, "cancel"))
        await quiet()
        assert made.status is ExecutionStatus.CANCELLED

    asyncio.run(main())


def test_one_that_lost_its_owner_while_it_left_tells_those_who_wait() -> None:
    async def main() -> None:
        journal = FakeJournal(held=True)
        bench = Parking(journal=journal)
        made = bench.add(plan(_wait("w", 3600)))
        waiting = asyncio.ensure_future(bench.scheduler.wait(made.id))
        await quiet()
        journal.release()
        await quiet()
        journal.release(Fenced("somebody else"))
        await quiet()
        with pytest.raises(Fenced):
            await waiting

    asyncio.run(main())


def test_closing_tells_those_who_wait_for_what_has_left() -> None:
    async def main() -> None:
        bench = Parking()
        made = bench.add(plan(_wait("w", 3600)))
        await quiet()
        waiting = asyncio.ensure_future(bench.scheduler.wait(made.id))
        await quiet()
        await bench.scheduler.close(0)
        with pytest.raises(Exception, match="goes on at its next start"):
            await waiting

    asyncio.run(main())


def test_without_anybody_who_brings_it_back_everything_stays() -> None:
    async def main() -> None:
        bench = Parking()
        bench.scheduler.on_parked = None
        made = bench.add(plan(_wait("w", 3600)))
        await bench.finish(made)
        assert made.status is ExecutionStatus.COMPLETED

    asyncio.run(main())


def test_a_command_to_one_that_just_ended_is_marked_as_applied() -> None:
    """It came while the last commit was under way; left unmarked, it would be heard for ever."""

    async def main() -> None:
        journal = FakeJournal(held=True)

        async def body(call: Call) -> object:
            return 1

        bench = Bench(FakeTool("work", body), journal=journal)
        made = bench.add(plan(task("a")))
        await quiet()
        assert made.ended
        late = _command(made, "cancel")
        bench.scheduler.apply(late)
        journal.release()
        await quiet()
        journal.release()
        await quiet()
        assert journal.appended[-1].commands == [late.id]
        assert bench.scheduler.get(made.id) is None

    asyncio.run(main())
