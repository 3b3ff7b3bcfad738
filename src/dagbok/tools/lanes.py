"""Where the body of a synchronous tool runs: in daemon threads of our own, which block neither the loop nor the exit.

`concurrent.futures` joins its threads when the interpreter ends, so one hanging tool would keep the process alive for
ever; daemon threads end with it. A thread cannot be killed either. A call that is cancelled (its time is up) therefore
*abandons* its thread: the thread goes on unobserved, no longer counts, and another may take its place, until so many of
the process have been abandoned (`MAX_ABANDONED`) that calls are refused instead.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import Any, Final, ParamSpec, TypeVar

from dagbok.errors import ToolError

P = ParamSpec("P")
T = TypeVar("T")

#: Called on the loop with the outcome of an abandoned call, should it ever have one: its result, or its exception.
OnLate = Callable[[object, BaseException | None], None]

#: Abandoned threads of the process, in all its lanes, beyond which no further one is started. A tool that hangs leaves
#: one for each attempt. Containers and `ulimit -u` often allow 4,096 threads, and the engine needs its own; each also
#: holds what its call holds, memory and a connection at least.
MAX_ABANDONED: Final = 1_000

_QUEUED, _RUNNING, _DONE, _ABANDONED = range(4)


class Abandoned:
    """The number of abandoned threads of several lanes, and its bound."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._number = 0
        self._lock = threading.Lock()

    def add(self, number: int) -> None:
        """Count some more, or fewer."""
        with self._lock:
            self._number += number

    @property
    def full(self) -> bool:
        """Whether no further thread may be started."""
        return self._number >= self._most

    def refusal(self) -> ToolError:
        """Return the error of a call that would need one."""
        message = (
            f"{self._number:,} threads of this process hang in calls of tools that were given up, and no more are "
            f"started before some of them end. The log names the tools; starting the process anew ends them all."
        )
        return ToolError(message, code="unavailable")


_PROCESS: Final = Abandoned(MAX_ABANDONED)


