"""Time in the hand of a test: alone, with an engine on fakes, and with a real one on real databases."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest
import uvloop

from dagbok import Dagbok, tool
from dagbok.domain.call import Call
from dagbok.domain.states import ExecutionStatus
from dagbok.testing import FakeClock, Hang, ScriptedTool, after
from dagbok.testing.clock import START_MS, quiet
from engine.fakes import Bench, FakeJournal, FakeTool, _nothing
from engine.fakes import plan as engine_plan
from engine.fakes import task as engine_task
from testing.documents import plan, task


def test_time_stands_still_until_it_is_moved() -> None:
    async def main() -> None:
        clock = FakeClock()
        rung: list[int] = []
        clock.call_later(0.001, lambda: rung.append(clock.now_ms()))
        for _ in range(100):
            await asyncio.sleep(0)
        assert (clock.now_ms(), clock.elapsed_s, rung) == (START_MS, 0, [])
        await clock.advance(0.001)
        assert (clock.now_ms(), clock.elapsed_s, rung) == (START_MS + 1, 0.001, [START_MS + 1])

    asyncio.run(main())


def test_timers_ring_in_the_order_they_fall_due_each_at_its_own_time() -> None:
    async def main() -> None:
        clock, rung = FakeClock(0), []

        def bell(name: str) -> Callable[[], None]:
            return lambda: rung.append((name, clock.now_ms()))

        clock.call_later(3, bell("c"))
        clock.call_later(1, bell("a"))
        clock.call_later(3, bell("d"))
        clock.call_later(2, bell("b"))
        clock.call_later(5, bell("late"))
        await clock.advance(4)
        assert rung == [("a", 1000), ("b", 2000), ("c", 3000), ("d", 3000)]
        assert clock.now_ms() == 4000

    asyncio.run(main())


def test_what_follows_from_a_timer_happens_before_the_next_rings() -> None:
    async def main() -> None:
        clock, seen = FakeClock(0), []

        async def chain(name: str, *seconds: float) -> None:
            for span in seconds:
                await clock.sleep(span)
                for _ in range(50):  # more turns of the loop than a fixed number of them would allow
                    await asyncio.sleep(0)
                seen.append((name, clock.now_ms()))

        async with asyncio.TaskGroup() as group:
            group.create_task(chain("a", 1, 1, 1))
            group.create_task(chain("b", 1.5, 1))
            await clock.advance(10)
        assert seen == [("a", 1000), ("b", 1500), ("a", 2000), ("b", 2500), ("a", 3000)]

    asyncio.run(main())


def test_what_is_due_at_a_time_and_what_counts_seconds_ring_in_one_order() -> None:
    async def main() -> None:
        clock = FakeClock(50_000)
        rung: list[tuple[str, int]] = []

        def bell(name: str) -> Callable[[], None]:
            return lambda: rung.append((name, clock.now_ms()))

        clock.call_at(53_000, bell("c"))
        clock.call_later(3, bell("d"))
        clock.call_later(1, bell("a"))
        clock.call_at(52_000, bell("b"))
        clock.call_at(50_000, bell("now"))
        clock.call_at(49_000, bell("long ago"))
        assert await clock.timer_set(at_least=1.5) == 2
        await clock.advance(3)
        assert rung == [
            ("now", 50_000), ("long ago", 50_000), ("a", 51_000), ("b", 52_000), ("c", 53_000), ("d", 53_000),
        ]  # fmt: skip

    asyncio.run(main())


def test_timers_can_be_rung_one_by_one() -> None:
    async def main() -> None:
        clock = FakeClock()
        rung: list[str] = []
        for name, seconds in (("b", 2), ("a", 1), ("cancelled", 1.5)):
            timer = clock.call_later(seconds, functools.partial(rung.append, name))
        timer.cancel()
        assert [(clock.ring(), clock.elapsed_s) for _ in range(3)] == [(True, 1), (True, 2), (False, 2)]
        assert rung == ["a", "b"]

    asyncio.run(main())


def test_what_is_due_at_once_rings_though_time_stands_still() -> None:
    """Else what is set for a moment that has just passed would wait for a test that moves time no more."""

    async def main() -> None:
        clock, rung = FakeClock(), []
        clock.call_later(0, lambda: rung.append("a"))
        clock.call_later(-1, lambda: rung.append("cancelled")).cancel()
        clock.call_later(-5, lambda: rung.append("b"))
        await asyncio.wait_for(clock.sleep(0), 60)
        assert (rung, clock.elapsed_s) == (["a", "b"], 0)

    asyncio.run(main())


def test_a_cancelled_timer_does_not_ring_and_a_cancelled_sleep_leaves_none() -> None:
    async def main() -> None:
        clock, rung = FakeClock(), []
        clock.call_later(1, lambda: rung.append("cancelled")).cancel()
        sleeper = asyncio.ensure_future(clock.sleep(2))
        assert await clock.timer_set() == 2
        sleeper.cancel()
        clock.call_later(7, lambda: rung.append("kept"))
        assert await clock.timer_set() == 7
        await clock.advance(7)
        assert rung == ["kept"]

    asyncio.run(main())


def test_a_timer_rings_in_the_context_of_whoever_set_it() -> None:
    """As on a loop: else the engine's work would be logged as part of what the test does."""
    name: ContextVar[str] = ContextVar("name", default="nobody")

    async def main() -> None:
        clock, seen = FakeClock(), []
        clock.call_later(1, lambda: seen.append(name.get()))
        name.set("the test")
        await clock.advance(1)
        assert seen == ["nobody"]

    asyncio.run(main())


