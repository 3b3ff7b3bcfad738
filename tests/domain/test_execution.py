"""The rules of the design's section "States", one by one."""

from __future__ import annotations

import math
from typing import Any

import pytest

from dagbok.domain import values
from dagbok.domain.call import MAX_AMOUNT, NO_CHARGE, Charge, Reply
from dagbok.domain.ids import SYNTHESIS, TaskId
from dagbok.domain.states import ExecutionStatus, Reason, StepStatus
from dagbok.domain.trying import MAX_INTERRUPTIONS
from dagbok.errors import BadReference, Conflict, TooLarge
from domain.executions import Played, execution_of, plan_of

DIAMOND = {"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"]}


# -- readiness ------------------------------------------------------------------------------------------------------


def test_a_step_is_ready_with_the_commit_of_its_last_dependency() -> None:
    played = Played(plan_of(DIAMOND))
    assert played.ready == ["a"]
    played.begin("a")
    played.execution.complete(0, values.encode(1), 2_000)
    assert played.ready == ["a"], "nothing follows from what is not committed"
    assert list(played.commit().ready) == [1, 2]
    played.run("b")
    assert "d" not in played.ready
    played.run("c")
    assert played.ready[-1] == "d"
    played.run("d")
    assert played.status == "completed"


def test_a_reference_is_a_dependency() -> None:
    more: dict[str, Any] = {"b": {"tool_or_prompt": {"name": "pure", "params": {"x": "<Result from Task a>"}}}}
    played = Played(plan_of({"b": [], "a": []}, **more))
    assert played.ready == ["a"]
    assert values.decode({step.task_id: step for step in played.execution.new_steps()}[TaskId("b")].dependencies) == [
        "a"
    ]


def test_rows_are_in_natural_order_with_the_synthesis_last() -> None:
    execution = execution_of(plan_of({"10": [], "9": [], "a": [], "1": []}, synthesis=True))
    positions = {str(step.task_id): step.position for step in execution.new_steps()}
    assert sorted(positions, key=positions.__getitem__) == ["1", "9", "10", "a", SYNTHESIS]
    last = execution.new_steps()[-1]
    assert (last.tool_or_prompt_name, last.action_type) == ("__synthesis__", "inference")


def test_what_has_most_ahead_of_it_is_known() -> None:
    execution = execution_of(plan_of({"a": [], "b": ["a"], "c": ["b"], "x": []}, synthesis=True))
    assert [execution.remaining(position) for position in range(5)] == [3, 2, 1, 1, 1]


# -- failing --------------------------------------------------------------------------------------------------------


def test_a_failed_step_skips_its_descendants_only() -> None:
    played = Played(plan_of({**DIAMOND, "e": ["d"], "x": [], "y": ["x"]}))
    played.run("a", "x")
    played.lose("b")
    assert played.states() == {
        "a": "completed", "b": "failed", "c": "pending", "d": "skipped:dependency_failed",
        "e": "skipped:dependency_failed", "x": "completed", "y": "pending",
    }  # fmt: skip
    assert played.status == "running"
    played.run("c", "y")
    assert played.status == "partial"
    assert (played.header.completed_tasks, played.header.failed_tasks, played.header.skipped_tasks) == (4, 1, 2)
    assert played.header.error_code == "sub_tasks_failed"
    assert "'b' (boom): b broke" in (played.header.error or "")


def test_a_step_two_failures_lead_to_is_skipped_once() -> None:
    played = Played(plan_of(DIAMOND))
    played.run("a")
    played.lose("b", "c")
    assert played.words("d") == ["substep.skipped"]
    assert played.status == "partial"


def test_nothing_completed_is_failed() -> None:
    played = Played(plan_of({"a": [], "b": ["a"]}))
    played.lose("a")
    assert played.status == "failed"
    assert played.words() == ["execution.created", "execution.started", "execution.failed"]
    assert played.header.final_result is None


