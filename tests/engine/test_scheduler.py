from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest

from dagbok.domain.call import Call, Charge, Reply
from dagbok.domain.execution import Execution
from dagbok.domain.ids import TaskId
from dagbok.domain.records import Command
from dagbok.domain.states import Effect, ExecutionStatus, Reason, StepStatus
from dagbok.engine.containment import contain
from dagbok.errors import Conflict, Fenced, Stalled, StoreRejected, ToolError
from engine.fakes import Bench, FakeJournal, FakeTool, execution, plan, quiet, task


async def _echo(call: Call) -> object:
    return call.params.get("value", call.task_id)


def _error(execution: Execution, task_id: str) -> str | None:
    return execution.steps[execution.index[TaskId(task_id)]].error_code


def test_a_diamond_runs_in_order_and_its_sink_is_the_final_result() -> None:
    async def main() -> None:
        bench = Bench(FakeTool("work", _echo))
        done = await bench.run(
            task("a"),
            task("b", "a"),
            task("c", "a"),
            task("d", params={"value": "<Result from Task b> and <Result from Task c>"}),
        )
        assert done.status is ExecutionStatus.COMPLETED
        assert done.header.final_result == "b and c"

    asyncio.run(main())


def test_a_dependent_starts_only_after_the_commit_of_all_it_depends_on() -> None:
    """The promise that makes recovery exact: what a step saw is durable."""

    async def main() -> None:
        journal = FakeJournal(held=True)
        started: list[str] = []

        async def body(call: Call) -> object:
            started.append(call.task_id)
            return 1

        bench = Bench(FakeTool("work", body), journal=journal)
        bench.add(plan(task("a"), task("b", "a")))
        await quiet()
        assert started == ["a"]
        await quiet()
        assert started == ["a"], "b must wait for the commit of a's result"
        journal.release()
        await quiet()
        assert started == ["a", "b"]

    asyncio.run(main())


def test_the_body_of_a_once_tool_starts_after_its_own_start_is_durable() -> None:
    async def main() -> None:
        journal = FakeJournal(held=True)
        started: list[str] = []

        async def body(call: Call) -> object:
            started.append(call.task_id)
            return 1

        bench = Bench(FakeTool("work", body, effect=Effect.ONCE), journal=journal)
        bench.add(plan(task("a")))
        await quiet()
        assert journal.events() == [("execution.started", None), ("substep.started", "a")]
        assert started == []
        journal.release()
        await quiet()
        assert started == ["a"]

    asyncio.run(main())


def test_the_start_and_the_end_of_a_quick_step_share_one_row_update() -> None:
    async def main() -> None:
        bench = Bench(FakeTool("work", _echo))
        await bench.run(task("a"))
        assert len(bench.journal.appended) == 1
        assert [row.status for row in bench.journal.appended[0].steps] == ["completed"]

    asyncio.run(main())


def test_the_longest_path_goes_first_when_slots_are_scarce() -> None:
    async def main() -> None:
        order: list[str] = []

        async def body(call: Call) -> object:
            order.append(call.task_id)
            await bench.clock.sleep(1)
            return 1

        bench = Bench(FakeTool("work", body), max_concurrency=1)
        chain = [task("c1"), task("c2", "c1"), task("c3", "c2"), task("c4", "c3")]
        await bench.run(*(task(f"short{n}") for n in range(5)), *chain)
        # While c1's commit is under way a slot is free, which one short step takes; then the chain goes on.
        assert order[0] == "c1"
        assert order.index("c3") <= 4

    asyncio.run(main())


@pytest.mark.parametrize("limit", [1, 3, 7])
def test_no_more_attempts_run_than_the_global_limit_allows(limit: int) -> None:
    async def main() -> None:
        running = peak = 0

        async def body(call: Call) -> object:
            nonlocal running, peak
            running += 1
            peak = max(peak, running)
            await bench.clock.sleep(1)
            running -= 1
            return 1

        bench = Bench(FakeTool("work", body), max_concurrency=limit)
        done = await bench.run(*(task(n) for n in range(20)))
        assert done.status is ExecutionStatus.COMPLETED
        assert peak == limit

    asyncio.run(main())


