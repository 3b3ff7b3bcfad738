"""Scripted tools, in an engine on a real file."""

from __future__ import annotations

import asyncio
import functools
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dagbok import Dagbok, tool
from dagbok.domain.call import Call, Reply
from dagbok.domain.states import Effect, ExecutionStatus, StepStatus
from dagbok.errors import InvalidPlan, Misconfigured, ToolError
from dagbok.testing import FakeClock, Hang, ScriptedTool, after
from dagbok.tools.registry import Registry, as_tool
from dagbok.tools.tool import is_spec
from dagbok.wire import Execution
from testing.documents import plan, task


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/test.db"


def _run(url: str, tools: list[Callable[..., Any]], *tasks: dict[str, Any], **more: Any) -> Execution:
    async def main() -> Execution:
        async with Dagbok(url, tools=tools) as dagbok:
            return await dagbok.run(plan(*tasks, **more))

    return asyncio.run(main())


def test_a_script_is_played_one_entry_a_call_and_every_call_is_recorded(url: str) -> None:
    async def told(call: Call) -> str:
        return f"told {call.params['n']}"

    work = ScriptedTool(
        "work",
        [
            {"value": 1},
            ToolError("no", code="refused", because="closed"),
            ValueError,
            lambda call: call.task_id,
            told,
            lambda _: ToolError("later", code="refused"),
            Reply(7, usage={"pages": 2}, cost_usd=0.5),
            None,
        ],
        effect="pure",
    )
    # The skips of those that fail are chosen, so that the chain goes on.
    chain = [task(str(n), "work", *([str(n - 1)] if n else []), params={"n": n}, on_failure="skip") for n in range(8)]
    execution = _run(url, [work], *chain)
    steps = [execution[str(n)] for n in range(8)]
    assert [step.result for step in steps] == [{"value": 1}, None, None, "3", "told 4", None, 7, None]
    assert [step.error_code for step in steps] == [None, "refused", "tool_error", None, None, "refused", None, None]
    assert steps[2].error == "ValueError: "
    assert (steps[6].usage, steps[6].cost_usd) == ({"pages": 2}, 0.5)
    assert [(call.task_id, call.params, call.attempt) for call in work.calls] == [
        (str(n), {"n": n}, 1) for n in range(8)
    ]
    assert work.calls[0].idempotency_key == f"{execution.id}:0:0"


def test_a_script_by_task_does_not_care_in_which_order_the_tasks_call(url: str) -> None:
    work = ScriptedTool("work", {"a": ["A"], "b": ["B"], "c": ["C"]}, effect="pure")
    execution = _run(url, [work], task("c", "work"), task("a", "work"), task("b", "work", "a"))
    assert {id: execution[id].result for id in "abc"} == {"a": "A", "b": "B", "c": "C"}


def test_a_script_may_go_on_for_ever(url: str) -> None:
    work = ScriptedTool("work", itertools.repeat("again"), effect="pure")
    execution = _run(url, [work], *(task(str(n), "work") for n in range(20)))
    assert {step.result for step in execution.sub_steps} == {"again"}
    assert len(work.calls) == 20


def test_after_its_last_entry_a_call_fails_and_says_so(url: str) -> None:
    work = ScriptedTool("work", ["only"], effect="pure")
    by_task = ScriptedTool("by_task", {"3": []}, effect="pure")
    execution = _run(
        url, [work, by_task], task("1", "work"), task("2", "work", "1"), task("3", "by_task"), task("4", "by_task")
    )
    assert execution.status is ExecutionStatus.PARTIAL
    assert {execution[id].error_code for id in "234"} == {"script_ended"}
    assert execution["2"].error == "The script of the tool 'work' has ended; this is its call number 2."
    assert (execution["3"].error or "").startswith("The script of the tool 'by_task' for '3' has ended;")
    assert execution["4"].error == "The script of the tool 'by_task' has nothing for '4', only for '3'."


