"""How many sub-tasks are in which state, and what that makes of the execution. The synthesis is not counted."""

from __future__ import annotations

from dagbok.domain.states import ENDED, ExecutionStatus, Reason, StepStatus


class Tally:
    """Counters that each move of a sub-task updates, so that nothing is ever counted again."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.open = total  # sub-tasks that have not ended
        self.lost = 0  # those that count against `completed`: failed, cancelled, skipped by a failed dependency
        self._counts = dict.fromkeys(StepStatus, 0)
        self._counts[StepStatus.PENDING] = total

    @property
    def goes_on(self) -> bool:
        """Whether there is work left, and none of it waits for a person."""
        return bool(self.open) and not self._counts[StepStatus.WAITING]

    def __getitem__(self, status: StepStatus) -> int:
        return self._counts[status]

    def move(self, before: StepStatus, after: StepStatus) -> None:
        """Count a sub-task that goes from one state to another."""
        self._counts[before] -= 1
        self._counts[after] += 1

    def end(self, status: StepStatus, reason: str | None) -> None:
        """Count a sub-task that has ended (and was moved)."""
        self.open -= 1
        if status in (StepStatus.FAILED, StepStatus.CANCELLED) or reason == Reason.DEPENDENCY_FAILED:
            self.lost += 1

    def reopen(self, status: StepStatus, reason: str | None) -> None:
        """Count a sub-task that had ended, and will be moved to go on."""
        self.open += 1
        if status in (StepStatus.FAILED, StepStatus.CANCELLED) or reason == Reason.DEPENDENCY_FAILED:
            self.lost -= 1

    def status(self, synthesis: StepStatus | None, *, started: bool, cancelled: bool, paused: bool) -> ExecutionStatus:
        """Return the state of the execution: the first rule that fits, as docs/architecture.md lists them.

        Args:
            synthesis: The state of the synthesis; None for a plan without one.
            started: Whether anything ever began.
            cancelled: Whether somebody asked for the end.
            paused: Whether somebody asked that nothing more begins.
        """
        left = self.open or (synthesis is not None and synthesis not in ENDED)
        if cancelled and not left:
            return ExecutionStatus.CANCELLED
        if self[StepStatus.WAITING] or synthesis is StepStatus.WAITING:
            return ExecutionStatus.WAITING
        if left and paused and not (self[StepStatus.RUNNING] or synthesis is StepStatus.RUNNING):
            return ExecutionStatus.WAITING
        if left:
            untouched = not started and self[StepStatus.PENDING] == self.total
            return ExecutionStatus.PENDING if untouched else ExecutionStatus.RUNNING
        if not self.lost:
            lost = synthesis in (StepStatus.FAILED, StepStatus.CANCELLED)  # which runs only over results
            return ExecutionStatus.PARTIAL if lost else ExecutionStatus.COMPLETED
        return ExecutionStatus.PARTIAL if self[StepStatus.COMPLETED] else ExecutionStatus.FAILED
