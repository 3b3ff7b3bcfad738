"""One sub-step of an execution, as the aggregate holds it in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from dagbok.domain import refs, values
from dagbok.domain.call import Charge
from dagbok.domain.records import QuestionRow, StepRow
from dagbok.domain.states import ENDED, Effect, Reason, StepStatus
from dagbok.domain.task import Task
from dagbok.domain.values import Json, JsonText

_AS_PLANNED: Final[Mapping[str, Json]] = {}


class Step:
    """The state of one sub-step. Only `Execution` changes it."""

    __slots__ = (
        "attempt", "completed_at", "cost_usd", "dirty", "duration_ms", "effect", "error", "error_code", "error_detail",
        "failures", "has_references", "input", "interruptions", "model", "next_attempt_at", "override", "progress",
        "question", "questions_asked", "reason", "result", "revision", "started_at", "status", "task", "unmet", "usage",
    )  # fmt: skip

    def __init__(self, task: Task, effect: Effect, unmet: int) -> None:
        self.override = _AS_PLANNED  # what of the plan's task does not stand any more
        self.call(task, effect)
        self.unmet = unmet  # dependencies that are not committed as done; it is ready at 0
        self.dirty = False  # changed since the last commit was taken
        self.status = StepStatus.PENDING
        self.reason: str | None = None
        self.attempt = 0
        self.revision = 0
        self.input: JsonText | None = None
        self.result: JsonText | None = None
        self.error: str | None = None
        self.error_code: str | None = None
        self.error_detail: str | None = None
        self.progress: JsonText | None = None
        self.started_at: int | None = None
        self.completed_at: int | None = None
        self.duration_ms: int | None = None
        self.next_attempt_at: int | None = None
        self.usage: JsonText | None = None
        self.cost_usd: float | None = None
        self.model: str | None = None
        self.question: QuestionRow | None = None  # the open one
        self.questions_asked = 0
        self.failures = 0  # attempts that failed or took too long
        self.interruptions = 0  # attempts that a crash cut off

    def call(self, task: Task, effect: Effect) -> None:
        """Take what is called from now on, and what repeating that would do."""
        self.task = task
        self.effect = effect
        params = task.tool_or_prompt.params
        self.has_references = bool(params) and "edited" not in self.override and refs.refers(params)

    @property
    def ended(self) -> bool:
        return self.status in ENDED

    @property
    def startable(self) -> bool:
        """Whether an attempt may begin, as far as the step itself is concerned."""
        return self.status is StepStatus.PENDING and self.next_attempt_at is None

    def follow(self, now_ms: int) -> bool:
        """Let a wait that was begun in the future begin now; return whether it was.

        The wall clock of an earlier owner was ahead of this one then, maybe by hours, and nobody asked for a wait so
        long. Both its ends move, so that it stays as long as it was, however often its owner changes.
        """
        if self.next_attempt_at is None:
            return False
        if self.question is not None:
            return self._follow_question(self.question, now_ms)
        if self.started_at is None:
            return False
        # A timer begins with its attempt; a back-off when that has ended, of which `duration_ms` tells.
        ahead_ms = self.started_at + (self.duration_ms or 0) - now_ms
        if ahead_ms <= 0:
            return False
        self.started_at -= ahead_ms
        self.next_attempt_at -= ahead_ms
        return True

    def _follow_question(self, asked: QuestionRow, now_ms: int) -> bool:
        ahead_ms = asked.asked_at - now_ms
        if ahead_ms <= 0 or asked.due_at is None:
            return False
        self.question = asked._replace(asked_at=now_ms, due_at=asked.due_at - ahead_ms)
        self.next_attempt_at = asked.due_at - ahead_ms
        return True

    @property
    def needs_approval(self) -> bool:
        """Whether a person has to let it run before its next attempt."""
        return self.task.requires_approval and self.reason != Reason.APPROVED

    def approve(self) -> None:
        """Let it run, if anybody has to: for this attempt and those that repeat it."""
        self.reason = Reason.APPROVED if self.task.requires_approval else None

    @property
    def done(self) -> bool:
        """Whether what depends on it may start."""
        return self.status is StepStatus.COMPLETED or self.reason == Reason.CHOSEN

    def put_back(self) -> None:
        """Forget how it ended; its attempts and questions go on to be counted."""
        self.reason = self.error = self.error_code = self.error_detail = self.progress = None
        self.input = self.result = None
        self.started_at = self.completed_at = self.duration_ms = self.next_attempt_at = None
        self.failures = self.interruptions = 0

    def charge(self, charge: Charge) -> None:
        """Take what its latest attempt cost."""
        self.model = charge.model
        self.usage = values.encode(charge.usage) if charge.usage else self.usage
        self.cost_usd = charge.cost_usd if charge.cost_usd is not None else self.cost_usd

    def row(self, updated_at: int) -> StepRow:
        """Return the columns as they are now."""
        return StepRow(
            self.task.id, self.status._value_, self.reason, self.attempt, self.revision, self.input, self.result,
            self.error, self.error_code, self.error_detail, self.progress, self.started_at, self.completed_at,
            self.duration_ms, self.next_attempt_at, self.usage, self.cost_usd, self.model, updated_at,
        )  # fmt: skip

    def load(self, row: StepRow) -> None:
        """Take the columns of a stored row."""
        self.status = StepStatus(row.status)
        for name in StepRow._fields:
            if name not in ("task_id", "status", "updated_at"):
                setattr(self, name, getattr(row, name))
