"""One attempt against time: how long it may take, how long it may be silent, and what cannot be stopped."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from dagbok.domain.call import Call
from dagbok.domain.ids import ExecutionId, TaskId
from dagbok.domain.secrets import Redactor
from dagbok.domain.task import read_task
from dagbok.engine import containment
from dagbok.engine.outcomes import Outcome
from dagbok.engine.runner import Attempt
from engine.fakes import FakeClock, FakeTool, quiet

SUB_TASK = read_task({"id": "7", "tool_or_prompt": {"name": "work"}})
ABANDONED = " Its thread cannot be stopped: it is abandoned, and what it still returns is dropped."


async def forever(call: Call) -> object:
    return await asyncio.Event().wait()


class Trial:
    """An attempt, and what it came to."""

    def __init__(
        self, body: Callable[[Call], Awaitable[object]] = forever, *, stoppable: bool = True, **bounds: Any
    ) -> None:
        self.clock = FakeClock()
        self.outcomes: list[Outcome] = []
        self.tool = FakeTool("work", body, stoppable=stoppable)
        call = Call(
            ExecutionId("dag-exec_1"), TaskId("7"), 1, 0, {}, "", SUB_TASK, dict, lambda message, fraction: None
        )  # fmt: skip
        self.attempt = Attempt(
            call, self.tool, clock=self.clock, context=containment.of_bodies(), max_bytes=1_000, redactor=Redactor({}),
            done=lambda _, outcome: self.outcomes.append(outcome), **{"timeout_s": 300.0, **bounds},
        )  # fmt: skip

    async def start(self) -> None:
        """As the scheduler does."""
        self.attempt.start()
        await quiet()
        self.attempt.watch()

    def seconds(self) -> float:
        return self.clock.elapsed_s

    def pass_(self, seconds: float) -> None:
        """Let time pass, and ring what is due by then."""
        over: list[bool] = []
        self.clock.call_later(seconds, lambda: over.append(True))
        while not over:
            self.clock.ring()


def test_an_attempt_that_takes_too_long_is_a_timeout_of_which_nobody_knows_the_outcome() -> None:
    async def main() -> None:
        trial = Trial(timeout_s=5)
        await trial.start()
        assert trial.clock.ring()
        (outcome,) = trial.outcomes
        assert trial.seconds() == 5
        assert outcome == Outcome(
            code="timeout", message="The attempt took longer than its 5 s.", kind="timeout", unknown=True
        )
        await quiet()
        assert trial.attempt.task is not None
        assert trial.attempt.task.done()

    asyncio.run(main())


def test_an_attempt_that_is_silent_for_too_long_is_a_timeout() -> None:
    async def main() -> None:
        trial = Trial(idle_timeout_s=10)
        await trial.start()
        assert trial.clock.ring()
        (outcome,) = trial.outcomes
        assert trial.seconds() == 10
        assert outcome == Outcome(
            code="timeout", message="The attempt reported no progress for 10 s.", kind="timeout", unknown=True
        )
        await quiet()
        assert trial.attempt.task is not None
        assert trial.attempt.task.done()
        assert not trial.clock.ring(), "the other timer is forgotten"

    asyncio.run(main())


def test_whoever_reports_progress_may_go_on_until_the_other_limit() -> None:
    async def main() -> None:
        trial = Trial(timeout_s=60, idle_timeout_s=10)
        await trial.start()
        for _ in range(6):
            trial.pass_(9)
            trial.attempt.heard()
        assert (trial.seconds(), trial.outcomes) == (54, [])
        trial.pass_(6)
        assert [outcome.message for outcome in trial.outcomes] == ["The attempt took longer than its 60 s."]
        trial.attempt.heard()  # a report that was on its way
        assert not trial.clock.ring()

    asyncio.run(main())


def test_silence_is_counted_from_the_last_report() -> None:
    async def main() -> None:
        trial = Trial(idle_timeout_s=10)
        await trial.start()
        trial.pass_(7)
        trial.attempt.heard()
        trial.pass_(9)
        assert trial.outcomes == []
        trial.pass_(1)
        assert [outcome.message for outcome in trial.outcomes] == ["The attempt reported no progress for 10 s."]

    asyncio.run(main())


def test_an_attempt_that_may_be_silent_has_one_timer_and_one_that_has_not_started_none() -> None:
    async def main() -> None:
        trial = Trial()
        trial.attempt.heard()
        assert not trial.clock.ring()
        await trial.start()
        for _ in range(5):
            trial.attempt.heard()
        assert trial.clock.ring()
        assert not trial.clock.ring()
        assert trial.seconds() == 300
        other = Trial(idle_timeout_s=10)
        other.attempt.heard()
        assert not other.clock.ring(), "it waits for its start to be durable, which is no silence"

    asyncio.run(main())


def test_an_attempt_that_ended_or_was_dropped_leaves_no_timer() -> None:
    async def quick(call: Call) -> object:
        return 1

    async def main() -> None:
        ended = Trial(quick, idle_timeout_s=10)
        await ended.start()
        assert [outcome.result for outcome in ended.outcomes] == ["1"]
        dropped = Trial(idle_timeout_s=10)
        dropped.attempt.start()
        dropped.attempt.drop()
        await quiet()
        assert dropped.outcomes == []
        assert not ended.clock.ring()
        assert not dropped.clock.ring()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ({"timeout_s": 5}, "The attempt took longer than its 5 s."),
        ({"idle_timeout_s": 5}, "The attempt reported no progress for 5 s."),
    ],
)
def test_a_thread_that_outlives_its_time_is_said_to_be_abandoned(
    bounds: dict[str, Any], message: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        trial = Trial(stoppable=False, **bounds)
        await trial.start()
        trial.clock.ring()
        assert [outcome.message for outcome in trial.outcomes] == [message + ABANDONED]
        await quiet()

    asyncio.run(main())
    assert _warnings(caplog) == [WARNING]


def test_a_thread_whose_execution_was_ended_is_abandoned_too(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        trial = Trial(stoppable=False)
        await trial.start()
        trial.attempt.drop()
        await quiet()

    asyncio.run(main())
    assert _warnings(caplog) == [WARNING]


WARNING = "execution dag-exec_1: the thread of task 7 (tool work) cannot be stopped and is abandoned"


def _warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_what_can_be_stopped_or_has_ended_is_not_abandoned(caplog: pytest.LogCaptureFixture) -> None:
    async def quick(call: Call) -> object:
        return 1

    async def main() -> None:
        stopped, waiting, ended = Trial(), Trial(stoppable=False), Trial(quick, stoppable=False)
        stopped.attempt.start()
        ended.attempt.start()
        await quiet()
        for trial in (stopped, waiting, ended):  # of which the second has not started
            trial.attempt.drop()
        await quiet()

    asyncio.run(main())
    assert _warnings(caplog) == []


def test_a_tool_that_was_cancelled_from_inside_may_have_been_anywhere() -> None:
    async def cancels_itself(call: Call) -> object:
        raise asyncio.CancelledError

    async def main() -> None:
        trial = Trial(cancels_itself)
        await trial.start()
        assert trial.outcomes == [
            Outcome(code="tool_error", message="The tool was cancelled from inside.", unknown=True)
        ]

    asyncio.run(main())
