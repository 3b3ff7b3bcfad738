"""What an execution knows of itself as a whole: times, results, errors, costs. One row of `dag_executions`."""

from __future__ import annotations

from dagbok.domain import values
from dagbok.domain.call import Charge
from dagbok.domain.records import HeaderRow
from dagbok.domain.states import ExecutionStatus, StepStatus
from dagbok.domain.tally import Tally


class Header:
    """The columns of an execution that change, but for its state and counters."""

    def __init__(self) -> None:
        self.started_at: int | None = None
        self.completed_at: int | None = None
        self.final_result: str | None = None
        self.synthesis_result: str | None = None
        self.error: str | None = None
        self.error_code: str | None = None
        self.retry_count = 0
        self.last_retry_at: int | None = None
        self.paused_at: int | None = None
        self.deadline_at: int | None = None
        self.wake_at: int | None = None
        self.parked_at: int | None = None
        self.usage: dict[str, float] = {}
        self.cost_usd: float | None = None  # None: no cost is known, which is not 0
        self.active_ms = 0  # the sum of its active periods, without the present one
        self.updated_at = 0  # of the last commit
        self._active_since: int | None = None

    def stamp(self, now_ms: int) -> int:
        """Return the time of a commit: now, and always later than that of the one before it.

        So `updated_at` tells two commits apart, though both came within a millisecond or the clock was set back, and
        though neither wrote an event (progress does not). Who asks "has it changed?" goes by it.
        """
        self.updated_at = max(now_ms, self.updated_at + 1)
        return self.updated_at

    @property
    def active(self) -> bool:
        return self._active_since is not None

    def activate(self, now_ms: int) -> None:
        """Begin an active period."""
        self._active_since = now_ms

    def rest(self, now_ms: int) -> None:
        """End the active period, if there is one."""
        self.active_ms = self._active_until(now_ms)
        self._active_since = None

    def waited(self, since: int, until: int, now_ms: int) -> None:
        """Count time in which the execution belonged to nobody, and only waited, as active.

        What comes after `until` was no waiting: nobody was there.
        """
        self.active_ms += max(0, min(until, now_ms) - since)

    def charge(self, charge: Charge) -> None:
        """Add what an attempt cost."""
        for name, amount in (charge.usage or {}).items():
            if isinstance(amount, int | float):
                self.usage[name] = self.usage.get(name, 0) + amount
        if charge.cost_usd is not None:
            self.cost_usd = (self.cost_usd or 0.0) + charge.cost_usd

    def row(self, status: ExecutionStatus, tally: Tally, now_ms: int) -> HeaderRow:
        """Return the columns as they are now, for a commit."""
        return HeaderRow(
            status._value_, self.started_at, self.completed_at, self._active_until(now_ms),
            tally[StepStatus.COMPLETED], tally[StepStatus.FAILED], tally[StepStatus.WAITING],
            tally[StepStatus.SKIPPED], tally[StepStatus.RUNNING], self.final_result, self.synthesis_result,
            self.error, self.error_code, self.retry_count, self.last_retry_at,
            values.encode(self.usage) if self.usage else None, self.cost_usd, self.paused_at, self.deadline_at,
            self.wake_at, self.parked_at, self.stamp(now_ms),
        )  # fmt: skip

    def load(self, row: HeaderRow) -> None:
        """Take the columns of a stored row."""
        for name in set(vars(self)) & set(HeaderRow._fields):
            setattr(self, name, getattr(row, name))
        self.usage = values.decode(row.total_usage) if row.total_usage else {}
        self.cost_usd = row.total_cost_usd
        self.active_ms = row.duration_ms

    def _active_until(self, now_ms: int) -> int:
        return self.active_ms + (max(0, now_ms - self._active_since) if self._active_since is not None else 0)
