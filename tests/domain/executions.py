"""Aggregates for tests, and a store in memory that takes their commits and refuses what the real one would."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from dagbok.domain import outline, values
from dagbok.domain.events import Event, EventType
from dagbok.domain.execution import Execution, restore
from dagbok.domain.ids import SYNTHESIS, DagId, Epoch, ExecutionId, TaskId
from dagbok.domain.records import AttemptRow, Changes, HeaderRow, QuestionRow, StepRow, StoredExecution
from dagbok.domain.states import (
    ENDED,
    EXECUTION_ENDED,
    EXECUTION_MOVES,
    STEP_MOVES,
    Effect,
    ExecutionStatus,
    StepStatus,
)
from dagbok.domain.task import Task
from dagbok.domain.values import JsonText

ID = ExecutionId("dag-exec_test")
EFFECTS = {"pure": Effect.PURE, "idempotent": Effect.IDEMPOTENT, "once": Effect.ONCE}


def effect_of(task: Task) -> Effect:
    return EFFECTS.get(task.tool, Effect.PURE)


def execution_of(document: Mapping[str, Any]) -> Execution:
    return Execution(ID, outline.read(document), epoch=Epoch(1), effect_of=effect_of)


def plan_of(
    tasks: Mapping[str, Iterable[str]], *, synthesis: bool = False, **more: Mapping[str, Any]
) -> dict[str, Any]:
    """Return a plan from dependencies by id; `more`: fields of single sub-tasks by id."""
    return {
        "original_request": "r",
        "intent": {"primary": "p"},
        "sub_tasks": [
            {
                "id": id,
                "tool_or_prompt": {"name": "pure", "params": {}},
                "dependencies": list(above),
                **more.get(id, {}),
            }
            for id, above in tasks.items()
        ],
        "synthesis_plan": "put it together" if synthesis else "",
    }


def status_by_the_design(
    steps: Iterable[tuple[str, str | None]], last: tuple[str, str | None] | None, *, started: bool, paused: bool = False
) -> str:
    """The design's "Derivation, first match", over (status, reason) of the sub-tasks and of the synthesis."""
    own = list(steps)
    everything = own + ([last] if last else [])
    left = [status for status, _ in everything if status in ("pending", "running", "waiting")]
    if not left and any(reason == "cancelled" for _, reason in everything):
        return "cancelled"
    if any(status == "waiting" for status, _ in everything):
        return "waiting"
    if left and paused and not any(status == "running" for status, _ in everything):
        return "waiting"
    if left:
        return "running" if started else "pending"
    if all(status == "completed" or (status, reason) == ("skipped", "chosen") for status, reason in everything):
        return "completed"
    return "partial" if any(status == "completed" for status, _ in own) else "failed"


