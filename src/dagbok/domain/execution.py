"""The aggregate: one run of a plan, in memory, as pure transitions.

What is done to it is here; what follows from that (counters, dependents, status, the changes to write) is `flow`.

The owner calls, in any order the states allow: `begin`, then one of `complete`, `fail`; `ask` and `answer`; `ring`
when `next_due_at` has come; `pause`, `resume`, `cancel`; `take_over` after `restore`; `release` when nothing is left
to do for a while. Times are UTC milliseconds and come from the caller.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from dagbok.domain import doubt, refs, submission, values
from dagbok.domain.call import NO_CHARGE, Charge, Missing
from dagbok.domain.events import EventType
from dagbok.domain.ids import TaskId
from dagbok.domain.plan import Plan, SubTask
from dagbok.domain.records import NewStep, QuestionRow, StoredExecution
from dagbok.domain.rerun import Rerun
from dagbok.domain.retry import NO_RETRY, Policy
from dagbok.domain.states import ENDED, AttemptOutcome, Effect, ExecutionStatus, Reason, StepStatus
from dagbok.domain.step import Step
from dagbok.domain.unwritten import Unwritten
from dagbok.domain.values import Json, JsonText
from dagbok.domain.wording import also
from dagbok.errors import Conflict

#: A step whose process stopped this often while it ran fails with `crash_loop`.
MAX_INTERRUPTIONS = 3


class Execution(Rerun):
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
        if due_at is not None:
            self.agenda.add(position)
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
        unknown: bool = False,
        retry: Policy = NO_RETRY,
        retry_after_s: float | None = None,
    ) -> None:
        """Close the attempt without a result: ask whether it happened, try again later, or give the step up.

        Args:
            position: The step. With no attempt open (it could not start) it is given up.
            code: Of the error; `retry` decides by it.
            message: For people.
            now_ms: The time.
            charge: What the attempt cost.
            detail: More about the error.
            outcome: How the attempt ended, a word of `AttemptOutcome`.
            unknown: Nobody knows what the attempt has done; of a `once` step a person is asked.
            retry: Which errors are tried again, how often, and when.
            retry_after_s: How long the other side asked us to wait.
        """
        step = self.steps[position]
        code = values.clean(str(code), 100)  # of a tool's choice, and part of the diary
        opened = step.status is StepStatus.RUNNING  # otherwise the last attempt keeps its own outcome
        asks = opened and unknown and step.effect is Effect.ONCE
        next_try: int | str = ""
        if opened:
            step.failures += 1
            if not asks:
                next_try = self._next_try(step, code, now_ms, retry, retry_after_s)
            if isinstance(next_try, str) and next_try:
                message = also(message, f"Not tried again: {next_try}.")
            self._unwritten.attempt(step, outcome, code, message, now_ms, charge)
        self._charge(step, charge)
        if asks:
            self._ask_whether(position, message, now_ms)
        elif isinstance(next_try, int):
            self._try_again(position, code, message, now_ms, next_try)
            step.error, step.error_code, step.error_detail = message, code, detail
            self._settle(now_ms)
        else:
            self._give_up(position, code, message, detail, now_ms)

    def _next_try(self, step: Step, code: str, now_ms: int, retry: Policy, retry_after_s: float | None) -> int | str:
        """Return the pause before the next attempt, or why there is none; see `Policy.next_try`."""
        key, deadline_at = f"{self.id}:{step.task.id}:{step.attempt}", self.header.deadline_at
        left_ms = None if deadline_at is None else deadline_at - now_ms
        return retry.next_try(code, step.failures, step.effect, key, retry_after_s=retry_after_s, left_ms=left_ms)

    def _try_again(self, position: int, code: str, message: str, now_ms: int, delay_ms: int) -> None:
        """Put the step back until its pause is over."""
        step = self.steps[position]
        self._move(position, StepStatus.PENDING)
        data = {"attempt": step.attempt, "errorCode": code, "error": message[:500], "delayMs": delay_ms}
        self._unwritten.event(EventType.SUBSTEP_RETRYING, step, now_ms, data)
        if delay_ms:
            step.duration_ms = max(0, now_ms - (step.started_at or now_ms))  # of the attempt: now the back-off begins
            step.next_attempt_at = now_ms + delay_ms
            self.agenda.add(position)
        else:
            self._unwritten.ready.append(position)

    def _give_up(self, position: int, code: str, message: str, detail: str | None, now_ms: int) -> None:
        """End a step without a result of its own; `on_failure` decides what becomes of it."""
        step = self.steps[position]
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
        prompt: str,
        now_ms: int,
        *,
        answer_schema: JsonText | None = None,
        assignee: str | None = None,
    ) -> None:
        """Let the step wait for a person's answer."""
        step = self.steps[position]
        number = step.questions_asked + 1
        asked = QuestionRow(
            step.task.id, number, "human", prompt, answer_schema, assignee, None, now_ms, None, None, None, None
        )  # fmt: skip
        self._wait(position, asked, Reason.HUMAN, now_ms)

    def late(self, position: int, attempt: int, brought: Mapping[str, Json]) -> None:
        """Lay what an attempt brought after it was given up beside the question whether it happened.

        Raises:
            Conflict: Nobody asks about that attempt (any more); nothing has changed.
        """
        step = self.steps[position]
        asked = step.question
        if asked is None or asked.kind != doubt.KIND or step.attempt != attempt:
            message = f"Nobody asks any more what attempt {attempt} of sub-step {step.task.id!r} of {self.id} has done."
            raise Conflict(message, execution_id=self.id, task_id=step.task.id)
        step.question = doubt.with_late(asked, dict(brought))
        self._unwritten.question(step.question)
        self._unwritten.touch(position, step)

    def ring(self, now_ms: int, *, unstarted: Iterable[int] = ()) -> list[int]:
        """Do what is due: end timers, end the execution at its deadline; return the steps whose back-off is over.

        Those have to be begun by the caller. They are told here once, and by no commit (`Changes.ready`): whoever
        passes over one has lost it until the execution is taken over anew.

        `unstarted`: see `cancel`.
        """
        deadline_at = self.header.deadline_at
        if deadline_at is not None and now_ms >= deadline_at:
            done = self.tally[StepStatus.COMPLETED]
            message = f"The deadline has passed when {done:,} of {self.tally.total:,} sub-tasks had completed."
            self.abort(Reason.DEADLINE, message, now_ms, unstarted=unstarted)
        again: list[int] = []
        while (position := self.agenda.pop(now_ms)) is not None:
            step = self.steps[position]
            if step.status is StepStatus.RUNNING:
                waited_ms = (step.next_attempt_at or 0) - (step.started_at or 0)
                self.complete(position, values.encode({"waited_seconds": waited_ms / 1000}), now_ms)
            else:
                step.next_attempt_at = None
                again.append(position)
        return again

    def hold(self, position: int) -> None:
        """Keep a step that could start but for the pause; it is ready again once the execution is resumed."""
        self._unwritten.ready.append(position)

    def take_over(self, now_ms: int) -> None:
        """Close the attempts an earlier owner left open; timers and back-offs go on.

        After a clock that was set back none of them, nor the deadline, is farther from now than when it was set.
        """
        if self.header.deadline_at is not None and self._allowed_ms is not None:
            self.header.deadline_at = min(self.header.deadline_at, now_ms + self._allowed_ms)
        if self.status is ExecutionStatus.RUNNING:
            self.header.activate(now_ms)
            if self._parked is not None:
                self.header.waited(*self._parked, now_ms)
        for position, step in enumerate(self.steps):
            if step.next_attempt_at is not None:
                if step.follow(now_ms):
                    self.agenda.add(position)
                    self._unwritten.touch(position, step)
            elif step.status is StepStatus.RUNNING:
                self._interrupt(position, now_ms)

    def _interrupt(self, position: int, now_ms: int) -> None:
        """Run a cut-off attempt again, or ask whether it happened; give up after `MAX_INTERRUPTIONS`.

        Then nobody is asked: the answer might be to run once more what has stopped the process so often.
        """
        step = self.steps[position]
        step.interruptions += 1
        outcome = AttemptOutcome.INTERRUPTED.value
        if step.interruptions >= MAX_INTERRUPTIONS:
            message = f"The process stopped {step.interruptions} times while this sub-task ran; it may be the cause."
            detail = None
            if step.effect is Effect.ONCE:  # it is given up, which repeats nothing; but whoever looks has to know
                message += " Nobody knows what its last attempt has done."
                detail = f"{Reason.OUTCOME_UNKNOWN.value}: look whether attempt {step.attempt} has happened."
            self._unwritten.attempt(step, outcome, "crash_loop", message, now_ms)
            self._give_up(position, "crash_loop", message, detail, now_ms)
            return
        message = "The process that ran this attempt stopped before it ended."
        self._unwritten.attempt(step, outcome, "interrupted", message, now_ms)
        if step.effect is Effect.ONCE:
            self._ask_whether(position, message, now_ms)
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

    def cancel(self, now_ms: int, *, by: str | None = None, unstarted: Iterable[int] = ()) -> None:
        """End the execution on request: what runs is cut off, what waits will not start.

        Args:
            now_ms: The time.
            by: Who asks.
            unstarted: The positions with an open attempt whose body has not begun: it is known what they have done.

        Raises:
            Conflict: It has ended already.
        """
        self._must_go_on()
        self.cancel_requested, self.cancelled_by = True, by
        self._stop(Reason.CANCELLED, "Cancelled on request.", now_ms, by, unstarted)

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

    def abort(self, reason: Reason, message: str, now_ms: int, *, unstarted: Iterable[int] = ()) -> None:
        """End the execution because it cannot go on; what completed counts: `partial` or `failed`.

        `unstarted`: see `cancel`.
        """
        if not self.ended:
            self.header.error, self.header.error_code = message, reason
            self._stop(reason, message, now_ms, None, unstarted)

    def _stop(self, reason: Reason, message: str, now_ms: int, by: str | None, unstarted: Iterable[int]) -> None:
        harmless = frozenset(unstarted)
        for position, step in enumerate(self.steps):
            if step.ended:
                continue
            doubtful = False
            if step.status is StepStatus.RUNNING:
                self._unwritten.attempt(step, AttemptOutcome.CANCELLED.value, reason, message, now_ms)
                doubtful = step.effect is Effect.ONCE and position not in harmless
            self._close_question(step, now_ms, None, by)
            self._end(position, StepStatus.CANCELLED, now_ms, reason=reason)
            if doubtful:  # whoever runs it again has to know; of one that is asked about its row says so already
                step.error_code = Reason.OUTCOME_UNKNOWN
                step.error = f"It was cut off ({message.rstrip('.')}), and nobody knows what it has done."
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
        if question.kind == doubt.KIND and decision not in ("retry", "succeeded", "fail"):
            message = f"Sub-step {step.task.id!r} of {self.id} waits for a decision: retry, succeeded or fail."
            raise Conflict(message, execution_id=self.id, task_id=step.task.id)
        self._close_question(step, now_ms, values.encode(answer), by)
        data: dict[str, Json] = {"kind": question.kind, "by": by}
        if question.kind == doubt.KIND:
            data["decision"] = decision
        self._unwritten.event(EventType.SUBSTEP_ANSWERED, step, now_ms, data)
        if question.kind == "human":
            self.complete(position, values.encode(answer), now_ms)
        elif decision == "succeeded":
            step.error = step.error_code = None
            known = values.encode(answer["result"]) if "result" in answer else doubt.late_result(question)
            self.complete(position, values.encode(None) if known is None else known, now_ms)
        elif decision == "retry":
            self._move(position, StepStatus.PENDING)
            step.reason = step.error = step.error_code = None
            self._unwritten.ready.append(position)
            self._settle(now_ms)
        else:
            self._give_up(
                position, "outcome_unknown", "It was cut off, and a person decided that it failed.", None, now_ms
            )

    def restore(self, stored: StoredExecution) -> None:
        """Take the state of stored rows, as the last owner committed it. Linear in steps and edges."""
        self.status = ExecutionStatus(stored.header.status)
        self.header.load(stored.header)
        self._parked = stored.parked
        self._allowed_ms = submission.allowed_ms(stored)
        self._unwritten = Unwritten(stored.last_event_seq)
        for row in stored.steps:
            self.steps[self.index[row.task_id]].load(row)
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


def restore(stored: StoredExecution, plan: Plan) -> Execution:
    """Return the aggregate of a stored execution."""
    effects = stored.effects
    execution = Execution(stored.id, plan, epoch=stored.epoch, effect_of=lambda task: effects[task.id])
    execution.restore(stored)
    return execution
