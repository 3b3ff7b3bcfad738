"""The aggregate: one run of a plan, in memory, as pure transitions.

In layers, each a class of its own: `flow` (what follows from a move: counters, dependents, status, the changes to
write), on it `trying` (the tries of a step), `inquiry` (questions to people), `adopt` (a fork begins) and `rerun` (a
retry). Here is the execution as a whole: what is due, what people ask of it, and how it comes back from its rows.

The owner calls, in any order the states allow: `begin`, then one of `complete`, `fail`; `ask`, `ask_approval` and
`answer`; `ring` when `next_due_at` has come, and `expire`; `pause`, `resume`, `cancel`; `take_over` after `restore`;
`release` when nothing is left to do for a while. Times are UTC milliseconds and come from the caller.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from dagbok.domain import overrides, refs, submission, values
from dagbok.domain.adopt import Adopt
from dagbok.domain.call import Missing
from dagbok.domain.events import EventType
from dagbok.domain.ids import TaskId
from dagbok.domain.outline import Outline
from dagbok.domain.records import NewStep, StoredExecution
from dagbok.domain.rerun import Rerun
from dagbok.domain.states import ENDED, ExecutionStatus, Reason, StepStatus
from dagbok.domain.task import Task
from dagbok.domain.unwritten import Unwritten
from dagbok.domain.values import Json
from dagbok.errors import Conflict

#: Before the time of a question is said to be over once more, if nothing has come of it.
EXPIRES_AGAIN_MS = 5_000


class Rung(NamedTuple):
    """What was due."""

    again: list[int]  #: steps whose back-off is over
    expired: list[tuple[TaskId, int]]  #: sub-tasks and the numbers of their questions, whose time is over


class Execution(Adopt, Rerun):
    """One run of a plan. `steps` are in the plan's order, the synthesis (if any) last."""

    # -- reading ----------------------------------------------------------------------------------------------------

    def remaining(self, position: int) -> int:
        """Return the number of steps on the longest path from here on."""
        return 1 if position == self.synthesis else self.graph.remaining[position]

    def results(self, position: int, *, only: Collection[TaskId] | None = None) -> dict[TaskId, Json]:
        """Return the results the step may use: those of its dependencies; all that completed for the synthesis.

        Args:
            position: The step.
            only: Of these alone.
        """
        if position == self.synthesis:
            done = (step for step in self.steps[:-1] if step.status is StepStatus.COMPLETED)
        else:
            done = (self.steps[parent] for parent in self.graph.parents[position])
        return {
            step.task.id: None if step.result is None else values.decode(step.result)
            for step in done
            if only is None or step.task.id in only
        }

    def look_up(self, task_id: TaskId) -> Task | None:
        """Return the sub-task of the plan."""
        position = self.index.get(task_id)
        return None if position is None else self.steps[position].task

    def missing(self) -> tuple[Missing, ...]:
        """Return what a synthesis has to do without."""
        return tuple(
            Missing(step.task.id, step.task.description, step.status, step.error or step.reason)
            for step in self.steps[: self.tally.total]
            if step.status in ENDED and step.status is not StepStatus.COMPLETED
        )

    def params(self, position: int, results: Mapping[TaskId, Json], *, max_bytes: int) -> dict[str, Any]:
        """Return the step's params with references replaced.

        Raises:
            BadReference, TooLarge: See `refs.resolve`.
        """
        resolved: dict[str, Any] = refs.resolve(
            self.steps[position].task.tool_or_prompt.params, results, max_bytes=max_bytes
        )
        return resolved

    def before_edit(self, position: int) -> dict[str, Any] | None:
        """Return the params that somebody has edited; None where nobody has."""
        step = self.steps[position]
        if "edited" not in step.override:
            return None
        before = {name: part for name, part in step.override.items() if name != "edited"}
        return dict(overrides.apply(self._planned(position), before).tool_or_prompt.params)

    def new_steps(self) -> list[NewStep]:
        """Return the rows of all steps, for the submission."""
        return submission.new_steps(self.steps, self.graph.parents)

    def ring(self, now_ms: int) -> Rung:
        """Do what is due: end timers, remind, end the execution at its deadline; return what the caller has to do.

        Steps whose back-off is over have to be begun. They are told here once, and by no commit (`Changes.ready`):
        whoever passes over one has lost it until the execution is taken over anew. Questions whose time is over are to
        be closed by `expire`, unless an answer came first; they are told again after `EXPIRES_AGAIN_MS`.
        """
        deadline_at = self.header.deadline_at
        if deadline_at is not None and now_ms >= deadline_at:
            done = self.tally[StepStatus.COMPLETED]
            message = f"The deadline has passed when {done:,} of {self.tally.total:,} sub-tasks had completed."
            self.abort(Reason.DEADLINE, message, now_ms)
        rung = Rung([], [])
        while (position := self.agenda.pop(now_ms)) is not None:
            step = self.steps[position]
            if step.status is StepStatus.RUNNING:
                waited_ms = (step.next_attempt_at or 0) - (step.started_at or 0)
                self.complete(position, values.encode({"waited_seconds": waited_ms / 1000}), now_ms)
            elif step.question is None:
                step.next_attempt_at = None
                rung.again.append(position)
            elif step.task.on_timeout == "remind":
                self._remind(position, step.question, now_ms)
            else:
                # In memory alone: who takes it over meanwhile finds it due.
                step.next_attempt_at = now_ms + EXPIRES_AGAIN_MS
                self.agenda.add(position)
                rung.expired.append((step.task.id, step.question.number))
        return rung

    def hold(self, position: int) -> None:
        """Keep a step that could start but for the pause; it is ready again once the execution is resumed."""
        self._unwritten.ready.append(position)

    def take_over(self, now_ms: int) -> None:
        """Close the attempts an earlier owner left open; timers and back-offs go on.

        After a clock that was set back none of them, nor the deadline, is farther from now than when it was set.
        """
        if self.header.deadline_at is not None and self._allowed_ms is not None:
            self.header.deadline_at = min(self.header.deadline_at, now_ms + self._allowed_ms)
        if self._works:
            self.header.activate(now_ms)
            if self._parked is not None:
                self.header.waited(*self._parked, now_ms)
        for position, step in enumerate(self.steps):
            if step.next_attempt_at is not None:
                if step.follow(now_ms):
                    self.agenda.add(position)
                    self._unwritten.touch(position, step)
                    if step.question is not None:
                        self._unwritten.question(step.question)
            elif step.status is StepStatus.RUNNING:
                self._interrupt(position, now_ms)

    # -- what people ask for ----------------------------------------------------------------------------------------

    def cancel(self, now_ms: int, *, by: str | None = None) -> None:
        """End the execution on request: what runs is cut off, what waits will not start.

        Raises:
            Conflict: It has ended already.
        """
        self._must_go_on()
        self.cancel_requested, self.cancelled_by = True, by
        self._stop(Reason.CANCELLED, "Cancelled on request.", now_ms, by)

    def pause(self, now_ms: int, *, by: str | None = None) -> None:
        """Let what runs end, and begin nothing more. Once paused, nothing changes.

        Raises:
            Conflict: It has ended already.
        """
        self._must_go_on()
        if not self.paused:
            self.header.paused_at = now_ms
            self._unwritten.event(EventType.EXECUTION_PAUSED, None, now_ms, {"by": by})
            self._settle(now_ms)

    def resume(self, now_ms: int, *, by: str | None = None) -> None:
        """Let a paused execution go on. One that is not paused does not change.

        Raises:
            Conflict: It has ended already.
        """
        self._must_go_on()
        if self.paused:
            self.header.paused_at = None
            self._unwritten.event(EventType.EXECUTION_RESUMED, None, now_ms, {"by": by})
            self._settle(now_ms, resumed=True)

    def _must_go_on(self) -> None:
        if self.ended:
            raise Conflict(f"Execution {self.id} is {self.status} already.", execution_id=self.id)

    def restore(self, stored: StoredExecution) -> None:
        """Take the state of stored rows, as the last owner committed it. Linear in steps and edges."""
        self.status = ExecutionStatus(stored.header.status)
        self.header.load(stored.header)
        self._parked = stored.parked
        self._allowed_ms = submission.allowed_ms(stored)
        self.fail_fast = submission.fails_fast(stored)
        self._unwritten = Unwritten(stored.last_event_seq)
        for row in stored.steps:
            self.steps[self.index[row.task_id]].load(row)
        for task_id, override in stored.overrides.items():
            step = self.steps[position := self.index[task_id]]
            step.override = values.decode(override)
            step.call(overrides.apply(self._planned(position), step.override), step.effect)
        for question in stored.questions:
            step = self.steps[self.index[question.task_id]]
            step.questions_asked = max(step.questions_asked, question.number)
            step.question = step.question if question.closed_at is not None else question
        for task_id, count in stored.failures.items():
            self.steps[self.index[task_id]].failures = count
        for task_id, count in stored.interruptions.items():
            self.steps[self.index[task_id]].interruptions = count
        for position, step in enumerate(self.steps):
            if position != self.synthesis:
                self._recount(position, step)
            if step.next_attempt_at is not None:
                self.agenda.add(position)
        self._unwritten.ready = [
            position
            for position, step in enumerate(self.steps)
            if not step.unmet and step.startable and position != self.synthesis
        ]
        if self.synthesis is not None and not self.tally.open:
            last = self.steps[self.synthesis]
            last.unmet = 0
            if last.startable:
                self._unwritten.ready.append(self.synthesis)


def restore(stored: StoredExecution, plan: Outline) -> Execution:
    """Return the aggregate of a stored execution."""
    effects = stored.effects
    execution = Execution(stored.id, plan, epoch=stored.epoch, effect_of=lambda task: effects[task.id])
    execution.restore(stored)
    return execution
