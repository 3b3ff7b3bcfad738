"""The tries of a step: they begin, report, and end with a result, another try, a question, or for good."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from dagbok.domain import values
from dagbok.domain.call import NO_CHARGE, Charge
from dagbok.domain.events import EventType
from dagbok.domain.flow import Flow
from dagbok.domain.retry import NO_RETRY, Policy
from dagbok.domain.states import AttemptOutcome, Effect, Reason, StepStatus
from dagbok.domain.step import Step
from dagbok.domain.values import JsonText
from dagbok.domain.wording import also

#: A step whose process stopped this often while it ran fails with `crash_loop`.
MAX_INTERRUPTIONS = 3


@lru_cache(maxsize=1024)
def _started(attempt: int, tool: str) -> JsonText:
    return values.encode({"attempt": attempt, "tool": tool})


class Trying(Flow):
    """The operations on one step that the engine calls."""

    def begin(self, position: int, now_ms: int, *, input: JsonText | None = None, due_at: int | None = None) -> None:
        """Open an attempt. `input` where it differs from the params; `due_at` for a timer."""
        step = self.steps[position]
        self._start(now_ms)
        self._move(position, StepStatus.RUNNING)
        step.attempt += 1
        step.input = input
        step.approve()
        step.error = step.error_code = step.error_detail = step.progress = None
        step.started_at, step.completed_at, step.duration_ms = now_ms, None, None
        step.next_attempt_at = due_at
        if due_at is not None:
            self.agenda.add(position)
        self._unwritten.event(EventType.SUBSTEP_STARTED, step, now_ms, _started(step.attempt, step.task.tool))
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
        duration_ms, size = step.duration_ms or 0, values.size(result)
        data: Mapping[str, Any] | JsonText
        if charge.usage:
            data = {"attempt": step.attempt, "durationMs": duration_ms, "resultBytes": size}
            data |= {"usage": charge.usage, "costUsd": charge.cost_usd, "model": charge.model}
        else:  # of most steps, and nothing but integers
            data = JsonText(f'{{"attempt":{step.attempt},"durationMs":{duration_ms},"resultBytes":{size}}}')
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

    def _give_up(
        self, position: int, code: str, message: str, detail: str | None, now_ms: int, policy: str | None = None
    ) -> None:
        """End a step without a result of its own; `policy`, else its `on_failure`, decides what becomes of it."""
        step = self.steps[position]
        policy = policy or step.task.on_failure
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
            # Also where the synthesis alone is left: whether it runs must not depend on which of two ends first.
            left = self.tally.open or (self.synthesis is not None and not self.steps[self.synthesis].ended)
            if self.fail_fast and left:
                message = f"Ended at the first failure: {step.task.id!r} ({code}): {message}"
                self.abort(Reason.FAIL_FAST, values.clean(message, 2000), now_ms)
        self._settle(now_ms)

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
