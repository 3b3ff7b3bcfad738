"""Questions to people by the rules of single cases: approvals, time-outs, reminders; and what a failure may end."""

from __future__ import annotations

from typing import Any

import pytest

from dagbok.domain import overrides, values
from dagbok.domain.execution import EXPIRES_AGAIN_MS
from dagbok.domain.ids import TaskId
from dagbok.domain.retry import Policy
from dagbok.errors import Conflict

from .executions import Played, plan_of

HUMAN = {"action_type": "human", "tool_or_prompt": {"name": "human", "params": {"prompt": "Well?"}}}
APPROVED: dict[str, Any] = {"requires_approval": True}


def asked(within_s: float = 60, **more: Any) -> dict[str, Any]:
    return {**HUMAN, "timeout_seconds": within_s, **more}


def once(id: str, **more: Any) -> dict[str, Any]:
    return {"tool_or_prompt": {"name": "once", "params": {"to": id}}, **more}


# -- approvals ---------------------------------------------------------------------------------------------------------


def test_an_approved_step_runs_with_what_was_shown() -> None:
    played = Played(plan_of({"a": []}, a=once("ann", **APPROVED)))
    assert played.execution.steps[0].needs_approval
    played.ask_approval("a", input=None)
    question = played.store.questions[TaskId("a"), 1]
    assert (question.kind, values.decode(question.shown or "")["params"]) == ("approval", {"to": "ann"})
    assert played.states() == {"a": "waiting:approval"}
    played.answer("a", {"decision": "approve"}, by="bob")
    assert played.states() == {"a": "pending:approved"}
    assert played.ready.count("a") == 2  # from the beginning, and now that it may
    played.begin("a")
    assert played.states() == {"a": "running:approved"}
    played.complete("a", values.encode(1))
    assert (played.states(), played.row("a").attempt) == ({"a": "completed"}, 1)
    closed = played.store.questions[TaskId("a"), 1]
    assert (closed.outcome, closed.answered_by, closed.answer) == ("answered", "bob", '{"decision":"approve"}')


def test_an_answer_counts_for_the_question_that_was_seen_and_for_no_later_one() -> None:
    """Its execution may have been cancelled and retried, with other params, before the answer was written."""
    played = Played(plan_of({"a": []}, a=once("ann", **APPROVED)))
    played.ask_approval("a")
    played.cancel()
    played.retry(overrides={TaskId("a"): {"params": {"to": "eve"}, "effect": "once"}})
    played.ask_approval("a")
    with pytest.raises(Conflict, match=r"Question 1 .* not open any more"):
        played.answer("a", {"decision": "approve"}, number=1)
    assert played.states() == {"a": "waiting:approval"}
    played.answer("a", {"decision": "approve"}, number=2)
    assert played.states() == {"a": "pending:approved"}


def test_params_that_nest_as_deep_as_values_may_are_shown_as_text() -> None:
    """Asking about them failed: an engine that came back to such a step after a crash could not start."""
    deep: Any = 1
    for _ in range(values.MAX_DEPTH - 1):
        deep = [deep]
    input = values.encode({"rows": deep})
    played = Played(plan_of({"a": []}, a=once("ann", **APPROVED)))
    played.ask_approval("a", input=input)
    played.answer("a", {"decision": "approve"})
    played.begin("a", input=input)
    played.crash()
    assert played.states() == {"a": "waiting:outcome_unknown"}
    for number in (1, 2):
        assert values.decode(played.store.questions[TaskId("a"), number].shown or "")["params"] == input


def test_an_approval_outlives_retries_and_crashes() -> None:
    played = Played(plan_of({"a": []}, a={"tool_or_prompt": {"name": "pure", "params": {}}, **APPROVED}))
    played.ask_approval("a")
    played.answer("a", {"decision": "approve"})
    played.crash()
    assert played.ready == ["a"]
    assert not played.execution.steps[0].needs_approval
    played.begin("a")
    played.crash()
    assert (played.ready, played.execution.steps[0].needs_approval) == (["a"], False)
    played.begin("a")
    played.fail("a", "timeout", "slow", retry=Policy(3, backoff_seconds=1))
    assert played.ring(1) == ["a"]
    assert not played.execution.steps[0].needs_approval