def test_on_failure_skip_gives_dependents_null_and_counts_as_done() -> None:
    more: dict[str, Any] = {
        "a": {"on_failure": "skip"},
        "b": {
            "tool_or_prompt": {"name": "pure", "params": {"x": "<Result from Task a>", "y": "-<Result from Task a>"}}
        },
    }
    played = Played(plan_of({"a": [], "b": []}, **more))
    played.lose("a")
    assert played.states() == {"a": "skipped:chosen", "b": "pending"}
    assert played.row("a").error_code == "boom"
    position = played.execution.index[TaskId("b")]
    results = played.execution.results(position)
    assert played.execution.params(position, results, max_bytes=1_000) == {"x": None, "y": "-null"}
    played.run("b")
    assert played.status == "completed"
    assert played.header.error is None


@pytest.mark.parametrize("default", [{"value": 1}, None])
def test_on_failure_default_completes_with_the_default_and_keeps_the_error(default: Any) -> None:
    played = Played(plan_of({"a": [], "b": ["a"]}, a={"on_failure": "default", "default": default}))
    played.lose("a")
    row = played.row("a")
    assert (row.status, row.result, row.error_code, row.error) == (
        "completed", values.encode(default), "boom", "a broke",
    )  # fmt: skip
    assert played.execution.results(1) == {"a": default}
    played.run("b")
    assert played.status == "completed"
    assert played.store.attempts[TaskId("a"), 1].outcome == "failed"


def test_all_skipped_by_choice_is_completed_without_a_result() -> None:
    played = Played(plan_of({"a": [], "b": []}, a={"on_failure": "skip"}, b={"on_failure": "skip"}, synthesis=True))
    played.lose("a", "b")
    assert played.status == "completed"
    assert played.row(SYNTHESIS).reason == "chosen"
    assert played.header.final_result is None


def test_a_step_may_fail_before_it_begins() -> None:
    """An unknown tool, or params that cannot be resolved: no attempt was made, and none is written."""
    played = Played(plan_of({"a": [], "b": ["a"]}))
    played.fail("a", "unknown_tool", "no such tool")
    assert played.status == "failed"
    assert played.store.attempts == {}


def test_the_outcome_of_a_closed_attempt_is_not_written_over() -> None:
    """After a crash the next process may not know the tool; the interrupted attempt stays what it was."""
    played = Played(plan_of({"a": [], "b": []}))
    played.begin("a")
    played.crash()
    played.fail("a", "unknown_tool", "no such tool")
    assert {key: row.outcome for key, row in played.store.attempts.items()} == {("a", 1): "interrupted"}


def test_odd_error_codes_of_tools_do_no_harm() -> None:
    played = Played(plan_of({"a": [], "b": []}))
    played.begin("a")
    played.fail("a", "a\0\ud800" + "x" * 1_000, "broke")
    code = played.row("a").error_code
    assert code is not None
    assert len(code) < 200
    assert not list(values.faults(code))


# -- synthesis ------------------------------------------------------------------------------------------------------


def test_the_synthesis_runs_over_what_completed_and_is_told_what_is_missing() -> None:
    more: dict[str, Any] = {"b": {"description": "second"}, "c": {"on_failure": "skip"}, "d": {"dependencies": ["b"]}}
    played = Played(plan_of({"a": [], "b": [], "c": [], "d": []}, synthesis=True, **more))
    played.lose("b", "c")
    assert SYNTHESIS not in played.ready
    assert played.status == "running"
    played.run("a")
    assert played.ready[-1] == SYNTHESIS
    assert played.status == "running"
    position = played.execution.index[SYNTHESIS]
    assert played.execution.results(position) == {"a": "a"}
    assert [(gone.task_id, gone.description, gone.status, gone.error) for gone in played.execution.missing()] == [
        ("b", "second", "failed", "b broke"),
        ("c", "", "skipped", "c broke"),
        ("d", "", "skipped", "dependency_failed"),
    ]
    played.begin(SYNTHESIS)
    played.complete(SYNTHESIS, values.encode("# All"))
    assert (played.header.final_result, played.header.synthesis_result) == ("# All", "# All")
    assert played.status == "partial"
    assert played.header.completed_tasks == 1, "the synthesis is in no counter"


def test_a_synthesis_that_is_no_text_is_shown_as_json() -> None:
    played = Played(plan_of({"a": []}, synthesis=True))
    played.run("a")
    played.begin(SYNTHESIS)
    played.complete(SYNTHESIS, values.encode({"a": [1]}))
    assert played.status == "completed"
    assert played.header.final_result == '{"a":[1]}'