class Store:
    """Rows by key. Every commit is judged: fencing, gap-free events, legal moves, counters that equal the rows."""

    def __init__(self, execution: Execution) -> None:
        self.plan = execution.plan
        self.epoch = Epoch(1)
        self.header = HeaderRow(
            "pending",
            None,
            None,
            0,
            0,
            0,
            0,
            0,
            0,
            None,
            None,
            None,
            None,
            0,
            None,
            None,
            None,
            None,
            execution.header.deadline_at,
            None,
            None,
            0,
        )
        new = execution.new_steps()
        assert [step.position for step in sorted(new, key=lambda step: step.position)] == list(range(len(new)))
        self.effects = {step.task_id: Effect(step.effect) for step in new}
        self.rows = {
            step.task_id: StepRow(
                step.task_id, "pending", None, 0, 0, None, None, None, None, None, None, None, None, None, None, None,
                None, None, 0,
            )
            for step in new
        }  # fmt: skip
        self.events = [Event(1, EventType.EXECUTION_CREATED.value, None, 0, None)]
        self.attempts: dict[tuple[TaskId, int], AttemptRow] = {}
        self.questions: dict[tuple[TaskId, int], QuestionRow] = {}
        self.commands: list[int] = []
        self.overrides: dict[TaskId, values.JsonText] = {}
        self.options = values.encode({"failurePolicy": "fail_fast"}) if execution.fail_fast else None

    @property
    def seq(self) -> int:
        return self.events[-1].seq

    @property
    def ended(self) -> bool:
        return self.header.status in EXECUTION_ENDED

    def done(self, task_id: str) -> bool:
        """Whether what depends on it may start."""
        row = self.rows[TaskId(task_id)]
        return row.status == "completed" or (row.status, row.reason) == ("skipped", "chosen")

    def apply(self, changes: Changes) -> None:
        assert changes.epoch == self.epoch, "an older owner writes"
        assert changes.seq_before == self.seq, "a commit is lost or written twice"
        assert [event.seq for event in changes.events] == list(range(changes.seq_before + 1, changes.seq_after + 1))
        retried = any(event.type == EventType.EXECUTION_RETRIED for event in changes.events)
        assert retried or not (self.ended and changes.events), "the diary goes on after the end"
        before = ExecutionStatus(self.header.status)
        after = ExecutionStatus(changes.header.status)
        assert after is before or _reachable(EXECUTION_MOVES, before, after), f"{before} -> {after}"
        assert len({row.task_id for row in changes.steps}) == len(changes.steps), "a row twice in one commit"
        for row in changes.steps:
            _judge_row(self.rows[row.task_id], row, retried=retried)
            self.rows[row.task_id] = row
        for attempt in changes.attempts:
            key = (attempt.task_id, attempt.number)
            assert key not in self.attempts, f"the outcome of attempt {key} is written over"
            assert 1 <= attempt.number <= self.rows[attempt.task_id].attempt
            assert attempt.started_at is not None
            self.attempts[key] = attempt
        for question in changes.questions:
            asked = self.questions.get((question.task_id, question.number))
            assert asked is None or asked.closed_at is None, "a question is closed twice"
            assert asked is None or _said(asked) == _said(question), "a question changes"
            assert (question.outcome is None) == (question.closed_at is None)
            self.questions[question.task_id, question.number] = question
        for event in changes.events:
            assert event.data is None or isinstance(values.decode(event.data), dict)
            self.events.append(event)
        self.commands += changes.commands
        for override in changes.overrides:
            self.overrides[override.task_id] = override.override
            self.effects[override.task_id] = Effect(override.effect)
        self.header = changes.header
        assert changes.release or not self.ended
        assert not (changes.ready and self.header.paused_at is not None), "a paused execution begins something"
        self._judge()

    def _judge(self) -> None:
        own = [row for row in self.rows.values() if row.task_id != SYNTHESIS]
        tally = Counter(row.status for row in own)
        for status in ("completed", "failed", "waiting", "skipped", "running"):
            assert getattr(self.header, f"{status}_tasks") == tally[status], status
        last = self.rows.get(SYNTHESIS)
        expected = status_by_the_design(
            [(row.status, row.reason) for row in own],
            (last.status, last.reason) if last else None,
            started=self.header.started_at is not None or any(row.status != "pending" for row in own),
            paused=self.header.paused_at is not None,
        )
        assert self.header.status == expected
        assert (self.header.completed_at is not None) == self.ended
        for task_id, row in self.rows.items():
            asked = [question for question in self.questions.values() if question.task_id == task_id]
            still_open = [question for question in asked if question.closed_at is None]
            assert len(still_open) == (row.status == "waiting"), "the inbox and the row disagree"
            assert sorted(question.number for question in asked) == list(range(1, len(asked) + 1))
        words = [event.type for event in self.events]
        assert words.count("execution.started") == (self.header.started_at is not None)
        ends = [at for at, word in enumerate(words) if word in {f"execution.{status}" for status in EXECUTION_ENDED}]
        retries = [at - 1 for at, word in enumerate(words) if word == "execution.retried"]
        last_word = [len(words) - 1] if self.ended else []
        assert ends == retries + last_word, "an end is said once, and nothing follows but a retry"
        assert self.header.retry_count == len(retries)

    def load(self, *, parked: tuple[int, int] | None = None) -> StoredExecution:
        """What the next owner reads; it gets the next epoch."""
        self.epoch = Epoch(self.epoch + 1)
        since = self.header.last_retry_at or 0
        tries = [row for row in self.attempts.values() if (row.started_at or 0) >= since]
        interruptions = Counter(row.task_id for row in tries if row.outcome == "interrupted")
        failures = Counter(row.task_id for row in tries if row.outcome in ("failed", "timeout"))
        return StoredExecution(
            id=ID,
            dag_id=DagId("dag_test"),
            plan=JsonText("{}"),  # `self.plan` stands for it
            options=self.options,
            epoch=self.epoch,
            last_event_seq=self.seq,
            created_at=0,
            header=self.header,
            steps=list(reversed(self.rows.values())),
            effects=self.effects,
            questions=list(self.questions.values()),
            failures=failures,
            interruptions=interruptions,
            parked=parked,
            overrides=dict(self.overrides),
        )

    def restored(self, *, parked: tuple[int, int] | None = None) -> Execution:
        return restore(self.load(parked=parked), self.plan)


def _said(question: QuestionRow) -> QuestionRow:
    """What of a question never changes."""
    return question._replace(
        shown=None, asked_at=0, due_at=None, closed_at=None, answer=None, answered_by=None, outcome=None, reminders=0
    )