def test_a_retry_of_the_execution_asks_anew() -> None:
    played = Played(plan_of({"a": []}, a=once("ann", **APPROVED)))
    played.ask_approval("a")
    played.answer("a", {"decision": "approve"})
    played.lose("a")
    assert played.status == "failed"
    played.crash()
    played.retry()
    assert played.states() == {"a": "pending"}
    assert played.execution.steps[0].needs_approval
    played.ask_approval("a")
    assert sorted(number for _, number in played.store.questions) == [1, 2]


def test_who_says_run_it_again_of_a_doubtful_attempt_is_asked_whether_with_that() -> None:
    played = Played(plan_of({"a": []}, a=once("ann", **APPROVED)))
    played.ask_approval("a")
    played.answer("a", {"decision": "approve"})
    played.begin("a")
    played.crash()
    assert played.states() == {"a": "waiting:outcome_unknown"}
    played.answer("a", {"decision": "retry"})
    assert (played.states(), played.ready) == ({"a": "pending"}, ["a"])
    assert played.execution.steps[0].needs_approval


def test_edited_params_stand_beside_the_plan() -> None:
    played = Played(plan_of({"a": [], "b": ["a"]}, b=once("<Result from Task a>", **APPROVED)))
    played.run("a")
    played.ask_approval("b", input='{"to":"a"}')
    answer = {"decision": "edit", "params": {"to": "eve"}, "effect": "pure"}
    played.answer("b", answer, by="bob")
    step = played.execution.steps[1]
    assert (step.task.tool_or_prompt.params, step.effect, step.revision) == ({"to": "eve"}, "pure", 1)
    assert played.store.overrides == {"b": '{"edited":{"to":"eve"}}'}
    assert played.words("b")[-2:] == ["substep.answered", "substep.overridden"]
    assert values.decode(played.store.questions[TaskId("b"), 1].answer or "") == {
        "decision": "edit",
        "params": {"to": "eve"},
    }
    played.crash()
    step = played.execution.steps[1]
    assert (step.task.tool_or_prompt.params, step.effect, step.revision) == ({"to": "eve"}, "pure", 1)
    assert played.execution.plan.sub_tasks[1].tool_or_prompt.params == {"to": "<Result from Task a>"}


@pytest.mark.parametrize(
    ("policy", "state", "child"),
    [
        ("fail", "failed", "skipped:dependency_failed"),
        ("skip", "skipped:chosen", "pending"),
        ("default", "completed", "pending"),
    ],
)
def test_a_rejected_step_ends_as_its_policy_says(policy: str, state: str, child: str) -> None:
    played = Played(plan_of({"a": [], "b": ["a"]}, a=once("ann", on_failure=policy, default=7, **APPROVED)))
    played.ask_approval("a")
    played.answer("a", {"decision": "reject"}, by="bob")
    assert played.states() == {"a": state, "b": child}
    row = played.row("a")
    assert (row.error, row.error_code, row.attempt) == ("bob has rejected it.", "rejected", 0)


def test_an_answer_of_another_kind_changes_nothing() -> None:
    played = Played(plan_of({"a": []}, a=once("ann", **APPROVED)))
    played.ask_approval("a")
    for answer in ({"decision": "retry"}, {"decision": "succeeded"}, "yes", None):
        with pytest.raises(Conflict, match="approve, edit, reject"):
            played.answer("a", answer)
    assert not played.execution.changed
    assert played.states() == {"a": "waiting:approval"}


def test_cancelling_closes_the_question() -> None:
    played = Played(plan_of({"a": [], "b": []}, a=once("ann", **APPROVED), b=asked()))
    played.ask_approval("a")
    played.ask("b", "Well?")
    played.cancel(by="bob")
    outcomes = {question.outcome for question in played.store.questions.values()}
    assert (played.status, outcomes) == ("cancelled", {"cancelled"})


def test_work_beside_a_question_is_active_time_and_waiting_alone_is_none() -> None:
    played = Played(plan_of({"a": [], "b": [], "c": ["a"]}, a=HUMAN))
    played.ask("a", "Well?")
    played.now_ms += 60_000
    played.begin("b")
    played.now_ms += 5_000
    played.complete("b", values.encode(1))
    played.now_ms += 60_000
    assert (played.status, played.header.duration_ms) == ("waiting", 5_010)
    played.crash()
    played.answer("a", "yes")
    played.run("c")
    assert (played.status, played.header.duration_ms) == ("completed", 5_030)


