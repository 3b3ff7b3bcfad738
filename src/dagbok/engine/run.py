"""What the scheduler keeps of an execution it owns, beside the aggregate."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from dagbok.domain.execution import Execution
from dagbok.domain.states import ExecutionStatus
from dagbok.engine.ports import Timer
from dagbok.engine.runner import Attempt


@dataclass(slots=True, eq=False)
class Interval:
    """A moment after a report of an attempt was kept; at its end the latest that came meanwhile is kept."""

    latest: tuple[str, float | None] | None = None


class Run:
    """One execution in memory: its bodies, timers, the commit under way, and those who wait for it."""

    __slots__ = (
        "append",
        "attempts",
        "careful",
        "due_at",
        "execution",
        "launches",
        "parking",
        "progress",
        "queued",
        "settled",
        "timer",
    )

    def __init__(self, execution: Execution) -> None:
        self.execution = execution
        self.append: asyncio.Future[None] | None = None  # the commit under way
        self.attempts: dict[int, Attempt] = {}  # by position: bodies that run, or wait for their start to be durable
        # It knows the attempts and not the run: in a circle, what ended would stay until Python looks for such.
        execution.unstarted = partial(_unstarted, self.attempts)
        self.launches: list[Attempt] = []  # those that wait, not yet handed to the journal
        self.careful = False  # no body begins before its start is durable: an earlier process died of it, perhaps
        self.timer: Timer | None = None  # rings at `due_at`, or before
        self.due_at: int | None = None  # when something of it is due
        self.parking = False  # the commit under way releases it
        self.queued = 0  # steps that wait for a slot
        self.progress: dict[int, Interval] = {}  # by position: of attempts that have reported a moment ago
        self.settled: asyncio.Future[None] | None = None  # for those who wait until it ended or needs a person

    @property
    def idle(self) -> bool:
        """Nothing of it goes on before it is due, and all of it is durable."""
        busy = self.attempts or self.queued or self.append is not None
        return not busy and not self.execution.changed

    @property
    def waits_for_a_person(self) -> bool:
        return self.idle and self.execution.status is ExecutionStatus.WAITING

    def disarm(self) -> None:
        """Let nothing ring."""
        if self.timer is not None:
            self.timer.cancel()
        self.timer = self.due_at = None

    def settle(self, error: BaseException | None) -> None:
        """Tell those who wait."""
        settled, self.settled = self.settled, None
        settle(settled, error)


def _unstarted(attempts: Mapping[int, Attempt]) -> Iterator[int]:
    """Yield the positions whose body waits for the start of its attempt to be durable: it has done nothing yet."""
    return (position for position, attempt in attempts.items() if attempt.task is None)


def settle(future: asyncio.Future[None] | None, error: BaseException | None) -> None:
    """Resolve what somebody may wait for."""
    if future is None or future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
        future.exception()  # retrieved: a waiter that went away is no "never retrieved" warning