@pytest.mark.parametrize("script", ["text", {"1": "text"}, 7, {"1": 7}])
def test_what_is_no_script_is_refused_at_once(script: Any) -> None:
    with pytest.raises(Misconfigured, match="it is a list with an entry per call"):
        ScriptedTool("work", script)


def test_an_effect_that_does_not_exist_is_refused_at_once() -> None:
    with pytest.raises(Misconfigured, match="'pure', 'idempotent' or 'once'"):
        ScriptedTool("work", [], effect="twice")  # type: ignore[arg-type]


def test_an_entry_can_wait_for_the_clock_of_the_test(url: str) -> None:
    async def main() -> None:
        clock = FakeClock()
        slow = ScriptedTool("slow", [after(5, "late"), after(2, after(3, KeyError("k")))], effect="pure", clock=clock)
        async with Dagbok(url, tools=[slow], clock=clock) as dagbok:
            submitted = await dagbok.submit(plan(task("1", "slow"), task("2", "slow", "1")))
            await slow.called(1)
            await clock.advance(5)
            await slow.called(2)
            await clock.advance(5)
            execution = await dagbok.wait(submitted.execution_id)
        assert (execution["1"].result, execution["1"].duration_ms) == ("late", 5000)
        assert (execution["2"].error, execution["2"].duration_ms) == ("KeyError: 'k'", 5000)

    asyncio.run(main())


def test_waiting_without_a_clock_says_what_is_missing(url: str) -> None:
    execution = _run(url, [ScriptedTool("slow", [after(5, "late")], effect="pure")], task("1", "slow"))
    assert execution["1"].error == "`after` in the script of the tool 'slow' needs a clock: give it `clock=`."


def test_the_signal_of_a_call_comes_for_each_that_waits_for_it(url: str) -> None:
    async def main() -> None:
        work = ScriptedTool("work", [Hang(), "b"], effect="pure")
        async with Dagbok(url, tools=[work], close_grace_s=0) as dagbok:
            second = asyncio.ensure_future(work.called(2))
            submitted = await dagbok.submit(plan(task("1", "work")))
            first, same = await asyncio.gather(work.called(), work.called(1))
            assert first is same
            assert (first.task_id, first.execution_id) == ("1", submitted.execution_id)
            assert not second.done()
            await dagbok.run(plan(task("2", "work")))
            assert (await second).task_id == "2"
            assert (await work.called(1)) is first, "a call that has come is there at once"

    asyncio.run(main())


# -- in the place of another tool -------------------------------------------------------------------------------------


def test_a_scripted_tool_takes_the_place_of_one_that_ships(url: str) -> None:
    fetch = ScriptedTool("http_request", [{"status": 200}])
    execution = _run(url, [fetch], task("1", "http_request", params={"method": "GET", "url": "https://example.com/"}))
    assert execution["1"].result == {"status": 200}
    # Its effect depends on the method, and that stays so.
    assert execution["1"].effect == Effect.PURE


def test_a_plan_is_still_checked_by_the_schema_of_the_tool_whose_place_is_taken(url: str) -> None:
    with pytest.raises(InvalidPlan, match="url"):
        _run(url, [ScriptedTool("http_request", ["never"])], task("1", "http_request"))


@pytest.mark.parametrize("first", [True, False])
def test_it_takes_the_place_of_a_users_own_tool_before_or_behind_it_in_the_list(url: str, first: bool) -> None:
    @tool(effect="idempotent", timeout_seconds=3, max_concurrency=2, aliases=("post",), retry={"max_attempts": 5})
    def publish(text: str) -> str:
        """Publish a text."""
        raise AssertionError("the real one must not be called")

    scripted = ScriptedTool("publish", {"1": ["published"], "2": ["again"]})
    tools: list[Callable[..., Any]] = [scripted, publish] if first else [publish, scripted]
    execution = _run(url, tools, task("1", "publish", params={"text": "x"}), task("2", "post", params={"text": "y"}))
    assert (execution["1"].result, execution["2"].result) == ("published", "again")
    assert execution["1"].effect == Effect.IDEMPOTENT

    registry = Registry.from_(tools=[publish, scripted])
    made = registry.get("post")
    assert made is registry.get("publish")
    assert made is not None
    assert (made.timeout_s, made.max_concurrency, made.description) == (3, 2, "Publish a text.")
    assert made.stoppable, "the real one runs in a thread, which nothing stops; a script is no thread"
    assert len(registry) == 1