def test_a_timer_beside_a_question_is_active_time_also_out_of_memory() -> None:
    played = Played(plan_of({"a": [], "b": []}, a=HUMAN))
    played.ask("a", "Well?")
    played.begin("b", due_at=played.now_ms + 60_010)
    parked_at, due_at = played.now_ms, played.now_ms + 60_000
    played.execution = played.store.restored(parked=(parked_at, due_at))
    played.now_ms = due_at
    played.execution.take_over(played.now_ms)
    played.ring()
    assert (played.status, played.header.duration_ms) == ("waiting", 60_000)


# -- time that is over -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "state", "child"),
    [
        ({}, "failed", "skipped:dependency_failed"),
        ({"on_timeout": "skip"}, "skipped:chosen", "pending"),
        ({"on_timeout": "default", "default": 7}, "completed", "pending"),
        ({"on_failure": "skip"}, "skipped:chosen", "pending"),
        ({"on_timeout": "skip", "on_failure": "default"}, "skipped:chosen", "pending"),
    ],
)
def test_nobody_answers_in_time(more: dict[str, Any], state: str, child: str) -> None:
    played = Played(plan_of({"a": [], "b": ["a"]}, a=asked(**more)))
    played.ask("a", "Well?")
    assert played.row("a").next_attempt_at == played.execution.next_due_at == played.now_ms + 60_000
    played.ring(59.9)
    assert played.states()["a"] == "waiting:human"
    played.crash()
    played.ring(0.1)
    assert played.states() == {"a": state, "b": child}
    row, question = played.row("a"), played.store.questions[TaskId("a"), 1]
    assert (row.error, row.error_code) == ("Nobody has answered within 60 s.", "unanswered")
    assert (question.outcome, question.answer, question.closed_at) == ("timed_out", None, played.now_ms)
    assert row.result == ("7" if more.get("on_timeout") == "default" else None)
    with pytest.raises(Conflict):
        played.answer("a", "late")
    with pytest.raises(Conflict):
        played.expire("a", 1)


def test_a_question_that_is_not_closed_when_its_time_is_over_is_told_again() -> None:
    played = Played(plan_of({"a": []}, a=asked()))
    played.ask("a", "Well?")
    played.now_ms += 60_000
    assert played.execution.ring(played.now_ms).expired == [("a", 1)]
    assert played.execution.ring(played.now_ms).expired == []
    played.now_ms += EXPIRES_AGAIN_MS
    assert played.execution.ring(played.now_ms).expired == [("a", 1)]
    played.answer("a", "in time after all")
    assert played.states() == {"a": "completed"}
    assert played.execution.next_due_at is None


def test_an_answer_stops_the_clock() -> None:
    played = Played(plan_of({"a": [], "b": ["a"]}, a=asked()))
    played.ask("a", "Well?")
    played.answer("a", "yes")
    assert (played.execution.next_due_at, played.row("a").next_attempt_at) == (None, None)


