"""The lane of synchronous tools: bounded, never in the way of the loop or of the exit."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dagbok.errors import ToolError
from dagbok.tools.lanes import Abandoned, ThreadLane


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """What hanging functions wait for; set at the end, so that no thread outlives its test for long."""
    event = threading.Event()
    yield event
    event.set()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.001)


def test_two_thousand_calls_through_sixteen_threads_come_back_right() -> None:
    lane = ThreadLane(max_threads=16)
    seen: set[str] = set()
    most = 0

    def square(n: int) -> int:
        nonlocal most
        seen.add(threading.current_thread().name)
        most = max(most, lane.threads)
        if n % 50 == 0:
            time.sleep(0.001)
        if n % 7 == 0:
            raise ValueError(n)
        return n * n

    async def main() -> list[Any]:
        return await asyncio.gather(*(lane.run(square, n) for n in range(2000)), return_exceptions=True)

    results = asyncio.run(main())
    for n, result in enumerate(results):
        assert (result.args == (n,)) if n % 7 == 0 else result == n * n
    assert len(seen) <= 16
    assert most <= 16
    assert lane.abandoned == 0
    lane.close()


def test_cancels_and_calls_in_any_order_leave_the_counts_right(release: threading.Event) -> None:
    """The stress of the accounting: queued, running and finished calls are cancelled while others come."""
    lane = ThreadLane(max_threads=4)

    def work(n: int) -> int:
        time.sleep(0.0005 * (n % 5))
        return n

    async def main() -> None:
        for round_ in range(20):
            tasks = [asyncio.create_task(lane.run(work, n)) for n in range(40)]
            await asyncio.sleep(0.0007 * (round_ % 4))
            for task in tasks[round_ % 3 :: 3]:
                task.cancel()
            done = await asyncio.gather(*tasks, return_exceptions=True)
            for n, (task, result) in enumerate(zip(tasks, done, strict=True)):
                assert task.cancelled() or result == n
            assert lane.threads <= 4
        await until(lambda: lane.abandoned == 0)
        assert await asyncio.gather(*(lane.run(work, n) for n in range(40))) == list(range(40))

    asyncio.run(main())
    lane.close()


def test_keyword_arguments_reach_the_function() -> None:
    assert asyncio.run(ThreadLane(max_threads=1).run(int, "ff", base=16)) == 255


def test_an_idle_thread_is_used_again_and_ends_after_a_while() -> None:
    lane = ThreadLane(max_threads=8, idle_s=0.05)

    async def main() -> set[int]:
        idents = {await lane.run(threading.get_ident) for _ in range(5)}
        await until(lambda: lane.threads == 0)
        assert await lane.run(lambda: 1) == 1
        return idents

    assert len(asyncio.run(main())) == 1


def test_a_cancelled_call_abandons_its_thread_and_another_takes_its_place(release: threading.Event) -> None:
    lane = ThreadLane(max_threads=1)

    async def main() -> None:
        hanging = asyncio.create_task(lane.run(release.wait))
        await until(lambda: lane.busy == 1)
        queued = asyncio.create_task(lane.run(threading.get_ident))
        await asyncio.sleep(0.01)
        assert not queued.done()  # the only thread hangs
        hanging.cancel()
        assert await asyncio.wait_for(queued, 10)
        assert (lane.abandoned, lane.threads) == (1, 1)
        release.set()
        await until(lambda: lane.abandoned == 0)
        assert lane.threads == 1

    asyncio.run(main())
    lane.close()


def test_a_call_cancelled_in_the_queue_never_starts(release: threading.Event) -> None:
    lane = ThreadLane(max_threads=1)
    started: list[int] = []

    async def main() -> None:
        first = asyncio.create_task(lane.run(release.wait))
        second = asyncio.create_task(lane.run(started.append, 2))
        third = asyncio.create_task(lane.run(started.append, 3))
        await asyncio.sleep(0.01)
        second.cancel()
        await asyncio.wait([second])
        assert lane.abandoned == 0
        release.set()
        await asyncio.gather(first, third)

    asyncio.run(main())
    assert started == [3]
    lane.close()


def test_a_late_outcome_is_told_to_whoever_asked(release: threading.Event) -> None:
    lane = ThreadLane(max_threads=2)

    def fail() -> None:
        release.wait()
        raise OSError("late")

    async def main() -> list[tuple[object, BaseException | None]]:
        late: list[tuple[object, BaseException | None]] = []
        here = threading.get_ident()

        def on_late(result: object, error: BaseException | None) -> None:
            assert threading.get_ident() == here
            late.append((result, error))

        tasks = [asyncio.create_task(lane.submit(release.wait, on_late=on_late))]
        tasks.append(asyncio.create_task(lane.submit(fail, on_late=on_late)))  # type: ignore[arg-type]
        await until(lambda: lane.busy == 2)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        release.set()
        await until(lambda: len(late) == 2)
        return late

    late = asyncio.run(main())
    assert (True, None) in late
    assert "late" in {str(error) for _, error in late}
    lane.close()


def test_an_outcome_in_the_same_turn_as_the_cancel_is_late_not_lost() -> None:
    lane = ThreadLane(max_threads=1)

    async def main() -> list[object]:
        late: list[object] = []
        task = asyncio.create_task(lane.submit(lambda: 7, on_late=lambda result, _: late.append(result)))
        await asyncio.sleep(0)
        # Block the loop until the thread has delivered; its callback then runs just before this one.
        time.sleep(0.1)
        asyncio.get_running_loop().call_soon(task.cancel)
        await asyncio.wait([task])
        assert task.cancelled()
        return late

    assert asyncio.run(main()) == [7]
    lane.close()


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit, OSError, MemoryError])
def test_whatever_is_raised_comes_back_as_it_is(kind: type[BaseException]) -> None:
    lane = ThreadLane(max_threads=1)

    def fail() -> None:
        raise kind("it")

    async def main() -> None:
        with pytest.raises(kind):
            await lane.run(fail)
        assert await lane.run(lambda: 1) == 1  # the thread has survived it

    asyncio.run(main())
    lane.close()


@pytest.mark.parametrize("kind", [StopIteration, asyncio.CancelledError])
def test_exceptions_that_mean_something_to_who_awaits_are_wrapped(kind: type[BaseException]) -> None:
    lane = ThreadLane(max_threads=1)

    def fail() -> None:
        raise kind

    with pytest.raises(RuntimeError) as caught:
        asyncio.run(lane.run(fail))
    assert isinstance(caught.value.__cause__, kind)
    lane.close()


def test_a_loop_that_ends_first_hears_nothing(release: threading.Event) -> None:
    lane = ThreadLane(max_threads=1)

    async def main() -> None:
        asyncio.create_task(lane.run(release.wait))  # noqa: RUF006 - left behind on purpose
        await until(lambda: lane.busy == 1)

    asyncio.run(main())
    assert lane.abandoned == 1
    release.set()

    async def rest() -> int:
        await until(lambda: lane.abandoned == 0)
        return await lane.run(lambda: 5)

    assert asyncio.run(rest()) == 5
    lane.close()


def test_closing_ends_idle_threads_and_fails_what_waits(release: threading.Event) -> None:
    lane = ThreadLane(max_threads=1)

    async def main() -> None:
        busy = asyncio.create_task(lane.run(release.wait))
        waiting = asyncio.create_task(lane.run(release.wait))
        await until(lambda: lane.busy == 1)
        lane.close()
        with pytest.raises(RuntimeError, match="closed before"):
            await waiting
        with pytest.raises(RuntimeError, match="closed"):
            await lane.run(release.wait)
        release.set()
        assert await busy is True
        await until(lambda: lane.threads == 0)

    asyncio.run(main())


def test_no_thread_at_all_is_an_error_not_a_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    lane = ThreadLane(max_threads=2)

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def main() -> int:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            with pytest.raises(RuntimeError, match="can't start"):
                await lane.run(lambda: 1)
        return await lane.run(lambda: 2)

    assert asyncio.run(main()) == 2
    assert lane.threads == 1
    lane.close()


def test_tools_that_hang_again_and_again_do_not_take_all_threads_of_the_process(release: threading.Event) -> None:
    """Each time limit leaves a thread: with retries, a tool that hangs would take them all."""
    both = Abandoned(3)
    lane, other = (ThreadLane(max_threads=2, all_abandoned=both) for _ in range(2))

    async def main() -> None:
        for of in (lane, lane, other):
            hanging = asyncio.create_task(of.run(release.wait))
            while of.busy != 1:
                await asyncio.sleep(0.001)
            if of is other:
                queued = [asyncio.create_task(of.run(release.wait)), asyncio.create_task(of.run(len, "ab"))]
                await until(lambda: other.busy == 2)
            hanging.cancel()
            await asyncio.wait([hanging])
        with pytest.raises(ToolError) as refused:
            await lane.run(len, "abc")
        assert refused.value.code == "unavailable"
        assert "3 threads of this process hang" in refused.value.message
        assert not queued[1].done(), "a thread is left that may serve it"
        queued[0].cancel()
        with pytest.raises(ToolError, match="4 threads"):
            await asyncio.wait_for(queued[1], 10)
        assert (lane.abandoned, lane.threads, other.abandoned, other.threads) == (2, 0, 2, 0)
        release.set()
        await until(lambda: not both.full)
        assert await lane.run(len, "abc") == 3

    asyncio.run(main())
    for each in (lane, other):
        each.close()


def test_a_hanging_tool_does_not_keep_the_process_alive() -> None:
    """`concurrent.futures` would join the thread at exit, for ever."""
    program = """
import asyncio, threading
from dagbok.tools.registry import Registry, tool
@tool
def hang() -> None:
    threading.Event().wait()
async def main():
    task = asyncio.create_task(Registry.from_(tools=[hang]).get("hang")(make_call()))
    await asyncio.sleep(0.1)
from tool_calls import make_call
asyncio.run(main())
print("done")
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=__file__.rpartition("/")[0], capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("done\n", "")
