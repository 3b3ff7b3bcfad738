"""Plans with model calls through the whole engine: real SQLite, real HTTP, and what the diary says of it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from dagbok import Dagbok
from dagbok.errors import Misconfigured
from dagbok.wire import Execution, SubStep
from llm.asked import named
from llm.providers import WAIT_S, Script, Server, fails, hangs, hangs_in_the_stream, says

chat = pytest.mark.parametrize("server", ["openai-chat"], indirect=True)


def inference(id: str, *, needs: str | None = None, seconds: float | None = None, **params: Any) -> dict[str, Any]:
    prompt = f"Go on from <Result from Task {needs}>" if needs else "Begin"
    return {
        "id": id,
        "action_type": "inference",
        "tool_or_prompt": {"name": "inference", "params": {"prompt": prompt, **params}},
        "timeout_seconds": seconds,
    }


def plan(*tasks: dict[str, Any], synthesis: str | None = "Say it") -> dict[str, Any]:
    return {
        "original_request": "Tell me",
        "intent": {"primary": "telling"},
        "sub_tasks": list(tasks),
        "synthesis_plan": synthesis,
    }


def run(folder: Path, plan: dict[str, Any], **settings: Any) -> Execution:
    async def go() -> Execution:
        async with Dagbok(f"sqlite:///{folder / 'dagbok.db'}", **settings) as dagbok:
            return await dagbok.run(plan)

    return asyncio.run(go())


def test_a_plan_of_model_calls_ends_with_its_bill(server: Server, tmp_path: Path) -> None:
    server.script = [says("a beginning"), says('{"n": ', "7}", cached=400), says("All ", "told.")]
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    execution = run(
        tmp_path, plan(inference("1"), inference("2", needs="1", output_schema=schema)), model=named(server)
    )
    assert execution.status == "completed"
    assert execution.final_result == "All told."
    first, second, synthesis = execution.sub_steps
    assert (first.result, second.result, synthesis.result) == ("a beginning", {"n": 7}, "All told.")
    assert "a beginning" in str(server.requests[1].body)
    usage = {"requests": 1, "inputTokens": 1_000, "outputTokens": 100}
    assert (first.usage, second.usage, synthesis.usage) == (usage, usage | {"cacheReadTokens": 400}, usage)
    assert {step.model for step in execution.sub_steps} == {named(server).replace("openai-chat", "openai")}
    costs = [step.cost_usd for step in execution.sub_steps]
    assert all(costs)
    assert execution.total_cost_usd == pytest.approx(sum(cost or 0 for cost in costs))
    assert execution.total_usage == {"requests": 3, "inputTokens": 3_000, "outputTokens": 300, "cacheReadTokens": 400}


@chat
def test_a_failed_attempt_is_paid_for_too(server: Server, tmp_path: Path) -> None:
    server.script = [says('{"n": "one"}'), says('{"n": "two"}')]
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    execution = run(tmp_path, plan(inference("1", output_schema=schema), synthesis=None), model=named(server))
    (step,) = execution.sub_steps
    assert (execution.status, step.error_code) == ("failed", "invalid_output")
    assert step.usage == execution.total_usage == {"requests": 2, "inputTokens": 2_000, "outputTokens": 200}
    assert step.cost_usd == execution.total_cost_usd == pytest.approx(0.007)
    assert step.model == "openai:gpt-4o"


@chat
@pytest.mark.parametrize(
    ("script", "params", "settings", "code"),
    [
        (fails(429), {}, {"retry_max_attempts": 1}, "rate_limited"),
        (says("unheard"), {"model": "nobody:has-this"}, {}, "misconfigured"),
        (says("unheard"), {"model": "openai:o9"}, {"models": ("openai:gpt-*",)}, "refused"),
    ],
)
def test_a_model_call_that_fails_fails_its_step_alone(
    server: Server, tmp_path: Path, script: Script, params: dict[str, Any], settings: dict[str, Any], code: str
) -> None:
    server.script = [script]
    execution = run(tmp_path, plan(inference("1", **params), synthesis=None), model=named(server), **settings)
    (step,) = execution.sub_steps
    assert (step.status, step.error_code) == ("failed", code)
    assert (step.usage, step.cost_usd, execution.total_cost_usd) == (None, None, None)


@chat
def test_a_busy_model_is_asked_again_when_it_says(server: Server, tmp_path: Path) -> None:
    server.script = [fails(429, headers={"Retry-After": "1"}), fails(503), says("after all")]
    execution = run(tmp_path, plan(inference("1"), synthesis=None), model=named(server), retry_backoff_s=0.05)
    (step,) = execution.sub_steps
    assert (step.status, step.result, step.attempt) == ("completed", "after all", 3)
    assert [(tried.outcome, tried.error_code) for tried in step.attempts] == [
        ("failed", "rate_limited"), ("failed", "unavailable")
    ]  # fmt: skip
    assert tried_after(step, 2) >= 1


def tried_after(step: SubStep, number: int) -> float:
    """Return the seconds between the end of the attempt before and the start of this one."""
    ended, began = step.attempts[number - 2].completed_at, step.attempts[number - 1].started_at
    assert began is not None
    return (began - ended).total_seconds()


def test_a_slow_answer_is_cut_off_by_the_engine_which_hangs_up(server: Server, tmp_path: Path) -> None:
    server.script = [hangs]
    hurried = plan(inference("1", seconds=0.3), synthesis=None)
    execution = run(tmp_path, hurried, model=named(server), retry_max_attempts=1)
    (step,) = execution.sub_steps
    assert step.error_code == "timeout"
    assert server.left.wait(WAIT_S), "the connection is still open"


def test_engines_on_different_loops_each_have_their_own_connections(server: Server, tmp_path: Path) -> None:
    """One after the other and side by side: an event loop can use no connection of another."""
    for _ in range(2):
        assert run(tmp_path, plan(inference("1")), model=named(server)).status == "completed"

    async def both() -> list[Execution]:
        one, other = tmp_path / "one", tmp_path / "other"
        one.mkdir()
        other.mkdir()
        run_in = [asyncio.to_thread(run, folder, plan(inference("1")), model=named(server)) for folder in (one, other)]
        return list(await asyncio.gather(*run_in))

    assert [execution.status for execution in asyncio.run(both())] == ["completed", "completed"]


def test_what_was_written_so_far_is_on_the_row_while_it_is_written(server: Server, tmp_path: Path) -> None:
    server.script = [hangs_in_the_stream]

    async def go() -> None:
        async with Dagbok(f"sqlite:///{tmp_path / 'dagbok.db'}", model=named(server)) as dagbok:
            submitted = await dagbok.submit(plan(inference("1"), synthesis=None))
            async with asyncio.timeout(WAIT_S):
                while True:
                    (step,) = (await dagbok.get(submitted.execution_id)).sub_steps
                    if step.progress and "characters: wait" in step.progress["message"]:
                        break
                    await asyncio.sleep(0.02)
            await dagbok.cancel(submitted.execution_id)
            assert await asyncio.to_thread(server.left.wait, WAIT_S), "the connection is still open"

    asyncio.run(go())


def test_a_model_that_cannot_work_keeps_the_engine_from_opening(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(Misconfigured, match="OPENAI_API_KEY"):
        run(tmp_path, plan(inference("1")), model="openai:gpt-5")
    assert not (tmp_path / "dagbok.db").exists()