def test_counters_leave_the_synthesis_out_in_every_state() -> None:
    played = Played(plan_of({"a": []}, synthesis=True))
    assert [played.execution.count(status) for status in StepStatus] == [1, 0, 0, 0, 0, 0, 0]
    played.run("a")
    played.begin(SYNTHESIS)
    assert (played.header.running_tasks, played.header.completed_tasks) == (0, 1)
    assert played.execution.count(StepStatus.RUNNING) == 0
    played.fail(SYNTHESIS, "model", "is away")
    assert (played.header.failed_tasks, played.header.completed_tasks) == (0, 1)


def test_nothing_completed_means_no_synthesis() -> None:
    played = Played(plan_of({"a": [], "b": ["a"]}, synthesis=True))
    played.lose("a")
    assert played.status == "failed"
    assert played.row(SYNTHESIS).status == "skipped"
    assert played.row(SYNTHESIS).reason == "dependency_failed"
    assert SYNTHESIS not in played.ready


@pytest.mark.parametrize("also_failed", [False, True])
def test_a_synthesis_that_fails_makes_it_partial(also_failed: bool) -> None:
    played = Played(plan_of({"a": [], "b": []}, synthesis=True))
    played.run("a")
    (played.lose if also_failed else played.run)("b")
    played.lose(SYNTHESIS)
    assert played.status == "partial"
    assert played.header.error_code == "synthesis_failed"
    assert played.header.final_result is None


def test_a_crash_while_the_synthesis_runs_runs_it_again() -> None:
    played = Played(plan_of({"a": []}, synthesis=True))
    played.run("a")
    played.begin(SYNTHESIS)
    played.crash()
    assert played.ready == [SYNTHESIS]
    played.run(SYNTHESIS)
    assert played.status == "completed"


def test_a_crash_before_the_synthesis_begins_leaves_it_ready() -> None:
    played = Played(plan_of({"a": []}, synthesis=True))
    played.run("a")
    played.crash()
    assert played.ready == [SYNTHESIS]


# -- the final result -----------------------------------------------------------------------------------------------


def test_without_synthesis_the_only_sink_has_the_result() -> None:
    played = Played(plan_of(DIAMOND))
    played.run("a", "b", "c", "d")
    assert (played.header.final_result, played.header.synthesis_result) == ("d", None)


def test_several_sinks_make_a_json_object_of_those_that_completed() -> None:
    played = Played(plan_of({"a": [], 'b"': ["a"], "c": ["a"], "d": ["a"]}))
    played.run("a", 'b"')
    played.begin("c")
    played.complete("c", values.encode({"x": [None]}))
    played.lose("d")
    assert values.decode(played.header.final_result or "") == {'b"': 'b"', "c": {"x": [None]}}


@pytest.mark.parametrize("tasks", [{"a": [], "b": ["a"]}, {"a": [], "b": ["a"], "c": ["a"]}])
def test_sinks_without_a_result_give_none(tasks: dict[str, list[str]]) -> None:
    played = Played(plan_of(tasks))
    played.run("a")
    played.lose(*(id for id in tasks if id != "a"))
    assert played.status == "partial"
    assert played.header.final_result is None


# -- waiting --------------------------------------------------------------------------------------------------------


def test_waiting_for_a_person_beats_running() -> None:
    played = Played(plan_of({"a": [], "q": [], "b": ["q"]}))
    played.begin("a")
    assert played.status == "running"
    played.ask("q", "which?")
    assert played.status == "waiting"
    played.complete("a", values.encode(1))
    assert played.status == "waiting"
    played.answer("q", {"choice": 2}, by="me")
    assert played.status == "running"
    assert played.row("q").result == '{"choice":2}'
    assert played.store.questions[TaskId("q"), 1].answered_by == "me"
    played.run("b")
    assert played.words() == [
        "execution.created", "execution.started", "execution.waiting", "execution.resumed", "execution.completed",
    ]  # fmt: skip
    assert played.words("q") == ["substep.waiting", "substep.answered", "substep.completed"]


