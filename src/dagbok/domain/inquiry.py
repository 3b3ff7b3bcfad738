"""Questions to people: asked, answered, reminded of, and closed because nobody has answered in time.

Three kinds: `human` (the plan asks), `approval` (a sub-task asks before it runs: `dagbok.domain.approval`), and
`did_it_happen` (nobody knows what an attempt has done: `dagbok.domain.doubt`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from dagbok.domain import approval, doubt, values
from dagbok.domain.events import EventType
from dagbok.domain.plan import HUMAN, LONGEST_S
from dagbok.domain.records import QuestionRow
from dagbok.domain.states import QuestionOutcome, Reason, StepStatus
from dagbok.domain.step import Step
from dagbok.domain.trying import Trying
from dagbok.domain.values import Json, JsonText
from dagbok.errors import Conflict

#: By kind of question, what somebody may decide. A question of the plan is answered by a value.
DECISIONS: Final = {doubt.KIND: doubt.DECISIONS, approval.KIND: approval.DECISIONS}


class Inquiry(Trying):
    """The operations on a step that asks a person."""

    def ask(
        self,
        position: int,
        prompt: str,
        now_ms: int,
        *,
        answer_schema: JsonText | None = None,
        assignee: str | None = None,
    ) -> None:
        """Let the step wait for a person's answer, for as long as its task allows."""
        step = self.steps[position]
        limit_s, number = step.task.timeout_seconds, step.questions_asked + 1
        due_at = None if limit_s is None else now_ms + max(1, round(limit_s * 1000))
        asked = QuestionRow(
            step.task.id, number, HUMAN, prompt, answer_schema, assignee, None, now_ms, due_at, None, None, None
        )  # fmt: skip
        self._wait(position, asked, Reason.HUMAN, now_ms)
        if due_at is not None:
            step.next_attempt_at = due_at
            self.agenda.add(position)

    def ask_approval(self, position: int, now_ms: int, *, input: JsonText | None = None) -> None:
        """Let the step wait for a person who lets it run. `input`: its params where they differ from the plan's."""
        step = self.steps[position]
        step.input = input
        self._wait(position, approval.question(step, now_ms), Reason.APPROVAL, now_ms)

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

    def answer(
        self, position: int, answer: Json, now_ms: int, *, by: str | None = None, number: int | None = None
    ) -> None:
        """Apply a person's answer to the step's open question.

        Whoever answers has seen one question: that with the `number`. Where the execution was cancelled and retried
        meanwhile, another one may be open, about other params. None: of a release that did not say.

        For `human` the answer is the result; for the others it is `{"decision": ...}`: for `did_it_happen` retry,
        succeeded (with `result`?) or fail; for `approval` approve, edit (with `params`, and the `effect` of calling the
        tool with them) or reject.

        Raises:
            Conflict: The step does not wait for an answer, or not for this one; nothing has changed.
        """
        step = self.steps[position]
        question = self._open_question(step, number)
        decision = answer.get("decision") if isinstance(answer, dict) else None
        allowed = DECISIONS.get(question.kind)
        if allowed is not None and decision not in allowed:
            message = f"Sub-step {step.task.id!r} of {self.id} waits for a decision: {', '.join(allowed)}."
            raise Conflict(message, execution_id=self.id, task_id=step.task.id)
        kept = {name: part for name, part in answer.items() if name != "effect"} if allowed else answer
        self._close_question(step, QuestionOutcome.ANSWERED, now_ms, values.encode(kept), by)
        data: dict[str, Json] = {"kind": question.kind, "by": by}
        if allowed is not None:
            data["decision"] = decision
        self._unwritten.event(EventType.SUBSTEP_ANSWERED, step, now_ms, data)
        if allowed is None:
            self.complete(position, values.encode(answer), now_ms)
        elif question.kind == approval.KIND:
            self._decide_approval(position, answer, now_ms, by)
        else:
            self._decide_doubt(position, question, answer, now_ms)

    def _open_question(self, step: Step, number: int | None) -> QuestionRow:
        if step.status is not StepStatus.WAITING or step.question is None:
            message = f"Sub-step {step.task.id!r} of {self.id} does not wait for an answer; it is {step.status}."
            raise Conflict(message, execution_id=self.id, task_id=step.task.id)
        if number is not None and step.question.number != number:
            message = f"Question {number} of sub-step {step.task.id!r} of {self.id} is not open any more."
            raise Conflict(message, execution_id=self.id, task_id=step.task.id)
        return step.question

    def _decide_approval(self, position: int, answer: Mapping[str, Any], now_ms: int, by: str | None) -> None:
        if answer["decision"] == "reject":
            message = f"{by} has rejected it." if by else "It was rejected."
            self._give_up(position, "rejected", message, None, now_ms)
            return
        if answer["decision"] == "edit":
            self._override(position, {"edited": answer["params"], "effect": answer["effect"]}, now_ms, by)
        self.steps[position].approve()
        self._let_run(position, now_ms)

    def _decide_doubt(self, position: int, question: QuestionRow, answer: Mapping[str, Any], now_ms: int) -> None:
        step = self.steps[position]
        if answer["decision"] == "succeeded":
            step.error = step.error_code = None
            known = values.encode(answer["result"]) if "result" in answer else doubt.late_result(question)
            self.complete(position, values.encode(None) if known is None else known, now_ms)
        elif answer["decision"] == "retry":
            # Whoever says so has looked whether it happened, and not at what would be called now: if that is to be
            # approved, it is asked about anew.
            step.reason = step.error = step.error_code = None
            self._let_run(position, now_ms)
        else:
            message = "It was cut off, and a person decided that it failed."
            self._give_up(position, "outcome_unknown", message, None, now_ms)

    def _let_run(self, position: int, now_ms: int) -> None:
        self._move(position, StepStatus.PENDING)
        self._unwritten.ready.append(position)
        self._settle(now_ms)

    def expire(self, position: int, number: int, now_ms: int) -> None:
        """Close the question whose time is over; `on_timeout`, then `on_failure`, decides what becomes of the step.

        Raises:
            Conflict: It is not open (any more), or waits without end; nothing has changed.
        """
        step = self.steps[position]
        question = self._open_question(step, number)
        if question.due_at is None:
            message = f"Question {number} of sub-step {step.task.id!r} of {self.id} has no time that could be over."
            raise Conflict(message, execution_id=self.id, task_id=step.task.id)
        self._close_question(step, QuestionOutcome.TIMED_OUT, now_ms)
        policy = step.task.on_timeout
        message = f"Nobody has answered within {step.task.timeout_seconds:g} s."
        self._give_up(position, "unanswered", message, None, now_ms, policy if policy in ("skip", "default") else None)

    def _remind(self, position: int, question: QuestionRow, now_ms: int) -> None:
        """Say in the diary that a question is still open, and say it again when it has been open twice as long."""
        step = self.steps[position]
        reminders = question.reminders + 1
        due_at = now_ms + min(max(1, now_ms - question.asked_at), LONGEST_S * 1000)
        step.question = question._replace(reminders=reminders, due_at=due_at)
        step.next_attempt_at = due_at
        self.agenda.add(position)
        self._unwritten.question(step.question)
        self._unwritten.touch(position, step)
        data = {"question": question.number, "reminder": reminders, "assignee": question.assignee}
        self._unwritten.event(EventType.SUBSTEP_REMINDED, step, now_ms, data)
