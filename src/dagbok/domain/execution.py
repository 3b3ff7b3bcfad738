"""The aggregate: one run of a plan, in memory, as pure transitions.

Each event costs O(its out-degree): a counter of unmet dependencies per sub-step, a counter per status, and no scan over
all steps. What changed since the last commit waits in the aggregate until `take_changes`; a step becomes startable only
by the commit of the changes that made it ready (`Changes.ready`).

The owner calls, in any order the states allow: `begin`, then one of `complete`, `fail`; `ask` and `answer`; `cancel`;
`take_over` after `restore`. Times are UTC milliseconds and come from the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from dagbok.domain import ending, graph, refs, submission, values
from dagbok.domain.call import NO_CHARGE, Charge, Missing
from dagbok.domain.events import EventType
from dagbok.domain.header import Header
from dagbok.domain.ids import Epoch, ExecutionId, TaskId
from dagbok.domain.plan import Plan, SubTask
from dagbok.domain.records import Changes, NewStep, QuestionRow, StoredExecution
from dagbok.domain.states import (
    ENDED,
    EXECUTION_ENDED,
    EXECUTION_MOVES,
    STEP_MOVES,
    AttemptOutcome,
    Effect,
    ExecutionStatus,
    Reason,
    StepStatus,
)
from dagbok.domain.step import Step
from dagbok.domain.tally import Tally
from dagbok.domain.unwritten import Unwritten
from dagbok.domain.values import Json, JsonText
from dagbok.errors import Conflict

_END_EVENTS = {
    ExecutionStatus.COMPLETED: EventType.EXECUTION_COMPLETED,
    ExecutionStatus.PARTIAL: EventType.EXECUTION_PARTIAL,
    ExecutionStatus.FAILED: EventType.EXECUTION_FAILED,
    ExecutionStatus.CANCELLED: EventType.EXECUTION_CANCELLED,
}


#: A step whose process stopped this often while it ran fails with `crash_loop`.
MAX_INTERRUPTIONS = 3


class Execution:
    """One run of a plan. `steps` are in the plan's order, the synthesis (if any) last."""

    def __init__(self, id: ExecutionId, plan: Plan, *, epoch: Epoch, effect_of: Callable[[SubTask], Effect]) -> None:
        tasks = plan.sub_tasks
        parents = submission.parents(tasks)
        self.id = id
        self.plan = plan
        self.epoch = epoch
        self.graph = graph.build(parents)
        self.steps = [Step(task, effect_of(task), len(parents[position])) for position, task in enumerate(tasks)]
        self.synthesis: int | None = None
        if (last := submission.synthesis_task(plan)) is not None:
            self.synthesis = len(tasks)
            self.steps.append(Step(last, Effect.IDEMPOTENT, len(tasks)))
        self.index = {step.task.id: position for position, step in enumerate(self.steps)}
        self.status = ExecutionStatus.PENDING
        self.cancel_requested = False
        self.header = Header()
        self.tally = Tally(len(tasks))
        self._failures: list[int] = []
        self._unwritten = Unwritten(seq=1)  # execution.created is written with the submission
        self._unwritten.ready = [position for position, above in enumerate(parents) if not above]

    # -- reading ----------------------------------------------------------------------------------------------------

    @property
    def ended(self) -> bool:
        return self.status in EXECUTION_ENDED

    @property
    def running(self) -> Iterator[int]:
        """The positions with an open attempt. Scans: for cancelling and taking over, not for each event."""
        return (position for position, step in enumerate(self.steps) if step.status is StepStatus.RUNNING)

    def count(self, status: StepStatus) -> int:
        """Return how many sub-tasks (the synthesis is none) are in `status`."""
        return self.tally[status]

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

    def look_up(self, task_id: TaskId) -> SubTask | None:
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

    def new_steps(self) -> list[NewStep]:
        """Return the rows of all steps, for the submission."""
        return submission.new_steps(self.steps)

    # -- what happens to a step -------------------------------------------------------------------------------------

    def begin(self, position: int, now_ms: int, *, input: JsonText | None = None, due_at: int | None = None) -> None:
        """Open an attempt. `input` where it differs from the params; `due_at` for a timer."""
        step = self.steps[position]
        self._start(now_ms)
        self._move(position, StepStatus.RUNNING)
        step.attempt += 1
        step.input = input
        step.reason = step.error = step.error_code = step.error_detail = step.progress = None
        step.started_at, step.completed_at, step.duration_ms = now_ms, None, None
        step.next_attempt_at = due_at
        self._unwritten.event(
            EventType.SUBSTEP_STARTED, step, now_ms, {"attempt": step.attempt, "tool": step.task.tool}
        )
        self._settle(now_ms)

    def report(self, position: int, progress: JsonText) -> None:
        """Keep the last progress of a running step. No event: progress is no diary."""
        step = self.steps[position]
        if step.status is StepStatus.RUNNING:
            step.progress = progress
            self._unwritten.touch(position, step)

    def complete(
        self,
        position: int,
        result: JsonText,
        now_ms: int,
        charge: Charge = NO_CHARGE,
    ) -> None:
        """Close the step with a result; its dependents may become ready."""
        step = self.steps[position]
        self._end(position, StepStatus.COMPLETED, now_ms)
        step.result = result
        self._charge(step, charge)
        data: dict[str, Any] = {
            "attempt": step.attempt,
            "durationMs": step.duration_ms,
            "resultBytes": len(result.encode()),
        }
        if charge.usage:
            data |= {"usage": charge.usage, "costUsd": charge.cost_usd, "model": charge.model}
        self._unwritten.event(EventType.SUBSTEP_COMPLETED, step, now_ms, data)
        self._release_children(position)
        self._settle(now_ms)

    def fail(
        self,
        position: int,
        code: str,
        message: str,
        now_ms: int,
        charge: Charge = NO_CHARGE,
        *,
        detail: str | None = None,
        outcome: str = AttemptOutcome.FAILED.value,
    ) -> None:
        """Close the attempt without a result; `on_failure` decides what becomes of the step."""
        step = self.steps[position]
        code = values.clean(str(code), 100)  # of a tool's choice, and part of the diary
        if step.status is StepStatus.RUNNING:  # otherwise no attempt is open, and the last one keeps its own outcome
            self._unwritten.attempt(step, outcome, code, message, now_ms, charge)
        self._charge(step, charge)
        policy = step.task.on_failure
        status = {"default": StepStatus.COMPLETED, "skip": StepStatus.SKIPPED}.get(policy, StepStatus.FAILED)
        self._end(position, status, now_ms, reason=Reason.CHOSEN if policy == "skip" else None)
        step.error, step.error_code, step.error_detail = message, code, detail
        data = {"attempt": step.attempt, "errorCode": code, "error": message[:500]}
        if policy == "default":
            step.result = values.encode(step.task.default)
            self._unwritten.event(EventType.SUBSTEP_COMPLETED, step, now_ms, data | {"reason": "default"})
            self._release_children(position)
        elif policy == "skip":
            self._unwritten.event(EventType.SUBSTEP_SKIPPED, step, now_ms, data | {"reason": Reason.CHOSEN})
            self._release_children(position)
        else:
            self._unwritten.event(EventType.SUBSTEP_FAILED, step, now_ms, data)
            self._failures.append(position)
            self._skip_descendants(position, now_ms)
        self._settle(now_ms)

    def ask(
        self,
        position: int,
        kind: str,
        prompt: str,
        now_ms: int,
        *,
        reason: Reason = Reason.HUMAN,
        answer_schema: JsonText | None = None,
        assignee: str | None = None,
        shown: JsonText | None = None,
    ) -> None:
        """Let the step wait for a person."""
        step = self.steps[position]
        self._start(now_ms)
        self._move(position, StepStatus.WAITING)
        step.reason = reason
        step.questions_asked += 1
        step.question = QuestionRow(
            step.task.id,
            step.questions_asked,
            kind,
            prompt,
            answer_schema,
            assignee,
            shown,
            now_ms,
            None,
            None,
            None,
            None,
        )
        self._unwritten.question(step.question)
        self._unwritten.event(EventType.SUBSTEP_WAITING, step, now_ms, {"kind": kind, "question": step.questions_asked})
        self._settle(now_ms)

    def take_over(self, now_ms: int) -> list[int]:
        """Close the attempts an earlier owner left open, and return the timers that still run."""
        if self.status is ExecutionStatus.RUNNING:
            self.header.activate(now_ms)
        timers: list[int] = []
        for position in list(self.running):
            if self.steps[position].next_attempt_at is not None:
                timers.append(position)
            else:
                self._interrupt(position, now_ms)
        return timers

    def _interrupt(self, position: int, now_ms: int) -> None:
        """Run a cut-off attempt again, or ask whether it happened; give up after `MAX_INTERRUPTIONS`."""
        step = self.steps[position]
        step.interruptions += 1
        if step.interruptions >= MAX_INTERRUPTIONS:
            message = f"The process stopped {step.interruptions} times while this sub-task ran; it may be the cause."
            self.fail(position, "crash_loop", message, now_ms, outcome=AttemptOutcome.INTERRUPTED.value)
            return
        message = "The process that ran this attempt stopped before it ended."
        self._unwritten.attempt(step, AttemptOutcome.INTERRUPTED.value, "interrupted", message, now_ms)
        if step.effect is Effect.ONCE:
            prompt = (
                f"Sub-task {step.task.id!r} ({step.task.tool}) was cut off while it ran, and must not be repeated "
                "blindly. Did it happen?"
            )
            shown = values.encode({"params": step.task.tool_or_prompt.params, "description": step.task.description})
            self.ask(
                position, "did_it_happen", prompt, now_ms, reason=Reason.OUTCOME_UNKNOWN, shown=step.input or shown
            )
            return
        self._move(position, StepStatus.PENDING)
        self._unwritten.event(
            EventType.SUBSTEP_RETRYING, step, now_ms, {"attempt": step.attempt, "reason": "interrupted"}
        )
        self._unwritten.ready.append(position)
        self._settle(now_ms)

    def suspend(self, position: int, now_ms: int) -> None:
        """Put back a step whose body the owner stops, and which may run again: the next owner does that."""
        step = self.steps[position]
        message = "The engine stopped before this attempt ended."
        self._unwritten.attempt(step, AttemptOutcome.STOPPED.value, "stopped", message, now_ms)
        self._move(position, StepStatus.PENDING)
        self._unwritten.event(EventType.SUBSTEP_RETRYING, step, now_ms, {"attempt": step.attempt, "reason": "stopped"})
        self._settle(now_ms)

    # -- what people ask for ----------------------------------------------------------------------------------------

    def cancel(self, now_ms: int, *, by: str | None = None) -> None:
        """End the execution on request: what runs is cut off, what waits will not start.

        Raises:
            Conflict: It has ended already.
        """
        if self.ended:
            raise Conflict(f"Execution {self.id} is {self.status} already.", execution_id=self.id)
        self.cancel_requested = True
        self._stop(Reason.CANCELLED, "Cancelled on request.", now_ms, by)

    def abort(self, reason: Reason, message: str, now_ms: int) -> None:
        """End the execution because it cannot go on; what completed counts: `partial` or `failed`."""
        if not self.ended:
            self.header.error, self.header.error_code = message, reason
            self._stop(reason, message, now_ms, None)

    def _stop(self, reason: Reason, message: str, now_ms: int, by: str | None) -> None:
        for position, step in enumerate(self.steps):
            if step.ended:
                continue
            if step.status is StepStatus.RUNNING and step.next_attempt_at is None:
                self._unwritten.attempt(step, AttemptOutcome.CANCELLED.value, reason, message, now_ms)
            self._close_question(step, now_ms, None, by)
            self._end(position, StepStatus.CANCELLED, now_ms, reason=reason)
            self._unwritten.event(EventType.SUBSTEP_CANCELLED, step, now_ms, {"reason": reason})
        self._unwritten.ready.clear()
        self._settle(now_ms)

    def answer(self, position: int, answer: Json, now_ms: int, *, by: str | None = None) -> None:
        """Apply a person's answer to the step's open question.

        For `human` the answer is the result; for `did_it_happen` it is
        `{"decision": "retry" | "succeeded" | "fail", "result"?}`.

        Raises:
            Conflict: The step does not wait for an answer, or not for this one; nothing has changed.
        """
        step = self.steps[position]
        question = step.question
        if step.status is not StepStatus.WAITING or question is None:
            message = f"Sub-step {step.task.id!r} of {self.id} does not wait for an answer; it is {step.status}."
            raise Conflict(message, execution_id=self.id, task_id=step.task.id)
        decision = answer.get("decision") if isinstance(answer, dict) else None
        if question.kind == "did_it_happen" and decision not in ("retry", "succeeded", "fail"):
            message = f"Sub-step {step.task.id!r} of {self.id} waits for a decision: retry, succeeded or fail."
            raise Conflict(message, execution_id=self.id, task_id=step.task.id)
        self._close_question(step, now_ms, values.encode(answer), by)
        self._unwritten.event(EventType.SUBSTEP_ANSWERED, step, now_ms, {"kind": question.kind, "by": by})
        if question.kind == "human":
            self.complete(position, values.encode(answer), now_ms)
        elif decision == "succeeded":
            self.complete(position, values.encode(answer.get("result")), now_ms)
        elif decision == "retry":
            self._move(position, StepStatus.PENDING)
            step.reason = None
            self._unwritten.ready.append(position)
            self._settle(now_ms)
        else:
            self.fail(position, "outcome_unknown", "It was cut off, and a person decided that it failed.", now_ms)

    def applied(self, command_id: int) -> None:
        """Let the next commit mark a command as applied."""
        self._unwritten.command(command_id)

    # -- committing -------------------------------------------------------------------------------------------------

    @property
    def changed(self) -> bool:
        return bool(self._unwritten)

    def take_changes(self, now_ms: int) -> Changes:
        """Return everything since the last call, for one commit."""
        return self._unwritten.take(
            self.id, self.epoch, self.header.row(self.status, self.tally, now_ms), self.steps, ended=self.ended
        )

    def take_ready(self) -> list[int]:
        """Return the steps that were ready when a submission was committed or a stored execution read."""
        return self._unwritten.take_ready()

    def restore(self, stored: StoredExecution) -> None:
        """Take the state of stored rows, as the last owner committed it. Linear in steps and edges."""
        self.status = ExecutionStatus(stored.header.status)
        self.header.load(stored.header)
        self._unwritten = Unwritten(stored.last_event_seq)
        for row in stored.steps:
            self.steps[self.index[row.task_id]].load(row)
        for question in stored.questions:
            step = self.steps[self.index[question.task_id]]
            step.questions_asked = max(step.questions_asked, question.number)
            step.question = step.question if question.closed_at is not None else question
        for task_id, count in stored.interruptions.items():
            self.steps[self.index[task_id]].interruptions = count
        for position, step in enumerate(self.steps[: self.tally.total]):
            self._recount(position, step)
        self._unwritten.ready = [
            position
            for position, step in enumerate(self.steps)
            if not step.unmet and step.status is StepStatus.PENDING and position != self.synthesis
        ]
        if self.synthesis is not None and not self.tally.open:
            last = self.steps[self.synthesis]
            last.unmet = 0
            if last.status is StepStatus.PENDING:
                self._unwritten.ready.append(self.synthesis)

    # -- inside -----------------------------------------------------------------------------------------------------

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

    def _close_question(self, step: Step, now_ms: int, answer: JsonText | None, by: str | None) -> None:
        if step.question is not None:
            self._unwritten.question(step.question._replace(closed_at=now_ms, answer=answer, answered_by=by))
            step.question = None

    def _charge(self, step: Step, charge: Charge) -> None:
        if charge is not NO_CHARGE:
            step.charge(charge)
            self.header.charge(charge)

    def _settle(self, now_ms: int) -> None:
        """Bring the synthesis and the execution's status up to date with the counters. O(1) but for the end."""
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
        status = self.tally.status(last_status, started=started, cancelled=self.cancel_requested)
        if status is not self.status:
            self._enter(status, now_ms)

    def _enter(self, status: ExecutionStatus, now_ms: int) -> None:
        assert status in EXECUTION_MOVES[self.status], f"{self.id}: {self.status} -> {status}"
        before, self.status = self.status, status
        if status is not ExecutionStatus.RUNNING:
            self.header.rest(now_ms)
        if status is ExecutionStatus.RUNNING:
            self.header.activate(now_ms)
            if before is ExecutionStatus.WAITING:
                self._unwritten.event(EventType.EXECUTION_RESUMED, None, now_ms)
        elif status is ExecutionStatus.WAITING:
            self._unwritten.event(EventType.EXECUTION_WAITING, None, now_ms)
        else:
            self._finish(now_ms)

    def _finish(self, now_ms: int) -> None:
        header = self.header
        header.completed_at = now_ms
        if self.synthesis is None:
            header.final_result = ending.of_sinks([self.steps[position] for position in self.graph.sinks()])
        elif (last := self.steps[self.synthesis]).status is StepStatus.COMPLETED and last.result is not None:
            header.synthesis_result = header.final_result = values.as_text(values.decode(last.result))
        elif last.status is StepStatus.FAILED:
            header.error, header.error_code = f"The synthesis failed: {last.error}", "synthesis_failed"
        if self._failures and header.error is None:
            failed = [self.steps[position] for position in self._failures]
            header.error, header.error_code = ending.blame(failed, self.tally.total), "sub_tasks_failed"
        counts = {name: self.tally[StepStatus(name)] for name in ("completed", "failed", "skipped", "cancelled")}
        self._unwritten.event(_END_EVENTS[self.status], None, now_ms, counts | {"durationMs": header.active_ms})


def restore(stored: StoredExecution, plan: Plan) -> Execution:
    """Return the aggregate of a stored execution."""
    effects = stored.effects
    execution = Execution(stored.id, plan, epoch=stored.epoch, effect_of=lambda task: effects[task.id])
    execution.restore(stored)
    return execution