def test_a_tool_at_its_limit_does_not_hold_up_the_others() -> None:
    async def main() -> None:
        running: dict[str, int] = {"slow": 0, "work": 0}
        peak = dict(running)

        async def body(call: Call) -> object:
            name = call.sub_task.tool
            running[name] += 1
            peak[name] = max(peak[name], running[name])
            await bench.clock.sleep(1)
            running[name] -= 1
            return 1

        bench = Bench(FakeTool("slow", body, max_concurrency=2), FakeTool("work", body), max_concurrency=8)
        tasks = [task(f"s{n}", tool="slow") for n in range(10)] + [task(f"w{n}") for n in range(6)]
        done = await bench.run(*tasks)
        assert done.status is ExecutionStatus.COMPLETED
        assert peak == {"slow": 2, "work": 6}

    asyncio.run(main())


def test_executions_take_turns_so_that_a_small_one_does_not_wait_for_a_large_one() -> None:
    async def main() -> None:
        order: list[str] = []

        async def body(call: Call) -> object:
            order.append(call.execution_id)
            await bench.clock.sleep(1)
            return 1

        bench = Bench(FakeTool("work", body), max_concurrency=2)
        large = bench.add(plan(*(task(n) for n in range(100))))
        small = bench.add(plan(task(1)))
        await bench.finish(large, small)
        assert order.index(small.id) < 4

    asyncio.run(main())