def test_a_reminder_comes_each_time_it_has_been_open_twice_as_long() -> None:
    played = Played(plan_of({"a": []}, a=asked(on_timeout="remind")))
    played.ask("a", "Well?")
    for _ in range(10):
        played.ring(60)
    lines = [line for line in played.store.events if line.type == "substep.reminded"]
    began = played.store.questions[TaskId("a"), 1].asked_at
    assert [(line.at_ms - began) // 1000 for line in lines] == [60, 120, 240, 480]
    played.crash()
    question = played.store.questions[TaskId("a"), 1]
    assert (question.reminders, question.closed_at, played.states()) == (4, None, {"a": "waiting:human"})
    assert played.execution.next_due_at == question.due_at
    played.answer("a", "at last")
    assert played.status == "completed"


def test_a_clock_that_was_set_back_makes_no_question_longer() -> None:
    played = Played(plan_of({"a": []}, a=asked()))
    played.now_ms += 3_600_000
    played.ask("a", "Well?")
    played.now_ms -= 3_600_000
    played.crash()
    assert played.execution.next_due_at == played.now_ms + 60_000
    assert played.store.questions[TaskId("a"), 1].due_at == played.now_ms + 60_000


# -- the first failure -------------------------------------------------------------------------------------------------


def fast(*arguments: Any, **more: Any) -> Played:
    document = plan_of(*arguments, **more)
    played = Played(document)
    played.execution.fail_fast = True
    played.store.options = values.encode({"failurePolicy": "fail_fast"})
    return played


def test_the_first_failure_ends_all_with_fail_fast() -> None:
    played = fast({"a": [], "b": [], "c": ["b"], "d": [], "e": []}, synthesis=True, d=asked(), e=once("ann"))
    played.run("a")
    played.begin("b")
    played.begin("e")
    played.ask("d", "Well?")
    played.crash()  # `e` is asked about: it may have happened
    played.begin("b")
    played.fail("b", "boom", "it broke")
    assert played.states() == {
        "a": "completed", "b": "failed", "c": "skipped:dependency_failed", "d": "cancelled:fail_fast",
        "e": "cancelled:fail_fast", "__SYNTHESIS__": "cancelled:fail_fast",
    }  # fmt: skip
    assert (played.status, played.header.error_code) == ("partial", "fail_fast")
    assert played.header.error == "Ended at the first failure: 'b' (boom): it broke"
    played.crash()
    played.retry()
    assert played.states()["c"] == "pending"


def test_what_is_tried_again_or_may_fail_ends_nothing() -> None:
    played = fast({"a": [], "b": [], "c": []}, b={"on_failure": "skip"})
    played.begin("a")
    played.fail("a", "timeout", "slow", retry=Policy(2, backoff_seconds=1))
    played.lose("b")
    assert played.status == "running"
    played.ring(1)
    played.lose("a")
    assert (played.status, played.states()["c"]) == ("failed", "cancelled:fail_fast")


def test_a_failure_with_nothing_left_to_end_is_an_ordinary_one() -> None:
    played = fast({"a": [], "b": []})
    played.run("a")
    played.lose("b")
    assert (played.status, played.header.error_code) == ("partial", "sub_tasks_failed")


@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
def test_no_synthesis_follows_the_first_failure_though_it_came_last(order: tuple[str, str]) -> None:
    played = fast({"a": [], "b": [], "c": ["b"]}, synthesis=True)
    for id in ("a", "b"):
        played.begin(id)
    for id in order:
        if id == "b":
            played.fail(id, "boom", "it broke")
        elif played.status == "running":
            played.complete(id, "1")
    assert played.states()["__SYNTHESIS__"] == "cancelled:fail_fast"
    assert (played.status, played.header.error_code) == ("partial" if order[0] == "a" else "failed", "fail_fast")
    played.retry()
    played.run("b", "c") if order[0] == "a" else played.run("a", "b", "c")
    played.run("__SYNTHESIS__")
    assert played.status == "completed"


def test_a_body_that_has_not_begun_is_not_doubtful_when_another_failure_ends_it() -> None:
    played = fast({"a": [], "b": [], "c": []}, b=once("ann"), c=once("eve"))
    for id in ("a", "b", "c"):
        played.begin(id)
    played.execution.unstarted = lambda: [1]
    played.fail("a", "boom", "it broke")
    assert [played.row(id).error_code for id in ("b", "c")] == [None, "outcome_unknown"]


# -- overrides ---------------------------------------------------------------------------------------------------------


def test_a_retry_with_an_override_calls_something_else() -> None:
    played = Played(plan_of({"a": [], "b": ["a"]}, a=once("ann")))
    played.lose("a")
    played.crash()
    override = {"params": {"to": "eve"}, "tool": "idempotent", "effect": "idempotent"}
    played.retry(by="bob", overrides={"a": override, "b": {"params": {"x": 1}, "effect": "pure"}})
    first = played.execution.steps[0]
    assert (first.task.tool, first.task.tool_or_prompt.params) == ("idempotent", {"to": "eve"})
    assert (first.effect, first.revision, played.row("a").revision) == ("idempotent", 1, 1)
    data = [values.decode(event.data or "") for event in played.store.events if event.type == "substep.overridden"]
    assert data[0] == {"by": "bob", "revision": 1, "params": {"to": "eve"}, "tool": "idempotent"}
    played.crash()
    played.run("a", "b")
    assert (played.status, played.row("a").attempt) == ("completed", 2)


def test_a_later_override_stands_over_an_earlier_one() -> None:
    played = Played(plan_of({"a": []}, a=once("ann")))
    for override in ({"params": {"to": "eve"}}, {"tool": "pure"}):
        played.lose("a")
        played.crash()
        played.retry(overrides={"a": override})
    assert played.store.overrides == {"a": '{"params":{"to":"eve"},"tool":"pure"}'}
    assert played.row("a").revision == 2


def test_the_model_of_the_synthesis_may_be_another() -> None:
    played = Played(plan_of({"a": []}, synthesis=True))
    played.run("a")
    played.lose("__SYNTHESIS__")
    played.crash()
    played.retry(overrides={"__SYNTHESIS__": {"model": "m:2"}})
    assert played.execution.steps[1].task.tool_or_prompt.params == {"model": "m:2"}
    played.crash()
    assert played.execution.steps[1].task.tool_or_prompt.params == {"model": "m:2"}


def test_what_does_not_run_again_cannot_be_overridden() -> None:
    played = Played(plan_of({"a": [], "b": []}))
    played.run("a")
    played.lose("b")
    played.crash()
    for id in ("a", "nobody", "__SYNTHESIS__"):
        with pytest.raises(Conflict, match="does not run again"):
            played.retry(overrides={id: {"params": {}}})
    assert not played.execution.changed


def test_a_doubtful_attempt_is_asked_about_with_what_it_was_called_with() -> None:
    played = Played(plan_of({"a": []}, a=once("ann")))
    played.begin("a")
    played.cancel()
    played.crash()
    played.retry(overrides={"a": {"params": {"to": "eve"}, "tool": "pure", "effect": "pure"}})
    question = played.store.questions[TaskId("a"), 1]
    assert values.decode(question.shown or "")["params"] == {"to": "ann"}
    assert "(once)" in question.prompt
    played.answer("a", {"decision": "retry"})
    assert played.execution.steps[0].task.tool == "pure"


def test_other_params_take_the_place_of_all_that_was_said_about_params() -> None:
    older = {"params": {"a": 1}, "model": "m", "edited": {"a": 2}, "tool": "t"}
    assert overrides.merged(older, {"params": {"a": 3}}) == {"params": {"a": 3}, "tool": "t"}
    without = {"params": {"a": 1}, "model": "m", "tool": "t"}
    assert overrides.merged(without, {"model": "n"}) == {**without, "model": "n"}


def test_another_tool_or_model_takes_the_place_of_what_somebody_has_edited() -> None:
    """Edited params hid another model, and reached another tool, whose schema had never seen them."""
    older = {"params": {"a": 1}, "edited": {"a": 2}}
    assert overrides.merged(older, {"model": "n"}) == {"params": {"a": 1}, "model": "n"}
    assert overrides.merged(older, {"tool": "t"}) == {"params": {"a": 1}, "tool": "t"}
    assert overrides.merged({"tool": "t"}, {"edited": {"a": 2}}) == {"tool": "t", "edited": {"a": 2}}


def test_what_in_edited_params_reads_like_a_reference_is_a_text() -> None:
    """They were resolved when somebody saw them: it came from a result."""
    played = Played(plan_of({"a": [], "b": ["a"]}, b=once("<Result from Task a>", **APPROVED)))
    played.run("a")
    played.ask_approval("b", input='{"to":"<Result from Task b>"}')
    params = {"to": "{{ tasks.a.result }} and <Result from Task b>"}
    played.answer("b", {"decision": "edit", "params": params, "effect": "once"})
    played.crash()
    assert not played.execution.steps[1].has_references
    assert played.execution.before_edit(1) == {"to": "<Result from Task a>"}


# -- a fork begins -----------------------------------------------------------------------------------------------------


def test_a_fork_begins_with_what_is_finished() -> None:
    origin = Played(plan_of({"a": [], "b": ["a"], "c": ["b"]}, synthesis=True))
    origin.run("a")
    fork = Played(plan_of({"a": [], "b": ["a"], "c": ["b"]}, synthesis=True))
    fork.ready = []
    fork.execution.adopt({TaskId("a"): origin.row("a")}, {}, fork.now_ms)
    fork.commit()
    assert (fork.ready, fork.states()["a"], fork.row("a").attempt) == (["b"], "completed:reused", 0)
    assert fork.status == "running"
    fork.crash()
    fork.run("b", "c", "__SYNTHESIS__")
    assert fork.status == "completed"
