"""What a fork takes over: closed upwards, nothing that changed or stands below that, and no outcome it cannot know."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagbok.domain import fork, outline, submission
from dagbok.domain.execution import Execution
from dagbok.domain.fork import Origin, Split
from dagbok.domain.ids import SYNTHESIS, Epoch, ExecutionId, TaskId
from dagbok.domain.outline import Outline
from dagbok.domain.records import StepRow
from dagbok.domain.states import Effect, ExecutionStatus, Reason, StepStatus
from dagbok.domain.values import JsonText


def task(id: str, *after: str, params: Any = None, **more: Any) -> dict[str, Any]:
    call = {"name": "work", "params": params or {}}
    return {"id": id, "tool_or_prompt": call, "dependencies": list(after), **more}


def plan(*tasks: dict[str, Any], **more: Any) -> Outline:
    document = {"original_request": "r", "intent": {"primary": "p"}, "sub_tasks": list(tasks), **more}
    return outline.read(document)


def row(id: str, status: str = "completed", reason: str | None = None, **more: Any) -> StepRow:
    given = dict.fromkeys(StepRow._fields) | {"task_id": id, "status": status, "reason": reason}
    return StepRow(**{**given, "attempt": 1, "revision": 0, "updated_at": 0, **more})


def origin(of: Outline, *rows: StepRow, effect: Effect = Effect.ONCE) -> Origin:
    known = {each.task_id: each for each in rows}
    all_rows = {item.id: known.get(item.id, row(item.id)) for item in of.sub_tasks}
    return Origin(of, known | all_rows, dict.fromkeys([*known, *all_rows], effect))


def split(of: Origin, after: Outline | None = None, **more: Any) -> Split:
    return fork.split(of, after or of.plan, **more)


CHAIN = plan(task("a"), task("b", "a"), task("c", "b"))


@pytest.mark.parametrize(
    ("changed", "differs"),
    [
        (task("b", "a", thought="another", retry={"max_attempts": 9}, timeout_seconds=5, on_failure="skip"), False),
        (task("b", "a", "a", description="another"), False),
        (task("b", "a", params={"x": 1}), True),
        (task("b", "a", expected_output="a number"), True),
        (task("b"), True),
        (task("b", "a", action_type="human"), True),
        ({**task("b", "a"), "tool_or_prompt": {"name": "other", "params": {}}}, True),
    ],
)
def test_a_sub_task_has_changed_if_its_result_could_be_another(changed: dict[str, Any], differs: bool) -> None:
    after = plan(task("a"), changed, task("c", "b"))
    assert split(origin(CHAIN), after).reused == (["a"] if differs else ["a", "b", "c"])


def test_params_are_compared_as_json() -> None:
    before = plan(task("a", params={"x": 1, "y": 2}))
    assert split(origin(before), plan(task("a", params={"y": 2, "x": 1}))).reused == ["a"]
    for other in (True, 1.0, "1"):
        assert split(origin(before), plan(task("a", params={"x": other, "y": 2}))).reused == []


def test_a_dependency_that_was_implied_may_be_written_out() -> None:
    before = plan(task("a"), task("b", params={"x": "<Result from Task a>"}))
    after = plan(task("a"), task("b", "a", params={"x": "<Result from Task a>"}))
    assert split(origin(before), after).reused == ["a", "b"]


def test_a_model_is_told_more_than_a_tool() -> None:
    before = plan(task("a"), task("m", action_type="inference", description="one"))
    assert split(origin(before), plan(task("a"), task("m", action_type="inference", description="two"))).reused == ["a"]
    assert split(origin(before), replace(before, original_request="another")).reused == ["a"]


def test_a_default_is_kept_only_while_the_plan_says_so() -> None:
    failed = origin(plan(task("a", on_failure="default", default=1)), row("a", error="no", error_code="tool_error"))
    assert split(failed).reused == ["a"]
    assert split(failed, plan(task("a", on_failure="default", default=2))).reused == []
    assert split(failed, plan(task("a"))).reused == []
    skipped = origin(plan(task("a", on_failure="skip")), row("a", "skipped", "chosen", error_code="tool_error"))
    assert split(skipped).reused == ["a"]
    assert split(skipped, plan(task("a"))).reused == []


@pytest.mark.parametrize(
    ("left", "doubtful"),
    [
        (row("b", "running"), True),
        (row("b", "waiting", Reason.OUTCOME_UNKNOWN), True),
        (row("b", "cancelled", Reason.CANCELLED, error_code="outcome_unknown"), True),
        (row("b", "failed", error_code="crash_loop"), True),
        (row("b", "failed", error_code="outcome_unknown"), False),  # a person has said that it failed
        (row("b", "failed", error_code="tool_error"), False),
        (row("b", "cancelled", Reason.CANCELLED), False),
        (row("b", "waiting", Reason.APPROVAL), False),
        (row("b", "pending"), False),
        (row("b", "skipped", Reason.DEPENDENCY_FAILED), False),
    ],
)
def test_whether_a_once_step_may_have_happened(left: StepRow, doubtful: bool) -> None:
    asked = ["b"] if doubtful else []
    assert split(origin(CHAIN, left, row("c", "pending"))).doubtful == asked
    assert split(origin(CHAIN, left, row("c", "pending"), effect=Effect.PURE)).doubtful == []
    # Whoever names it has looked; what changed is another call; below what runs again it is to run again.
    assert split(origin(CHAIN, left), from_task=TaskId("b")).doubtful == []
    assert split(origin(CHAIN, left), plan(task("a"), task("b", "a", params={"x": 1}))).doubtful == []
    assert split(origin(CHAIN, left), from_task=TaskId("a")).doubtful == []


def test_the_synthesis_runs_alone_only_if_it_has_something_new_to_say() -> None:
    before = plan(task("a"), task("b"), synthesis_plan="Put it together.")
    done = origin(before, row(SYNTHESIS))
    assert not split(done).synthesis
    assert split(done, from_task=SYNTHESIS).synthesis
    assert split(done, synthesis_changed=True).synthesis
    assert split(done, replace(before, synthesis_plan="Another way.")).synthesis
    assert split(done, plan(task("a"), synthesis_plan="Put it together.")).synthesis
    assert not split(done, plan(task("a"))).synthesis
    assert split(origin(before, row(SYNTHESIS, "failed"))).synthesis
    skipped = [row(id, "skipped", Reason.CHOSEN) for id in "ab"]
    assert not split(origin(before, *skipped, row(SYNTHESIS, "skipped"))).synthesis


@pytest.mark.parametrize(
    ("left", "ran"),
    [
        (row("a"), True),
        (row("a", attempt=0, reason="reused"), True),
        (row("a", "waiting", attempt=0), True),
        (row("a", "failed"), True),
        (row("a", "cancelled"), True),
        (row("a", "pending"), True),  # it backs off
        (row("a", "pending", attempt=0), False),
        (row("a", "cancelled", attempt=0), False),
        (row("a", "skipped", Reason.DEPENDENCY_FAILED, attempt=0), False),
    ],
)
def test_from_what_has_run_one_can_fork(left: StepRow, ran: bool) -> None:
    assert fork.has_run(left) is ran


def test_what_an_approval_has_edited_stays_beside_the_plan() -> None:
    overrides: dict[TaskId, dict[str, Any]] = {
        TaskId("edited"): {"params": {"x": 0}, "model": "m", "edited": {"x": 1}},
        TaskId("retried"): {"params": {"x": True}},
        TaskId("only"): {"edited": {}},
        TaskId("never"): {"tool": "t"},
    }
    for_plan, beside = fork.standing(overrides)
    assert beside == {"edited": {"edited": {"x": 1}}, "only": {"edited": {}}}
    assert for_plan == {
        "edited": {"params": {"x": 0}, "model": "m"}, "retried": {"params": {"x": True}}, "never": {"tool": "t"}
    }  # fmt: skip


STATES = [
    ("completed", None), ("completed", "reused"), ("skipped", "chosen"), ("skipped", "dependency_failed"),
    ("failed", None), ("running", None), ("pending", None), ("cancelled", "cancelled"),
]  # fmt: skip


@st.composite
def forks(draw: st.DrawFn) -> tuple[Origin, Outline, TaskId | None, set[str]]:
    """An origin in any state, a plan that has some of its sub-tasks changed, and those that are."""
    size = draw(st.integers(1, 12))
    ids = [f"t{number}" for number in range(size)]
    above = [draw(st.sets(st.sampled_from(ids[:number]), max_size=3)) if number else set() for number in range(size)]
    before = [task(id, *sorted(above[number])) for number, id in enumerate(ids)]
    rows = [row(id, *draw(st.sampled_from(STATES))) for id in ids]
    changed = draw(st.sets(st.sampled_from(ids), max_size=2))
    after = [{**item, "expected_output": "new"} if item["id"] in changed else item for item in before]
    from_task = draw(st.none() | st.sampled_from(ids))
    order = draw(st.permutations(after))  # the order in which a plan lists them means nothing
    named = changed if from_task is None else changed | {from_task}
    return origin(plan(*before), *rows), plan(*order), None if from_task is None else TaskId(from_task), named


@given(forks())
def test_what_is_taken_over_is_closed_upwards_and_all_that_can_be(
    drawn: tuple[Origin, Outline, TaskId | None, set[str]],
) -> None:
    of, after, from_task, changed = drawn
    found = fork.split(of, after, from_task=from_task)
    reused = set(found.reused)
    assert [each.id for each in after.sub_tasks if each.id in reused] == list(found.reused)
    assert [each.id for each in after.sub_tasks if each.id not in reused] == list(found.again)
    for item in after.sub_tasks:
        done = of.rows[item.id].status == "completed" or of.rows[item.id].reason == "chosen"
        could = done and item.id not in changed and reused.issuperset(submission.dependencies(item))
        assert (item.id in reused) == could, item.id
    for id in found.doubtful:
        assert id not in changed | reused
        assert of.rows[id].status == StepStatus.RUNNING


@given(forks(), st.sampled_from(["retry", "succeeded"]))
def test_a_fork_runs_each_other_sub_task_once_and_comes_to_its_end(
    drawn: tuple[Origin, Outline, TaskId | None, set[str]], decision: str
) -> None:
    of, after, from_task, _ = drawn
    found = fork.split(of, after, from_task=from_task)
    execution = Execution(ExecutionId("dag-exec_1"), after, epoch=Epoch(1), effect_of=lambda _: Effect.ONCE)
    finished = {id: of.rows[id]._replace(result=JsonText("1"), completed_at=5) for id in found.reused}
    execution.adopt(finished, dict.fromkeys(found.doubtful), 10)
    changes = execution.take_changes(10)
    assert {each.task_id for each in changes.steps} == {*found.reused, *found.doubtful}
    assert all(each.attempt == 0 for each in changes.steps)
    ran: list[TaskId] = []
    for id in found.doubtful:
        execution.answer(execution.index[id], {"decision": decision}, 11)
    ready = [*changes.ready, *execution.take_changes(11).ready]
    while ready:
        position = ready.pop()
        ran.append(execution.steps[position].task.id)
        execution.begin(position, 12)
        execution.complete(position, JsonText("2"), 13)
        ready += execution.take_changes(13).ready
    done = set() if decision == "retry" else set(found.doubtful)
    assert sorted(ran) == sorted(set(found.again) - done)
    assert execution.status is ExecutionStatus.COMPLETED
    assert execution.count(StepStatus.PENDING) == 0