def _judge_row(before: StepRow, after: StepRow, *, retried: bool) -> None:
    """What the database checks of a row, and that nothing that ended changes, but for what a retry runs again."""
    was, now = StepStatus(before.status), StepStatus(after.status)
    done = (was is StepStatus.COMPLETED and before.task_id != SYNTHESIS) or before.reason == "chosen"
    if done or (was in ENDED and not retried):
        assert after._replace(updated_at=0) == before._replace(updated_at=0), "a step that ended has changed"
    assert now is was or _reachable(STEP_MOVES, was, now), f"{was} -> {now}"
    assert after.attempt >= before.attempt
    assert (after.completed_at is not None) == (now in ENDED)
    assert now is not StepStatus.RUNNING or after.started_at is not None
    assert now not in (StepStatus.WAITING, StepStatus.SKIPPED, StepStatus.CANCELLED) or after.reason is not None
    assert now not in (StepStatus.COMPLETED, StepStatus.FAILED) or after.reason in (None, "reused")
    assert now not in (StepStatus.PENDING, StepStatus.RUNNING) or after.reason in (None, "approved")
    assert (after.result is not None) == (now is StepStatus.COMPLETED)
    assert now is not StepStatus.FAILED or (after.error is not None and after.error_code is not None)
    assert after.duration_ms is None or after.duration_ms >= 0
    assert now not in ENDED or after.next_attempt_at is None


def _reachable(moves: Mapping[Any, frozenset[Any]], start: Any, end: Any) -> bool:
    seen: set[Any] = set()
    ahead = [start]
    while ahead:
        for after in moves[ahead.pop()] - seen:
            seen.add(after)
            ahead.append(after)
    return end in seen


class Played:
    """An execution whose changes are committed as soon as they arise: for tests of single rules."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.execution = execution_of(document)
        self.store = Store(self.execution)
        self.now_ms = 1_000
        self.ready = [self._id(position) for position in self.execution.take_ready()]

    def __getattr__(self, name: str) -> Any:
        """Return a method of the aggregate that takes a task id, ticks the clock and commits."""
        method = getattr(self.execution, name)

        def call(*arguments: Any, **options: Any) -> Any:
            self.now_ms += 10
            if name in ("begin", "complete", "fail", "ask", "ask_approval", "answer", "late", "expire"):
                arguments = (self.execution.index[TaskId(arguments[0])], *arguments[1:])
            result = method(*arguments, **options) if name == "late" else method(*arguments, self.now_ms, **options)
            self.commit()
            return result

        return call

    def _id(self, position: int) -> str:
        return self.execution.steps[position].task.id

    def commit(self) -> Changes:
        changes = self.execution.take_changes(self.now_ms)
        self.store.apply(changes)
        self.ready += [self._id(position) for position in changes.ready]
        return changes

    def run(self, *ids: str) -> None:
        """Begin and complete each, its id as result."""
        for id in ids:
            assert id in self.ready, f"{id} is not ready"
            self.begin(id)
            self.complete(id, values.encode(id))

    def run_again(self, id: str) -> None:
        """Begin and complete a step whose back-off is over."""
        self.begin(id)
        self.complete(id, values.encode(id))

    def lose(self, *ids: str) -> None:
        """Begin and fail each."""
        for id in ids:
            self.begin(id)
            self.fail(id, "boom", f"{id} broke")

    def crash(self) -> None:
        """Forget everything in memory, and take over from the rows."""
        self.execution = self.store.restored()
        self.now_ms += 1_000
        self.execution.take_over(self.now_ms)
        self.ready = []
        if self.execution.changed:
            self.commit()
        else:
            self.ready = [self._id(position) for position in self.execution.take_ready()]

    def ring(self, seconds: float = 0.0) -> list[str]:
        """Let time pass and ring; return the steps that may begin again. Questions whose time is over are closed."""
        self.now_ms += round(seconds * 1000)
        rung = self.execution.ring(self.now_ms)
        for task_id, number in rung.expired:
            self.execution.expire(self.execution.index[task_id], number, self.now_ms)
        self.commit()
        return [self._id(position) for position in rung.again]

    @property
    def status(self) -> str:
        return self.store.header.status

    @property
    def header(self) -> HeaderRow:
        return self.store.header

    def row(self, id: str) -> StepRow:
        return self.store.rows[TaskId(id)]

    def states(self) -> dict[str, str]:
        return {
            str(id): row.status if row.reason is None else f"{row.status}:{row.reason}"
            for id, row in self.store.rows.items()
        }

    def words(self, *ids: str) -> list[str]:
        """The diary's words about some sub-steps; about the execution without ids."""
        return [event.type for event in self.store.events if (event.task_id in ids if ids else event.task_id is None)]