def test_an_execution_that_begins_with_a_question_has_started() -> None:
    """It once said `resumed` before `started`, and one of questions only ended without having started."""
    played = Played(plan_of({"q": []}))
    assert played.status == "pending"
    played.ask("q", "which?")
    assert played.header.started_at is not None
    played.answer("q", None)
    assert played.words() == [
        "execution.created", "execution.started", "execution.waiting", "execution.completed",
    ]  # fmt: skip
    assert played.header.final_result == "null"


def test_a_second_answer_is_a_conflict_and_changes_nothing() -> None:
    played = Played(plan_of({"q": [], "a": []}))
    with pytest.raises(Conflict):
        played.answer("q", 1)
    played.ask("q", "which?")
    played.answer("q", 1)
    with pytest.raises(Conflict):
        played.answer("q", 2)
    assert not played.execution.changed
    assert played.row("q").result == "1"


def test_a_question_outlives_a_crash() -> None:
    played = Played(plan_of({"q": [], "b": ["q"]}))
    played.ask("q", "which?", answer_schema=values.encode({}), assignee="ann")
    played.crash()
    assert played.ready == []
    played.answer("q", "yes")
    assert played.ready == ["b"]
    assert len(played.store.questions) == 1


# -- crashes --------------------------------------------------------------------------------------------------------


def task_with(tool: str) -> dict[str, Any]:
    return {"tool_or_prompt": {"name": tool, "params": {"n": 1}}}


@pytest.mark.parametrize("tool", ["pure", "idempotent"])
def test_what_may_be_repeated_is_ready_again_after_a_crash(tool: str) -> None:
    played = Played(plan_of({"a": [], "b": ["a"]}, a=task_with(tool)))
    played.begin("a")
    played.crash()
    assert played.ready == ["a"]
    assert played.status == "running"
    played.run("a", "b")
    assert played.row("a").attempt == 2
    assert played.store.attempts[TaskId("a"), 1].outcome == "interrupted"
    assert played.status == "completed"


def test_what_must_not_be_repeated_asks_whether_it_happened() -> None:
    played = Played(plan_of({"a": [], "b": ["a"]}, a=task_with("once")))
    played.begin("a")
    played.crash()
    assert played.ready == []
    assert played.states()["a"] == "waiting:outcome_unknown"
    assert played.status == "waiting"
    played.crash()
    assert played.ready == [], "asked already"
    assert len(played.store.questions) == 1


@pytest.mark.parametrize(
    ("answer", "state", "ready"),
    [
        ({"decision": "retry"}, "pending", ["a"]),
        ({"decision": "succeeded", "result": [1]}, "completed", ["b"]),
        ({"decision": "succeeded"}, "completed", ["b"]),
        ({"decision": "fail"}, "failed", []),
    ],
)
def test_a_person_decides_what_became_of_it(answer: Any, state: str, ready: list[str]) -> None:
    played = Played(plan_of({"a": [], "b": ["a"]}, a=task_with("once")))
    played.begin("a")
    played.crash()
    played.answer("a", answer)
    assert played.states()["a"] == state
    assert played.ready == ready
    assert played.row("a").result == (values.encode(answer.get("result")) if state == "completed" else None)
    assert [row.outcome for row in played.store.attempts.values()] == ["interrupted"]
    for id in ready:
        played.run(id)
    assert (played.status in ("completed", "failed")) == (ready != ["a"])


@pytest.mark.parametrize("answer", ["retry", None, {}, {"decision": "perhaps"}, {"decision": ["retry"]}, ["retry"]])
def test_an_answer_that_decides_nothing_changes_nothing(answer: Any) -> None:
    """It once closed the question and left the step waiting for ever, or failed it."""
    played = Played(plan_of({"a": []}, a=task_with("once")))
    played.begin("a")
    played.crash()
    with pytest.raises(Conflict):
        played.answer("a", answer)
    assert not played.execution.changed
    played.answer("a", {"decision": "retry"})
    assert played.ready == ["a"]


@pytest.mark.parametrize("tool", ["pure", "once"])
def test_a_step_that_stops_its_process_again_and_again_fails(tool: str) -> None:
    played = Played(plan_of({"a": [], "b": []}, a=task_with(tool)))
    for number in range(1, MAX_INTERRUPTIONS + 1):
        played.begin("a")
        played.crash()
        if tool == "once" and number < MAX_INTERRUPTIONS:
            played.answer("a", {"decision": "retry"})
    row = played.row("a")
    assert row.error_code == "crash_loop"
    told = "Nobody knows" in str(row.error), "outcome_unknown" in str(row.error_detail)
    assert told == ((True, True) if tool == "once" else (False, False))
    assert [row.outcome for row in played.store.attempts.values()] == ["interrupted"] * MAX_INTERRUPTIONS
    assert played.ready == ["b"]