def test_waiting_for_a_timer_returns_once_one_within_the_bounds_is_set() -> None:
    async def main() -> None:
        clock = FakeClock()
        waiting = asyncio.ensure_future(clock.timer_set(at_least=10, at_most=60))
        for seconds in (9.999, 60.001):
            clock.call_later(seconds, lambda: None)
            await quiet()
            await quiet()  # the first may have been kept busy by what it waits for
            assert not waiting.done()
        clock.call_later(60, lambda: None)
        assert await waiting == 60
        clock.call_later(10, lambda: None)
        assert await clock.timer_set(at_least=10, at_most=60) == 10

    asyncio.run(main())


def test_time_does_not_go_back() -> None:
    async def main() -> None:
        clock = FakeClock()
        for seconds in (-1, float("nan")):
            with pytest.raises(ValueError, match="time does not go back"):
                await clock.advance(seconds)
        for move in (clock.jump, clock.set_back):
            for seconds in (-1, float("nan"), float("inf")):
                with pytest.raises(ValueError, match="positive"):
                    move(seconds)

    asyncio.run(main())


def test_a_machine_clock_that_is_set_back_is_seen_by_the_next_process_only() -> None:
    async def main() -> None:
        clock = FakeClock(10_000_000)
        clock.set_back(3600)
        assert clock.now_ms() == 10_000_000
        await clock.advance(1)
        assert clock.now_ms() == 10_001_000
        assert clock.next_process().now_ms() == 6_401_000

    asyncio.run(main())


def test_a_jump_forward_is_followed_by_what_is_due_at_a_time_and_not_by_what_counts_seconds() -> None:
    """As `SystemClock` does: now is what the machine says, while timers count what passes."""

    async def main() -> None:
        clock, rung = FakeClock(0), []
        clock.call_later(2, lambda: rung.append(clock.now_ms()))
        day: list[str] = []
        clock.call_at(86_401_000, lambda: day.append("over"))
        clock.call_at(86_401_001, lambda: day.append("tomorrow"))
        clock.call_at(1000, lambda: day.append("cancelled")).cancel()
        clock.jump(1)
        assert clock.now_ms() == 0, "no more than a second: not followed"
        clock.jump(86_400)
        assert (clock.now_ms(), clock.elapsed_s) == (86_401_000, 0)
        await clock.advance(0)
        assert day == ["over"]
        await clock.advance(1)
        assert (rung, day) == ([], ["over", "tomorrow"])
        await clock.advance(1)
        assert rung == [86_403_000]
        clock.set_back(86_400)
        clock.jump(10)
        assert clock.now_ms() == 86_403_000, "the machine is behind what was told already"

    asyncio.run(main())