def test_nothing_stands_in_for_a_tool_that_is_never_called(url: str) -> None:
    with pytest.raises(Misconfigured, match="Nothing can stand in for 'wait'"):
        _run(url, [ScriptedTool("wait", ["never"])], task("1", "wait", params={"seconds": 1}))


def test_two_tools_of_one_name_that_are_not_scripted_are_still_refused() -> None:
    registry = Registry()
    registry.add(tool(name="work")(lambda: 1))
    with pytest.raises(Misconfigured, match="Two tools are called 'work'"):
        registry.add(tool(name="work")(lambda: 2))


def test_where_there_is_no_such_tool_its_own_options_count(url: str) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    made = as_tool(
        ScriptedTool(
            "new",
            [],
            effect="pure",
            description="New.",
            parameters=schema,
            timeout_seconds=9,
            max_concurrency=4,
            idle_timeout_seconds=2,
            retry={"max_attempts": 7},
        )
    )
    assert (made.name, made.effect, made.description, made.parameters) == ("new", Effect.PURE, "New.", schema)
    assert (made.timeout_s, made.max_concurrency, made.idle_timeout_s, made.retry) == (9, 4, 2, {"max_attempts": 7})
    assert as_tool(ScriptedTool("other", [])).effect is Effect.ONCE


def test_a_class_or_a_callable_that_only_looks_like_a_tool_is_none() -> None:
    with pytest.raises(Misconfigured, match="it is a class"):
        as_tool(ScriptedTool)

    class Blueprint:
        """A class with all that its instances need to be tools."""

        name, description, parameters, effect = "x", "", {"type": "object"}, Effect.PURE
        timeout_s, max_concurrency, aliases, timer = None, None, (), False
        idle_timeout_s, retry, stoppable = None, None, True

        async def __call__(self, call: Call) -> None:
            return None

    assert as_tool(Blueprint()).name == "x"
    with pytest.raises(Misconfigured, match="it is a class"):
        as_tool(Blueprint)

    class Unready:
        """A proxy with nothing behind it yet: whoever looks at it gets an error."""

        def __getattr__(self, name: str) -> Any:
            raise RuntimeError("nothing behind this")

        def __call__(self, n: int) -> int:
            return n

    assert not is_spec(Unready())
    assert as_tool(functools.partial(_plus, b=1)).parameters["properties"].keys() >= {"a"}


def _plus(a: int, b: int) -> int:
    return a + b


def test_a_once_tool_that_is_cut_off_asks_whether_it_happened(url: str) -> None:
    """What a user tests with it: the plan's own behaviour after a crash, without one."""

    async def main() -> None:
        send = ScriptedTool("send", [Hang(), "sent"], effect="once")
        async with Dagbok(url, tools=[send], close_grace_s=0) as dagbok:
            submitted = await dagbok.submit(plan(task("1", "send")))
            await send.called()
        async with Dagbok(url, tools=[send]) as dagbok:
            execution = await dagbok.wait(submitted.execution_id)
            assert execution["1"].status is StepStatus.WAITING
            await dagbok.answer(submitted.execution_id, "1", {"decision": "retry"})
            execution = await dagbok.wait(submitted.execution_id)
        assert execution["1"].result == "sent"
        assert len(send.calls) == 2

    asyncio.run(main())
