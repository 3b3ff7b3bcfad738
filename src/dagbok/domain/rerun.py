"""Running the lost part of an ended execution again: what failed or was cancelled, what that skipped, the synthesis.

Completed steps stay as they are. Attempts go on to be counted, and what they may fail starts anew.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from dagbok.domain import lost, values
from dagbok.domain.events import EventType
from dagbok.domain.flow import Flow
from dagbok.domain.ids import TaskId
from dagbok.domain.lost import LOST
from dagbok.domain.states import Effect, ExecutionStatus, Reason, StepStatus
from dagbok.domain.step import Step
from dagbok.domain.values import Json
from dagbok.errors import Conflict

#: Sub-tasks that the diary names of those that run again.
NAMED = 100
#: What an execution is that can be retried.
RETRYABLE = frozenset({ExecutionStatus.FAILED, ExecutionStatus.PARTIAL, ExecutionStatus.CANCELLED})


class Rerun(Flow):
    """The operation `retry` of an execution."""

    def retry(
        self,
        now_ms: int,
        *,
        by: str | None = None,
        only: Collection[TaskId] | None = None,
        overrides: Mapping[TaskId, Mapping[str, Json]] | None = None,
    ) -> None:
        """Let the lost part run again.

        A `once` step of which nobody knows what it has done is asked about, unless it is named: whoever names it has
        looked. A deadline begins anew, too.

        Args:
            now_ms: The time.
            by: Who asks.
            only: The failed or cancelled steps that run again; what they skipped follows. None: all of them.
            overrides: By task what it is called with from now on (`dagbok.domain.overrides`), and the `effect` of that.

        Raises:
            Conflict: It has not ended, or nothing of it was lost; of `only`, one is unknown, was not lost, or depends
                on one that was lost and is not named; one that is overridden does not run again. Nothing has changed.
        """
        if self.status not in RETRYABLE:
            state = "has completed" if self.status is ExecutionStatus.COMPLETED else f"is {self.status}"
            raise Conflict(f"Execution {self.id} {state}; nothing of it can be retried.", execution_id=self.id)
        named = None if only is None else self._named(only)
        again = self._with_skipped(self._lost() if named is None else named)
        overridden = self._overridden(overrides or {}, again)
        looked_at = frozenset(named or ())
        doubtful = {
            position: self.steps[position].input
            for position in again
            if position not in looked_at and _is_doubtful(self.steps[position])
        }
        self._begin_anew(now_ms, by, again)
        for position in again:
            self._put_back(position, now_ms)
        if self.synthesis is not None:
            self._put_back(self.synthesis, now_ms)
        for position in again:
            step = self.steps[position]
            if position in doubtful:
                # Which the question shows, also that of a fork, and which an override is about to change.
                before = values.encode(step.task.tool_or_prompt.params) if position in overridden else None
                step.input = doubtful[position] or before
                self._ask_whether(position, "It was cut off, and is to run again.", now_ms)
            elif not step.unmet:
                self._unwritten.ready.append(position)
        for position, override in overridden.items():  # after the questions, which are about what was called before
            self._override(position, override, now_ms, by)
        self._settle(now_ms)

    def _overridden(
        self, overrides: Mapping[TaskId, Mapping[str, Json]], again: Collection[int]
    ) -> dict[int, Mapping[str, Json]]:
        runs = {*again, self.synthesis}
        found = {}
        for task_id, override in overrides.items():
            position = self.index.get(task_id)
            if position is None or position not in runs:
                raise self._refused(f"Sub-task {task_id!r} does not run again, so nothing of it can be overridden.")
            found[position] = override
        return found

    def _lost(self) -> list[int]:
        return [position for position, step in enumerate(self.steps[: self.tally.total]) if step.status in LOST]

    def _named(self, only: Collection[TaskId]) -> list[int]:
        positions = []
        for task_id in dict.fromkeys(only):
            position = self.index.get(task_id)
            if position is None:
                raise self._refused(f"There is no sub-task {task_id!r}.")
            if position == self.synthesis:
                continue  # it runs again in any case
            if (status := self.steps[position].status) not in LOST:
                raise self._refused(f"Sub-task {task_id!r} is {status}; only what failed or was cancelled runs again.")
            positions.append(position)
        chosen = frozenset(positions)
        for position in positions:
            for parent in self.graph.parents[position]:
                if not self.steps[parent].done and parent not in chosen:
                    names = f"{self.steps[position].task.id!r} depends on {self.steps[parent].task.id!r}"
                    raise self._refused(f"Sub-task {names}, which was lost as well; name both.")
        return positions

    def _refused(self, why: str) -> Conflict:
        return Conflict(f"Execution {self.id} is not retried. {why}", execution_id=self.id)

    def _with_skipped(self, roots: Sequence[int]) -> list[int]:
        """Return the steps and those they skipped, as far as nothing else that was lost stands before these."""
        steps, parents = self.steps, self.graph.parents

        def waits_for(child: int) -> int | None:
            if steps[child].reason != Reason.DEPENDENCY_FAILED:
                return None
            return sum(not steps[parent].done for parent in parents[child])

        again = lost.with_skipped(roots, self.graph.children.__getitem__, waits_for)
        alone = self.synthesis is not None and self.steps[self.synthesis].status in LOST
        if not again and not (alone and self.tally[StepStatus.COMPLETED]):
            raise self._refused("Nothing of it was lost that could run again.")
        return again

    def _begin_anew(self, now_ms: int, by: str | None, again: Sequence[int]) -> None:
        header = self.header
        header.retry_count += 1
        header.last_retry_at = now_ms
        header.completed_at = header.final_result = header.synthesis_result = header.error = header.error_code = None
        if header.deadline_at is not None:
            header.deadline_at = now_ms + (self._allowed_ms or 0)
        self.cancel_requested, self.cancelled_by = False, None
        gone = set(again)
        self._failures = [position for position in self._failures if position not in gone]
        named = [self.steps[position].task.id for position in again[:NAMED]]
        data = {"by": by, "retry": header.retry_count, "count": len(again), "tasks": named}
        self._unwritten.event(EventType.EXECUTION_RETRIED, None, now_ms, data)

    def _put_back(self, position: int, now_ms: int) -> None:
        """Make a step pending as if it had not run, but for its attempts."""
        step = self.steps[position]
        if position != self.synthesis:
            assert not step.done, f"{self.id} {step.task.id} is done, and would run again"
            self.tally.reopen(step.status, step.reason)
            step.unmet = sum(not self.steps[parent].done for parent in self.graph.parents[position])
        else:
            step.unmet = self.tally.total
        self._move(position, StepStatus.PENDING)
        step.put_back()
        self._unwritten.event(EventType.SUBSTEP_RETRYING, step, now_ms, {"attempt": step.attempt, "reason": "retry"})


def _is_doubtful(step: Step) -> bool:
    """Whether nobody knows what the last attempt of a `once` step has done, and nobody has said."""
    if step.effect is not Effect.ONCE:
        return False
    cut_off = step.status is StepStatus.CANCELLED and step.error_code == Reason.OUTCOME_UNKNOWN
    return cut_off or step.error_code == "crash_loop"
