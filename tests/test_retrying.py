"""An execution that ended without completing runs its lost part again, on both databases."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dagbok import Dagbok
from dagbok.domain import values
from dagbok.domain.call import Call
from dagbok.domain.ids import SYNTHESIS
from dagbok.errors import BadInput, Conflict, NotFound, ToolError
from dagbok.testing import FakeClock, Hang, ScriptedModel, ScriptedTool
from diamond import DIAMOND, Tool
from diamond import plan as _plan
from diamond import sound as _sound
from diamond import submit as _submit
from diamond import task as _task

HOUR_S = 3600


def test_what_failed_and_what_that_skipped_runs_again_and_the_rest_is_kept(database_url: str) -> None:
    async def main() -> None:
        work = Tool("pure", "b")
        async with Dagbok(database_url, tools=[work.tool]) as dagbok:
            id = await _submit(dagbok, _plan(*DIAMOND, synthesis_plan="Put it together."))
            before = await dagbok.wait(id)
            assert (before.status, before["d"].status, before.retry_count) == ("partial", "skipped", 0)
            work.broken.clear()
            await dagbok.retry(id, by="ann")
            after = await dagbok.wait(id)
        assert (after.status, after.completed_tasks, after.failed_tasks, after.skipped_tasks) == ("completed", 4, 0, 0)
        assert work.log == {"a": 1, "b": 2, "c": 1, "d": 1}
        assert (after["b"].attempt, after["a"].attempt, after[SYNTHESIS].attempt) == (2, 1, 2)
        assert [attempt.outcome for attempt in after["b"].attempts] == ["failed"]
        assert (after.error, after.error_code, after.retry_count) == (None, None, 1)
        assert after.last_retry_at is not None
        assert after.final_result != before.final_result
        assert after["a"] == before["a"]

    asyncio.run(main())
    _sound(database_url)


def test_the_next_process_knows_what_was_retried_and_how_often_it_may_fail(database_url: str) -> None:
    """What failed before the retry does not count, in memory and read back alike."""

    async def main() -> None:
        clock = FakeClock()
        work = Tool("pure", "a")
        plan = _plan(
            _task("a", retry={"max_attempts": 3, "backoff_seconds": 50, "factor": 1, "jitter": 0}), _task("b", "a")
        )
        async with Dagbok(database_url, tools=[work.tool], clock=clock, journal=clock.watch) as dagbok:
            id = await _submit(dagbok, plan)
            assert (await clock.run(dagbok.wait(id)))["a"].attempt == 3
            await clock.advance(1)
            await dagbok.retry(id)
            await clock.timer_set(at_least=49, at_most=51)
        clock = clock.next_process()
        async with Dagbok(database_url, tools=[work.tool], clock=clock, journal=clock.watch) as dagbok:
            after = await clock.run(dagbok.wait(id))
            assert (after.status, after["a"].attempt, after["a"].error_code) == ("failed", 6, "tool_error")
            await clock.advance(1)
            work.broken.clear()
            await dagbok.retry(id)
            after = await clock.run(dagbok.wait(id))
        assert (after.status, after["a"].attempt, after["b"].attempt, after.retry_count) == ("completed", 7, 1, 2)
        assert work.log == {"a": 7, "b": 1}

    asyncio.run(main())
    _sound(database_url)


def test_a_cancelled_execution_goes_on_where_it_was_cut_off(database_url: str) -> None:
    async def main() -> None:
        hangs = ScriptedTool("work", [1, Hang(), 2, 3], effect="pure")
        async with Dagbok(database_url, tools=[hangs]) as dagbok:
            id = await _submit(dagbok, _plan(_task("a"), _task("b", "a"), _task("c", "b")))
            await hangs.called(2)
            assert (await dagbok.cancel(id)).status == "cancelled"
            await dagbok.retry(id)
            after = await dagbok.wait(id)
        assert (after.status, after.completed_tasks) == ("completed", 3)
        assert [after[task].attempt for task in "abc"] == [1, 2, 1]

    asyncio.run(main())
    _sound(database_url)


def test_what_was_paused_when_it_was_cancelled_goes_on(database_url: str) -> None:
    tool = Tool("pure")

    async def main() -> str:
        async with Dagbok(database_url, tools=[tool.tool]) as dagbok:
            plan = _plan(_task("a", tool="human", action_type="human"), _task("b", "a"))
            plan["sub_tasks"][0]["tool_or_prompt"] = {"name": "human", "params": {"prompt": "Which?"}}
            id = await _submit(dagbok, plan)
            await dagbok.pause(id)
            await dagbok.cancel(id)
            await dagbok.retry(id)
            await dagbok.wait(id)
            await dagbok.answer(id, "a", {"input": 1})
            return (await dagbok.wait(id)).status

    assert asyncio.run(main()) == "completed"
    assert tool.log == {"b": 1}
    _sound(database_url)


def test_a_once_step_that_was_cut_off_is_asked_about_unless_it_is_named(database_url: str) -> None:
    async def main() -> None:
        hangs = ScriptedTool("work", [Hang(), Hang(), "sent"], effect="once")
        async with Dagbok(database_url, tools=[hangs]) as dagbok:
            id = await _submit(dagbok, _plan(_task("a")))
            await hangs.called()
            await dagbok.cancel(id)
            await dagbok.retry(id)
            asked = await dagbok.wait(id)
            assert (asked.status, asked["a"].reason) == ("waiting", "outcome_unknown")
            assert len(hangs.calls) == 1, "nobody has said that it may run again"
            await dagbok.answer(id, "a", {"decision": "retry"})
            await hangs.called(2)
            await dagbok.cancel(id)
            await dagbok.retry(id, steps=["a"])  # whoever names it has looked
            assert (await dagbok.wait(id))["a"].result == "sent"

    asyncio.run(main())
    _sound(database_url)


def test_only_what_is_named_runs_again_with_what_it_alone_skipped(database_url: str) -> None:
    async def main() -> None:
        work = Tool("pure", "b", "c")
        async with Dagbok(database_url, tools=[work.tool]) as dagbok:
            id = await _submit(dagbok, _plan(*DIAMOND, _task("e", "b")))
            assert (await dagbok.wait(id)).status == "partial"
            work.broken.clear()
            await dagbok.retry(id, steps=["b"])
            after = await dagbok.wait(id)
            assert [after[task].status for task in "abcde"] == [
                "completed", "completed", "failed", "skipped", "completed"
            ]  # fmt: skip
            assert after.error is not None
            assert "'c'" in after.error
            await dagbok.retry(id)
            assert (await dagbok.wait(id)).status == "completed"
        assert work.log == {"a": 1, "b": 2, "c": 2, "d": 1, "e": 1}

    asyncio.run(main())
    _sound(database_url)


def test_a_synthesis_that_failed_runs_again_alone(database_url: str) -> None:
    async def main() -> None:
        work = Tool("pure")
        async with Dagbok(database_url, tools=[work.tool], model=_broken_model()) as dagbok:
            id = await _submit(dagbok, _plan(_task("a"), synthesis_plan="Put it together."))
            before = await dagbok.wait(id)
            assert (before.status, before.error_code) == ("partial", "synthesis_failed")
        async with Dagbok(database_url, tools=[work.tool]) as dagbok:
            await dagbok.retry(id)
            after = await dagbok.wait(id)
        assert (after.status, after.error, work.log["a"]) == ("completed", None, 1)
        assert after.synthesis_result

    asyncio.run(main())
    _sound(database_url)


def _broken_model() -> Any:
    return ScriptedModel([ToolError("no", code="refused")] * 3)


def test_a_deadline_begins_anew(database_url: str) -> None:
    async def main() -> None:
        clock = FakeClock()
        wait = {"id": "w", "tool_or_prompt": {"name": "wait", "params": {"seconds": HOUR_S}}}
        async with Dagbok(database_url, clock=clock, journal=clock.watch) as dagbok:
            id = await _submit(dagbok, _plan(wait), deadline_seconds=60)
            assert (await clock.run(dagbok.wait(id))).error_code == "deadline"
            await clock.advance(HOUR_S)
            retried = await dagbok.retry(id)
            assert (retried.status, retried.error_code) == ("running", None)
            again = await clock.run(dagbok.wait(id))
            assert (again.error_code, again.retry_count) == ("deadline", 1)
            assert round(clock.elapsed_s) == 60 + HOUR_S + 60

    asyncio.run(main())
    _sound(database_url)


def test_what_cannot_be_retried_is_said_and_nothing_changes(database_url: str) -> None:
    async def main() -> None:
        work = Tool("pure", "b")
        async with Dagbok(database_url, tools=[work.tool, ScriptedTool("hangs", [Hang()], effect="pure")]) as dagbok:
            good = await _submit(dagbok, _plan(_task("a")))
            bad = await _submit(dagbok, _plan(*DIAMOND))
            busy = await _submit(dagbok, _plan(_task("a", tool="hangs")))
            before = [await dagbok.wait(good), await dagbok.wait(bad)]
            for id in (good, busy):
                with pytest.raises(Conflict, match="can be retried"):
                    await dagbok.retry(id)
            with pytest.raises(NotFound):
                await dagbok.retry("dag-exec_nobody")
            for steps, why in ((["x"], "not in it"), (["b", "a"], "completed"), (["d"], "skipped")):
                with pytest.raises(BadInput, match=why) as caught:
                    await dagbok.retry(bad, steps=steps)
                assert caught.value.fields["pointer"] == f"/steps/{len(steps) - 1}"
            assert [await dagbok.get(good), await dagbok.get(bad)] == before

    asyncio.run(main())
    _sound(database_url)


def test_of_two_who_ask_at_once_one_is_heard(database_url: str) -> None:
    async def main() -> None:
        work = Tool("pure", "a")
        async with Dagbok(database_url, tools=[work.tool]) as dagbok:
            id = await _submit(dagbok, _plan(_task("a")))
            await dagbok.wait(id)
            work.broken.clear()
            await asyncio.gather(*(dagbok.retry(id) for _ in range(5)), return_exceptions=True)
            after = await dagbok.wait(id)
        assert (after.status, after.retry_count, work.log["a"]) == ("completed", 1, 2)

    asyncio.run(main())
    _sound(database_url)


def test_what_runs_again_can_be_overridden(database_url: str) -> None:
    async def main() -> None:
        calls: list[Call] = []

        def work(call: Call) -> Any:
            calls.append(call)
            if "good" not in call.params:
                raise ToolError("it is broken", code="tool_error")
            return call.params["good"]

        tools = [ScriptedTool("work", work, effect="once"), ScriptedTool("pure", work, effect="pure")]
        good = {"id": "a", "tool_or_prompt": {"name": "work", "params": {"good": [1, 2]}}}
        uses = {"id": "c", "tool_or_prompt": {"name": "work", "params": {"good": "<Result from Task b>"}}}
        async with Dagbok(database_url, tools=tools) as dagbok:
            id = await _submit(dagbok, _plan(good, _task("b", "a"), uses))
            assert (await dagbok.wait(id)).status == "partial"
            params = {"good": "{{ tasks.a.result[1] }}"}
            await dagbok.retry(id, overrides={"b": {"params": params, "tool": "pure"}}, by="ann")
            after = await dagbok.wait(id)
            assert [after[task].result for task in "abc"] == [[1, 2], 2, 2]
            b = after["b"]
            assert (b.override, b.revision, b.effect) == ({"params": params, "tool": "pure"}, 1, "pure")
            assert (b.tool_or_prompt_name, b.tool_or_prompt_params, b.input) == ("work", {}, {"good": 2})
            assert (after["a"].override, after["a"].revision) == (None, 0)
            assert [call.revision for call in calls] == [0, 0, 1, 0]
            told = [event for event in dagbok.service.events(id) if event["type"] == "substep.overridden"]
            assert [(event["task_id"], event["data"]) for event in told] == [
                ("b", values.encode({"by": "ann", "revision": 1, "params": params, "tool": "pure"}))
            ]

    asyncio.run(main())
    _sound(database_url)


def test_an_override_stands_through_crashes_and_further_retries(database_url: str) -> None:
    async def main() -> None:
        hangs = ScriptedTool("hangs", [Hang()], effect="pure")
        gone = ScriptedTool("gone", [ToolError("no", code="refused")], effect="pure")
        async with Dagbok(database_url, tools=[hangs, gone], close_grace_s=0) as dagbok:
            id = await _submit(dagbok, _plan(_task("a", tool="gone")))
            await dagbok.wait(id)
            await dagbok.retry(id, overrides={"a": {"tool": "hangs"}})
            await hangs.called()
        hangs = ScriptedTool("hangs", [ToolError("no", code="refused")], effect="pure")
        async with Dagbok(database_url, tools=[hangs]) as dagbok:  # which does not know the tool of the plan
            assert (await dagbok.wait(id)).status == "failed"
            assert len(hangs.calls) == 1
        last = ScriptedTool("last", [1], effect="pure")
        async with Dagbok(database_url, tools=[last]) as dagbok:  # nor that of the first override
            await dagbok.retry(id, overrides={"a": {"tool": "last", "params": {"x": 1}}})
            after = await dagbok.wait(id)
            assert (after.status, after["a"].override, after["a"].revision) == (
                "completed", {"params": {"x": 1}, "tool": "last"}, 2
            )  # fmt: skip

    asyncio.run(main())
    _sound(database_url)


def test_the_model_of_the_synthesis_and_of_an_inference_can_be_another(database_url: str) -> None:
    async def main() -> None:
        bad = ScriptedModel([ToolError("no", code="refused")] * 9, name="test:bad")
        good = ScriptedModel(["good"] * 9, name="test:good")
        ask = {"id": "m", "action_type": "inference", "tool_or_prompt": {"name": "m", "params": {"prompt": "?"}}}
        async with Dagbok(database_url, tools=[Tool("pure").tool], model=[bad, good]) as dagbok:
            id = await _submit(dagbok, _plan(_task("a"), ask, synthesis_plan="Put it together."))
            assert (await dagbok.wait(id)).status == "partial"
            await dagbok.retry(id, overrides={"m": {"model": "test:good"}, SYNTHESIS: {"model": "test:good"}})
            after = await dagbok.wait(id)
            assert (after.status, after["m"].result, after.final_result) == ("completed", "good", "good")
            assert (after["m"].input, after[SYNTHESIS].override) == (
                {"prompt": "?", "model": "test:good"}, {"model": "test:good"}
            )  # fmt: skip

    asyncio.run(main())
    _sound(database_url)


def test_an_override_that_cannot_stand_changes_nothing(database_url: str) -> None:
    async def main() -> None:
        work = Tool("pure", "b", "c")
        async with Dagbok(database_url, tools=[work.tool], secrets={"PASSWORD": "hunter2!"}) as dagbok:
            id = await _submit(dagbok, _plan(*DIAMOND, _task("x~y", "c")))
            good = await _submit(dagbok, _plan(_task("a")))
            before = await dagbok.wait(id)
            await dagbok.wait(good)
            for overrides, steps, code, pointer in (
                ({"e": {"tool": "work"}}, None, "unknown_task", "/overrides/e"),
                ({"a": {"tool": "work"}}, None, "not_again", "/overrides/a"),
                ({"c": {"tool": "work"}}, ["b"], "not_again", "/overrides/c"),
                ({"d": {"tool": "work"}}, ["b"], "not_again", "/overrides/d"),
                ({"d": {"tool": "nothing"}}, None, "unknown_tool", "/overrides/d/tool"),
                ({"x~y": {"tool": "nothing"}}, None, "unknown_tool", "/overrides/x~0y/tool"),
                ({"b": {"params": {"x": "hunter2!"}}}, None, "literal_secret", "/overrides/b/params/x"),
                ({"b": {"params": {"x": "<Result from Task c>"}}}, None, "new_dependency", "/overrides/b/params/x"),
            ):
                with pytest.raises(BadInput) as caught:
                    await dagbok.retry(id, steps=steps, overrides=overrides)
                problems = caught.value.fields["problems"]
                assert [(each.code, each.pointer) for each in problems] == [(code, pointer)]
            with pytest.raises(Conflict, match="can be retried"):
                await dagbok.retry(good, overrides={"a": {"tool": "work"}})
            with pytest.raises(NotFound):
                await dagbok.retry("dag-exec_nobody", overrides={"a": {"tool": "work"}})
            assert await dagbok.get(id) == before
            assert not dagbok.service.reader.pending_commands()

    asyncio.run(main())
    _sound(database_url)