def test_a_clock_serves_one_event_loop_after_the_other() -> None:
    clock = FakeClock()

    async def main() -> None:
        sleeper = asyncio.ensure_future(clock.sleep(5))
        await clock.advance(await clock.timer_set())
        await sleeper
        # Left under way with its loop; it must not be waited for on the next one.
        bench = Bench(FakeTool("work", _nothing), journal=clock.watch(FakeJournal(held=True)), clock=clock)
        bench.add(engine_plan(engine_task("a")))
        await quiet()

    asyncio.run(main())
    asyncio.run(main())
    assert clock.elapsed_s == 10


# -- running until something is done -----------------------------------------------------------------------------------


def test_run_rings_timer_after_timer_until_it_is_done_and_returns_its_result() -> None:
    async def main() -> None:
        clock = FakeClock()

        async def work() -> str:
            for _ in range(3):
                await clock.sleep(100)
            return "done"

        late: list[int] = []
        clock.call_later(301, lambda: late.append(1))
        assert await clock.run(work()) == "done"
        assert (clock.elapsed_s, late) == (300, [])

    asyncio.run(main())


def test_run_raises_what_it_runs_raises() -> None:
    async def main() -> None:
        clock = FakeClock()

        async def work() -> None:
            await clock.sleep(1)
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await clock.run(work())

    asyncio.run(main())


def test_run_says_so_where_nothing_can_happen_any_more() -> None:
    async def main() -> None:
        cut_off: list[bool] = []

        async def forever() -> None:
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                cut_off.append(True)
                raise

        with pytest.raises(RuntimeError, match=r"Nothing is due.*journal=clock\.watch"):
            await FakeClock().run(forever())
        assert cut_off == [True]

    asyncio.run(main())


def test_no_time_passes_while_a_watched_journal_writes() -> None:
    async def main() -> None:
        journal, clock = FakeJournal(held=True), FakeClock()
        started: list[tuple[str, float]] = []

        async def body(call: Call) -> None:
            started.append((call.task_id, clock.elapsed_s))

        bench = Bench(FakeTool("work", body), journal=clock.watch(journal), clock=clock)
        bench.add(engine_plan(engine_task("a"), engine_task("b", "a")))
        moving = asyncio.ensure_future(clock.advance(1000))
        for _ in range(200):
            await asyncio.sleep(0)
        assert (len(journal.waiting), clock.elapsed_s) == (1, 0)
        journal.held = False
        journal.release()
        await moving
        assert started == [("a", 0), ("b", 0)]
        assert clock.elapsed_s == 1000

    asyncio.run(main())


def test_no_time_passes_while_a_thread_of_the_loop_is_at_work() -> None:
    async def main() -> None:
        clock, gate = FakeClock(), threading.Event()
        clock.watch(FakeJournal())
        working = asyncio.ensure_future(asyncio.to_thread(gate.wait))
        moving = asyncio.ensure_future(clock.advance(1000))
        for _ in range(5000):
            await asyncio.sleep(0)
        assert clock.elapsed_s == 0
        gate.set()
        await working
        await moving
        assert clock.elapsed_s == 1000

    asyncio.run(main())


