"""A fork takes over what its origin has done and runs the rest; no finished step runs again. On both databases."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Literal

import pytest
import sqlalchemy as sa

from dagbok import Dagbok
from dagbok.domain.ids import SYNTHESIS
from dagbok.errors import (
    BadInput,
    Conflict,
    IdempotencyKeyReused,
    InvalidPlan,
    NotFound,
    OutcomeUnknown,
)
from dagbok.store.database import Database
from dagbok.store.schema import blobs, dag_executions, dags, plans, sub_steps
from dagbok.testing import CrashingJournal, FakeClock, Hang, ScriptedModel, ScriptedTool
from dagbok.testing.passing import Passing
from diamond import DIAMOND, Tool
from diamond import plan as _plan
from diamond import sound as _sound
from diamond import submit as _submit
from diamond import task as _task


def test_what_completed_is_taken_over_and_the_rest_runs(database_url: str) -> None:
    async def main() -> None:
        work = Tool("once", "b")
        async with Dagbok(database_url, tools=[work.tool]) as dagbok:
            id = await _submit(dagbok, _plan(*DIAMOND, synthesis_plan="Put it together."), labels={"team": "x"})
            before = await dagbok.wait(id)
            assert before.status == "partial"
            work.broken.clear()
            fork = await dagbok.fork(id, by="ann")
            assert (fork.forked_from, fork.reused_tasks, fork.dag_id, fork.total_tasks) == (id, 2, before.dag_id, 4)
            after = await dagbok.wait(fork.execution_id)
            assert (after.status, after.completed_tasks, after.forked_from) == ("completed", 4, id)
            assert work.log == {"a": 1, "b": 2, "c": 1, "d": 1}
            taken = after["a"]
            assert (taken.attempt, taken.reason, taken.result) == (0, "reused", {"value": "a"})
            assert (taken.input, taken.started_at, taken.usage) == ({}, before["a"].started_at, None)
            assert (after["b"].attempt, after["b"].reason) == (1, None)
            assert (after.labels, after.title, after.retry_count) == ({"team": "x"}, before.title, 0)
            created = dagbok.service.events(fork.execution_id)[0]
            assert created["data"] == f'{{"forkedFrom":"{id}","reused":2,"by":"ann"}}'
            assert await dagbok.get(id) == before

    asyncio.run(main())
    _sound(database_url)


def test_from_a_task_on_everything_below_it_runs_again(database_url: str) -> None:
    async def main() -> None:
        work = Tool()
        async with Dagbok(database_url, tools=[work.tool]) as dagbok:
            id = await _submit(dagbok, _plan(*DIAMOND, _task("e", "c")))
            await dagbok.wait(id)
            fork = await dagbok.fork(id, from_task="b")
            after = await dagbok.wait(fork.execution_id)
            assert (after.status, fork.reused_tasks) == ("completed", 3)
            assert work.log == {"a": 1, "b": 2, "c": 1, "d": 2, "e": 1}
            again = await dagbok.fork(fork.execution_id, from_task="d")  # of a fork
            assert (again.reused_tasks, again.forked_from) == (4, fork.execution_id)
            await dagbok.wait(again.execution_id)
            assert work.log == {"a": 1, "b": 2, "c": 1, "d": 3, "e": 1}

    asyncio.run(main())
    _sound(database_url)


def test_overrides_are_written_into_the_plan_of_the_fork(database_url: str) -> None:
    async def main() -> None:
        work, other = Tool(), Tool("pure", name="other")
        tasks = (
            _task("a", params={"value": 1}),
            _task("b", params={"value": "<Result from Task a>"}),
            _task("c", params={"value": "<Result from Task b>"}),
        )
        async with Dagbok(database_url, tools=[work.tool, other.tool]) as dagbok:
            id = await _submit(dagbok, _plan(*tasks))
            before = await dagbok.wait(id)
            fork = await dagbok.fork(id, overrides={"b": {"params": {"value": 7}, "tool": "other"}})
            after = await dagbok.wait(fork.execution_id)
            assert fork.dag_id != before.dag_id
            assert [after[task].result for task in "abc"] == [1, 7, 7]
            assert (after["b"].tool_or_prompt_name, after["b"].override, after["b"].dependencies) == (
                "other", None, ["a"]
            )  # fmt: skip
            assert (work.log, other.log) == ({"a": 1, "b": 1, "c": 2}, {"b": 1})
            # The same again changes nothing, so of this fork nothing would run.
            with pytest.raises(Conflict, match="Nothing of"):
                await dagbok.fork(fork.execution_id, overrides={"b": {"params": {"value": 7}}})

    asyncio.run(main())
    _sound(database_url)


def test_another_plan_takes_over_what_it_has_in_common(database_url: str) -> None:
    async def main() -> None:
        work = Tool()
        async with Dagbok(database_url, tools=[work.tool]) as dagbok:
            id = await _submit(dagbok, _plan(*DIAMOND))
            await dagbok.wait(id)
            plan = _plan(_task("a"), _task("b", "a"), _task("c"), _task("e", "b"), _task("f", "c"), title="Another")
            fork = await dagbok.fork(id, plan=plan)
            after = await dagbok.wait(fork.execution_id)
            assert (after.status, after.title, fork.reused_tasks) == ("completed", "Another", 2)
            assert work.log == {"a": 1, "b": 1, "c": 2, "d": 1, "e": 1, "f": 1}

    asyncio.run(main())
    _sound(database_url)


def test_what_a_retry_has_overridden_is_in_the_plan_of_its_fork(database_url: str) -> None:
    async def main() -> None:
        work, good = Tool("once", "b"), Tool("pure", name="good")
        async with Dagbok(database_url, tools=[work.tool, good.tool]) as dagbok:
            id = await _submit(dagbok, _plan(*DIAMOND))
            await dagbok.wait(id)
            await dagbok.retry(id, overrides={"b": {"tool": "good", "params": {"value": 3}}})
            before = await dagbok.wait(id)
            assert (before.status, before["b"].result, before["b"].revision) == ("completed", 3, 1)
            assert before["b"].override == {"params": {"value": 3}, "tool": "good"}
            assert before["b"].input == {"value": 3}
            fork = await dagbok.fork(id, from_task="d")
            after = await dagbok.wait(fork.execution_id)
            assert (after["b"].tool_or_prompt_name, after["b"].override, after["b"].reason) == ("good", None, "reused")
            assert after["b"].input == {"value": 3}
            assert (good.log["b"], work.log["d"], fork.reused_tasks) == (1, 2, 3)

    asyncio.run(main())
    _sound(database_url)


def test_of_a_running_execution_what_is_done_is_taken_over_and_what_may_have_happened_is_asked(
    database_url: str,
) -> None:
    async def main() -> None:
        hangs = ScriptedTool("send", [Hang(), "sent"], effect="once")
        work = Tool()
        async with Dagbok(database_url, tools=[work.tool, hangs]) as dagbok:
            id = await _submit(dagbok, _plan(_task("a"), _task("s", "a", tool="send"), _task("z", "s")))
            await hangs.called()
            fork = await dagbok.fork(id)
            asked = await dagbok.wait(fork.execution_id)
            assert (asked.status, asked["s"].reason, asked["a"].reason) == ("waiting", "outcome_unknown", "reused")
            assert asked["s"].question is not None
            assert "nobody knows what its last attempt has done: It was cut off in the execution that" in (
                asked["s"].question.prompt
            )
            assert len(hangs.calls) == 1
            await dagbok.answer(fork.execution_id, "s", {"decision": "succeeded", "result": "it was sent"})
            after = await dagbok.wait(fork.execution_id)
            assert (after.status, after["s"].result) == ("completed", "it was sent")
            assert (await dagbok.get(id)).status == "running"
            named = await dagbok.fork(id, from_task="s")  # whoever names it has looked
            assert (await dagbok.wait(named.execution_id))["s"].result == "sent"
            assert (len(hangs.calls), work.log) == (2, {"a": 1, "z": 2})
            await dagbok.cancel(id)

    asyncio.run(main())
    _sound(database_url)


def test_large_results_are_copied_whole(database_url: str) -> None:
    async def main() -> None:
        large = "x" * 3 * 2**20 + "ä"
        work = Tool("once")
        work.tool = ScriptedTool("work", lambda call: large if call.task_id == "a" else call.params, effect="once")
        async with Dagbok(database_url, tools=[work.tool]) as dagbok:
            tasks = (_task("a"), _task("b", params={"value": "<Result from Task a>"}), _task("c", "b"))
            id = await _submit(dagbok, _plan(*tasks))
            await dagbok.wait(id)
            fork = await dagbok.fork(id, from_task="c")
            after = await dagbok.wait(fork.execution_id)
            assert (after["a"].result, after["b"].result) == (large, {"value": large})
            rows = [dagbok.service.sub_steps(each)[1] for each in (id, fork.execution_id)]
            assert rows[0]["input_bytes"] == rows[1]["input_bytes"] == len(large.encode()) + len('{"value":""}')
            await dagbok.delete(id)
            assert (await dagbok.get(fork.execution_id))["b"].result == {"value": large}
            await dagbok.delete(fork.execution_id)
        database = Database.open(database_url)
        with database.reading() as connection:
            for table in (blobs, plans, dags, dag_executions, sub_steps):  # nothing is left of either
                assert connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one() == 0, table
        database.close()

    asyncio.run(main())


def test_the_origin_may_be_deleted_and_the_fork_lives_on_into_the_next_process(database_url: str) -> None:
    async def main() -> None:
        work = Tool("once", "b")
        async with Dagbok(database_url, tools=[work.tool]) as dagbok:
            id = await _submit(dagbok, _plan(*DIAMOND))
            await dagbok.wait(id)
            gate = ScriptedTool("gate", [Hang(), 1], effect="pure")
        async with Dagbok(database_url, tools=[work.tool, gate], close_grace_s=0) as dagbok:
            fork = await dagbok.fork(id, overrides={"b": {"tool": "gate"}})
            await gate.called()
            await dagbok.delete(id)
        async with Dagbok(database_url, tools=[work.tool, gate]) as dagbok:
            after = await dagbok.wait(fork.execution_id)
            assert (after.status, after.forked_from) == ("completed", id)
            assert work.log == {"a": 1, "b": 1, "c": 1, "d": 1}
            with pytest.raises(NotFound):
                await dagbok.fork(id)

    asyncio.run(main())
    _sound(database_url)


def test_a_fork_can_be_retried_and_what_it_took_over_stays(database_url: str) -> None:
    async def main() -> None:
        work = Tool("once", "d")
        async with Dagbok(database_url, tools=[work.tool]) as dagbok:
            id = await _submit(dagbok, _plan(*DIAMOND))
            await dagbok.wait(id)
            fork = (await dagbok.fork(id, from_task="c")).execution_id
            assert (await dagbok.wait(fork)).status == "partial"
            work.broken.clear()
        async with Dagbok(database_url, tools=[work.tool]) as dagbok:
            await dagbok.retry(fork, overrides={"d": {"params": {"value": 4}}})
            after = await dagbok.wait(fork)
            assert (after.status, after["d"].result, after["a"].reason) == ("completed", 4, "reused")
            assert work.log == {"a": 1, "b": 1, "c": 2, "d": 3}

    asyncio.run(main())
    _sound(database_url)


def test_a_synthesis_alone_can_be_written_anew_by_another_model(database_url: str) -> None:
    async def main() -> None:
        work = Tool()
        one, two = ScriptedModel(["first"] * 9, name="test:one"), ScriptedModel(["second"] * 9, name="test:two")
        async with Dagbok(database_url, tools=[work.tool], model=[one, two]) as dagbok:
            id = await _submit(dagbok, _plan(_task("a"), synthesis_plan="Put it together."))
            assert (await dagbok.wait(id)).final_result == "first"
            with pytest.raises(Conflict, match="Nothing of"):
                await dagbok.fork(id)
            fork = await dagbok.fork(id, overrides={SYNTHESIS: {"model": two.model_id}})
            after = await dagbok.wait(fork.execution_id)
            assert (after.final_result, after[SYNTHESIS].override) == ("second", {"model": two.model_id})
            again = await dagbok.fork(fork.execution_id, from_task=SYNTHESIS)  # the model stays
            assert (await dagbok.wait(again.execution_id)).final_result == "second"
            back = await dagbok.fork(again.execution_id, overrides={SYNTHESIS: {"model": one.model_id}})
            assert (await dagbok.wait(back.execution_id)).final_result == "first"
            assert work.log == {"a": 1}

    asyncio.run(main())
    _sound(database_url)


def test_the_same_key_makes_one_fork(database_url: str) -> None:
    async def main() -> None:
        work = Tool()
        async with Dagbok(database_url, tools=[work.tool]) as dagbok:
            id = await _submit(dagbok, _plan(*DIAMOND))
            await dagbok.wait(id)
            fork = await dagbok.fork(id, from_task="b", idempotency_key="k")
            again = await dagbok.fork(id, from_task="b", idempotency_key="k")
            assert (again.execution_id, again.replayed) == (fork.execution_id, True)
            assert (again.reused_tasks, again.forked_from) == (fork.reused_tasks, id)
            with pytest.raises(IdempotencyKeyReused):
                await dagbok.fork(id, from_task="c", idempotency_key="k")
            await dagbok.wait(fork.execution_id)
            assert work.log["b"] == 2

    asyncio.run(main())
    _sound(database_url)


def test_what_cannot_be_forked_is_said_with_its_place_and_nothing_is_made(database_url: str) -> None:
    async def main() -> None:
        work = Tool("once", "b")
        async with Dagbok(database_url, tools=[work.tool], secrets={"PASSWORD": "hunter2!"}) as dagbok:
            id = await _submit(dagbok, _plan(*DIAMOND, _task("h", tool="human", action_type="human",
                                                             params={"prompt": "?"})))  # fmt: skip
            await dagbok.wait(id)
            wrong: list[tuple[dict[str, Any], str, str]] = [
                ({"from_task": "x"}, "unknown_task", "/fromTask"),
                ({"from_task": "d"}, "never_ran", "/fromTask"),
                ({"from_task": SYNTHESIS}, "unknown_task", "/fromTask"),
                ({"from_task": "b", "plan": _plan(_task("a"))}, "unknown_task", "/fromTask"),
                ({"overrides": {"x": {"params": {}}}}, "unknown_task", "/overrides/x"),
                ({"overrides": {"b": {"tool": "nothing"}}}, "unknown_tool", "/overrides/b/tool"),
                ({"overrides": {"a": {"params": {"x": "<Result from Task b>"}}}}, "new_dependency",
                 "/overrides/a/params/x"),
                ({"overrides": {"b": {"params": {"x": "hunter2!"}}}}, "literal_secret", "/overrides/b/params/x"),
                ({"overrides": {"b": {"params": {}}}, "plan": _plan(_task("a"))}, "bad_value", "/overrides"),
                ({"plan": _plan(_task("a", tool="nothing"))}, "unknown_tool", "/plan/sub_tasks/0/tool_or_prompt/name"),
                ({"plan": _plan()}, "empty_plan", "/plan/sub_tasks"),
                ({"plan": [1]}, "bad_value", "/plan"),
                ({"plan": _plan(clarification_needed=True)}, "bad_value", "/plan/clarification_needed"),
            ]  # fmt: skip
            for wish, code, pointer in wrong:
                with pytest.raises(BadInput) as caught:
                    await dagbok.fork(id, **wish)
                problems = caught.value.fields["problems"]
                assert [(each.code, each.pointer) for each in problems] == [(code, pointer)], wish
                assert "hunter2!" not in str(caught.value)
            assert isinstance(caught.value, BadInput)
            with pytest.raises(NotFound):
                await dagbok.fork("dag-exec_nobody")
            assert len(await dagbok.list()) == 1

    asyncio.run(main())
    _sound(database_url)


def test_a_tool_that_is_gone_matters_only_to_what_runs(database_url: str) -> None:
    async def main() -> None:
        gone, work = Tool(name="gone"), Tool()
        async with Dagbok(database_url, tools=[work.tool, gone.tool]) as dagbok:
            id = await _submit(dagbok, _plan(_task("a", tool="gone"), _task("b", "a")))
            await dagbok.wait(id)
        async with Dagbok(database_url, tools=[work.tool]) as dagbok:
            fork = await dagbok.fork(id, from_task="b")
            assert (await dagbok.wait(fork.execution_id)).status == "completed"
            with pytest.raises(InvalidPlan, match="gone"):
                await dagbok.fork(id, from_task="a")
            assert (gone.log, work.log) == ({"a": 1}, {"b": 2})

    asyncio.run(main())
    _sound(database_url)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("at", [1, 2, 3])
def test_after_a_crash_the_fork_is_there_whole_or_not_at_all(
    database_url: str, at: int, when: Literal["before", "after"]
) -> None:
    """The first write makes the fork, with all it took over; the same request again finds it, or makes it."""

    async def main() -> None:
        work = Tool("idempotent")
        async with Dagbok(database_url, tools=[work.tool]) as dagbok:
            id = await _submit(dagbok, _plan(*DIAMOND, _task("e", "d")))
            await dagbok.wait(id)
        crash = CrashingJournal(at=at, when=when)
        async with Dagbok(database_url, tools=[work.tool], journal=crash.around) as dagbok:
            with suppress(OutcomeUnknown):
                await dagbok.fork(id, from_task="d", idempotency_key="k")
            await crash.until_crashed()
        async with Dagbok(database_url, tools=[work.tool]) as dagbok:
            there = [each.id for each in await dagbok.list() if each.forked_from == id]
            assert len(there) == (0 if (at, when) == (1, "before") else 1)
            fork = await dagbok.fork(id, from_task="d", idempotency_key="k")
            assert there in ([], [fork.execution_id])
            after = await dagbok.wait(fork.execution_id)
            assert (after.status, fork.reused_tasks, fork.forked_from) == ("completed", 3, id)
            assert [after[task].result for task in "abc"] == [{"value": task} for task in "abc"]
            assert {task: work.log[task] for task in "abc"} == {"a": 1, "b": 1, "c": 1}

    asyncio.run(main())
    _sound(database_url)


class _Deleting(Passing):
    """Deletes an execution just before another is created."""

    def __init__(self, journal: Any) -> None:
        super().__init__(journal)
        self.doomed: list[str] = []

    def _pass_on(self, name: str, call: Callable[..., Any], *args: Any, **more: Any) -> Any:
        if name == "create":
            for id in self.doomed:
                self._journal.delete(id)  # type: ignore[attr-defined] # the port names less
            self.doomed.clear()
        return call(*args, **more)


def test_an_origin_that_is_deleted_meanwhile_is_gone_or_was_copied(database_url: str) -> None:
    async def main() -> None:
        work = Tool()
        journals: list[_Deleting] = []

        def around(journal: Any) -> Any:
            journals.append(_Deleting(journal))
            return journals[0]

        async with Dagbok(database_url, tools=[work.tool], journal=around) as dagbok:
            for wish in ({"from_task": "b"}, {"overrides": {"b": {"params": {"x": 1}}}}):
                id = await _submit(dagbok, _plan(*DIAMOND))
                await dagbok.wait(id)
                journals[0].doomed.append(id)
                if "from_task" in wish:  # its dag went with it
                    with pytest.raises(NotFound, match="deleted just now"):
                        await dagbok.fork(id, **wish)
                    assert await dagbok.list() == []
                else:
                    fork = await dagbok.fork(id, **wish)
                    assert (await dagbok.wait(fork.execution_id)).status == "completed"
                    assert [each.id for each in await dagbok.list()] == [fork.execution_id]

    asyncio.run(main())
    _sound(database_url)


def test_whichever_goes_first_the_other_keeps_the_plan_they_share(database_url: str) -> None:
    async def main() -> None:
        work = Tool()
        async with Dagbok(database_url, tools=[work.tool]) as dagbok:
            id = await _submit(dagbok, _plan(*DIAMOND))
            await dagbok.wait(id)
            forks = [(await dagbok.fork(id, from_task="d")).execution_id for _ in range(2)]
            for fork in forks:
                await dagbok.wait(fork)
            for gone, left in ((id, forks[0]), (forks[0], forks[1])):
                await dagbok.delete(gone)
                again = await dagbok.fork(left, from_task="a")
                assert (await dagbok.wait(again.execution_id)).status == "completed"
                await dagbok.delete(again.execution_id)
            await dagbok.delete(forks[1])
            assert dagbok.service.reader.list_dags().total == 0

    asyncio.run(main())
    _sound(database_url)


def test_a_fork_that_has_nothing_to_do_but_to_ask_leaves_the_memory(database_url: str) -> None:
    async def main() -> None:
        hangs = ScriptedTool("work", [Hang()], effect="once")
        async with Dagbok(database_url, tools=[hangs], close_grace_s=0) as dagbok:
            id = await _submit(dagbok, _plan(_task("a")))
            await hangs.called()
            await dagbok.cancel(id)
            left = asyncio.Event()
            tell = dagbok.scheduler.on_parked
            assert tell is not None

            def parked(wake_at: int | None) -> None:
                tell(wake_at)
                left.set()

            dagbok.scheduler.on_parked = parked
            fork = await dagbok.fork(id)
            await asyncio.wait_for(left.wait(), 30)
            asked = await dagbok.get(fork.execution_id)
            assert (asked.status, asked["a"].reason) == ("waiting", "outcome_unknown")
            assert dagbok.scheduler.get(fork.execution_id) is None

    asyncio.run(main())


def test_what_an_approval_has_edited_is_kept_with_its_result_and_asked_anew_where_it_runs(database_url: str) -> None:
    async def main() -> None:
        work = Tool()
        tasks = (_task("a", params={"value": 1}), _task("b", params={"value": "<Result from Task a>"},
                                                        requires_approval=True), _task("c", "b"))  # fmt: skip
        async with Dagbok(database_url, tools=[work.tool]) as dagbok:
            id = await _submit(dagbok, _plan(*tasks))
            await dagbok.wait(id)
            await dagbok.answer(id, "b", {"decision": "edit", "params": {"value": 9}})
            assert (await dagbok.wait(id))["b"].result == 9
            below = await dagbok.wait((await dagbok.fork(id, from_task="c")).execution_id)
            assert (below.status, below["b"].result, below["b"].input) == ("completed", 9, {"value": 9})
            assert below["b"].override == {"edited": {"value": 9}}
            fork = await dagbok.fork(id, from_task="b")
            asked = await dagbok.wait(fork.execution_id)
            assert (asked.status, asked["b"].reason, asked["b"].override) == ("waiting", "approval", None)
            assert asked["b"].question is not None
            assert asked["b"].question.shown == {"tool": "work", "params": {"value": 1}, "description": ""}
            await dagbok.answer(fork.execution_id, "b", {"decision": "approve"})
            assert (await dagbok.wait(fork.execution_id))["b"].result == 1

    asyncio.run(main())
    _sound(database_url)


def test_whether_it_happened_is_asked_about_what_was_called(database_url: str) -> None:
    """Neither what the plan has, of params that were edited, nor what a retry has said since."""

    async def main() -> None:
        clock = FakeClock()
        pay = ScriptedTool("pay", lambda _: clock.sleep(3600), effect="once", clock=clock)
        tasks = (_task("a", tool="pay", params={"eur": 100}, requires_approval=True),
                 _task("b", tool="pay", params={"eur": 1}))  # fmt: skip
        async with Dagbok(database_url, tools=[pay], clock=clock) as dagbok:
            id = await _submit(dagbok, _plan(*tasks))
            await pay.called()
            await dagbok.answer(id, "a", {"decision": "edit", "params": {"eur": 5}})
            await pay.called(2)
            await dagbok.cancel(id)
            await dagbok.wait(id)
            await dagbok.retry(id, overrides={"b": {"params": {"eur": 2}}})
            for asking in (id, (await dagbok.fork(id)).execution_id):
                asked = await dagbok.wait(asking)
                questions = [asked[task_id].question for task_id in ("a", "b")]
                assert [question.kind for question in questions if question] == ["did_it_happen"] * 2
                assert [question.shown["params"] for question in questions if question and question.shown] == [
                    {"eur": 5}, {"eur": 1}
                ]  # fmt: skip

    asyncio.run(main())
    _sound(database_url)


def test_the_options_of_the_origin_hold_for_the_fork_and_a_deadline_begins_anew(database_url: str) -> None:
    async def main() -> None:
        clock = FakeClock()
        wait = {"id": "w", "tool_or_prompt": {"name": "wait", "params": {"seconds": 3600}}}
        work = Tool("pure", "b")
        async with Dagbok(database_url, tools=[work.tool], clock=clock, journal=clock.watch) as dagbok:
            long = {"id": "l", "tool_or_prompt": {"name": "wait", "params": {"seconds": 7000}}}
            plan = _plan(_task("a"), wait, _task("b", "w"), long)
            id = await _submit(dagbok, plan, deadline_seconds=7200, failure_policy="fail_fast")
            assert (await clock.run(dagbok.wait(id)))["b"].status == "failed"
            await clock.advance(7200)
            fork = await dagbok.fork(id, from_task="w")
            after = await clock.run(dagbok.wait(fork.execution_id))
            assert (after["b"].error_code, after["l"].reason, after["a"].reason) == (
                "tool_error",
                "fail_fast",
                "reused",
            )
            assert after.options == {"deadlineSeconds": 7200, "failurePolicy": "fail_fast"}
            assert after.deadline_at is not None
            assert (after.deadline_at - after.created_at).total_seconds() == 7200

    asyncio.run(main())
    _sound(database_url)


def test_the_first_failure_ends_a_fork_whose_origin_was_to_end_so(database_url: str) -> None:
    async def main() -> None:
        work, hangs = Tool("pure", "b"), ScriptedTool("hangs", lambda _: Hang(), effect="pure")
        async with Dagbok(database_url, tools=[work.tool, hangs]) as dagbok:
            plan = _plan(_task("a"), _task("b", "a"), _task("l", tool="hangs"))
            id = await _submit(dagbok, plan, failure_policy="fail_fast")
            assert (await dagbok.wait(id))["l"].reason == "fail_fast"
            fork = await dagbok.fork(id)
            async with asyncio.timeout(30):  # else it would go on for ever
                assert (await dagbok.wait(fork.execution_id))["l"].reason == "fail_fast"

    asyncio.run(main())
    _sound(database_url)
