"""What holds for any plan, any order of events, commits at any moment, and a crash at any moment.

A random walk plays the owner: it starts what is ready, lets bodies end, answers questions, takes and writes commits,
cancels, and dies. `Store` judges each commit; this module judges each step in memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from dagbok.domain import values
from dagbok.domain.call import Charge
from dagbok.domain.ids import SYNTHESIS, TaskId
from dagbok.domain.records import Changes
from dagbok.domain.retry import Policy
from dagbok.domain.states import ENDED, EXECUTION_MOVES, STEP_MOVES, Effect, ExecutionStatus, Reason, StepStatus
from dagbok.errors import Conflict
from domain.executions import Store, execution_of, status_by_the_design
from strategies import plans

Choose = Callable[[Sequence[Any]], Any]


class Owner:
    """One engine after another, and the store they share."""

    def __init__(self, document: dict[str, Any], choose: Choose) -> None:
        self.choose = choose
        self.now_ms = 1_000
        self.execution = execution_of(document)
        if choose([True, False, False]):
            self.execution.header.deadline_at = self.now_ms + choose([50, 2_000, 9_000])
        self.execution.fail_fast = choose([True, False, False, False])
        self.store = Store(self.execution)
        self.available = self.execution.take_ready()  # committed as ready, not yet started
        self.in_flight: Changes | None = None
        self.launch_later: list[int] = []  # begun `once` steps whose start is not committed
        self.launching: list[int] = []  # the same, in the commit under way
        self.bodies: set[int] = set()  # bodies that run
        self.launched: Counter[TaskId] = Counter()  # bodies of `once` steps that ran, over all owners
        self.retried: Counter[TaskId] = Counter()  # attempts known to have failed without effect, and tried again
        self.interrupted: set[TaskId] = set()  # `once` steps that nobody has decided on since
        self.charged = 0
        self.snapshot = self._statuses()
        self.took_over = False  # closing several attempts is several moves of the execution at once

    # -- what an owner does ------------------------------------------------------------------------------------------

    def moves(self) -> dict[str, Callable[[], None]]:
        """What may happen now."""
        possible: dict[str, Callable[[], None]] = {}
        if self.available:
            possible |= {"start": self.start, "start again": self.start}
            if self.choose(range(8)) == 0:
                possible["refuse"] = self.refuse
        if self.bodies:
            possible |= {"end": self.end, "end again": self.end, "report": self.report}
        if self._waiting():
            possible["answer"] = self.answer
        if self.execution.next_due_at is not None:
            possible["ring"] = self.ring
        if self.execution.paused:
            possible["resume"] = self.resume
        if self.in_flight is not None:
            possible |= {"write": self.write, "write soon": self.write}
        elif self.execution.changed:
            possible |= {"take": self.take, "take soon": self.take}
        return possible

    def rare_moves(self) -> dict[str, Callable[[], None]]:
        """What happens to few executions."""
        possible: dict[str, Callable[[], None]] = {"crash": self.crash}
        if not self.execution.ended:
            possible |= {"crash again": self.crash, "and again": self.crash}
            possible |= {"pause": self.pause, "pause again": self.pause}
            if self.choose(range(4)) == 0:
                possible |= {"cancel": self.cancel, "abort": self.abort}
            if self._asked():
                possible["late"] = self.late
            if not (self.bodies or self.launch_later or self.launching or self.available or self.in_flight):
                possible |= {"park": self.park, "park again": self.park}
        return possible

    def play(self, move: Callable[[], None]) -> None:
        self.now_ms += self.choose([0, 1, 7, -3])  # clocks are set back
        move()
        self.judge()

    def start(self) -> None:
        position = self._pop_available()
        step = self.execution.steps[position]
        if self.execution.ended or not step.startable:
            return  # cancelled or skipped while it stood in the queue
        if self.execution.paused:
            self.execution.hold(position)
            return
        for name in step.task.dependencies:
            assert self.store.done(name), f"{step.task.id} starts before {name} is committed"
        row = self.store.rows[step.task.id]
        assert row.status not in ENDED, "what ended begins again"
        assert step.task.id not in self.interrupted, "what must not be repeated blindly is repeated"
        results = self.execution.results(position)
        if position == self.execution.synthesis:
            assert results
            assert len(results) + len(self.execution.missing()) == len(self.execution.plan.sub_tasks)
        else:
            self.execution.params(position, results, max_bytes=10_000)
        if step.needs_approval:
            self.execution.ask_approval(position, self.now_ms)
            return
        if step.task.tool == "human":
            self.execution.ask(position, "?", self.now_ms)
            return
        timer = step.effect is Effect.PURE and self.choose([True, False, False])
        self.execution.begin(position, self.now_ms, due_at=self.now_ms + 500 if timer else None)
        if step.effect is Effect.ONCE:
            self.launch_later.append(position)
        elif not timer:
            self.bodies.add(position)

    def refuse(self) -> None:
        position = self._pop_available()
        if not self.execution.ended and self.execution.steps[position].status is StepStatus.PENDING:
            self.execution.fail(position, "unknown_tool", "not known here", self.now_ms)
            self._stop_if_ended()

    def end(self) -> None:
        position = self.choose(sorted(self.bodies))
        self.bodies.discard(position)
        charge = Charge({"tokens": self.choose([1, 5])}, 0.5, "m")
        self.charged += (charge.usage or {})["tokens"]
        if self.choose([True, True, False]):
            self.execution.complete(position, values.encode({"value": position}), self.now_ms, charge)
        else:
            step = self.execution.steps[position]
            unknown = self.choose([True, False, False])
            before = step.failures
            retry = Policy(self.choose([1, 2, 3]), backoff_seconds=self.choose([0, 0.01, 2]))
            self.execution.fail(
                position, self.choose(["boom", "timeout"]), "broke", self.now_ms, charge,
                outcome=self.choose(["failed", "timeout"]), unknown=unknown, retry=retry,
                retry_after_s=self.choose([None, None, 1.5, 1e6]),
            )  # fmt: skip
            self._stop_if_ended()
            if unknown and step.effect is Effect.ONCE:
                assert step.status is StepStatus.WAITING, "nobody is asked what a `once` step did"
                self.interrupted.add(step.task.id)
            elif step.status is StepStatus.PENDING:
                self.retried[step.task.id] += 1
                assert before + 1 < retry.max_attempts
                assert step.error_code == "timeout", "an error is retried that is not to be"

    def report(self) -> None:
        self.execution.report(self.choose(sorted(self.bodies)), values.encode({"message": "on it"}))

    def answer(self) -> None:
        position = self.choose(self._waiting())
        step = self.execution.steps[position]
        assert step.question is not None
        if step.question.kind == "human":
            self.execution.answer(position, {"value": "said"}, self.now_ms, by="somebody")
            return
        if step.question.kind == "approval":
            decision = self.choose(["approve", "approve", "edit", "reject"])
            edited = {"params": {"n": self.now_ms}, "effect": step.effect.value} if decision == "edit" else {}
            before = step.revision
            self.execution.answer(position, {"decision": decision, **edited}, self.now_ms, by="somebody")
            assert step.revision - before == (decision == "edit")
            assert decision != "edit" or step.task.tool_or_prompt.params == edited["params"]
        else:
            decision = self.choose(["retry", "succeeded", "fail"])
            self.execution.answer(position, {"decision": decision, "result": {"value": 1}}, self.now_ms)
            self.interrupted.discard(step.task.id)
        self._stop_if_ended()

    def take(self) -> None:
        assert self.in_flight is None
        self.in_flight = self.execution.take_changes(self.now_ms)
        self.launching, self.launch_later = self.launch_later, []
        assert not self.execution.changed

    def write(self) -> None:
        changes, self.in_flight = self.in_flight, None
        assert changes is not None
        self.store.apply(changes)
        self._judge_ready(list(changes.ready))
        self.available += changes.ready
        for position in self.launching:
            if self.execution.steps[position].status is StepStatus.RUNNING:
                self.bodies.add(position)
                self.launched[self.execution.steps[position].task.id] += 1
        self.launching = []

    def ring(self) -> None:
        due_at = self.execution.next_due_at
        assert due_at is not None
        self.now_ms = max(self.now_ms, due_at + self.choose([-1, 0, 5]))
        rung = self.execution.ring(self.now_ms)
        for task_id, number in rung.expired:
            if self.choose([True, True, False]):  # else it is told again
                self.execution.expire(self.execution.index[task_id], number, self.now_ms)
        self._stop_if_ended()
        self._judge_ready(rung.again)
        self.available += rung.again

    def late(self) -> None:
        position = self.choose(self._asked())
        step = self.execution.steps[position]
        self.execution.late(position, step.attempt, {"result": {"value": "late"}})
        with pytest.raises(Conflict):
            self.execution.late(position, step.attempt - 1, {"result": 1})

    def pause(self) -> None:
        self.execution.pause(self.now_ms)
        self.execution.pause(self.now_ms)

    def resume(self) -> None:
        self.execution.resume(self.now_ms)
        self.execution.resume(self.now_ms)

    def park(self) -> None:
        """Leave the memory, and come back when it is due, or because somebody asked something of it."""
        changes = self.execution.release(self.now_ms)
        assert changes.release
        assert not changes.ready or changes.header.wake_at is not None
        self.store.apply(changes)
        if changes.header.wake_at is not None:
            self.now_ms = max(self.now_ms, changes.header.wake_at)
        self.crash()

    def cancel(self) -> None:
        self.execution.cancel(self.now_ms)
        self._drop()

    def abort(self) -> None:
        self.execution.abort(Reason.STORE_REJECTED, "refused", self.now_ms)
        self._drop()

    def crash(self) -> None:
        """Lose all memory. The commit under way may have happened or not."""
        if self.in_flight is not None and self.choose([True, False]):
            self.store.apply(self.in_flight)
        self.in_flight = None
        self._drop()
        if self.store.ended:
            self.execution = self.store.restored()
            self.available = []
            assert self.execution.ended
            self.snapshot = self._statuses()
            return
        open_once = {
            id
            for id, row in self.store.rows.items()
            if row.status == "running" and self.store.effects[id] is Effect.ONCE and row.next_attempt_at is None
        }
        # A question asked and not answered durably is asked still; one whose asking was lost is asked by `take_over`.
        self.interrupted = open_once | {id for id, row in self.store.rows.items() if row.reason == "outcome_unknown"}
        self.execution = self.store.restored()
        self.snapshot = self._statuses()
        self.took_over = True
        self.charged = values.decode(self.store.header.total_usage or "{}").get("tokens", 0)
        self.now_ms += 100
        self.execution.take_over(self.now_ms)
        for id in open_once:
            step = self.execution.steps[self.execution.index[id]]
            assert step.status is StepStatus.WAITING or step.error_code in ("crash_loop", "outcome_unknown")
        for position in self.execution.running:
            assert self.execution.steps[position].next_attempt_at is not None, "an attempt of a dead owner is left open"
        self.available = []
        if not self.execution.changed:
            ready = self.execution.take_ready()
            self._judge_ready(ready)
            self.available = ready

    @property
    def can_be_retried(self) -> bool:
        return self.in_flight is None and self.store.ended and self.store.header.status != "completed"

    def retry(self) -> None:
        """As another owner, which reads the rows: let what was lost run again, or a part of it."""
        self.execution = self.store.restored()
        self._drop()
        self.available = []
        self.snapshot = self._statuses()
        before = {step.task.id: step.row(0) for step in self.execution.steps}
        lost = [id for id, row in before.items() if row.status in ("failed", "cancelled") and id != SYNTHESIS]
        some = lost and self.store.header.status != "cancelled" and self.choose([True, False])
        only = [id for id in lost if self.choose([True, False])] if some else None
        overridden = [id for id in only or lost if self.choose([True, False, False])]
        overrides = {id: {"params": {"n": 0}, "effect": self.store.effects[id].value} for id in overridden}
        self.execution.take_over(self.now_ms)
        try:
            self.execution.retry(self.now_ms, only=only, overrides=overrides)
        except Conflict:
            assert only is not None, "what was lost cannot be retried"
            assert not self.execution.changed
            return
        self.snapshot = self._statuses()  # several moves of each step at once
        for step in self.execution.steps:
            id, was = step.task.id, before[step.task.id]
            if step.row(0) == was:
                assert was.status == "completed" or was.reason == "chosen" or only is not None
                continue
            assert was.status in ("failed", "cancelled") or was.reason == "dependency_failed" or id == SYNTHESIS
            assert step.attempt == was.attempt
            assert step.revision - was.revision == (id in overrides)
            assert id not in overrides or step.task.tool_or_prompt.params == {"n": 0}
            self.retried[id] += 1  # somebody said so
            if step.status is StepStatus.WAITING:
                assert only is None
                self.interrupted.add(id)
            else:
                assert step.effect is not Effect.ONCE or was.error_code != "crash_loop" or only is not None
                self.interrupted.discard(id)

    # -- what holds ----------------------------------------------------------------------------------------------------

    def judge(self) -> None:
        execution = self.execution
        statuses = self._statuses()
        for position, (was, now) in enumerate(zip(self.snapshot[1:], statuses[1:], strict=True)):
            legal = now is was or now in STEP_MOVES[was]  # type: ignore[index]
            assert legal, f"{execution.steps[position].task.id}: {was} -> {now}"
        was, now = self.snapshot[0], statuses[0]
        assert now is was or now in EXECUTION_MOVES[was] or self.took_over  # type: ignore[index]
        self.snapshot = statuses
        self.took_over = False

        own = execution.steps[: len(execution.plan.sub_tasks)]
        tally = Counter(step.status for step in own)
        assert {status: execution.count(status) for status in StepStatus} == {s: tally[s] for s in StepStatus}
        last = None if execution.synthesis is None else execution.steps[execution.synthesis]
        assert execution.status == status_by_the_design(
            [(step.status, step.reason) for step in own],
            (last.status, last.reason) if last else None,
            started=execution.header.started_at is not None or any(step.status != "pending" for step in own),
            paused=execution.paused,
        )
        for step in execution.steps:
            if step.next_attempt_at is not None:
                asked = step.question is not None and step.question.due_at is not None
                assert step.status in (StepStatus.PENDING, StepStatus.RUNNING) or asked
                assert execution.next_due_at is not None, "nothing will ring for it"
                assert execution.next_due_at <= step.next_attempt_at
        if execution.ended:
            assert all(step.ended for step in execution.steps)
        for step, task in zip(own, execution.plan.sub_tasks, strict=True):
            above = [execution.steps[execution.index[name]] for name in _dependencies(task)]
            lost = any(
                parent.status is StepStatus.FAILED
                or (parent.status is StepStatus.SKIPPED and parent.reason == "dependency_failed")
                or (parent.status is StepStatus.CANCELLED and execution.header.retry_count)  # and not named since
                for parent in above
            )
            skipped = step.status is StepStatus.SKIPPED and step.reason == "dependency_failed"
            cut_off = step.status is StepStatus.CANCELLED and execution.header.retry_count  # and not named since
            assert skipped == lost or cut_off, (
                f"{step.task.id} is {step.status}, and its dependencies {'are' if lost else 'not'} lost"
            )
            if step.status in (StepStatus.RUNNING, StepStatus.WAITING, StepStatus.COMPLETED, StepStatus.FAILED):
                assert all(parent.status is StepStatus.COMPLETED or parent.reason == "chosen" for parent in above), (
                    f"{step.task.id} ran before what it depends on"
                )
        if last is not None and last.status in (StepStatus.RUNNING, StepStatus.COMPLETED, StepStatus.FAILED):
            assert all(step.ended for step in own)
            assert tally[StepStatus.COMPLETED]
        for id, count in self.launched.items():
            approved = sum(
                question.answer is not None and values.decode(question.answer).get("decision") == "retry"
                for question in self.store.questions.values()
                if question.task_id == id
            )
            assert count <= 1 + approved + self.retried[id], f"the body of {id} ran {count} times, and nobody said so"

    def _judge_ready(self, ready: list[int]) -> None:
        assert len(set(ready) | set(self.available)) == len(ready) + len(self.available), "ready twice"
        for position in ready:
            last = position == self.execution.synthesis
            task = self.execution.steps[position].task if last else self.execution.plan.sub_tasks[position]
            assert all(self.store.done(name) for name in _dependencies(task))
            assert task.id != SYNTHESIS or all(
                row.status in ENDED for id, row in self.store.rows.items() if id != SYNTHESIS
            )

    def judge_end(self) -> None:
        store = self.store
        assert store.ended
        assert all(row.status in ENDED for row in store.rows.values())
        assert not self.execution.changed
        assert store.header.status == self.execution.status
        begun = Counter(event.task_id for event in store.events if event.type == "substep.started")
        for id, row in store.rows.items():
            assert begun[id] == row.attempt
            closed = [attempt for attempt in store.attempts.values() if attempt.task_id == id]
            assert len(closed) <= row.attempt
        billed = sum(
            values.decode(text).get("tokens", 0)
            for text in [attempt.usage for attempt in store.attempts.values() if attempt.usage]
        ) + sum(
            values.decode(event.data).get("usage", {}).get("tokens", 0)
            for event in store.events
            if event.type == "substep.completed" and event.data
        )
        total = values.decode(store.header.total_usage or "{}").get("tokens", 0)
        assert total == billed == self.charged
        self._judge_approvals()
        ends = {f"substep.{word}": word for word in ("completed", "failed", "skipped", "cancelled")}
        told = {event.task_id: ends[event.type] for event in store.events if event.type in ends}  # the last of each
        assert told == {id: row.status for id, row in store.rows.items()}

    def _judge_approvals(self) -> None:
        """Nothing that is to be approved has begun without that, and after a retry it was asked about anew."""
        wanted = {task.id for task in self.execution.plan.sub_tasks if task.requires_approval}
        approved: set[TaskId | None] = set()
        for line in self.store.events:
            data = values.decode(line.data) if line.data else {}
            if line.type == "substep.answered" and data["kind"] == "approval" and data["decision"] != "reject":
                approved.add(line.task_id)
            elif (line.type == "substep.retrying" and data.get("reason") == "retry") or data.get(
                "kind"
            ) == "did_it_happen":
                approved.discard(line.task_id)
            elif line.type == "substep.started" and line.task_id in wanted:
                assert line.task_id in approved, f"{line.task_id} runs, and nobody has let it"

    # -- inside --------------------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """Let everything end, without further accidents."""
        for _ in range(500):
            moves = self.moves()
            if not moves:
                break
            order = ("resume", "write", "take", "end", "answer", "start", "ring")
            self.play(moves[next(name for name in order if name in moves)])
        else:
            raise AssertionError("it does not come to an end")

    def _statuses(self) -> list[ExecutionStatus | StepStatus]:
        return [self.execution.status, *(step.status for step in self.execution.steps)]

    def _pop_available(self) -> int:
        position: int = self.choose(self.available)
        self.available.remove(position)
        return position

    def _asked(self) -> list[int]:
        steps = [(at, self.execution.steps[at]) for at in self._waiting()]
        return [at for at, step in steps if step.question is not None and step.question.kind == "did_it_happen"]

    def _waiting(self) -> list[int]:
        return [at for at, step in enumerate(self.execution.steps) if step.status is StepStatus.WAITING]

    def _stop_if_ended(self) -> None:
        if self.execution.ended:
            self._drop()

    def _drop(self) -> None:
        self.bodies.clear()
        self.launch_later.clear()
        self.launching = []


def _dependencies(task: Any) -> list[TaskId]:
    # By the plan's own words, not by the aggregate's graph: see `strategies.plans` for how a reference reads.
    names = [TaskId(f"t{key[2:]}") for key in task.tool_or_prompt.params if key.startswith("of")]
    return [*task.dependencies, *names]


PEOPLE: dict[str, Any] = {"approvals": True, "answer_within": st.sampled_from([0.02, 2, 60])}
seeds = st.integers(0, 2**32)  # of the walk: Hypothesis prefers short and equal choices, a walk needs fair ones


@settings(max_examples=500, deadline=None)
@given(document=plans(max_tasks=12, **PEOPLE), seed=seeds)
def test_any_walk_keeps_every_promise(document: dict[str, Any], seed: int) -> None:
    random = Random(seed)
    owner = Owner(document, random.choice)
    owner.judge()
    for _ in range(random.randint(0, 120)):
        if owner.store.ended and not owner.execution.changed and owner.in_flight is None:
            if not owner.can_be_retried or random.random() < 0.4:
                break
            owner.play(owner.retry)
        moves = owner.moves()
        if not moves or (random.random() < 0.08 and not owner.store.ended):
            moves = owner.rare_moves()
        owner.play(moves[random.choice(sorted(moves))])
    owner.finish()
    owner.judge_end()
    _tell(owner)


@settings(max_examples=200, deadline=None)
@given(document=plans(max_tasks=8, **PEOPLE), seed=seeds)
def test_a_crash_after_each_event_ends_as_well(document: dict[str, Any], seed: int) -> None:
    """An owner that dies after every single move still leaves an execution that ends, for it dies at most so often."""
    owner = Owner(document, Random(seed).choice)
    for _ in range(30):
        if owner.store.ended:
            break
        moves = {name: move for name, move in owner.moves().items() if name.startswith(("start", "end", "answer"))}
        if moves:
            owner.play(moves[owner.choose(sorted(moves))])
        while owner.in_flight is not None or owner.execution.changed:
            owner.play(owner.write if owner.in_flight is not None else owner.take)
        owner.play(owner.crash)
    owner.finish()
    owner.judge_end()
    _tell(owner)


def _tell(owner: Owner) -> None:
    """Show with `--hypothesis-show-statistics` where the walks went."""
    event(f"ended {owner.store.header.status}")
    event(f"epoch {min(owner.store.epoch, 4)}")
    for code in {row.error_code for row in owner.store.rows.values()} - {None}:
        event(f"error {code}")
    for count in set(owner.launched.values()):
        event(f"once ran {count}")
    if SYNTHESIS in owner.store.rows:
        event(f"synthesis {owner.store.rows[SYNTHESIS].status}")