def test_what_a_thread_brings_is_heard_before_the_clock_hears_that_it_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other way round time could pass between the two, now and then."""

    async def main() -> None:
        FakeClock().watch(FakeJournal())
        loop, told = asyncio.get_running_loop(), []
        tell = loop.call_soon_threadsafe

        def note(callback: Callable[..., Any], *args: Any, **more: Any) -> Any:
            told.append(callback.__module__)
            return tell(callback, *args, **more)

        monkeypatch.setattr(loop, "call_soon_threadsafe", note)
        assert await asyncio.to_thread(int) == 0
        await quiet()
        assert told == ["asyncio.futures", "dagbok.testing.clock"]

    asyncio.run(main())


# -- with a real engine ------------------------------------------------------------------------------------------------


def test_a_wait_of_two_hours_takes_no_time_on_a_real_database(database_url: str) -> None:
    async def main() -> None:
        clock = FakeClock()
        async with Dagbok(database_url, clock=clock) as dagbok:
            submitted = await dagbok.submit(plan(task("1", "wait", params={"seconds": 7200})))
            assert await clock.timer_set(at_least=3600) == 7200
            await clock.advance(7200)
            execution = await dagbok.wait(submitted.execution_id)
        assert execution["1"].result == {"waited_seconds": 7200.0}
        assert execution.duration_ms == 7_200_000

    asyncio.run(main())


def test_with_the_journal_watched_one_move_passes_a_chain_of_waits_exactly(database_url: str) -> None:
    """Between two waits lies a commit in a thread; were time to pass meanwhile, the second would begin too late."""

    async def main() -> None:
        clock = FakeClock()
        async with Dagbok(database_url, clock=clock, journal=clock.watch) as dagbok:
            chain = [task("0", "wait", params={"seconds": 60})]
            chain += [task(str(n), "wait", str(n - 1), params={"seconds": 60}) for n in range(1, 10)]
            submitted = await dagbok.submit(plan(*chain))
            await clock.advance(599.999)
            assert (await dagbok.get(submitted.execution_id)).completed_tasks == 9
            await clock.advance(0.001)
            execution = await dagbok.wait(submitted.execution_id)
        assert execution.duration_ms == 600_000

    asyncio.run(main())


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_it_works_on_the_loop_of_the_server_too(tmp_path: Path, new_loop: Any) -> None:
    """Which does not say whether anything is left to do."""

    async def main() -> None:
        clock = FakeClock()
        url = f"sqlite:///{tmp_path}/test.db"
        steps = [task(str(n), "wait", *([str(n - 1)] if n else []), params={"seconds": 5}) for n in range(5)]
        async with Dagbok(url, clock=clock, journal=clock.watch) as dagbok:
            execution = await clock.run(dagbok.run(plan(*steps)))
        assert execution.duration_ms == 25_000

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())


def test_with_the_journal_watched_a_plan_runs_to_its_end_by_itself(database_url: str) -> None:
    async def main() -> None:
        clock = FakeClock()
        work = ScriptedTool("work", lambda _: after(30, "done"), effect="once", clock=clock)
        async with Dagbok(database_url, tools=[work], clock=clock, journal=clock.watch) as dagbok:
            steps = [task("1", "wait", params={"seconds": 3600}), task("2", "work", "1"), task("3", "work", "2")]
            execution = await clock.run(dagbok.run(plan(*steps)))
        assert execution.status is ExecutionStatus.COMPLETED
        assert execution.duration_ms == 3_660_000
        assert execution["2"].duration_ms == 30_000

    asyncio.run(main())


def test_a_tool_that_hangs_is_cut_off_at_its_time_limit_exactly(database_url: str) -> None:
    async def main() -> None:
        clock = FakeClock()
        stuck = ScriptedTool("stuck", [Hang()], effect="pure", timeout_seconds=90, retry={"max_attempts": 1})
        async with Dagbok(database_url, tools=[stuck], clock=clock) as dagbok:
            submitted = await dagbok.submit(plan(task("1", "stuck")))
            await stuck.called()
            await clock.advance(90)
            execution = await dagbok.wait(submitted.execution_id)
        assert execution["1"].error_code == "timeout"
        assert execution["1"].duration_ms == 90_000

    asyncio.run(main())


def test_a_synchronous_tool_takes_real_time_and_none_of_the_clock(database_url: str) -> None:
    async def main() -> None:
        clock = FakeClock()

        @tool(effect="pure")
        def count(to: int) -> int:
            return sum(range(to))

        async with Dagbok(database_url, tools=[count], clock=clock) as dagbok:
            execution = await dagbok.run(plan(task("1", "count", params={"to": 1000})))
        assert execution["1"].result == 499_500
        assert execution.duration_ms == 0

    asyncio.run(main())


def test_an_engine_goes_on_after_the_machine_clock_was_set_back(database_url: str) -> None:
    async def main() -> None:
        clock = FakeClock()
        async with Dagbok(database_url, clock=clock) as dagbok:
            submitted = await dagbok.submit(plan(task("1", "wait", params={"seconds": 60})))
            await clock.timer_set(at_least=60)
        clock.set_back(3600)
        clock = clock.next_process()
        async with Dagbok(database_url, clock=clock) as dagbok:
            # The due time is in the diary, and the clock is an hour behind what it was.
            await clock.advance(await clock.timer_set(at_least=60))
            execution = await dagbok.wait(submitted.execution_id)
        assert execution.status is ExecutionStatus.COMPLETED

    asyncio.run(main())