class _Raises(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def _hostile() -> dict[str, Any]:
    async def raises(call: Call) -> object:
        raise ValueError("it broke\0 \ud800")

    async def exits(call: Call) -> object:
        raise SystemExit(3)

    async def unreadable(call: Call) -> object:
        raise _Raises

    async def coded(call: Call) -> object:
        raise ToolError("slow down", code="rate_limited")

    async def no_json(call: Call) -> object:
        return {"x": object()}

    async def not_a_number(call: Call) -> object:
        return {"x": [float("nan")]}

    async def surrogate(call: Call) -> object:
        return "\ud800"

    async def nul(call: Call) -> object:
        return {"a\0": 1}

    async def too_big(call: Call) -> object:
        return 2**70

    async def large(call: Call) -> object:
        return "x" * 2_000_000

    async def odd_message(call: Call) -> object:
        raise ToolError(ValueError("inner"))  # type: ignore[arg-type]  # as people write it

    async def generator_exit(call: Call) -> object:
        raise GeneratorExit

    async def cancels_itself(call: Call) -> object:
        raise asyncio.CancelledError

    return {
        "tool_error": [raises, exits, unreadable, cancels_itself, odd_message, generator_exit],
        "rate_limited": [coded],
        "not_json": [no_json, not_a_number, surrogate, nul, too_big],
        "result_too_large": [large],
    }


@pytest.mark.parametrize(
    ("code", "body"),
    [(code, body) for code, bodies in _hostile().items() for body in bodies],
    ids=lambda v: getattr(v, "__name__", v),
)
def test_whatever_a_tool_does_its_step_alone_fails_and_the_rest_goes_on(code: str, body: Any) -> None:
    async def main() -> None:
        bench = Bench(FakeTool("work", _echo), FakeTool("bad", body))
        done = await bench.run(task("bad", tool="bad"), task("after", "bad"), task("other"), task("last", "other"))
        assert done.status is ExecutionStatus.PARTIAL
        assert _error(done, "bad") == code
        states = {step.task.id: step.status for step in done.steps}
        assert states == {"bad": "failed", "after": "skipped", "other": "completed", "last": "completed"}
        step = done.steps[done.index[TaskId("bad")]]
        assert step.error
        assert "\0" not in step.error
        step.error.encode()
        (step.error_detail or "").encode()

    asyncio.run(main())


def test_an_error_tells_its_place_in_the_tools_own_code() -> None:
    async def body(call: Call) -> object:
        raise ValueError("no such city")

    async def main() -> None:
        done = await Bench(FakeTool("work", body)).run(task("a"))
        step = done.steps[0]
        assert step.error == "ValueError: no such city"
        assert step.error_detail is not None
        assert 'raise ValueError("no such city")' in step.error_detail

    asyncio.run(main())


def test_a_body_that_hangs_is_cut_off_by_its_timeout_even_if_it_swallows_the_cancellation() -> None:
    async def main() -> None:
        async def stubborn(call: Call) -> object:
            for _ in range(3):
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    continue
            return "too late"

        bench = Bench(FakeTool("work", stubborn, timeout_s=30))
        done = await bench.run(task("a"), task("b", timeout_seconds=5))
        assert [step.error_code for step in done.steps] == ["timeout", "timeout"]
        assert [step.duration_ms for step in done.steps] == [30_000, 5_000]
        await bench.scheduler.close(0)
        for left in asyncio.all_tasks() - {asyncio.current_task()}:
            left.cancel()

    asyncio.run(main())


def test_a_timer_holds_no_task_and_no_slot() -> None:
    async def main() -> None:
        bench = Bench(FakeTool("work", _echo), FakeTool("wait", _echo, timer=True), max_concurrency=1)
        tasks_before = len(asyncio.all_tasks())
        made = bench.add(plan(*(task(n, tool="wait", params={"seconds": 3600}) for n in range(50)), task("w")))
        await quiet()
        assert made.count(StepStatus.RUNNING) == 50
        assert made.count(StepStatus.COMPLETED) == 1
        assert len(asyncio.all_tasks()) == tasks_before
        started = bench.clock.now_ms()
        await bench.finish(made)
        assert bench.clock.now_ms() - started == 3_600_000
        assert made.status is ExecutionStatus.COMPLETED

    asyncio.run(main())


@pytest.mark.parametrize("seconds", [-1, "soon", True, 1e12, None])
def test_a_timer_without_sense_fails_with_a_clear_error(seconds: Any) -> None:
    async def main() -> None:
        bench = Bench(FakeTool("wait", _echo, timer=True))
        done = await bench.run(task("a", tool="wait", params={"seconds": seconds}))
        assert _error(done, "a") == "invalid_input"
        assert "seconds" in (done.steps[0].error or "")

    asyncio.run(main())


def test_usage_and_cost_of_model_calls_add_up_in_the_execution() -> None:
    async def main() -> None:
        async def asks(call: Call) -> object:
            return Reply("text", usage={"requests": 1, "inputTokens": 10}, cost_usd=0.25, model="offline:extractive")

        bench = Bench(FakeTool("work", asks))
        done = await bench.run(task("a"), task("b"))
        assert done.header.usage == {"requests": 2, "inputTokens": 20}
        assert done.header.cost_usd == 0.5
        assert bench.journal.appended[-1].header.total_cost_usd == 0.5
        assert done.steps[0].model == "offline:extractive"

    asyncio.run(main())


def test_what_a_failed_attempt_has_cost_counts_too() -> None:
    async def main() -> None:
        async def asks(call: Call) -> object:
            usage = {"requests": 2, "inputTokens": math.nan}  # what is no number is left out and fails nothing
            raise ToolError("no", code="invalid_output", charge=Charge(usage, 0.5, "openai:gpt-x"))

        bench = Bench(FakeTool("work", asks))
        done = await bench.run(task("a"))
        assert _error(done, "a") == "invalid_output"
        assert (done.header.usage, done.header.cost_usd) == ({"requests": 2}, 0.5)
        assert done.steps[0].model == "openai:gpt-x"
        (attempt,) = [row for changes in bench.journal.appended for row in changes.attempts]
        assert (attempt.usage, attempt.cost_usd) == ('{"requests":2}', 0.5)

    asyncio.run(main())


def test_a_charge_that_is_none_costs_nothing() -> None:
    async def main() -> None:
        async def asks(call: Call) -> object:
            raise ToolError("no", charge="much")

        bench = Bench(FakeTool("work", asks))
        done = await bench.run(task("a"))
        assert (_error(done, "a"), done.header.usage) == ("tool_error", {})

    asyncio.run(main())


def test_progress_is_kept_at_most_four_times_a_second_and_the_last_report_wins() -> None:
    async def main() -> None:
        async def body(call: Call) -> object:
            for n in range(100):
                call.report(f"step {n}", n / 100)
            await bench.clock.sleep(10)
            return 1

        bench = Bench(FakeTool("work", body))
        await bench.run(task("a"))
        kept = [row.progress for changes in bench.journal.appended for row in changes.steps if row.status == "running"]
        reports = [text for text in kept if text is not None]
        assert len(reports) <= 3
        assert reports[-1] == '{"message":"step 99","fraction":0.99}'

    asyncio.run(main())


def test_the_last_report_of_an_attempt_is_kept_though_the_one_before_it_has_just_reported() -> None:
    async def main() -> None:
        async def body(call: Call) -> object:
            call.report(f"attempt {call.attempt}", None)
            await bench.clock.sleep(0.1)
            if call.attempt == 1:
                raise ToolError("busy", code="unavailable")
            call.report("the last", 0.9)
            await bench.clock.sleep(10)
            return 1

        bench = Bench(FakeTool("work", body))
        await bench.run(task("a", retry={"backoff_seconds": 0}))
        reports = [row.progress for changes in bench.journal.appended for row in changes.steps]
        assert '{"message":"the last","fraction":0.9}' in reports

    asyncio.run(main())


def test_cancelling_cuts_off_what_runs_and_drops_its_late_result() -> None:
    async def main() -> None:
        cut_off = asyncio.Event()

        async def body(call: Call) -> object:
            try:
                await asyncio.Event().wait()
            finally:
                cut_off.set()
            return 1

        bench = Bench(FakeTool("work", body))
        made = bench.add(plan(task("a"), task("b", "a")))
        await quiet()
        bench.scheduler.apply(Command(7, made.id, "cancel", {}, "ann", 0))
        await bench.finish(made)
        assert made.status is ExecutionStatus.CANCELLED
        assert cut_off.is_set()
        assert [step.status for step in made.steps] == ["cancelled", "cancelled"]
        assert bench.journal.appended[-1].commands == [7]

    asyncio.run(main())


def test_a_question_to_a_person_waits_while_its_siblings_go_on_and_the_answer_is_its_result() -> None:
    async def main() -> None:
        bench = Bench(FakeTool("work", _echo))
        made = bench.add(
            plan(
                task("ask", tool="human", params={"prompt": "Which one?"}, action_type="human"),
                task("other"),
                task("use", params={"value": "<Result from Task ask>"}),
            )
        )  # fmt: skip
        await bench.finish(made)
        assert made.status == "waiting"
        assert made.count(StepStatus.COMPLETED) == 1
        bench.scheduler.apply(Command(1, made.id, "answer", {"taskId": "ask", "answer": "red"}, "ann", 0))
        await bench.finish(made)
        assert made.status is ExecutionStatus.COMPLETED
        assert made.steps[2].result == '"red"'

    asyncio.run(main())


def test_an_execution_that_another_owner_took_is_dropped_and_its_bodies_are_cut_off() -> None:
    async def main() -> None:
        journal = FakeJournal(held=True)
        cut_off = asyncio.Event()

        async def body(call: Call) -> object:
            try:
                return await asyncio.Event().wait()
            finally:
                cut_off.set()

        bench = Bench(FakeTool("work", body), journal=journal)
        made = bench.add(plan(task("a")))
        waiter = asyncio.ensure_future(bench.scheduler.wait(made.id))
        await quiet()
        journal.release(Fenced())
        with pytest.raises(Fenced):
            await waiter
        await quiet()
        assert cut_off.is_set()
        assert bench.scheduler.get(made.id) is None

    asyncio.run(main())


def _statuses(execution: Execution) -> list[str]:
    return [str(step.status) for step in execution.steps]


def test_a_step_that_fails_before_it_begins_leaves_the_room_of_its_tool_to_others() -> None:
    async def main() -> None:
        bench = Bench(FakeTool("work", _echo, max_concurrency=1))
        done = await bench.run(task("a"), task("b", params={"key": {"secret": "NOBODY_HAS_IT"}}), task("c"))
        assert _statuses(done) == ["completed", "failed", "completed"]

    asyncio.run(main())


def test_a_paused_execution_leaves_the_room_of_a_tool_to_others_and_rests_itself() -> None:
    async def main() -> None:
        goes_on = asyncio.Event()

        async def body(call: Call) -> object:
            if call.task_id == "a":
                await goes_on.wait()
            return 1

        bench = Bench(FakeTool("work", body, max_concurrency=1))
        first, paused, last = (bench.add(plan(task(id))) for id in ("a", "b", "c"))
        await quiet()
        bench.scheduler.apply(Command(1, paused.id, "pause", {}, None, 0))
        await bench.scheduler.wait(paused.id)  # which it does at once: nothing of it runs
        goes_on.set()
        await bench.finish(first, last)
        assert [_statuses(each) for each in (first, paused, last)] == [["completed"], ["pending"], ["completed"]]
        bench.scheduler.apply(Command(2, paused.id, "resume", {}, None, 0))
        await bench.finish(paused)
        assert _statuses(paused) == ["completed"]

    asyncio.run(main())


def test_an_execution_whose_rows_are_rejected_is_ended_from_what_was_accepted_and_waiters_hear_of_that() -> None:
    async def main() -> None:
        journal = FakeJournal(held=True)
        bench = Bench(FakeTool("work", _echo), journal=journal)
        made = bench.add(plan(task("a")))
        waiter = asyncio.ensure_future(bench.scheduler.wait(made.id))

        def end(lost_id: str, error: BaseException) -> bool:
            again = execution(plan(task("a")), bench.tools)
            again.id = made.id
            again.abort(Reason.STORE_REJECTED, str(error), bench.clock.now_ms())
            bench.scheduler.take_over(again)
            return True

        bench.scheduler.on_lost = end
        await quiet()
        journal.held = False
        journal.release(StoreRejected("no such column"))
        await waiter
        assert journal.appended[-1].header.error_code == "store_rejected"
        assert journal.appended[-1].header.status == "failed"

    asyncio.run(main())


def test_waiters_hear_of_a_rejected_execution_that_cannot_be_ended_either() -> None:
    async def main() -> None:
        journal = FakeJournal(held=True)
        bench = Bench(FakeTool("work", _echo), journal=journal)
        made = bench.add(plan(task("a")))
        waiter = asyncio.ensure_future(bench.scheduler.wait(made.id))
        bench.scheduler.on_lost = lambda *_: False
        await quiet()
        journal.release(StoreRejected())
        with pytest.raises(StoreRejected):
            await waiter

    asyncio.run(main())


def test_a_listener_that_fails_does_not_stop_the_execution() -> None:
    async def main() -> None:
        bench = Bench(FakeTool("work", _echo))

        def fails(*_: object) -> None:
            raise RuntimeError("not today")

        bench.scheduler.subscribe(fails)
        done = await bench.run(task("a"), task("b", "a"))
        assert done.status is ExecutionStatus.COMPLETED

    asyncio.run(main())


def test_the_engine_raises_when_nothing_runs_and_nothing_is_decided() -> None:
    async def main() -> None:
        bench = Bench(FakeTool("work", _echo))
        made = bench.add(plan(task("a"), task("b", "a")))
        made.steps[1].unmet = 2  # a fault of the engine, as no plan can make one
        with pytest.raises(Stalled):
            await bench.finish(made)

    asyncio.run(main())


def test_closing_lets_what_runs_end_and_puts_back_what_may_run_again() -> None:
    """A restart is no crash: three of them during one long step must not fail it with crash_loop."""

    async def main() -> None:
        async def body(call: Call) -> object:
            await asyncio.sleep(0.01 if call.task_id == "quick" else 3600)
            return 1

        bench = Bench(FakeTool("work", body), FakeTool("once", body, effect=Effect.ONCE))
        made = bench.add(plan(task("quick"), task("slow"), task("pay", tool="once"), task("never", "quick")))
        await quiet()
        await bench.scheduler.close(0.2)
        rows = {row.task_id: row.status for changes in bench.journal.appended for row in changes.steps}
        assert rows == {"quick": "completed", "slow": "pending", "pay": "running"}
        assert [row.outcome for changes in bench.journal.appended for row in changes.attempts] == ["stopped"]
        assert made.status is ExecutionStatus.RUNNING

    asyncio.run(main())


def test_what_ends_within_the_grace_is_durable_before_closing_returns() -> None:
    """Else the next start would ask of a `once` step that ended well whether it happened."""

    async def main() -> None:
        journal = FakeJournal(held=True)
        bench = Bench(FakeTool("work", _echo, effect=Effect.ONCE), journal=journal)
        bench.add(plan(task("a")))
        await quiet()
        journal.release()  # its start
        await quiet()
        closing = asyncio.ensure_future(bench.scheduler.close(1))
        for _ in range(5):
            await quiet()
            journal.release()
        await closing
        assert [row.status for changes in journal.appended for row in changes.steps][-1] == "completed"

    asyncio.run(main())


def test_a_once_body_that_never_started_is_put_back_when_the_engine_closes() -> None:
    async def main() -> None:
        journal = FakeJournal(held=True)
        started: list[str] = []

        async def body(call: Call) -> object:
            started.append(call.task_id)
            return 1

        bench = Bench(FakeTool("work", body, effect=Effect.ONCE), journal=journal)
        bench.add(plan(task("a")))
        await quiet()
        closing = asyncio.ensure_future(bench.scheduler.close(0))
        for _ in range(5):
            await quiet()
            journal.release()
        await closing
        assert started == []
        assert [row.status for changes in journal.appended for row in changes.steps][-1] == "pending"

    asyncio.run(main())


def test_waiting_for_what_a_stopped_engine_does_not_run_is_told_and_not_endless() -> None:
    async def main() -> None:
        bench = Bench(FakeTool("work", _echo))
        await bench.scheduler.close(0)
        made = bench.add(plan(task("a")))
        with pytest.raises(Conflict):
            await bench.scheduler.wait(made.id)

    asyncio.run(main())


def test_the_slots_of_a_lost_execution_are_for_others() -> None:
    async def main() -> None:
        journal = FakeJournal(held=True)

        async def forever(call: Call) -> object:
            return await asyncio.Event().wait()

        bench = Bench(FakeTool("work", _echo), FakeTool("long", forever), journal=journal, max_concurrency=1)
        bench.add(plan(task("a", tool="long")))
        other = bench.add(plan(task("b")))
        await quiet()
        journal.held = False
        journal.release(Fenced())
        await bench.finish(other)
        assert other.status is ExecutionStatus.COMPLETED

    asyncio.run(main())


def test_cancelling_an_execution_at_a_tools_limit_gives_the_room_to_the_next() -> None:
    async def main() -> None:
        async def forever(call: Call) -> object:
            if call.execution_id == first.id:
                return await asyncio.Event().wait()
            return 1

        bench = Bench(FakeTool("long", forever, max_concurrency=1))
        first = bench.add(plan(task("a", tool="long"), task("b", tool="long")))
        await quiet()
        second = bench.add(plan(task("c", tool="long")))
        await quiet()
        bench.scheduler.apply(Command(1, first.id, "cancel", {}, None, 0))
        await bench.finish(second)
        assert second.status is ExecutionStatus.COMPLETED

    asyncio.run(main())


def test_a_tool_that_changes_its_params_changes_neither_the_plan_nor_the_next_run() -> None:
    async def main() -> None:
        seen: list[int] = []

        async def grows(call: Call) -> object:
            call.params["list"].append(1)
            seen.append(len(call.params["list"]))
            return None

        bench = Bench(FakeTool("work", grows))
        made = plan(task("a", params={"list": []}))
        for _ in range(3):
            await bench.finish(bench.add(made))
        assert seen == [1, 1, 1]

    asyncio.run(main())


def test_questions_and_timers_wait_for_no_slot() -> None:
    async def main() -> None:
        async def forever(call: Call) -> object:
            return await asyncio.Event().wait()

        bench = Bench(FakeTool("long", forever), FakeTool("wait", _echo, timer=True), max_concurrency=1)
        bench.add(plan(task("a", tool="long")))
        await quiet()
        made = bench.add(
            plan(
                task("ask", action_type="human", tool="human", params={"prompt": "Well?"}),
                task("t", tool="wait", params={"seconds": 5}),
            )
        )
        await quiet()
        assert [step.status for step in made.steps] == ["waiting", "running"]

    asyncio.run(main())


@pytest.mark.parametrize(
    ("params", "word"),
    [
        ({"prompt": "Who?", "assignee": "<Result from Task a>"}, "assignee"),
        ({"prompt": "Who?", "schema": "<Result from Task a>"}, "schema"),
    ],
)
def test_a_question_that_references_made_impossible_fails_its_step_alone(params: Any, word: str) -> None:
    async def main() -> None:
        bench = Bench(FakeTool("work", _echo))
        done = await bench.run(
            task("a", params={"value": [1]}), task("ask", action_type="human", tool="human", params=params)
        )
        assert done.status is ExecutionStatus.PARTIAL
        assert _error(done, "ask") == "invalid_input"
        assert word in (done.steps[1].error or "")

    asyncio.run(main())


def test_a_reference_that_cannot_be_resolved_fails_its_step_with_the_reason() -> None:
    async def main() -> None:
        bench = Bench(FakeTool("work", _echo))
        done = await bench.run(
            task("a", params={"value": "text"}), task("b", params={"value": "{{ tasks.a.result | sum(@) }}"})
        )
        assert _error(done, "b") == "bad_reference"

    asyncio.run(main())


def test_a_task_of_a_tool_that_calls_sys_exit_fails_its_step_and_nothing_else() -> None:
    """The event loop would let it through, and a server would end."""

    async def main() -> None:
        async def leave() -> None:
            raise SystemExit(3)

        async def grouped(call: Call) -> object:
            async with asyncio.TaskGroup() as group:
                group.create_task(leave())
            return 1

        async def forgotten(call: Call) -> object:
            task = asyncio.create_task(leave())
            await asyncio.wait([task])
            task.exception()
            return 1

        release = contain(asyncio.get_running_loop())
        bench = Bench(FakeTool("work", _echo), FakeTool("grouped", grouped), FakeTool("forgotten", forgotten))
        done = await bench.run(task("a", tool="grouped"), task("b", tool="forgotten"), task("c"))
        release()
        assert [step.status for step in done.steps] == ["failed", "completed", "completed"]
        assert "A task of the tool called sys.exit(3)" in (done.steps[0].error or "")

    asyncio.run(main())


def test_the_tasks_of_the_program_are_left_as_they_are() -> None:
    async def main() -> None:
        async def leave() -> None:
            raise SystemExit(3)

        contain(asyncio.get_running_loop())
        asyncio.create_task(leave())  # noqa: RUF006  # it ends the loop at once
        await asyncio.sleep(10)

    with pytest.raises(SystemExit):
        asyncio.run(main())


def test_what_became_ready_beside_the_failure_that_ends_it_all_is_not_queued_any_more() -> None:
    """It stood in the queue of an execution that had ended, which so never was idle: whoever waited did so for ever."""

    async def main() -> None:
        gate = asyncio.Event()

        async def hold(call: Call) -> object:
            return await gate.wait() if call.task_id == "hold" else 7

        bench = Bench(FakeTool("work", hold), max_concurrency=1)
        params = {"prompt": "Well?", "assignee": "<Result from Task a>"}  # a number, and so nobody
        asks = task("ask", tool="human", params=params, action_type="human")
        made = execution(plan(task("a"), asks, task("b", "a"), task("c", "a")), bench.tools)
        made.fail_fast = True
        bench.scheduler.add(made)
        await asyncio.sleep(0)
        bench.add(plan(task("hold")))  # has the only slot from then on
        await quiet()
        assert made.status is ExecutionStatus.PARTIAL
        assert bench.scheduler.get(made.id) is None
        gate.set()

    asyncio.run(main())


def test_a_retry_waits_until_the_execution_that_ended_has_left_the_memory() -> None:
    """The end is durable a moment before the engine hears so. What began then belonged to nobody, and after a crash
    nobody went on with it."""

    async def main() -> None:
        async def fail(call: Call) -> object:
            raise ToolError("no", code="tool_error")

        journal = FakeJournal(held=True)
        bench = Bench(FakeTool("work", fail), journal=journal)
        made = bench.add(plan(task("a", retry={"max_attempts": 1})))
        await quiet()
        assert made.ended
        assert not bench.scheduler.apply(Command(1, made.id, "retry", {}, None, 0))
        assert made.status is ExecutionStatus.FAILED
        while journal.waiting:
            journal.release()
            await quiet()
        assert bench.scheduler.get(made.id) is None

    asyncio.run(main())