def test_a_timer_outlives_a_crash() -> None:
    played = Played(plan_of({"a": []}))
    played.begin("a", due_at=9_000)
    played.crash()
    assert played.row("a").next_attempt_at == played.execution.next_due_at == 9_000
    assert played.store.attempts == {}
    assert played.ring() == []
    assert played.status == "running"
    assert played.ring(9) == []
    assert played.status == "completed"
    assert values.decode(str(played.row("a").result)) == {"waited_seconds": 7.99}


def test_a_timer_is_not_longer_for_a_clock_that_was_set_back() -> None:
    """A process whose clock was an hour ahead leaves due times an hour too late."""
    played = Played(plan_of({"a": []}))
    played.now_ms = 3_600_000
    played.begin("a", due_at=3_600_010 + 5_000)
    played.now_ms = 0
    played.crash()
    due_at = played.execution.next_due_at
    assert due_at == played.now_ms + 5_000
    played.crash()
    assert played.execution.next_due_at == due_at, "nor shorter, however often its process dies"
    played.ring(5)
    assert values.decode(str(played.row("a").result)) == {"waited_seconds": 5.0}
    assert played.row("a").duration_ms == 6_000


def test_time_between_owners_is_not_active_time() -> None:
    played = Played(plan_of({"a": []}))
    played.begin("a")
    played.execution.report(0, values.encode({"message": "half"}))
    played.now_ms += 100
    played.commit()
    assert played.header.duration_ms == 100
    played.crash()
    played.run("a")
    assert played.header.duration_ms == 120


# -- cancelling and aborting ----------------------------------------------------------------------------------------


def test_cancelling_ends_everything_and_keeps_what_completed() -> None:
    played = Played(plan_of({"a": [], "b": [], "q": [], "t": [], "c": ["b"]}, synthesis=True))
    played.run("a")
    played.begin("b")
    played.begin("t", due_at=99_000)
    played.ask("q", "which?")
    played.cancel(by="me")
    assert played.status == "cancelled"
    assert played.states() == {
        "a": "completed",
        **dict.fromkeys(["b", "q", "t", "c", SYNTHESIS], "cancelled:cancelled"),
    }
    assert played.store.questions[TaskId("q"), 1].closed_at is not None
    assert list(played.store.attempts) == [("b", 1), ("t", 1)]
    with pytest.raises(Conflict):
        played.cancel()
    assert not played.execution.changed


def test_what_became_ready_in_the_commit_of_a_cancellation_is_not() -> None:
    played = Played(plan_of({"a": [], "b": ["a"]}))
    played.begin("a")
    played.execution.complete(0, values.encode(1), 2_000)
    played.execution.cancel(2_000)
    assert list(played.commit().ready) == []


def test_an_execution_is_cancelled_before_it_starts() -> None:
    played = Played(plan_of({"a": []}))
    played.cancel()
    assert played.status == "cancelled"
    assert played.header.started_at is None


@pytest.mark.parametrize(("done", "status"), [([], "failed"), (["a"], "partial"), (["a", "b"], "partial")])
def test_aborting_keeps_what_completed(done: list[str], status: str) -> None:
    """With all sub-tasks done and only the synthesis cut off it once was `completed`, and without a result."""
    played = Played(plan_of({"a": [], "b": []}, synthesis=True))
    played.run(*done)
    played.execution.abort(Reason.STORE_REJECTED, "the database refuses", 5_000)
    played.commit()
    assert played.status == status
    assert played.header.error_code == "store_rejected"
    assert played.row(SYNTHESIS).status == "cancelled"
    played.execution.abort(Reason.STORE_REJECTED, "again", 6_000)
    assert not played.execution.changed


# -- params and results ---------------------------------------------------------------------------------------------


