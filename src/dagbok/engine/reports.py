"""Progress of running steps: the first report at once, then the latest of each interval, kept on the row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from dagbok.domain import values
from dagbok.domain.states import StepStatus
from dagbok.engine.ports import Clock
from dagbok.engine.run import Interval, Run

#: A step's progress is kept at most this often.
INTERVAL_S: Final = 0.25


class Reports:
    """Takes the reports of all attempts of one scheduler; `changed` hears of each run with something to write."""

    def __init__(self, clock: Clock, changed: Callable[[Run], None]) -> None:
        self._clock = clock
        self._changed = changed

    def take(self, run: Run, position: int, attempt: int, message: str, fraction: float | None) -> None:
        """Hear a report of an attempt; one that has ended has nothing to report."""
        running = run.attempts.get(position)
        if running is not None and running.call.attempt == attempt:
            running.heard()
            self._keep(run, position, attempt, message, fraction)

    def _keep(self, run: Run, position: int, attempt: int, message: str, fraction: float | None) -> None:
        step = run.execution.steps[position]
        if step.attempt != attempt or step.status is not StepStatus.RUNNING:
            return
        if position in run.progress:
            run.progress[position].latest = (message, fraction)
            return
        interval = run.progress[position] = Interval()
        run.execution.report(position, values.encode({"message": message, "fraction": fraction}))
        self._changed(run)
        self._clock.call_later(INTERVAL_S, lambda: self._over(run, position, attempt, interval))

    def _over(self, run: Run, position: int, attempt: int, interval: Interval) -> None:
        if run.progress.get(position) is not interval:
            return  # its attempt has ended, and the next one may have reported already
        del run.progress[position]
        if interval.latest is not None:
            self._keep(run, position, attempt, *interval.latest)
