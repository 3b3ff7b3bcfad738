"""The bodies of tools: what each is called with, how it begins, and who bounds its time.

A body that ends in its first turn of the loop never gets a timer, and most quick ones do.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from functools import partial
from typing import Any

from dagbok.domain.call import Call
from dagbok.engine import containment
from dagbok.engine.ports import Clock, Secrets, ToolSpec
from dagbok.engine.reports import Reports
from dagbok.engine.run import Run
from dagbok.engine.runner import Attempt, Outcome


class Bodies:
    """Makes the attempts of one scheduler and launches them. Use it from the loop."""

    def __init__(self, clock: Clock, secrets: Secrets, reports: Reports, *, max_bytes: int) -> None:
        self._clock = clock
        self._secrets = secrets
        self._reports = reports
        self._max_bytes = max_bytes
        # The engine's own: what is done for one execution must not be logged as part of another's request.
        self._context = contextvars.copy_context()
        self._context_of_bodies = containment.of_bodies()
        self._begun: list[Attempt] = []  # this turn: their bodies have not run yet

    def attempt(
        self,
        run: Run,
        position: int,
        tool: ToolSpec,
        params: dict[str, Any],
        *,
        done: Callable[[Attempt, Outcome], None],
        late: Callable[[Call, Outcome], None] | None,
    ) -> Attempt:
        """Return the attempt of a step that has begun, its body not yet launched; see `Attempt` for `done` and `late`.

        Args:
            params: Resolved, secrets filled in.
        """
        task = run.execution.steps[position].task
        return Attempt(
            self._call(run, position, params), tool, clock=self._clock, context=self._context_of_bodies,
            timeout_s=task.timeout_seconds or tool.timeout_s,
            idle_timeout_s=task.idle_timeout_seconds or tool.idle_timeout_s,
            max_bytes=self._max_bytes, redactor=self._secrets.redactor, done=done, late=late,
        )  # fmt: skip

    def launch(self, attempt: Attempt) -> None:
        """Let a body run, and watch over its time from its first turn on."""
        attempt.start()
        if not self._begun:
            asyncio.get_running_loop().call_soon(self._watch_soon, context=self._context)
        self._begun.append(attempt)

    def _watch_soon(self) -> None:
        """Let those that were launched with the first of them have their first turn, and then watch them."""
        begun, self._begun = self._begun, []
        asyncio.get_running_loop().call_soon(_watch, begun)

    def _call(self, run: Run, position: int, params: dict[str, Any]) -> Call:
        execution = run.execution
        step = execution.steps[position]
        report = partial(self._report, asyncio.get_running_loop(), run, position, step.attempt)
        synthesis = position == execution.synthesis
        return Call(
            execution.id, step.task.id, step.attempt, step.revision, params, execution.plan.original_request, step.task,
            partial(execution.results, position), report,
            execution.plan.synthesis_plan if synthesis else "", execution.missing() if synthesis else (),
            execution.look_up, self._secrets.redactor.text,
        )  # fmt: skip

    def _report(
        self,
        loop: asyncio.AbstractEventLoop,
        run: Run,
        position: int,
        attempt: int,
        message: str,
        fraction: float | None,
    ) -> None:
        """Take a report of an attempt, from any thread."""
        message = self._secrets.redactor.text(message)
        loop.call_soon_threadsafe(self._reports.take, run, position, attempt, message, fraction)


def _watch(begun: list[Attempt]) -> None:
    """Bound the time of the bodies that have not ended in their first turn."""
    for attempt in begun:
        attempt.watch()