def test_params_are_resolved_from_results_and_bounded() -> None:
    more: dict[str, Any] = {
        "b": {"tool_or_prompt": {"name": "pure", "params": {"x": "{{ tasks.a.result.n }}", "y": [1]}}},
        "c": {"tool_or_prompt": {"name": "pure", "params": {"x": "{{ tasks.a.result | ceil(@) }}"}}},
        "d": {"tool_or_prompt": {"name": "pure", "params": {"x": 1}}},
    }
    played = Played(plan_of({"a": [], "b": [], "c": [], "d": []}, **more))
    played.begin("a")
    played.complete("a", values.encode({"n": "x" * 100}))
    execution = played.execution
    assert execution.params(1, execution.results(1), max_bytes=200) == {"x": "x" * 100, "y": [1]}
    with pytest.raises(TooLarge):
        execution.params(1, execution.results(1), max_bytes=50)
    with pytest.raises(BadReference):
        execution.params(2, execution.results(2), max_bytes=200)
    assert execution.results(3) == {}
    assert execution.params(3, {}, max_bytes=0) == {"x": 1}


def test_progress_is_written_without_an_event_and_while_running_only() -> None:
    played = Played(plan_of({"a": []}))
    played.execution.report(0, values.encode({"message": "early"}))
    assert not played.execution.changed
    played.begin("a")
    played.execution.report(0, values.encode({"message": "half"}))
    changes = played.commit()
    assert changes.seq_before == changes.seq_after
    assert played.row("a").progress == '{"message":"half"}'
    played.complete("a", values.encode(1))
    played.execution.report(0, values.encode({"message": "late"}))
    assert not played.execution.changed


# -- cost -----------------------------------------------------------------------------------------------------------


def test_what_attempts_cost_adds_up_failed_ones_included() -> None:
    played = Played(plan_of({"a": [], "b": [], "c": []}))
    played.begin("a")
    played.complete("a", values.encode(1), charge=Charge({"tokens": 10, "requests": 1}, 0.5, "m"))
    assert played.header.total_cost_usd == 0.5
    played.begin("b")
    played.fail("b", "x", "y", charge=Charge({"tokens": 5}, None, "m"))
    played.crash()
    played.begin("c")
    played.complete("c", values.encode(1), charge=Charge({"tokens": 1.5}, 0.25, "m"))
    assert values.decode(played.header.total_usage or "") == {"tokens": 16.5, "requests": 1}
    assert played.header.total_cost_usd == 0.75
    assert played.row("b").usage == '{"tokens":5}'


@pytest.mark.parametrize(
    "reply",
    [
        Reply(1, usage={"a": math.nan, "b": math.inf, "c": 2**70, "d": "x", "e": None, "f": [1], "g": True, "ok": 1}),
        Reply(1, usage={"\0": 1, "\ud800": 1, "ok": 1}, cost_usd=math.nan),
        Reply(1, usage={1: 1, "ok": 1}, cost_usd=-math.inf, model="m\0\ud800"),  # type: ignore[dict-item]
        Reply(1, usage={"ok": 1}, cost_usd="5", model=5),  # type: ignore[arg-type]
    ],
)
def test_a_bill_that_is_none_loses_no_result(reply: Reply) -> None:
    """It once raised in the middle of the transition, and the execution stood still."""
    charge = reply.charge.kept()
    assert charge.usage == {"ok": 1}
    assert charge.cost_usd is None
    assert charge.model is None or not list(values.faults(charge.model))
    played = Played(plan_of({"a": []}))
    played.begin("a")
    played.complete("a", values.encode(reply.value), charge=charge)
    assert played.status == "completed"


def test_the_largest_bills_of_the_largest_plan_still_add_up() -> None:
    assert 10_000 * MAX_AMOUNT <= values.MAX_INTEGER
    assert Reply(1, usage={"n": MAX_AMOUNT, "more": MAX_AMOUNT + 1}).charge.kept().usage == {"n": MAX_AMOUNT}


def test_no_bill_is_no_charge() -> None:
    assert Reply(1).charge.kept() == NO_CHARGE


def test_pending_is_the_state_before_any_start() -> None:
    played = Played(plan_of({"a": [], "b": []}))
    assert played.execution.status is ExecutionStatus.PENDING
    assert not played.execution.ended
    played.crash()
    assert sorted(played.ready) == ["a", "b"]
    assert played.status == "pending"
