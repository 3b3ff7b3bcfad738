"""What follows from each move of a step: counters, dependents, the synthesis, the state of the execution, its end.

The part of the aggregate (`dagbok.domain.execution`) that its operations share. Each event costs O(its out-degree): a
counter of unmet dependencies per sub-step, a counter per status, and no scan over all steps. What changed since the
last commit waits here until `take_changes`; a step becomes startable only by the commit of the changes that made it
ready (`Changes.ready`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from dagbok.domain import doubt, ending, overrides, submission, values
from dagbok.domain.agenda import Agenda
from dagbok.domain.call import NO_CHARGE, Charge
from dagbok.domain.events import EventType
from dagbok.domain.header import Header
from dagbok.domain.ids import Epoch, ExecutionId
from dagbok.domain.outline import Outline
from dagbok.domain.records import Changes, QuestionRow
from dagbok.domain.states import (
    EXECUTION_ENDED,
    EXECUTION_MOVES,
    STEP_MOVES,
    AttemptOutcome,
    Effect,
    ExecutionStatus,
    QuestionOutcome,
    Reason,
    StepStatus,
)
from dagbok.domain.step import Step
from dagbok.domain.tally import Tally
from dagbok.domain.task import Task
from dagbok.domain.unwritten import Unwritten
from dagbok.domain.values import Json, JsonText

_END_EVENTS: Final = {
    ExecutionStatus.COMPLETED: EventType.EXECUTION_COMPLETED,
    ExecutionStatus.PARTIAL: EventType.EXECUTION_PARTIAL,
    ExecutionStatus.FAILED: EventType.EXECUTION_FAILED,
    ExecutionStatus.CANCELLED: EventType.EXECUTION_CANCELLED,
}


class Flow:
    """The steps of one execution, and what it knows of itself. Its methods are for `Execution` alone."""

    def __init__(self, id: ExecutionId, plan: Outline, *, epoch: Epoch, effect_of: Callable[[Task], Effect]) -> None:
        tasks = plan.sub_tasks
        parents = plan.graph.parents
        self.id = id
        self.plan = plan
        self.epoch = epoch
        self.graph = plan.graph
        self.steps = [Step(task, effect_of(task), len(above)) for task, above in zip(tasks, parents, strict=True)]
        self.synthesis: int | None = None
        if (last := submission.synthesis_task(plan.synthesis_plan)) is not None:
            self.synthesis = len(tasks)
            self.steps.append(Step(last, Effect.IDEMPOTENT, len(tasks)))
        self.index = {step.task.id: position for position, step in enumerate(self.steps)}
        self.status = ExecutionStatus.PENDING
        self.cancel_requested = False
        self.cancelled_by: str | None = None
        self.header = Header()
        self.tally = Tally(len(tasks))
        self.agenda = Agenda(self.steps)
        self.fail_fast = False  # whether the first failure ends it
        #: The positions with an open attempt whose body has not begun, so that it is known what they have done. The
        #: owner says.
        self.unstarted: Callable[[], Iterable[int]] = tuple
        self._failures: list[int] = []
        self._parked: tuple[int, int] | None = None  # from when until when, of one that was restored
        self._allowed_ms: int | None = None  # from submission to deadline, of one that was restored
        self._unwritten = Unwritten(seq=1)  # execution.created is written with the submission
        self._unwritten.ready = [position for position, above in enumerate(parents) if not above]

    @property
    def ended(self) -> bool:
        return self.status in EXECUTION_ENDED

    @property
    def was_parked(self) -> bool:
        """Whether it was restored from where it waited, owned by nobody; else its owner is gone."""
        return self._parked is not None

    @property
    def paused(self) -> bool:
        """Whether nothing more begins until somebody resumes it."""
        return self.header.paused_at is not None

    @property
    def next_due_at(self) -> int | None:
        """When `ring` has something to do: a timer or a back-off ends, or the deadline is reached."""
        due_at, deadline_at = self.agenda.next_at, self.header.deadline_at
        if deadline_at is None or self.ended:
            return due_at
        return deadline_at if due_at is None else min(due_at, deadline_at)

    @property
    def running(self) -> Iterator[int]:
        """The positions with an open attempt. Scans: for cancelling and taking over, not for each event."""
        return (position for position, step in enumerate(self.steps) if step.status is StepStatus.RUNNING)

    def count(self, status: StepStatus) -> int:
        """Return how many sub-tasks (the synthesis is none) are in `status`."""
        return self.tally[status]

    @property
    def changed(self) -> bool:
        return bool(self._unwritten)

    def take_changes(self, now_ms: int, *, release: bool = False) -> Changes:
        """Return everything since the last call, for one commit; with `release` nobody owns the execution after it."""
        header = self.header.row(self.status, self.tally, now_ms)
        release = release or self.ended
        return self._unwritten.take(self.id, self.epoch, header, self.steps, hold=self.paused, release=release)

    def release(self, now_ms: int) -> Changes:
        """Return the changes after which nobody owns the execution until there is something to do."""
        pending = bool(self._unwritten.ready) and not self.paused
        busy = pending or any(self.steps[position].next_attempt_at is None for position in self.running)
        self.header.wake_at = None if self.ended else now_ms if busy else self.next_due_at
        self.header.parked_at = None if self.ended else now_ms
        return self.take_changes(now_ms, release=True)

    def take_ready(self) -> list[int]:
        """Return the steps that were ready when a submission was committed or a stored execution read."""
        return [] if self.paused else self._unwritten.take_ready()

    def applied(self, command_id: int) -> None:
        """Let the next commit mark a command as applied."""
        self._unwritten.command(command_id)

    def _start(self, now_ms: int) -> None:
        if self.header.started_at is None:
            self.header.started_at = now_ms
            self._unwritten.event(EventType.EXECUTION_STARTED, None, now_ms)

    def _move(self, position: int, status: StepStatus) -> None:
        step = self.steps[position]
        assert status in STEP_MOVES[step.status], f"{self.id} {step.task.id}: {step.status} -> {status}"
        if position != self.synthesis:
            self.tally.move(step.status, status)
        step.status = status
        self._unwritten.touch(position, step)

    def _end(self, position: int, status: StepStatus, now_ms: int, *, reason: Reason | None = None) -> None:
        self._move(position, status)
        step = self.steps[position]
        step.reason = reason
        step.completed_at = now_ms
        step.next_attempt_at = None
        if step.started_at is not None:
            step.duration_ms = max(0, now_ms - step.started_at)
        if position != self.synthesis:
            self.tally.end(status, reason)

    def _recount(self, position: int, step: Step) -> None:
        self.tally.move(StepStatus.PENDING, step.status)
        if not step.ended:
            return
        self.tally.end(step.status, step.reason)
        if step.status is StepStatus.FAILED:
            self._failures.append(position)
        if step.status is StepStatus.COMPLETED or step.reason == Reason.CHOSEN:
            for child in self.graph.children[position]:
                self.steps[child].unmet -= 1

    def _release_children(self, position: int) -> None:
        if position == self.synthesis:
            return
        for child in self.graph.children[position]:
            step = self.steps[child]
            step.unmet -= 1
            if not step.unmet and step.status is StepStatus.PENDING:
                self._unwritten.ready.append(child)

    def _skip_descendants(self, position: int, now_ms: int) -> None:
        if position == self.synthesis:
            return
        stack = [position]
        while stack:
            because = stack.pop()
            for child in self.graph.children[because]:
                if self.steps[child].status is StepStatus.PENDING:
                    self._end(child, StepStatus.SKIPPED, now_ms, reason=Reason.DEPENDENCY_FAILED)
                    data = {"reason": Reason.DEPENDENCY_FAILED, "because": self.steps[because].task.id}
                    self._unwritten.event(EventType.SUBSTEP_SKIPPED, self.steps[child], now_ms, data)
                    stack.append(child)

    def _ask_whether(self, position: int, why: str, now_ms: int) -> None:
        """Let a `once` step wait for somebody who says whether its latest attempt happened."""
        step = self.steps[position]
        step.error, step.error_code = why, Reason.OUTCOME_UNKNOWN
        self._wait(position, doubt.question(step, why, now_ms), Reason.OUTCOME_UNKNOWN, now_ms)

    def _wait(self, position: int, asked: QuestionRow, reason: Reason, now_ms: int) -> None:
        step = self.steps[position]
        self._start(now_ms)
        self._move(position, StepStatus.WAITING)
        step.reason, step.question, step.questions_asked = reason, asked, asked.number
        self._unwritten.question(asked)
        data = {"kind": asked.kind, "question": asked.number}
        self._unwritten.event(EventType.SUBSTEP_WAITING, step, now_ms, data)
        self._settle(now_ms)

    def _close_question(
        self, step: Step, outcome: QuestionOutcome, now_ms: int, answer: JsonText | None = None, by: str | None = None
    ) -> None:
        if step.question is not None:
            closed = step.question._replace(closed_at=now_ms, answer=answer, answered_by=by, outcome=outcome.value)
            self._unwritten.question(closed)
            step.question = step.next_attempt_at = None

    def _override(self, position: int, said: Mapping[str, Json], now_ms: int, by: str | None) -> None:
        """Let `said` (see `dagbok.domain.overrides`, with the `effect` that follows) stand over the plan's task."""
        step = self.steps[position]
        step.override = overrides.merged(step.override, said)
        step.call(overrides.apply(self._planned(position), step.override), Effect(said.get("effect", step.effect)))
        step.revision += 1
        self._unwritten.override(step)
        self._unwritten.touch(position, step)
        data = {"by": by, "revision": step.revision, **overrides.told(said)}
        self._unwritten.event(EventType.SUBSTEP_OVERRIDDEN, step, now_ms, data)

    def _planned(self, position: int) -> Task:
        """Return the sub-task as the plan has it."""
        return self.steps[position].task if position == self.synthesis else self.plan.sub_tasks[position]

    def _charge(self, step: Step, charge: Charge) -> None:
        if charge is not NO_CHARGE:
            step.charge(charge)
            self.header.charge(charge)

    def abort(self, reason: Reason, message: str, now_ms: int) -> None:
        """End the execution because it cannot go on; what completed counts: `partial` or `failed`."""
        if not self.ended:
            self.header.error, self.header.error_code = message, reason
            self._stop(reason, message, now_ms, None)

    def _stop(self, reason: Reason, message: str, now_ms: int, by: str | None) -> None:
        harmless = frozenset(self.unstarted())
        for position, step in enumerate(self.steps):
            if step.ended:
                continue
            doubtful = False
            if step.status is StepStatus.RUNNING:
                self._unwritten.attempt(step, AttemptOutcome.CANCELLED.value, reason, message, now_ms)
                doubtful = step.effect is Effect.ONCE and position not in harmless
            self._close_question(step, QuestionOutcome.CANCELLED, now_ms, by=by)
            self._end(position, StepStatus.CANCELLED, now_ms, reason=reason)
            if doubtful:  # whoever runs it again has to know; of one that is asked about its row says so already
                step.error_code = Reason.OUTCOME_UNKNOWN
                step.error = f"It was cut off ({message.rstrip('.')}), and nobody knows what it has done."
            self._unwritten.event(EventType.SUBSTEP_CANCELLED, step, now_ms, {"reason": reason})
        self._unwritten.ready.clear()
        self._settle(now_ms)

    def _settle(self, now_ms: int, *, resumed: bool = False) -> None:
        """Bring the synthesis and the execution's status up to date with the counters. O(1) but for the end.

        `resumed`: the diary says already that the execution goes on.
        """
        if self.status is ExecutionStatus.RUNNING and self.tally.goes_on and not self.paused:
            return  # as before nearly every move
        if not self.tally.open and self.synthesis is not None:
            last = self.steps[self.synthesis]
            if last.unmet and last.status is StepStatus.PENDING:
                last.unmet = 0
                if self.tally[StepStatus.COMPLETED]:
                    self._unwritten.ready.append(self.synthesis)
                else:
                    reason = Reason.DEPENDENCY_FAILED if self.tally.lost else Reason.CHOSEN
                    self._end(self.synthesis, StepStatus.SKIPPED, now_ms, reason=reason)
                    self._unwritten.event(EventType.SUBSTEP_SKIPPED, last, now_ms, {"reason": reason})
        last_status = None if self.synthesis is None else self.steps[self.synthesis].status
        started = self.header.started_at is not None
        status = self.tally.status(last_status, started=started, cancelled=self.cancel_requested, paused=self.paused)
        if status is not self.status:
            self._enter(status, now_ms, resumed=resumed)
            self._keep_time(now_ms)
        elif status is ExecutionStatus.WAITING:  # what of it works beside the question may have changed
            self._keep_time(now_ms)

    def _keep_time(self, now_ms: int) -> None:
        """Let the active time run while work goes on: also of what does beside a question to a person."""
        works = self._works
        if works and not self.header.active:
            self.header.activate(now_ms)
        elif not works:
            self.header.rest(now_ms)

    @property
    def _works(self) -> bool:
        if self.status is ExecutionStatus.WAITING:
            return bool(self.tally[StepStatus.RUNNING])
        return self.status is ExecutionStatus.RUNNING

    def _enter(self, status: ExecutionStatus, now_ms: int, *, resumed: bool) -> None:
        assert status in EXECUTION_MOVES[self.status], f"{self.id}: {self.status} -> {status}"
        before, self.status = self.status, status
        if status is ExecutionStatus.RUNNING:
            if before is ExecutionStatus.WAITING and not resumed:
                self._unwritten.event(EventType.EXECUTION_RESUMED, None, now_ms)
        elif status is ExecutionStatus.WAITING:
            why = "human" if self.tally[StepStatus.WAITING] else "paused"  # the synthesis never asks
            self._unwritten.event(EventType.EXECUTION_WAITING, None, now_ms, {"reason": why})
        elif status is not ExecutionStatus.PENDING:
            self._finish(now_ms)

    def _finish(self, now_ms: int) -> None:
        header = self.header
        header.rest(now_ms)
        header.completed_at = now_ms
        header.wake_at = header.parked_at = header.paused_at = None
        if self.synthesis is None:
            header.final_result = ending.of_sinks([self.steps[position] for position in self.graph.sinks()])
        elif (last := self.steps[self.synthesis]).status is StepStatus.COMPLETED and last.result is not None:
            header.synthesis_result = header.final_result = values.as_text(values.decode(last.result))
        elif last.status is StepStatus.FAILED:
            header.error, header.error_code = f"The synthesis failed: {last.error}", "synthesis_failed"
        if self._failures and header.error is None:
            failed = [self.steps[position] for position in self._failures]
            header.error, header.error_code = ending.blame(failed, self.tally.total), "sub_tasks_failed"
        counts: dict[str, Any] = {
            name: self.tally[StepStatus(name)] for name in ("completed", "failed", "skipped", "cancelled")
        }
        if self.cancel_requested:
            counts["by"] = self.cancelled_by
        self._unwritten.event(_END_EVENTS[self.status], None, now_ms, counts | {"durationMs": header.active_ms})