class ThreadLane:
    """A pool of daemon threads for awaiting blocking functions. Usable from several loops and threads at once."""

    def __init__(
        self,
        *,
        max_threads: int = 64,
        idle_s: float = 30.0,
        name: str = "dagbok-tool",
        all_abandoned: Abandoned = _PROCESS,
    ) -> None:
        if max_threads < 1:
            raise ValueError("max_threads must be at least 1")
        self._max = max_threads
        self._idle_s = idle_s  # a thread with nothing to do for so long ends
        self._name = name
        self._changed = threading.Condition(threading.Lock())
        self._queue: deque[_Job] = deque()
        self._threads = 0  # that take jobs, abandoned ones excluded
        self._free = 0  # of these, without a job; each takes one from the queue as soon as it gets there
        self._started = 0
        self._abandoned = 0
        self._all_abandoned = all_abandoned
        self._closed = False

    @property
    def threads(self) -> int:
        """How many threads take calls; never more than `max_threads`."""
        return self._threads

    @property
    def busy(self) -> int:
        """How many of them are in a call right now."""
        return self._threads - self._free

    @property
    def abandoned(self) -> int:
        """How many threads are still busy with a call that nobody waits for."""
        return self._abandoned

    async def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Return `function(*args, **kwargs)`, called in a daemon thread with a copy of this task's context variables.

        With all threads busy the call waits for its turn; cancelled before that, it never starts.

        Raises:
            BaseException: What the function raised, SystemExit included. StopIteration and CancelledError, which
                mean something else to whoever awaits, arrive as the cause of a RuntimeError.
            RuntimeError: The lane is closed, or the system allows no thread at all.
            ToolError: `unavailable`; it would need another thread, and too many of the process are abandoned.
        """
        return await self.submit(lambda: function(*args, **kwargs))

    async def submit(self, function: Callable[[], T], *, on_late: OnLate | None = None) -> T:
        """Like `run`, for a function without arguments; `on_late` hears of an outcome that came after a cancel.

        `on_late` is not called when the function had not started, and not when the loop has ended by then.
        """
        loop = asyncio.get_running_loop()
        job = _Job(function, copy_context(), loop, on_late)
        self._enqueue(job)
        try:
            result: T = await job.future
        except asyncio.CancelledError:
            if job.future.done() and not job.future.cancelled():
                # The outcome came in the same turn of the loop as the cancel, which wins.
                error = job.future.exception()
                job.settle(None if error else job.future.result(), error)
            raise
        finally:
            self._leave(job)
        return result

    def close(self) -> None:
        """Let idle threads end now, busy ones after their call; calls that wait for a thread fail. Waits for none."""
        with self._changed:
            self._closed = True
            waiting = self._clear_queue()
            self._changed.notify_all()
        for job in waiting:
            job.deliver(None, RuntimeError("the lane was closed before the call could start"))

    def _enqueue(self, job: _Job) -> None:
        with self._changed:
            if self._closed:
                raise RuntimeError("the lane is closed")
            self._queue.append(job)
            # A free thread may not have come to its job yet, hence the comparison with the whole queue.
            if self._free >= len(self._queue):
                self._changed.notify()
            elif self._threads < self._max:
                if self._all_abandoned.full:
                    self._queue.remove(job)
                    raise self._all_abandoned.refusal()
                try:
                    self._start_thread()
                except RuntimeError:  # the system is out of threads: the ones there are must do
                    if not self._threads:
                        self._queue.remove(job)
                        raise

    def _leave(self, job: _Job) -> None:
        """Note that nobody waits for `job` any more."""
        refused: list[_Job] = []
        with self._changed:
            if job.state == _QUEUED:
                job.state = _DONE
                self._queue.remove(job)
            elif job.state == _RUNNING:
                job.state = _ABANDONED
                self._abandon(1)
                self._threads -= 1
                if len(self._queue) <= self._free:
                    pass
                elif self._all_abandoned.full:
                    if not self._threads:  # otherwise those that are left serve the queue
                        refused = self._clear_queue()
                else:
                    try:
                        self._start_thread()
                    except RuntimeError:
                        # Not even a replacement: take the abandoned thread back, so that the queue is served some day.
                        job.state = _RUNNING
                        self._abandon(-1)
                        self._threads += 1
        for waiting in refused:
            waiting.deliver(None, self._all_abandoned.refusal())

    def _abandon(self, number: int) -> None:
        self._abandoned += number
        self._all_abandoned.add(number)

    def _clear_queue(self) -> list[_Job]:
        waiting = list(self._queue)
        self._queue.clear()
        for job in waiting:
            job.state = _DONE
        return waiting

    def _start_thread(self) -> None:
        self._threads += 1
        self._free += 1
        self._started += 1
        try:
            threading.Thread(target=self._work, name=f"{self._name}-{self._started}", daemon=True).start()
        except BaseException:
            self._retire()
            raise

    def _retire(self) -> None:
        self._threads -= 1
        self._free -= 1

    def _work(self) -> None:
        while (job := self._next()) is not None:
            result: object = None
            error: BaseException | None = None
            try:
                result = job.context.run(job.function)
            except BaseException as exc:  # whatever it is, it belongs to the caller, not to this thread
                error = exc
            with self._changed:
                abandoned = job.state == _ABANDONED
                job.state = _DONE
                if abandoned:
                    self._abandon(-1)
                else:
                    # Before the caller hears of it, so that its next call finds this thread and starts no other.
                    self._free += 1
            job.deliver(result, error)
            # An idle thread must not keep the last result or traceback alive.
            del job, result, error
            if abandoned:
                return

    def _next(self) -> _Job | None:
        """Return the next job, or None when this thread is to end; it is then no longer counted."""
        with self._changed:
            while not self._queue:
                if self._closed:
                    self._retire()
                    return None
                woken = self._changed.wait(self._idle_s)
                if not woken and not self._queue:
                    self._retire()
                    return None
            job = self._queue.popleft()
            self._free -= 1
            job.state = _RUNNING
            return job


class _Job:
    """One call and whoever waits for it."""

    __slots__ = ("context", "function", "future", "loop", "on_late", "state")

    def __init__(
        self, function: Callable[[], Any], context: Context, loop: asyncio.AbstractEventLoop, on_late: OnLate | None
    ) -> None:
        self.function = function
        self.context = context
        self.loop = loop
        self.future: asyncio.Future[Any] = loop.create_future()
        self.on_late = on_late
        self.state = _QUEUED

    def deliver(self, result: object, error: BaseException | None) -> None:
        """Hand the outcome to the loop, from any thread. A loop that has ended hears nothing."""
        if isinstance(error, StopIteration | asyncio.CancelledError):
            # A future refuses the first, and the second would look as if the waiting task had been cancelled.
            wrapped = RuntimeError(f"the function raised {type(error).__name__}")
            wrapped.__cause__ = error
            error = wrapped
        try:
            self.loop.call_soon_threadsafe(self.settle, result, error)
        except RuntimeError:
            if not self.loop.is_closed():
                raise

    def settle(self, result: object, error: BaseException | None) -> None:
        if self.future.done():
            if self.on_late is not None:
                self.on_late(result, error)
        elif error is not None:
            self.future.set_exception(error)
        else:
            self.future.set_result(result)
