"""Time that stands still until a test moves it, so that two hours take no time and a time-out is no matter of luck.

Only the engine's time is moved: start times, timers, back-off, time limits. What a real thread does - the journal
commits in one, the diary is read in some, synchronous tools run in others - takes as long as it takes. Of the first two
the clock can be told (`Dagbok(clock=clock, journal=clock.watch)`); it then lets no time pass while one is at work.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import heapq
import itertools
import math
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import Context, copy_context
from typing import Any, Final, ParamSpec, TypeVar, cast

from dagbok.engine.ports import Journal, Timer
from dagbok.testing.passing import Passing

#: Where a clock begins if it is not told: 2025-01-01, 08:00 UTC. In the past, so that an engine on the real clock that
#: goes on with the same database comes later.
START_MS: Final = 1_735_718_400_000

#: How far ahead the machine's clock must be to be followed; as `dagbok.engine.clock.SystemClock`.
_FOLLOWED_US: Final = 1_000_000
_TURNS = 12  # of an event loop that does not say whether anything is left to do
_MOST_TURNS = 2_000  # of one that never comes to rest
_IDLE_ROUNDS = 20

J = TypeVar("J", bound=Journal)
P = ParamSpec("P")
T = TypeVar("T")


class FakeClock:
    """`dagbok.engine.ports.Clock` in the hand of a test. Use it on one event loop at a time."""

    def __init__(self, now_ms: int = START_MS) -> None:
        """Make a clock that stands at `now_ms` (UTC milliseconds since 1970)."""
        self._passed_us = 0
        self._told_us = now_ms * 1000  # what is told when nothing has passed
        self._wall_us = now_ms * 1000  # the same of the machine's clock, which may be set back
        self._timers: list[tuple[int, int, _Timer]] = []  # by what has passed
        self._alarms: list[tuple[int, int, _Timer]] = []  # by what is told
        self._numbers = itertools.count()
        self._waiters: list[asyncio.Future[None]] = []  # those who wait for a timer to be set
        self._at_work: set[asyncio.Future[Any]] = set()  # done when a write, or a thread, is
        self._watches = False

    # -- the port ---------------------------------------------------------------------------------------------------

    def now_ms(self) -> int:
        """Return UTC milliseconds since 1970; never less than it returned before."""
        return self._now_us // 1000

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        """Call `callback` once the test has moved time by `delay_s`, unless the timer is cancelled before.

        What is due now is called on the next turn of the loop, whether the test moves time or not.
        """
        return self._set(self._timers, self._passed_us + _us(delay_s), _us(delay_s), callback)

    def call_at(self, time_ms: int, callback: Callable[[], None]) -> Timer:
        """Call `callback` once `now_ms` has come to `time_ms`, because the test moved time, or by a `jump`."""
        return self._set(self._alarms, time_ms * 1000, time_ms * 1000 - self._now_us, callback)

    def _set(
        self, heap: list[tuple[int, int, _Timer]], due_us: int, left_us: int, callback: Callable[[], None]
    ) -> Timer:
        timer = _Timer(callback, copy_context())
        if left_us <= 0:
            asyncio.get_running_loop().call_soon(timer.ring)
            return timer
        heapq.heappush(heap, (due_us, next(self._numbers), timer))
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
        return timer

    @property
    def _now_us(self) -> int:
        return self._told_us + self._passed_us

    # -- for tests --------------------------------------------------------------------------------------------------

    @property
    def elapsed_s(self) -> float:
        """The seconds that have passed since this clock was made. Jumps of the machine's clock do not count."""
        return self._passed_us / 1e6

    async def sleep(self, seconds: float) -> None:
        """Return once the test has moved time by `seconds`: what `asyncio.sleep` is to real time."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        timer = self.call_later(seconds, lambda: None if future.done() else future.set_result(None))
        try:
            await future
        finally:
            timer.cancel()

    async def timer_set(self, at_least: float = 0.0, at_most: float = math.inf) -> float:
        """Return once a timer is set that rings in `at_least` to `at_most` seconds from now, and in how many it does.

        On a real database a step becomes due some time after its parents are committed. This is the signal for it:

            await clock.timer_set(at_least=7200)
            await clock.advance(7200)

        Every running attempt has a timer too, its time limit, hence the bounds. A back-off with jitter is passed by
        `await clock.advance(await clock.timer_set(at_most=60))`. Of several timers within the bounds the first counts.
        """
        while True:
            await self._settle()
            if (found := self._first(_us(at_least), _us(at_most))) is not None:
                return found / 1e6
            await self._setting()

    def ring(self) -> bool:
        """Move time to the next timer and ring it; return whether there was one.

        What follows is left to the loop: one step of `advance`, for whoever wants to look in between.
        """
        return self._ring()

    async def advance(self, seconds: float) -> None:
        """Move time by `seconds`, and ring each timer that falls due on the way, in order of the due times.

        All that follows from one on the event loop happens before the next rings, timers that it sets included; also
        what follows from a commit, where the clock watches the journal. Where it does not, that comes after `advance`
        has returned: move in steps then, with `timer_set` between.
        """
        if not seconds >= 0:
            raise ValueError(f"advance({seconds!r}): time does not go back; see set_back")
        until_us = self._passed_us + _us(seconds)
        await self._settle()
        while self._ring(until_us):
            await self._settle()
        self._passed_us = max(self._passed_us, until_us)

    async def run(self, until: Awaitable[T]) -> T:
        """Ring one timer after the other until `until` is done, and return what it returns.

        For engines whose journal is a fake, or one that this clock watches. A time limit rings like any other timer:
        a synchronous tool, or one that works over a network, is taken for one that hangs.

        Raises:
            RuntimeError: Nothing is due and nothing goes on, so that it would wait for ever. Not told, but waited for,
                where the clock watches a journal: a thread may still be at work.
        """
        task = asyncio.ensure_future(until)
        idle = 0
        try:
            while not task.done():
                await self._settle()
                if task.done() or self._ring():
                    idle = 0
                elif self._watches:
                    await self._setting(task)
                elif (idle := idle + 1) >= _IDLE_ROUNDS:
                    raise RuntimeError(
                        "Nothing is due and nothing is decided. On a real database give the engine "
                        "`journal=clock.watch` beside `clock=clock`."
                    )
            return task.result()
        finally:
            if task is not until and not task.done():
                task.cancel()
                await asyncio.wait({task})

    def watch(self, journal: J) -> J:
        """Return `journal` such that no time passes while it writes; for `Dagbok(clock=clock, journal=clock.watch)`.

        From now on none passes either while a thread of the running loop's executor (`asyncio.to_thread`) is at work:
        the engine reads its diary there.
        """
        self._watches = True
        asyncio.get_running_loop().set_default_executor(_WatchedThreads(self._at_work))
        return cast(J, _Watched(journal, self._at_work))

    # -- the machine's clock ------------------------------------------------------------------------------------------

    def jump(self, seconds: float) -> None:
        """Set the machine's clock forward, as when a laptop wakes up: `now_ms` follows, if it is more than a second.

        Time limits run on: they count what passes, not what the clock says. What is due at a time (a timer, a back-off,
        a deadline) is due when `now_ms` says so, and rings as soon as time moves, be it by nothing (`advance(0)`).
        """
        self._wall_us += _positive("jump", seconds)
        if self._wall_us > self._told_us + _FOLLOWED_US:
            self._told_us = self._wall_us

    def set_back(self, seconds: float) -> None:
        """Set the machine's clock back. This process does not see it: `now_ms` goes on, as the port promises.

        The next process does: give its engine `clock.next_process()`.
        """
        self._wall_us -= _positive("set_back", seconds)

    def next_process(self) -> FakeClock:
        """Return a clock as a process has it that starts now: it begins with what the machine's clock says."""
        return FakeClock((self._wall_us + self._passed_us) // 1000)

    # -- inside -------------------------------------------------------------------------------------------------------

    async def _settle(self) -> None:
        """Let all happen that needs no time: what is scheduled on the loop, and what is watched."""
        await quiet()
        loop = asyncio.get_running_loop()
        while at_work := [work for work in self._at_work if work.get_loop() is loop]:
            await asyncio.wait(at_work)
            await quiet()

    async def _setting(self, *others: asyncio.Future[Any]) -> None:
        """Return once a timer is set, or one of `others` is done."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await asyncio.wait({waiter, *others}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def _first(self, at_least_us: float, at_most_us: float) -> int | None:
        """Return the microseconds until the first timer within the bounds rings."""
        left = (
            max(0, due_us - shift - self._passed_us)
            for heap, shift in self._by_what_passed()
            for due_us, _, timer in heap
            if timer.callback is not None
        )
        return min((us for us in left if at_least_us <= us <= at_most_us), default=None)

    def _ring(self, until_us: float = math.inf) -> bool:
        """Move to the next timer and ring it; return whether there was one."""
        for heap in (self._timers, self._alarms):
            while heap and heap[0][2].callback is None:
                heapq.heappop(heap)
        nexts = [(heap[0][0] - shift, heap[0][1], heap) for heap, shift in self._by_what_passed() if heap]
        if not nexts:
            return False
        due_us, _, heap = min(nexts, key=lambda each: each[:2])
        if due_us > until_us:
            return False
        timer = heapq.heappop(heap)[2]
        self._passed_us = max(self._passed_us, due_us)
        timer.ring()
        return True

    def _by_what_passed(self) -> list[tuple[list[tuple[int, int, _Timer]], int]]:
        """Return each heap, and what its due times are ahead of those of timers."""
        return [(self._timers, 0), (self._alarms, self._told_us)]


class _Timer:
    """A call that is due when the test says so."""

    def __init__(self, callback: Callable[[], None], context: Context) -> None:
        self.callback: Callable[[], None] | None = callback
        self._context = context

    def cancel(self) -> None:
        self.callback = None

    def ring(self) -> None:
        callback, self.callback = self.callback, None
        if callback is not None:
            # In the context of whoever set it, as a loop does it: that of the test's task is none of its business.
            self._context.run(callback)


class _Watched(Passing):
    """A journal whose writes under way are known to a clock."""

    def __init__(self, journal: Journal, at_work: set[asyncio.Future[Any]]) -> None:
        super().__init__(journal)
        self._at_work = at_work

    def _pass_on(self, name: str, call: Callable[..., Any], *args: Any, **more: Any) -> Any:  # noqa: ARG002 - all alike
        returned = call(*args, **more)
        if asyncio.isfuture(returned):
            self._at_work.add(returned)
            returned.add_done_callback(self._at_work.discard)
        return returned


class _WatchedThreads(ThreadPoolExecutor):
    """An executor for an event loop, whose threads at work are known to a clock."""

    def __init__(self, at_work: set[asyncio.Future[Any]]) -> None:
        super().__init__(thread_name_prefix="watched")
        self._at_work = at_work

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> concurrent.futures.Future[T]:
        loop = asyncio.get_running_loop()
        work = super().submit(fn, *args, **kwargs)
        told: asyncio.Future[None] = loop.create_future()
        self._at_work.add(told)
        told.add_done_callback(self._at_work.discard)

        def tell(_: concurrent.futures.Future[T]) -> None:
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(lambda: None if told.done() else told.set_result(None))

        # Next turn: whoever has submitted it listens to it by then, and is told first.
        loop.call_soon(work.add_done_callback, tell)
        return work


async def quiet() -> None:
    """Let the event loop go round until nothing is left on it but what waits for time or for another thread."""
    # Private to asyncio, and the only way to know; a loop without it gets as many turns as have always been enough.
    ready = getattr(asyncio.get_running_loop(), "_ready", None)
    for turn in range(1, _MOST_TURNS):
        await asyncio.sleep(0)
        if not ready if ready is not None else turn >= _TURNS:
            return


def _us(seconds: float) -> int:
    return round(seconds * 1e6) if seconds < math.inf else 2**62


def _positive(what: str, seconds: float) -> int:
    if not 0 <= seconds < math.inf:
        raise ValueError(f"{what}({seconds!r}): give the seconds as a positive number")
    return _us(seconds)
