"""One attempt: runs a tool's body, bounds its time, and hears what comes of it (`outcomes`).

Nothing a tool does reaches the loop: an exception, `sys.exit`, a value that is no JSON or too large, and a body that
hangs each become an outcome of this attempt alone.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Callable
from typing import Final

from dagbok.domain.call import Call
from dagbok.domain.secrets import Redactor
from dagbok.domain.states import AttemptOutcome
from dagbok.engine.outcomes import Outcome, failure, success
from dagbok.engine.ports import Clock, Timer, ToolSpec

__all__ = ["Attempt", "Outcome", "failure"]

log = logging.getLogger("dagbok.engine")

_CANCELLED: Final = Outcome(code="tool_error", message="The tool was cancelled from inside.", unknown=True)


class Attempt:
    """A running body. `done` is called once, on the loop, unless the attempt was dropped before.

    `late` is called with what a body brings whose time was over; without it that is dropped. The body runs in a copy of
    `context` (see `containment.of_bodies`).
    """

    __slots__ = (
        "_clock",
        "_context",
        "_done",
        "_idle",
        "_idle_timeout_s",
        "_late",
        "_max_bytes",
        "_redactor",
        "_timeout",
        "_timeout_s",
        "call",
        "cut_off",
        "settled",
        "task",
        "tool",
    )

    def __init__(
        self,
        call: Call,
        tool: ToolSpec,
        *,
        clock: Clock,
        context: contextvars.Context,
        timeout_s: float,
        idle_timeout_s: float | None = None,
        max_bytes: int,
        redactor: Redactor,
        done: Callable[[Attempt, Outcome], None],
        late: Callable[[Call, Outcome], None] | None = None,
    ) -> None:
        self.call = call
        self.tool = tool
        self.settled = False
        self.task: asyncio.Task[None] | None = None  # None until started
        self.cut_off: asyncio.Task[None] | None = None  # the same, once it was cancelled: it may not heed that
        self._timeout: Timer | None = None
        self._idle: Timer | None = None  # None also where nobody minds a silence
        self._clock = clock
        self._context = context
        self._timeout_s = timeout_s
        self._idle_timeout_s = idle_timeout_s
        self._max_bytes = max_bytes
        self._redactor = redactor
        self._done = done
        self._late = late

    def start(self) -> None:
        """Run the body on the running loop, unless it was dropped before. `watch` comes next, once it had its turn."""
        if not self.settled:
            self.task = asyncio.get_running_loop().create_task(self._run(), context=self._context.copy())

    def watch(self) -> None:
        """Bound the time of a body that has begun, if it has not ended yet: most of the quick ones need no timer."""
        if not self.settled:
            self._timeout = self._clock.call_later(self._timeout_s, self._took_too_long)
            self._await_progress()

    def heard(self) -> None:
        """Note that the body has reported progress: its time to be silent begins again."""
        if self._idle is not None:
            self._idle.cancel()
            self._await_progress()

    def drop(self) -> None:
        """Cut the body off and forget it: its outcome is nobody's business any more."""
        self._late = None
        if self._close():
            self._cut_off()

    def _await_progress(self) -> None:
        if self._idle_timeout_s is not None:
            self._idle = self._clock.call_later(self._idle_timeout_s, self._was_silent)

    def _took_too_long(self) -> None:
        self._expire(f"The attempt took longer than its {self._timeout_s:g} s.")

    def _was_silent(self) -> None:
        self._expire(f"The attempt reported no progress for {self._idle_timeout_s:g} s.")

    def _expire(self, message: str) -> None:
        if not self.tool.stoppable:
            fate = "dropped" if self._late is None else "laid beside the question whether it happened"
            message += f" Its thread cannot be stopped: it is abandoned, and what it still returns is {fate}."
        # The outcome does not wait for a body that ignores its cancellation.
        self._cut_off()
        self._settle(Outcome(code="timeout", message=message, kind=AttemptOutcome.TIMEOUT.value, unknown=True))

    def _cut_off(self) -> None:
        if self.task is None:
            return
        self.task.cancel()
        self.cut_off = self.task
        if not self.tool.stoppable:
            log.warning(
                "execution %s: the thread of task %s (tool %s) cannot be stopped and is abandoned",
                self.call.execution_id, self.call.task_id, self.tool.name,
            )  # fmt: skip

    def _close(self) -> bool:
        if self.settled:
            return False
        self.settled = True
        for timer in (self._timeout, self._idle):
            if timer is not None:
                timer.cancel()
        self._idle = None
        return True

    def _settle(self, outcome: Outcome) -> None:
        if self._close():
            self._done(self, outcome)

    async def _run(self) -> None:
        try:
            value = await self.tool(self.call)
        except asyncio.CancelledError:
            # Where we cut it off nobody listens; otherwise something inside the tool was cancelled.
            outcome = _CANCELLED
        except KeyboardInterrupt:
            raise
        except BaseException as exc:  # SystemExit and GeneratorExit too: no tool ends the program
            outcome = failure(exc, self._redactor)
        else:
            outcome = success(value, max_bytes=self._max_bytes, redactor=self._redactor)
        if not self.settled:
            self._settle(outcome)
        elif self._late is not None and outcome is not _CANCELLED:  # it did not heed its cancellation
            self._late(self.call, outcome)
